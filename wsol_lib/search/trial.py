"""One trial: a point's localizer, fitted on ``train-weaksup``, and its score on ``train-fullsup``.

Whatever boxes choose is chosen on ``train-fullsup``, and there the trials are scored, too: the protocol has this split for all
choices of hyperparameters, of which a threshold (tau, the delta of LCHP, the tau of a teacher) is one. What learns its
weights from boxes is never scored on the same ones: it learns from 80 % of each class and is scored on the rest.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from torch import Tensor

from wsol_lib.data import (
    LocalizationDataset,
    Subset,
    drawn_per_class,
    limited_per_class,
    load_dataset,
    scaled_boxes,
    scaled_masks,
)
from wsol_lib.data.transforms import stack_images
from wsol_lib.evaluate import CURVES
from wsol_lib.localizer import BATCH, Localizer, wnids_of
from wsol_lib.metrics import LocalizationAccuracy, PxAP
from wsol_lib.search.settings import Settings
from wsol_lib.train import NotFinite

#: What learns from boxes learns this share of each class of ``train-fullsup`` and is scored on the rest.
LEARNT_SHARE = 0.8


class Sets(NamedTuple):
    """The data of a trial.

    training: whose labels are looked at
    boxed: whose boxes choose thresholds, or are learnt from; None where there are masks only, which choose nothing
    scored: on which the trial is scored
    """

    training: LocalizationDataset
    boxed: LocalizationDataset | None
    scored: LocalizationDataset


def load_sets(settings: Settings, root: str | Path | None = None, *, final: bool = False) -> Sets:
    """What a trial is trained on, and what it is scored on.

    Args:
        settings: of the search
        root: folder that holds the data; None takes WSOL_DATA
        final: everything is trained on: without the proxy, and what learns from boxes has all of ``train-fullsup``

    Raises:
        ValueError, FileNotFoundError: as :func:`wsol_lib.data.load_dataset`, if a split is not there, say; masks alone for
            what makes no score maps
    """
    scored = load_split(settings, "train-fullsup", root)
    training = load_split(settings, "train-weaksup", root)
    training = share_per_class(training, 1.0 if final else settings.proxy, settings.seed)
    learns_boxes = settings.localizer.supervision == "boxes"
    masks = not any(len(boxes) for boxes in scored.boxes)
    if masks and not settings.localizer.makes_maps:
        raise ValueError(
            f"expected boxes in {settings.dataset} train-fullsup, found none: masks cannot score {settings.method}, which "
            "makes no score maps"
        )
    if not learns_boxes:
        return Sets(training, None if masks else scored, scored)
    if final:
        return Sets(training, scored, scored)
    boxed = share_per_class(scored, LEARNT_SHARE, settings.seed)
    rest = Subset(scored, sorted(set(range(len(scored))) - set(boxed.indices)))
    if not len(rest):
        raise ValueError("expected two images or more of a class of train-fullsup, one to choose on, found one of each")
    return Sets(training, boxed, rest)


def load_split(settings: Settings, split: str, root: str | Path | None) -> LocalizationDataset:
    parts = [(*name.rpartition("."), value) for name, value in settings.options.items()]
    options = {name: value for of_split, dot, name, value in parts if not dot or of_split == split}
    limit, seed = options.pop("limit_per_class", None), options.pop("limit_seed", 0)  # of any split, as in experiments
    dataset = load_dataset(settings.dataset, split, root, **options)
    return dataset if limit is None else limited_per_class(dataset, limit, seed)


def share_per_class(dataset: LocalizationDataset, share: float, seed: int = 0) -> Subset:
    """A share in (0, 1] of the images of each class, rounded down, but at least one; drawn by ``seed``."""
    drawn = drawn_per_class(dataset, seed)
    kept = [own[: max(1, int(share * len(own) + 1e-9))] for own in drawn]  # 0.29 * 100 is a little less than 29
    return Subset(dataset, torch.cat(kept).sort().values.tolist())


def create_localizer(
    settings: Settings, values: dict[str, Any], dataset: LocalizationDataset, num_workers: int = 0
) -> Localizer:
    """The localizer, not fitted yet.

    Args:
        settings: of the search
        values: of the localizer, as :func:`wsol_lib.search.hyperparameters` gives
        dataset: whose classes it is for
        num_workers: processes that load images; 0 loads in this one

    Raises:
        ValueError: an unknown backbone or one that the method is not defined for, a value outside its range
    """
    own = settings.of_localizer(**values, num_workers=num_workers)
    return settings.localizer(settings.method, dataset.class_names, own, wnids_of(dataset))


def score(localizer: Localizer, dataset: LocalizationDataset, metric: str = "MaxBoxAccV2") -> float:
    """Score, in [0, 1], for the true classes; several processes share out the images.

    Args:
        localizer: that of its maps, at the best tau, or of its boxes where it makes no maps
        dataset: its images may differ in size
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; it is PxAP where no image has a box
    """
    state = PartialState()
    masks = not any(len(boxes) for boxes in dataset.boxes)
    counts: Any = PxAP() if masks else CURVES[metric]() if localizer.makes_maps else _BoxAccuracy(metric)
    counts = counts.to(state.device)
    own = list(range(state.process_index, len(dataset), state.num_processes))
    for start in range(0, len(own), BATCH):
        indices = own[start : start + BATCH]
        images = stack_images(dataset, indices, localizer.input_size)
        found = localizer.predict(images, dataset.labels[indices])
        shape = images.shape[-2:]
        if masks:
            counts.update(found.score_maps, *scaled_masks(dataset, indices, shape))
        else:
            seen = found.score_maps if localizer.makes_maps else found.boxes
            counts.update(seen, [scaled_boxes(dataset, i, shape) for i in indices])
    return float(counts.compute())


class _BoxAccuracy(torch.nn.Module):
    """The share of boxes that are right, on average over the IoU thresholds of a metric of score maps."""

    def __init__(self, metric: str):
        super().__init__()
        self.shares = torch.nn.ModuleList(LocalizationAccuracy(iou) for iou in CURVES[metric]().iou_thresholds)

    def update(self, predicted: Tensor, boxes: list[Tensor]) -> None:
        for share in self.shares:
            share.update(predicted, torch.zeros(len(boxes), 1), boxes, torch.zeros(len(boxes), dtype=torch.int64))

    def compute(self) -> Tensor:
        return torch.stack([share.compute()["gt_known_loc"] for share in self.shares]).mean()


def run_trial(
    settings: Settings, values: dict[str, Any], sets: Sets, num_workers: int = 0, checkpoint: str | Path | None = None
) -> tuple[dict[str, Any], Localizer]:
    """Fit one localizer and score it.

    Args:
        settings: of the search
        values: of the localizer, as :func:`wsol_lib.search.hyperparameters` gives
        sets: as :func:`load_sets` gives
        num_workers: processes that load images; 0 loads in this one
        checkpoint: a folder from which a training goes on that was killed, as in :func:`wsol_lib.localizers.fit`; not used
            where the best epoch counts, which would be forgotten

    Returns:
        ``score`` on ``sets.scored`` in [0, 1]; ``epoch`` it is of, counted over all trainings of the method; ``loss`` of the
        last epoch; ``seconds`` of this call; and the localizer, as it was at that epoch. A network that is no longer finite has
        no epoch, no loss, and a score of 0.

    Raises:
        ValueError: as :func:`create_localizer`; a damaged image
    """
    start = time.perf_counter()
    localizer = create_localizer(settings, values, sets.training, num_workers)
    best = _Best(localizer, sets, settings.metric)
    if settings.checkpoint == "best":
        localizer.after_epoch = best.look
    try:
        localizer.fit(sets.training, sets.boxed, Path(checkpoint) if checkpoint and not localizer.after_epoch else None)
        epochs = len(localizer.history)
        if best.epoch is None:
            best.score, best.epoch = score(localizer, sets.scored, settings.metric), epochs
        elif best.epoch < epochs:
            best.take_back()
    except ValueError as error:
        weights = localizer.network.state_dict().values()
        if not isinstance(error, NotFinite) and all(tensor.isfinite().all() for tensor in weights):
            raise
        outcome: dict[str, Any] = {"score": 0.0, "epoch": None, "loss": None}
    else:
        loss = localizer.history[-1]["loss"] if localizer.history else 0.0
        outcome = {"score": best.score, "epoch": best.epoch, "loss": loss}
    localizer.after_epoch = None
    return outcome | {"seconds": time.perf_counter() - start}, localizer


class _Best:
    """The best epoch of a fit so far."""

    def __init__(self, localizer: Localizer, sets: Sets, metric: str):
        self.localizer, self.sets, self.metric = localizer, sets, metric
        self.score, self.epoch, self.weights = -1.0, None, {}
        self.looks = 0

    def look(self, epoch: int) -> None:
        """After each epoch, whose number starts anew with every training of the method."""
        self.looks += 1
        found = score(self.localizer, self.sets.scored, self.metric)
        if found > self.score:
            self.score, self.epoch = found, self.looks
            self.weights = copy.deepcopy(self.localizer.network.state_dict())

    def take_back(self) -> None:
        """The localizer as it was then, its threshold chosen anew."""
        self.localizer.network.load_state_dict(self.weights)
        boxed, given = self.sets.boxed, self.localizer.settings["tau"] is not None
        if self.localizer.makes_maps and not given and boxed is not None and any(len(boxes) for boxes in boxed.boxes):
            self.localizer.choose(boxed)
