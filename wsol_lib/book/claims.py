"""The claims ledger: what four papers say and what this book has recorded go in, a verdict for each claim comes out.

``book/claims.yaml`` holds the claims. Each says where it is printed, which of our records bear on it, and between which bounds
they confirm it. The rule is one for all: the 95 % interval of a record wholly inside the bounds is *reproduced*, wholly
outside *contradicted*, across *not at this scale*; without a record a claim is *not run*.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import yaml
from scipy import stats

from wsol_lib.book import results
from wsol_lib.book.profiles import PROFILES
from wsol_lib.uncertainty import share_interval

PAPERS = ("psol", "evaluation", "slt", "lchp")
VERDICTS = ("reproduced", "contradicted", "not at this scale", "not run")

_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_BOUNDS = {
    rf"above {_NUMBER}": lambda printed, low: (low, math.inf),
    rf"below {_NUMBER}": lambda printed, high: (-math.inf, high),
    rf"between {_NUMBER} and {_NUMBER}": lambda printed, low, high: (low, high),
    rf"within {_NUMBER} of printed": lambda printed, far: (printed - far, printed + far),
    rf"within {_NUMBER} points of printed": lambda printed, far: ((printed - far) / 100, (printed + far) / 100),
}

#: (chapter, profile) -> name of a record -> the record
Records = Mapping[tuple[str, str], Mapping[str, Mapping]]


@dataclass(frozen=True)
class Claim:
    """One line of the ledger.

    Args:
        id: short and stable, such as "psol-student-above-teacher"
        paper: one of ``PAPERS``
        place: "Table 5", "section 4.2" ...
        claim: what the paper says, in one plain sentence of ours
        printed: its numbers, if any, each a cell ``[table, row, column]`` of ``paper_tables.yaml`` or a text
        datasets: on which the paper measured it
        confirmed: "above x", "below x", "between a and b"; or "within x of printed" and, for shares beside percent, "within x
            points of printed", which compare the i-th record with the i-th cell. In the unit of the records.
        measured: records that bear on it, each ``{chapter, name}``, or ``{chapter, name, minus: {chapter, name}}`` where no
            chapter has recorded the difference itself; a claim says *all* of what it names
        wanting: one line, what it would take to measure it, for a claim that no chapter measures
        smaller: one line, in what the measurement falls short of the setting whose number the paper prints: it may confirm
            the number, but does not contradict it
        reason: one line, why our records contradict it, as far as a chapter has measured that
    """

    id: str
    paper: str
    place: str
    claim: str
    printed: Sequence = ()
    datasets: Sequence[str] = ()
    confirmed: str = ""
    measured: Sequence[Mapping] = ()
    wanting: str = ""
    smaller: str = ""
    reason: str = ""


class Evidence(NamedTuple):
    """What one record, or the difference of two, says of a claim; ``record`` holds the circumstances."""

    name: str
    chapter: str
    profile: str
    value: float
    low: float
    high: float
    verdict: str
    record: Mapping

    @property
    def photographs(self) -> bool:
        return self.record["dataset"] != "synthbirds"


class Decision(NamedTuple):
    """The verdict on a claim, the evidence by weight, and whether evidence of less weight decides otherwise."""

    claim: Claim
    verdict: str
    evidence: Sequence[Evidence]
    disagreement: bool


def load(path: str | Path | None = None) -> list[Claim]:
    """The claims of a ledger; of ``claims.yaml`` here or in ``book`` if no path is given, and none if it is not at hand.

    Raises:
        FileNotFoundError: no file at ``path``
        ValueError: no list of entries in YAML; an entry that lacks something, says something unknown, or comes twice
    """
    if path is None:
        path = next((p for p in (Path("claims.yaml"), Path("book/claims.yaml")) if p.exists()), None)
        if path is None:  # a chapter that was opened alone
            return []
    chapters = {chapter.stem for chapter in Path(path).parent.glob("[0-9][0-9]-*.ipynb")}
    claims, seen = [], set()
    for entry in _entries(Path(path)):
        claims.append(_checked(entry, chapters))
        if claims[-1].id in seen:
            raise ValueError(f"expected every id once, found {claims[-1].id!r} twice in {path}: rename one of the two")
        seen.add(claims[-1].id)
    return claims


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


def _checked(entry: Mapping, chapters: set[str]) -> Claim:
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
    for place in _places(claim):
        if set(place) != {"chapter", "name"} or place["chapter"] not in chapters:
            raise ValueError(
                f"expected chapter and name of a record in claim {name!r}, the chapter out of {', '.join(sorted(chapters))}, "
                f"found {place!r}: name a record that a chapter makes"
            )
    if claim.measured:
        for i in range(len(claim.measured)):
            _bounds(claim, i, printed=0.0)
    return claim


def _places(claim: Claim) -> Iterable[Mapping]:
    """Where the records of a claim are: {chapter, name} of each, also of those that are subtracted."""
    for measured in claim.measured:
        yield {key: value for key, value in measured.items() if key != "minus"}
        if "minus" in measured:
            yield measured["minus"]


def _bounds(claim: Claim, i: int, printed: float | None = None) -> tuple[float, float]:
    """Between which values the i-th measurement of a claim confirms it."""
    for pattern, bounds in _BOUNDS.items():
        found = re.fullmatch(pattern, claim.confirmed)
        if found and printed is None and "printed" in pattern:
            printed = printed_numbers(claim)[i][1]
        if found:
            return bounds(printed, *map(float, found.groups()))
    raise ValueError(
        f"expected 'above x', 'below x', 'between a and b', 'within x of printed' or 'within x points of printed' as confirmed "
        f"in claim {claim.id!r}, found {claim.confirmed!r}: use one of these"
    )


def printed_numbers(claim: Claim) -> list[tuple[str, float | None]]:
    """What the paper prints for a claim: (where in words, number); a text has no number.

    Raises:
        ValueError: ``paper_tables.yaml`` has no such cell
    """
    numbers = []
    for entry in claim.printed:
        if isinstance(entry, str):
            numbers.append((entry, None))
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


def recorded(claims: Iterable[Claim]) -> dict[tuple[str, str], dict[str, dict]]:
    """All records that these claims might rest on: the committed ones, and over them those of this run."""
    chapters = {place["chapter"] for claim in claims for place in _places(claim)}
    return {
        (chapter, profile): results.load(chapter, profile) | results.load(chapter, profile, own=True)
        for chapter in sorted(chapters)
        for profile in PROFILES
    }


def interval(record: Mapping) -> tuple[float, float]:
    """The 95 % interval of a record: its own; a point if nothing was sampled (n = 0); Wilson's for a share of n images.

    The spread over the seeds of a mean (``seeds``, ``spread``) widens Wilson's.

    Raises:
        ValueError: no interval of its own, and not a share
    """
    value, n = record["value"], record["n"]
    if "interval" in record:
        low, high = record["interval"]
        return float(low), float(high)
    if n == 0:
        return value, value
    low, high = share_interval(value, n)
    seeds = record.get("seeds", 1)
    of_seeds = stats.t.ppf(0.975, seeds - 1) * record.get("spread", 0.0) / math.sqrt(seeds) if seeds > 1 else 0.0
    return value - math.hypot(value - low, of_seeds), value + math.hypot(high - value, of_seeds)


def decide(claim: Claim, records: Records) -> Decision:
    """The verdict on a claim.

    Records are weighed: photographs before painted birds, then the larger profile before the smaller. Those of the largest
    weight decide: one of them contradicted is a contradiction, all of them reproduced a reproduction, anything else is not
    at this scale; nor is the contradiction of a number by a smaller run.

    Args:
        claim: a line of the ledger
        records: as from ``recorded``

    Raises:
        ValueError: a record that has no interval and is no share
    """
    evidence = [
        found
        for i, measured in enumerate(claim.measured)
        for profile in PROFILES
        for found in _evidence(claim, i, measured, profile, records)
    ]
    if not evidence:
        return Decision(claim, "not run", (), False)
    evidence.sort(key=_weight, reverse=True)
    said = [found.verdict for found in evidence if _weight(found) == _weight(evidence[0])]
    verdict = next((v for v in ("contradicted", "not at this scale") if v in said), "reproduced")
    if verdict == "contradicted" and claim.smaller:
        verdict = "not at this scale"
    others = {found.verdict for found in evidence[len(said) :]} - {"not at this scale"}
    return Decision(claim, verdict, tuple(evidence), bool(others - {verdict}))


def _weight(evidence: Evidence) -> tuple[bool, int]:
    return evidence.photographs, list(PROFILES).index(evidence.profile)


def _evidence(claim: Claim, i: int, measured: Mapping, profile: str, records: Records) -> Iterable[Evidence]:
    """The i-th measurement of a claim in a profile, if it was made."""
    record = records.get((measured["chapter"], profile), {}).get(measured["name"])
    if record is None:
        return
    name, value, (low, high) = measured["name"], record["value"], interval(record)
    if "minus" in measured:
        other = records.get((measured["minus"]["chapter"], profile), {}).get(measured["minus"]["name"])
        if other is None or other["dataset"] != record["dataset"]:
            return
        name, below, above = f"{name} minus {measured['minus']['name']}", *interval(other)
        # independent errors: the halves of the two intervals that point the same way add up like the sides of a triangle
        down, up = math.hypot(value - low, above - other["value"]), math.hypot(high - value, other["value"] - below)
        value -= other["value"]
        low, high = value - down, value + up
    yield Evidence(
        name, measured["chapter"], profile, value, low, high, _verdict(low, high, *_bounds(claim, i)), record
    )


def _verdict(low: float, high: float, least: float, most: float) -> str:
    """How an interval lies to the bounds; touching a bound is not yet beyond it."""
    if least < low and high < most:
        return "reproduced"
    if high < least or low > most:
        return "contradicted"
    return "not at this scale"
