"""What the committed records say of a claim: a value with its interval, what kind of evidence it is, and what it may decide.

A claim of the ledger names places: a record of a chapter, an experiment, the difference of two, or a number that is counted
where the page is built. Four kinds of evidence are told apart: photographs, painted birds, annotations, arithmetic. Runs of
the quick profile and of this machine are no evidence, so that the page is the same whoever builds it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from wsol_lib import uncertainty
from wsol_lib.book import records as experiment_records
from wsol_lib.book import results, sizes
from wsol_lib.book.profiles import PROFILES

KINDS = ("photographs", "painted birds", "annotations", "arithmetic")
#: What a number rests on. A trained comparison needs seeds; the others come out the same each time.
RESTS_ON = ("trained", "untrained", "annotations", "arithmetic")
#: So many trainings decide.
SEEDS = 3
#: Profiles whose records count.
COUNTED = tuple(profile for profile in PROFILES if profile != "quick")
#: Where chapter 1 has recorded what one gets without looking at the images.
BASELINES = ("01-task-and-data", ("whole image", "best centred box"))

#: What an experiment's kept predictions are asked for. The last is how many more images are right at the chosen threshold than
#: at the fixed one.
MEASURES = {
    "gt_known_loc": lambda scored: _at(scored["hits"], 0.5),
    "gt_known_loc_iou_0.3": lambda scored: _at(scored["hits"], 0.3),
    "gt_known_loc_iou_0.7": lambda scored: _at(scored["hits"], 0.7),
    "gt_known_loc_tau_0.2": lambda scored: _at(scored["fixed_hits"], 0.5),
    "top1_loc": lambda scored: _at(scored["hits"], 0.5) * (scored["ranks"] < 1),
    "top5_loc": lambda scored: _at(scored["hits"], 0.5) * (scored["ranks"] < experiment_records.TOP),
    "top1_cls": lambda scored: (scored["ranks"] < 1).astype(float),
    "choosing_tau": lambda scored: _at(scored["hits"], 0.5) - _at(scored["fixed_hits"], 0.5),
}

#: (chapter, profile) -> name of a record -> the record; ("experiment", name) -> record, scored, ids; ("computed", name) -> value
Records = Mapping[tuple[str, str], Mapping[str, Any]]
#: The ranges of values that confirm a claim.
Ranges = Sequence[tuple[float, float]]


class Evidence(NamedTuple):
    """What one place says of a claim.

    Attributes:
        name: of the record, or "A minus B"
        chapter: that has recorded it; empty for experiments and counted numbers
        profile: in which; empty for counted numbers
        value, low, high: with the 95 % interval, over images and, where there are several, over seeds
        verdict: how the interval lies to the bounds
        record: the circumstances
        kind: one of ``KINDS``
        seeds: of the training that had fewest; 0 where nothing was trained
        floor: whether all that was compared beats the whole image and the best centred box: "above", "below", "unknown"
        p: of the difference to the nearest bound; None where nothing was sampled
    """

    name: str
    chapter: str
    profile: str
    value: float
    low: float
    high: float
    verdict: str
    record: Mapping
    kind: str = "photographs"
    seeds: int = 0
    floor: str = "unknown"
    p: float | None = None

    @property
    def decides(self) -> bool:
        """Whether it has the seeds to decide anything."""
        return self.seeds == 0 or self.seeds >= SEEDS


def recorded(places: Iterable[Mapping]) -> dict[tuple[str, str], dict[str, Any]]:
    """All that these places, and the floor, rest on: committed records of the larger profiles, and numbers counted here.

    Raises:
        ValueError: a damaged file; an experiment's record that was edited, or whose definition has changed since
    """
    places = list(places)
    chapters = {place["chapter"] for place in places if "chapter" in place} | {BASELINES[0]}
    found: dict[tuple[str, str], dict[str, Any]] = {
        (chapter, profile): results.load(chapter, profile) for chapter in sorted(chapters) for profile in COUNTED
    }
    for name in sorted({place["experiment"] for place in places if "experiment" in place}):
        if (experiment_records.folder() / f"{name}.json").exists():
            record, _, scored, facts = experiment_records.load_all(name)
            if record["profile"] in COUNTED:
                found["experiment", name] = {"record": record, "scored": scored, "ids": facts["image_ids"]}
    for name in sorted({place["computed"] for place in places if "computed" in place}):
        found["computed", name] = {"value": computed(name)}
    return found


def computed(name: str) -> float:
    """A number that is counted and not measured: "million parameters, ROW" or "GFLOPs, ROW" of PSOL's Table 2.

    Raises:
        ValueError: another name
    """
    unit, _, row = name.partition(", ")
    if unit not in ("million parameters", "GFLOPs") or row not in sizes.ROWS:
        raise ValueError(
            f"expected 'million parameters, ROW' or 'GFLOPs, ROW' with a row out of {', '.join(sizes.ROWS)}, found {name!r}: "
            "choose one of these"
        )
    return _count(row)[unit == "GFLOPs"]


_count = functools.lru_cache(sizes.count)


def interval(record: Mapping) -> tuple[float, float]:
    """The 95 % interval of a chapter's record: its own; a point if nothing was sampled (n = 0); Wilson's for a share.

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
    low, high = uncertainty.share_interval(value, n)
    seeds = record.get("seeds", 1)
    of_seeds = stats.t.ppf(0.975, seeds - 1) * record.get("spread", 0.0) / math.sqrt(seeds) if seeds > 1 else 0.0
    return value - math.hypot(value - low, of_seeds), value + math.hypot(high - value, of_seeds)


def evidence_of(place: Mapping, records: Records, ranges: Ranges, rests_on: str) -> list[Evidence]:
    """What a place says, in each profile that has it.

    Args:
        place: ``{chapter, name}``, ``{experiment}`` or ``{computed}``, the first two also with ``minus``
        records: as from :func:`recorded`
        ranges: of values that confirm the claim
        rests_on: one of ``RESTS_ON``, where the place itself does not say it
    """
    if "computed" in place:
        value = records.get(("computed", place["computed"]), {}).get("value")
        if value is None:
            return []
        circumstances = {"dataset": "none", "n": 0}
        said = _verdict(value, value, ranges)
        return [Evidence(place["computed"], "", "", value, value, value, said, circumstances, "arithmetic")]
    find = _of_experiments if "experiment" in place else _of_chapter
    return [found for found in (find(place, records, profile, ranges, rests_on) for profile in COUNTED) if found]


def _of_experiments(place: Mapping, records: Records, profile: str, ranges: Ranges, _: str) -> Evidence | None:
    """One experiment, or one minus another on the same images: paired over these, and over the seeds of what was trained."""
    names = [place[key] for key in ("experiment", "minus") if key in place]
    found = [records.get(("experiment", name)) for name in names]
    if any(one is None or one["record"]["profile"] != profile for one in found):
        return None
    if len({one["ids"] for one in found}) > 1:
        raise ValueError(f"expected experiments on the same images, found {' and '.join(names)}: compare them in words")
    measure = place.get("measure", "gt_known_loc")
    right = [MEASURES[measure](one["scored"]) for one in found]
    trained = [one["record"]["images_seen"] != 0 for one in found]
    most = max(map(len, right))
    right = [one if own else one.repeat(most // len(one), axis=0) for one, own in zip(right, trained)]
    after, before = right if len(right) == 2 else (right[0], np.zeros_like(right[0]))
    value, low, high = uncertainty.difference(after, before)
    beats = [_beats(one, measure) for one in found]
    record = {**found[0]["record"], "date": min(one["record"]["date"] for one in found), "measure": measure}
    return Evidence(
        " minus ".join(names) + ("" if measure == "gt_known_loc" else f", {measure}"),
        "",
        profile,
        value,
        low,
        high,
        _verdict(low, high, ranges),
        record,
        "painted birds" if record["dataset"] == "synthbirds" else "photographs",
        min((len(one) for one, own in zip(right, trained) if own), default=0),
        "above" if all(beats) else "below",
        max((uncertainty.chance(after - bound, before) for bound in _finite(ranges)), default=None),
    )


def _at(hits: np.ndarray, iou: float) -> np.ndarray:
    return hits[experiment_records.IOUS.index(iou)].astype(float)


def _beats(found: Mapping, measure: str) -> bool:
    """Whether an experiment's boxes are surely better than the whole image and the centred box of the best side."""
    baselines = found["record"]["baselines"]
    floor = max(baselines["whole_image"], baselines["centred_box_best_on_test"]["value"])
    own = measure if measure == "gt_known_loc_tau_0.2" else "gt_known_loc"
    return uncertainty.mean_share(MEASURES[own](found["scored"]))[1] > floor


def _of_chapter(place: Mapping, records: Records, profile: str, ranges: Ranges, rests_on: str) -> Evidence | None:
    """A record of a chapter, or one minus another with independent errors."""
    own = records.get((place["chapter"], profile), {})
    record = own.get(place["name"])
    if record is None:
        return None
    name, value, (low, high) = place["name"], record["value"], interval(record)
    base = place.get("rests_on", rests_on)
    seeds = [record.get("seeds", 1)] if base == "trained" else []
    first, _, second = name.removeprefix("photographs: ").partition(" minus ")
    prefix = "photographs: " if name.startswith("photographs: ") else ""
    compared = [own.get(prefix + part) for part in (first, second) if part]
    if "minus" in place:
        less = place["minus"]
        other = records.get((less["chapter"], profile), {}).get(less["name"])
        if other is None or other["dataset"] != record["dataset"]:
            return None
        name, below, above, compared = f"{name} minus {less['name']}", *interval(other), [record, other]
        seeds += [other.get("seeds", 1)] if less.get("rests_on", base) == "trained" else []
        # independent errors: the halves of the two intervals that point the same way add up like the sides of a triangle
        down, up = math.hypot(value - low, above - other["value"]), math.hypot(high - value, other["value"] - below)
        value -= other["value"]
        low, high = value - down, value + up
    kind = base if base in KINDS else "painted birds" if record["dataset"] == "synthbirds" else "photographs"
    number = min(seeds, default=0)
    return Evidence(
        name,
        place["chapter"],
        profile,
        value,
        low,
        high,
        _verdict(low, high, ranges),
        record,
        kind,
        number,
        _floor(compared, record["dataset"], records),
        max((_chance(value, low, high, bound, number) for bound in _finite(ranges)), default=None)
        if low < high
        else None,
    )


def _floor(compared: Sequence[Mapping | None], dataset: str, records: Records) -> str:
    chapter, names = BASELINES
    known = next((records[chapter, profile] for profile in reversed(COUNTED) if records.get((chapter, profile))), {})
    floors = [known.get(f"{dataset}/{name}") for name in names]
    if not compared or None in floors or None in compared:
        return "unknown"
    floor = max(one["value"] for one in floors)
    return "above" if all(interval(one)[0] > floor for one in compared) else "below"


def _finite(ranges: Ranges) -> list[float]:
    return [bound for own in ranges for bound in own if math.isfinite(bound)]


def _chance(value: float, low: float, high: float, bound: float, seeds: int) -> float:
    """The p-value that belongs to an interval: by Student's t, as if the seeds alone had made it where there are several."""
    half = value - low if bound < value else high - value
    freedom = seeds - 1 if seeds > 1 else math.inf
    if half <= 0:
        return float(value == bound)
    return 2 * float(stats.t.sf(stats.t.ppf(0.975, freedom) * abs(value - bound) / half, freedom))


def _verdict(low: float, high: float, ranges: Ranges) -> str:
    """How an interval lies to the ranges that confirm; touching a bound is not yet beyond it."""
    if any(least < low and high < most for least, most in ranges):
        return "reproduced"
    if all(high < least or low > most for least, most in ranges):
        return "contradicted"
    return "not at this scale"
