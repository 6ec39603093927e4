"""A classifier whose head is bilinear attention pooling: the network behind LCHP's pseudo boxes.

Sun and Zhu, "Learning Consistency from High-quality Pseudo-labels for Weakly Supervised Object Localization" (2022),
section 4.3, after WS-DAN (Hu et al. 2019): a 1 x 1 convolution makes attention maps of the last features, the products of
both are summed over all places, and one linear layer classifies the sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsol_lib.models import Backbone, create_backbone

#: The channels of the last map with 16 pixels a cell, which is what Mixed_6e is in InceptionV3
CHANNELS = {"inception_v3": 768, "vgg19_bn": 512, "resnet50": 1024, "efficientnet_lite0": 112}


class AttentionPooling(nn.Module):
    """Bilinear attention pooling and a linear layer: features (N, C, h, w) -> logits (N, K).

    A 1 x 1 convolution makes attention maps of the features, with batch norm and ReLU as in WS-DAN (Hu et al. 2019), whose
    network this is; the paper names the convolution alone.

    Args:
        in_channels: C
        num_classes: K
        attention_maps: M
        factor: by which the pooled vector of norm 1 is multiplied before the linear layer. 1 is what the paper says, and
            hardly trains; 100 is WS-DAN's
    """

    def __init__(self, in_channels: int, num_classes: int, attention_maps: int = 32, *, factor: float = 100.0):
        super().__init__()
        convolution = nn.Conv2d(in_channels, attention_maps, 1, bias=False)
        self.attention = nn.Sequential(convolution, nn.BatchNorm2d(attention_maps), nn.ReLU())
        self.linear = nn.Linear(in_channels * attention_maps, num_classes)
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) -> logits (N, K)."""
        return self.linear(self.factor * bilinear_attention_pooling(features, self.attention(features)))


def bilinear_attention_pooling(features: Tensor, attention: Tensor) -> Tensor:
    """The sum over all places of each feature times each attention map, its signed square root, at norm 1 (section 4.3).

    At norm 1 the number of places cancels: this is the global average pooling of the products, too.

    Args:
        features: (N, C, h, w)
        attention: (N, M, h, w)

    Returns:
        (N, M * C), each row of norm 1, or of zeros
    """
    pooled = torch.einsum("nmhw,nchw->nmc", attention, features).flatten(1)
    # the root's slope is infinite at 0, where ReLU puts many values
    return F.normalize(pooled.sign() * (pooled.abs() + 1e-8).sqrt())


class BAPBackbone(Backbone):
    """A backbone whose head is :class:`AttentionPooling`."""

    def attention_maps(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> (N, M, h, w), not below 0."""
        return self.head.attention(self.features(x))


def create_bap(
    name: str, num_classes: int, attention_maps: int = 32, pretrained: bool = True, *, factor: float = 100.0
) -> BAPBackbone:
    """The classifier of LCHP: a trunk up to its last map with 16 pixels a cell, and :class:`AttentionPooling`.

    In InceptionV3 that is Mixed_6e, the paper's. The other trunks are cut at the same stride: "vgg19_bn" before its last
    pooling, "resnet50" and "efficientnet_lite0" before the stage that halves the map once more.

    Args:
        name: out of ``CHANNELS``
        num_classes, pretrained: as in :func:`wsol_lib.models.create_backbone`
        attention_maps: M, 32 in the paper
        factor: of :class:`AttentionPooling`

    Raises:
        ValueError: another name, less than one class or attention map
        FileNotFoundError: no ImageNet weights on this machine, and none to be downloaded
    """
    if name not in CHANNELS:
        raise ValueError(
            f"expected a backbone out of {', '.join(CHANNELS)}, found {name!r}: choose one of these, or put "
            "AttentionPooling on another's features"
        )
    if attention_maps < 1:
        raise ValueError(f"expected at least one attention map, found {attention_maps}: the paper has 32")
    whole = create_backbone(name, num_classes, pretrained)
    head = AttentionPooling(CHANNELS[name], num_classes, attention_maps, factor=factor)
    backbone = BAPBackbone(_cut(name, whole.trunk), head, CHANNELS[name], input_size=whole.input_size)
    backbone.mean, backbone.std = whole.mean, whole.std
    return backbone


def _cut(name: str, trunk: nn.Sequential) -> nn.Sequential:
    if name == "efficientnet_lite0":
        stem, norm, stages = trunk[:3]
        return nn.Sequential(stem, norm, stages[:5])
    return trunk[: {"inception_v3": -3, "vgg19_bn": -1, "resnet50": -1}[name]]
