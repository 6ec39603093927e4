"""Figures of the book: images, boxes and score maps go in, one consistent style comes out.

Colours mean the same thing on every page: see ``COLOURS``. Boxes are xyxy in continuous pixels; matplotlib puts pixel centres
on whole numbers, so everything here shifts by half a pixel once and in one place.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import inspect
import io
import itertools
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython.display import HTML, Markdown
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from wsol_lib.data.images import decode_rgb

#: One meaning, one colour (Okabe and Ito's palette, told apart by colour-blind readers), for the whole book.
COLOURS = {"ground truth": "#009E73", "pseudo box": "#E69F00", "prediction": "#D55E00", "baseline": "#7F7F7F"}
SCORE_COLOURMAP = "inferno"


def use_style() -> None:
    """Call once in a chapter, before its first figure."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "image.interpolation": "nearest",
            "legend.frameon": False,
        }
    )


def show_image(
    ax: Axes,
    image: Tensor,
    *,
    boxes: Mapping[str, Tensor] | None = None,
    score_map: Tensor | None = None,
    title: str = "",
) -> None:
    """Draw an image (3, H, W), a score map (H, W) in [0, 1] over it, and boxes (k, 4) by their meaning in ``COLOURS``."""
    pixels = np.asarray(image).transpose(1, 2, 0)
    if score_map is None:
        ax.imshow(pixels)
    else:
        ax.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        ax.imshow(np.asarray(score_map), cmap=SCORE_COLOURMAP, alpha=0.6, vmin=0, vmax=1)
    for meaning, drawn in (boxes or {}).items():
        for x1, y1, x2, y2 in np.asarray(drawn).reshape(-1, 4):
            outline = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, lw=2, ec=COLOURS[meaning])
            outline.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white", alpha=0.7)])
            ax.add_patch(outline)
    ax.set_title(title, fontsize="small")
    ax.set_axis_off()


def gallery(
    images: Sequence[Tensor],
    *,
    boxes: Sequence[Mapping[str, Tensor]] | None = None,
    score_maps: Sequence[Tensor] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    size: float = 1.6,
) -> Figure:
    """A grid of ``show_image``; ``size`` is the side of one image in inches."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.25 * bool(titles)) * rows), squeeze=False
    )
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for i, (image, ax) in enumerate(zip(images, axes.flat)):
        show_image(
            ax,
            image,
            boxes=boxes[i] if boxes else None,
            score_map=score_maps[i] if score_maps is not None else None,
            title=titles[i] if titles else "",
        )
    return figure


def boxed_photographs(
    path: str | Path,
    folder: str | Path,
    names: Sequence[str] | None = None,
    *,
    truth: Mapping[str, Sequence[float]] | None = None,
    columns: int = 5,
    size: float = 2.2,
) -> Figure:
    """A gallery of photographs with the boxes of a COCO file, the class and the score of each above it.

    Args:
        path: the file, as ``python -m wsol_lib predict`` writes it
        folder: where the photographs are
        names: which, in this order; None takes all that the file lists
        truth: name -> its true box as x, y, width, height in pixels, where one is known
        columns, size: as in :func:`gallery`

    Raises:
        KeyError: a name that the file does not list
    """
    content = json.loads(Path(path).read_text())
    classes = {row["id"]: row["name"] for row in content["categories"]}
    listed = {row["file_name"]: row["id"] for row in content["images"]}
    best = {row["image_id"]: row for row in sorted(content["annotations"], key=lambda row: row.get("score", 1))}
    images, boxes, titles = [], [], []
    for name in listed if names is None else names:
        file, row = Path(folder) / name, best.get(listed[name])
        images.append(torch.from_numpy(decode_rgb(file.read_bytes(), name)).permute(2, 0, 1))
        drawn = {"ground truth": (truth or {}).get(name), "prediction": row and row["bbox"]}
        boxes.append({meaning: _corners(box) for meaning, box in drawn.items() if box is not None})
        label = f"{classes[row['category_id']]}, {row['score']:.2f}" if row else "no box"
        titles.append(f"{Path(name).stem}\n{label}")
    return gallery(images, boxes=boxes, titles=titles, columns=columns, size=size)


def _corners(box: Sequence[float]) -> Tensor:
    x, y, width, height = box
    return torch.tensor([[x, y, x + width, y + height]])


def caption(figure: Figure, text: str) -> None:
    """A sentence under the figure: what is shown, of how many, in which unit."""
    figure.supxlabel(textwrap.fill(text, int(12 * figure.get_figwidth())), fontsize="small", color="#444444")


def embedded(path: str | Path, height: int = 420) -> HTML:
    """A page of HTML in a frame of this page, ``height`` pixels high, which needs the file no longer."""
    page = html.escape(Path(path).read_text(encoding="utf-8"))
    frame = f"width: 100%; height: {height}px; border: 1px solid #ccc"
    return HTML(f'<figure style="margin: 1em 0"><iframe srcdoc="{page}" style="{frame}"></iframe></figure>')


def box_legend(figure: Figure, meanings: Iterable[str]) -> None:
    """One legend under the figure that names the colours of its boxes."""
    handles = [Line2D([], [], color=COLOURS[meaning], lw=2, label=meaning) for meaning in meanings]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def slider(
    draw: Callable[[float], Figure],
    values: Sequence[float],
    *,
    label: str,
    start: int = 0,
    alt: str = "",
    note: str = "",
) -> HTML:
    """A slider over pictures drawn beforehand: it moves without a kernel, in the rendered book as in a notebook.

    Args:
        draw: value -> figure, called once for each of ``values``
        values: what the slider runs over
        label: what stands in front of the value
        start: index of the first value shown
        alt, note: as of :func:`sliders`
    """
    return sliders(draw, {label: values}, start=[start], alt=alt, note=note)


def sliders(
    draw: Callable[..., Figure],
    dials: Mapping[str, Sequence[float]],
    *,
    start: Sequence[int],
    alt: str = "",
    note: str = "",
) -> HTML:
    """Several sliders over one picture: ``slider`` with a picture for each combination of values, so keep them few.

    Args:
        draw: one value of each dial, in their order -> figure
        dials: label -> what its slider runs over
        start: index of the first value shown, of each dial
        alt: what is seen, for those who cannot see it; the values of the dials stand behind it
        note: a caption below the picture
    """
    frames = [_as_link(draw(*values)) for values in itertools.product(*dials.values())]
    shown = [[f"{value:g}" for value in values] for values in dials.values()]
    # its own name, the same in every run, so that a page can hold any number of sliders
    name = "slider-" + hashlib.sha256("".join([*dials, *map(str, shown), *frames]).encode()).hexdigest()[:12]
    first = int(np.ravel_multi_index(start, [len(values) for values in shown]))
    seen = f"{alt}: " if alt else ""
    first_alt = html.escape(seen + ", ".join(f"{label} {values[i]}" for label, values, i in zip(dials, shown, start)))
    # a "</script>" would end the script even inside quotes
    labels, seen = (json.dumps(text).replace("<", "\\u003c") for text in (list(dials), seen))
    below = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    inputs = "\n".join(
        f"""<label style="display: flex; gap: 0.8em; align-items: center">{html.escape(label)} <input type="range" min="0"
max="{len(values) - 1}" value="{i}" style="flex: 1; min-width: 8em">
<output style="min-width: 3em">{values[i]}</output></label>"""
        for label, values, i in zip(dials, shown, start)
    )
    return HTML(f"""<figure id="{name}" style="margin: 1em 0">
{inputs}
<img src="{frames[first]}" alt="{first_alt}" style="width: 100%; background: white">
{below}
<script>(() => {{
  const figure = document.getElementById("{name}"), frames = {frames}, labels = {labels}, shown = {shown};
  const [inputs, outputs] = ["input", "output"].map((tag) => [...figure.querySelectorAll(tag)]);
  const image = figure.querySelector("img");
  const show = () => {{
    inputs.forEach((input, k) => {{ outputs[k].value = shown[k][input.value]; }});
    image.src = frames[inputs.reduce((index, input, k) => index * shown[k].length + Number(input.value), 0)];
    image.alt = {seen} + labels.map((label, k) => `${{label}} ${{outputs[k].value}}`).join(", ");
  }};
  inputs.forEach((input) => input.addEventListener("input", show));
}})()</script></figure>""")


def _as_link(figure: Figure) -> str:
    """The picture as an address that holds it; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def show_source(function: Callable) -> Markdown:
    """The source of a library function without its docstring, as a code block of the page: the text can't drift from it."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    if ast.get_docstring(definition):
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return Markdown("```python\n" + "\n".join(lines) + "\n```")


def recorded(records: Mapping[str, Mapping], prefix: str = "") -> Markdown:
    """A table of recorded measurements (``wsol_lib.book.results.load``) and their origin, or a sentence that there are none."""
    chosen = {name.removeprefix(prefix): entry for name, entry in records.items() if name.startswith(prefix)}
    if not chosen:
        return Markdown("*No recorded measurements are at hand here; the repository keeps them in `results/`.*")
    rows = [
        f"| {_cell(name)} | {entry['value']:.1%} | {_cell(entry['dataset'])} | {entry['n']:,} |"
        for name, entry in chosen.items()
    ]
    first = next(iter(chosen.values()))
    origin = (
        f"*Recorded on {_cell(first['date'])} on {_cell(first['device'])} with torch {_cell(first['versions']['torch'])}, "
        f"commit {_cell(first['commit'])}.*"
    )
    return Markdown("| measured | value | data set | images |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n" + origin)


def _cell(value: object) -> str:
    """Text in a cell of a Markdown table: neither HTML nor the end of the cell."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
