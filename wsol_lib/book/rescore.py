"""Score kept boxes again: from ``results/boxes/NAME.npz`` and the annotations alone, held against what is recorded."""

from __future__ import annotations

import argparse
import functools
import math
import sys
from pathlib import Path
from typing import Any

from wsol_lib.book import records, units
from wsol_lib.book.definitions import Experiment
from wsol_lib.book.experiments import baselines
from wsol_lib.data import LocalizationDataset
from wsol_lib.uncertainty import mean_share

EXAMPLES = """examples:
  python -m wsol_lib rescore results/boxes/birds-cam.npz
  python -m wsol_lib rescore results/boxes/*.npz --data-root DATA
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results/boxes/NAME.npz")
    parser.add_argument("--data-root", metavar="DATA", help="folder with the real data (default: $WSOL_DATA)")


def run(args: argparse.Namespace) -> int:
    failed = 0
    for path in args.files:
        try:
            value = rescore(path, args.data_root)
            print(f"{path}: {value:.4%} agrees", flush=True)
        except (ValueError, FileNotFoundError) as error:
            failed += 1
            print(f"error: {path}: {error}", file=sys.stderr, flush=True)
    return 2 if failed else 0


def rescore(path: str | Path, root: str | Path | None = None) -> float:
    """The value of kept boxes, from the annotations alone.

    Args:
        path: results/boxes/NAME.npz, whose record is results/NAME.json
        root: folder that holds the data; None takes WSOL_DATA

    Returns:
        the recorded value, GT-known Loc in [0, 1]

    Raises:
        FileNotFoundError: no boxes, record or data
        ValueError: a record that was edited, boxes that do not belong to it, a definition that has changed since, other data,
            or another value
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected kept boxes at {path}, found no such file: name one of results/boxes/")
    record, predicted, kept, facts = records.load_all(path.stem, path.parent.parent)
    if record["boxes"]["file"] != f"boxes/{path.name}" or path.parent.name != "boxes":
        raise ValueError(
            f"expected the file {record['boxes']['file']} of the record {record['name']!r}, found {path}: name that"
        )
    experiment = Experiment(name=record["name"], group="", profile=record["profile"], **record["definition"])
    test = experiment.load("test", root)
    if facts["image_ids"] != records.image_ids_digest(test.image_ids) or (
        record["data"]["test"]["annotations"] != units.annotations_digest(test)
    ):
        raise ValueError(
            f"expected the annotations of the {record['n']:,} test images of {record['dataset']} that were recorded, found "
            "others: restore the data, or record the experiment again"
        )
    scored = records.score(predicted, test.boxes, test.labels.numpy())
    for name, own in scored.items():
        if different := int((own != kept[name]).any(axis=tuple(range(own.ndim - 1))).sum()):
            raise ValueError(
                f"expected the {name} kept in {path}, found others for {different:,} of {record['n']:,} images: restore both "
                "files, or record the experiment again"
            )
    _, low, high = mean_share(scored["hits"][records.IOUS.index(0.5)])
    floor = {name: found for name, found in _baselines(test).items() if name != "centred_box"}
    found = {
        "value": records.value(scored),
        "interval": [low, high],
        "accuracies": records.accuracies(scored),
        "baselines": {name: record["baselines"][name] for name in record["baselines"]} | floor,
    }
    for name, own in found.items():
        if not _is_close(own, record[name]):
            raise ValueError(
                f"expected the recorded {name} {record[name]}, found {own}: restore the record, or record the experiment again"
            )
    return found["value"]


@functools.lru_cache(maxsize=2)  # most records are of the same images
def _baselines(test: LocalizationDataset) -> dict[str, Any]:
    return baselines(test, None)


def _is_close(one: Any, other: Any) -> bool:
    """Equal but for the last digits of a float."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_is_close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_is_close, one, other))
    return math.isclose(one, other, rel_tol=1e-9)
