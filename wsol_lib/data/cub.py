"""CUB-200-2011 and CUBV2: birds of 200 kinds, each with one box, from the public lists or from the official files.

See :mod:`wsol_lib.data.metadata` for the lists and for the rule which of the two is read. The official files are
``CUB_200_2011/images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and ``bounding_boxes.txt``.

Conventions, each found out from the files:

- ``bounding_boxes.txt`` gives x, y, width, height. They are printed as floats, yet all 47,152 are whole numbers, and they
  count from 0, not from 1: x is 0 in 73 rows and y in 17. So the box is x, y, x + width, y + height, as in the lists.
- 30 boxes end outside their image (11 to the right, 19 below, by up to 32 pixels); none is empty, turned around or
  begins outside. The lists cut 78 boxes at the last pixel (width - 1 or height - 1): those 30 and 48 that end on the
  image's edge. The same is done here where the images are there to say their size; where they are not, ``image_sizes``
  are 0 and the 78 boxes stay as printed.
- CUBV2 (``train-fullsup``) has lists only, and no parts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wsol_lib.data.images import image_size
from wsol_lib.data.metadata import Annotations, ListedDataset, read_lines

FOLDER = "CUB_200_2011"
FETCH = "unpack CUB_200_2011.tgz, as Caltech publishes it, below the data root"
PART_NAMES = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)


class CUB(ListedDataset):
    """CUB-200-2011 and CUBV2, birds of 200 kinds: 5,994 / 1,000 / 5,794 images, every one with one box.

    Args:
        split: "train-weaksup" (the official training images), "train-fullsup" (CUBV2) or "test" (the official test images)
        root: folder with ``wsolevaluation/metadata/`` or, but for "train-fullsup", ``CUB_200_2011/``, and, if images are
            asked for, ``wsolevaluation/dataset/CUB/`` (where the authors' scripts put them), ``CUB_200_2011/images/`` or
            ``CUBV2/``
        transform: applied to each Sample

    Beside the attributes of every data set: ``parts``, the 15 points that ``PART_NAMES`` names on every official image.

    Raises:
        FileNotFoundError: a list is missing; ``[i]``: the image is
        ValueError: a list is damaged; ``[i]``: the image is, or its size is not the listed one
    """

    list_folder = "CUB"
    image_folders = ("wsolevaluation/dataset/CUB", "CUB_200_2011/images", "CUBV2")
    official_files = {  # noqa: RUF012
        "train-weaksup": "CUB_200_2011/images.txt",
        "test": "CUB_200_2011/images.txt",
    }
    num_classes = 200
    boxed_splits = ("train-weaksup", "train-fullsup", "test")

    @cached_property
    def parts(self) -> Tensor:
        """float32 (N, 15, 3): x and y in pixels as printed, and 1 where the part can be seen; else all three are 0.

        One of 141,407 visible parts lies outside its image, none outside its box.

        Raises:
            FileNotFoundError: ``CUB_200_2011/`` has no ``images.txt`` or no ``parts/part_locs.txt``
            ValueError: one of them is damaged, or the split is CUBV2, which has no parts
        """
        if self.split == "train-fullsup":
            raise ValueError("expected train-weaksup or test for parts, found train-fullsup: CUBV2 has none")
        place = {name: k for k, name in enumerate(self._official_ids())}
        rows = self._official_numbers("parts/part_locs.txt", len(place) * len(PART_NAMES), 5)
        parts = rows.reshape(-1, len(PART_NAMES), 4)[[place[image_id] for image_id in self.image_ids]]
        return torch.from_numpy(parts[:, :, 1:]).float()

    def _official(self, split: str) -> Annotations:
        every_id = self._official_ids()
        training = self._official_numbers("train_test_split.txt", len(every_id), 2)[:, 0] == 1
        chosen = training if split == "train-weaksup" else ~training
        image_ids = [image_id for image_id, wanted in zip(every_id, chosen, strict=True) if wanted]
        labels = self._official_numbers("image_class_labels.txt", len(every_id), 2)[chosen, 0].astype(np.int64) - 1
        boxes = self._official_numbers("bounding_boxes.txt", len(every_id), 5)[chosen]
        boxes[:, 2:] += boxes[:, :2]
        sizes = self._sizes(image_ids)
        if sizes.any():
            boxes[:, 2:] = np.minimum(boxes[:, 2:], sizes - 1)
        solid = ((boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:])).all(1)
        if not solid.all():
            k = int(solid.argmin())
            raise ValueError(
                f"expected boxes of some area inside their image in {self.root / FOLDER / 'bounding_boxes.txt'}, found "
                f"{boxes[k].tolist()} (x1, y1, x2, y2) for {image_ids[k]}: {FETCH} again"
            )
        return Annotations(image_ids, labels, list(torch.from_numpy(boxes).float()[:, None]), sizes)

    def _official_ids(self) -> list[str]:
        """Image ids in the order of their numbers, 1 ... N."""
        path = self.root / FOLDER / "images.txt"
        rows = [line.split(" ") for line in read_lines(path, FETCH)]
        for k, row in enumerate(rows, 1):
            if len(row) != 2 or row[0] != str(k) or "/" not in row[1]:
                raise ValueError(
                    f"expected a row '{k} class/name.jpg' in {path}, found {' '.join(row)!r}: {FETCH} again"
                )
        return [image_id for _, image_id in rows]

    def _official_numbers(self, file: str, count: int, columns: int) -> np.ndarray:
        """The ``count`` rows of a list without the image's number, float64 (count, columns - 1), in order of it."""
        path = self.root / FOLDER / file
        try:
            rows = np.loadtxt(read_lines(path, FETCH), ndmin=2)
        except ValueError as error:
            raise ValueError(f"expected rows of {columns} numbers in {path}, found {error}: {FETCH} again") from None
        images = np.arange(count) // (count // len(self._official_ids())) + 1
        if rows.shape != (count, columns) or (rows[:, 0] != images).any():
            raise ValueError(
                f"expected {count:,} rows of {columns} numbers in {path}, in the order of images.txt, found others "
                f"({rows.shape[0]:,} rows of {rows.shape[1]}): {FETCH} again"
            )
        if (np.abs(rows) >= 2**31).any():
            raise ValueError(
                f"expected numbers below {2**31:,} in {path}, found {rows.flat[int(np.abs(rows).argmax())]:g}: {FETCH} again"
            )
        return rows[:, 1:]

    def _sizes(self, image_ids: list[str]) -> np.ndarray:
        """Widths and heights from the image files; zeros if the first is not there, an error if only others are not."""
        if self._find(image_ids[0]) is None:
            return np.zeros((len(image_ids), 2), np.int64)

        def size(image_id: str) -> tuple[int, int]:
            path = self._find(image_id)
            if path is None:
                raise self._missing(f"the image {image_id}, which images.txt names,")
            return image_size(path, turn=False)

        with ThreadPoolExecutor() as threads:
            return np.array(list(threads.map(size, image_ids)), np.int64)

    @staticmethod
    def _name(folder: str) -> str:
        return folder.split(".")[-1].replace("_", " ")
