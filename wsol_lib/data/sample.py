"""What a data set gives: ``Sample``, one image with everything known about it, and the sequence they come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors


class Sample(NamedTuple):
    """One image with everything known about it.

    A named tuple of tv_tensors, so that a transform of ``torchvision.transforms.v2`` takes the whole sample and moves
    boxes and mask along with the image.

    image: uint8 (3, H, W), RGB
    label: class, 0 ... K - 1
    boxes: float32 (k, 4), xyxy in pixels, edges continuous: the pixel at the origin is [0, 0, 1, 1]
    mask: bool (H, W), True on the object, or None where the data set has no masks
    image_id: the name of the image in its data set
    """

    image: tv_tensors.Image
    label: int
    boxes: tv_tensors.BoundingBoxes
    mask: tv_tensors.Mask | None
    image_id: str


def make_sample(image: Tensor, label: int, boxes: Tensor, mask: Tensor | None, image_id: str) -> Sample:
    """Plain tensors -> ``Sample``; shapes as there."""
    size = tuple(image.shape[-2:])
    return Sample(
        image=tv_tensors.Image(image),
        label=int(label),
        boxes=tv_tensors.BoundingBoxes(boxes.to(torch.float32), format="XYXY", canvas_size=size),
        mask=None if mask is None else tv_tensors.Mask(mask),
        image_id=image_id,
    )


class LocalizationDataset(Dataset):
    """What all data sets share: annotations in memory, images one by one.

    Subclasses give ``_image(i)`` -> uint8 (3, H, W) and, if they have masks, ``_mask(i)`` -> bool (H, W).

    Args:
        name, split: as in ``load_dataset``
        class_names: K names
        labels: int64 (N,), 0 ... K - 1
        boxes: N float32 tensors (k, 4)
        image_sizes: int64 (N, 2), width and height
        image_ids: N names
        transform: applied to each Sample
    """

    def __init__(
        self,
        name: str,
        split: str,
        class_names: tuple[str, ...],
        labels: Tensor,
        boxes: list[Tensor],
        image_sizes: Tensor,
        image_ids: list[str],
        transform: Callable | None = None,
    ):
        outside = (labels < 0) | (labels >= len(class_names))
        if outside.any():
            i = int(outside.nonzero()[0])
            raise ValueError(
                f"expected labels in 0 ... {len(class_names) - 1}, the {len(class_names)} classes of {name}, found "
                f"{int(labels[i])} for image {image_ids[i]}: correct the list of labels"
            )
        self.name, self.split, self.class_names = name, split, class_names
        self.labels, self.boxes, self.image_sizes, self.image_ids = labels, boxes, image_sizes, image_ids
        self.transform = transform

    # What a worker process is sent where it is started anew (macOS, Windows, Python 3.14): a tensor takes a file
    # handle, and the boxes are a hundred thousand of them.
    def __getstate__(self) -> dict:
        return vars(self) | {
            "boxes": (torch.cat([torch.zeros(0, 4), *self.boxes]).numpy(), [len(b) for b in self.boxes])
        }

    def __setstate__(self, state: dict) -> None:
        boxes, counts = state["boxes"]
        vars(self).update(state, boxes=list(torch.from_numpy(boxes).split(counts)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        i = self._checked(index)
        sample = make_sample(self._image(i), self.labels[i], self.boxes[i], self._mask(i), self.image_ids[i])
        return sample if self.transform is None else self.transform(sample)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Images of one size, uint8 (n, 3, H, W), transform not applied: the fast way to run over a data set."""
        return torch.stack([self._image(self._checked(i)) for i in indices])

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, found {index}")
        return index % len(self)

    def _image(self, i: int) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no images")

    def _mask(self, i: int) -> Tensor | None:
        return None
