"""CUB, ImageNet and OpenImages30k in the lists of "Evaluating WSOL Methods Right" (section 4.2), with or without the images.

``wsolevaluation/`` below the data root is the authors' repository (clovaai/wsolevaluation) or its folder ``metadata/`` alone:
labels, sizes and boxes are all there, so baselines need no image. Images are looked for where the authors' scripts and the
original archives put them (``image_folders`` of each class).

Conventions, each found out from the files:

- Boxes are taken as printed, as continuous edges. CUB's are x, y, x + width, y + height of the official annotations, cut at
  the last pixel, so of 11,788 only the 78 that were cut lose a pixel by this; ``protocol="wsolevaluation"`` of the metrics gets
  the very numbers that the authors' code reads.
- None of the 111,797 published boxes is empty, turned around or outside its image; one that is, is damage and an error. CUB
  has one box an image; 2,052 of 10,000 ImageNetV2 and 11,715 of 50,000 ImageNet validation images have several.
- ``test`` of ImageNet is all 50,000 validation images, where the paper speaks of 10,000. Its ``train-weaksup`` has no boxes.
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

FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}
FETCH = "get the authors' repository clovaai/wsolevaluation, it ships the lists"


class _Listed(LocalizationDataset):
    """One split of a data set that the public lists describe; see the module's docstring for what was decided.

    Parameters
    ----------
    split: "train-weaksup", "train-fullsup" or "test"
    root: folder with ``wsolevaluation/metadata/`` and, if images are asked for, one of ``image_folders``
    transform: applied to each Sample

    Raises
    ------
    FileNotFoundError: a list is missing; for ``[i]``, the image is
    ValueError: a list is damaged; for ``[i]``, the image is
    """

    name: str
    list_folder: str
    image_folders: tuple[str, ...]
    num_classes: int
    boxed_splits: tuple[str, ...]

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        lists = root / "wsolevaluation" / "metadata" / self.list_folder / FOLDERS[split]
        image_ids, labels = _read_list(lists / "class_labels.txt", 1)
        index = {image_id: i for i, image_id in enumerate(image_ids)}
        sizes = np.zeros((len(image_ids), 2), np.int64)
        boxes = [torch.zeros(0, 4)] * len(image_ids)
        if split in self.boxed_splits:
            rows, values = _indexed_list(lists / "image_sizes.txt", 2, index)
            sizes[rows] = values
            boxes = _boxes(lists / "localization.txt", index, image_ids, sizes)
        super().__init__(
            name=self.name,
            split=split,
            class_names=self._class_names(image_ids, labels[:, 0]),
            labels=torch.from_numpy(labels[:, 0]),
            boxes=boxes,
            image_sizes=torch.from_numpy(sizes),
            image_ids=image_ids,
            transform=transform,
        )
        self.root = root

    def _class_names(self, image_ids: list[str], labels: np.ndarray) -> tuple[str, ...]:
        """Taken from the folder of the first image of each class; ``class 7`` for one that has no image here."""
        first = dict(zip(reversed(labels.tolist()), reversed(image_ids), strict=True))
        return tuple(self._class_name(first[k]) if k in first else f"class {k}" for k in range(self.num_classes))

    def _image(self, i: int) -> Tensor:
        image_id = self.image_ids[i]
        for folder in self.image_folders:
            path = self.root / folder / image_id
            if path.is_file():
                return torch.from_numpy(decode_rgb(path.read_bytes(), str(path))).permute(2, 0, 1)
        raise FileNotFoundError(
            f"expected the image {image_id} in {' or '.join(self.image_folders)} below {self.root}, found no such file: put the "
            f"images of {self.name} there, labels and boxes are there without them"
        )


class CUB(_Listed):
    __doc__ = _Listed.__doc__.replace(
        "One split of a data set that the public lists describe",
        "CUB-200-2011: 5,994 / 1,000 (CUBV2) / 5,794 images of 200 kinds of birds",
    )
    name = "cub"
    list_folder = "CUB"
    image_folders = ("wsolevaluation/dataset/CUB", "CUB_200_2011/images", "CUBV2")
    num_classes = 200
    boxed_splits = ("train-weaksup", "train-fullsup", "test")

    @staticmethod
    def _class_name(image_id: str) -> str:
        return image_id.split("/")[0].split(".")[-1].replace("_", " ")


