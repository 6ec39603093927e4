"""Experiments side by side, each by its name: a row with its interval and its seeds, the floor, and paired differences.

:mod:`wsol_lib.book.tables` has the localizers of a group, one experiment each; here a chapter chooses which experiments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from wsol_lib.book import records
from wsol_lib.book.plots import COLOURS
from wsol_lib.uncertainty import difference, mean_share

FLOORS = {"whole image": ":", "best centred box": "--"}


def at_hand(names: Iterable[str]) -> bool:
    """Whether all these experiments are recorded here; a chapter that was opened alone has no records."""
    return all((records.folder() / f"{name}.json").exists() for name in names)


def floor(name: str) -> dict[str, float]:
    """What costs nothing on the test images of an experiment, in shares.

    The centred box is the one that is best on the boxed images, so that nothing is chosen on the test images.
    """
    kept = records.load_record(name)["baselines"]
    return {"whole image": kept["whole_image"], "best centred box": kept["centred_box"]["value"]}


def compare(name: str, other: str, **which: object) -> tuple[float, float, float]:
    """:func:`wsol_lib.book.records.compare` where one of the two learns nothing and the other has several seeds.

    What learns nothing has nothing random: its one run stands for any number of seeds, so that the spread of the other's
    counts. Of others it is the same.

    Args:
        name, other, which: as there

    Returns:
        (difference, low, high), in shares

    Raises:
        FileNotFoundError, ValueError: as there
    """
    found = records.compare(name, other, **which)  # refuses other images
    hits = {one: records.hits(one, **which) for one in (name, other)}
    certain = [one for one in hits if records.load_record(one)["images_seen"] == 0]
    if not certain:
        return found
    seeds = max(map(len, hits.values()))
    hits |= {one: np.repeat(hits[one][:1], seeds, axis=0) for one in certain}
    return difference(hits[name], hits[other])


def draw(
    ax: Axes,
    rows: Mapping[str, str],
    colours: Mapping[str, str] | None = None,
    *,
    printed: Mapping[str, float] | None = None,
) -> None:
    """GT-known Loc of experiments: a bar for the interval over images and seeds, a dot a seed, and the floor as lines.

    Args:
        rows: label -> name of the experiment, from the top
        colours: label -> colour, or a meaning out of ``plots.COLOURS``; "prediction" where none is given
        printed: label -> what a paper prints, in shares, an open diamond
    """
    kept = {label: records.load_record(name) for label, name in rows.items()}
    for place, (label, record) in enumerate(kept.items()):
        share, low, high = mean_share(records.hits(rows[label]))
        colour = (colours or {}).get(label, "prediction")
        colour = COLOURS.get(colour, colour)
        ax.plot([low, high], [place] * 2, color=colour, lw=9, alpha=0.3, solid_capstyle="butt")
        each = record["accuracies"]["gt_known_loc"]
        ax.plot(each, [place] * len(each), "o", color=colour, ms=4)
        ax.text(1.02, place, f"{share:.1%}", transform=ax.get_yaxis_transform(), va="center")
        if label in (printed or {}):
            ax.plot(printed[label], place, "kD", mfc="none")
    for name, value in floor(next(iter(rows.values()))).items():
        ax.axvline(value, color=COLOURS["baseline"], ls=FLOORS[name], zorder=0, label=f"{name}, {value:.1%}")
    if printed:
        ax.plot([], [], "kD", mfc="none", ls="", label="printed")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    _whole_percents(ax.xaxis)
    first = next(iter(kept.values()))
    ax.set_xlabel(f"GT-known Loc, {first['n']:,} images")
    ax.figure.legend(loc="outside lower center", ncols=3)


def draw_over(ax: Axes, lines: Mapping[str, Mapping[int, str]], colours: Mapping[str, str], *, of: str) -> None:
    """GT-known Loc of experiments over a number in which they differ, with intervals over images and seeds, and the floor.

    Args:
        lines: label -> number -> name of the experiment; the axis is logarithmic
        colours: label -> colour, or a meaning out of ``plots.COLOURS``
        of: what the number counts
    """
    for label, names in lines.items():
        value, low, high = np.array([mean_share(records.hits(name)) for name in names.values()]).T
        style = {"fmt": "o-", "ms": 4, "capsize": 3, "color": COLOURS.get(colours[label], colours[label])}
        ax.errorbar([*names], value, [value - low, high - value], label=label, **style)
    kept = [name for names in lines.values() for name in names.values()]
    for name, share in floor(kept[0]).items():
        ax.axhline(share, color=COLOURS["baseline"], ls=FLOORS[name], zorder=0, label=name)
    numbers = sorted({number for names in lines.values() for number in names})
    ax.set(xlabel=of, ylabel=f"GT-known Loc, {records.load_record(kept[0])['n']:,} images", xscale="log")
    ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
    ax.minorticks_off()
    _whole_percents(ax.yaxis)


def _whole_percents(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter("{x:.0%}")
