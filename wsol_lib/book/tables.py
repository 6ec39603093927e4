"""The table of a group of experiments, and its figure: what is kept of each localizer, best first, with the floor beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wsol_lib.book import records
from wsol_lib.book.plots import COLOURS
from wsol_lib.localizers import NAMES
from wsol_lib.uncertainty import groups, mean_share, told_apart

#: As the papers write them.
LABELS = dict(
    zip(
        NAMES,
        ["centre", "CAM", "HaS", "ACoL", "SPG", "ADL", "CutMix", "few-shot", "DDT", "PSOL", "SLT", "LCHP-I", "LCHP-R"],
    )
)
#: What a localizer learns from, and the colour of that; the meanings of boxes have colours of their own in ``plots``.
KINDS = {
    "nothing": ("#56B4E9", ("centre", "ddt")),
    "labels; boxes from maps": ("#0072B2", ("cam", "has", "acol", "spg", "adl", "cutmix")),
    "labels; a student predicts boxes": ("#CC79A7", ("psol", "slt", "lchp-i", "lchp-r")),
    "drawn boxes": ("#222222", ("few-shot",)),
}


def kind_of(label: str) -> str:
    """What a localizer learns from, a key of ``KINDS``, by its label or name."""
    return next(kind for kind, (_, names) in KINDS.items() if label in names or label in [LABELS[n] for n in names])


def at_hand(group: str, names: Iterable[str] = NAMES) -> bool:
    """Whether some of the experiments GROUP-NAME are recorded here; a chapter that was opened alone has no records."""
    return any((records.folder() / f"{group}-{name}.json").exists() for name in names)


def right(group: str, names: Iterable[str] = NAMES, **which: object) -> dict[str, np.ndarray]:
    """Which images the experiments GROUP-NAME got right: label -> bool (seeds, N).

    What learns nothing has nothing random, and its one run stands for any number of seeds: it is repeated, so that in a
    comparison with a localizer of several seeds the spread of these counts.

    Args:
        group, names: of the experiments
        which: as of :func:`wsol_lib.book.records.hits`
    """
    hits = {LABELS[name]: records.hits(f"{group}-{name}", **which) for name in names}
    seeds = max((len(own) for own in hits.values()), default=1)
    certain = [label for label in hits if kind_of(label) == "nothing"]
    return hits | {label: np.repeat(hits[label][:1], seeds, axis=0) for label in certain}


def board(group: str, names: Iterable[str] = NAMES) -> pd.DataFrame:
    """One row a localizer, the best first, all in shares of the images.

    Args:
        group: of the experiments
        names: of the localizers

    Returns:
        a row for each label: ``value`` with ``low`` and ``high``, the interval over images and seeds; ``each``, a list over
        the seeds; ``fixed``, the same at tau = 0.2; ``tau``, the chosen one, ``best``, MaxBoxAcc, and ``v2``, means over the
        seeds. What makes no maps has NaN in the last four. ``whole`` and ``centred`` are what the whole image and the best
        centred box of the boxed images reach.

    Raises:
        FileNotFoundError, ValueError: as :func:`wsol_lib.book.records.load_record`
    """
    rows = {}
    for name in names:
        record = records.load_record(f"{group}-{name}")
        share, low, high = mean_share(records.hits(f"{group}-{name}"))
        of_seeds = {
            key: [seed.get(key) for seed in record["seeds"]] for key in ("tau", "max_box_acc", "max_box_acc_v2")
        }
        fixed = record["accuracies"].get(f"gt_known_loc_tau_{records.FIXED_TAU}")
        rows[LABELS[name]] = {
            "value": share,
            "low": low,
            "high": high,
            "each": record["accuracies"]["gt_known_loc"],
            "fixed": _mean(fixed or []),
            "tau": _mean(of_seeds["tau"]),
            "best": _mean(of_seeds["max_box_acc"]),
            "v2": _mean(of_seeds["max_box_acc_v2"]),
            "whole": record["baselines"]["whole_image"],
            "centred": record["baselines"]["centred_box"]["value"],
        }
    return pd.DataFrame(rows).T.infer_objects().sort_values("value", ascending=False, kind="stable")


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean(values)) if values and None not in values else float("nan")


def budget(name: str) -> dict[str, str]:
    """What an experiment had: data, network, looks at images, boxes, seeds; label -> text, from its record."""
    record = records.load_record(name)
    sizes = {split: facts["n"] for split, facts in record["data"].items()}
    settings = record["settings"]
    return {
        "training images, labels alone": f"{sizes['train-weaksup']:,}",
        "boxed images, for thresholds": f"{sizes['train-fullsup']:,}",
        "test images": f"{sizes['test']:,}",
        "looks at an image": f"{record['images_seen']:,}",
        "network": f"{settings['backbone']}, ImageNet's weights",
        "it sees": f"{settings['input_size']} × {settings['input_size']} pixels",
        "seeds": f"{len(record['seeds'])}",
    }


def points(value: float, low: float, high: float) -> str:
    """A difference of shares with its interval, in points.

    >>> points(0.137, 0.093, 0.182)
    '+13.7 (+9.3 to +18.2)'
    """
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def below(table: pd.DataFrame, floor: str = "centred") -> list[str]:
    """The labels of a ``board`` whose value is below that of the floor, ``whole`` or ``centred``, the best first."""
    return table.index[table["value"] < table[floor]].tolist()


def draw_board(ax: Axes, table: pd.DataFrame, hits: Mapping[str, np.ndarray] | None = None) -> list[Line2D]:
    """One row a localizer: its interval and seeds in the colour of its kind, and the two floors as lines.

    Args:
        table: as :func:`board` gives
        hits: as :func:`right` gives: black bars join the runs of rows that are not told apart; None draws none

    Returns:
        handles of a legend
    """
    for place, (label, row) in enumerate(table.iterrows()):
        colour = KINDS[kind_of(label)][0]
        ax.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=9, alpha=0.3, solid_capstyle="butt")
        ax.plot(row["each"], [place] * len(row["each"]), "o", color=colour, ms=4)
        ax.text(1.0, place, f"{row['value']:.1%}", transform=ax.get_yaxis_transform(), va="center", ha="right")
    runs = groups(*told_apart(hits)) if hits else []
    right_end = table["high"].max()
    for k, (first, last) in enumerate(runs):
        ax.plot([right_end + 0.02 + 0.015 * k] * 2, [first - 0.3, last + 0.3], color="k", lw=2.5)
    for floor, style in (("whole", ":"), ("centred", "--")):
        ax.axvline(table[floor].iloc[0], color=COLOURS["baseline"], ls=style, lw=1.5, zorder=0)
    ax.set_yticks(range(len(table)), table.index)
    ax.set(xlim=(0, right_end + 0.12 + 0.015 * len(runs)), xlabel="GT-known Loc (IoU ≥ 0.5)")
    ax.invert_yaxis()
    shown = [kind for kind in KINDS if kind in {kind_of(label) for label in table.index}]
    handles = [Line2D([], [], color=KINDS[kind][0], marker="o", lw=6, alpha=0.6, label=kind) for kind in shown]
    for style, label in ((":", "whole image"), ("--", "centred box")):
        handles.append(Line2D([], [], color=COLOURS["baseline"], ls=style, label=label))
    return handles


def moves(group: str, names: Iterable[str] = NAMES) -> dict[str, float]:
    """How far GT-known Loc moves, in shares, if one choice is made differently and all else stays: choice -> mean change.

    Means of absolute differences: over pairs of localizers, of seeds of one localizer, or over the localizers that have both
    numbers. The centre is not among them.

    Args:
        group, names: of the experiments, of which several must make maps
    """
    names = [name for name in names if name != "centre"]
    table = board(group, names)
    mapped = table.dropna(subset="tau")
    six = [label for label in map(LABELS.get, KINDS["labels; boxes from maps"][1]) if label in table.index]
    changes = {
        "another method, of all": _pairs(table["value"]),
        "another method, of CAM's family": _pairs(table["value"][six]),
        "another seed": float(np.mean([_pairs(each) for each in table["each"] if len(each) > 1])),
        f"τ = {records.FIXED_TAU} instead of a chosen τ": float((mapped["fixed"] - mapped["value"]).abs().mean()),
        "τ chosen on the test images": float((mapped["best"] - mapped["value"]).abs().mean()),
        "MaxBoxAccV2 instead of MaxBoxAcc": float((mapped["v2"] - mapped["best"]).abs().mean()),
    }
    for iou in records.IOUS:
        if iou != 0.5:
            other = right(group, names, iou=iou)
            changes[f"IoU {iou} instead of 0.5"] = float(
                np.mean([abs(other[label].mean() - table.loc[label, "value"]) for label in other])
            )
    return changes


def _pairs(values: Iterable[float]) -> float:
    """Mean absolute difference of all pairs."""
    return float(np.mean([abs(a - b) for a, b in itertools.combinations(values, 2)]))
