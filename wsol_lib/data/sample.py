"""What a data set gives: ``Sample``, one image with everything known about it, and the sequence they come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2


class Sample(NamedTuple):
    """One image with everything known about it.

    A named tuple of tv_tensors, so that a transform of ``torchvision.transforms.v2`` takes the whole sample and moves
    boxes and mask along with the image.

    image: uint8 (3, H, W), RGB
    label: class, 0 ... K - 1
    boxes: float32 (k, 4), xyxy in pixels, edges continuous: the pixel at the origin is [0, 0, 1, 1]
    mask: bool (H, W), True on the object, or None where the data set has no masks
    image_id: the name of the image in its data set
    ignore: bool (H, W), True on pixels that are not counted, never where ``mask`` is; None counts all
    """

    image: tv_tensors.Image
    label: int
    boxes: tv_tensors.BoundingBoxes
    mask: tv_tensors.Mask | None
    image_id: str
    ignore: tv_tensors.Mask | None = None


class Batch(NamedTuple):
    """Some samples at once, their images of one size; plain tensors.

    images: uint8 (n, 3, H, W)
    labels: int64 (n,)
    boxes: n tensors float32 (k, 4)
    masks: bool (n, H, W), or None where the data set has none
    image_ids: n names
    ignore: bool (n, H, W), or None
    """

    images: Tensor
    labels: Tensor
    boxes: list[Tensor]
    masks: Tensor | None
    image_ids: list[str]
    ignore: Tensor | None = None


def make_sample(
    image: Tensor, label: int, boxes: Tensor, mask: Tensor | None, image_id: str, ignore: Tensor | None = None
) -> Sample:
    """Plain tensors -> ``Sample``; shapes as there. What is both object and ignored counts as object."""
    size = tuple(image.shape[-2:])
    if ignore is not None and mask is not None:
        ignore = ignore & ~mask
    return Sample(
        image=tv_tensors.Image(image),
        label=int(label),
        boxes=tv_tensors.BoundingBoxes(boxes.to(torch.float32), format="XYXY", canvas_size=size),
        mask=None if mask is None else tv_tensors.Mask(mask),
        image_id=image_id,
        ignore=None if ignore is None else tv_tensors.Mask(ignore),
    )


def resized_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask (H, W) at another size (height, width), nearest pixel: exactly OpenCV's choice, which the public code uses.

    Rounding is part of it: pixel x comes from floor(x * (1 / (new / old))) in float64, which now and then is one less
    than x * old // new.
    """
    if tuple(mask.shape) == tuple(size):
        return mask
    rows, columns = (
        (torch.arange(new, dtype=torch.float64) * (1 / (new / old))).long().clamp(max=old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


class LocalizationDataset(Dataset):
    """What all data sets share: annotations in memory, images one by one.

    Subclasses give ``_image(i)`` -> uint8 (3, H, W) and, if they have masks, ``_mask(i)`` -> bool (H, W); where parts of
    an image are not to be judged, they override ``masks``.

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
        return len(self.image_ids)  # of a tensor it takes ten times as long, and each access asks for it

    def __getitem__(self, index: int) -> Sample:
        i = self._checked(index)
        return self._sample(i, self._image(i))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples, for PyTorch's DataLoader, which asks for this: where images are in one array, it is read once."""
        if type(self).__getitem__ is not LocalizationDataset.__getitem__:  # somebody's who makes samples in another way
            return [self[i] for i in indices]
        places = self._places(indices)
        return [self._sample(i, image) for i, image in zip(places, self._read(places), strict=True)]

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several samples as one: what ``[i]`` gives for each of ``indices``, one after the other, to the last random draw.

        Without a transform, or with random horizontal flips alone, nothing is done for each sample by itself; this is the
        fast way to train. With another transform samples are made and stacked. Their images have to be of one size.
        """
        chance, own = _chance_of_flip(self.transform), type(self)
        plain = LocalizationDataset.__getitem__, LocalizationDataset.__getitems__
        if chance is None or (own.__getitem__, own.__getitems__) != plain:
            return _stacked(self.__getitems__(indices))
        images, places = self.images(indices), self._places(indices)
        masks, ignore = self._batch_of_masks(places, tuple(images.shape[-2:]))
        boxes, names = [self.boxes[i] for i in places], [self.image_ids[i] for i in places]
        batch = Batch(images, self.labels[places], boxes, masks, names, ignore)
        if self.transform is None:
            return batch
        drawn = torch.cat([torch.rand(1) for _ in places])  # as the transform draws for one sample after the other
        return _flipped(batch, drawn < chance)

    def _batch_of_masks(self, places: list[int], size: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        first = self.masks(places[0], size)
        if first[0] is None and first[1] is None:  # then no image has one
            return first
        return _stacked_masks([first, *(self.masks(i, size) for i in places[1:])])

    def _sample(self, i: int, image: Tensor) -> Sample:
        mask, ignore = self.masks(i, tuple(image.shape[-2:]))
        sample = make_sample(image, self.labels[i], self.boxes[i], mask, self.image_ids[i], ignore)
        return sample if self.transform is None else self.transform(sample)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Images of one size, uint8 (n, 3, H, W), transform not applied: the fast way to run over a data set."""
        images = self._read(self._places(indices))
        return images if isinstance(images, Tensor) else torch.stack(list(images))

    def masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Mask of the object and of what is not counted, bool ``size`` (height, width), nearest pixel; None for none."""
        mask = self._mask(self._checked(index))
        return None if mask is None else resized_mask(mask, size), None

    @property
    def images_per_class(self) -> Tensor:
        """int64 (K,)"""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, found {index}")
        return index % len(self)

    def _places(self, indices: Sequence[int]) -> list[int]:
        """``_checked`` of all of them, in a tenth of the time."""
        places = np.asarray(indices)
        outside = (places < -len(self)) | (places >= len(self))
        if outside.any():
            self._checked(int(places[outside][0]))
        return (places % len(self)).tolist()

    def _image(self, i: int) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no images")

    def _read(self, places: list[int]) -> Tensor | Iterable[Tensor]:
        """Images one after the other, none waiting for others; where they are in one array, a new tensor (n, 3, H, W)."""
        return (self._image(i) for i in places)

    def _mask(self, i: int) -> Tensor | None:
        return None


def _chance_of_flip(transform: Callable | None) -> float | None:
    """How often a transform mirrors a sample, if it does nothing else; None for any other one."""
    while type(transform) is v2.Compose and len(transform.transforms) == 1:
        transform = transform.transforms[0]
    if transform is None:
        return 0.0
    return transform.p if type(transform) is v2.RandomHorizontalFlip else None


def _flipped(batch: Batch, flags: Tensor) -> Batch:
    """A batch, some of its samples (bool (n,)) mirrored; to the last bit what v2.RandomHorizontalFlip does to each of them."""
    masks, ignore = (
        None if own is None else torch.where(flags[:, None, None], own.flip(-1), own)
        for own in (batch.masks, batch.ignore)
    )
    chosen = flags.nonzero()[:, 0].numpy()
    images = np.array(batch.images.numpy(), order="C")  # numpy copies whole images by index, torch pixel by pixel
    images[chosen] = torch.from_numpy(images[chosen]).flip(-1).numpy()
    counts, boxes = [own.shape[0] for own in batch.boxes], torch.cat(batch.boxes)
    mirrored = boxes.clone()
    mirrored[:, [2, 0]] = (boxes[:, [0, 2]] - images.shape[-1]).neg()
    boxes = torch.where(flags.repeat_interleave(torch.tensor(counts))[:, None], mirrored, boxes)
    return batch._replace(images=torch.from_numpy(images), boxes=list(boxes.split(counts)), masks=masks, ignore=ignore)


def _stacked(samples: Sequence[Sample]) -> Batch:
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in samples])
    masks, ignore = _stacked_masks([(sample.mask, sample.ignore) for sample in samples])
    boxes, names = [sample.boxes.as_subclass(Tensor) for sample in samples], [sample.image_id for sample in samples]
    return Batch(images, torch.tensor([sample.label for sample in samples]), boxes, masks, names, ignore)


def _stacked_masks(pairs: Sequence[tuple[Tensor | None, Tensor | None]]) -> tuple[Tensor | None, Tensor | None]:
    """Masks and what is ignored of some images, (n, H, W) each, or None; what is both counts as object."""
    masks, ignore = (
        None if own[0] is None else torch.stack([one.as_subclass(Tensor) for one in own]) for own in zip(*pairs)
    )
    return masks, ignore if masks is None or ignore is None else ignore & ~masks


class Subset(LocalizationDataset):
    """Some images of a data set, in a given order, with the annotations to them.

    Args:
        dataset: where they are from; it stays reachable as ``.dataset``
        indices: their places in it, kept as ``.indices``
    """

    def __init__(self, dataset: LocalizationDataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, [dataset._checked(i) for i in indices]
        super().__init__(
            name=dataset.name,
            split=dataset.split,
            class_names=dataset.class_names,
            labels=dataset.labels[self.indices],
            boxes=[dataset.boxes[i] for i in self.indices],
            image_sizes=dataset.image_sizes[self.indices],
            image_ids=[dataset.image_ids[i] for i in self.indices],
            transform=dataset.transform,
        )

    def _image(self, i: int) -> Tensor:
        return self.dataset._image(self.indices[i])

    def _read(self, places: list[int]) -> Tensor | Iterable[Tensor]:
        return self.dataset._read([self.indices[i] for i in places])

    def masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        return self.dataset.masks(self.indices[index], size)


class LabelsOnly(Subset):
    """A data set of which nothing but images and labels can be seen: what weak supervision is.

    Args:
        dataset: its boxes and masks are not touched
    """

    def __init__(self, dataset: LocalizationDataset):
        self.dataset, self.indices = dataset, list(range(len(dataset)))
        LocalizationDataset.__init__(
            self,
            name=dataset.name,
            split=dataset.split,
            class_names=dataset.class_names,
            labels=dataset.labels,
            boxes=[torch.zeros(0, 4)] * len(dataset),
            image_sizes=dataset.image_sizes,
            image_ids=dataset.image_ids,
            transform=dataset.transform,
        )

    def masks(self, index: int, size: tuple[int, int]) -> tuple[None, None]:
        return None, None


def limited_per_class(dataset: LocalizationDataset, limit: int, seed: int = 0) -> Subset:
    """At most ``limit`` images of each class, drawn by ``seed``, in the order of the data set.

    For "how much full supervision is enough?" ("Evaluating WSOL Methods Right", section 5.5 and Fig. 8, which averages
    three draws). A class that has fewer gives all it has: CUBV2 has 3 to 6 images a class. A larger limit of the same
    seed holds the images of a smaller one.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"expected limit_per_class as a whole number from 1 up, found {limit!r}: correct it")
    return Subset(dataset, torch.cat([own[:limit] for own in drawn_per_class(dataset, seed)]).sort().values.tolist())


def drawn_per_class(dataset: LocalizationDataset, seed: int = 0) -> tuple[Tensor, ...]:
    """The places of each class's images, int64 (n,) a class, in an order drawn by ``seed``."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return order[torch.argsort(dataset.labels[order], stable=True)].split(dataset.images_per_class.tolist())


def scaled_boxes(dataset: LocalizationDataset, i: int, shape: tuple[int, int]) -> Tensor:
    """True boxes of image i in pixels of a map of ``shape`` (height, width), float64 (k, 4).

    First multiplied, then divided, so that they are the public code's to the last bit.
    """
    height, width = shape
    boxes, size = dataset.boxes[i].double(), dataset.image_sizes[i]
    if len(boxes) and not size.all():
        raise ValueError(
            f"expected the size of every image of {dataset.name} {dataset.split} to scale its boxes, found none for "
            f"{dataset.image_ids[i]}: put the images or the public lists below the data root"
        )
    if len(boxes) == 0:
        raise ValueError(
            f"expected boxes for every image of {dataset.name} {dataset.split}, found none for {dataset.image_ids[i]}: "
            "choose another split, or the metric PxAP where there are masks"
        )
    return boxes * torch.tensor([width, height] * 2) / size.repeat(2)


def scaled_masks(
    dataset: LocalizationDataset, indices: Sequence[int], shape: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """True masks of some images and what is not counted of them, bool (n, height, width) by nearest pixel, as publicly."""
    masks, ignores = zip(*(dataset.masks(i, shape) for i in indices), strict=True)
    if masks[0] is None:
        raise ValueError(f"expected masks in {dataset.name} for PxAP, found none for {dataset.image_ids[indices[0]]}")
    return torch.stack(masks), None if ignores[0] is None else torch.stack(ignores)
