"""Figures: boxes where they belong, sliders that need no kernel, source that is the library's own."""

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest
import standins
import torch

from wsol_lib.book import plots
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


def test_every_meaning_has_its_own_colour():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)


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


def test_a_caption_stands_under_the_figure():
    figure = plots.gallery(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), columns=2)
    plots.caption(figure, "two black squares of four pixels " * 3)
    assert figure.get_supxlabel().replace("\n", " ") == ("two black squares of four pixels " * 3).strip()
    assert "\n" in figure.get_supxlabel()


def test_a_page_in_a_page_needs_no_file(tmp_path):
    (tmp_path / "sheet.html").write_text('<p title="a & b">τ</p>', encoding="utf-8")
    frame = plots.embedded(tmp_path / "sheet.html", height=100).data
    assert 'srcdoc="&lt;p title=&quot;a &amp; b&quot;&gt;τ&lt;/p&gt;"' in frame and "height: 100px" in frame


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
    assert shown.startswith("```python\ndef box_iou(a: Tensor, b: Tensor) -> Tensor:\n    ")
    assert "return " in shown and '"""' not in shown and "continuous edges" not in shown


RECORD = {
    "value": 0.62,
    "dataset": "tiny-imagenet",
    "n": 10_000,
    "date": "2026-11-21",
    "device": "cpu (2 threads)",
    "commit": "abc",
    "versions": {"torch": "2.6"},
}


def test_recorded_measurements_come_with_their_origin():
    shown = plots.recorded({"cam/a": RECORD, "other/b": RECORD}, "cam/").data
    assert "| a | 62.0% | tiny-imagenet | 10,000 |" in shown and "| b |" not in shown
    assert "cpu (2 threads)" in shown and "commit abc" in shown


def test_names_of_records_are_text_whatever_they_say():
    record = {**RECORD, "dataset": "<script>x</script>", "device": "<i>", "commit": None}
    shown = plots.recorded({"a | b <b>\n\nc & d": record}).data
    assert "| a \\| b &lt;b&gt; c &amp; d | 62.0% | &lt;script&gt;x&lt;/script&gt; | 10,000 |" in shown
    assert "on &lt;i&gt; with" in shown and "commit None" in shown and "<" not in shown


@pytest.mark.parametrize("records", [{}, {"other/b": RECORD}])
def test_without_records_it_says_so(records):
    assert "No recorded measurements" in plots.recorded(records, "cam/").data
