"""The random search: trials until so many are finished, whoever runs them, and then one look at the test split."""

from __future__ import annotations

import datetime
import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from optuna.trial import FrozenTrial
from tqdm import tqdm

from wsol_lib.localizer import Localizer, check_folder
from wsol_lib.search.points import draw_points, hyperparameters, search_space
from wsol_lib.search.settings import Settings
from wsol_lib.search.study import Study, read_study
from wsol_lib.search.trial import create_localizer, load_sets, load_split, run_trial, score

#: A last training loss above this one has not converged; it is the loss that the method minimises, all its terms, with the
#: weights that it gives them. A method that trains nothing has none, and has always converged.
LARGEST_LOSS = 2.0


def results(storage: str | Path) -> pd.DataFrame:
    """The finished trials of a study, one row each, by number.

    Columns: ``number``, what was drawn and what was fixed as the localizer was given it, ``loss`` of the last epoch (NaN if it
    was not finite), ``converged``, ``score`` on ``train-fullsup`` in [0, 1], ``epoch`` it is of, ``seconds``.

    Raises:
        FileNotFoundError: no such file
        ValueError: a file that is no journal, or has no study
    """
    return _frame(read_study(Path(storage)).trials)


def _frame(trials: list[FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.user_attrs["number"]):
        facts = dict(trial.user_attrs)
        loss = math.nan if facts["loss"] is None else facts["loss"]
        known = {"loss": loss, "converged": loss <= LARGEST_LOSS, "score": trial.value}
        rows.append(
            {"number": facts["number"], **facts["values"], **known, **{n: facts[n] for n in ("epoch", "seconds")}}
        )
    return pd.DataFrame(rows)


def search(
    settings: Settings,
    storage: str | Path,
    trials: int = 30,
    *,
    root: str | Path | None = None,
    num_workers: int = 0,
) -> pd.DataFrame:
    """Run what is missing of the first ``trials`` trials, and wait for those that other processes are running.

    A trial that was killed goes on from its checkpoint, the folder PATH.trial-NUMBER, which is gone when it is finished.
    Of the processes that ``accelerate launch`` starts the first one alone reads and writes the storage, and tells the
    others what to train.

    Args:
        settings: of the search
        storage: file of the study, made if it is not there
        trials: how many are to be finished, whoever runs them
        root, num_workers: as in :func:`load_sets` and :func:`run_trial`

    Returns:
        as :func:`results`

    Raises:
        ValueError: settings other than the storage's; a storage that is damaged or locked; a method that the backbone
            cannot do. The study stays as it is
        FileNotFoundError: the data are not there
    """
    if trials < 1:
        raise ValueError(f"expected at least one trial, found {trials}: correct it")
    main = Accelerator().is_main_process
    sets = load_sets(settings, root)
    points = draw_points(settings, trials)
    create_localizer(settings, hyperparameters(settings, points[0]), sets.training)  # or says why it cannot be
    bar = tqdm(total=trials, desc=settings.method, unit="trial", disable=not main)
    with _study(settings, storage) if main else nullcontext() as study, bar:
        while True:
            message = [_next(study, trials, bar) if study else None]
            number, finished = broadcast_object_list(message)[0]
            if finished:
                return results(storage)
            if number is None:
                time.sleep(1)
                continue
            values = hyperparameters(settings, points[number])
            unfinished = f"{storage}.trial-{number}"
            outcome, _ = run_trial(settings, values, sets, num_workers, unfinished)
            if study:
                study.add(number, points[number], outcome.pop("score"), values=values, **outcome)
                shutil.rmtree(unfinished, ignore_errors=True)


def _next(study: Study, trials: int, bar: tqdm) -> tuple[int | None, bool]:
    """The next trial to run, None if other processes have them all, and whether all are finished; shows it in the bar."""
    number = study.claim(trials)
    frame = _frame([trial for trial in study.trials if trial.user_attrs["number"] < trials])
    finished = len(frame) == trials
    told = [] if finished else ["others run the rest" if number is None else f"trial {number}"]
    if len(frame):
        best = frame.loc[frame["score"].idxmax()]
        told.append(f"best {best['score']:.1%} in trial {best['number']}")
    bar.n = len(frame)
    bar.set_postfix_str(", ".join(told))
    return number, finished


def train_best(
    settings: Settings, storage: str | Path, *, root: str | Path | None = None, num_workers: int = 0
) -> Localizer:
    """The best trial trained once more, on all training images, its thresholds chosen on all of ``train-fullsup``.

    The weights of trials are not kept; the same seed trains the same network, and after a search on a proxy it is to be
    trained again anyway.

    Args:
        settings, storage, root, num_workers: as in :func:`search`

    Raises:
        ValueError: as :func:`search`; no trial is finished; a network that does not stay finite
    """
    main = Accelerator().is_main_process
    with _study(settings, storage) if main else nullcontext() as study:
        (best,) = broadcast_object_list([_best(study) if study else None])
    localizer = _train(settings, best, storage, root, num_workers)
    if main:
        shutil.rmtree(_unfinished(storage, best), ignore_errors=True)
    return localizer


def _train(
    settings: Settings, best: dict[str, Any] | None, storage: str | Path, root: str | Path | None, num_workers: int
) -> Localizer:
    if best is None:
        raise ValueError(f"expected a finished trial in {storage}, found none: run the search first")
    sets = load_sets(settings, root, final=True)
    outcome, localizer = run_trial(settings, best["values"], sets, num_workers, _unfinished(storage, best))
    if outcome["epoch"] is None:
        raise ValueError(
            f"expected a network that stays finite of trial {best['number']}, the best in {storage}, found none: search more "
            "points, or longer"
        )
    return localizer


def look_at_test(
    settings: Settings,
    storage: str | Path,
    *,
    again: bool = False,
    out: str | Path | None = None,
    root: str | Path | None = None,
    num_workers: int = 0,
) -> list[dict[str, Any]]:
    """Train the best trial once more, as :func:`train_best` does, and look at the test split.

    Once: the study keeps what was seen, and gives it back when it is asked a second time.

    Args:
        settings, storage: as in :func:`search`
        again: look a second time; it is written down too
        out: a folder, where the localizer is saved, also where nothing is looked at any more
        root, num_workers: as in :func:`search`

    Returns:
        the looks so far, the newest last: ``score`` in [0, 1] of ``images`` images, with the trial ``number``, the best of
        ``trials``, and ``date``

    Raises:
        ValueError: as :func:`train_best`; another thing than a localizer in ``out``
    """
    main = Accelerator().is_main_process
    with _study(settings, storage) if main else nullcontext() as study:
        looks, look = broadcast_object_list([study.looks, _best(study)] if study else [None, None])
        done = bool(looks) and not again
        if done and out is None:
            return looks
        if out is not None:
            check_folder(Path(out))
        test = None if done else load_split(settings, "test", root)
        localizer = _train(settings, look, storage, root, num_workers)
        if out is not None and main:
            localizer.save(out)
        if not done:
            look |= {"score": score(localizer, test, settings.metric), "images": len(test)}
            look["date"] = datetime.date.today().isoformat()
            looks = [*looks, look]
        if study and not done:
            study.add_look(look)
        if main:
            shutil.rmtree(_unfinished(storage, look), ignore_errors=True)
        return looks


def _unfinished(storage: str | Path, best: dict[str, Any]) -> str:
    """Where the last training keeps its checkpoint until it is no longer needed."""
    return f"{storage}.best-{best['number']}"


def _study(settings: Settings, storage: str | Path) -> Study:
    return Study(storage, settings.facts(), search_space(settings))


def _best(study: Study) -> dict[str, Any] | None:
    best = max(study.trials, key=lambda trial: (trial.value, -trial.user_attrs["number"]), default=None)
    return best and {name: best.user_attrs[name] for name in ("number", "values")} | {"trials": len(study.trials)}
