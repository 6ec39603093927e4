"""The table of a group of experiments: rows best first, what makes no maps has no threshold, floors, what lies below them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from wsol_lib import localizers
from wsol_lib.book import records, tables


def kept(value, each, **more):
    accuracies = {"gt_known_loc": each} | ({"gt_known_loc_tau_0.2": more["fixed"]} if "fixed" in more else {})
    seeds = [{"tau": tau, **({"max_box_acc": 0.6, "max_box_acc_v2": 0.5} if tau else {})} for tau in more["taus"]]
    return {
        "value": value,
        "accuracies": accuracies,
        "seeds": seeds,
        "baselines": {"whole_image": 0.1, "centred_box": {"value": 0.4}},
        "data": {"train-weaksup": {"n": 2400}, "train-fullsup": {"n": 120}, "test": {"n": 4}},
        "images_seen": 9600,
        "settings": {"backbone": "resnet50", "input_size": 128},
    }


RECORDS = {
    "birds-cam": kept(0.375, [0.5, 0.25], fixed=[0.25, 0.0], taus=[0.5, 0.6]),
    "birds-psol": kept(0.75, [0.75], taus=[None]),
    "birds-centre": kept(0.5, [0.5], fixed=[0.5], taus=[0.5]),
}
HITS = {
    "birds-cam": np.array([[1, 1, 0, 0], [0, 1, 0, 0]], bool),
    "birds-psol": np.array([[1, 1, 1, 0]], bool),
    "birds-centre": np.array([[1, 0, 1, 0]], bool),
}


@pytest.fixture(autouse=True)
def two_records(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "load_record", RECORDS.__getitem__)
    monkeypatch.setattr(records, "hits", lambda name, **which: HITS[name])
    monkeypatch.setattr(records, "folder", lambda: tmp_path)
    yield tmp_path
    plt.close("all")


def test_every_localizer_has_a_label_and_one_kind():
    assert tuple(tables.LABELS) == localizers.NAMES
    assert sorted(name for _, names in tables.KINDS.values() for name in names) == sorted(localizers.NAMES)
    assert tables.kind_of("PSOL") == tables.kind_of("psol") == "labels; a student predicts boxes"


def test_rows_are_the_best_first_with_means_over_the_seeds():
    table = tables.board("birds", ["cam", "psol"])
    assert list(table.index) == ["PSOL", "CAM"]
    cam = table.loc["CAM"]
    assert (cam["value"], cam["each"], cam["fixed"], cam["tau"]) == (0.375, [0.5, 0.25], 0.125, 0.55)
    assert (cam["best"], cam["v2"], cam["whole"], cam["centred"]) == (0.6, 0.5, 0.1, 0.4)
    assert cam["low"] < 0.375 < cam["high"]


def test_what_makes_no_maps_has_no_threshold():
    psol = tables.board("birds", ["psol"]).loc["PSOL"]
    assert all(np.isnan(psol[column]) for column in ("fixed", "tau", "best", "v2"))


def test_what_lies_below_a_floor_is_named():
    table = tables.board("birds", ["cam", "psol"])
    assert tables.below(table) == ["CAM"] and tables.below(table, "whole") == []


def test_records_are_at_hand_where_one_of_them_lies(two_records):
    assert not tables.at_hand("birds")
    (two_records / "birds-cam.json").touch()
    assert tables.at_hand("birds") and not tables.at_hand("birds", ["psol"]) and not tables.at_hand("photos")


def test_what_is_not_random_stands_for_as_many_seeds_as_the_others_have():
    hits = tables.right("birds", ["cam", "psol", "centre"])
    assert {label: len(own) for label, own in hits.items()} == {"CAM": 2, "PSOL": 1, "centre": 2}
    assert (hits["centre"] == HITS["birds-centre"]).all()


def test_a_budget_is_read_from_the_record():
    told = tables.budget("birds-cam")
    assert told["training images, labels alone"] == "2,400" and told["looks at an image"] == "9,600"
    assert (told["it sees"], told["seeds"]) == ("128 × 128 pixels", "2")


def test_the_figure_has_a_row_a_localizer_both_floors_and_a_bar_over_what_is_not_told_apart():
    _, ax = plt.subplots()
    handles = tables.draw_board(ax, tables.board("birds", ["cam", "psol"]), tables.right("birds", ["cam", "psol"]))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["PSOL", "CAM"]
    lines = [tuple(np.ravel(line.get_xdata())) for line in ax.lines]
    assert (0.1, 0.1) in lines and (0.4, 0.4) in lines
    bars = [line for line in ax.lines if line.get_color() == "k"]
    assert [tuple(bar.get_ydata()) for bar in bars] == [(-0.3, 1.3)]
    assert {handle.get_label() for handle in handles} >= {"whole image", "centred box"}


def test_each_choice_moves_a_number_by_its_mean_change(monkeypatch):
    """By hand: CAM 0.375 and HaS 0.5; CAM's seeds 0.25 apart, HaS has one; at 0.2 CAM is at 0.125 and HaS at 0.5."""
    other = kept(0.5, [0.5], fixed=[0.5], taus=[0.5])
    monkeypatch.setitem(RECORDS, "birds-has", other)
    monkeypatch.setitem(HITS, "birds-has", np.array([[1, 1, 0, 0]], bool))
    moves = tables.moves("birds", ["centre", "cam", "has", "psol"])
    assert moves["another method, of CAM's family"] == 0.125
    assert moves["another method, of all"] == pytest.approx((0.125 + 0.375 + 0.25) / 3)
    assert (moves["another seed"], moves["τ = 0.2 instead of a chosen τ"]) == (0.25, 0.125)
    assert moves["τ chosen on the test images"] == pytest.approx((0.225 + 0.1) / 2)
    assert moves["MaxBoxAccV2 instead of MaxBoxAcc"] == pytest.approx(0.1)
    assert moves["IoU 0.3 instead of 0.5"] == 0.0  # the hits of this test are the same at every IoU
