"""What the committed records say of a claim: a value with its interval, what kind of evidence it is, and what it may decide.

A claim of the ledger names places: an experiment, or one minus another; a number that chapter 1 has counted in annotations; or
one that is counted where the page is built. Four kinds of evidence are told apart: photographs, painted birds, annotations,
arithmetic. Runs of the quick profile and of this machine are no evidence, so that the page is the same whoever builds it.
"""

from __future__ import annotations

import fnmatch
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from wsol_lib import uncertainty
from wsol_lib.book import records as experiment_records
from wsol_lib.book import results, sizes
from wsol_lib.book.profiles import PROFILES
from wsol_lib.ill_posed import CueTable, posterior_ratio

KINDS = ("photographs", "painted birds", "annotations", "arithmetic")
#: So many trainings decide.
SEEDS = 3
#: Profiles whose records count.
COUNTED = tuple(profile for profile in PROFILES if profile != "quick")
#: The chapter whose records are counted in annotations; what others show is live, or comes from experiments.
ANNOTATIONS = "01-task-and-data"
LEMMA = "lemma 3.1, random worlds that disagree"

#: What an experiment's kept predictions are asked for, (seeds, N) each. ``choosing_tau`` is how many more images are right at the
#: chosen threshold than at the fixed one, ``box_side`` the root of a box's area in pixels of the image, ``score`` the
#: localizer's; ``surer_half`` is how much more often boxes are right whose score is above the median than the others,
#: ``sure`` those whose score is above 0.9 than all.
MEASURES = {
    "gt_known_loc": lambda kept: _at(kept["hits"], 0.5),
    "gt_known_loc_iou_0.3": lambda kept: _at(kept["hits"], 0.3),
    "gt_known_loc_iou_0.7": lambda kept: _at(kept["hits"], 0.7),
    "gt_known_loc_tau_0.2": lambda kept: _at(kept["fixed_hits"], 0.5),
    "top1_loc": lambda kept: _at(kept["hits"], 0.5) * (kept["ranks"] < 1),
    "top5_loc": lambda kept: _at(kept["hits"], 0.5) * (kept["ranks"] < experiment_records.TOP),
    "top1_cls": lambda kept: (kept["ranks"] < 1).astype(float),
    "choosing_tau": lambda kept: _at(kept["hits"], 0.5) - _at(kept["fixed_hits"], 0.5),
    "mean_over_ious": lambda kept: kept["hits"].mean(axis=0),
    "box_side": lambda kept: _side(kept["boxes"]),
    "box_side_tau_0.2": lambda kept: _side(kept["fixed_boxes"]),
    "score": lambda kept: kept["scores"] / 255,
    "surer_half": lambda kept: _surer_half(_at(kept["hits"], 0.5), kept["scores"]),
    "sure": lambda kept: _sure(_at(kept["hits"], 0.5), kept["scores"] / 255),
}
#: What the record has of each training, and not of each image.
OF_SEEDS = ("best_tau",)
#: What does not ask where a box is, so that no floor is asked of the boxes either.
NOT_OF_BOXES = ("top1_cls", "score")

#: (chapter, profile) -> name of a record -> the record; ("experiment", name) -> record, kept, ids; ("computed", name) -> value
Records = Mapping[tuple[str, str], Mapping[str, Any]]
#: The ranges of values that confirm a claim.
Ranges = Sequence[tuple[float, float]]


class Evidence(NamedTuple):
    """What one place says of a claim.

    Attributes:
        name: of the record, or "A minus B"
        kind: one of ``KINDS``
        profile: in which it was recorded; empty for counted numbers
        value, low, high: with the 95 % interval, over images and, where there are several, over seeds
        verdict: how the interval lies to the bounds
        record: the circumstances
        seeds: of the training that had fewest; 0 where nothing was trained
        floor: whether all that was compared beats the whole image and the best centred box, "above" or "below"; empty where
            it is not about boxes
        p: of the difference to the nearest bound; None where nothing was sampled
    """

    name: str
    kind: str
    profile: str
    value: float
    low: float
    high: float
    verdict: str
    record: Mapping
    seeds: int = 0
    floor: str = ""
    p: float | None = None

    @property
    def decides(self) -> bool:
        """Whether it has the seeds to decide anything."""
        return self.seeds == 0 or self.seeds >= SEEDS


def recorded(places: Iterable[Mapping]) -> dict[tuple[str, str], dict[str, Any]]:
    """All that these places rest on: committed records of the larger profiles, and numbers counted here.

    Raises:
        ValueError: a damaged file; an experiment's record that was edited, or whose definition has changed since
    """
    places = list(places)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    if any("chapter" in place for place in places):
        found |= {(ANNOTATIONS, profile): results.load(ANNOTATIONS, profile) for profile in COUNTED}
    for name in sorted({place[key] for place in places for key in ("experiment", "classifier") if key in place}):
        if (experiment_records.folder() / f"{name}.json").exists():
            record, predicted, scored, facts = experiment_records.load_all(name)
            if record["profile"] in COUNTED:
                boxes = {kind: predicted[kind] for kind in ("boxes", "fixed_boxes", "scores") if kind in predicted}
                found["experiment", name] = {"record": record, "kept": scored | boxes, "ids": facts["image_ids"]}
    for name in sorted({place["computed"] for place in places if "computed" in place}):
        found["computed", name] = {"value": computed(name)}
    return found


def evidence_of(place: Mapping, records: Records, ranges: Ranges) -> list[Evidence]:
    """What a place says, in each profile that has it.

    Args:
        place: ``{experiment, minus, measure, classifier}``, of which the last three may be left out, ``{chapter, name}`` or
            ``{computed}``
        records: as from :func:`recorded`
        ranges: of values that confirm the claim
    """
    if "experiment" in place:
        return _of_experiments(place, records, ranges)
    if "chapter" in place:
        known = ((profile, records.get((place["chapter"], profile), {}).get(place["name"])) for profile in COUNTED)
        return [_counted(place["name"], "annotations", profile, own, ranges) for profile, own in known if own]
    own = records.get(("computed", place["computed"]))
    circumstances = {"dataset": "none", "n": 0}
    return [_counted(place["computed"], "arithmetic", "", own | circumstances, ranges)] if own else []


def _counted(name: str, kind: str, profile: str, record: Mapping, ranges: Ranges) -> Evidence:
    """What comes out the same each time; annotations may have an interval of their own."""
    value = record["value"]
    low, high = record.get("interval", (value, value))
    return Evidence(name, kind, profile, value, low, high, _verdict(low, high, ranges), record)


# -- experiments -------------------------------------------------------------------------------------------------------


def _of_experiments(place: Mapping, records: Records, ranges: Ranges) -> list[Evidence]:
    """One experiment, or one minus another."""
    names = [place[key] for key in ("experiment", "minus") if key in place]
    found = [records.get(("experiment", name)) for name in names]
    if None in found or len({one["record"]["profile"] for one in found}) > 1:
        return []
    if "classifier" in place:  # boxes of these, classes of another, training by training
        named = records.get(("experiment", place["classifier"]))
        if named is None:
            return []
        found = [{**one, "kept": {**one["kept"], "ranks": named["kept"]["ranks"]}} for one in found]
    measure = place.get("measure", "gt_known_loc")
    if measure in OF_SEEDS:
        value, low, high, p = _over_seeds([_of_seeds(one, measure) for one in found], ranges)
    else:
        value, low, high, p = _over_images(names, found, measure, ranges)
    record = {**found[0]["record"], "date": min(one["record"]["date"] for one in found)}
    with_classes = f" with the classes of {place['classifier']}" if "classifier" in place else ""
    birds = any(one["record"]["dataset"] == "synthbirds" for one in found)
    evidence = Evidence(
        " minus ".join(names) + ("" if measure == "gt_known_loc" else f", {measure}") + with_classes,
        "painted birds" if birds else "photographs",
        record["profile"],
        value,
        low,
        high,
        _verdict(low, high, ranges),
        record,
        min((len(one["record"]["seeds"]) for one in found if _is_trained(one)), default=0),
        "" if measure in NOT_OF_BOXES else "above" if all(_beats(one, measure) for one in found) else "below",
        p,
    )
    return [evidence]


def _over_images(names: Sequence[str], found: Sequence[Mapping], measure: str, ranges: Ranges):
    """(value, low, high, p) of a measure of each image, paired; what was not trained is the same in each seed."""
    if len({one["ids"] for one in found}) > 1:
        raise ValueError(f"expected experiments on the same images, found {' and '.join(names)}: compare them in words")
    values = [MEASURES[measure](one["kept"]) for one in found]
    most = max(map(len, values))
    values = [own if _is_trained(one) else own.repeat(most // len(own), axis=0) for one, own in zip(found, values)]
    after, before = values if len(values) == 2 else (values[0], np.zeros_like(values[0]))
    p = max((uncertainty.chance(after - bound, before) for bound in _finite(ranges)), default=None)
    return *uncertainty.difference(after, before), p


def _over_seeds(values: Sequence[np.ndarray], ranges: Ranges):
    """(value, low, high, p) of a measure of each training, by Welch's t: few seeds make it wide."""
    after, before = values if len(values) == 2 else (values[0], np.zeros_like(values[0]))
    value = float(after.mean() - before.mean())
    if min(map(len, (after, before))) < 2 or np.ptp(after) + np.ptp(before) == 0:  # no spread to go by
        return value, -math.inf, math.inf, None
    low, high = stats.ttest_ind(after, before, equal_var=False).confidence_interval()
    p = max((stats.ttest_ind(after - bound, before, equal_var=False).pvalue for bound in _finite(ranges)), default=None)
    return value, float(low), float(high), p


def _is_trained(found: Mapping) -> bool:
    return found["record"]["images_seen"] != 0


def _of_seeds(found: Mapping, measure: str) -> np.ndarray:
    return np.array([one[measure] for one in found["record"]["seeds"]], dtype=float)


def _at(hits: np.ndarray, iou: float) -> np.ndarray:
    return hits[experiment_records.IOUS.index(iou)].astype(float)


def _side(boxes: np.ndarray) -> np.ndarray:
    """(seeds, N, 4) in sixteenths of a pixel -> root of the area, (seeds, N) in pixels."""
    sides = (boxes[..., 2:] - boxes[..., :2]) / experiment_records.STEPS
    return np.sqrt(sides.prod(axis=-1))


def _surer_half(hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Hits and scores (seeds, N) -> (seeds, N) whose mean is the difference of two shares.

    Ties at the median are unsure, unless it is the highest score: then they are the sure ones.
    """
    surer = scores > np.median(scores, axis=1, keepdims=True)
    surer |= ~surer.any(axis=1, keepdims=True) & (scores == scores.max(axis=1, keepdims=True))
    return _share_of(hits, surer) - _share_of(hits, ~surer)


def _sure(hits: np.ndarray, scores: np.ndarray, tau: float = 0.9) -> np.ndarray:
    """As :func:`_surer_half`, of those above tau and all."""
    return _share_of(hits, scores > tau) - hits


def _share_of(hits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(seeds, N) whose mean is the share of hits among the chosen; an image weighs in by how far it moves that share.

    Where none is chosen it is the share among all.
    """
    chosen = np.where(chosen.any(axis=1, keepdims=True), chosen, True)
    number = chosen.sum(axis=1, keepdims=True)
    share = (hits * chosen).sum(axis=1, keepdims=True) / number
    return share + chosen * (hits - share) * hits.shape[1] / number


def _beats(found: Mapping, measure: str) -> bool:
    """Whether an experiment's boxes are surely better than the whole image and the centred box of the best side."""
    baselines = found["record"]["baselines"]
    floor = max(baselines["whole_image"], baselines["centred_box_best_on_test"]["value"])
    own = "gt_known_loc_tau_0.2" if measure.endswith("tau_0.2") else "gt_known_loc"  # the boxes that are measured
    return uncertainty.mean_share(MEASURES[own](found["kept"]))[1] > floor


def _finite(ranges: Ranges) -> list[float]:
    return [bound for own in ranges for bound in own if math.isfinite(bound)]


def _verdict(low: float, high: float, ranges: Ranges) -> str:
    """How an interval lies to the ranges that confirm; touching a bound is not yet beyond it."""
    if any(least < low and high < most for least, most in ranges):
        return "reproduced"
    if all(high < least or low > most for least, most in ranges):
        return "contradicted"
    return "not at this scale"


# -- arithmetic --------------------------------------------------------------------------------------------------------


def computed(name: str) -> float:
    """A number that is counted and not measured.

    "million parameters, ROW" and "GFLOPs, ROW" of PSOL's Table 2; "lemma 3.1, random worlds that disagree"; or what the papers'
    tables say of themselves, "A minus B": the least of the cells A minus the largest of B, each a number or
    "PAPER TABLE: ROWS | COLUMNS", with * for anything and " or " between several.

    Raises:
        ValueError: another name, or cells that no table has

    >>> f"{computed('psol table 3: PSOL-* | trained on ImageNet-1k minus psol table 3: SPG | *'):.2f}"
    '28.61'
    """
    unit, _, row = name.partition(", ")
    if unit in ("million parameters", "GFLOPs") and row in sizes.ROWS:
        return _count(row)[unit == "GFLOPs"]
    if name == LEMMA:
        return float(_worlds_that_disagree())
    if " minus " in name:
        left, right = map(_cells, name.split(" minus ", 1))
        return min(left) - max(right)
    raise ValueError(
        f"expected 'million parameters, ROW' or 'GFLOPs, ROW' with a row out of {', '.join(sizes.ROWS)}, {LEMMA!r}, or cells of "
        f"the papers' tables minus others, found {name!r}: choose one of these"
    )


def _cells(text: str) -> list[float]:
    """The numbers of "PAPER TABLE: ROWS | COLUMNS", or a number by itself."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return [float(text)]
    table, _, cells = text.partition(": ")
    paper, _, number = table.partition(" ")
    rows, _, columns = (part.split(" or ") for part in cells.partition(" | "))
    found = [
        value
        for row, values in results.printed(paper, number).items()
        for column, value in values.items()
        if value is not None and _fits(row, rows) and _fits(column, columns)
    ]
    if not found:
        raise ValueError(
            f"expected 'PAPER TABLE: ROWS | COLUMNS' with numbers of paper_tables.yaml, found {text!r}: take rows and columns "
            "from there"
        )
    return found


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _worlds_that_disagree(number: int = 1000, classes: int = 3, cues: int = 6) -> int:
    """In how many random worlds a threshold that finds the first class exists and Lemma 3.1 denies it, or the other way round.

    Labels and cues are drawn as a joint table, half of the cues on the object; every threshold is tried.
    """
    draws = np.random.default_rng(0)
    foreground = np.arange(cues) < cues // 2
    disagreeing = 0
    for _ in range(number):
        joint = draws.random((classes, cues))
        posterior = joint[0] / joint.sum(axis=0)
        exists = any(((posterior >= tau) == foreground).all() for tau in posterior)
        table = CueTable(tuple(map(str, range(cues))), torch.from_numpy(foreground), torch.from_numpy(joint))
        disagreeing += exists != bool(posterior_ratio(table)[0] >= 1)
    return disagreeing


_count = functools.lru_cache(sizes.count)
