"""One trial: a point's training on ``train-weaksup`` and its score on ``train-fullsup``."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, localize
from wsol_lib.data import LocalizationDataset, Subset, load_dataset, scaled_boxes, scaled_masks
from wsol_lib.data.transforms import random_crop, square
from wsol_lib.evaluate import CURVES
from wsol_lib.few_shot import foreground
from wsol_lib.metrics import PxAP
from wsol_lib.models import create_backbone
from wsol_lib.search.settings import METHODS, Settings
from wsol_lib.slt import create_localizer_backbone
from wsol_lib.train import labels, train

#: The few-shot baseline learns this share of each class of ``train-fullsup`` and is chosen on the rest.
FEW_SHOT_SHARE = 0.8
BATCH = 64  # images of one pass when maps are scored


def load_sets(
    settings: Settings, root: str | Path | None = None, *, final: bool = False
) -> tuple[LocalizationDataset, LocalizationDataset]:
    """What a trial is trained on, and what it is scored on.

    Args:
        settings: of the search
        root: folder that holds the data; None takes WSOL_DATA
        final: everything is trained on: without the proxy, and the few-shot baseline has all of ``train-fullsup``

    Raises:
        ValueError, FileNotFoundError: as :func:`wsol_lib.data.load_dataset`, if a split is not there, say
    """
    scored = load_split(settings, "train-fullsup", root)
    if settings.method != "few-shot":
        training = load_split(settings, "train-weaksup", root)
    elif final:
        training = scored
    else:
        training = share_per_class(scored, FEW_SHOT_SHARE, settings.seed)
        scored = Subset(scored, sorted(set(range(len(scored))) - set(training.indices)))
        if not len(scored):
            raise ValueError(
                "expected two images or more of a class of train-fullsup, one to choose on, found one of each"
            )
    training = share_per_class(training, 1.0 if final else settings.proxy, settings.seed)
    training.transform = random_crop(round(settings.input_size * 256 / 224), settings.input_size)
    return training, scored


def load_split(settings: Settings, split: str, root: str | Path | None) -> LocalizationDataset:
    parts = [(*name.rpartition("."), value) for name, value in settings.options.items()]
    options = {name: value for of_split, dot, name, value in parts if not dot or of_split == split}
    return load_dataset(settings.dataset, split, root, transform=square(settings.input_size), **options)


def share_per_class(dataset: LocalizationDataset, share: float, seed: int = 0) -> Subset:
    """A share in (0, 1] of the images of each class, rounded down, but at least one; drawn by ``seed``."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    by_class = order[torch.argsort(dataset.labels[order], stable=True)].split(dataset.images_per_class.tolist())
    kept = [own[: max(1, int(share * len(own) + 1e-9))] for own in by_class]  # 0.29 * 100 is a little less than 29
    return Subset(dataset, torch.cat(kept).sort().values.tolist())


def create_model(settings: Settings, values: dict[str, Any], num_classes: int) -> CAM:
    """The method on a new backbone, which for SLT has its surgery.

    Raises:
        ValueError: an unknown backbone or one that the method is not defined for, a value outside its range
    """
    set_seed(settings.seed)
    create = create_localizer_backbone if settings.method == "slt" else create_backbone
    arguments = {name: value for name, value in values.items() if name != "learning_rate"}
    return METHODS[settings.method](create(settings.backbone, num_classes, settings.pretrained), **arguments)


def score(model: CAM, dataset: LocalizationDataset, metric: str = "MaxBoxAccV2") -> float:
    """Score, in [0, 1], of the maps of the true classes; several processes share out the images.

    Args:
        model: a localizer
        dataset: its transform makes images of one size, which is that of the maps
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; it is PxAP where no image has a box
    """
    state = PartialState()
    masks = not any(len(boxes) for boxes in dataset.boxes)
    counts = (PxAP() if masks else CURVES[metric]()).to(state.device)
    own = list(range(state.process_index, len(dataset), state.num_processes))
    for start in range(0, len(own), BATCH):
        indices = own[start : start + BATCH]
        images = torch.stack([dataset[i].image.as_subclass(Tensor) for i in indices])
        maps = normalize_score_maps(localize(model, images, dataset.labels[indices])[0])
        if masks:
            counts.update(maps, *scaled_masks(dataset, indices, maps.shape[-2:]))
        else:
            counts.update(maps, [scaled_boxes(dataset, i, maps.shape[-2:]) for i in indices])
    return float(counts.compute())


def run_trial(
    settings: Settings,
    values: dict[str, Any],
    training: LocalizationDataset,
    scored: LocalizationDataset,
    num_workers: int = 0,
) -> tuple[dict[str, Any], CAM]:
    """Train one model and score it.

    Args:
        settings: of the search
        values: the learning rate and the method's arguments, as :func:`hyperparameters` gives
        training, scored: as :func:`load_sets` gives
        num_workers: processes that load images; 0 loads in this one

    Returns:
        ``score`` on ``scored`` in [0, 1], ``epoch`` it is of, ``loss`` of the last epoch, ``seconds``; and the model of that
        epoch. A network that is no longer finite has no epoch, no loss, and a score of 0.

    Raises:
        ValueError: as :func:`create_model`; a damaged image
    """
    start = time.perf_counter()
    model = create_model(settings, values, len(training.class_names))
    best: dict[str, Any] = {"score": -1.0}

    def look(epoch: int) -> None:
        if settings.checkpoint == "best" or epoch == settings.epochs:
            found = score(model, scored, settings.metric)
            if found > best["score"]:
                best.update(score=found, epoch=epoch, weights=copy.deepcopy(model.state_dict()))

    try:
        history = train(
            model,
            training,
            epochs=settings.epochs,
            learning_rate=values["learning_rate"],
            batch_size=settings.batch_size,
            targets=foreground if settings.method == "few-shot" else labels,
            num_workers=num_workers,
            seed=settings.seed,
            after_epoch=look,
        )
    except ValueError:
        if all(tensor.isfinite().all() for tensor in model.state_dict().values()):
            raise
        return {"score": 0.0, "epoch": None, "loss": None, "seconds": time.perf_counter() - start}, model
    model.load_state_dict(best.pop("weights"))
    return {**best, "loss": history[-1]["loss"], "seconds": time.perf_counter() - start}, model
