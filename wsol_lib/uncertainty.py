"""Uncertainty: what was counted on some images goes in, the interval that the count stands for comes out.

All intervals of the book are of 95 %. Two boxes on one image tend to be right or wrong together, so two methods are
compared image by image; and since another seed makes another network, its spread belongs in the interval where there is one.
"""

from __future__ import annotations

import math

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


def difference(after: ArrayLike, before: ArrayLike) -> tuple[float, float, float]:
    """How much larger the share of right images is in ``after`` than in ``before``, on the same images.

    Args:
        after, before: (N,), or (R, N) of R networks that differ in their seeds; R may differ between the two. The spread
            over seeds counts where both have at least two.

    Returns:
        (difference, low, high), in shares, not points

    Raises:
        ValueError: other shapes, or images that are not the same number

    >>> points, low, high = difference([True, True, True, False], [True, False, False, False])
    >>> f"{points:.2f} {low:.2f} {high:.2f}"
    '0.50 -0.42 1.42'
    """
    after, before = (np.atleast_2d(np.asarray(torch.as_tensor(value), dtype=float)) for value in (after, before))
    if after.ndim != 2 or before.ndim != 2 or after.shape[1] != before.shape[1] or after.shape[1] < 2:
        raise ValueError(
            f"expected (N,) or (R, N) for the same N images, at least 2, found {after.shape} and {before.shape}: "
            "compare methods on one test set"
        )
    of_image = after.mean(axis=0) - before.mean(axis=0)
    half = stats.t.ppf(0.975, len(of_image) - 1) * stats.sem(of_image)
    if min(len(after), len(before)) > 1:
        spread = math.hypot(*(stats.sem(runs.mean(axis=1)) for runs in (after, before)))
        half = math.hypot(half, stats.t.ppf(0.975, len(after) + len(before) - 2) * spread)
    middle = float(of_image.mean())
    return middle, middle - float(half), middle + float(half)
