"""Figures: boxes where they belong, sliders that need no kernel, source that is the library's own."""

import base64
import io
import itertools
import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import standins
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from wsol_lib.book import listing, plots
from wsol_lib.boxes import box_iou
from wsol_lib.data import coco

matplotlib.use("Agg")


def test_a_box_is_drawn_round_its_pixels():
    """The one pixel at the origin, whose centre matplotlib puts at (0, 0)."""
    _, ax = plt.subplots()
    plots.show_image(
        ax, torch.zeros(3, 4, 4, dtype=torch.uint8), boxes={"ground truth": torch.tensor([[0.0, 0, 1, 1]])}
    )
    (outline,) = ax.patches
    assert outline.get_bbox().extents.tolist() == [-0.5, -0.5, 0.5, 0.5]
    assert matplotlib.colors.to_hex(outline.get_edgecolor()) == plots.COLOURS["ground truth"].lower()


def linear(colour):
    """A colour as shares of linear red, green and blue light."""
    value = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


# what the eye makes of red, green and blue light, fully colour-blind: Machado, Oliveira and Fernandes (2009), table 1
EYES = {
    "full": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("eye", EYES)
def test_every_meaning_has_a_colour_of_its_own_for_every_eye(eye):
    light = [(np.array(EYES[eye]) @ linear(colour)).clip(0, 1) for colour in plots.COLOURS.values()]
    seen = [np.where(own <= 0.0031308, own * 12.92, 1.055 * own ** (1 / 2.4) - 0.055) for own in light]
    pairs = itertools.combinations((rgb2lab(own[None, None])[0, 0] for own in seen), 2)
    assert min(deltaE_ciede2000(a, b) for a, b in pairs) > 14, "2 is the least that is seen at all"


def test_boxes_are_told_apart_in_print_without_colours():
    roles = ("ground truth", "pseudo box", "prediction")
    colours = [matplotlib.colors.to_rgb(plots.COLOURS[role]) for role in roles]
    lightness = sorted(rgb2lab(np.array(colours)[None])[0, :, 0])
    assert min(np.diff(lightness)) > 12, "of 100"


def test_what_is_written_in_a_colour_can_be_read_on_white():
    for role in ("prediction", "baseline"):
        assert 1.05 / (linear(plots.COLOURS[role]) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, role


def test_a_pseudo_box_is_dashed_in_the_picture_and_in_the_legend():
    figure = plots.gallery(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), boxes=[dict.fromkeys(BOXES, torch.ones(1, 4))])
    plots.box_legend(figure, BOXES)
    lines = [*figure.axes[0].patches, *figure.legends[0].get_lines()]
    assert [line.get_linestyle() in ("-", "solid") for line in lines] == [True, False, True] * 2


BOXES = ("ground truth", "pseudo box", "prediction")


def photograph(side):
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def inside(text):
    """The pictures in a vector graphic."""
    links = re.findall(r"data:image/(?:png|webp);base64,\s*([^\"]+)", text)
    return [Image.open(io.BytesIO(base64.b64decode(link))) for link in links]


def test_a_figure_is_a_vector_graphic_whose_small_pictures_keep_their_pixels(monkeypatch):
    with plt.rc_context():
        plots.use_style()
        image = photograph(8)
        text = plots.as_svg(plots.gallery([image]))
        (picture,) = inside(text)
        assert np.array_equal(np.asarray(picture.convert("RGB")), image.permute(1, 2, 0))
        assert "pixelated" in text and "<dc:date>" not in text
        assert text == plots.as_svg(plots.gallery([image])), "the same in every run"
        assert "pixelated" not in plots.as_svg(plots.gallery([photograph(200)]))


def test_a_large_photograph_keeps_the_pixels_that_can_be_seen():
    with plt.rc_context():
        plots.use_style()
        text = plots.as_svg(plots.gallery([photograph(400)], columns=1, size=1))
    (picture,) = inside(text)
    scale = float(re.search(r"matrix\(([\d.]+)", text)[1])
    assert 150 < picture.width < 200 and picture.width == picture.height == round(scale * 400 / 72 * plots.DPI)


def test_a_figure_too_large_for_a_vector_graphic_is_a_picture_of_its_size_200_dots_an_inch(monkeypatch):
    with plt.rc_context():
        plots.use_style()
        figure = plots.gallery([photograph(8)] * 2, columns=2, size=2)
        size = re.search(r'<svg[^>]* viewBox="0 0 ([\d.]+) ([\d.]+)"', plots.as_svg(figure)).groups()
        monkeypatch.setattr(plots, "LARGEST_SVG", 100)
        text = plots.as_svg(figure)
        assert f'viewBox="0 0 {" ".join(size)}"' in text, "in points, 72 an inch"
        assert np.allclose(inside(text)[0].size, [float(side) / 72 * 200 for side in size], atol=3)


class Shell:
    """An IPython whose frontend can be asked for input, or not."""

    def __init__(self, allow_stdin):
        self.kernel = self
        self.parent = {"content": {"allow_stdin": allow_stdin}}

    def get_parent(self, channel):
        return self.parent


def test_where_somebody_runs_the_cell_a_slider_computes(monkeypatch):
    monkeypatch.setattr(plots, "get_ipython", lambda: Shell(True))
    drawn = []

    def draw(rho, tau):
        drawn.append((rho, tau))
        return plt.figure(figsize=(1, 1), facecolor=(rho, tau, 0))

    dials = {"ρ": [0, 0.5], "τ": [0.1, 0.2, 0.3]}
    shown = plots.sliders(draw, dials, start=[1, 2], alt="a <b>", note="c & d", live={"τ": [0.1, 0.28, 0.35]})
    rho, tau, picture, note = shown.children
    assert drawn == [(0.5, 0.28)], "the nearest value to the one that the page begins with"
    assert note.value == "c &amp; d" and 'alt="a &lt;b&gt;: ρ 0.5, τ 0.28"' in picture.value
    before = picture.value
    tau.value = 0.35
    rho.value = 0
    assert drawn[1:] == [(0.5, 0.35), (0, 0.35)]
    assert picture.value != before and "ρ 0, τ 0.35" in picture.value


@pytest.mark.parametrize("shell", [None, object(), Shell(False)], ids=["no IPython", "no kernel", "papermill"])
def test_where_nobody_does_the_pictures_are_drawn_beforehand(monkeypatch, shell):
    monkeypatch.setattr(plots, "get_ipython", lambda: shell)
    page = plots.slider(lambda value: plt.figure(figsize=(1, 1)), [0, 1], label="τ", live=[0, 0.5, 1]).data
    assert 'max="1" value="0"' in page


def test_a_map_is_light_on_an_image_that_keeps_its_colours():
    image = torch.full((3, 2, 2), 200, dtype=torch.uint8)
    _, ax = plt.subplots()
    box = {"prediction": torch.tensor([[0.0, 0, 1, 1]])}
    plots.show_glow(ax, image, torch.tensor([[0.0, 0.5], [0.5, 1.0]]), outline=torch.eye(2).bool(), boxes=box)
    under, light = ax.images
    assert (under.get_array() == 200).all()
    assert light.get_array()[..., 3].ravel().tolist() == pytest.approx([0, 0.225, 0.225, 0.9])
    assert len(ax.collections) == len(ax.patches) == 1


def test_a_gallery_hides_the_places_it_does_not_need():
    figure = plots.gallery(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), columns=3)
    assert [bool(ax.images) for ax in figure.axes] == [True] * 5 + [False]
    assert not figure.axes[-1].axison


@pytest.fixture
def boxed(tmp_path):
    """Three photographs of 48 x 36 pixels; the second has two boxes, the third none."""
    folder = standins.photographs(tmp_path / "photographs", ["a/1.png", "2.png", "3.png"])
    images = [{"id": i, "file_name": name} for i, name in enumerate(["a/1.png", "2.png", "3.png"])]
    rows = [(0, (0, 0, 24, 18), 0.25), (1, (1, 2, 11, 22), 0.75), (1, (0, 0, 1, 1), 0.5)]
    annotations = [coco.annotation(n, image, 7, box, score) for n, (image, box, score) in enumerate(rows)]
    categories = [{"id": 7, "name": "cat"}]
    coco.write(tmp_path / "boxes.json", {}, images=images, annotations=annotations, categories=categories)
    return tmp_path / "boxes.json", folder


def test_photographs_are_shown_with_their_best_box_class_and_score(boxed):
    figure = plots.boxed_photographs(*boxed)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["1\ncat, 0.25", "2\ncat, 0.75", "3\nno box"]
    assert [len(ax.patches) for ax in figure.axes[:3]] == [1, 1, 0]
    assert figure.axes[1].patches[0].get_bbox().extents.tolist() == [0.5, 1.5, 10.5, 21.5]
    assert figure.axes[0].images[0].get_array().shape == (36, 48, 3)


def test_some_photographs_beside_the_truth(boxed):
    figure = plots.boxed_photographs(*boxed, ["2.png"], truth={"2.png": [3, 4, 10, 20]}, columns=1)
    truth, prediction = figure.axes[0].patches
    assert truth.get_bbox().extents.tolist() == [2.5, 3.5, 12.5, 23.5]
    assert matplotlib.colors.to_hex(truth.get_edgecolor()) == plots.COLOURS["ground truth"].lower()
    assert matplotlib.colors.to_hex(prediction.get_edgecolor()) == plots.COLOURS["prediction"].lower()


def test_a_page_in_a_page_needs_no_file(tmp_path):
    (tmp_path / "sheet.html").write_text('<p title="a & b">τ</p>', encoding="utf-8")
    frame = plots.embedded(tmp_path / "sheet.html", height=100, title="a & b").data
    assert 'srcdoc="&lt;p title=&quot;a &amp; b&quot;&gt;τ&lt;/p&gt;"' in frame and "height: 100px" in frame
    assert 'title="a &amp; b"' in frame and 'title="sheet.html"' in plots.embedded(tmp_path / "sheet.html").data


def test_a_slider_holds_one_picture_a_value_and_loads_nothing():
    def draw(value):
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.set_title(f"{value}")
        return figure

    page = plots.slider(draw, [0.1, 0.2, 0.5], label="τ", start=1).data
    frames = re.findall(r"'(data:image/webp;base64,[^']+)'", page)
    assert len(set(frames)) == 3
    assert 'max="2" value="1"' in page and "0.2</output>" in page
    assert "http" not in page
    assert page != plots.slider(draw, [0.1, 0.2, 0.6], label="τ").data


def test_two_sliders_hold_a_picture_for_each_pair_of_values_the_last_one_fastest():
    drawn = []

    def draw(rho, tau):
        drawn.append((rho, tau))
        return plt.figure(figsize=(1, 1), facecolor=(rho, tau, 0))

    page = plots.sliders(draw, {"ρ": [0, 0.5], "τ": [0.1, 0.2, 0.3]}, start=[1, 2]).data
    assert drawn == [(0, 0.1), (0, 0.2), (0, 0.3), (0.5, 0.1), (0.5, 0.2), (0.5, 0.3)]
    frames = re.findall(r"'(data:image/webp;base64,[^']+)'", page)
    assert len(set(frames)) == 6
    assert f'<img src="{frames[5]}" alt="ρ 0.5, τ 0.3"' in page
    assert 'max="1" value="1"' in page and 'max="2" value="2"' in page


def test_a_slider_says_what_is_seen_and_has_a_caption():
    words = dict(alt="a <cat>", note="its box & <map>")
    page = plots.slider(lambda value: plt.figure(figsize=(1, 1)), [0, 1], label="τ", **words).data
    assert 'alt="a &lt;cat&gt;: τ 0"' in page and 'image.alt = "a \\u003ccat>: " + labels' in page
    assert "<figcaption>its box &amp; &lt;map&gt;</figcaption>" in page


def test_a_label_is_text_whatever_it_says():
    label = """</script><b title="'">a & b</b>"""
    page = plots.slider(lambda value: plt.figure(figsize=(1, 1)), [0, 1], label=label).data
    assert page.count("</script>") == 1 and "<b" not in page
    escaped = "&lt;/script&gt;&lt;b title=&quot;&#x27;&quot;&gt;a &amp; b&lt;/b&gt;"
    assert f">{escaped} <input" in page and f'alt="{escaped} 0"' in page
    assert json.loads(re.search(r"labels = (\[.*?\]), shown", page)[1]) == [label]


def test_source_is_shown_without_its_docstring():
    shown = plots.show_source(box_iou).data
    assert shown.startswith("```python\n# wsol_lib.boxes\ndef box_iou(a: Tensor, b: Tensor) -> Tensor:\n    ")
    assert "return " in shown and '"""' not in shown and "continuous edges" not in shown


def scaled(values, factor, *, offset=0.0):
    """Scales values."""
    good = factor > 0
    if not good:
        raise ValueError(f"expected a positive factor, found {factor}")
    if factor == 1:
        return values
    _check_finite(values)
    middle = sum(values) / len(values)
    return [middle + (value - middle) * factor + offset for value, other in zip(values, values) if value is not None]


def _check_finite(values):
    pass


def test_a_listing_has_no_checks_and_no_line_over_88_characters():
    lines = plots.show_source(scaled).data.splitlines()[2:-1]
    assert (
        "\n".join(lines)
        == """\
def scaled(values, factor, *, offset=0.0):
    if factor == 1:
        return values
    middle = sum(values) / len(values)
    return [middle + (value - middle) * factor + offset
        for value, other in zip(values, values) if value is not None]"""
    )


def test_a_line_that_no_bracket_allows_to_break_stays():
    line = "result = " + " + ".join(["number"] * 20)
    assert listing._broken([line]) == [line]
