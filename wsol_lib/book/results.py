"""Recorded measurements: what a chapter measured goes into a JSON file, with everything needed to measure it again.

A run writes to the folder named by WSOL_RESULTS (the runner sets it; ``_build/results`` otherwise). Maintainers commit
runs of the larger profiles to ``results/`` (``python -m wsol_lib book --record``), so that a reader of the quick
profile sees them too.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import subprocess
from pathlib import Path

import torch
import yaml

import wsol_lib
from wsol_lib.cache import atomic_path, one_at_a_time


def record(
    name: str, value: float, *, chapter: str, profile: str, dataset: str, n: int, seed: int, **facts: object
) -> None:
    """Keep one measurement; an earlier one of the same name, chapter and profile is replaced.

    Processes that record at the same time, on one machine, wait for each other.

    Args:
        name: what was measured, unique in its chapter, such as "cam/max-box-acc"
        value: a number, in the unit the name promises; accuracies in [0, 1]
        chapter, profile: where it was measured
        dataset, n, seed: on what, on how many images, with which seed
        facts: more to know, plain values: ``spread``, ``backbone``, ``tau``, ``seconds`` ...

    Raises:
        ValueError: the file of the chapter and profile is damaged
    """
    path = _own_folder() / f"{chapter}-{profile}.json"
    entry = {
        "value": float(value),
        "dataset": dataset,
        "n": n,
        "seed": seed,
        **facts,
        "device": _device(),
        "versions": {"wsol_lib": wsol_lib.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }
    with one_at_a_time(path.parent), atomic_path(path) as temporary:
        records = (_read(path) if path.exists() else {}) | {name: entry}
        temporary.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")


def load(chapter: str, profile: str, *, own: bool = False) -> dict[str, dict]:
    """The committed measurements of a chapter in a profile, by name; empty where none are at hand.

    They are looked for in the folder named by WSOL_RECORDS (the runner sets it), else in ``results`` here or one up; the
    ``own`` ones, of runs on this machine, where ``record`` puts them.

    Raises:
        ValueError: their file is damaged
    """
    folders = [os.environ["WSOL_RECORDS"]] if "WSOL_RECORDS" in os.environ else ["results", "../results"]
    for folder in [_own_folder()] if own else folders:
        path = Path(folder) / f"{chapter}-{profile}.json"
        if path.exists():
            return _read(path)
    return {}


def _read(path: Path) -> dict[str, dict]:
    try:
        records = json.loads(path.read_bytes())
        if not isinstance(records, dict) or not all(isinstance(entry, dict) for entry in records.values()):
            raise ValueError("no table of records")
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"expected the records of a chapter, JSON, in {path}, found a damaged file ({error}): restore it, or remove it "
            "and run the chapter again"
        ) from error
    return records


def printed(paper: str, table: str) -> dict[str, dict[str, float | None]]:
    """What a paper prints, from ``paper_tables.yaml`` here or in ``book``: row -> column -> number.

    Args:
        paper: "psol", "evaluation", "slt" or "lchp"
        table: "table 2", say, or "figure 8" for what the text prints of a figure

    Returns:
        the table; empty where the file is not at hand, as in a chapter that was opened alone

    Raises:
        ValueError: the file has no such table, or a row of it has not one number a column
    """
    tables = _tables()
    if not tables:
        return {}
    if table not in tables.get(paper, {}):
        known = ", ".join(f"{name} {number}" for name, own in tables.items() for number in own)
        raise ValueError(
            f"expected one of the tables {known} in paper_tables.yaml, found {paper!r} {table!r}: choose one of these"
        )
    columns = tables[paper][table]["columns"]
    for row, numbers in tables[paper][table]["rows"].items():
        if len(numbers) != len(columns):
            raise ValueError(
                f"expected {len(columns)} numbers in row {row} of {paper} {table} in paper_tables.yaml, found {len(numbers)}: "
                "compare it with the paper"
            )
    return {row: dict(zip(columns, numbers)) for row, numbers in tables[paper][table]["rows"].items()}


def printed_tables() -> dict[str, list[str]]:
    """The tables that :func:`printed` knows: paper -> their names; empty where the file is not at hand."""
    return {paper: list(own) for paper, own in _tables().items()}


def _tables() -> dict:
    path = next((p for p in (Path("paper_tables.yaml"), Path("book/paper_tables.yaml")) if p.exists()), None)
    return {} if path is None else _parsed(path.read_text())


@functools.lru_cache(maxsize=1)  # chapter 10 asks for hundreds of numbers
def _parsed(text: str) -> dict:
    return yaml.safe_load(text)


def _own_folder() -> Path:
    return Path(os.environ.get("WSOL_RESULTS") or "_build/results")


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({torch.get_num_threads()} threads)"


def _commit() -> str | None:
    """The commit of this library, with a + if its sources or the chapters differ from it; None if it was installed."""
    root = Path(wsol_lib.__file__).parents[1]
    if not (root / ".git").exists():  # a repository further up, or where we stand, is somebody else's
        return None
    try:
        changed = _git(root, "status", "--short", "wsol_lib", "book")
        return _git(root, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
