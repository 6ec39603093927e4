"""CUB, ImageNet and OpenImages30k from the lists of "Evaluating WSOL Methods Right" (section 4.2), images or not.

``wsolevaluation/`` below the data root is the authors' repository (clovaai/wsolevaluation) or its folder ``metadata/``
alone: labels, sizes and boxes are all there, so baselines need no image. Images are looked for where the authors'
scripts and the original archives put them (see each class).

Conventions, each found out from the files:

- Boxes are taken as printed, as continuous edges. CUB's are x, y, x + width, y + height of the official annotations,
  cut at the last pixel, so of 11,788 only the 78 that were cut lose a pixel by this; ``protocol="wsolevaluation"`` of
  the metrics gets the very numbers that the authors' code reads.
- None of the 111,797 published boxes is empty, turned around or outside its image; one that is, is damage and an error.
  CUB has one box an image; 2,052 of 10,000 ImageNetV2 and 11,715 of 50,000 ImageNet validation images have several.
- ``test`` of ImageNet is all 50,000 validation images, where the paper speaks of 10,000. Its ``train-weaksup`` has no
  boxes.
- OpenImages30k has neither boxes nor sizes (``image_sizes`` is 0): its truth is masks, which come later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from wsol_lib.data.images import decode_rgb
from wsol_lib.data.sample import LocalizationDataset

_FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}
FETCH = "put a copy of github.com/clovaai/wsolevaluation, which ships the lists, below the data root"


class _Listed(LocalizationDataset):
    """One split of a data set that the public lists describe: what the three readers share.

    Subclasses say where their lists and images are, how many classes they have and which splits come with boxes.
    """

    list_folder: str
    image_folders: tuple[str, ...]  # below the data root, tried in this order
    num_classes: int
    boxed_splits: tuple[str, ...]

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        self.root = root
        lists = root / "wsolevaluation" / "metadata" / self.list_folder / _FOLDERS[split]
        image_ids, labels = _read_list(lists / "class_labels.txt", 1)
        sizes = np.zeros((len(image_ids), 2), np.int64)
        boxes = [torch.zeros(0, 4)] * len(image_ids)
        if split in self.boxed_splits:
            index = {image_id: i for i, image_id in enumerate(image_ids)}
            sizes = _read_sizes(lists / "image_sizes.txt", index)
            boxes = _read_boxes(lists / "localization.txt", index, sizes)
        super().__init__(
            name=type(self).__name__.lower(),
            split=split,
            class_names=self._class_names(image_ids, labels[:, 0].tolist()),
            labels=torch.from_numpy(labels[:, 0]),
            boxes=boxes,
            image_sizes=torch.from_numpy(sizes),
            image_ids=image_ids,
            transform=transform,
        )

    def _class_names(self, image_ids: list[str], labels: list[int]) -> tuple[str, ...]:
        """Read off the folder of one image of each class; ``class 7`` for a class without an image."""
        folders = {label: image_id.split("/")[-2] for image_id, label in zip(image_ids, labels, strict=True)}
        return tuple(self._name(folders[k]) if k in folders else f"class {k}" for k in range(self.num_classes))

    def _image(self, i: int) -> Tensor:
        image_id, listed = self.image_ids[i], tuple(self.image_sizes[i].tolist())
        for folder in self.image_folders:
            path = self.root / folder / image_id
            if path.is_file():
                pixels = decode_rgb(path.read_bytes(), str(path), turn=False)
                if any(listed) and listed != pixels.shape[1::-1]:
                    raise ValueError(
                        f"expected {listed[0]} x {listed[1]} pixels in {path}, as the list of sizes says, found "
                        f"{pixels.shape[1]} x {pixels.shape[0]}: put the original image there, boxes fit no other size"
                    )
                return torch.from_numpy(pixels).permute(2, 0, 1)
        raise FileNotFoundError(
            f"expected the image {image_id} in {' or '.join(self.image_folders)} below {self.root}, found no "
            f"such file: put the images of {self.name} there (its labels and boxes need none)"
        )


class CUB(_Listed):
    """CUB-200-2011 and CUBV2, birds of 200 kinds: 5,994 / 1,000 / 5,794 images, every one with one box.

    Args:
        split: "train-weaksup" (the official training images), "train-fullsup" (CUBV2) or "test" (the official test images)
        root: folder with ``wsolevaluation/metadata/`` and, if images are asked for, ``wsolevaluation/dataset/CUB/`` (where
            the authors' scripts put them), ``CUB_200_2011/images/`` or ``CUBV2/``
        transform: applied to each Sample

    Raises:
        FileNotFoundError: a list is missing; ``[i]``: the image is
        ValueError: a list is damaged; ``[i]``: the image is, or its size is not the listed one
    """

    list_folder = "CUB"
    image_folders = ("wsolevaluation/dataset/CUB", "CUB_200_2011/images", "CUBV2")
    num_classes = 200
    boxed_splits = ("train-weaksup", "train-fullsup", "test")

    @staticmethod
    def _name(folder: str) -> str:
        return folder.split(".")[-1].replace("_", " ")


class ImageNet(_Listed):
    """ILSVRC2012 and ImageNetV2 (threshold 0.7), 1,000 classes: 1,281,167 / 10,000 / 50,000 images.

    Args:
        split: "train-weaksup" (the training images, no boxes), "train-fullsup" (ImageNetV2) or "test" (all 50,000
            validation images, where the paper speaks of 10,000); the latter two have one or more boxes an image
        root: folder with ``wsolevaluation/metadata/`` and, if images are asked for, ``wsolevaluation/dataset/ILSVRC/`` or
            ``ILSVRC/``, either with ``train/``, ``val2/`` (ImageNetV2) and ``val/``
        transform: applied to each Sample

    Raises:
        as :class:`CUB`
    """

    list_folder = "ILSVRC"
    image_folders = ("wsolevaluation/dataset/ILSVRC", "ILSVRC")
    num_classes = 1000
    boxed_splits = ("train-fullsup", "test")

    def _class_names(self, image_ids: list[str], labels: list[int]) -> tuple[str, ...]:
        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


class OpenImages(_Listed):
    """OpenImages30k, 100 classes: 29,819 / 2,500 / 5,000 images. Labels and ids; its masks, the truth, come later.

    Args:
        split: "train-weaksup", "train-fullsup" or "test"; ``boxes`` are empty and ``image_sizes`` 0 in all three
        root: folder with ``wsolevaluation/metadata/`` and, if images are asked for, ``wsolevaluation/dataset/OpenImages/``
            or ``OpenImages/``, either with ``train/``, ``val/`` and ``test/``
        transform: applied to each Sample

    Raises:
        as :class:`CUB`
    """

    list_folder = "OpenImages"
    image_folders = ("wsolevaluation/dataset/OpenImages", "OpenImages")
    num_classes = 100
    boxed_splits = ()

    @staticmethod
    def _name(folder: str) -> str:
        return f"/m/{folder}"  # the lists have OpenImages' machine ids, no words


def _read_list(path: Path, columns: int) -> tuple[list[str], np.ndarray]:
    """Rows ``image id,number,...`` -> image ids and their numbers, int64 (rows, columns)."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"expected the list {path}, found no such file: {FETCH}") from None
    rows = [line.rsplit(",", columns) for line in lines]
    try:
        numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(len(rows), columns)
    except ValueError:
        bad = next(line for line, row in zip(lines, rows, strict=True) if not _is_row(row, columns))
        raise ValueError(
            f"expected rows of an image id and {columns} whole numbers in {path}, found {bad!r}: {FETCH}"
        ) from None
    if not rows:
        raise ValueError(f"expected rows of an image id and {columns} whole numbers in {path}, found none: {FETCH}")
    return [row[0] for row in rows], numbers


def _is_row(row: list[str], columns: int) -> bool:
    return len(row) == columns + 1 and all(field.lstrip("-").isdecimal() for field in row[1:])


def _read_numbers(path: Path, columns: int, index: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """As ``_read_list``, but with the place of each image in place of its id; every image has a row, no other has."""
    ids, numbers = _read_list(path, columns)
    places = np.array([index.get(image_id, -1) for image_id in ids])
    if (places < 0).any():
        unknown = ids[int(np.argmin(places))]
        raise ValueError(f"expected in {path} only images that class_labels.txt names, found {unknown}: {FETCH}")
    missing = np.ones(len(index), bool)
    missing[places] = False
    if missing.any():
        absent = list(index)[int(np.argmax(missing))]
        raise ValueError(
            f"expected a row in {path} for each of {len(index):,} images, found none for {absent}: {FETCH}"
        )
    return places, numbers


def _read_sizes(path: Path, index: dict[str, int]) -> np.ndarray:
    """Width and height of each image, int64 (N, 2)."""
    places, numbers = _read_numbers(path, 2, index)
    sizes = np.zeros((len(index), 2), np.int64)
    sizes[places] = numbers
    return sizes


def _read_boxes(path: Path, index: dict[str, int], sizes: np.ndarray) -> list[Tensor]:
    """The boxes of each image, N tensors float32 (k, 4), k >= 1."""
    places, boxes = _read_numbers(path, 4, index)
    odd = (boxes[:, :2] < 0) | (boxes[:, :2] >= boxes[:, 2:]) | (boxes[:, 2:] > sizes[places])
    if odd.any():
        k = int(odd.any(1).argmax())
        width, height = sizes[places[k]]
        raise ValueError(
            f"expected boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2 inside their image in {path}, found "
            f"{boxes[k].tolist()} "
            f"for {list(index)[places[k]]} of {width} x {height} pixels: {FETCH}"
        )
    order = np.argsort(places, kind="stable")
    counts = np.bincount(places, minlength=len(index))
    return list(torch.from_numpy(boxes[order]).float().split(counts.tolist()))
