"""The figure of growth: lines by number of images, what one more image takes, and a slope of 1 beside them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from wsol_lib.book import growth


def entry(n, seconds, mib):
    return {"n": n, "value": seconds, "mib": mib}


KEPT = {  # a record sorts its names as text: 10000 before 2000
    "train/1000": entry(1000, 3.0, 10.0),
    "train/100000": entry(100_000, 410.0, 210.0),
    "train/20000": entry(20_000, 40.0, 50.0),
    "train ddt/1000": entry(1000, 2.0, 0.0),
    "train ddt/2000": entry(2000, 8.0, 0.1),
    "predict/1000": entry(1000, 1.0, 1.0),
}


def test_lines_go_upwards_and_need_two_numbers():
    found = growth.measured(KEPT)
    assert list(found) == ["train", "train ddt"]
    assert found["train"].tolist() == [[1000, 3, 10], [20_000, 40, 50], [100_000, 410, 210]]


def test_what_one_more_image_takes_is_that_between_the_two_largest_numbers():
    found = growth.rates(KEPT)
    assert found.loc["train ddt", "exponent"] == pytest.approx(2)
    assert found.loc["train", "exponent"] == pytest.approx(np.log(10.25) / np.log(5))
    assert found.loc["train", "ms"] == pytest.approx(1000 * 370 / 80_000)
    assert found.loc["train", "kb"] == pytest.approx(160 * 1024 * 1.024 / 80_000)


def test_two_panels_have_a_line_a_command_and_one_of_slope_1():
    figure = growth.draw(KEPT)
    for ax, column in zip(figure.axes, (1, 2)):
        *lines, slope = ax.get_lines()
        assert [line.get_label().partition(":")[0] for line in lines] == ["train", "train ddt"]
        assert lines[0].get_ydata().tolist() == growth.measured(KEPT)["train"][:, column].tolist()
        x, y = slope.get_data()
        assert list(x) == [1000, 100_000] and y[1] / y[0] == 100
        assert ax.get_xscale() == ax.get_yscale() == "log"
    assert figure.axes[1].get_lines()[1].get_ydata().tolist() == [growth.LEAST] * 2  # a logarithm needs more than 0
    plt.close(figure)
