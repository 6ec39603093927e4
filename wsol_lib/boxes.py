"""From score maps to boxes: normalise, threshold, tight box ("Evaluating WSOL Right", Section 4.1).

A box is xyxy with continuous edges, in pixels of the map: the one pixel at the origin is [0, 0, 1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsol_lib.component_tree import largest_boxes, over_threads

LONGEST_SIDE = 2**15 - 3  # row and column of a pixel are packed into 32 bits


def normalize_score_maps(maps: Tensor, method: str = "min-max") -> Tensor:
    """Map the scores of each map (N, H, W) to [0, 1].

    ``"min-max"``: (s - min) / (max - min), as the evaluation paper always does; a constant map becomes all zeros.
    ``"max"``: s / max, as some earlier papers do; it needs scores >= 0, and a map of zeros stays so.

    Returns float32 (float64 for float64 maps) on the device of ``maps``. Raises ValueError for NaN or infinite scores.
    """
    if method not in ("min-max", "max"):
        raise ValueError(f'expected method "min-max" or "max", found {method!r}')
    maps = as_score_maps(maps)
    _raise_for(~torch.isfinite(maps).flatten(1).all(1), "has NaN or infinite scores; scores must be finite")
    lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    if method == "max":
        _raise_for((lowest < 0).flatten(), 'has negative scores; use ReLU first, or method="min-max"')
        lowest = torch.zeros_like(lowest)
    extent = highest - lowest
    if extent.isinf().any():  # a range may be twice as wide as the largest number: halve such maps, which is exact
        half = torch.where(extent.isinf(), 0.5, 1.0).to(maps)
        maps, lowest, extent = maps * half, lowest * half, highest * half - lowest * half
    return (maps - lowest) / extent.where(extent > 0, 1)


def boxes_from_score_maps(maps: Tensor, threshold: float) -> Tensor:
    """Tight box (N, 4) round the largest 8-connected component of {s >= threshold} in each map (N, H, W) in [0, 1].

    Of equally large components the one whose first pixel comes first, row by row, is taken. A map that stays below the
    threshold everywhere has no box: its row is [0, 0, 0, 0]. Scores and threshold are compared in the precision of the
    maps. The boxes are float32 on the device of ``maps``; maps of one call are shared out over
    ``torch.get_num_threads()`` threads.

    Raises ValueError for scores that are NaN or outside [0, 1], naming the first such map. Maps with a sign and a natural
    zero, as DDT's, go in as the mask ``maps > 0`` with any threshold above 0.

    >>> maps = torch.tensor([[[0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.4, 0.5]]])
    >>> boxes_from_score_maps(maps, 0.3)
    tensor([[2., 1., 4., 2.]])
    >>> boxes_from_score_maps(maps, 0.6)
    tensor([[0., 0., 1., 1.]])
    """
    maps = as_score_maps(maps)
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a threshold in [0, 1], found {threshold}")
    boxes = np.zeros((len(maps), 4), np.float32)
    scores = maps.detach().cpu().contiguous().numpy()
    tau = scores.dtype.type(threshold)
    bad = over_threads(lambda part: largest_boxes(scores[part], tau, boxes[part]), len(scores))
    raise_for_scores(bad)
    return torch.from_numpy(boxes).to(maps.device)


def scale_boxes(boxes: Tensor, here: Sequence[int] | Tensor, there: Sequence[int] | Tensor) -> Tensor:
    """Boxes of one frame in pixels of another: of a map in its image, of a resized image in the image as it was.

    They never leave the new frame: an edge on the border of one is on the border of the other to the last digit (26 cells
    of 448 / 26 pixels each would end at 448.00003), and what lay beyond it is cut off.

    Args:
        boxes: (N, 4), xyxy
        here, there: width and height of both frames, (2,) or (N, 2), one for each box, as ``dataset.image_sizes``

    Returns:
        (N, 4), of the same float type and on the same device

    >>> scale_boxes(torch.tensor([[13.0, 0, 26, 13]]), here=(26, 26), there=(448, 224))
    tensor([[224.,   0., 448., 112.]])
    """
    here, there = (torch.as_tensor(size).to(boxes).expand(len(boxes), 2).repeat(1, 2) for size in (here, there))
    return torch.minimum(boxes * there / here, there).clamp(min=0)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise intersection over union (N, M) of boxes (N, 4) and (M, 4), xyxy with continuous edges.

    A box without area has IoU 0 with everything. Raises ValueError for other shapes and for NaN or infinite edges.

    >>> box_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]]))
    tensor([[1.0000, 0.3333, 0.0000]])
    """
    a, b = (_as_boxes(boxes) for boxes in (a, b))
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    overlap = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - corner).clamp(min=0).prod(-1)
    union = _areas(a)[:, None] + _areas(b)[None] - overlap
    return overlap / union.where(union > 0, 1)


def localized(predicted: Tensor, boxes: Sequence[Tensor], iou_threshold: float = 0.5) -> Tensor:
    """Whether the predicted box of each image reaches the IoU threshold with one of its true boxes: bool (N,).

    ``predicted`` is (N, 4), ``boxes`` N tensors (k, 4), xyxy with continuous edges; the mean over images is GT-known Loc
    ("Evaluating WSOL Right", Eq. 3 at one tau). An image without true boxes is not localized. Raises ValueError for other
    shapes and for more or fewer images with true boxes than with predicted ones.

    >>> truth = [torch.tensor([[0.0, 0, 2, 2], [5, 5, 9, 9]]), torch.tensor([[0.0, 0, 1, 1]])]
    >>> localized(torch.tensor([[5.0, 5, 9, 8], [2, 2, 3, 3]]), truth)
    tensor([ True, False])
    """
    shapes = {tuple(own.shape[1:]) for own in boxes}
    if predicted.ndim != 2 or predicted.shape[1] != 4 or len(boxes) != len(predicted) or shapes - {(4,)}:
        raise ValueError(
            f"expected predicted boxes (N, 4) and as many tensors (k, 4) of true ones, found {tuple(predicted.shape)} and "
            f"{len(boxes)} tensors of rows {sorted(shapes)}: give both for the same images"
        )
    counts = torch.tensor([len(own) for own in boxes], dtype=torch.long)  # said, because of no images it would be float
    image = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    a, b = predicted.double().cpu()[image], torch.cat([torch.zeros(0, 4), *(own.cpu() for own in boxes)]).double()
    corner = torch.maximum(a[:, :2], b[:, :2])
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - corner).clamp(min=0).prod(-1)
    union = _areas(a) + _areas(b) - overlap
    hit = overlap / union.where(union > 0, 1) >= iou_threshold
    return torch.zeros(len(boxes), dtype=torch.bool).index_put((image[hit],), torch.tensor(True))


def as_score_maps(maps: Tensor) -> Tensor:
    """Check the shape (N, H, W) and widen half precision and whole numbers to float32."""
    maps = torch.as_tensor(maps)
    if maps.ndim != 3 or 0 in maps.shape[1:] or max(maps.shape[1:]) > LONGEST_SIDE:
        raise ValueError(
            f"expected score maps of shape (N, H, W) with sides of 1 to {LONGEST_SIDE}, found {tuple(maps.shape)}"
        )
    if maps.is_complex():  # float() would drop a half of it
        raise ValueError(f"expected score maps of real numbers, found {maps.dtype}: take their absolute or real part")
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def raise_for_scores(index: int) -> None:
    """ValueError for the map that a compiled function found fault with; -1 is none."""
    if index >= 0:
        raise ValueError(
            f"score map {index} of the batch has NaN or scores outside [0, 1]; normalize_score_maps brings them there"
        )


def _raise_for(bad: Tensor, rule: str) -> None:
    """ValueError naming the first map for which the (N,) flags are set, and the rule it breaks."""
    if bad.any():
        raise ValueError(f"score map {int(bad.nonzero()[0])} of the batch {rule}")


def _as_boxes(boxes: Tensor) -> Tensor:
    """Check the shape (N, 4) and the edges, and turn whole numbers into float32."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes of shape (N, 4), found {tuple(boxes.shape)}: one row of x1, y1, x2, y2 a box")
    bad = ~torch.isfinite(boxes).all(1)
    if bad.any():
        raise ValueError(
            f"expected boxes with finite edges, found {boxes[bad][0].tolist()} in row {int(bad.nonzero()[0])}: correct it"
        )
    return boxes if boxes.is_floating_point() else boxes.float()


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
