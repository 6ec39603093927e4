"""One unit of the experiments: one experiment with one seed, trained, predicted, and kept in one file.

Units are shared by any number of processes and machines that see one folder. The outcome of a unit appears whole or not at
all; until then the unit is a lock that goes with its process (:mod:`wsol_lib.search.locks`), and a training that was killed
goes on from its checkpoint.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import wsol_lib
from wsol_lib import localizers
from wsol_lib.book import records
from wsol_lib.book.definitions import Experiment
from wsol_lib.boxes import boxes_from_score_maps, scale_boxes
from wsol_lib.cache import atomic_path
from wsol_lib.data import LocalizationDataset, scaled_boxes
from wsol_lib.data.transforms import stack_images
from wsol_lib.metrics import MaxBoxAcc, MaxBoxAccV2
from wsol_lib.models import create_backbone

BATCH = 128  # images of one prediction
PIXELS_OF = 100  # images of a split whose pixels are part of the data's hash
PACKAGES = ("torch", "torchvision", "timm", "numpy")
SOURCES = ("wsol_lib", "book/experiments.yaml")


@dataclass(frozen=True)
class Unit:
    """One experiment with one seed, in a folder that holds what is finished."""

    experiment: Experiment
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    @property
    def key(self) -> str:
        return self.experiment.unit(self.seed)

    @property
    def path(self) -> Path:
        """Of its outcome."""
        return self.folder / f"{self.key}.npz"

    @property
    def checkpoint(self) -> Path:
        """Of its training, while that is not finished."""
        return self.folder / self.key

    @property
    def byte(self) -> int:
        """Its lock; two units with the same one would be a coincidence of 1 in 2**60."""
        return int(self.key[:15], 16)

    def facts(self) -> dict[str, Any] | None:
        """What is known of its outcome; None if it is not finished, or its file is damaged: then it is to be run again."""
        return _kept(self.path)[0]

    def outcome(self) -> dict[str, np.ndarray]:
        """What was predicted, as :func:`wsol_lib.book.records.pack` takes it for one seed."""
        return _kept(self.path)[1]

    def forget(self) -> None:
        """Take away what is known of it."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def run(self, root: str | Path | None = None) -> None:
        """Train, predict the test split and write the outcome.

        Raises:
            ValueError, FileNotFoundError: of the data or of the localizer; a test split without boxes
        """
        experiment = self.experiment
        train, test = experiment.load("train-weaksup", root), experiment.load("test", root)
        boxed = experiment.load("train-fullsup", root) if experiment.boxed else None
        if not all(len(own) for own in test.boxes):
            raise ValueError(
                f"expected boxes for every test image of {experiment.dataset}, found images without: mend {self}"
            )
        starts = self._starts()
        source, begin = commit(), time.perf_counter()
        listed = train.image_sizes.clone()
        fitted = localizers.fit(
            experiment.localizer,
            train,
            boxed,
            backbone=experiment.backbone,
            pretrained=experiment.pretrained,
            epochs=experiment.epochs,
            input_size=experiment.input_size,
            batch_size=experiment.batch_size,
            seed=self.seed,
            checkpoint=self.checkpoint,
            **experiment.hyperparameters,
        )
        # a fit may find out sizes that lists leave out (ImageNet's); the data of the next unit are those of a new process
        train.image_sizes.copy_(listed)
        between = time.perf_counter()
        predicted, measured = predict(fitted, test, fitted.input_size, str(self))
        seconds = {"fit": between - begin, "predict": time.perf_counter() - between}
        splits = {"train-weaksup": train, "train-fullsup": boxed, "test": test}
        weights = {"fitted": weights_digest(fitted.network)}
        if fitted.settings["pretrained"] and any(True for _ in fitted.network.parameters()):
            weights["pretrained"] = pretrained_digest(experiment.backbone)
        facts = {
            "unit": experiment.definition | {"seeds": [self.seed]},
            "seed": self.seed,
            **measured,
            "settings": fitted.settings,
            "images_seen": experiment.images_seen(root),
            "weights": weights,
            "data": {split: data_digest(dataset) for split, dataset in splits.items() if dataset is not None},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "starts": starts,
            "device": device(),
            "versions": versions(),
            "commit": source,
            "date": datetime.date.today().isoformat(),
        }
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **predicted)
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def _starts(self) -> int:
        """How often it was started, this time included: the seconds are those of the last time."""
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        with open(self.checkpoint / "starts", "a+b") as file:
            file.write(b".")
            return file.tell()


def _kept(path: Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Facts and predictions of a unit's file; of a damaged one, or none, no facts."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}  # each with its checksum
        return json.loads(kept.pop("facts").tobytes()), kept
    except Exception:  # zipfile and numpy have a dozen for flipped bytes
        return None, {}


# -- predictions -------------------------------------------------------------------------------------------------------


def predict(
    fitted: Any, test: LocalizationDataset, side: int | None, name: str = "predict"
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """One pass over the test split.

    Args:
        fitted: a localizer
        test: its images may differ in size
        side: to which they are resized if they do
        name: of the bar

    Returns:
        what is kept of each image, as :func:`wsol_lib.book.records.pack` takes it for one seed, boxes in pixels of the images
        as they are; and what score maps tell: tau, max_box_acc, best_tau, max_box_acc_v2 and the curve over thresholds

    Raises:
        ValueError: boxes that are not finite
    """
    parts: dict[str, list[np.ndarray]] = {"boxes": [], "fixed_boxes": [], "scores": [], "top": []}
    curve, second = MaxBoxAcc(), MaxBoxAccV2()
    starts = range(0, len(test), BATCH)
    for start in tqdm(starts, desc=name, unit="batch", leave=False, disable=len(starts) < 20):
        indices = list(range(start, min(start + BATCH, len(test))))
        images, sizes = stack_images(test, indices, side), test.image_sizes[indices]
        found = fitted.predict(images, test.labels[indices])
        here = (images.shape[-1], images.shape[-2])
        if not torch.isfinite(found.boxes).all():
            raise ValueError(f"expected finite boxes of {name}, found NaN or infinity: lower learning_rate")
        parts["boxes"].append(records.rounded(scale_boxes(found.boxes.float().cpu(), here, sizes)))
        parts["scores"].append((found.scores.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy())
        if found.score_maps is not None:
            maps = found.score_maps.float().cpu()
            fixed = boxes_from_score_maps(maps, records.FIXED_TAU)
            parts["fixed_boxes"].append(records.rounded(scale_boxes(fixed, here, sizes)))
            truth = [scaled_boxes(test, i, maps.shape[-2:]) for i in indices]
            curve.update(maps, truth)
            second.update(maps, truth)
        if found.logits is not None and found.logits.shape[1] >= records.TOP:
            parts["top"].append(_best(found.logits.float().cpu()))
    predicted = {name: np.concatenate(values) for name, values in parts.items() if values}
    measured = {"tau": fitted.tau}
    if parts["fixed_boxes"]:
        right = curve.curve()[1][::10]  # tau = 0, 0.01 ... 1
        measured |= {
            "max_box_acc": round(float(curve.compute()), 6),
            "best_tau": curve.best_tau(),
            "max_box_acc_v2": round(float(second.compute()), 6),
            "curve": (right.double() * len(test)).round().long().tolist(),
        }
    return predicted, measured


def _best(logits: Tensor) -> np.ndarray:
    """The five best classes (N, 5), best first; of equal logits the lower index, as LocalizationAccuracy counts them."""
    return logits.argsort(dim=1, descending=True, stable=True)[:, : records.TOP].to(torch.int32).numpy()


# -- circumstances -----------------------------------------------------------------------------------------------------


def weights_digest(network: nn.Module) -> str:
    """sha256 of the names and values of all weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + b"\0" + tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=2)
def pretrained_digest(backbone: str) -> str:
    """:func:`weights_digest` of the trunk that a training starts from."""
    return weights_digest(create_backbone(backbone, pretrained=True).trunk)


def data_digest(dataset: LocalizationDataset) -> dict[str, Any]:
    """What was looked at: n, sha256 of all annotations, and of the pixels of at most ``PIXELS_OF`` images, evenly spaced."""
    places = sorted({round(i) for i in np.linspace(0, len(dataset) - 1, min(PIXELS_OF, len(dataset)))})
    pixels = hashlib.sha256()
    for i in places:
        pixels.update(dataset.images([i])[0].contiguous().numpy().tobytes())
    return {
        "n": len(dataset),
        "annotations": annotations_digest(dataset),
        "pixels": pixels.hexdigest(),
        "pixels_of_images": len(places),
    }


def annotations_digest(dataset: LocalizationDataset) -> str:
    """sha256 of names, labels, sizes and boxes of all images, in their order."""
    counts = torch.tensor([len(own) for own in dataset.boxes])
    digest = hashlib.sha256("\n".join([*dataset.class_names, "", *dataset.image_ids]).encode())
    for values in (dataset.labels, dataset.image_sizes, counts, torch.cat([torch.zeros(0, 4), *dataset.boxes])):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what a number can depend on."""
    own = {"wsol_lib": wsol_lib.__version__, "python": platform.python_version()}
    return {name: metadata.version(name) for name in PACKAGES} | own


def device() -> str:
    """The name of the GPU, or how many threads of the CPU, and the precision."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({torch.get_num_threads()} threads)"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    return name if precision == "no" else f"{name}, {precision}"


def commit() -> str | None:
    """The commit of this library, with a + if its sources or the table of experiments differ from it; None if it has none."""
    root = Path(wsol_lib.__file__).parents[1]
    if not (root / ".git").exists():  # a repository further up, or where we stand, is somebody else's
        return None
    try:
        changed = _git(root, "status", "--porcelain", "--", *SOURCES)
        return _git(root, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def is_committed(source: str | None) -> bool:
    return source is not None and not source.endswith("+")


# -- how long it takes -------------------------------------------------------------------------------------------------


def work(definition: dict[str, Any], images_seen: int | None, n: int) -> float:
    """How much there is to compute, in images of the test of one pixel; a training step counts thrice."""
    return (3 * (images_seen or 0) + n) * definition.get("input_size", 224) ** 2


class Rates:
    """Seconds of finished units, to estimate those of others: the same experiment's, or else by what there is to compute.

    Args:
        folder: of the units; those of the records count as well
    """

    def __init__(self, folder: Path):
        self._rows = []
        for path in records.folder().glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            for own in record["seeds"] if "definition_sha256" in record else ():
                self.add(
                    own | {"unit": record["definition"]} | {name: record[name] for name in ("images_seen", "data")}
                )
        for path in folder.glob("*.npz"):
            if facts := _kept(path)[0]:
                self.add(facts)

    def add(self, facts: dict[str, Any]) -> None:
        """Take a finished unit into account, but for one that was killed in between, or ran on another kind of device."""
        if facts["starts"] == 1 and facts["device"].split(" (")[0] == device().split(" (")[0]:
            amount = work(facts["unit"], facts["images_seen"], facts["data"]["test"]["n"])
            self._rows.append((facts["unit"], sum(facts["seconds"].values()), amount))

    def seconds(self, experiment: Experiment, images_seen: int | None, n: int) -> float | None:
        """Of one unit; None where nothing of the kind has been measured."""
        definition = experiment.definition
        alike = [s for unit, s, _ in self._rows if unit | {"seeds": 0} == definition | {"seeds": 0}]
        if alike:
            return float(np.median(alike))
        for keys in (("localizer", "backbone"), ("backbone",)):
            rates = [s / a for unit, s, a in self._rows if all(unit.get(key) == definition.get(key) for key in keys)]
            if rates:
                return float(np.median(rates)) * work(definition, images_seen, n)
        return None


def missing(units: Iterable[Unit], committed: bool) -> list[Unit]:
    """Those without an outcome; with ``committed`` also those whose outcome is that of uncommitted code."""
    found = []
    for unit in units:
        facts = unit.facts()
        if facts is None or (committed and not is_committed(facts["commit"])):
            found.append(unit)
    return found
