"""The losses of SLT-Net and LCHP, one function an equation.

Guo et al., "Strengthen Learning Tolerance for Weakly Supervised Object Localization" (CVPR 2021), here SLT, and "Learning
Consistency from High-quality Pseudo-labels for Weakly Supervised Object Localization" (2022), here LCHP. Where a paper
leaves a choice, the docstring says which one was made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def semantic_tolerance_loss(logits: Tensor, labels: Tensor, alpha: float, k: int) -> Tensor:
    """Cross entropy, reduced to its alpha-th part wherever the label is among the k highest scores (SLT Eq. 8).

    The whole loss of an image is scaled, not that of single classes: an image whose label is not among its k highest
    scores counts in full. A label that ties with the k-th score is among them. alpha = 1 is cross entropy to the last bit,
    for every k.

    Args:
        logits: (N, C)
        labels: (N,) integers in 0 ... C - 1
        alpha: in [0, 1], what a tolerated mistake still costs
        k: in 1 ... C, how many classes are taken for similar to the right one; 1 tolerates no mistake at all

    Returns:
        scalar, the mean over the batch

    Raises:
        ValueError: alpha or k outside their ranges, logits that are NaN or infinite, shapes that do not fit, a label
            outside 0 ... C - 1

    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    >>> semantic_tolerance_loss(logits[:1], torch.tensor([1]), alpha=0.5, k=2)  # second place: half of 1.4076
    tensor(0.7038)
    >>> semantic_tolerance_loss(logits, torch.tensor([1, 2]), alpha=0.5, k=2)  # third place: 2.4076, in full
    tensor(1.5557)
    """
    _require_scores(logits, labels, alpha, k)
    if alpha == 1:
        return F.cross_entropy(logits, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    better = logits > logits.gather(1, labels[:, None])
    tolerated = better.sum(dim=1) < k
    return torch.where(tolerated, alpha * losses, losses).mean()


def visual_tolerance_loss(maps: Tensor, restored_maps: Tensor, *, sum_over_maps: bool = False) -> Tensor:
    """Mean squared difference of an image's maps and those of its transformed twin, moved back (SLT Eq. 13).

    The paper's words, mean squared error, and its equation differ: the words take the mean over the C maps too, which is
    the default here; the equation divides the squared norm by W x H alone, so that the C maps are summed. The sum is C
    times the mean, 200 times on CUB, at the same beta. Both sides carry gradient.

    Args:
        maps: (N, C, h, w), or (N, h, w) for one map an image, not normalised
        restored_maps: of the same shape
        sum_over_maps: add up the C maps, as the equation is printed, instead of averaging them

    Returns:
        scalar, the mean over batch and positions, and over the maps unless they are summed

    Raises:
        ValueError: two shapes, or values that are NaN or infinite

    >>> visual_tolerance_loss(torch.zeros(1, 2, 2, 2), torch.tensor([0.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2))
    tensor(8.)
    """
    _require_pair(maps, restored_maps)
    loss = F.mse_loss(maps, restored_maps)
    return loss * maps.shape[1] if sum_over_maps and maps.ndim == 4 else loss


def box_regression_loss(boxes: Tensor, pseudo_boxes: Tensor, m: float | Tensor) -> Tensor:
    """Smooth L1 between boxes that are divided by the downsampling factor m (SLT Eq. 3 and 4).

    m decides where the square turns into the absolute value: at a difference of m pixels. With m the pixels a cell of the
    score map, that is one cell; with m the side of the image differences stay below 1, and all that is left of the loss is
    half the squared error.

    Args:
        boxes: (N, 4), xyxy in pixels, predicted
        pseudo_boxes: (N, 4), xyxy in pixels, the localizer's; no gradient flows into them
        m: above 0, one number, or (4,), one a coordinate

    Returns:
        scalar, the sum over the four coordinates, the mean over the batch

    Raises:
        ValueError: other shapes, m not above 0, values that are NaN or infinite

    >>> box_regression_loss(torch.tensor([[8.0, 0, 64, 64]]), torch.tensor([[0.0, 0, 64, 32]]), m=16)  # 0.125 + 1.5
    tensor(1.6250)
    """
    _require_boxes(boxes, pseudo_boxes)
    if not (torch.as_tensor(m) > 0).all():
        raise ValueError(f"expected m above 0, found {m}: give the pixels that one cell of the score map covers")
    targets = pseudo_boxes.detach() / m
    return F.smooth_l1_loss(boxes / m, targets, reduction="none").sum(dim=1).mean()


def classification_loss(raw: Tensor, masked: Tensor, labels: Tensor) -> Tensor:
    """The mean of the cross entropies of raw and masked images (LCHP Eq. 1).

    Args:
        raw, masked: logits (N, K)
        labels: (N,)
    """
    return (F.cross_entropy(raw, labels) + F.cross_entropy(masked, labels)) / 2


def regression_loss(boxes: Tensor, pseudo_boxes: Tensor) -> Tensor:
    """Squared distance of boxes (N, 4), the mean over the batch (LCHP Eq. 2), with the 4 coordinates added up as in Eq. 2.

    The text calls it the mean square error, which is a quarter of this; alpha takes up the factor.
    """
    return (boxes - pseudo_boxes.detach()).square().sum(dim=1).mean()


def consistency_loss(predictions: Tensor, targets: Tensor, confidence: Tensor, tau: float) -> Tensor:
    """Squared distance of boxes under strong augmentation, where the confidence is above tau (LCHP Eq. 6).

    The sum over the confident boxes is divided by the whole batch, as in the equation: few confident boxes make a small
    loss. "Above" is strict. What is not above tau contributes neither value nor gradient, and the targets, pseudo labels,
    never carry gradient.

    Args:
        predictions: (N, 4), boxes predicted on the augmented images, x y w h in [0, 1]
        targets: (N, 4), boxes predicted on the images themselves, then augmented as they were
        confidence: (N,), the classifier's maximum probability on the crop of each box
        tau: in [0, 1]

    Returns:
        scalar: squared norms of the 4-vectors, summed and divided by N; 0 if no box is confident

    Raises:
        ValueError: tau outside [0, 1], shapes that do not fit, values that are NaN or infinite

    >>> predictions = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    >>> consistency_loss(predictions, torch.zeros(2, 4), torch.tensor([0.95, 0.9]), tau=0.9)  # 4 * 0.25, by 2
    tensor(0.5000)
    """
    _require_boxes(predictions, targets)
    _require_share("tau", tau)
    _require_confidence(confidence, predictions)
    confident = confidence > tau
    distances = (predictions[confident] - targets.detach()[confident]).square().sum(dim=1)
    return distances.sum() / len(predictions)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of images whose label (N,) has the highest of the scores (N, K); no gradient flows through it."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()


def _require_scores(logits: Tensor, labels: Tensor, alpha: float, k: int) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"expected logits (N, C) and labels (N,) of at least one image, found {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}: give one row of scores and one label an image"
        )
    require_k(k, logits.shape[1])
    _require_share("alpha", alpha)
    _require_finite("logits", logits)
    outside = (labels < 0) | (labels >= logits.shape[1])
    if outside.any():
        raise ValueError(
            f"expected labels in 0 ... {logits.shape[1] - 1}, found {int(labels[outside][0])}: "
            "the labels and the classifier do not belong together"
        )


def _require_pair(maps: Tensor, restored_maps: Tensor) -> None:
    if maps.shape != restored_maps.shape or maps.ndim not in (3, 4) or maps.numel() == 0:
        raise ValueError(
            f"expected maps (N, C, h, w) and as many restored ones of their size, found {tuple(maps.shape)} and "
            f"{tuple(restored_maps.shape)}: bring the maps of the transformed images back to the size of the others first"
        )
    _require_finite("maps", maps)
    _require_finite("restored_maps", restored_maps)


def require_k(k: int, num_classes: int) -> None:
    """ValueError unless 1 <= k <= num_classes."""
    if not 1 <= k <= num_classes:
        raise ValueError(f"expected k in 1 ... {num_classes}, the number of classes, found {k}: choose one in between")


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"expected {name} in [0, 1], found {value}: choose one in between")


def _require_boxes(boxes: Tensor, targets: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.shape != targets.shape or len(boxes) == 0:
        raise ValueError(
            f"expected boxes and their targets (N, 4) with N of at least 1, found {tuple(boxes.shape)} and "
            f"{tuple(targets.shape)}: give one box and one target an image"
        )
    _require_finite("boxes", boxes)
    _require_finite("target boxes", targets)


def _require_confidence(confidence: Tensor, boxes: Tensor) -> None:
    if confidence.shape != boxes.shape[:1]:
        raise ValueError(
            f"expected one confidence for each of {len(boxes)} boxes, found {tuple(confidence.shape)}: "
            "give a tensor (N,)"
        )
    _require_finite("confidence", confidence)


def _require_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(f"expected finite {name}, found NaN or infinite ones: lower the learning rate and start again")
