"""The ledger as a page shows it: verdicts with their evidence, the papers' tables with ours beside them, and their slips.

What is decided, and how, is in :mod:`wsol_lib.book.claims`; nothing here measures or judges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import NamedTuple

import numpy as np
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes

from wsol_lib.book import results
from wsol_lib.book.claims import DECIDED, Change, Claim, Decision, printed_numbers
from wsol_lib.book.evidence import ANNOTATIONS, COUNTED, KINDS, Evidence, Records

TITLES = {"psol": "PSOL", "evaluation": "Evaluating WSOL right", "slt": "SLT-Net", "lchp": "LCHP"}
#: Verdict -> symbol and colour: told apart without seeing the colour; neither boxes nor methods have these colours.
LIGHTS = {
    "reproduced": ("✔", "#332288"),
    "contradicted": ("✘", "#CC6677"),
    "not at this scale": ("≈", "#DDCC77"),
    "not run": ("○", "#CCCCCC"),
}
NONE = "<p><em>none</em></p>"
#: What is said of evidence from boxes.
FLOORS = {
    "above": "; above the whole image and the best centred box",
    "below": "; <strong>not above the whole image and the best centred box</strong>",
    "": "",
}
#: What keeps a claim undecided: a word of ``Decision.why`` -> what it comes down to.
REASONS = {
    "beats": "something compared is not above the floor",
    "smaller": "against the paper, in a smaller run",
    "birds": "painted birds alone, against the paper",
    "Holm": "not beside so many other questions",
    "seed": "fewer than three seeds",
    "control": "the control failed as well",
    "recorded": "not all that it names is recorded",
    "": "the interval lies across the bound",
}

# -- claims ------------------------------------------------------------------------------------------------------------

#: Filters of the page: what a claim's line carries, and how it is called.
FILTERS = {"paper": "Paper", "verdict": "Verdict", "kind": "Evidence"}
_SCRIPT = """
{
  const ledger = document.getElementById("ledger"), asked = new URLSearchParams(location.search);
  const filters = [...ledger.querySelectorAll("select")], claims = [...ledger.querySelectorAll("details")];
  const show = () => {
    for (const claim of claims)
      claim.style.display = filters.every(f => !f.value || claim.dataset[f.name] === f.value) ? "" : "none";
    const number = claims.filter(claim => !claim.style.display).length;
    ledger.querySelector("output").value = `${number} of ${claims.length} claims`;
  };
  for (const f of filters) f.value = asked.get(f.name) ?? "";
  ledger.addEventListener("change", show);
  show();
  const wanted = claims.find(claim => claim.id && "#" + claim.id === location.hash);
  if (wanted) { wanted.open = true; wanted.scrollIntoView(); }
}
"""


def filtered(decisions: Iterable[Decision]) -> HTML:
    """All claims as lines that open, below a form that shows some of them: by paper, verdict and kind of evidence.

    Without its script the page shows all of them. ``ledger.html?verdict=contradicted`` has a filter set, and
    ``ledger.html#ID`` opens a claim.
    """
    decisions = list(decisions)
    values = {
        "paper": TITLES,
        "verdict": {verdict: f"{symbol} {verdict}" for verdict, (symbol, _) in LIGHTS.items()},
        "kind": {kind: kind for kind in KINDS} | {"none": "none"},
    }
    form = "".join(
        f'<label style="display: flex; flex-direction: column">{title}<select name="{name}" style="font: inherit; '
        f'min-height: 2.2rem"><option value="">all</option>'
        + "".join(f'<option value="{value}">{escape(shown)}</option>' for value, shown in values[name].items())
        + "</select></label>"
        for name, title in FILTERS.items()
    )
    lines = "".join(_details(decision) for decision in decisions)
    return HTML(
        '<div id="ledger"><form style="display: flex; flex-wrap: wrap; gap: 0.5rem 1rem; align-items: end" '
        f'onsubmit="return false">{form}<output aria-live="polite">{len(decisions)} claims</output></form>'
        f"{lines or NONE}</div><script>{_SCRIPT}</script>"
    )


def reason(decision: Decision) -> str:
    """What keeps a claim undecided, in the words of ``REASONS``."""
    return next(words for word, words in REASONS.items() if word in decision.why)


def reasons(decisions: Iterable[Decision]) -> Counter[str]:
    """How many claims are *not at this scale* for which reason."""
    return Counter(reason(decision) for decision in decisions if decision.verdict == "not at this scale")


def number_of(decisions: Iterable[Decision], verdict: str, kind: str | None = None) -> int:
    """How many claims have a verdict, by one kind of evidence or by any."""
    return sum(d.verdict == verdict and kind in (None, d.kind) for d in decisions)


def draw_counts(ax: Axes, decisions: Iterable[Decision]) -> None:
    """A bar a kind of evidence, of how many claims have which verdict, with the numbers; the last is of those without."""
    decisions = list(decisions)
    rows = [*KINDS, "none"]
    left = np.zeros(len(rows))
    said = [""] * len(rows)
    for verdict, (symbol, colour) in LIGHTS.items():
        widths = np.array([number_of(decisions, verdict, "" if row == "none" else row) for row in rows])
        ax.barh(rows, widths, left=left, color=colour, edgecolor="white", label=f"{symbol} {verdict}")
        said = [f"{words}  {symbol} {width}" if width else words for words, width in zip(said, widths)]
        left += widths
    for y, (end, words) in enumerate(zip(left, said)):
        ax.text(end, y, words, va="center", fontsize="small")
    ax.invert_yaxis()
    ax.set(xlabel=f"claims, {len(decisions)} in all", xlim=(0, 1.25 * max(left, default=1)))


def corrected(decisions: Iterable[Decision]) -> Markdown:
    """What Holm's correction changes, in words and as a list."""
    decisions = list(decisions)
    asked = sum(d.p is not None for d in decisions)
    taken = [d for d in decisions if d.p is not None and d.why]
    kept = sum(d.p is not None and d.verdict in DECIDED for d in decisions)
    lines = [f"- {d.claim.claim} `{d.claim.id}`: {d.why}." for d in taken]
    text = (
        f"{asked} claims were put to measurements that could have decided them. After the correction {kept} are decided; it "
        f"takes back {len(taken)}{':' if taken else '.'}"
    )
    return Markdown("\n".join([text, "", *lines]))


def changed(changes: Iterable[Change]) -> HTML:
    """What was changed, withdrawn or written after results were known, the latest first."""
    items = (
        f"{escape(one.date)}, <code>{escape(one.commit)}</code>: {escape(one.what)} {escape(one.reason)} "
        f"<details><summary>{len(one.claims)} claims</summary>{escape(', '.join(one.claims))}</details>"
        for one in sorted(changes, key=lambda one: one.date, reverse=True)
    )
    return HTML(_items(items) or NONE)


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
    return HTML("".join(lines) or NONE)


def _details(decision: Decision) -> str:
    """One claim as a line that opens."""
    claim, evidence, (symbol, colour) = decision.claim, decision.evidence, LIGHTS[decision.verdict]
    cells = [f"{name}: {value:g}" if value is not None else name for name, value in printed_numbers(claim)]
    lines = [f"<p>{'Printed:' if cells else ''}</p>{_items(map(escape, cells))}" if cells else ""]
    if claim.measured:
        since = f" ({escape(claim.set)})" if claim.set else ""
        lines.append(f"<p>Confirmed if {escape(claim.confirmed)}{since}.{' Measured:' if evidence else ''}</p>")
        lines.append(_items(map(_evidence, evidence)))
    if decision.why:
        lines.append(f"<p>It decides nothing: {escape(decision.why)}.</p>")
    if decision.late:
        lines.append("<p>The bounds were written on the day of the record or later; the list of changes says why.</p>")
    if decision.disagreement:
        lines.append("<p><strong>The evidence does not agree:</strong> what comes first decides.</p>")
    if evidence and claim.smaller:
        ruled = f"but contradict it: {claim.general}" if claim.general else "and not contradict it"
        lines.append(
            f"<p>Smaller than the paper's run ({escape(claim.smaller)}), it may confirm the claim {ruled}.</p>"
        )
    if decision.verdict == "contradicted" and claim.reason:
        lines.append(f"<p>{escape(claim.reason)}</p>")
    if decision.verdict == "not run":
        lines.append(f"<p>{_wanting(claim)}</p>")
    about = "; ".join(filter(None, [f"{TITLES[claim.paper]}, {claim.place}", decision.kind]))
    style = f"border-left: 0.5em solid {colour}; padding: 0.1em 0 0.1em 0.6em; margin: 0.3em 0"
    return (
        f'<details id="{claim.id}" data-paper="{claim.paper}" data-verdict="{decision.verdict}" '
        f'data-kind="{decision.kind or "none"}" style="{style}"><summary>{symbol} <strong>{decision.verdict}</strong>: '
        f"{escape(claim.claim)} <small>({escape(about)})</small></summary>{''.join(lines)}"
        f"<p>Data of the paper: {', '.join(claim.datasets)}. <code>{claim.id}</code></p></details>"
    )


def _items(lines: Iterable[str]) -> str:
    items = [f"<li>{line}</li>" for line in lines]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _evidence(found: Evidence) -> str:
    symbol, _ = LIGHTS[found.verdict]
    low, value, high = (_number(number, found.name) for number in (found.low, found.value, found.high))
    between = f" ({low} to {high})" if found.low < found.high else ""
    where = _link(ANNOTATIONS) if found.kind == "annotations" else "" if found.profile else "counted here"
    said = [f"profile {found.profile}" if found.profile else "", where, _origin(found.record) if found.profile else ""]
    return (
        f"{symbol} <em>{escape(found.name)}</em>: <strong>{value}</strong>{between}, {', '.join(filter(None, said))}"
        f"{FLOORS[found.floor]}"
    )


def _number(value: float, name: str) -> str:
    """With its sign if it is a difference."""
    return format(value, ("+" if " minus " in name else "") + (".2f" if abs(value) >= 1 else ".3f"))


def _link(chapter: str) -> str:
    return f'<a href="{chapter}.html">{chapter}</a>'


def _origin(record: Mapping) -> str:
    """The circumstances of a record, in words."""
    facts = [f"{record['n']:,} images of {record['dataset']}" if record["n"] else f"exact, {record['dataset']}"]
    if isinstance(record.get("seeds"), list):  # an experiment has an entry a seed
        facts += [f"{len(record['seeds'])} seed{'s' if len(record['seeds']) > 1 else ''}"]
    facts += [f"commit {record['commit']}"] if "commit" in record else []
    return escape(", ".join([*facts, *(record[key] for key in ("date", "device") if key in record)]))


def _wanting(claim: Claim) -> str:
    """What it would take to run a claim."""
    if claim.wanting:
        return "It would take " + re.sub("`(.+?)`", r"<code>\1</code>", escape(claim.wanting)) + "."
    names = dict.fromkeys(place[key] for place in claim.measured for key in ("experiment", "minus") if key in place)
    return f"It would take <code>python -m wsol_lib experiment {' '.join(names)} --profile tiny --record</code>."


# -- the papers' tables ------------------------------------------------------------------------------------------------

_TABLE_5 = {
    "baseline": "slt-baseline",
    "new optimization": "cam",
    "new optimization, SMT loss": "slt-smt",
    "new optimization, SMT loss, top-K maps": "slt-smt-top-k",
    "new optimization, VST loss": "slt-vst",
    "new optimization, SMT loss, top-K maps, VST loss": "slt-maps",
}


def _experiments(*names: str) -> list[tuple[str, str]]:
    """Of the same localizers on photographs and on painted birds."""
    return [("experiment", f"{group}-{name}") for group in ("photos", "birds") for name in names]


#: Paper, table and row, as a pattern -> records of the same method, (key, name) with "experiment", "computed" or the chapter that
#: counts annotations as the key; the first pattern that fits counts.
HERE = {
    "psol table 2 (VGG16-CAM|DDT-VGG16|ResNet50-CAM|DenseNet161-CAM|PSOL-.*-(Sep|Joint))": [
        ("computed", "million parameters, {row}"),
        ("computed", "GFLOPs, {row}"),
    ],
    "evaluation table 1 .*": [
        (ANNOTATIONS, f"{name}/images a class, {{row}}") for name in ("imagenet", "cub", "openimages")
    ],
    "evaluation table 2 CAM": _experiments("cam"),
    "evaluation table 2 centre": [
        (ANNOTATIONS, f"{name}/best centred box") for name in ("imagenet", "cub", "tiny-imagenet", "synthbirds")
    ],
    **{
        f"evaluation table 2 {row}": _experiments(row.lower())
        for row in ("HaS", "ACoL", "SPG", "ADL", "CutMix", "few-shot")
    },
    **{f"slt table 5 {row}": [("experiment", f"photos-{name}")] for row, name in _TABLE_5.items()},
    "slt table 6 SLT.*": [("experiment", "photos-slt-maps")],
    "slt .*SLT-Net": _experiments("slt"),
    "lchp table [12] Pseudo Label": [("experiment", "photos-lchp-pseudo")],
    "lchp table [12] LCHP-I": _experiments("lchp-i"),
    "lchp table [12] LCHP-R": _experiments("lchp-r"),
    "(psol|slt|lchp) .*PSOL.*": _experiments("psol"),
    "(psol|slt) .*DDT.*": _experiments("ddt"),
    "(psol|slt|lchp) (?!.*(Grad|Layer)).*CAM.*": _experiments("cam"),
}


def places() -> list[dict[str, str]]:
    """Where the records beside the papers' tables are, as :func:`wsol_lib.book.claims.recorded` takes them."""
    rows = (
        (f"{paper} {table} {row}", row)
        for paper, tables in results.printed_tables().items()
        for table in tables
        for row in results.printed(paper, table)
    )
    found = {place for printed, row in rows for place in _places(printed, row)}
    return [
        {key: name} if key in ("experiment", "computed") else {"chapter": key, "name": name}
        for key, name in sorted(found)
    ]


def _places(printed: str, row: str) -> list[tuple[str, str]]:
    own = next((found for pattern, found in HERE.items() if re.fullmatch(pattern, printed)), [])
    return [(key, template.format(row=row)) for key, template in own]


class Measured(NamedTuple):
    """A record of the method of a printed row; the profile is empty where it is counted."""

    profile: str
    name: str
    record: Mapping


def here(records: Records, paper: str, table: str, row: str) -> list[Measured]:
    """What is recorded of the method of a row (``HERE``): each record of the largest profile that has it.

    Args:
        records: as from :func:`wsol_lib.book.claims.recorded`
        paper, table, row: as in :func:`wsol_lib.book.results.printed`
    """
    found = []
    for key, name in _places(f"{paper} {table} {row}", row):
        if key == "computed":
            own = records.get((key, name), {})
            found += [Measured("", name, {**own, "n": 0, "dataset": "counted here"})] if own else []
        elif key == "experiment":
            own = records.get((key, name), {}).get("record")
            found += [Measured(own["profile"], name, own)] if own else []
        else:
            profile = next((p for p in reversed(COUNTED) if name in records.get((key, p), {})), None)
            found += [Measured(profile, name, records[key, profile][name])] if profile else []
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
    record, value = found.record, found.record["value"]
    shown = f"{100 * value:.1f} %" if record["n"] else _number(value, found.name)
    facts = ", ".join(filter(None, [record["dataset"], found.profile]))
    return f"{shown} <small>{escape(found.name)}: {escape(facts)}</small>"


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
