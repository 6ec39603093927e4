"""ADL, the attention-based dropout layer: it erases the strongest places of feature maps while a classifier trains.

Choe and Shim, "Attention-Based Dropout Layer for Weakly Supervised Object Localization" (CVPR 2019), section 3;
"Evaluating WSOL Methods Right", section 5.1. The layers have nothing to learn and exist in training alone: they are hooked
into the trunk while the loss is computed and are gone afterwards, so the trained backbone is an ordinary one.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar

import torch
from torch import Tensor, nn

from wsol_lib.cam import CAM
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone

#: Behind which three modules of the trunk the layers are, by backbone. The first three rows are those of the evaluation
#: paper's code, whose InceptionV3 is the one of stride 16 or 8 here, but without its dropout. The others are chosen like
#: them: the last feature map and two earlier ones, behind a ReLU and with no skip connection past the layer.
LAYERS: dict[str, tuple[str, ...]] = {
    "vgg_gap": ("16", "22", "29"),  # pool3, conv4_3, conv5_3
    "resnet50": ("6.0", "7.0", "7.2"),  # first block of layer3, first and last of layer4
    "inception_v3": ("9", "14", "17"),  # Mixed_5d, Mixed_6e, the last map
    "densenet161": ("0.transition2.relu", "0.transition3.relu", "1"),  # where a dense block has ended
    "efficientnet_lite0": ("2.3.0.bn2", "2.5.0.bn2", "4"),  # first blocks of stages 4 and 6, inside; the last map
}


def self_attention(features: Tensor) -> Tensor:
    """The mean over the channels: features (N, C, h, w) -> (N, 1, h, w)."""
    return features.mean(dim=1, keepdim=True)


def drop_mask(attention: Tensor, threshold: float) -> Tensor:
    """0 where an image's attention reaches ``threshold`` times its own maximum, 1 elsewhere; a constant to autograd.

    Args:
        attention: (N, 1, h, w)
        threshold: in [0, 1]

    Returns:
        (N, 1, h, w), of the attention's type
    """
    return (attention < threshold * attention.amax(dim=(2, 3), keepdim=True)).to(attention.dtype)


def importance_map(attention: Tensor) -> Tensor:
    """The sigmoid of the attention, (N, 1, h, w) in (0, 1): what is strong is kept, what is weak is halved."""
    return attention.sigmoid()


class ADL(CAM):
    """CAM trained with attention-based dropout layers: at random the strongest places are erased, or the weak ones damped.

    Args:
        backbone: one with a GAP head, out of ``LAYERS``
        drop_rate: probability of a layer to erase in a step, in [0, 1]; it weighs with the importance map otherwise
        threshold: share of the largest attention from which on a place is erased, in [0, 1]

    Raises:
        ValueError: another head, a backbone that is not in ``LAYERS``, a hyperparameter outside its range
    """

    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"drop_rate": (0.0, 1.0), "threshold": (0.0, 1.0)}

    def __init__(self, backbone: Backbone, *, drop_rate: float = 0.75, threshold: float = 0.9):
        super().__init__(backbone)
        check_hyperparameters(self.search_space, drop_rate=drop_rate, threshold=threshold)
        self.drop_rate, self.threshold = drop_rate, threshold
        self.layers = _layers_of(backbone.trunk)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """As that of :class:`wsol_lib.cam.CAM`, with the layers in the trunk."""
        with ExitStack() as hooks:
            for name in self.layers:
                handle = self.backbone.trunk.get_submodule(name).register_forward_hook(self._dropout)
                hooks.callback(handle.remove)
            return super().loss(inputs, targets)

    def _dropout(self, module: nn.Module, arguments: tuple, features: Tensor) -> Tensor:
        """One attention-based dropout layer, as a forward hook; one draw for the batch."""
        attention = self_attention(features)
        erase = torch.rand(()) < self.drop_rate
        return features * (drop_mask(attention, self.threshold) if erase else importance_map(attention))


def _layers_of(trunk: nn.Module) -> tuple[str, ...]:
    """The first of ``LAYERS`` whose modules the trunk all has; vgg_gap stands before inception_v3, whose names it has too."""
    names = {name for name, _ in trunk.named_modules()}
    for layers in LAYERS.values():
        if names.issuperset(layers):
            return layers
    raise ValueError(f"expected a backbone out of {', '.join(LAYERS)}, found another: create it with create_backbone")


class ADLLocalizer(Localizer):
    """ADL by its name, "adl"."""

    network_class = ADL
