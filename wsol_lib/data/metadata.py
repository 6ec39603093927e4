"""The public lists of "Evaluating WSOL Methods Right" (section 4.2): what the readers of CUB, ImageNet and OpenImages share.

``wsolevaluation/`` below the data root is the authors' repository (clovaai/wsolevaluation) or its folder ``metadata/``
alone: labels, sizes and boxes are all there, so baselines need no image. Images are looked for where the authors'
scripts and the original archives put them (see each class).

One rule says where annotations come from: a split is read from the public lists if its ``class_labels.txt`` is there,
otherwise from the data set's official files. Both give the same boxes.

Conventions, each found out from the files:

- Boxes are taken as printed, as continuous edges; ``protocol="wsolevaluation"`` of the metrics gets the very numbers
  that the authors' code reads. All are whole numbers, and none reaches the right or lower edge of its image: the
  largest x2 is the width - 1, in 6,086 of the 80,477 ImageNet validation boxes, and the smallest x1 is 0. So they are
  indices of pixels from 0, and read as edges a box is a pixel narrower and lower than its author may have meant; all
  published figures read them so.
- None of the 111,797 published boxes is empty, turned around or outside its image; one that is, is damage and an error.
  CUB has one box an image; 2,052 of 10,000 ImageNetV2 and 11,715 of 50,000 ImageNet validation images have several.
- The lists of ``train-weaksup`` of ImageNet and of all of OpenImages have no boxes and no sizes (``image_sizes`` is 0).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsol_lib.data.images import decode_rgb, image_bytes
from wsol_lib.data.sample import LocalizationDataset

_FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}
FETCH = "put a copy of github.com/clovaai/wsolevaluation, which ships the lists, below the data root"
NO_BOX = torch.zeros(0, 4)


class Annotations(NamedTuple):
    """N image ids, labels int64 (N,), N tensors float32 (k, 4) of boxes, widths and heights int64 (N, 2) or zeros."""

    image_ids: list[str]
    labels: np.ndarray
    boxes: list[Tensor]
    sizes: np.ndarray


class ListedDataset(LocalizationDataset):
    """One split of a data set that the public lists describe.

    Subclasses say where their lists, official files and images are, how many classes they have and which splits come
    with boxes; those with official files implement ``_official(split)`` -> ``Annotations``.
    """

    list_folder: str
    image_folders: tuple[str, ...]  # below the data root, tried in this order
    official_files: dict[str, str] = {}  # noqa: RUF012  split -> what has to be there to read it without the lists
    num_classes: int
    boxed_splits: tuple[str, ...]

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        self.root, self.name = root, type(self).__name__.lower()
        self.lists = root / "wsolevaluation" / "metadata" / self.list_folder / _FOLDERS[split]
        official = self.official_files.get(split)
        if (self.lists / "class_labels.txt").is_file():
            annotations = read_lists(self.lists, split in self.boxed_splits)
        elif official and (root / official).exists():
            annotations = self._official(split)
        else:
            raise FileNotFoundError(
                f"expected the list {self.lists / 'class_labels.txt'}{f' or {root / official}' if official else ''}, "
                f"found no such file: {FETCH}"
            )
        super().__init__(
            name=self.name,
            split=split,
            class_names=self._class_names(annotations),
            labels=torch.from_numpy(annotations.labels),
            boxes=annotations.boxes,
            image_sizes=torch.from_numpy(annotations.sizes),
            image_ids=annotations.image_ids,
            transform=transform,
        )

    def _class_names(self, annotations: Annotations) -> tuple[str, ...]:
        """Read off the folder of one image of each class; ``class 7`` for a class without an image."""
        pairs = zip(annotations.labels.tolist(), annotations.image_ids, strict=True)
        folders = {label: image_id.split("/")[-2] for label, image_id in pairs}
        return tuple(self._name(folders[k]) if k in folders else f"class {k}" for k in range(self.num_classes))

    def _find(self, name: str) -> Path | None:
        """The file of this name in the first of the image folders that has it."""
        paths = (self.root / folder / name for folder in self.image_folders)
        return next((path for path in paths if os.path.isfile(path)), None)  # a name may be too long for Path.is_file

    def _missing(self, what: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"expected {what} in {' or '.join(self.image_folders)} below {self.root}, found no such file: put the "
            f"images of {self.name} there (its labels and boxes need none)"
        )

    def _image(self, i: int) -> Tensor:
        image_id, listed = self.image_ids[i], tuple(self.image_sizes[i].tolist())
        path = self._find(image_id)
        if path is None:
            raise self._missing(f"the image {image_id}")
        pixels = decode_rgb(image_bytes(path), str(path), turn=False)
        if any(listed) and listed != pixels.shape[1::-1]:
            raise ValueError(
                f"expected {listed[0]} x {listed[1]} pixels in {path}, as the list of sizes says, found "
                f"{pixels.shape[1]} x {pixels.shape[0]}: put the original image there, boxes fit no other size"
            )
        return torch.from_numpy(pixels).permute(2, 0, 1)


def read_lists(lists: Path, boxed: bool) -> Annotations:
    """The lists of one split; without ``boxed`` only its labels.

    Raises:
        FileNotFoundError: a list is missing
        ValueError: a row is damaged, names an image that ``class_labels.txt`` does not, or is missing; a box is odd
    """
    image_ids, labels = _read_list(lists / "class_labels.txt", 1)
    sizes = np.zeros((len(image_ids), 2), np.int64)
    boxes = [NO_BOX] * len(image_ids)
    if boxed:
        index = {image_id: i for i, image_id in enumerate(image_ids)}
        if len(index) < len(image_ids):
            again = next(image_id for i, image_id in enumerate(image_ids) if index[image_id] != i)
            raise ValueError(f"expected each image once in {lists / 'class_labels.txt'}, found {again} again: {FETCH}")
        sizes = _read_sizes(lists / "image_sizes.txt", index)
        boxes = _read_boxes(lists / "localization.txt", index, sizes)
    return Annotations(image_ids, labels[:, 0], boxes, sizes)


def read_lines(path: Path, fetch: str = FETCH) -> list[str]:
    """Lines of a list; FileNotFoundError with ``fetch`` if it is not there or no file, ValueError if it cannot be read."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"expected the list {path}, found no such file: {fetch}")
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(
            f"expected the list {path} to be readable, found it is not ({error.strerror}): {fetch}"
        ) from error


def _read_list(path: Path, columns: int) -> tuple[list[str], np.ndarray]:
    """Rows ``image id,number,...`` -> image ids and their numbers, int64 (rows, columns)."""
    lines = read_lines(path)
    ids: list[str] = []
    fields: list[int] = []
    try:
        for image_id, *row in (line.rsplit(",", columns) for line in lines):
            ids.append(image_id)
            fields.extend(map(int, row))
        numbers = np.array(fields, dtype=np.int64).reshape(len(lines), columns)
    except (ValueError, OverflowError):
        bad = next(line for line in lines if not _is_row(line.rsplit(",", columns), columns))
        raise ValueError(
            f"expected rows of an image id and {columns} whole numbers in {path}, found {bad!r}: {FETCH}"
        ) from None
    if not lines:
        raise ValueError(f"expected rows of an image id and {columns} whole numbers in {path}, found none: {FETCH}")
    return ids, numbers


def _is_row(row: list[str], columns: int) -> bool:
    try:
        numbers = [int(field) for field in row[1:]]
    except ValueError:
        return False
    return len(row) == columns + 1 and all(-(2**63) <= number < 2**63 for number in numbers)


def _read_numbers(path: Path, columns: int, index: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """As ``_read_list``, but with the place of each image in place of its id; every image has a row, no other has."""
    ids, numbers = _read_list(path, columns)
    return places_of(ids, index, path), numbers


def places_of(ids: list[str], index: dict[str, int], path: Path) -> np.ndarray:
    """The place of each image of a list in ``index``; every image of either is in the other."""
    places = np.array([index.get(image_id, -1) for image_id in ids], np.int64)
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
    return places


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
