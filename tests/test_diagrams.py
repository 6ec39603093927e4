"""Diagrams of the methods: every one is drawn, its labels lie inside, and it names the equations of its paper."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from wsol_lib.book import diagrams, plots

HELPERS = {"canvas", "block", "arrow"}
METHODS = [
    name
    for name, function in inspect.getmembers(diagrams, inspect.isfunction)
    if function.__module__ == diagrams.__name__ and name not in HELPERS and not name.startswith("_")
]


@pytest.fixture(autouse=True)
def in_the_style_of_the_book():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("name", METHODS)
def test_a_diagram_is_drawn_and_no_label_leaves_it(name):
    figure = getattr(diagrams, name)()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    for ax in figure.axes:
        for text in ax.texts:
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("name", METHODS)
def test_a_text_stays_in_its_block_and_a_block_in_the_drawing(name):
    (ax,) = getattr(diagrams, name)().axes
    ax.figure.canvas.draw()
    for block in ax.patches:
        outline, whole = block.get_window_extent(), ax.get_window_extent()
        assert whole.x0 <= outline.x0 and outline.x1 <= whole.x1 and whole.y0 <= outline.y0 and outline.y1 <= whole.y1
        middle = np.array([(outline.x0 + outline.x1) / 2, (outline.y0 + outline.y1) / 2])
        (own,) = [text for text in ax.texts if np.allclose(ax.transData.transform(text.get_position()), middle, atol=1)]
        box = own.get_window_extent()
        assert outline.x0 < box.x0 and box.x1 < outline.x1 and outline.y0 < box.y0 and box.y1 < outline.y1, own


def test_ddt_trains_nothing_and_draws_one_box():
    kinds = [patch.get_linestyle() for patch in diagrams.ddt().axes[0].patches]
    assert "--" not in kinds
    edges = [plt.matplotlib.colors.to_hex(patch.get_edgecolor()).upper() for patch in plt.gca().patches]
    assert edges.count(diagrams.COLOURS["prediction"].upper()) == 1


def test_slt_net_names_its_losses_and_equations():
    texts = " ".join(text.get_text() for text in diagrams.slt().axes[0].texts)
    assert all(f"Eq. {number}" in texts for number in (3, 8, 9, 13)) and "no\ngradient" in texts


def test_a_loss_is_dashed_and_a_meaning_has_its_colour():
    _, ax = diagrams.canvas(2, 1, 3, 1)
    diagrams.block(ax, 0.5, 0.5, "a", "loss")
    diagrams.block(ax, 1.5, 0.5, "b", "prediction")
    loss, prediction = ax.patches
    assert loss.get_linestyle() == "--" and prediction.get_linestyle() == "-"
    assert plt.matplotlib.colors.to_hex(prediction.get_edgecolor()).upper() == diagrams.COLOURS["prediction"].upper()
