"""CutMix: a classifier trained on images with a rectangle of another image, and on both labels.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (ICCV 2019), section 3;
"Evaluating WSOL Methods Right", section 5.1. As in the authors' code one rectangle and one share serve the whole batch, and
the share is corrected for what the border of the image cuts off the rectangle.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wsol_lib.cam import CAM, cross_entropy
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone


def random_rectangle(height: int, width: int, size_prior: float) -> tuple[int, int, int, int]:
    """A rectangle of the image's shape whose centre is anywhere in the image (CutMix Eq. 2).

    Its sides are sqrt(1 - lambda) of the image's, with lambda from Beta(size_prior, size_prior); rounded down to whole
    pixels, and what lies outside of the image is cut off. Drawn from numpy's generator: torch's Beta is not one for a prior
    below some 0.001.

    Returns:
        x1, y1, x2, y2 in pixels, edges continuous as those of a box
    """
    side = (1 - np.random.beta(size_prior, size_prior)) ** 0.5
    y, x = np.random.randint(height), np.random.randint(width)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    x1, x2 = max(x - half_width, 0), min(x + half_width, width)
    y1, y2 = max(y - half_height, 0), min(y + half_height, height)
    return x1, y1, x2, y2


def paste(inputs: Tensor, others: Tensor, rectangle: tuple[int, int, int, int]) -> tuple[Tensor, float]:
    """Images with a rectangle of others (CutMix Eq. 1).

    Args:
        inputs, others: (N, C, H, W)
        rectangle: x1, y1, x2, y2 in pixels

    Returns:
        (N, C, H, W), new, and the share of its pixels that is from ``inputs``, in [0, 1]
    """
    x1, y1, x2, y2 = rectangle
    mixed = inputs.clone()
    mixed[:, :, y1:y2, x1:x2] = others[:, :, y1:y2, x1:x2]
    return mixed, 1 - (x2 - x1) * (y2 - y1) / (inputs.shape[2] * inputs.shape[3])


class CutMix(CAM):
    """CAM trained on mixed images: each part of the object has to do when the rest is under another image.

    Args:
        backbone: one with a GAP head
        size_prior: alpha of the Beta distribution of the share of pixels that an image keeps, in [0, inf): 1 is uniform,
            more draws towards one half; 0 mixes nothing
        mix_rate: probability of a batch to be mixed at all, in [0, 1]

    Raises:
        ValueError: another head, a hyperparameter outside its range
    """

    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {
        "size_prior": (0.0, float("inf")),
        "mix_rate": (0.0, 1.0),
    }

    def __init__(self, backbone: Backbone, *, size_prior: float = 1.0, mix_rate: float = 1.0):
        super().__init__(backbone)
        check_hyperparameters(self.search_space, size_prior=size_prior, mix_rate=mix_rate)
        self.size_prior, self.mix_rate = size_prior, mix_rate

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """As that of :class:`wsol_lib.cam.CAM`, but on mixed images, where both labels count by their shares of the pixels."""
        if self.size_prior == 0 or np.random.rand() >= self.mix_rate:
            return super().loss(inputs, targets)
        order = torch.randperm(len(inputs), device=inputs.device)
        rectangle = random_rectangle(*inputs.shape[2:], self.size_prior)
        mixed, share = paste(inputs, inputs[order], rectangle)
        return mixed_cross_entropy(self(mixed), targets, targets[order], share)


def mixed_cross_entropy(logits: Tensor, labels: Tensor, others: Tensor, share: float) -> dict[str, Tensor]:
    """Cross entropy and accuracy with both labels of a mixed image: ``share`` of the first, the rest of the other."""
    first, second = cross_entropy(logits, labels), cross_entropy(logits, others)
    return {name: share * first[name] + (1 - share) * second[name] for name in first}


class CutMixLocalizer(Localizer):
    """CutMix by its name, "cutmix".

    A search draws the size prior as 1/u - 1/2 with u uniform in (0, 2], as the evaluation paper does: it has no end.
    """

    network_class = CutMix

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        return super().drawn(settings) | {"size_prior": (0.0, 2.0)}  # 2 - u, which is below 2

    @classmethod
    def from_drawn(cls, point: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
        if "size_prior" in point:
            point = point | {"size_prior": 1 / (2 - point["size_prior"]) - 1 / 2}
        return super().from_drawn(point, fixed)
