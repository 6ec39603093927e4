"""Hide-and-Seek: a classifier trained on images of which random patches are hidden.

Singh and Lee, "Hide-and-Seek: Forcing a Network to be Meticulous" (ICCV 2017), section 3.1; "Evaluating WSOL Methods
Right", section 5.1. The paper fills a patch with the mean colour of the training images, so that the first layer's
activations keep their mean; here, as in the evaluation paper's code, it is 0 after normalisation: the mean of the images
the backbone was pretrained on. Of the paper's patches, 16, 32, 44 or 56 of 224 pixels wide, or drawn anew for each image,
the evaluation paper made one size, a hyperparameter. Its code's default, 4 pixels, is far below all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from wsol_lib.cam import CAM
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone


def hide_patches(inputs: Tensor, hidden: Tensor, grid_size: int) -> Tensor:
    """Set square patches of images to 0.

    Args:
        inputs: (N, C, H, W)
        hidden: bool (N, rows, columns), the patches to hide; enough of them to cover the images, what lies beyond the
            right and lower border is cut off
        grid_size: side of a patch in pixels

    Returns:
        (N, C, H, W), new
    """
    pixels = hidden.repeat_interleave(grid_size, dim=1).repeat_interleave(grid_size, dim=2)
    return inputs.masked_fill(pixels[:, None, : inputs.shape[2], : inputs.shape[3]], 0)


class HideAndSeek(CAM):
    """CAM trained on images with patches hidden: what it cannot see it cannot rely on.

    Args:
        backbone: one with a GAP head
        drop_rate: probability of each patch to be hidden, in [0, 1]
        grid_size: side of a patch in pixels of the network's input, 1 ... 224

    Raises:
        ValueError: another head, a hyperparameter outside its range
    """

    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"drop_rate": (0.0, 1.0), "grid_size": (1, 224)}

    def __init__(self, backbone: Backbone, *, drop_rate: float = 0.5, grid_size: int = 4):
        super().__init__(backbone)
        check_hyperparameters(self.search_space, drop_rate=drop_rate, grid_size=grid_size)
        self.drop_rate, self.grid_size = drop_rate, grid_size

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """As that of :class:`wsol_lib.cam.CAM`, each image with patches of its own hidden."""
        rows, columns = (-(-side // self.grid_size) for side in inputs.shape[2:])
        hidden = torch.rand(len(inputs), rows, columns, device=inputs.device) < self.drop_rate
        return super().loss(hide_patches(inputs, hidden, self.grid_size), targets)


class HaS(Localizer):
    """Hide-and-Seek by its name, "has"."""

    network_class = HideAndSeek

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        smallest, largest = HideAndSeek.search_space["grid_size"]
        return super().drawn(settings) | {"grid_size": (smallest, min(largest, settings["input_size"] or largest))}
