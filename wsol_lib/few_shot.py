"""The few-shot baseline: a network that learns the foreground from a few images with masks or boxes.

"Evaluating WSOL Methods Right", section 5.1: what the full supervision of ``train-fullsup`` gives when it trains a model
instead of choosing hyperparameters. The last layer of the network becomes one 1 x 1 convolution, each pixel is trained with
binary cross entropy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsol_lib.cam import CAM, resize_maps
from wsol_lib.data import LocalizationDataset, Sample, Subset
from wsol_lib.localizer import Localizer, Stage, has_masks
from wsol_lib.models import Backbone


def foreground(samples: list[Sample]) -> Tensor:
    """Full supervision, as ``targets`` of :func:`wsol_lib.train.train`: masks of samples of one size.

    Returns:
        float32 (N, H, W): 1 on the object, 0 elsewhere, -1 where the sample says not to count. A sample without a mask has
        its boxes for one: all pixels whose centre is inside any of them.
    """
    masks = []
    for sample in samples:
        mask = _inside(sample.boxes, sample.image.shape[-2:]) if sample.mask is None else sample.mask
        mask = mask.as_subclass(Tensor).float()
        if sample.ignore is not None:
            mask = mask.masked_fill(sample.ignore.as_subclass(Tensor), -1)
        masks.append(mask)
    return torch.stack(masks)


def foreground_of_boxes(samples: list[Sample]) -> Tensor:
    """:func:`foreground` by boxes even where there are masks."""
    return foreground([sample._replace(mask=None) for sample in samples])


class FewShot(CAM):
    """A saliency network: the same trunk, and one 1 x 1 convolution with a sigmoid in place of the classifier.

    Trained with ``targets=foreground``. The trunk is the one that is given, not a copy. Its hyperparameters are those of
    every training, the learning rate and the resolution of the map.

    Args:
        backbone: one with a GAP head, which is not used

    Raises:
        ValueError: the backbone has another head
    """

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.backbone = backbone.with_head(nn.Conv2d(backbone.num_features, 1, 1)).to(backbone.mean.device)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> (N, h, w), whose sigmoid is the saliency."""
        return self.backbone(inputs)[:, 0]

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """ "loss", the mean binary cross entropy of the pixels that count, and "accuracy", the share of them that is right.

        The scores are enlarged to the masks' size, as they are when they are evaluated.

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: (N, H', W') as :func:`foreground` gives

        Raises:
            ValueError: targets that are not masks
        """
        if targets.ndim != 3:
            raise ValueError(
                f"expected masks (N, H, W), found targets of shape {tuple(targets.shape)}: train with targets=foreground"
            )
        scores = resize_maps(self(inputs), targets.shape[1:])
        counts = (targets >= 0).to(scores.dtype)
        masks = targets.clamp(min=0).to(scores.dtype)
        number = counts.sum().clamp(min=1)
        right = ((scores.detach() > 0) == (masks > 0)) * counts
        loss = F.binary_cross_entropy_with_logits(scores, masks, weight=counts, reduction="sum") / number
        return {"loss": loss, "accuracy": right.sum() / number}

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The saliency. There is no classifier: ``classes`` are not looked at, and the logits have no classes.

        Returns:
            maps (N, h, w) in [0, 1], and empty logits (N, 0)
        """
        scores = self(inputs)
        return scores.sigmoid(), scores.new_zeros(len(scores), 0)


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (k, 4), xyxy -> bool ``size``, (height, width): the pixels whose centre is inside any box."""
    left, top, right, bottom = boxes.as_subclass(Tensor)[:, :, None].unbind(dim=1)
    rows, columns = (torch.arange(side) + 0.5 for side in size)
    in_rows, in_columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    return (in_rows[:, :, None] & in_columns[:, None]).any(dim=0)


class FewShotLocalizer(Localizer):
    """The few-shot baseline by its name, "few-shot": it learns from the boxed images and never sees the others.

    It passes over them until it has seen as many images as the others see in their epochs. ``masks`` says whether masks are
    learned from where there are some (OpenImages), or boxes alone; images without either say nothing and are left out.
    """

    network_class = FewShot
    supervision = "boxes"
    least_classes = 1

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return {"masks": True}

    def build(self) -> FewShot:
        return FewShot(self.create_backbone())

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        masks = self.settings["masks"] and has_masks(boxed)
        known = [i for i, own in enumerate(boxed.boxes) if masks or len(own)]
        if not known:
            raise ValueError(f"expected boxes in {boxed.name} {boxed.split}, found masks alone: leave out masks=False")
        epochs = self.settings["epochs"] and max(1, round(self.settings["epochs"] * len(dataset) / len(known)))
        seen = foreground if masks else foreground_of_boxes
        self.train(self.network, Subset(boxed, known), stage("training"), epochs=epochs, targets=seen)
