"""ACoL: two classifiers on the same features; the second sees what the first did not need. The map is the larger of both.

Zhang et al., "Adversarial Complementary Learning for Weakly Supervised Object Localization" (CVPR 2018), section 3.2;
"Evaluating WSOL Methods Right", section 5.1, whose code is the reference here; its threshold is 0.7 where that of the
authors' code is 0.6. Different from both: the branches stand on the last feature map of every backbone, while the trunks of
VGG (smoothed there by an average over 3 x 3) and InceptionV3 end earlier; and a map without contrast is 0, not 0 / 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, class_activation_map, cross_entropy
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone, GapLinear


def erase(features: Tensor, maps: Tensor, threshold: float) -> Tensor:
    """Set features to 0 wherever the map reaches the threshold; where is a constant to autograd.

    Args:
        features: (N, C, h, w)
        maps: (N, h, w), score maps that are not normalised; min-max normalisation is done here
        threshold: in [0, 1]; 0 erases everything, 1 the places of the maximum

    Returns:
        (N, C, h, w), new

    >>> erase(torch.ones(1, 1, 1, 4), torch.tensor([[[0.0, 1.0, 2.0, 4.0]]]), 0.5)
    tensor([[[[1., 1., 0., 0.]]]])
    """
    kept = normalize_score_maps(maps) < threshold  # a comparison has no gradient
    return features * kept[:, None]


class ACoL(CAM):
    """Two classifiers on one trunk: what branch A looks at is erased from the features of branch B.

    A branch is two 3 x 3 convolutions with ReLU and a GAP head. Branch A takes the place of the backbone's head and gives
    the logits; B is for its map. The trunk is the one that is given, not a copy; the head is not used.

    Args:
        backbone: one with a GAP head
        threshold: score, after min-max normalisation of A's map, from which on a place is erased, in [0, 1]
        channels: of both convolutions; 1024 for every backbone, as in both papers. On "efficientnet_lite0" that is several
            times the cost of the trunk: 128 are lean

    Raises:
        ValueError: another head, a threshold outside its range
    """

    on_features = True
    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"threshold": (0.0, 1.0)}

    def __init__(self, backbone: Backbone, *, threshold: float = 0.7, channels: int = 1024):
        super().__init__(backbone)
        check_hyperparameters(self.search_space, threshold=threshold)
        self.threshold = threshold
        classes = backbone.head.out_features
        self.backbone = backbone.with_head(_branch(backbone.num_features, channels, classes))
        self.branch_b = _branch(backbone.num_features, channels, classes)
        self.to(backbone.mean.device)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """ "loss", the sum of both branches' cross entropies, and the accuracies, "accuracy" of A and "accuracy_b".

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: labels (N,), whose map is erased
        """
        _, (logits_a, logits_b) = self._both(inputs, targets)
        a, b = cross_entropy(logits_a, targets), cross_entropy(logits_b, targets)
        return {"loss": a["loss"] + b["loss"], "accuracy": a["accuracy"], "accuracy_b": b["accuracy"]}

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The elementwise maximum of both branches' maps, each brought to [0, 1], and the logits of A.

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,); None takes the ones that A predicts

        Returns:
            maps (N, h, w) in [0, 1] and logits (N, K)
        """
        (map_a, map_b), (logits, _) = self._both(inputs, classes)
        return torch.maximum(normalize_score_maps(map_a), normalize_score_maps(map_b)), logits

    def _both(self, inputs: Tensor, classes: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Maps (N, h, w), not normalised, and logits (N, K), each of A and of B."""
        features, head = self.backbone.features(inputs), self.backbone.head
        features_a = head[:-1](features)
        logits_a = head[-1](features_a)
        classes = logits_a.argmax(dim=1) if classes is None else classes
        map_a = class_activation_map(features_a, head[-1].weight, classes)
        features_b = self.branch_b[:-1](erase(features, map_a, self.threshold))
        map_b = class_activation_map(features_b, self.branch_b[-1].weight, classes)
        return (map_a, map_b), (logits_a, self.branch_b[-1](features_b))


def _branch(in_channels: int, channels: int, classes: int) -> nn.Sequential:
    """Features (N, C, h, w) -> logits (N, K)."""
    layers = [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, GapLinear(channels, classes)).to(memory_format=torch.channels_last)


class ACoLLocalizer(Localizer):
    """ACoL by its name, "acol"."""

    network_class = ACoL
