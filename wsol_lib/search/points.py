"""The points of a random search: which ranges they are drawn from, and what a point means to its method."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from wsol_lib.search.settings import METHODS, Settings

LEARNING_RATE = FloatDistribution(1e-5, 1.0, log=True)
#: What is drawn for a range without end: u for CutMix's size prior 1 / u - 1 / 2; for SLT's beta, whose paper has 10, two
#: decades to either side of it.
ENDLESS = {"size_prior": FloatDistribution(0.0, 2.0), "beta": FloatDistribution(0.1, 1000.0, log=True)}


def search_space(settings: Settings) -> dict[str, BaseDistribution]:
    """What is drawn: a learning rate in [1e-5, 1], log-uniformly, and what the method's ``search_space`` has, uniformly.

    Without what is fixed; for ranges without end see ``ENDLESS``. A patch of Hide-and-Seek is not larger than the input.
    """
    space: dict[str, BaseDistribution] = {"learning_rate": LEARNING_RATE}
    for name, (low, high) in METHODS[settings.method].search_space.items():
        if isinstance(low, int):
            space[name] = IntDistribution(low, min(high, settings.input_size))
        else:
            space[name] = FloatDistribution(low, high) if math.isfinite(high) else ENDLESS[name]
    return {name: drawn for name, drawn in space.items() if name not in settings.fixed}


def draw_points(settings: Settings, trials: int) -> list[dict[str, float]]:
    """The first points of Optuna's RandomSampler: the first 30 of 60 are those of 30."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=settings.seed))
    space = search_space(settings)
    return [study.ask(space).params for _ in range(trials)]


def hyperparameters(settings: Settings, point: dict[str, float]) -> dict[str, Any]:
    """A point -> the learning rate and the method's arguments.

    CutMix's size prior is 1 / u - 1 / 2 with u in (0, 2]; what is drawn is 2 - u, in [0, 2). SPG's thresholds are drawn
    in pairs, of which the smaller one is the low one: uniform over all pairs that are allowed.
    """
    values = dict(point)
    if "size_prior" in point:
        values["size_prior"] = 1 / (2 - point["size_prior"]) - 1 / 2
    for low in point:
        high = low.replace("low_", "high_")
        if low != high and high in point:
            values[low], values[high] = sorted((point[low], point[high]))
    return values | settings.fixed
