"""The search: the trials of a method, a backbone and a data set at random points, and one look at the test split.

"Evaluating WSOL Methods Right", section 4.2: 30 random points of the feasible ranges are trained on ``train-weaksup`` and
scored on ``train-fullsup``; the best of them is trained once more, on all training images, and looked at on ``test``, once.
A trial whose last training loss is above 2.0, or not finite, did not converge (section 5.4). Drawn are the learning rate, the
resolution of the score map and what the method says itself (``Localizer.drawn``); the rest of its settings are the published
ones, the schedule among them, or fixed.

Point i of a search is the i-th one that its seed draws, whoever tries it: killed and started again, or run by ten machines
on one file (:mod:`wsol_lib.search.study`), a search tries the same points as one left alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# name -> its module; imported when asked for: a study alone (wsol_lib.search.study) needs no torch
_ROOMS = {
    "CHECKPOINTS": "settings",
    "Settings": "settings",
    "draw_points": "points",
    "hyperparameters": "points",
    "search_space": "points",
    "Sets": "trial",
    "create_localizer": "trial",
    "load_sets": "trial",
    "run_trial": "trial",
    "score": "trial",
    "share_per_class": "trial",
    "LARGEST_LOSS": "random_search",
    "look_at_test": "random_search",
    "results": "random_search",
    "search": "random_search",
    "train_best": "random_search",
    "Study": "study",
    "read_study": "study",
}
__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
