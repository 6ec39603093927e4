"""Hyperparameters and their feasible ranges: a value outside of its range is refused.

The ranges are those of the methods' ``search_space``, (low, high), both ends allowed. Two integers are the ends of an
integer range. An infinite end is the one of CutMix's size prior, which "Evaluating WSOL Methods Right" draws as
1/u - 1/2 with u uniform in (0, 2].
"""

from __future__ import annotations

import math
from numbers import Real


def check_hyperparameters(search_space: dict[str, tuple[float, float]], **values: float) -> None:
    """Complain about the first value that is outside its range.

    Args:
        search_space: name -> (low, high)
        values: some or all of the hyperparameters in it, by name

    Raises:
        ValueError: outside the range, not finite, no number, or a fraction where the range is one of integers

    >>> check_hyperparameters({"drop_rate": (0.0, 1.0)}, drop_rate=0.5)
    """
    for name, value in values.items():
        low, high = search_space[name]
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(f"expected {name} as a number, found {value!r}: correct it")
        integer = isinstance(low, int)
        if not (low <= value <= high and math.isfinite(value)) or (integer and value != int(value)):
            kind = "an integer " if integer else ""
            end = "inf)" if math.isinf(high) else f"{high:g}]"
            raise ValueError(f"expected {kind}{name} in [{low:g}, {end}, found {value}: choose it from this range")
