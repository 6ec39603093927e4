"""Class activation maps: where in the last feature map a class finds its evidence.

Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 2; the method that the four
papers of this book build on or measure themselves against.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from accelerate import PartialState
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from wsol_lib.losses import accuracy
from wsol_lib.models import Backbone, GapLinear, Network, eval_mode


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    r"""The class activation map :math:`M_c(x, y) = \sum_k w_k^c f_k(x, y)` (Zhou et al., Eq. 2).

    Args:
        features: (N, C, h, w), the last feature map
        weight: (K, C), the linear layer behind the global average pooling
        classes: (N,) integers in 0 ... K - 1, the class to show in each image

    Returns:
        (N, h, w), not normalised: its mean plus the layer's bias is the logit of the class.

    Raises:
        ValueError: shapes that do not fit together, a class outside 0 ... K - 1
    """
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"expected features (N, C, h, w) and weight (K, C) with the same C, found {tuple(features.shape)} "
            f"and {tuple(weight.shape)}: take both from the same backbone"
        )
    if classes.shape != features.shape[:1]:
        raise ValueError(
            f"expected one class for each of {len(features)} images, found classes of shape {tuple(classes.shape)}: "
            "give a tensor (N,)"
        )
    outside = (classes < 0) | (classes >= len(weight))
    if outside.any():
        raise ValueError(
            f"expected classes in 0 ... {len(weight) - 1}, found {int(classes[outside][0])}: "
            "the labels and the classifier do not belong together"
        )
    return torch.einsum("nchw,nc->nhw", features, weight[classes])


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of score maps (N, h, w) to ``size`` = (H, W), pixel centres aligned as in an image resize."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


class Classifier(Network):
    """Any classifier, trained with cross entropy.

    Args:
        backbone: with any head
    """

    on_features = True

    def __init__(self, backbone: Backbone):
        super().__init__(backbone=backbone)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> logits (N, K)."""
        return self.backbone(inputs)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What :func:`wsol_lib.train.train` minimises: "loss", the mean cross entropy, beside it "accuracy" in [0, 1].

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: labels (N,)
        """
        return cross_entropy(self(inputs), targets)


class CAM(Classifier):
    """The plain localizer: a classifier trained with cross entropy, whose map is the class activation map.

    The methods that came after it derive from this class and change what is shown to the classifier, what is between its
    layers, or what is read from it.

    Args:
        backbone: one with a GAP head

    Raises:
        ValueError: the backbone has another head
    """

    on_features = True
    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {}

    def __init__(self, backbone: Backbone):
        if not isinstance(backbone.head, GapLinear):
            raise ValueError(
                "expected a backbone whose head is global average pooling and one linear layer, found "
                f"{type(backbone.head).__name__}: CAM is not defined for it, use vgg_gap instead of vgg16, say"
            )
        super().__init__(backbone)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The map of one class an image, and the logits.

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,); None takes the predicted ones

        Returns:
            maps (N, h, w), not normalised, and logits (N, K)

        Raises:
            ValueError: as :func:`class_activation_map`
        """
        features = self.backbone.features(inputs)
        logits = self.backbone.head(features)
        chosen = logits.argmax(dim=1) if classes is None else classes
        return class_activation_map(features, self.backbone.head.weight, chosen), logits


def cross_entropy(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits (N, K), labels (N,) -> "loss", the mean cross entropy, and "accuracy" in [0, 1]."""
    return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}


@torch.no_grad()
def localize(
    model: CAM,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    input_size: int | None = None,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """One pass over images: the score map of each at the images' own resolution, and the logits.

    Args:
        model: has ``backbone`` and ``score_maps``; moved to the GPU if there is one, in eval mode for the pass
        images: uint8 (N, 3, H, W)
        classes: (N,), the class whose map is wanted (the label, in the GT-known setting); None takes the predicted class
        input_size: side in pixels to which the images are resized before the backbone; None keeps theirs
        batch_size: images in one forward pass; more than ``2 * batch_size`` images show a progress bar

    Returns:
        score maps (N, H, W), not normalised, and logits (N, K), both float32 on the CPU.

    Raises:
        ValueError: images or classes do not fit (see ``class_activation_map``)
    """
    model.to(PartialState().device)
    maps, logits = [], []
    starts = range(0, len(images), batch_size)
    with eval_mode(model):
        for start in tqdm(starts, desc="score maps", unit="batch", disable=len(starts) <= 2):
            batch = slice(start, start + batch_size)
            inputs = model.backbone.preprocess(images[batch], input_size)
            chosen = None if classes is None else classes[batch].to(inputs.device)
            small, scores = model.score_maps(inputs, chosen)
            maps.append(resize_maps(small.float(), images.shape[-2:]).cpu())
            logits.append(scores.float().cpu())
    return torch.cat(maps), torch.cat(logits)
