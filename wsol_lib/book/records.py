"""Records of experiments: what was measured, the boxes it was measured from, and what chapters ask of them.

``results/NAME.json`` holds the numbers with all that is needed to measure them again, ``results/boxes/NAME.npz`` what was
predicted. A record that was edited by hand, boxes that do not belong to it, or a definition that has changed since are
refused, so that no chapter can show them. A comparison is never stored: it is computed from the boxes of two experiments.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import wsol_lib
from wsol_lib import uncertainty
from wsol_lib.book.definitions import FILE, digest_of, find, load_experiments
from wsol_lib.book.profiles import PROFILES
from wsol_lib.boxes import localized
from wsol_lib.cache import atomic_path

#: Boxes are kept in sixteenths of a pixel.
STEPS = 16
#: IoU thresholds of the kept hits.
IOUS = (0.3, 0.5, 0.7)
#: The fixed threshold of score maps that is kept beside the chosen one.
FIXED_TAU = 0.2
TOP = 5


# -- what is predicted, as it is kept ----------------------------------------------------------------------------------


def rounded(boxes: Tensor) -> np.ndarray:
    """Boxes (N, 4) in pixels -> in whole sixteenths of a pixel, int32."""
    return (boxes.double().cpu() * STEPS).round().to(torch.int32).numpy()


def hits_of(boxes: np.ndarray, truth: Sequence[Tensor]) -> np.ndarray:
    """Which kept boxes reach the IoU thresholds with a true box of their image.

    Args:
        boxes: (seeds, N, 4), in sixteenths of a pixel
        truth: N tensors (k, 4), in pixels

    Returns:
        bool (len(IOUS), seeds, N)
    """
    pixels = [torch.from_numpy(own.astype(np.float64) / STEPS) for own in boxes]
    return np.stack([np.stack([localized(own, truth, iou).numpy() for own in pixels]) for iou in IOUS])


def ranks_of(top: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Place of the true class among the five best, 0 for the first; 5 if it is not there: uint8 (seeds, N).

    Args:
        top: (seeds, N, 5), class indices, best first
        labels: (N,)
    """
    right = top == np.asarray(labels)[None, :, None]
    return np.where(right.any(-1), right.argmax(-1), TOP).astype(np.uint8)


def score(predicted: Mapping[str, np.ndarray], truth: Sequence[Tensor], labels: np.ndarray) -> dict[str, np.ndarray]:
    """What annotations say of the kept predictions: ``hits``, and ``fixed_hits`` and ``ranks`` where there is what they need.

    The first two are bool (len(IOUS), seeds, N), the last is uint8 (seeds, N).
    """
    scored = {"hits": hits_of(predicted["boxes"], truth)}
    if "fixed_boxes" in predicted:
        scored["fixed_hits"] = hits_of(predicted["fixed_boxes"], truth)
    if "top" in predicted:
        scored["ranks"] = ranks_of(predicted["top"], labels)
    return scored


def accuracies(scored: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Shares of the images, a list over the seeds each."""
    hits = scored["hits"][IOUS.index(0.5)]
    found = {"gt_known_loc": hits}
    found |= {f"gt_known_loc_iou_{iou}": own for iou, own in zip(IOUS, scored["hits"]) if iou != 0.5}
    if "fixed_hits" in scored:
        found[f"gt_known_loc_tau_{FIXED_TAU}"] = scored["fixed_hits"][IOUS.index(0.5)]
    if "ranks" in scored:
        for k in (1, TOP):
            right = scored["ranks"] < k
            found |= {f"top{k}_loc": hits & right, f"top{k}_cls": right}
    return {name: [float(own) for own in values.mean(axis=1)] for name, values in found.items()}


# -- the file of boxes -------------------------------------------------------------------------------------------------


def pack(predicted: Mapping[str, np.ndarray], scored: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bytes:
    """The content of ``results/boxes/NAME.npz``: whole numbers, those of a kind side by side, in the smallest type.

    Boxes are kept as (4, seeds, N): x1, y1, x2 and y2 in ``unit`` sixteenths of a pixel, the largest number that divides them
    all (16 for boxes of maps as large as the image). 10,000 images and three seeds take some 50 KB for boxes of maps and 140
    KB for those of a regressor, 130 for the five best classes, 25 for the scores.

    Args:
        predicted: ``boxes`` and, where there are, ``fixed_boxes``, int (seeds, N, 4), ``scores`` uint8 (seeds, N), ``top``
            (seeds, N, 5)
        scored: as :func:`score` gives
        facts: plain values: name, definition, image_ids ...
    """
    arrays, unit = {"scores": predicted["scores"]}, {}
    for name in ("boxes", "fixed_boxes"):
        if name in predicted:
            unit[name] = max(1, int(np.gcd.reduce(predicted[name], axis=None)))
            arrays[name] = _smallest(np.moveaxis(predicted[name], -1, 0) // unit[name])
    if "top" in predicted:
        arrays["top"] = _smallest(np.moveaxis(predicted["top"], -1, 0))
    for name in ("hits", "fixed_hits"):
        if name in scored:
            arrays[name] = np.packbits(scored[name], axis=-1)
    if "ranks" in scored:
        arrays["ranks"] = scored["ranks"]
    text = json.dumps({**facts, "unit": unit}, sort_keys=True)
    file = io.BytesIO()
    np.savez_compressed(file, facts=np.frombuffer(text.encode(), np.uint8), **arrays)
    return file.getvalue()


def unpack(content: bytes, where: str | Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """What :func:`pack` was given: predicted, scored and facts.

    Raises:
        ValueError: something else
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
        facts = json.loads(kept.pop("facts").tobytes())
        predicted = {"scores": kept["scores"]}
        for name, unit in facts.pop("unit").items():
            predicted[name] = np.moveaxis(kept[name].astype(np.int64), 0, -1) * unit
        if "top" in kept:
            predicted["top"] = np.moveaxis(kept["top"], 0, -1)
        n = predicted["boxes"].shape[1]
        flags = [name for name in ("hits", "fixed_hits") if name in kept]
        scored = {name: np.unpackbits(kept[name], axis=-1, count=n).astype(bool) for name in flags}
        if "ranks" in kept:
            scored["ranks"] = kept["ranks"]
    except (ValueError, KeyError, OSError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"expected kept boxes in {where}, found something else ({error}): restore the file") from None
    return predicted, scored, facts


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same whole numbers, side by side, in the smallest type that holds them."""
    if not values.size:
        return values.astype(np.uint8)
    kind = np.result_type(np.min_scalar_type(int(values.min())), np.min_scalar_type(int(values.max())))
    return np.ascontiguousarray(values.astype(kind))


def image_ids_digest(image_ids: Sequence[str]) -> str:
    """sha256 of the names of images in their order."""
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


# -- records -----------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where the committed records are: the folder named by WSOL_RECORDS (the runner sets it), else ``results`` near by."""
    if os.environ.get("WSOL_RECORDS"):
        return Path(os.environ["WSOL_RECORDS"])
    places = (Path("results"), Path("../results"), Path(wsol_lib.__file__).parents[1] / "results")
    return next((place for place in places if place.is_dir()), places[0])


def write(record: Mapping[str, Any], kept: bytes, where: Path) -> None:
    """Write a record and its boxes to a folder, both anew; ``boxes`` and ``checksum`` are added to the record.

    The boxes go first: killed in between, what is there is a record that does not belong to them, which nothing shows.
    """
    name = record["name"]
    boxes = {"file": f"boxes/{name}.npz", "bytes": len(kept), "sha256": hashlib.sha256(kept).hexdigest()}
    record = {**record, "boxes": boxes}
    text = json.dumps({**record, "checksum": digest_of(record)}, indent=1, ensure_ascii=False)
    for path, content in (
        (where / boxes["file"], kept),
        # lists of numbers stay on one line; a string has no line break
        (
            where / f"{name}.json",
            re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\n *", " ", found[0]), text).encode() + b"\n",
        ),
    ):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


def load_record(name: str, where: Path | None = None) -> dict[str, Any]:
    """The record of an experiment, if nothing speaks against it.

    Args:
        name: of the experiment
        where: the folder of the records; None is :func:`folder`

    Raises:
        FileNotFoundError: it is not recorded, or its boxes are not there
        ValueError: an unknown experiment; a record that was edited; boxes that do not belong to it; a definition that has
            changed since it was recorded
    """
    return load_all(name, where)[0]


def load_all(name: str, where: Path | None = None) -> tuple[dict[str, Any], dict, dict, dict]:
    """The record, and what :func:`unpack` gives of its boxes; arguments and errors as of :func:`load_record`."""
    found = load_intact(name, where)
    if now := definition_changed(found[0]):
        raise ValueError(
            f"expected the definition of experiment {name!r} as it was recorded, found it changed ({now}): "
            f"{_again(name)}, or restore the definition"
        )
    return found


def load_intact(name: str, where: Path | None = None) -> tuple[dict[str, Any], dict, dict, dict]:
    """:func:`load_all`, whatever the definition is now."""
    where = where or folder()
    path = where / f"{name}.json"
    if not path.exists():
        _check_known(name)
        raise FileNotFoundError(f"expected the record of experiment {name!r} at {path}, found none: {_again(name)}")
    record = read(path)
    if record["name"] != name:
        raise ValueError(
            f"expected the record of experiment {name!r} in {path}, found that of {record['name']!r}: {_again(name)}"
        )
    kept = where / record["boxes"]["file"]
    if not kept.exists():
        raise FileNotFoundError(
            f"expected the boxes of experiment {name!r} at {kept}, found none: restore them, or {_again(name)}"
        )
    content = kept.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["boxes"]["sha256"]:
        raise ValueError(
            f"expected the boxes that {path} was recorded from in {kept}, found others: restore both, or {_again(name)}"
        )
    predicted, scored, facts = _unpacked(content, str(kept))
    if (facts["name"], facts["definition"]) != (name, record["definition_sha256"]) or record["value"] != value(scored):
        raise ValueError(
            f"expected the value of the boxes in {kept} in {path}, found another: restore both, or {_again(name)}"
        )
    return record, predicted, scored, facts


def _again(name: str) -> str:
    return f"record it with `python -m wsol_lib experiment {name} --record --force`"


def _check_known(name: str) -> None:
    if find(FILE) is None:  # the library alone
        return
    known = {one: None for profile in PROFILES for one in load_experiments(profile)}
    if name not in known:
        raise ValueError(f"expected an experiment out of {', '.join(known)}, found {name!r}: choose one of these")


_unpacked = functools.lru_cache(maxsize=16)(unpack)  # a table compares one with many


def read(path: Path) -> dict[str, Any]:
    """A record by itself; ValueError if it was edited, or is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
        definition = digest_of(record["definition"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"expected the record of an experiment in {path}, found something else ({error}): restore it"
        ) from None
    if checksum != digest_of(record) or definition != record["definition_sha256"]:
        raise ValueError(
            f"expected the record in {path} as it was written, found it edited: restore it, or {_again(path.stem)}"
        )
    return record


def value(scored: Mapping[str, np.ndarray]) -> float:
    """GT-known Loc at IoU 0.5, mean over the seeds: what a record is about."""
    return float(scored["hits"][IOUS.index(0.5)].mean())


def definition_changed(record: Mapping[str, Any]) -> str:
    """What of the definition is not as it was recorded, in words; empty if it is, or if the table is not at hand."""
    path = find(FILE)
    if path is None:  # the library alone
        return ""
    experiments = _declared(record["profile"], path, path.read_bytes())
    if record["name"] not in experiments:
        return f"the table has no {record['name']!r} in the profile {record['profile']!r}"
    now, then = experiments[record["name"]].definition, record["definition"]
    if digest_of(now) == record["definition_sha256"]:
        return ""
    names = [key for key in now | then if now.get(key) != then.get(key)]
    return ", ".join(f"{key} from {then.get(key)} to {now.get(key)}" for key in names)


@functools.lru_cache(maxsize=len(PROFILES))  # a chapter asks with each record, and each entry of the table is checked
def _declared(profile: str, path: Path, content: bytes) -> dict[str, Any]:
    """The table of experiments, whose file has this content."""
    return load_experiments(profile, path)


# -- what chapters ask -------------------------------------------------------------------------------------------------


def hits(name: str, *, iou: float = 0.5, fixed: bool = False, top: int | None = None) -> np.ndarray:
    """Which images an experiment got right: bool (seeds, N).

    Args:
        name: of the experiment
        iou: 0.3, 0.5 or 0.7
        fixed: of the boxes at tau = 0.2 instead of those at the chosen one
        top: 1 or 5: the true class is among so many best as well, as in Top-1 Loc

    Raises:
        ValueError, FileNotFoundError: as :func:`load_record`; no maps, or no logits, to ask this of; another IoU
    """
    _, _, scored, _ = load_all(name)
    kind = "fixed_hits" if fixed else "hits"
    if iou not in IOUS or top not in (None, 1, TOP):
        raise ValueError(
            f"expected an IoU out of {IOUS} and top 1 or {TOP}, found {iou} and {top}: choose what is kept"
        )
    lacking = [f"hits at tau = {FIXED_TAU}"] * (kind not in scored) + ["classes"] * (
        top is not None and "ranks" not in scored
    )
    if lacking:
        raise ValueError(f"expected {lacking[0]} of experiment {name!r}, found a localizer without: ask another one")
    right = scored[kind][IOUS.index(iou)]
    return right & (scored["ranks"] < top) if top else right.copy()


def compare(name: str, other: str, **which: Any) -> tuple[float, float, float]:
    """How much larger the share of right images is in one experiment than in another, paired over images.

    Args:
        name, other: of the experiments, "name minus other"
        which: as in :func:`hits`

    Returns:
        (difference, low, high), as :func:`wsol_lib.uncertainty.difference`, in shares

    Raises:
        ValueError: experiments on different images; as :func:`hits`
    """
    ids = [load_all(one)[3]["image_ids"] for one in (name, other)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"expected experiments on the same images, found {name!r} and {other!r}: compare them in words"
        )
    return uncertainty.difference(hits(name, **which), hits(other, **which))


def boxes(name: str, *, fixed: bool = False) -> Tensor:
    """What an experiment predicted: float32 (seeds, N, 4), xyxy in pixels of the test images; arguments as :func:`hits`."""
    kind = "fixed_boxes" if fixed else "boxes"
    predicted = load_all(name)[1]
    if kind not in predicted:
        raise ValueError(f"expected score maps of experiment {name!r}, found a localizer without: ask another one")
    return torch.from_numpy(predicted[kind].astype(np.float32) / STEPS)


def check(sentence: str, holds: bool) -> None:
    """The check beside a sentence of a chapter: the build fails when the records no longer say so.

    >>> check("The student is better than its teacher.", 0.63 > 0.61)
    """
    if not holds:
        raise AssertionError(f"expected the records to say {sentence!r}, found that they do not: rewrite the prose")
