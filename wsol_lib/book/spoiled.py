"""A teacher whose errors have a dial each: true boxes of training images, spoiled on purpose, for chapter 6.

PSOL (section 5.2) says that a network tolerates wrong training boxes. Whether it can depends on how they are wrong, so here
they are wrong in one of two ways: differently each time (noise), or always the same way (bias).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsol_lib.data import LocalizationDataset
from wsol_lib.localizer import Localizer, Stage


def spoil(boxes: Tensor, image_sizes: Tensor, noise: float, bias: float, seed: int = 0) -> Tensor:
    """Boxes that are boxes still: inside their image, at least a pixel wide.

    Args:
        boxes: (N, 4), xyxy in pixels
        image_sizes: (N, 2), width and height
        noise: standard deviation of what each edge is moved by, in shares of the box's side
        bias: mean share of its sides that a box loses, its centre staying: it keeps between 1 - 2 bias and all of them
        seed: of what is drawn

    Returns:
        (N, 4)

    >>> boxes, sizes = torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([[64, 64]])
    >>> spoil(boxes, sizes, noise=0.0, bias=0.0).tolist()
    [[10.0, 10.0, 30.0, 30.0]]
    """
    generator = torch.Generator().manual_seed(seed)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    kept = half * (1 - 2 * bias * torch.rand(len(boxes), 1, generator=generator))
    moved = torch.cat([middle - kept, middle + kept], dim=1)
    moved += noise * 2 * half.repeat(1, 2) * torch.randn(boxes.shape, generator=generator)
    sizes = image_sizes.to(moved)
    low = torch.minimum(torch.minimum(moved[:, :2], moved[:, 2:]).clamp(min=0), sizes - 1)
    high = torch.minimum(torch.maximum(moved[:, :2], moved[:, 2:]), sizes)
    return torch.cat([low, torch.maximum(high, low + 1)], dim=1)


class Spoiled(Localizer):
    """A teacher that knows the true boxes, gives the first of an image, and spoils it; see :func:`spoil`.

    It knows the images that it was given as ``boxed`` and no others, so it teaches (``boxed`` are the training images) and
    answers nobody else::

        localizers.fit("psol", birds, boxed=birds, teacher="wsol_lib.book.spoiled:Spoiled", teacher_settings={"noise": 0.4})
    """

    supervision = "boxes"
    makes_maps = False
    least_classes = 1

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return {"noise": 0.0, "bias": 0.0}

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        return {}

    def build(self) -> nn.Module:
        return nn.Module()

    @property
    def input_size(self) -> int:
        return self.settings["input_size"] or 224

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        known = [i for i, boxes in enumerate(boxed.boxes) if len(boxes)]
        first = torch.stack([boxed.boxes[i][0] for i in known])
        amounts = {name: self.settings[name] for name in ("noise", "bias", "seed")}
        spoiled = spoil(first, boxed.image_sizes[known], **amounts)
        self.answers = {boxed.image_ids[i]: box for i, box in zip(known, spoiled)}

    def predict_dataset(self, dataset: LocalizationDataset) -> tuple[Tensor, Tensor]:
        """The spoiled boxes (N, 4) of images that it knows, and scores (N,) of 1.

        Raises:
            ValueError: an image that is not among the boxed ones
        """
        unknown = next((name for name in dataset.image_ids if name not in self.answers), None)
        if unknown is not None:
            raise ValueError(
                f"expected images whose boxes are known, found {unknown} without: give the training images as boxed="
            )
        return torch.stack([self.answers[name] for name in dataset.image_ids]), torch.ones(len(dataset))
