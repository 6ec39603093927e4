"""Records of searches: every trial of a study, and what its winner, trained once more, came to on the test images.

``python -m wsol_lib search ... --test --out FOLDER --record`` writes ``results/search-DATASET-METHOD.json`` from the study's
journal and the saved winner. "Evaluating WSOL Methods Right", sections 4.2 and 5.4.
"""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol_lib import localizers
from wsol_lib.book import records
from wsol_lib.book.definitions import digest_of
from wsol_lib.book.experiments import baselines
from wsol_lib.book.units import commit, is_committed
from wsol_lib.boxes import localized
from wsol_lib.cache import atomic_path
from wsol_lib.data import LocalizationDataset
from wsol_lib.localizer import Localizer
from wsol_lib.search import LARGEST_LOSS, Settings, read_study
from wsol_lib.search.trial import load_split
from wsol_lib.uncertainty import mean_share


def name_of(settings: Settings) -> str:
    """The name of a search's record.

    >>> name_of(Settings("adl", "resnet50", "cub"))
    'search-cub-adl'
    """
    return f"search-{settings.dataset}-{settings.method}"


def committed() -> str:
    """The commit of this library: a record of changes that nobody can look up is none.

    Raises:
        ValueError: changes, or no repository
    """
    found = commit()
    if not is_committed(found):
        raise ValueError(
            f"expected a committed library to record a search with, found {found or 'no repository'}: commit the changes "
            "first, or leave --record out"
        )
    return str(found)


def build(
    settings: Settings, storage: str | Path, winner: str | Path, source: str, root: str | Path | None = None
) -> dict[str, Any]:
    """The record of a search whose winner has been looked at on ``test``.

    Args:
        settings, storage, root: as of :func:`wsol_lib.search.search`
        winner: the folder it was saved in
        source: the commit at which the command was started

    Raises:
        ValueError: nobody has looked at the test images yet; a data set without boxes
        FileNotFoundError: no such study or winner, or no data
    """
    study = read_study(Path(storage))
    looks = study.user_attrs.get("looks", [])
    if not looks:
        raise ValueError(f"expected a look at the test images in {storage}, found none: search with --test")
    trials = [
        {"number": one.user_attrs["number"], "values": one.user_attrs["values"], "score": one.value}
        | {name: one.user_attrs[name] for name in ("loss", "epoch", "seconds")}
        for one in sorted(study.trials, key=lambda one: one.user_attrs["number"])
    ]
    test, boxed = (load_split(settings, split, root) for split in ("test", "train-fullsup"))
    value, low, high = mean_share(right(localizers.load(winner), test)[None])
    return {
        "name": name_of(settings),
        "measure": "GT-known Loc at IoU 0.5 of the winner, trained once more; interval of 95 % over images",
        "value": value,
        "interval": [low, high],
        "n": len(test),
        "baselines": baselines(test, boxed),
        "settings": study.user_attrs["settings"],
        "largest_loss": LARGEST_LOSS,
        "trials": trials,
        "looks": looks,
        "commit": source,
        "date": datetime.date.today().isoformat(),
    }


def right(localizer: Localizer, test: LocalizationDataset) -> np.ndarray:
    """Which boxes, at the localizer's own threshold, are right at IoU 0.5: bool (N,)."""
    return localized(localizer.predict_dataset(test)[0], test.boxes).numpy()


def write(record: dict[str, Any], folder: Path | None = None) -> Path:
    """Write a record beside those of the experiments."""
    path = (folder or records.folder()) / f"{record['name']}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record | {"checksum": digest_of(record)}, indent=1, ensure_ascii=False) + "\n")
    return path


def load(name: str, folder: Path | None = None) -> dict[str, Any]:
    """A record by its name.

    Raises:
        FileNotFoundError: it is not there
        ValueError: it was edited, or is none
    """
    path = (folder or records.folder()) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"expected the record of a search at {path}, found none: search with --record")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        intact = record.pop("checksum") == digest_of(record)
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise ValueError(f"expected the record of a search in {path}, found it edited: restore it, or search again")
    return record


def table(names: list[str], folder: Path | None = None) -> pd.DataFrame:
    """One row a search: its trials, how many converged, their scores on the boxed images, and the winner on the test images.

    Args:
        names: of the records

    Returns:
        by method: ``trials``, ``converged``, ``best`` and ``median``, of the converged, ``winner`` with ``low`` and ``high``,
        and the floor, ``whole`` and ``centred``
    """
    rows = {}
    for name in names:
        record = load(name, folder)
        good = [one["score"] for one in record["trials"] if one["loss"] is not None and one["loss"] <= LARGEST_LOSS]
        rows[record["settings"]["method"]] = {
            "trials": len(record["trials"]),
            "converged": len(good),
            "best": max((one["score"] for one in record["trials"]), default=math.nan),
            "median": float(np.median(good)) if good else math.nan,
            "winner": record["value"],
            "low": record["interval"][0],
            "high": record["interval"][1],
            "whole": record["baselines"]["whole_image"],
            "centred": record["baselines"]["centred_box"]["value"],
        }
    return pd.DataFrame(rows).T
