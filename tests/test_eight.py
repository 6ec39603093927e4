"""The eight photographs: the boxes and ticks of the first seed, true boxes where the data are, frames where they are not."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from wsol_lib.book import eight, plots, records

PLACES = list(eight.EIGHT)


class Photographs:
    def __init__(self):
        self.boxes = {place: torch.tensor([[0.0, 0, place % 7 + 1, 9]]) for place in PLACES}

    def images(self, places):
        return torch.arange(len(places), dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 64, 64)


@pytest.fixture(autouse=True)
def one_record(monkeypatch):
    boxes = torch.zeros(2, eight.IMAGES, 4)
    boxes[0, PLACES] = torch.tensor([[10.0 + k, 20, 30, 50] for k in range(8)])
    hits = np.zeros((2, eight.IMAGES), bool)
    hits[0, PLACES[1]] = hits[1] = True
    monkeypatch.setattr(records, "load_record", lambda name: {"dataset": name.split("-")[0], "n": eight.IMAGES})
    monkeypatch.setattr(records, "boxes", lambda name: boxes)
    monkeypatch.setattr(records, "hits", lambda name: hits)
    monkeypatch.setattr(eight, "DATASET", "photos")
    yield
    plt.close("all")


def drawn(ax):
    return {
        to_hex(one.get_edgecolor()).upper(): (*one.get_xy(), one.get_width(), one.get_height())
        for one in ax.patches
        if isinstance(one, Rectangle)
    }


def test_photographs_with_the_true_box_and_that_of_the_first_seed(monkeypatch):
    asked = []
    monkeypatch.setattr(eight, "load_dataset", lambda *arguments: asked.append(arguments) or Photographs())
    axes = eight.draw({"CAM": "photos-cam"}, "data").axes
    assert asked == [("photos", "test", "data")]
    assert [ax.get_title() for ax in axes] == ["✗", "✓"] + 6 * ["✗"]
    assert axes[3].images[0].get_array().max() == 3
    assert drawn(axes[2]) == {
        plots.COLOURS["ground truth"]: (-0.5, -0.5, PLACES[2] % 7 + 1, 9),
        plots.COLOURS["prediction"]: (11.5, 19.5, 18, 30),
    }


def test_frames_where_the_data_are_not(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOL_DATA", str(tmp_path))
    monkeypatch.setattr(eight, "DATASET", "tiny-imagenet")
    monkeypatch.setattr(records, "load_record", lambda name: {"dataset": "tiny-imagenet", "n": eight.IMAGES})
    figure = eight.draw({"CAM": "photos-cam", "HaS": "photos-has"})
    assert len(figure.axes) == 16 and list(drawn(figure.axes[0])) == [plots.COLOURS["prediction"]]
    assert (figure.axes[0].images[0].get_array() == eight.FRAME).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["prediction"]


def test_an_experiment_on_other_images_is_refused(monkeypatch):
    monkeypatch.setattr(eight, "load_dataset", lambda *arguments: Photographs())
    with pytest.raises(ValueError, match=r"expected .* found birds-cam on 10,000 of birds"):
        eight.draw({"CAM": "birds-cam"})
