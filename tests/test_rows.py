"""Experiments side by side: rows from the top, floors of the boxed images, and seeds that count where one has none."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from wsol_lib.book import plots, records, rows
from wsol_lib.uncertainty import difference, mean_share

HITS = {
    "photos-cam": np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool),
    "photos-ddt": np.array([[1, 1, 0, 1]], bool),
    "photos-psol": np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool),
}


def kept(name):
    return {
        "n": 4,
        "images_seen": 0 if name == "photos-ddt" else 60,
        "accuracies": {"gt_known_loc": [float(own.mean()) for own in HITS[name]]},
        "baselines": {
            "whole_image": 0.1,
            "centred_box": {"value": 0.4},
            "centred_box_best_on_test": {"value": 0.45},
        },
    }


@pytest.fixture(autouse=True)
def three_records(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "load_record", kept)
    monkeypatch.setattr(records, "hits", lambda name, **which: HITS[name])
    monkeypatch.setattr(records, "compare", lambda name, other, **which: difference(HITS[name], HITS[other]))
    monkeypatch.setattr(records, "folder", lambda: tmp_path)
    yield tmp_path
    plt.close("all")


def test_experiments_are_at_hand_if_all_are(three_records):
    (three_records / "photos-cam.json").touch()
    assert rows.at_hand(["photos-cam"]) and not rows.at_hand(["photos-cam", "photos-ddt"])


def test_the_floor_is_chosen_on_the_boxed_images():
    assert rows.floor("photos-cam") == {"whole image": 0.1, "best centred box": 0.4}


def test_what_learns_nothing_stands_for_any_number_of_seeds():
    value, low, high = rows.compare("photos-cam", "photos-ddt")
    assert value == records.compare("photos-cam", "photos-ddt")[0] == pytest.approx(-0.125)
    repeated = np.repeat(HITS["photos-ddt"], 2, axis=0)
    assert (value, low, high) == difference(HITS["photos-cam"], repeated)
    assert (low, high) != records.compare("photos-cam", "photos-ddt")[1:]
    assert rows.compare("photos-cam", "photos-psol") == records.compare("photos-cam", "photos-psol")


def test_a_row_an_experiment_from_the_top_with_the_floor():
    _, ax = plt.subplots()
    names = {"DDT": "photos-ddt", "CAM": "photos-cam"}
    rows.draw(ax, names, {"CAM": "pseudo box"}, printed={"DDT": 0.6})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["DDT", "CAM"] and ax.yaxis_inverted()
    dots = {tuple(line.get_xdata()): line.get_color() for line in ax.lines if line.get_marker() == "o"}
    assert dots == {(0.75,): plots.COLOURS["prediction"], (0.5, 0.75): plots.COLOURS["pseudo box"]}
    labels = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert labels == ["whole image, 10.0%", "best centred box, 40.0%", "printed"]
    assert [text.get_text() for text in ax.texts] == ["75.0%", "62.5%"]


def test_a_line_over_a_number_with_intervals_and_the_floor():
    _, ax = plt.subplots()
    lines = {"CAM": {5: "photos-ddt", 1000: "photos-cam"}, "student": {5: "photos-psol"}}
    rows.draw_over(ax, lines, {"CAM": "pseudo box", "student": "#123456"}, of="photographs a class")
    drawn = {bars.get_label(): bars.lines[0] for bars in ax.containers}
    assert {label: line.get_color() for label, line in drawn.items()} == {
        "CAM": plots.COLOURS["pseudo box"],
        "student": "#123456",
    }
    assert drawn["CAM"].get_xydata().tolist() == [[5, 0.75], [1000, 0.625]]
    (ends,) = ax.containers[0].lines[2]
    _, low, high = mean_share(HITS["photos-cam"])
    np.testing.assert_allclose(ends.get_segments()[1], [[1000, low], [1000, high]])
    heights = {line.get_label(): line.get_ydata()[0] for line in ax.lines if line.get_ls() in ("--", ":")}
    assert heights == {"whole image": 0.1, "best centred box": 0.4}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["5", "1,000"]
    assert ax.get_xlabel() == "photographs a class" and ax.get_xscale() == "log"
