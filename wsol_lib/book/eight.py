"""The same eight photographs in every chapter: what each experiment predicted on them, and whether it is right.

The boxes are kept with the records. The photographs themselves are not: where the data are not at hand, frames stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wsol_lib.book import records
from wsol_lib.book.plots import COLOURS, box_legend, show_image
from wsol_lib.data import load_dataset

DATASET, IMAGES, SIDE = "tiny-imagenet", 10_000, 64
#: Place among Tiny-ImageNet's validation images -> what it shows. Chosen by eye, so that localizers succeed and fail: they are
#: no sample of anything.
EIGHT = {
    178: "rocking chair",
    2653: "centipede",
    3088: "beer bottle",
    3647: "ladybug",
    2449: "lifeboat",
    7296: "banana",
    1513: "boa",
    8398: "bison",
}
FRAME = 238  # the grey of a photograph that is not at hand


def photographs(root: str = "") -> tuple[Tensor, list[Tensor]] | None:
    """The eight, uint8 (8, 3, 64, 64), and their true boxes (k, 4); None where the data are not at hand.

    Args:
        root: the folder with the data; empty takes the one that WSOL_DATA names
    """
    try:
        data = load_dataset(DATASET, "test", root or None)
    except FileNotFoundError:
        return None
    return data.images(list(EIGHT)), [data.boxes[place] for place in EIGHT]


def draw(rows: Mapping[str, str], root: str = "") -> Figure:
    """A row an experiment and a column a photograph: the box of the first seed, a tick above it where it is right.

    Args:
        rows: label -> name of the experiment, from the top
        root: as of :func:`photographs`

    Raises:
        ValueError: an experiment on other images
        FileNotFoundError: as :func:`wsol_lib.book.records.load_record`
    """
    found, places = photographs(root), list(EIGHT)
    images = found[0] if found else torch.full((len(EIGHT), 3, SIDE, SIDE), FRAME, dtype=torch.uint8)
    figure, axes = plt.subplots(len(rows), len(EIGHT), figsize=(7.2, 0.3 + 1.02 * len(rows)), squeeze=False)
    for line, (label, name) in zip(axes, rows.items()):
        record = records.load_record(name)
        if (record["dataset"], record["n"]) != (DATASET, IMAGES):
            raise ValueError(
                f"expected an experiment on all {IMAGES:,} validation images of {DATASET}, found {name} on {record['n']:,} "
                f"of {record['dataset']}: choose one of photographs"
            )
        boxes, right = records.boxes(name)[0][places], records.hits(name)[0][places]
        for k, ax in enumerate(line):
            drawn = {"ground truth": found[1][k]} if found else {}
            title = "✓" if right[k] else "✗"
            show_image(ax, images[k], boxes=drawn | {"prediction": boxes[k : k + 1]}, title=title)
            ax.title.set_color(COLOURS["ground truth" if right[k] else "prediction"])
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize="small")
    for ax, word in zip(axes[-1], EIGHT.values()):
        ax.text(0.5, -0.06, word, transform=ax.transAxes, ha="center", va="top", fontsize="x-small")
    box_legend(figure, ["ground truth", "prediction"] if found else ["prediction"])
    return figure
