"""Uncertainty: the intervals of shares, of differences and of any measure, and which of many methods differ."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from wsol_lib.uncertainty import (
    apart,
    bootstrapped,
    chance,
    difference,
    groups,
    holm,
    mean_share,
    share_interval,
    told_apart,
)

# -- one share, one difference


def test_wilson_is_scipys():
    interval = stats.binomtest(5, 25).proportion_ci(method="wilson")
    assert share_interval(0.2, 25) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_have_an_interval_too(share):
    low, high = share_interval(share, 10)
    assert low >= 0 and high <= 1 and 0.2 < high - low < 0.35


def test_the_share_of_one_seed_is_wilson_s():
    right = np.arange(25) < 5
    assert mean_share(right) == mean_share(right[None]) == (0.2, *share_interval(0.2, 25))


def test_the_spread_over_seeds_widens_the_interval_of_a_mean():
    """Shares of 0.2 and 0.6: their mean has an error of 0.2 from the seeds alone, with one degree of freedom and a bit."""
    right = np.stack([np.arange(1000) < 200, np.arange(1000) < 600])
    share, low, high = mean_share(right)
    assert share == pytest.approx(0.4)
    assert (low, high) == (0.0, 1.0)  # 12.7 standard errors to either side, cut at the ends
    # no spread over seeds: 400 images are right for one of the two
    half = 1.9623 * (0.4 * 0.5**2 - 0.2**2) ** 0.5 / 999**0.5
    alike = mean_share(np.stack([np.arange(1000) % 5 == 0, np.arange(1000) % 5 == 1]))
    assert alike == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-5)


def test_images_that_agree_do_not_widen_the_difference():
    """20 images, 2 more are right: the mean is 0.1, its error sqrt(0.09 * 20 / 19 / 20), times Student's 2.093."""
    before = np.arange(20) < 10
    after = np.arange(20) < 12
    assert difference(after, before) == pytest.approx((0.1, 0.1 - 2.093 * 0.0688, 0.1 + 2.093 * 0.0688), abs=1e-3)


def test_seeds_widen_it_where_both_have_some():
    """100 images and two networks each: Welch and Satterthwaite count the three variances together."""
    calm = np.tile(np.arange(100) < 50, (2, 1))
    restless = np.stack([np.arange(100) < 30, np.arange(100) < 70])
    assert difference(calm, calm[0]) == (0, 0, 0)
    # of the images: 20 of +0.5, 20 of -0.5, 60 of 0; of the restless networks: 0.3 and 0.7, of the calm ones nothing
    of_images, of_seeds = 0.1 / 99, 0.2**2
    freedom = (of_images + of_seeds) ** 2 / (of_images**2 / 99 + of_seeds**2 / 1)
    _, low, high = difference(restless, calm)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(of_images + of_seeds)
    assert (low, high) == pytest.approx((-half, half))


def test_where_images_all_agree_the_seeds_are_a_test_of_welch():
    """A network that is right everywhere or nowhere leaves the run means alone."""
    after, before = np.repeat([[1], [0], [1], [1]], 9, axis=1), np.repeat([[0], [1], [0]], 9, axis=1)
    expected = stats.ttest_ind(after[:, 0], before[:, 0], equal_var=False)
    assert chance(after, before) == pytest.approx(expected.pvalue)
    assert difference(after, before)[1:] == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_the_chance_of_one_network_is_students_for_pairs():
    rng = np.random.default_rng(0)
    after, before = rng.random((2, 50)) < 0.5
    assert chance(after, before) == pytest.approx(stats.ttest_rel(after.astype(float), before.astype(float)).pvalue)
    assert chance(torch.from_numpy(after), torch.from_numpy(before)) == chance(after, before) == chance(before, after)


def test_an_interval_leaves_zero_out_where_chance_is_below_five_percent():
    rng = np.random.default_rng(0)
    below = 0
    for runs in (1, 2, 3) * 100:
        after, before = rng.random((runs, 30)) < rng.uniform(0.4, 0.9), rng.random((runs, 30)) < 0.5
        _, low, high = difference(after, before)
        below += chance(after, before) < 0.05
        assert (chance(after, before) < 0.05) == (not low <= 0 <= high)
    assert 50 < below < 250


def test_where_nothing_varies_chance_is_all_or_nothing():
    wrong, right = np.zeros((2, 5)), np.ones((2, 5))
    assert chance(right, right) == 1 and chance(right, wrong) == 0
    assert difference(right, wrong) == (1, 1, 1)


def test_the_interval_covers_the_difference_of_methods_whose_seeds_differ():
    """Three networks each, of accuracies 60 and 65 % that change by 3 points from seed to seed: at least 95 in 100."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        after, before = (rng.random((3, 200)) < rng.normal(mean, 0.03, (3, 1)) for mean in (0.65, 0.60))
        _, low, high = difference(after, before)
        covered += low <= 0.05 <= high
    assert covered / 400 >= 0.94


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_none_is_named(bad):
    with pytest.raises(ValueError, match="found NaN or infinity in before for image 2: measure it again"):
        difference([1, 0, 1], [[1.0, 0, 1], [0, 1, bad]])
    with pytest.raises(ValueError, match="found NaN or infinity in after for image 0"):
        difference([bad, 0, 1], [1, 0, 1])


@pytest.mark.parametrize(("share", "n"), [(0.5, 0), (1.01, 10), (-0.1, 10), (float("nan"), 10)])
def test_no_share(share, n):
    with pytest.raises(ValueError, match="share in"):
        share_interval(share, n)


# Newcombe 1998, Table II, method 10
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_shares_of_different_images_are_newcombes(first, second, low, high):
    a, b = (np.arange(n) < hits for hits, n in (first, second))
    middle = first[0] / first[1] - second[0] / second[1]
    assert apart(a, b) == pytest.approx((middle, low, high), abs=5e-5)
    assert apart(torch.from_numpy(b), torch.from_numpy(a)) == pytest.approx((-middle, -high, -low), abs=5e-5)


def test_no_images_have_no_share():
    with pytest.raises(ValueError, match=r"at least 1 image, found 0\.0 of 0"):
        apart([], [True])


# -- any measure


def test_a_bootstrapped_interval_covers_the_mean():
    """60 numbers of mean 0.3, 300 times: the interval of percentiles has it some 95 times in 100."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = bootstrapped(np.mean, rng.normal(0.3, 1.0, 60), draws=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_rows_of_a_sample_stay_together_and_samples_are_drawn_apart():
    frame = pd.DataFrame({"x": range(30), "y": range(30)})
    assert bootstrapped(lambda drawn: drawn["x"].corr(drawn["y"]), frame, draws=50) == pytest.approx((1, 1))
    low, high = bootstrapped(lambda a, b: a.mean() - b.mean(), np.arange(30), np.arange(30), draws=200)
    assert low < -2 and high > 2


def test_the_seed_decides_and_the_number_of_draws_counts():
    drawn = []
    first = bootstrapped(lambda x: drawn.append(len(x)) or x.mean(), torch.arange(20.0), draws=7)
    assert drawn == [20] * 7
    assert bootstrapped(np.mean, np.arange(20.0), draws=7) == pytest.approx(first)
    assert bootstrapped(np.mean, np.arange(20.0), draws=7, seed=1) != pytest.approx(first)


def test_draws_without_a_measure_do_not_count():
    def spread(x):
        return x[x > 0].std(ddof=1) if (x > 0).sum() > 1 else np.nan

    low, high = bootstrapped(spread, np.array([0, 0, 0, 1.0, 2.0]), draws=200)
    assert 0 <= low < high <= 1
    with pytest.raises(ValueError, match="found NaN in all of 20 draws"):
        bootstrapped(spread, np.zeros(5), draws=20)


def test_no_rows_no_interval():
    with pytest.raises(ValueError, match=r"expected samples with rows, found \[3, 0\]"):
        bootstrapped(np.mean, np.arange(3), np.arange(0))


# -- many methods


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04 not below that
        ([0.5, 0.9, 0.4], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    assert holm(p).tolist() == pytest.approx(corrected)


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1], [float("nan")], [[0.5]], 0.5])
def test_no_p_values(p):
    with pytest.raises(ValueError, match=r"expected p-values \(m,\) in \[0, 1\]"):
        holm(p)


def test_five_equal_methods_are_hardly_ever_told_apart():
    """Ten pairs at 5 % each would be; Holm's correction holds 5 % for all of them together."""
    rng = np.random.default_rng(0)
    wrong = sum(bool(told_apart({name: rng.random(100) < 0.5 for name in "abcde"})[1]) for _ in range(300))
    assert 0 < wrong / 300 <= 0.05


def test_a_ranking_and_who_differs():
    """a is right in all that b is right in and in 20 of 100 more; c is one image better than b."""
    image = np.arange(100)
    right = {"b": image < 50, "a": np.stack([image < 70, image < 70]), "c": torch.arange(100) < 51}
    ranked, pairs = told_apart(right)
    assert ranked == ["a", "c", "b"]
    assert pairs == {("a", "b"), ("a", "c")}
    assert told_apart(right, level=0.4)[1] == {("a", "b"), ("a", "c"), ("c", "b")}  # p of the last is 0.32


def test_the_correction_can_undo_a_pair():
    """a against b alone has p = 0.03; beside two other pairs it needs three times less."""
    right = {"a": np.arange(100) < 50, "b": np.arange(100) >= 50}
    right["b"][:20] = True
    p = chance(right["a"], right["b"])
    assert 0.05 / 3 < p < 0.05 and told_apart(right)[1] == {("b", "a")}
    assert told_apart(right | {"c": right["a"]})[1] == set()


@pytest.mark.parametrize(
    ("ranked", "pairs", "runs"),
    [
        ("abc", [], [(0, 2)]),
        ("abc", ["ab", "ac", "bc"], []),
        ("abc", ["ac"], [(0, 1), (1, 2)]),
        ("abc", ["ca"], [(0, 1), (1, 2)]),  # in any order
        ("abcd", ["ab", "ac", "ad"], [(1, 3)]),
        ("abcd", ["ad", "bd"], [(0, 2), (2, 3)]),
        ("abcd", ["bc"], [(0, 1), (2, 3)]),  # a and c are no run: b stands between them
        ("abcd", ["cd"], [(0, 2)]),  # the run from b on lies inside the first
        ("a", [], []),
        ("", [], []),
    ],
)
def test_groups_by_hand(ranked, pairs, runs):
    assert groups(list(ranked), [tuple(pair) for pair in pairs]) == runs
