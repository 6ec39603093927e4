"""Images that live on the GPU: Tiny-ImageNet and SynthBirds go there once, and batches are cropped and mirrored there.

For who learns from labels. What is drawn at random is drawn on the CPU, in the order of ``dataset.batch``, so both see the same
crops and the same mirror images; but for resizing, which is a level of 255 off here and there, they are the same to the last bit.
The same code runs on the CPU, where it saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from wsol_lib.data.sample import LocalizationDataset
from wsol_lib.data.transforms import INTERPOLATION, WithoutLostBoxes, resize_images

#: kinds of devices to which images are moved, and the largest share of a GPU's memory that they may take
DEVICES, SHARE = ("cuda",), 0.25
CHUNK = 1000  # images moved at once


class Views(NamedTuple):
    """What a transform does to an image, in this order: resized to (height, width), cropped to a size, mirrored now and then."""

    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    flip: float | None = None


def views_of(transform: Callable | None) -> Views | None:
    """
    >>> views_of(v2.Compose([v2.RandomCrop(24), v2.RandomHorizontalFlip()]))
    Views(size=None, crop=(24, 24), flip=0.5)

    None for a transform that does anything else.
    """
    steps = [step for step in _in_sequence(transform) if type(step) not in (v2.ClampBoundingBoxes, WithoutLostBoxes)]
    found = Views()
    for step in steps:
        if type(step) is v2.Resize and found == Views() and step.interpolation == INTERPOLATION and len(step.size) == 2:
            found = found._replace(size=tuple(step.size))
        elif type(step) is v2.RandomCrop and found[1:] == (None, None) and not (step.padding or step.pad_if_needed):
            found = found._replace(crop=tuple(step.size))
        elif type(step) is v2.RandomHorizontalFlip and found.flip is None:
            found = found._replace(flip=step.p)
        else:
            return None
    return found


def _in_sequence(transform: Callable | None) -> list[Callable]:
    if type(transform) is v2.Compose:
        return [step for part in transform.transforms for step in _in_sequence(part)]
    return [] if transform is None else [transform]


def on_device(dataset: LocalizationDataset, device: torch.device) -> OnDevice | None:
    """The data set's images on the device; None where they stay where they are.

    They move to a GPU, if they are one array in memory that takes at most ``SHARE`` of its memory, and if the transform resizes,
    crops and mirrors at most, as those of :class:`wsol_lib.localizer.Localizer` do for methods that learn from labels.
    """
    plain, own = LocalizationDataset, type(dataset)
    known = isinstance(dataset, plain) and all(
        getattr(own, name) is getattr(plain, name) for name in ("__getitem__", "__getitems__", "batch")
    )
    if device.type not in DEVICES or not known or not len(dataset) or views_of(dataset.transform) is None:
        return None
    first = dataset._read([0])
    if not isinstance(first, Tensor):  # files
        return None
    return OnDevice(dataset, device) if len(dataset) * first[0].numel() <= SHARE * memory_of(device) else None


def memory_of(device: torch.device) -> float:
    """All bytes of a GPU; without end for others."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else float("inf")


class OnDevice:
    """See :func:`on_device`, which makes them.

    Args:
        dataset: its images are one array, its transform one of which :func:`views_of` knows
        device: where they go
    """

    def __init__(self, dataset: LocalizationDataset, device: torch.device):
        self.device, self.views, self.labels = device, views_of(dataset.transform), dataset.labels.to(device)
        chunks = torch.arange(len(dataset)).split(CHUNK)
        # channels last, as the networks want them
        self.images = torch.cat([dataset.images(chunk.tolist()).to(device).permute(0, 2, 3, 1) for chunk in chunks])

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Images (n, 3, H, W) as the transform gives them, uint8, and labels (n,), both on the device."""
        places = torch.tensor(indices).to(self.device, non_blocking=True)
        images = self.images[places]
        if self.views.size is not None:
            images = resize_images(images.permute(0, 3, 1, 2), self.views.size).permute(0, 2, 3, 1)
        if self.views.crop is not None or self.views.flip is not None:
            images = self._cut(images)
        return images.permute(0, 3, 1, 2), self.labels[places]

    def _cut(self, images: Tensor) -> Tensor:
        """Crops and mirror images of (n, H, W, 3), drawn for one image after the other, as torchvision does."""
        size = tuple(images.shape[1:3])
        crop = self.views.crop or size
        drawn = []
        for _ in range(len(images)):
            corner = [int(torch.randint(0, own - cut + 1, ())) if own > cut else 0 for own, cut in zip(size, crop)]
            mirrored = self.views.flip is not None and bool(torch.rand(1) < self.views.flip)
            drawn.append([*corner, int(mirrored)])
        top, left, mirrored = torch.tensor(drawn).to(self.device, non_blocking=True).T[..., None]
        rows, columns = (torch.arange(side, device=self.device) for side in crop)
        columns = left + torch.where(mirrored > 0, columns.flip(0), columns)
        number = torch.arange(len(images), device=self.device)[:, None, None]
        return images[number, (top + rows)[:, :, None], columns[:, None, :]]
