"""The points of a random search: which ranges they are drawn from, and what a point means to its method."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from wsol_lib.search.settings import Settings


def search_space(settings: Settings) -> dict[str, BaseDistribution]:
    """What is drawn, without what is fixed; which method draws what it says itself, in ``Localizer.drawn``.

    Raises:
        ValueError: a range without end
    """
    return {name: _distribution(name, drawn) for name, drawn in settings.drawn().items()}


def _distribution(name: str, drawn: tuple | list) -> BaseDistribution:
    if isinstance(drawn, list):
        return CategoricalDistribution(drawn)
    low, high, *log = drawn
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"expected a range of {name} with two ends, found {low} to {high}: say what is drawn for it in the localizer's "
            "drawn()"
        )
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log="log" in log)


def draw_points(settings: Settings, trials: int) -> list[dict[str, Any]]:
    """The first points of Optuna's RandomSampler: the first 30 of 60 are those of 30."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=settings.seed))
    space = search_space(settings)
    return [study.ask(space).params for _ in range(trials)]


def hyperparameters(settings: Settings, point: dict[str, Any]) -> dict[str, Any]:
    """The settings of the localizer that a point stands for, and those that are fixed."""
    return settings.localizer.from_drawn(point, settings.fixed)
