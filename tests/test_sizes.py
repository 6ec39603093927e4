"""The models of PSOL's Table 2, counted: which of the printed numbers they are."""

import pytest

from wsol_lib.book.sizes import ROWS, count


@pytest.mark.parametrize(
    ("row", "parameters", "flops"),
    [("VGG16-CAM", "14.82", "15.35"), ("ResNet50-CAM", "25.56", None), ("PSOL-ResNet50-Joint", "26.61", None)],
)
def test_as_the_paper_prints(row, parameters, flops):
    counted, work = count(row)
    assert f"{counted:.2f}" == parameters
    assert flops is None or f"{work:.2f}" == flops


def test_two_networks_are_two_trunks_and_a_joint_one_is_one():
    single, apart, joint = (count(row) for row in ("ResNet50-CAM", "PSOL-ResNet50-Sep", "PSOL-ResNet50-Joint"))
    assert joint[1] == single[1] and apart[1] == 2 * single[1]
    assert apart[0] > 1.9 * single[0] > joint[0] > single[0]


def test_every_row_says_how_it_localizes():
    assert {kind for _, _, kind in ROWS.values()} == {"", "sep", "joint"}
