"""Class activation maps: features and a class go in, one score map an image comes out.

Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 2; the method that the four
papers of this book build on or measure themselves against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from wsol_lib.models import Backbone, GapLinear


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


@torch.inference_mode()
def localize(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    input_size: int | None = None,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """One pass over images: the CAM of each at the images' own resolution, and the logits.

    Args:
        backbone: one with a GAP head; put into eval mode for the pass and back afterwards
        images: uint8 (N, 3, H, W)
        classes: (N,), the class whose map is wanted (the label, in the GT-known setting); None takes the predicted class
        input_size: side in pixels to which the images are resized before the backbone; None keeps theirs
        batch_size: images in one forward pass; more than ``2 * batch_size`` images show a progress bar

    Returns:
        score maps (N, H, W), not normalised, and logits (N, K), both float32 on the CPU.

    Raises:
        ValueError: the backbone has no GAP head; images or classes do not fit (see ``class_activation_map``)
    """
    if not isinstance(backbone.head, GapLinear):
        raise ValueError(
            "expected a backbone whose head is global average pooling and one linear layer, found "
            f"{type(backbone.head).__name__}: CAM is not defined for it, use vgg_gap instead of vgg16, say"
        )
    was_training = backbone.training
    backbone.eval()
    maps, logits = [], []
    starts = range(0, len(images), batch_size)
    try:
        for start in tqdm(starts, desc="CAM", unit="batch", disable=len(starts) <= 2):
            batch = slice(start, start + batch_size)
            features = backbone.features(backbone.preprocess(images[batch], input_size))
            logits.append(backbone.head(features))
            chosen = logits[-1].argmax(dim=1) if classes is None else classes[batch].to(features.device)
            cams = class_activation_map(features, backbone.head.weight, chosen)
            maps.append(resize_maps(cams.float(), images.shape[-2:]).cpu())
    finally:
        backbone.train(was_training)
    return torch.cat(maps), torch.cat(logits).float().cpu()
