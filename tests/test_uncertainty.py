"""Intervals: Wilson's for a share, and that of a paired difference with and without seeds."""

import numpy as np
import pytest
from scipy import stats

from wsol_lib.uncertainty import difference, share_interval


def test_wilson_is_scipys():
    interval = stats.binomtest(5, 25).proportion_ci(method="wilson")
    assert share_interval(0.2, 25) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_have_an_interval_too(share):
    low, high = share_interval(share, 10)
    assert low >= 0 and high <= 1 and 0.2 < high - low < 0.35


def test_images_that_agree_do_not_widen_the_difference():
    """20 images, 2 more are right: the mean is 0.1, its error sqrt(0.09 * 20 / 19 / 20), times Student's 2.093."""
    before = np.arange(20) < 10
    after = np.arange(20) < 12
    assert difference(after, before) == pytest.approx((0.1, 0.1 - 2.093 * 0.0688, 0.1 + 2.093 * 0.0688), abs=1e-3)


def test_seeds_widen_it_where_both_have_some():
    calm = np.tile(np.arange(100) < 50, (2, 1))
    restless = np.stack([np.arange(100) < 30, np.arange(100) < 70])
    narrow = difference(calm, calm[0])
    wide = difference(restless, calm)
    assert narrow == (0, 0, 0)
    # the images' share and the seeds' share, sem 0.2 by two networks, Student's quantile for 2 degrees of freedom
    of_images = (restless.mean(0) - calm.mean(0)).std(ddof=1) / 10 * 1.9842
    assert wide[2] - wide[0] == pytest.approx(np.hypot(of_images, 4.3027 * 0.2), rel=1e-3)


def test_one_network_against_many_has_the_images_only():
    many = np.stack([np.arange(100) < 30, np.arange(100) < 70])
    alone = np.arange(100) < 50
    middle, _, high = difference(many, alone)
    assert middle == 0 and high == pytest.approx(1.9842 * (many.mean(0) - alone).std(ddof=1) / 10, rel=1e-3)


@pytest.mark.parametrize(
    ("after", "before"), [([True] * 3, [True] * 4), ([True], [True]), (np.ones((1, 2, 3)), np.ones(3))]
)
def test_what_cannot_be_paired(after, before):
    with pytest.raises(ValueError, match="same N images"):
        difference(after, before)


@pytest.mark.parametrize(("share", "n"), [(0.5, 0), (1.01, 10), (-0.1, 10), (float("nan"), 10)])
def test_no_share(share, n):
    with pytest.raises(ValueError, match="share in"):
        share_interval(share, n)
