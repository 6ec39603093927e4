"""Which part of a painted bird a score map favours, and boxes of which size come of it (chapter 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsol_lib.data.synthbirds import SynthBirds


def on_mark(maps: Tensor, birds: SynthBirds) -> float:
    """How a map scores the part that tells the species apart: mean score there over the mean score on the whole bird.

    1 means that the map does not care for that part.

    Args:
        maps: (N, H, W) in [0, 1], of all images of ``birds``, in their size

    Returns:
        the mean over the images in which the part is seen
    """
    ratios = []
    for i, scores in enumerate(maps):
        cues = birds.cue_masks(i)
        mark = cues[birds.diagnostic_part_of_class[int(birds.labels[i])]]
        if mark.any():
            ratios.append(scores[mark].mean() / scores[torch.stack(list(cues.values())).any(dim=0)].mean())
    return torch.stack(ratios).mean().item()


def side_ratio(boxes: Tensor, truth: Sequence[Tensor]) -> float:
    """How large boxes are: the root of their area over that of the true box, median over the images.

    Args:
        boxes: (N, 4), xyxy
        truth: N tensors (1, 4)
    """
    first, second = ((own[:, 2:] - own[:, :2]).prod(dim=1) for own in (boxes, torch.cat(list(truth))))
    return (first / second).sqrt().median().item()
