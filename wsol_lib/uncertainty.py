"""Uncertainty: the interval that a count on some images stands for, and which of several methods differ.

All intervals of the book are of 95 %. Two boxes on one image tend to be right or wrong together, so two methods are
compared image by image; and since another seed makes another network, its spread belongs in the interval where there is one.
Of many methods some pair always differs by accident: of those that are compared all with all, Holm's correction decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of ``n`` images.

    Args:
        share: in [0, 1]; a mean over several networks need not be a multiple of 1 / n
        n: images, at least 1

    Returns:
        (low, high) in [0, 1]

    Raises:
        ValueError: a share outside [0, 1], no image

    >>> low, high = share_interval(0.5, 100)
    >>> f"{low:.3f} {high:.3f}"
    '0.404 0.596'
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(
            f"expected a share in [0, 1] of at least 1 image, found {share} of {n}: count hits over images"
        )
    z = stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def mean_share(right: ArrayLike) -> tuple[float, float, float]:
    """The share of right images of a method, mean over its seeds, with the interval over images and seeds.

    One seed has Wilson's interval, over images alone; of several the two variances add up as in :func:`difference`.

    Args:
        right: (N,), or (R, N) of R networks that differ in their seeds

    Returns:
        (share, low, high) in [0, 1]

    Raises:
        ValueError: other shapes

    >>> share, low, high = mean_share([[True, False, True, True], [True, False, False, True]])
    >>> f"{share:.3f} {low:.3f} {high:.3f}"
    '0.625 0.000 1.000'
    """
    right = np.atleast_2d(np.asarray(torch.as_tensor(right), dtype=float))
    if len(right) == 1:
        share = float(right.mean())
        return share, *share_interval(share, right.size)
    middle, error, freedom = _estimate(right, np.zeros_like(right))
    half = error * float(stats.t.ppf(0.975, freedom))
    return middle, max(0.0, middle - half), min(1.0, middle + half)


def difference(after: ArrayLike, before: ArrayLike) -> tuple[float, float, float]:
    """How much larger the share of right images is in ``after`` than in ``before``, on the same images.

    The interval is the mean difference plus or minus Student's quantile times one standard error, that of
    :func:`chance`: it leaves zero out exactly where chance is below 5 %.

    Args:
        after, before: (N,), or (R, N) of R networks that differ in their seeds; R may differ between the two. The spread
            over seeds counts where both have at least two.

    Returns:
        (difference, low, high), in shares, not points

    Raises:
        ValueError: other shapes, images that are not the same number, NaN

    >>> points, low, high = difference([True, True, True, False], [True, False, False, False])
    >>> f"{points:.2f} {low:.2f} {high:.2f}"
    '0.50 -0.42 1.42'
    """
    middle, error, freedom = _estimate(after, before)
    half = error * float(stats.t.ppf(0.975, freedom))
    return middle, middle - half, middle + half


def chance(after: ArrayLike, before: ArrayLike) -> float:
    """The p-value of a :func:`difference`: how often two methods that are equally good would come out so far apart.

    Two-sided, by Student's t. Where seeds count, three variances add up, and the degrees of freedom are those of Welch
    and Satterthwaite ("An approximate distribution of estimates of variance components", 1946).

    Args, Raises:
        as :func:`difference`

    Returns:
        p in [0, 1]; where nothing varies, 1 without a difference and 0 with one
    """
    middle, error, freedom = _estimate(after, before)
    if error == 0:
        return float(middle == 0)
    return 2 * float(stats.t.sf(abs(middle) / error, freedom))


def _estimate(after: ArrayLike, before: ArrayLike) -> tuple[float, float, float]:
    """The mean difference, its standard error and the degrees of freedom of that."""
    after, before = (np.atleast_2d(np.asarray(torch.as_tensor(value), dtype=float)) for value in (after, before))
    if after.ndim != 2 or before.ndim != 2 or after.shape[1] != before.shape[1] or after.shape[1] < 2:
        raise ValueError(
            f"expected (N,) or (R, N) for the same N images, at least 2, found {after.shape} and {before.shape}: "
            "compare methods on one test set"
        )
    for name, values in (("after", after), ("before", before)):
        if not np.isfinite(values).all():
            image = int(np.argwhere(~np.isfinite(values))[0, 1])
            raise ValueError(
                f"expected finite values, found NaN or infinity in {name} for image {image}: measure it again"
            )
    samples = [after.mean(axis=0) - before.mean(axis=0)]
    if min(len(after), len(before)) > 1:
        samples += [runs.mean(axis=1) for runs in (after, before)]
    variances = np.array([stats.sem(sample) ** 2 for sample in samples])
    total = float(variances.sum())
    freedom = total**2 / sum(v**2 / (len(sample) - 1) for v, sample in zip(variances, samples)) if total else math.inf
    return float(samples[0].mean()), math.sqrt(total), float(freedom)


def apart(first: ArrayLike, second: ArrayLike) -> tuple[float, float, float]:
    """How much larger the share of right images is in ``first`` than in ``second``, on different images.

    Newcombe's interval, of the two of Wilson ("Interval estimation for the difference between independent proportions",
    1998, method 10).

    Args:
        first, second: (N,) and (M,), whether each image is right

    Returns:
        (difference, low, high), in shares

    Raises:
        ValueError: no image, or something that is no share

    >>> points, low, high = apart([True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    >>> f"{points:.4f} {low:.4f} {high:.4f}"
    '0.2000 0.0524 0.3339'
    """
    shares, lows, highs = [], [], []
    for right in (first, second):
        right = np.asarray(torch.as_tensor(right), dtype=float)
        shares.append(float(right.mean()) if right.size else 0.0)
        low, high = share_interval(shares[-1], right.size)
        lows.append(low)
        highs.append(high)
    middle = shares[0] - shares[1]
    down = math.hypot(shares[0] - lows[0], highs[1] - shares[1])
    up = math.hypot(highs[0] - shares[0], shares[1] - lows[1])
    return middle, middle - down, middle + up


def bootstrapped(measure: Callable[..., float], *samples: Any, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of any measure of samples (Efron and Tibshirani, "An Introduction to the Bootstrap", 13.3).

    Args:
        measure: takes as many samples as there are, of the same lengths, and returns a number
        samples: arrays (N, ...) or data frames of N rows, each with an N of its own; their rows are drawn anew, with
            replacement, every sample for itself
        draws: how often
        seed: of the draws

    Returns:
        (low, high); draws of which the measure is NaN (the spread of a single value, say) do not count

    Raises:
        ValueError: a sample without rows; a measure that is NaN of every draw

    >>> low, high = bootstrapped(np.mean, np.arange(100))
    >>> f"{low:.0f} {high:.0f}"
    '44 55'
    """
    if not samples or not all(len(sample) for sample in samples):
        raise ValueError(f"expected samples with rows, found {[len(sample) for sample in samples]}: measure something")
    generator = np.random.default_rng(seed)
    values = np.empty(draws)
    for i in range(draws):
        values[i] = measure(*(_rows(sample, generator.integers(len(sample), size=len(sample))) for sample in samples))
    if np.isnan(values).all():
        raise ValueError(f"expected a measure of the samples, found NaN in all of {draws} draws: take larger samples")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _rows(sample: Any, places: np.ndarray) -> Any:
    return sample.iloc[places] if hasattr(sample, "iloc") else np.asarray(sample)[places]


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction ("A simple sequentially rejective multiple test procedure", 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none ends below one that was smaller. Those that stay
    below 5 % are, all together, wrong with a chance of 5 % at most.

    Args:
        p_values: (m,) in [0, 1]

    Returns:
        (m,) in [0, 1], in the order given

    Raises:
        ValueError: other shapes or values

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected p-values (m,) in [0, 1], found {p_values}: correct them")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def told_apart(right: Mapping[str, ArrayLike], level: float = 0.05) -> tuple[list[str], set[tuple[str, str]]]:
    """A ranking of methods, and which of them differ: all pairs by :func:`chance`, corrected by :func:`holm`.

    Args:
        right: method -> as :func:`difference`, all on the same images
        level: of all pairs together

    Returns:
        the methods, best first, and the pairs (better, worse) whose corrected p-value is below the level

    Raises:
        ValueError: as :func:`difference`
    """
    ranked = sorted(right, key=lambda name: -float(np.mean(np.asarray(torch.as_tensor(right[name]), dtype=float))))
    pairs = list(itertools.combinations(ranked, 2))
    corrected = holm([chance(right[better], right[worse]) for better, worse in pairs])
    return ranked, {pair for pair, p in zip(pairs, corrected) if p < level}


def groups(ranked: Sequence[str], pairs: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """The longest runs of a ranking in which no two methods are told apart.

    What a bar joins in the diagrams of Demšar ("Statistical comparisons of classifiers over multiple data sets", 2006).

    Args:
        ranked: methods, best first
        pairs: of methods that are told apart, in any order; see :func:`told_apart`

    Returns:
        (first, last) place of each run of at least two methods; runs may overlap, none lies inside another

    >>> groups(["a", "b", "c"], [("a", "c")])
    [(0, 1), (1, 2)]
    """
    parted = {frozenset(pair) for pair in pairs}
    runs: list[tuple[int, int]] = []
    for first in range(len(ranked)):
        last = first
        while last + 1 < len(ranked) and not any(
            {ranked[place], ranked[last + 1]} in parted for place in range(first, last + 1)
        ):
            last += 1
        if last > first and (not runs or runs[-1][1] < last):
            runs.append((first, last))
    return runs
