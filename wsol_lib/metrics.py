"""Metrics of WSOL: how well score maps or boxes find the object ("Evaluating WSOL Right", Section 4.1).

All are :class:`torchmetrics.Metric`: ``update`` with one batch after the other, then ``compute``. Their states are sums
of counts, over batches and over processes; none grows with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from wsol_lib.boxes import as_score_maps, boxes_from_score_maps, localized, normalize_score_maps, raise_for_scores
from wsol_lib.component_tree import count_hits, over_threads

PROTOCOLS = ("paper", "wsolevaluation")
LOCALIZATION_NAMES = ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "top5_cls")
PXAP_LEVELS = 1001
ROUNDING = 1e-3  # pixels by which scaling in float32 may carry the edge of a box over the edge of the map


class _Counts(Metric):
    """What the metrics here have in common: sums as states, so batches and processes may be cut anywhere."""

    full_state_update = False
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _raise_if_empty(self) -> None:
        if self.total == 0:
            raise ValueError(f"{type(self).__name__} has seen no image: call update before compute or curve")


class _BoxCurve(_Counts):
    """Box accuracy over tau, for one or more IoU thresholds: what MaxBoxAcc and MaxBoxAccV2 share."""

    higher_is_better = True
    is_differentiable = False
    hits: Tensor

    def __init__(self, iou_thresholds: Sequence[float], protocol: str, every_component: bool) -> None:
        super().__init__()
        _check_iou_thresholds(iou_thresholds)
        if protocol not in PROTOCOLS:
            raise ValueError(f"expected protocol to be one of {PROTOCOLS}, found {protocol!r}")
        self.protocol = protocol
        self.every_component = every_component
        # that code's own grid: numpy's arange, whose products of 0.001 differ from i / 1000 in the last digit
        self.taus = np.arange(1001) / 1000 if protocol == "paper" else np.arange(0, 1, 0.001)
        self.add_state(
            "hits", torch.zeros(len(iou_thresholds), len(self.taus), dtype=torch.int64), dist_reduce_fx="sum"
        )
        self.iou_thresholds = np.asarray(iou_thresholds, np.float64)

    def update(self, score_maps: Tensor, boxes: Sequence[Tensor]) -> None:
        """Count one batch.

        Args:
            score_maps: (N, H, W) in [0, 1], see :func:`wsol_lib.boxes.normalize_score_maps`; they are not normalised
                here. Maps on a GPU are copied to the CPU, where ``torch.get_num_threads()`` threads share the batch.
            boxes: N tensors (k, 4), k >= 1: the ground truth of each image, xyxy in pixels of the map. A hit on any of
                an image's boxes is a hit.

        Raises:
            ValueError: naming the image and the rule, for wrong shapes, scores that are NaN or outside [0, 1], an image
                without boxes, boxes without area or not inside the map. Nothing of such a batch is counted.
        """
        score_maps = as_score_maps(score_maps)
        targets, first_target = _targets(boxes, len(score_maps), score_maps.shape[-2:])
        public = self.protocol == "wsolevaluation"
        if public:
            # whole pixels, both ends counted: as continuous edges, the right and lower one a pixel further
            targets = np.trunc(targets) + np.array([0, 0, 1, 1])
        scores = score_maps.detach().cpu().contiguous().numpy()
        order = np.argsort(self.iou_thresholds)

        parts: list[np.ndarray] = []

        def count(part: slice) -> int:
            hits = np.zeros(self.hits.shape, np.int64)
            parts.append(hits)
            first = first_target[part.start : part.stop + 1]
            return count_hits(
                scores[part], targets, first, self.taus, self.iou_thresholds[order], public, self.every_component, hits
            )

        raise_for_scores(over_threads(count, len(scores)))
        self.hits[order] += torch.from_numpy(sum(parts)).to(self.hits.device)
        self.total += len(scores)

    def _accuracies(self) -> Tensor:
        """BoxAcc (IoU thresholds, taus), float64."""
        self._raise_if_empty()
        return self.hits.cpu().double() / self.total.cpu()

    def _synced_accuracies(self) -> Tensor:
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return self._accuracies()


class MaxBoxAcc(_BoxCurve):
    """Box accuracy of the largest component at the best single tau: max over tau of BoxAcc(tau, delta), Eq. 3.

    At every tau each image gives one box, round the largest connected component of {s >= tau}; BoxAcc(tau) is the share
    of images whose box has IoU >= delta with at least one of their true boxes. The maximum is taken afterwards, over
    the one curve of the whole data set. It is *not* the share of images that some tau of their own gets right.

    Three maps of one row make the difference. Each has its true box at a score of its own:

    >>> maps = torch.tensor([[[1.0, 0.7, 0.7, 0.0]], [[1.0, 0.4, 0.4, 0.0]], [[1.0, 0.4, 0.0, 0.0]]])
    >>> truth = [torch.tensor([[0.0, 0, 3, 1]]), torch.tensor([[0.0, 0, 3, 1]]), torch.tensor([[0.0, 0, 1, 1]])]
    >>> metric = MaxBoxAcc(iou_threshold=0.9)
    >>> metric.update(maps, truth)
    >>> thresholds, accuracy = metric.curve()
    >>> for tau in (0.3, 0.5, 0.8):
    ...     print(f"tau {tau}: {accuracy[thresholds == tau].item():.2f}")
    tau 0.3: 0.67
    tau 0.5: 0.67
    tau 0.8: 0.33

    The first map is right up to tau 0.7, the second up to 0.4, the third from there on. For every image there is a tau
    that suits it, but none suits all three:

    >>> metric.compute()
    tensor(0.6667)

    Args:
        iou_threshold: delta, in (0, 1].
        protocol: ``"paper"`` reads a map as the paper's text does: mask {s >= tau} for tau = i / 1000, i = 0 ... 1000,
            scores and tau compared in the precision of the maps; 8-connected components; area in pixels; of equal areas
            the component whose first pixel comes first, row by row; IoU with continuous edges. A mask without pixels
            is a miss. ``"wsolevaluation"`` gives what the authors' public code gives with OpenCV's contours: scores
            truncated to 8 bits, mask {s > int(tau * max)} for tau = 0, 0.001 ... 0.999; area of the polygon through
            the border pixels, of equal areas the component whose first pixel comes last; right and lower edge one past
            the last pixel, clipped to the last pixel of the map; true boxes truncated to whole pixels; areas in the IoU
            that count both ends; the pixel in the corner for a map of zeros.
    """

    def __init__(self, iou_threshold: float = 0.5, protocol: str = "paper") -> None:
        super().__init__((iou_threshold,), protocol, every_component=False)

    def compute(self) -> Tensor:
        """The largest value of :meth:`curve`, a scalar in [0, 1]."""
        return self._accuracies().max().float()

    def curve(self) -> tuple[Tensor, Tensor]:
        """(thresholds, box accuracy), both (T,): BoxAcc at every tau."""
        return torch.from_numpy(self.taus).float(), self._synced_accuracies()[0].float()

    def best_tau(self) -> float:
        """The tau of :meth:`compute`; of several the lowest."""
        return float(self.taus[self._synced_accuracies()[0].argmax()])


class MaxBoxAccV2(_BoxCurve):
    """MaxBoxAcc for all components, mean over several IoU thresholds (Section 4.1, "Better box evaluation").

    At every tau an image is right if the box round *any* connected component has IoU >= delta with any of its true
    boxes. Each delta takes the maximum over its own curve, so each may have another best tau; the result is the mean.

    ``protocol`` as for :class:`MaxBoxAcc`; in ``"wsolevaluation"`` the borders of holes count as components too.
    """

    def __init__(self, iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7), protocol: str = "paper") -> None:
        super().__init__(tuple(iou_thresholds), protocol, every_component=True)

    def compute(self) -> Tensor:
        """Mean over the IoU thresholds of the largest value of their curves, a scalar in [0, 1]."""
        return self._accuracies().amax(1).mean().float()

    def curve(self) -> tuple[Tensor, Tensor]:
        """(thresholds (T,), box accuracy (D, T)): one row for each IoU threshold, in the order given."""
        return torch.from_numpy(self.taus).float(), self._synced_accuracies().float()

    def best_tau(self) -> tuple[float, ...]:
        """For each IoU threshold the tau of the largest value; of several the lowest."""
        return tuple(float(self.taus[best]) for best in self._synced_accuracies().argmax(1))


class BoxAcc(_Counts):
    """Box accuracy at one fixed tau: what papers printed before MaxBoxAcc, as GT-known Loc or CorLoc.

    The box is the one round the largest component of {s >= tau * max(s)}, map by map; tau = 0.2 is the rule of CAM and
    of most that came after it. Its weakness is the subject of Section 5.3: tau suits one method more than another.
    """

    higher_is_better = True
    is_differentiable = False
    correct: Tensor

    def __init__(self, tau: float = 0.2, iou_threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise ValueError(f"expected tau in [0, 1], found {tau}")
        _check_iou_thresholds((iou_threshold,))
        self.tau, self.iou_threshold = tau, iou_threshold
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, score_maps: Tensor, boxes: Sequence[Tensor]) -> None:
        """Count one batch: arguments and errors as for :class:`MaxBoxAcc`."""
        score_maps = as_score_maps(score_maps)
        _targets(boxes, len(score_maps), score_maps.shape[-2:])
        _raise_for_range(score_maps)
        predicted = boxes_from_score_maps(normalize_score_maps(score_maps, "max"), self.tau)
        self.correct += localized(predicted, boxes, self.iou_threshold).sum().to(self.correct.device)
        self.total += len(score_maps)

    def compute(self) -> Tensor:
        """Share of the images whose box is right, a scalar in [0, 1]."""
        self._raise_if_empty()
        return self.correct / self.total


CorLoc = BoxAcc


class LocalizationAccuracy(_Counts):
    """Accuracy of one predicted box an image, alone and together with the class: GT-known, Top-1 and Top-5 Loc.

    A box is right if its IoU with one of the true boxes reaches the threshold. Top-k Loc asks for a right box and the
    true class among the k highest logits; of equal logits the lower class index ranks higher.
    """

    higher_is_better = True
    is_differentiable = False
    correct: Tensor

    def __init__(self, iou_threshold: float = 0.5) -> None:
        super().__init__()
        _check_iou_thresholds((iou_threshold,))
        self.iou_threshold = iou_threshold
        self.add_state("correct", torch.zeros(len(LOCALIZATION_NAMES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, boxes: Tensor, logits: Tensor, target_boxes: Sequence[Tensor], labels: Tensor) -> None:
        """Count one batch.

        Args:
            boxes: (N, 4) predicted, xyxy; a box without area is a miss.
            logits: (N, K) class scores.
            target_boxes: N tensors (k, 4), k >= 1, in the same pixels as ``boxes``.
            labels: (N,) true classes in 0 ... K - 1.

        Raises:
            ValueError: naming the image and the rule, for wrong shapes, NaN, labels out of range, a predicted box whose
                right or lower edge lies before the left or upper one, true boxes that are missing or have no area.
        """
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"expected predicted boxes of shape (N, 4), found {tuple(boxes.shape)}")
        if logits.ndim != 2 or labels.ndim != 1 or not len(boxes) == len(logits) == len(labels):
            raise ValueError(
                f"expected logits (N, K) and labels (N,) for {len(boxes)} boxes, "
                f"found {tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        _targets(target_boxes, len(boxes), None)
        _raise_for(~torch.isfinite(boxes).all(1), "its predicted box has NaN or infinite edges")
        _raise_for(
            (boxes[:, 2:] < boxes[:, :2]).any(1), "its predicted box is not xyxy: an edge lies before its opposite"
        )
        _raise_for(torch.isnan(logits).any(1), "its logits have NaN")
        _raise_for((labels < 0) | (labels >= logits.shape[1]), f"its label is not in 0 ... {logits.shape[1] - 1}")
        labels = labels.to(logits.device)[:, None]
        own = logits.gather(1, labels)
        ahead = (logits > own) | (logits == own) & (torch.arange(logits.shape[1], device=logits.device) < labels)
        place = ahead.sum(1).to(self.correct.device)
        located = localized(boxes, target_boxes, self.iou_threshold).to(self.correct.device)
        self.correct += torch.stack([located, located & (place < 1), located & (place < 5), place < 1, place < 5]).sum(
            1
        )
        self.total += len(boxes)

    def compute(self) -> dict[str, Tensor]:
        """Shares of the images in [0, 1]: ``gt_known_loc, top1_loc, top5_loc, top1_cls, top5_cls``."""
        self._raise_if_empty()
        return dict(zip(LOCALIZATION_NAMES, self.correct / self.total))


class PxAP(_Counts):
    """Pixel average precision: area under the pixel precision-recall curve of a whole data set (Eq. 1 and 2).

    Pixels of all images go into one histogram of the thresholds tau_l = l / 1000, l = 0 ... 1000, and
    PxAP = sum over l, from the highest tau down, of PxPrec(tau_l) (PxRec(tau_l) - PxRec(tau_(l + 1))): average
    precision of the scores rounded down to the grid, without interpolation. It runs on the device of the maps.
    """

    higher_is_better = True
    is_differentiable = False
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pixels", torch.zeros(2, PXAP_LEVELS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, score_maps: Tensor, masks: Tensor, ignore: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            score_maps: (N, H, W) in [0, 1].
            masks: (N, H, W) bool, True where the object is.
            ignore: (N, H, W) bool, True where a pixel is not counted, whatever the mask says; None counts all.

        Raises:
            ValueError: naming the image and the rule, for wrong shapes or types, or scores that are NaN or outside
                [0, 1].
        """
        score_maps = as_score_maps(score_maps)
        for name, given in (("masks", masks), ("ignore", ignore)):
            if given is not None and (given.shape != score_maps.shape or given.dtype != torch.bool):
                raise ValueError(
                    f"expected {name} bool of shape {tuple(score_maps.shape)}, found {given.dtype} {tuple(given.shape)}"
                )
        _raise_for_range(score_maps)
        scores, masks = score_maps.detach().flatten(), masks.to(score_maps.device).flatten()
        last = PXAP_LEVELS - 1
        taus = (torch.arange(PXAP_LEVELS, dtype=torch.float64) / last).to(scores)
        levels = (scores * last).int()  # one off at most, where the product was rounded
        levels -= (taus.index_select(0, levels) > scores).int()
        levels += ((taus.index_select(0, (levels + 1).clamp(max=last)) <= scores) & (levels < last)).int()
        levels.add_(masks, alpha=PXAP_LEVELS)
        if ignore is not None:
            levels.masked_fill_(ignore.to(levels.device).flatten(), 2 * PXAP_LEVELS)
        counts = torch.bincount(levels, minlength=2 * PXAP_LEVELS)[: 2 * PXAP_LEVELS].view(2, PXAP_LEVELS)
        self.pixels += counts.to(self.pixels.device)
        self.total += len(score_maps)

    def compute(self) -> Tensor:
        """PxAP, a scalar in [0, 1]; ValueError if no counted pixel of any image is foreground."""
        _, precision, recall = self._precision_recall()
        return (precision * recall.diff(append=recall.new_zeros(1)).neg()).sum().float()

    def curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """(thresholds, precision, recall), each (1001,), thresholds rising; precision is 1 where no pixel is left."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return tuple(column.float() for column in self._precision_recall())

    def _precision_recall(self) -> tuple[Tensor, Tensor, Tensor]:
        self._raise_if_empty()
        background, foreground = self.pixels.cpu().flip(1).cumsum(1).flip(1).double()
        if foreground[0] == 0:
            raise ValueError("PxAP needs foreground: no counted pixel of any mask is set")
        kept = foreground + background
        precision = torch.where(kept > 0, foreground / kept.clamp(min=1), 1.0)
        thresholds = torch.arange(PXAP_LEVELS, dtype=torch.float64) / (PXAP_LEVELS - 1)
        return thresholds, precision, foreground / foreground[0]


def _check_iou_thresholds(iou_thresholds: Sequence[float]) -> None:
    if not len(iou_thresholds) or not all(0 < threshold <= 1 for threshold in iou_thresholds):
        raise ValueError(f"expected IoU thresholds in (0, 1], found {tuple(iou_thresholds)}")


def _targets(boxes: Sequence[Tensor], number: int, shape: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """True boxes of a batch end to end, (K, 4) float64, and where those of each image start, (N + 1,)."""
    if len(boxes) != number:
        raise ValueError(f"expected the true boxes of {number} images, found {len(boxes)}")
    boxes = [torch.as_tensor(own) for own in boxes]
    for image, own in enumerate(boxes):
        if own.ndim != 2 or own.shape[1] != 4 or len(own) == 0:
            raise ValueError(
                f"image {image} of the batch: expected true boxes of shape (k, 4) with k >= 1, found {tuple(own.shape)}"
            )
    first = np.cumsum([0] + [len(own) for own in boxes])
    if not number:
        return np.zeros((0, 4)), first
    every = torch.cat([own.detach().cpu().double() for own in boxes]).numpy()
    rules = {
        "a true box has NaN or infinite edges": ~np.isfinite(every).all(1),
        "a true box has no area": (every[:, 2:] <= every[:, :2]).any(1),
    }
    if shape is not None:
        outside = (every[:, :2] < -ROUNDING).any(1) | (every[:, 2:] > np.array(shape)[::-1] + ROUNDING).any(1)
        rules[f"a true box is not inside the map of {shape[1]} x {shape[0]} pixels"] = outside
    for rule, broken in rules.items():
        if broken.any():
            row = int(broken.argmax())
            image = int(np.searchsorted(first, row, side="right")) - 1
            raise ValueError(f"image {image} of the batch: {rule}: {every[row].tolist()}")
    return every, first


def _raise_for(broken: Tensor, rule: str) -> None:
    if broken.any():
        raise ValueError(f"image {int(broken.nonzero()[0])} of the batch: {rule}")


def _raise_for_range(score_maps: Tensor) -> None:
    lowest, highest = score_maps.flatten(1).aminmax(dim=1)  # NaN if any score is
    inside = (lowest >= 0) & (highest <= 1)
    if not inside.all():
        raise_for_scores(int((~inside).nonzero()[0]))
