"""A study: the trials of one search, kept in one file whatever number of processes runs them.

The file is an Optuna journal. In a journal a trial whose process is killed would stay a running one for ever (Optuna's
heartbeat needs a data base), so a trial is written when it is finished, in one line. Until then it is a lock on a byte of
the file PATH.running, and a lock goes with its process, however that ends: the trial of a killed process is taken up again, a
finished one never. Several machines can share a study where their file system has locks, as NFS does.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial

from wsol_lib.search.locks import Locks

NAME = "wsol"
FIRST_BYTES = b'{"op_code":'  # of every line of a journal
WRITING, OPENING, FIRST_TRIAL = range(3)  # bytes of PATH.running
LOCK_SECONDS = 60
optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every study that is opened


class Study:
    """A study to write to; to be used in a ``with`` statement, at whose end its locks are given back.

    Args:
        path: of the journal; made if it is not there
        settings: all that makes trials comparable, plain values; kept in the study
        space: what is drawn for a trial

    Raises:
        ValueError: the file is no journal, holds a study of other settings or ranges, is locked or cannot be written; it is
            left as it is
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], space: dict[str, BaseDistribution]):
        self.path, self.space = Path(path), space
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
            self._locks = Locks(f"{path}.running")
        except OSError as error:
            raise ValueError(
                f"expected a file that can be written at {path}, found {error.strerror}: name another storage"
            ) from None
        try:
            self._wait_for(OPENING)
            self._study = read_study(self.path, lock=self)
            ranges = {f"range of {name}": _range(drawn) for name, drawn in space.items()}
            self._check(json.loads(json.dumps(settings | ranges)))
            self._locks.give_back(OPENING)
        except BaseException:
            self._locks.close()
            raise

    def _check(self, settings: dict[str, Any]) -> None:
        known = self._study.user_attrs.get("settings")
        if known is None:
            self._study.set_user_attr("settings", settings)
        elif settings != known:
            names = [name for name in known | settings if known.get(name) != settings.get(name)]
            expected, found = (", ".join(f"{name} {of.get(name)}" for name in names) for of in (known, settings))
            raise ValueError(
                f"expected the settings of the study in {self.path}, {expected}, found {found}: repeat these, or name "
                "another storage"
            )

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    @property
    def trials(self) -> list[FrozenTrial]:
        """The finished trials, whoever ran them, as they were finished; ``user_attrs["number"]`` is which one."""
        return self._study.trials

    @property
    def looks(self) -> list[dict[str, Any]]:
        """The looks at the test split."""
        return self._study.user_attrs.get("looks", [])

    def claim(self, trials: int) -> int | None:
        """The lowest number below ``trials`` that is neither finished nor locked, now locked; None if there is none."""
        for number in range(trials):
            if self._locks.take(FIRST_TRIAL + number):
                if number not in {trial.user_attrs["number"] for trial in self.trials}:
                    return number
                self._locks.give_back(FIRST_TRIAL + number)
        return None

    def add(self, number: int, point: dict[str, float], score: float, **facts: Any) -> None:
        """Write a finished trial and give its lock back.

        Args:
            number: as of :meth:`claim`
            point: what was drawn
            score: of the trial, the higher the better
            facts: more to know, plain values
        """
        self._study.add_trial(
            create_trial(value=score, params=point, distributions=self.space, user_attrs={"number": number, **facts})
        )
        self._locks.give_back(FIRST_TRIAL + number)

    def add_look(self, look: dict[str, Any]) -> None:
        """Write down a look at the test split."""
        self._study.set_user_attr("looks", [*self.looks, look])

    def acquire(self) -> bool:
        """Optuna asks for this before each line that it writes: wait for the others, cut what a killed one has half written.

        Optuna's own lock, another file, would outlive its process.
        """
        self._wait_for(WRITING)
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return True

    def release(self) -> None:
        """Optuna asks for this after each line."""
        self._locks.give_back(WRITING)

    def _wait_for(self, byte: int) -> None:
        end = time.monotonic() + LOCK_SECONDS
        while not self._locks.take(byte):
            if time.monotonic() > end:
                raise ValueError(
                    f"expected to write to {self.path}, found it locked by another process for {LOCK_SECONDS} seconds: "
                    "end that process, or wait for it"
                )
            time.sleep(0.01)


def _range(drawn: BaseDistribution) -> list:
    """What tells one distribution from another, as plain values."""
    return list(drawn.choices) if isinstance(drawn, CategoricalDistribution) else [drawn.low, drawn.high, drawn.log]


def read_study(path: Path, lock: Study | None = None) -> optuna.Study:
    """The study in a journal; with a lock to write under, one that is not there is made.

    A last line without its end is of a process that was killed while it wrote: it is not read.

    Raises:
        FileNotFoundError: no such file
        ValueError: a file that is no journal, or has no study
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a study in {path}, found no such file: start the search first")
    try:
        *lines, torn = path.read_bytes().split(b"\n")
        if FIRST_BYTES[: len(torn)] != torn[: len(FIRST_BYTES)] or not all("op_code" in json.loads(s) for s in lines):
            raise ValueError("a line that is none of a journal")  # at the end of the file Optuna would read over it
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise ValueError(
            f"expected an Optuna journal in {path}, found something else ({error}): name another storage, or repair this one"
        ) from None
    try:
        return optuna.load_study(study_name=NAME, storage=storage)
    except KeyError:
        if lock is None:
            raise ValueError(f"expected a study in {path}, found none: start the search first") from None
        return optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
