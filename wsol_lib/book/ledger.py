"""The ledger as a page shows it: verdicts with their evidence, the papers' tables with ours beside them, and their slips.

What is decided, and how, is in :mod:`wsol_lib.book.claims`; nothing here measures or judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import NamedTuple

import numpy as np
from IPython.display import HTML, Markdown

from wsol_lib.book import results
from wsol_lib.book.claims import Claim, Decision, Evidence, Records, printed_numbers
from wsol_lib.book.profiles import PROFILES

TITLES = {"psol": "PSOL", "evaluation": "Evaluating WSOL right", "slt": "SLT-Net", "lchp": "LCHP"}
#: Verdict -> symbol and colour: told apart without seeing the colour.
LIGHTS = {
    "reproduced": ("✔", "#009E73"),
    "contradicted": ("✘", "#D55E00"),
    "not at this scale": ("≈", "#E69F00"),
    "not run": ("○", "#7F7F7F"),
}
NONE = "<p><em>none</em></p>"

# -- claims ------------------------------------------------------------------------------------------------------------


def listed(decisions: Iterable[Decision], *, reasons: bool = False) -> HTML:
    """Claims as lines that open; with ``reasons``, why it is so stands below each as far as a chapter has measured that."""
    lines = []
    for decision in decisions:
        lines.append(_details(decision))
        if reasons and decision.claim.reason:
            lines.append(f'<p style="margin-left: 1.5em">{escape(decision.claim.reason)}</p>')
    return HTML("".join(lines) or NONE)


def waiting(decisions: Iterable[Decision]) -> HTML:
    """The claims that were not run, under what it would take to run them, the most wanted first."""
    needs: dict[str, list[Claim]] = {}
    for decision in decisions:
        if decision.verdict == "not run":
            needs.setdefault(_wanting(decision.claim), []).append(decision.claim)
    symbol, _ = LIGHTS["not run"]
    lines = []
    for need, own in sorted(needs.items(), key=lambda item: -len(item[1])):
        items = [f"<li>{escape(c.claim)} <small>({TITLES[c.paper]}, {escape(c.place)})</small></li>" for c in own]
        summary = f"<summary>{symbol} {need} <strong>({len(own)})</strong></summary>"
        lines.append(f"<details>{summary}<ul>{''.join(items)}</ul></details>")
    return HTML("<p>Not run:</p>" + ("".join(lines) or NONE))


def _details(decision: Decision) -> str:
    """One claim as a line that opens."""
    claim, evidence, (symbol, colour) = decision.claim, decision.evidence, LIGHTS[decision.verdict]
    cells = [f"{name}: {value:g}" if value is not None else name for name, value in printed_numbers(claim)]
    lines = [f"<p>{escape(claim.place)}; data: {', '.join(claim.datasets)}.{' Printed:' if cells else ''}</p>"]
    lines.append(_items(map(escape, cells)))
    if claim.measured:
        lines.append(f"<p>Confirmed if {escape(claim.confirmed)}.{' Measured:' if evidence else ''}</p>")
        lines.append(_items(map(_evidence, evidence), always=True))
    if decision.disagreement:
        lines.append("<p><strong>The evidence does not agree:</strong> what comes first decides.</p>")
    if evidence and claim.smaller:
        smaller = escape(claim.smaller)
        lines.append(f"<p>Smaller than the paper's run, so it may confirm and not contradict: {smaller}.</p>")
    if decision.verdict == "not run":
        lines.append(f"<p>{_wanting(claim)}</p>")
    tried = f" <small>(on {escape(evidence[0].record['dataset'])})</small>" if evidence else ""
    style = f"border-left: 0.5em solid {colour}; padding: 0.1em 0 0.1em 0.6em; margin: 0.3em 0"
    return (
        f'<details style="{style}"><summary>{symbol} <strong>{decision.verdict}</strong>{tried}: '
        f"{escape(claim.claim)}</summary>{''.join(lines)}<p><code>{claim.id}</code></p></details>"
    )


def _items(lines: Iterable[str], always: bool = False) -> str:
    items = [f"<li>{line}</li>" for line in lines]
    return f"<ul>{''.join(items)}</ul>" if items or always else ""


def _evidence(found: Evidence) -> str:
    symbol, _ = LIGHTS[found.verdict]
    low, value, high = (_number(number, found.name) for number in (found.low, found.value, found.high))
    between = f" ({low} to {high})" if found.low < found.high else ""
    return (
        f"{symbol} <em>{escape(found.name)}</em>: <strong>{value}</strong>{between}, profile {found.profile}, "
        f"{_link(found.chapter)}; {escape(_origin(found.record))}"
    )


def _number(value: float, name: str) -> str:
    """With its sign if it is a difference."""
    return format(value, ("+" if " minus " in name else "") + (".2f" if abs(value) >= 1 else ".3f"))


def _link(chapter: str) -> str:
    return f'<a href="{chapter}.html">{chapter}</a>'


def _origin(record: Mapping) -> str:
    """The circumstances of a record, in words."""
    facts = [f"{record['n']:,} images of {record['dataset']}" if record["n"] else f"exact, {record['dataset']}"]
    facts += [str(record["backbone"])] if "backbone" in record else []
    several = record.get("seeds", 1) > 1
    facts += [f"{record['seeds']} seeds from {record['seed']}" if several else f"seed {record['seed']}"]
    return ", ".join([*facts, f"commit {record['commit']}", record["date"], record["device"]])


def _wanting(claim: Claim) -> str:
    """What it would take to run a claim."""
    if claim.wanting:
        return "It would take " + re.sub("`(.+?)`", r"<code>\1</code>", escape(claim.wanting)) + "."
    chapters = sorted({measured["chapter"][:2] for measured in claim.measured})
    return f"It would take <code>python -m wsol_lib book --chapters {' '.join(chapters)}</code>."


# -- the papers' tables ------------------------------------------------------------------------------------------------

_TABLE_5 = {
    "baseline": "CAM at 5 × the rate",
    "new optimization": "CAM (new optimization)",
    "new optimization, SMT loss": "L_SMT",
    "new optimization, SMT loss, top-K maps": "L_SMT, top-K ACAM",
    "new optimization, VST loss": "L_VST",
    "new optimization, SMT loss, top-K maps, VST loss": "SLT",
}
#: Paper, table and row, as a pattern -> records of the same method, (chapter, name); the first pattern that fits counts.
HERE = {
    "psol table 2 .*": [("06-psol", "million parameters, {row}"), ("06-psol", "GFLOPs, {row}")],
    "evaluation table 1 .*": [
        ("01-task-and-data", f"{name}/images a class, {{row}}") for name in ("imagenet", "cub", "openimages")
    ],
    "evaluation table 2 CAM": [("04-after-cam", "MaxBoxAcc, CAM"), ("09-fair-evaluation", "CAM")],
    "evaluation table 2 centre": [
        ("01-task-and-data", f"{name}/best centred box") for name in ("imagenet", "cub", "tiny-imagenet", "synthbirds")
    ],
    "evaluation table 2 .*": [("04-after-cam", "{row} minus CAM"), ("09-fair-evaluation", "{row} minus CAM")],
    **{f"slt table 5 {row}": [("07-slt", f"photographs: {name}"), ("07-slt", name)] for row, name in _TABLE_5.items()},
    "slt table 6 SLT.*": [("07-slt", "photographs: SLT"), ("07-slt", "SLT")],
    "slt .*SLT-Net": [("07-slt", "SLT regressor"), ("09-fair-evaluation", "SLT")],
    "lchp table [12] (Pseudo Label|LCHP-I|LCHP-R)": [("08-lchp", "photographs: {row}"), ("08-lchp", "{row}")],
    "lchp table 6 (scale|translation|flip)": [("08-lchp", "LCHP-R, {row} only minus LCHP-I")],
    "lchp .*LayerCAM.*": [("04-after-cam", "LayerCAM, stage 4 minus Grad-CAM")],
    "(psol|slt|lchp) .*PSOL.*": [
        ("06-psol", "student, 12,000 images, the teacher's boxes"),
        ("06-psol", "student of DDT, resize first"),
    ],
    "(psol|slt) .*DDT.*": [("05-ddt", "DDT, an eigenvector a class")],
    "(psol|slt|lchp) (?!.*Grad).*CAM.*": [("02-cam", "CAM at its best τ (MaxBoxAcc)")],
}


class Measured(NamedTuple):
    """A record of the method of a printed row."""

    chapter: str
    profile: str
    name: str
    record: Mapping


def here(records: Records, paper: str, table: str, row: str) -> list[Measured]:
    """What the chapters have recorded of the method of a row (``HERE``): each record of the largest profile that has it.

    Args:
        records: as from :func:`wsol_lib.book.claims.recorded`
        paper, table, row: as in :func:`wsol_lib.book.results.printed`
    """
    places = next((found for pattern, found in HERE.items() if re.fullmatch(pattern, f"{paper} {table} {row}")), [])
    found = []
    for chapter, template in places:
        name = template.format(row=row)
        profile = next((p for p in reversed(PROFILES) if name in records.get((chapter, p), {})), None)
        if profile:
            found.append(Measured(chapter, profile, name, records[chapter, profile][name]))
    return found


def tables(records: Records) -> HTML:
    """All tables of the papers, each a line that opens, with what was measured here of their rows."""
    known = results.printed_tables()
    return HTML("".join(_table(records, paper, table) for paper in TITLES for table in known.get(paper, ())))


def _table(records: Records, paper: str, table: str) -> str:
    rows = results.printed(paper, table)
    columns = list(next(iter(rows.values())))
    found = {row: here(records, paper, table, row) for row in rows}
    same: dict[str, list[str]] = {}  # rows of one method with several backbones, of which we have one
    for row, own in found.items():
        if own:
            same.setdefault("<br>".join(map(_here_item, own)), []).append(row)
    items = _items(f"<strong>{escape(', '.join(names))}</strong>: {text}" for text, names in same.items())
    number = sum(map(bool, found.values()))
    summary = (
        f"<strong>{TITLES[paper]}, {table.capitalize()}</strong>: {escape(', '.join(columns[:3]))}"
        f"{' ...' if len(columns) > 3 else ''}; {number} of {len(rows)} rows measured here"
    )
    parts = "".join(_columns(rows, columns[begin : begin + 4]) for begin in range(0, len(columns), 4))
    return f"<details><summary>{summary}</summary>{parts}{f'<p>Here:</p>{items}' if items else ''}</details>"


def _columns(rows: Mapping[str, Mapping[str, float | None]], columns: list[str]) -> str:
    """Four columns at a time, so that a table fits a phone."""
    lines = ["<th></th>" + "".join(f"<th>{escape(column)}</th>" for column in columns)]
    for row, cells in rows.items():
        numbers = ("" if cells[column] is None else format(cells[column], "g") for column in columns)
        lines.append(f"<th>{escape(row)}</th>" + "".join(f"<td>{number}</td>" for number in numbers))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div style="overflow-x: auto"><table>{body}</table></div>'


def _here_item(found: Measured) -> str:
    """One record in the unit of the tables, and where it was measured."""
    record, name, value = found.record, found.name, found.record["value"]
    if not record["n"]:
        shown = _number(value, name)
    else:
        shown = f"{100 * value:+.1f} points" if " minus " in name else f"{100 * value:.1f} %"
    facts = [record["dataset"], *([record["backbone"]] if "backbone" in record else []), found.profile]
    return f"{shown} <small>{escape(name)}: {escape(', '.join(facts))}, {_link(found.chapter)}</small>"


# -- slips -------------------------------------------------------------------------------------------------------------


class Slip(NamedTuple):
    """A number or a statement of a paper that other numbers of the papers do not bear out."""

    paper: str
    place: str
    printed: float | str
    by_the_numbers: str


def slips() -> list[Slip]:
    """What does not add up in the papers' numbers, computed from their tables; empty where these are not at hand.

    A last digit that was cut off instead of rounded is left out.
    """
    if not results.printed_tables():
        return []
    papers = {"psol": _slips_of_psol, "evaluation": _slips_of_evaluation, "slt": _slips_of_slt, "lchp": _slips_of_lchp}
    return [Slip(paper, *found) for paper, find in papers.items() for found in find()]


def listed_slips() -> Markdown:
    """A list of :func:`slips`."""
    return Markdown(
        "\n".join(
            f"- **{TITLES[slip.paper]}**, {slip.place}: printed {slip.printed}, by the numbers {slip.by_the_numbers}."
            for slip in slips()
        )
    )


Found = Iterator[tuple[str, "float | str", str]]


def _cells(paper: str, table: str, column: str) -> dict[str, float]:
    return {row: values[column] for row, values in results.printed(paper, table).items() if values[column] is not None}


def _slips_of_evaluation() -> Found:
    centre = results.printed("evaluation", "table 2")["centre"]
    mean = np.mean([centre[f"{name} mean"] for name in ("ImageNet", "CUB", "OpenImages")])
    yield "Table 2, total mean of the centre", centre["total mean"], f"{mean:.1f}"
    boxed = results.printed("evaluation", "table 1")["train-fullsup"]["OpenImages"]
    yield "Table 2's caption, boxed images a class of OpenImages", 5, f"{boxed:g} in Table 1"
    cam, other = _cells("evaluation", "table 2", "CUB VGG")["CAM"], _cells("psol", "table 1", "CUB-200")["VGG16-CAM"]
    yield "Table 2, CAM with VGG on CUB", cam, f"{other} in PSOL's Table 1: the threshold, the training, or both"


def _slips_of_psol() -> Found:
    sizes, flops = (_cells("psol", "table 2", column) for column in ("million parameters", "GFLOPs"))
    top1, birds = (_cells("psol", "table 2", f"{data} Top-1 Loc") for data in ("ImageNet-1k", "CUB-200"))
    rivals = ("VGG16-CAM", "VGG16-ACoL", "ADL-VGG-GAP", "VGG16-Grad-CAM", "CutMix-VGG-GAP")
    ahead = [top1["DDT-VGG16"] - top1[name] for name in rivals]
    yield "section 5.2, points from VGG16's maps to DDT-VGG16", "2 to 3", f"{min(ahead):.1f} to {max(ahead):.1f}"
    students = [value for name, value in birds.items() if name.startswith("PSOL")]
    better = sum(value > birds["DDT-VGG16"] for value in students)
    yield "section 5.2, PSOL models ahead of DDT-VGG16 on CUB", "all", f"{better} of {len(students)}"
    maps = _cells("psol", "table 1", "CUB-200")
    best = max(value for name, value in maps.items() if "DDT" not in name)
    behind = [name for name, value in maps.items() if "DDT" in name and value < best]
    yield "section 5.1, DDT ahead of all others on CUB", "with every network", f"not with {', '.join(behind)}"
    for name, twin in (("CutMix-VGG-GAP", "VGG16-CAM"), ("CutMix-ResNet50", "ResNet50-CAM")):
        yield f"Table 2, million parameters of {name}", sizes[name], f"{sizes[twin]}, it is the network of {twin}"
    double = 2 * flops["DenseNet161-CAM"]
    yield "Table 2, GFLOPs of PSOL-DenseNet161-Sep", flops["PSOL-DenseNet161-Sep"], f"{double:.2f}, twice one network"
    other = _cells("slt", "table 1", "Top-1 Loc")["VGG16-CAM"]
    yield "Table 2, Top-1 Loc of VGG16-CAM on CUB", birds["VGG16-CAM"], f"{other} in SLT-Net's Table 1"


def _slips_of_slt() -> Found:
    parts, teachers = results.printed("slt", "table 5"), results.printed("slt", "table 6")
    plain, new, full = parts["baseline"], parts["new optimization"], list(parts.values())[-1]
    swapped = f"{plain['CUB']} and {plain['ILSVRC2012']} in Table 5, so the data sets are swapped"
    yield "section 4.2, CAM on CUB and ILSVRC", "59.0 and 58.0", swapped
    gain, whole = (full["ILSVRC2012"] - start["ILSVRC2012"] for start in (new, plain))
    yield "section 4.2, points gained on ILSVRC", 2.4, f"{gain:.1f} over the new optimization, {whole:.1f} over CAM"
    yield "section 4.2, DDT's best on CUB", 85.6, f"{teachers['DDT-VGG16']['CUB']} in Table 6"
    inception = teachers["SLT localizer-InceptionV3"]["ILSVRC2012"]
    yield "section 4.2, localizer with InceptionV3 on ILSVRC", 66.7, f"{inception} in Table 6"
    top1 = {
        data: _cells("psol", "table 2", f"{name} Top-1 Loc")
        for data, name in (("ILSVRC2012", "ImageNet-1k"), ("CUB", "CUB-200"))
    }
    twins = ("ResNet50", "Sep", "ILSVRC2012"), ("DenseNet161", "Sep", "ILSVRC2012"), ("ResNet50", "Joint", "CUB")
    for network, model, data in twins:
        own, twin = teachers[f"SLT localizer-{network}"][data], f"PSOL-{network}-{model}"
        same = f"{top1[data][twin]} is the *Top-1* Loc of {twin}: chance, or a slip"
        yield f"Table 6, GT-known Loc of the localizer with {network} on {data}", own, same
    later = max(_cells("slt", "table 7", "ILSVRC2012 Top-1 Loc").values())
    yield "conclusion, best Top-1 Loc on ILSVRC", 55.7, f"{later} in its own Table 7"


def _slips_of_lchp() -> Found:
    refined, first = (_cells("lchp", "table 5", column) for column in ("LCHP-R", "LCHP-I"))
    least = min(refined[name] - first[name] for name in refined)
    yield "section 4.5, least gain of refinement in Table 5", 2.76, f"{least:.2f}"
    tiny = _cells("lchp", "table 2", "GT-known Loc")
    lead = tiny["LCHP-R"] - max(tiny["GR"], tiny["InfoCAM"])
    yield "section 4.4, points ahead of the best earlier method on Tiny-ImageNet", 4.08, f"{lead:.2f}"
