"""Figures of the book, in one style: images with boxes and score maps, galleries, sliders.

Colours mean the same thing on every page: see ``COLOURS``. Boxes are xyxy in continuous pixels; matplotlib puts pixel centres
on whole numbers, so everything here shifts by half a pixel once and in one place.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython import get_ipython
from IPython.display import HTML
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from wsol_lib.book.listing import show_source as show_source
from wsol_lib.data.images import decode_rgb

#: One meaning, one colour, for the whole book: green, amber, vermilion and grey, after Okabe and Ito, the last two darker, so
#: that colour-blind readers tell all of them apart and a printer without colours the boxes.
COLOURS = {"ground truth": "#009E73", "pseudo box": "#E69F00", "prediction": "#B83A00", "baseline": "#666666"}
#: Boxes that nobody should take for true are dashed.
DASHED = ("pseudo box",)
SCORE_COLOURMAP = "inferno"
#: Figures are vector graphics; one that takes more bytes than this becomes a picture of so many dots an inch.
LARGEST_SVG, DPI = 600_000, 200


def use_style() -> None:
    """Call once in a chapter, before its first figure."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": DPI,
            "savefig.bbox": "tight",
            "svg.hashsalt": "wsol",  # the same names in every run
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "image.interpolation": "none",  # a picture in a vector graphic keeps its own pixels
            "legend.frameon": False,
        }
    )
    shell = get_ipython()
    if shell is not None and "inline" in plt.get_backend():
        plt.switch_backend(plt.get_backend())  # loads it now: it sets a format of its own when it is loaded
        for formatter in shell.display_formatter.formatters.values():
            formatter.pop(Figure, None)
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, as_svg)


def as_svg(figure: Figure) -> str:
    """The figure as a vector graphic; where it would be too large (``LARGEST_SVG``), a picture in its size, ``DPI`` sharp.

    Lines and letters stay sharp at every size. Pictures are packed as WebP: up to 64 pixels exactly, larger ones with the
    small losses of a photograph; up to 128 they are shown pixel by pixel.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = re.sub(r"<image [^>]*>", _packed, file.getvalue())
    if len(text) <= LARGEST_SVG:
        return text
    head = re.search(r"<svg [^>]*>", text)[0]  # with the size
    return f'{head}<image width="100%" height="100%" xlink:href="{_link(_drawn(figure), quality=85)}"/></svg>'


def _packed(element: re.Match) -> str:
    """An image of a vector graphic, packed smaller."""
    link = re.search(r'data:image/png;base64,\s*([^"]+)', element[0])
    picture = Image.open(io.BytesIO(base64.b64decode(link[1])))
    side = max(picture.size)
    if scale := re.search(r"matrix\(([\d.]+)", element[0]):  # of a pixel, in points: no more pixels than can be seen
        shown = float(scale[1]) * picture.width / 72 * DPI
        if side > 128 and shown < picture.width:
            picture = picture.resize(
                (round(shown), round(shown / picture.width * picture.height)), Image.Resampling.LANCZOS
            )
    packed = element[0].replace(link[0], _link(picture, lossless=side <= 64, quality=80))
    return packed.replace("image-rendering:crisp-edges;image-rendering:pixelated", "") if side > 128 else packed


def _link(picture: Image.Image, **how: Any) -> str:
    """The picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", **how)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _drawn(figure: Figure) -> Image.Image:
    """The figure in pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return Image.open(buffer).convert("RGB")


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
            style = dict(fill=False, lw=2, ec=COLOURS[meaning], ls=_line_style(meaning))
            outline = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, **style)
            outline.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white", alpha=0.7)])
            ax.add_patch(outline)
    ax.set_title(title, fontsize="small")
    ax.set_axis_off()


def show_glow(
    ax: Axes,
    image: Tensor,
    score_map: Tensor,
    *,
    outline: Tensor | None = None,
    boxes: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> None:
    """:func:`show_image` with the image in its own colours, the score map (H, W) as light on it, and a line round a mask."""
    show_image(ax, image, boxes=boxes, title=title)
    scores = np.asarray(score_map)
    light = plt.get_cmap(SCORE_COLOURMAP)(0.35 + 0.65 * scores)
    light[..., 3] = 0.9 * scores**2  # what is low stays as it is
    ax.imshow(light)
    if outline is not None:
        ax.contour(np.asarray(outline), [0.5], colors="white", linewidths=1.5)


def _line_style(meaning: str) -> str | tuple:
    return (0, (3, 1.5)) if meaning in DASHED else "-"


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


def embedded(path: str | Path, height: int = 420, title: str = "") -> HTML:
    """A page of HTML in a frame of this page, ``height`` pixels high, which needs the file no longer.

    Args:
        title: what it shows, as a caption and for those who cannot see it; the file's name if there is none
    """
    page = html.escape(Path(path).read_text(encoding="utf-8"))
    frame = f"width: 100%; height: {height}px; border: 1px solid #ccc"
    name = html.escape(title or Path(path).name)
    inside = f'<iframe title="{name}" srcdoc="{page}" style="{frame}"></iframe><figcaption>{name}</figcaption>'
    return HTML(f"<figure>{inside}</figure>")


def box_legend(figure: Figure, meanings: Iterable[str]) -> None:
    """One legend under the figure that names the colours of its boxes."""
    handles = [
        Line2D([], [], color=COLOURS[meaning], ls=_line_style(meaning), lw=2, label=meaning) for meaning in meanings
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def slider(
    draw: Callable[[float], Figure],
    values: Sequence[float],
    *,
    label: str,
    start: int = 0,
    alt: str = "",
    note: str = "",
    live: Sequence[float] = (),
) -> Any:
    """A slider over a picture: it moves without a kernel on a page of the book, and computes where somebody runs the cell.

    Args:
        draw: value -> figure
        values: what the slider runs over
        label: what stands in front of the value
        start: index of the first value shown
        alt, note: as of :func:`sliders`
        live: more values, for a running kernel
    """
    return sliders(draw, {label: values}, start=[start], alt=alt, note=note, live={label: live} if len(live) else None)


def sliders(
    draw: Callable[..., Figure],
    dials: Mapping[str, Sequence[float]],
    *,
    start: Sequence[int],
    alt: str = "",
    note: str = "",
    live: Mapping[str, Sequence[float]] | None = None,
) -> Any:
    """Several sliders over one picture.

    On a page there is a picture for each combination of values, so keep them few. Where somebody runs the cell, in Jupyter
    or on Colab, the sliders are widgets: each picture is computed when it is asked for.

    Args:
        draw: one value of each dial, in their order -> figure
        dials: label -> what its slider runs over
        start: index of the first value shown, of each dial
        alt: what is seen, for those who cannot see it; the values of the dials stand behind it
        note: a caption below the picture
        live: label -> what its slider runs over in a running kernel, where that is more
    """
    if somebody_there() and find_spec("ipywidgets"):
        return _widgets(draw, dials, start, alt, note, live or {})
    frames, width = [], 0.0
    for values in itertools.product(*dials.values()):
        figure = draw(*values)
        width = max(width, figure.get_figwidth())
        frames.append(_as_link(figure))
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
<img src="{frames[first]}" alt="{first_alt}" style="width: {width:g}in; max-width: 100%; background: white">
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


def somebody_there() -> bool:
    """Whether a person runs this cell: a notebook's window can be asked for input, papermill and nbconvert cannot."""
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def _widgets(draw: Callable, dials: Mapping, start: Sequence[int], alt: str, note: str, live: Mapping) -> Any:
    """The sliders of a running kernel: ipywidgets over one picture that is drawn anew when one of them has moved."""
    import ipywidgets

    inputs, picture = [], ipywidgets.HTML()
    for (label, values), i in zip(dials.items(), start):
        choices = list(live.get(label, values))
        nearest = min(choices, key=lambda value: abs(value - values[i]))
        options = [(f"{value:g}", value) for value in choices]
        inputs.append(
            ipywidgets.SelectionSlider(options=options, value=nearest, description=label, continuous_update=False)
        )

    def show(_=None) -> None:
        values = ", ".join(f"{dial.description} {dial.value:g}" for dial in inputs)
        seen = html.escape(f"{alt}: {values}" if alt else values)
        link = _as_link(draw(*(dial.value for dial in inputs)))
        picture.value = f'<img src="{link}" alt="{seen}" style="width: 100%; background: white">'

    show()
    for dial in inputs:
        dial.observe(show, "value")
    return ipywidgets.VBox([*inputs, picture, *([ipywidgets.HTML(html.escape(note))] if note else [])])


def _as_link(figure: Figure) -> str:
    """The picture as an address that holds it; the figure is closed."""
    link = _link(_drawn(figure), quality=80)
    plt.close(figure)
    return link
