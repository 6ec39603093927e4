"""The claims ledger: what four papers say is held against what this book has recorded, by one rule for all.

``book/claims.yaml`` holds the claims. Each says where it is printed, which of our records bear on it, between which bounds they
confirm it, and when these were set; ``book/claims-changes.yaml`` says what was changed, withdrawn or written after the results.

The rule: the 95 % interval of a record wholly inside the bounds is *reproduced*, wholly outside *contradicted*, across *not at
this scale*; without a record a claim is *not run*. And no verdict where it would not carry: :func:`decide` says when.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import yaml

from wsol_lib.book import definitions, evidence, results
from wsol_lib.book.evidence import (
    ANNOTATIONS,
    COUNTED,
    MEASURES,
    OF_SEEDS,
    Evidence,
    Ranges,
    Records,
    evidence_of,
)
from wsol_lib.book.profiles import PROFILES
from wsol_lib.uncertainty import holm

PAPERS = ("psol", "evaluation", "slt", "lchp")
VERDICTS = ("reproduced", "contradicted", "not at this scale", "not run")
DECIDED = VERDICTS[:2]
CHANGES = "claims-changes.yaml"

_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_BOUNDS = {
    rf"above {_NUMBER}": lambda printed, low: [(low, math.inf)],
    rf"below {_NUMBER}": lambda printed, high: [(-math.inf, high)],
    rf"between {_NUMBER} and {_NUMBER}": lambda printed, low, high: [(low, high)],
    rf"more than {_NUMBER} from 0": lambda printed, far: [(-math.inf, -far), (far, math.inf)],
    rf"within {_NUMBER} of printed": lambda printed, far: [(printed - far, printed + far)],
    rf"within {_NUMBER} points of printed": lambda printed, far: [((printed - far) / 100, (printed + far) / 100)],
    rf"within {_NUMBER} percent of printed": lambda printed, far: [
        (printed * (1 - far / 100), printed * (1 + far / 100))
    ],
}
#: Keys of a place -> those that it may have beside them.
_PLACES = {
    ("chapter", "name"): (),
    ("experiment",): ("minus", "measure", "classifier"),
    ("computed",): (),
}


@dataclass(frozen=True)
class Claim:
    """One line of the ledger.

    Args:
        id: short and stable, such as "psol-student-above-teacher"
        paper: one of ``PAPERS``
        place: "Table 5", "section 4.2" ...
        claim: what the paper says, in one plain sentence of ours
        printed: its numbers, if any, each a cell ``[table, row, column]`` of ``paper_tables.yaml``, a number that stands in the
            text, or words
        datasets: on which the paper measured it
        confirmed: "above x", "below x", "between a and b", "more than x from 0"; or "within x of printed", "within x percent of
            printed" and, for shares beside percent, "within x points of printed", which compare the i-th record with the i-th
            cell. In the unit of the records.
        set: date and commit when ``confirmed`` was written, "2026-11-21 f1a903e"
        measured: what bears on it, each ``{chapter, name}`` of what chapter 1 counts in annotations, ``{computed}``, or
            ``{experiment, minus, measure, classifier}``: boxes of the first, minus those of the second, with the classes of a
            third, all but the first may be left out; a claim says *all* of what it names
        compares_with_floor: true where what it compares with is the whole image or the centred box
        fails: true where it says that something fails: then boxes below the whole image are no objection
        control: ``{experiment, minus, measure}`` with ``confirmed``: what must be so beside what fails
        wanting: one line, what it would take to measure it, for a claim that nothing here measures
        smaller: one line, in what the measurement falls short of the paper's setting: it may confirm the claim, but does not
            contradict it
        general: one line, why it contradicts it all the same: the paper says it of every setting, what falls short falls short
            for both sides alike, and the favoured side has nothing more to learn than the other and learns no more slowly;
            never of a printed number
        reason: one line, why our records contradict it, as far as a chapter has measured that
    """

    id: str
    paper: str
    place: str
    claim: str
    printed: Sequence = ()
    datasets: Sequence[str] = ()
    confirmed: str = ""
    set: str = ""
    measured: Sequence[Mapping] = ()
    compares_with_floor: bool = False
    fails: bool = False
    control: Mapping | None = None
    wanting: str = ""
    smaller: str = ""
    general: str = ""
    reason: str = ""


class Decision(NamedTuple):
    """The verdict on a claim.

    Attributes:
        claim, verdict: one of ``VERDICTS``
        evidence: by weight; the first, and all of its weight, decide
        disagreement: whether evidence of less weight decides otherwise
        why: what keeps the evidence from deciding, if something does
        p: of the claim, before Holm's correction; None where nothing was sampled, or it could not decide anyway
        late: whether the bounds were written on the day of a deciding record or later
    """

    claim: Claim
    verdict: str
    evidence: Sequence[Evidence]
    disagreement: bool
    why: str = ""
    p: float | None = None
    late: bool = False

    @property
    def kind(self) -> str:
        """One of ``KINDS``; empty without evidence."""
        return self.evidence[0].kind if self.evidence else ""


@dataclass(frozen=True)
class Change:
    """What was done to claims or records after results were known.

    Args:
        date, commit: when
        claims: ids, also of those that are no longer there
        what, reason: a sentence each
    """

    date: str
    commit: str
    claims: Sequence[str]
    what: str
    reason: str


def load(path: str | Path | None = None) -> list[Claim]:
    """The claims of a ledger; of ``claims.yaml`` here or in ``book`` if no path is given, and none if it is not at hand.

    Raises:
        FileNotFoundError: no file at ``path``
        ValueError: no list of entries in YAML; an entry that lacks something, says something unknown, or comes twice
    """
    path = path or _near("claims.yaml")
    if path is None:  # a chapter that was opened alone
        return []
    experiments = _experiments()
    claims, seen = [], set()
    for entry in _entries(Path(path)):
        claims.append(_checked(entry, experiments))
        if claims[-1].id in seen:
            raise ValueError(f"expected every id once, found {claims[-1].id!r} twice in {path}: rename one of the two")
        seen.add(claims[-1].id)
    return claims


def changes(path: str | Path | None = None) -> list[Change]:
    """What was changed, withdrawn or written after results were known; of ``claims-changes.yaml``, found as by :func:`load`.

    Raises:
        FileNotFoundError: no file at ``path``
        ValueError: no list of entries in YAML; an entry that lacks something, or says something unknown
    """
    path = path or _near(CHANGES)
    known = [field.name for field in fields(Change)]
    found = [] if path is None else _entries(Path(path))
    for entry in found:
        if set(entry) != set(known) or not all(entry.values()):
            raise ValueError(
                f"expected {', '.join(known)} in each change of {path}, found {', '.join(map(str, entry))}: mend this entry"
            )
    return [Change(**entry) for entry in found]


def _near(name: str) -> Path | None:
    return next((path for path in (Path(name), Path("book") / name) if path.exists()), None)


def _entries(path: Path) -> list[Mapping]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a ledger of claims at {path}, found no such file: correct the path")
    try:
        entries = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(
            f"expected claims in YAML in {path}, found something else ({error}): mend it or restore it"
        ) from error
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        found = "no list" if not isinstance(entries, list) else "entries that are none"
        raise ValueError(
            f"expected a list of claims, each with keys and values, in {path}, found {found}: mend it or restore it"
        )
    return entries


def _checked(entry: Mapping, experiments: set[str]) -> Claim:
    """The entry as a claim, or a ValueError that names the entry."""
    name, known = entry.get("id", str(entry)[:60]), [field.name for field in fields(Claim)]
    lacking = [key for key in ("id", "paper", "place", "claim", "datasets") if not entry.get(key)]
    unknown = [key for key in entry if key not in known]
    if lacking or unknown:
        found = " and ".join([f"no {key}" for key in lacking] + [f"{key!r}" for key in unknown])
        raise ValueError(f"expected the keys {', '.join(known)} in claim {name!r}, found {found}: mend this entry")
    claim = Claim(**entry)
    if not isinstance(claim.measured, list | tuple) or not all(isinstance(own, Mapping) for own in claim.measured):
        raise ValueError(
            f"expected a list of {{chapter, name}} as measured in claim {name!r}, found {claim.measured!r}: mend this entry"
        )
    if claim.paper not in PAPERS:
        raise ValueError(
            f"expected a paper out of {', '.join(PAPERS)} in claim {name!r}, found {claim.paper!r}: name one"
        )
    if bool(claim.measured) != bool(claim.confirmed) or not (claim.measured or claim.wanting):
        raise ValueError(
            f"expected measured with confirmed, or wanting, in claim {name!r}, found {', '.join(entry)}: say which records "
            "bear on it and what would confirm it, or what it would take"
        )
    if claim.measured and not re.fullmatch(r"\d{4}-\d\d-\d\d [0-9a-f]{7,40}", str(claim.set)):
        raise ValueError(
            f"expected a date and a commit, such as '2026-11-21 f1a903e', as set in claim {name!r}, found {claim.set!r}: say "
            "when its bounds were written"
        )
    if claim.general and ("printed" in claim.confirmed or not claim.smaller or _only_birds(claim)):
        raise ValueError(
            f"expected general of a direction that the paper says of photographs of everything, with smaller, in claim {name!r}, "
            f"found {claim.confirmed!r} on {', '.join(claim.datasets)}: leave general out"
        )
    if bool(claim.fails) != bool(claim.control):
        raise ValueError(
            f"expected fails with control in claim {name!r}, found {claim.fails} and {claim.control}: mend this entry"
        )
    for place in _named(claim):
        _check_place(name, place, experiments)
    for i in range(len(claim.measured)):
        bounds_of(claim, i, printed=0.0)
    if claim.control:
        _ranges(name, claim.control.get("confirmed", ""), None)
    return claim


def _only_birds(claim: Claim) -> bool:
    return all(dataset.startswith("CUB") for dataset in claim.datasets)


def _check_place(name: str, place: Mapping, experiments: set[str]) -> None:
    """A ValueError that names the claim if nothing can have been recorded at a place."""
    keys = next((keys for keys in _PLACES if keys[0] in place), ("experiment",))
    if not set(keys) <= set(place) <= {*keys, *_PLACES[keys]} or place.get("chapter", ANNOTATIONS) != ANNOTATIONS:
        raise ValueError(
            f"expected an experiment, chapter {ANNOTATIONS} with the name of a record, or computed, in claim {name!r}, found "
            f"{dict(place)!r}: name what bears on it"
        )
    own, measures = (
        [place[key] for key in ("experiment", "minus", "classifier") if key in place],
        [*MEASURES, *OF_SEEDS],
    )
    if (experiments and not set(own) <= experiments) or place.get("measure", measures[0]) not in measures:
        raise ValueError(
            f"expected experiments of book/experiments.yaml, and a measure out of {', '.join(measures)}, in claim {name!r}, "
            f"found {dict(place)!r}: declare the experiment first, or choose another"
        )


def _experiments() -> set[str]:
    """Names of all experiments; empty where their table is not at hand."""
    if definitions.find(definitions.FILE) is None:
        return set()
    return {name for profile in PROFILES for name in definitions.load_experiments(profile)}


def _without(mapping: Mapping, key: str) -> dict:
    return {own: value for own, value in mapping.items() if own != key}


def _named(claim: Claim) -> list[Mapping]:
    """The places of a claim, that of its control among them."""
    return [*claim.measured, *([_without(claim.control, "confirmed")] if claim.control else [])]


def places(claims: Iterable[Claim]) -> list[dict]:
    """All places that these claims name, one by one, also those that are subtracted."""
    found = [place for claim in claims for place in _named(claim)]
    return [_without(place, "minus") for place in found] + [{"experiment": p["minus"]} for p in found if "minus" in p]


def bounds_of(claim: Claim, i: int, printed: float | None = None) -> Ranges:
    """The ranges of values that confirm a claim by its i-th measurement; ``printed`` stands for the i-th printed number."""
    if printed is None and "printed" in claim.confirmed:
        printed = printed_numbers(claim)[i][1]
    return _ranges(claim.id, claim.confirmed, printed)


def _ranges(name: str, confirmed: str, printed: float | None) -> Ranges:
    for pattern, bounds in _BOUNDS.items():
        found = re.fullmatch(pattern, confirmed)
        if found:
            return bounds(printed, *map(float, found.groups()))
    raise ValueError(
        f"expected 'above x', 'below x', 'between a and b', 'more than x from 0', 'within x of printed', 'within x percent of "
        f"printed' or 'within x points of printed' as confirmed in claim {name!r}, found {confirmed!r}: use one of these"
    )


def printed_numbers(claim: Claim) -> list[tuple[str, float | None]]:
    """What the paper prints for a claim: (where in words, number); a text has no number.

    Raises:
        ValueError: ``paper_tables.yaml`` has no such cell
    """
    numbers = []
    for entry in claim.printed:
        if isinstance(entry, str | int | float):
            numbers.append((entry, None) if isinstance(entry, str) else ("in the text", float(entry)))
            continue
        table, row, column = entry
        cells = results.printed(claim.paper, table)
        if cells and column not in cells.get(row, {}):
            raise ValueError(
                f"expected a cell of {claim.paper} {table} in claim {claim.id!r}, found row {row!r} and column {column!r}: take "
                "both from paper_tables.yaml"
            )
        numbers.append((f"{row}, {column}", cells[row][column] if cells else None))
    return numbers


def recorded(claims: Iterable[Claim], more: Iterable[Mapping] = ()) -> Records:
    """All that these claims might rest on, and ``more`` places: :func:`wsol_lib.book.evidence.recorded`."""
    return evidence.recorded([*places(claims), *more])


# -- the rule ----------------------------------------------------------------------------------------------------------


def decide(claim: Claim, records: Records) -> Decision:
    """The verdict on a claim by itself; :func:`decide_all` corrects for their number.

    Evidence is weighed: what has the seeds to decide before what has not, photographs before painted birds, the larger profile
    before the smaller. What weighs most decides, all of it together: one piece outside the bounds is a contradiction, all of
    it inside a reproduction. But it is *not at this scale*, and says why, where

    - a network was trained with fewer than three seeds, or not all that would confirm it is recorded;
    - what was compared is no better than the whole image or the best centred box (a claim that something fails is met beside
      a control that does not);
    - painted birds alone would contradict a claim about photographs;
    - a run that is smaller than the paper's would contradict it, unless the claim is ``general``.

    Args:
        claim: a line of the ledger
        records: as from :func:`recorded`
    """
    each = [evidence_of(measured, records, bounds_of(claim, i)) for i, measured in enumerate(claim.measured)]
    found = [own for several in each for own in several]
    if not found:
        return Decision(claim, "not run", (), False)
    found.sort(key=_weight, reverse=True)
    leading = [own for own in found if _weight(own) == _weight(found[0])]
    verdict = next(
        (v for v in ("contradicted", "not at this scale") if v in {own.verdict for own in leading}), "reproduced"
    )
    others = {own.verdict for own in found[len(leading) :]} - {"not at this scale"}
    why = _objection(claim, verdict, leading, records)
    if verdict == "reproduced" and not all(each):
        why = why or "not all that it names is recorded"
    can = leading[0].decides and not why and all(own.p is not None for own in leading)
    return Decision(
        claim,
        "not at this scale" if why else verdict,
        tuple(found),
        bool(others - {verdict}),
        why,
        _chance(verdict, leading) if can else None,
        any(claim.set[:10] >= own.record["date"] for own in leading if "date" in own.record),
    )


def decide_all(claims: Iterable[Claim], records: Records) -> list[Decision]:
    """The verdicts on all claims; those that do not survive Holm's correction are *not at this scale*.

    Corrected are all that could have been decided from measurements, the undecided ones too: they were asked as well.
    """
    decisions = [decide(claim, records) for claim in claims]
    asked = [i for i, decision in enumerate(decisions) if decision.p is not None]
    for i, corrected in zip(asked, holm([decisions[i].p for i in asked])):
        if decisions[i].verdict in DECIDED and corrected >= 0.05:
            why = f"{decisions[i].verdict} by itself (p = {decisions[i].p:.2g}), not beside {len(asked) - 1} others"
            decisions[i] = decisions[i]._replace(verdict="not at this scale", why=f"{why} (Holm's correction)")
    return decisions


def _weight(own: Evidence) -> tuple[bool, bool, int]:
    return own.decides, own.kind != "painted birds", COUNTED.index(own.profile) if own.profile else 0


def _objection(claim: Claim, verdict: str, leading: Sequence[Evidence], records: Records) -> str:
    """Why this verdict would not carry; empty if it does."""
    number = min(own.seeds for own in leading)
    if not leading[0].decides:
        return {1: "one seed", 2: "two seeds"}[number]
    if verdict not in DECIDED:
        return ""
    if verdict == "reproduced" and claim.fails:
        return "" if _control_holds(claim, records) else "the control beside it fails as well, or was not run"
    # only what contradicts must carry a contradiction
    speaking = [own for own in leading if own.verdict == verdict]
    objections = [_objection_to(claim, own) for own in speaking]
    if verdict == "contradicted":
        return "" if "" in objections else objections[0]
    return next(filter(None, objections), "")


def _objection_to(claim: Claim, own: Evidence) -> str:
    if own.floor == "below" and not claim.compares_with_floor:
        return "not everything compared beats the whole image and the best centred box"
    if own.verdict == "reproduced":
        return ""
    if own.kind == "painted birds" and list(claim.datasets) != ["none"]:
        return "painted birds alone do not contradict a claim about photographs"
    return f"smaller than the paper's: {claim.smaller}" if claim.smaller and not claim.general else ""


def _control_holds(claim: Claim, records: Records) -> bool:
    place = _without(claim.control, "confirmed")
    found = evidence_of(place, records, _ranges(claim.id, claim.control["confirmed"], None))
    return bool(found) and all(own.decides and own.verdict == "reproduced" for own in found)


def _chance(verdict: str, leading: Sequence[Evidence]) -> float:
    """The p-value of a claim: all of its evidence must hold; of a contradiction one piece is enough, whichever it is."""
    if verdict == "contradicted":
        return min(1.0, len(leading) * min(own.p for own in leading if own.verdict == verdict))
    return max(own.p for own in leading)
