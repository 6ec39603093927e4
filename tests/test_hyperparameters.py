"""Feasible ranges: both ends are allowed, what is outside of them is refused in one sentence."""

import pytest

from wsol_lib.hyperparameters import check_hyperparameters

SPACE = {"drop_rate": (0.0, 1.0), "grid_size": (1, 224), "size_prior": (0.0, float("inf"))}


def test_both_ends_are_allowed():
    check_hyperparameters(SPACE, drop_rate=0.0, grid_size=1, size_prior=0.0)
    check_hyperparameters(SPACE, drop_rate=1, grid_size=224, size_prior=1e9)


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("drop_rate", -0.1, r"expected drop_rate in \[0, 1\], found -0.1: choose it from this range"),
        ("drop_rate", 1.1, r"expected drop_rate in \[0, 1\], found 1.1"),
        ("drop_rate", float("nan"), r"expected drop_rate in \[0, 1\], found nan"),
        ("grid_size", 0, r"expected an integer grid_size in \[1, 224\], found 0"),
        ("grid_size", 4.5, r"expected an integer grid_size in \[1, 224\], found 4.5"),
        ("grid_size", "abc", r"expected grid_size as a number, found 'abc': correct it"),
        ("drop_rate", True, r"expected drop_rate as a number, found True"),
        ("drop_rate", [0.5], r"expected drop_rate as a number, found \[0.5\]"),
        ("size_prior", float("inf"), r"expected size_prior in \[0, inf\), found inf"),
    ],
)
def test_what_is_outside_is_refused(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_hyperparameters(SPACE, **{name: value})
