"""What one gets without learning: image sizes go in, boxes or score maps come out ("Evaluating WSOL Right", Section 5.1)."""

from __future__ import annotations

import torch
from torch import Tensor


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
