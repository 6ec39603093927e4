"""What one gets without learning: the centre of every image ("Evaluating WSOL Right", section 5.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsol_lib.boxes import boxes_from_score_maps
from wsol_lib.data import LocalizationDataset
from wsol_lib.localizer import TAU, Localizer, Predictions, Stage


def centred_boxes(image_sizes: Tensor, fraction: float) -> Tensor:
    """The same centred box in every image: a fraction in (0, 1] of both sides; 1 is the whole image.

    Args:
        image_sizes: (N, 2), width and height

    Returns:
        boxes (N, 4), xyxy in pixels

    Raises:
        ValueError: a fraction outside (0, 1]

    >>> centred_boxes(torch.tensor([[4, 8]]), 0.5)
    tensor([[1., 2., 3., 6.]])
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"expected a fraction of the image's sides in (0, 1], found {fraction}")
    middle = image_sizes.float() / 2
    return torch.cat([middle * (1 - fraction), middle * (1 + fraction)], dim=1)


def centre_gaussian_maps(number: int, height: int, width: int) -> Tensor:
    """The centre-Gaussian baseline: ``number`` equal score maps (N, H, W) in [0, 1], a Gaussian in the middle.

    Its level sets are ellipses of the image's proportions, so its boxes are the centred ones. The standard deviation,
    half the image here, changes the tau that is best and not the accuracy at it.
    """
    y, x = (torch.linspace(-1, 1, 2 * side + 1)[1::2] for side in (height, width))  # centres of the pixels
    gaussian = torch.exp(-2 * (y[:, None] ** 2 + x[None] ** 2))
    lowest, highest = gaussian.aminmax()
    return ((gaussian - lowest) / (highest - lowest).clamp(min=1e-12)).expand(number, -1, -1)


class Centre(Localizer):
    """The centre baseline by its name, "centre": one Gaussian for all, whose tau alone is chosen from boxed images."""

    supervision = "nothing"
    least_classes = 1

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return {}

    def build(self) -> nn.Module:
        return nn.Module()

    @property
    def input_size(self) -> int:
        return self.settings["input_size"] or 224

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        """There is nothing to learn."""

    def look(self, images: Tensor, classes: Tensor | None) -> Predictions:
        maps = centre_gaussian_maps(len(images), *images.shape[-2:])
        boxes = boxes_from_score_maps(maps, TAU if self.tau is None else self.tau)
        return Predictions(boxes, torch.ones(len(images)), maps)
