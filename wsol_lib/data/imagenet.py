"""ImageNet (ILSVRC2012) and ImageNetV2, from the public lists or from the official files.

See :mod:`wsol_lib.data.metadata` for the lists and for the rule which of the two is read. The official files are, for
``test``, ``ILSVRC/Annotations/CLS-LOC/val/*.xml`` (PASCAL VOC's format) and, for ``train-weaksup``, the folders of
training images ``ILSVRC/train/<WordNet id>/`` themselves; for ``train-fullsup``, ImageNetV2, there are only the lists.

Conventions, each found out from the files:

- Classes are numbered in the order of their sorted WordNet ids, as torchvision's and timm's weights do. (The official
  development kit numbers them differently; its list of validation labels is therefore not read, every XML names its
  class.)
- Corners are taken as printed, x1 = xmin ... y2 = ymax, as in the lists. They are whole numbers that count from 0, not
  from 1 as PASCAL's do: of the 80,477 published boxes 7,388 have x1 = 0, and 6,086 x2 = width - 1, none more.
- A box of an XML that leaves its image is cut at the edge; one of no area is an error.
- ``test`` is all 50,000 validation images, where the paper speaks of 10,000. ``train-weaksup`` has no boxes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from torchvision.models import ResNet50_Weights

from wsol_lib.data.metadata import NO_BOX, Annotations, ListedDataset

XML_FOLDER = "ILSVRC/Annotations/CLS-LOC/val"
TRAIN_FOLDER = "ILSVRC/train"


class ImageNet(ListedDataset):
    """ILSVRC2012 and ImageNetV2 (threshold 0.7), 1,000 classes: 1,281,167 / 10,000 / 50,000 images.

    Args:
        split: "train-weaksup" (the training images, no boxes), "train-fullsup" (ImageNetV2) or "test" (all 50,000
            validation images, where the paper speaks of 10,000); the latter two have one or more boxes an image
        root: folder with ``wsolevaluation/metadata/`` or the official files and, if images are asked for,
            ``wsolevaluation/dataset/ILSVRC/`` or ``ILSVRC/``, either with ``train/``, ``val2/`` (ImageNetV2) and ``val/``
        transform: applied to each Sample

    Raises:
        as :class:`wsol_lib.data.cub.CUB`
    """

    list_folder = "ILSVRC"
    image_folders = ("wsolevaluation/dataset/ILSVRC", "ILSVRC", "ILSVRC/Data/CLS-LOC")
    official_files = {"train-weaksup": TRAIN_FOLDER, "test": XML_FOLDER}  # noqa: RUF012
    num_classes = 1000
    boxed_splits = ("train-fullsup", "test")

    def _class_names(self, annotations: Annotations) -> tuple[str, ...]:
        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])

    def _official(self, split: str) -> Annotations:
        from timm.data import ImageNetInfo  # here: timm takes longer to import than the lists to read

        number = {wnid: k for k, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}
        return _of_folders(self.root / TRAIN_FOLDER, number) if split == "train-weaksup" else _of_xml(self.root, number)


def _of_folders(folder: Path, number: dict[str, int]) -> Annotations:
    """Images and labels of ``folder``/<WordNet id>/*.JPEG, no boxes, no sizes."""
    image_ids, labels = [], []
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        label = _class_number(class_folder.name, class_folder, number)
        names = sorted(path.name for path in class_folder.iterdir() if path.suffix == ".JPEG")
        image_ids += [f"train/{class_folder.name}/{name}" for name in names]
        labels += [label] * len(names)
    if not image_ids:
        raise FileNotFoundError(
            f"expected images as {folder}/<WordNet id>/<name>.JPEG, found none: unpack ILSVRC2012_img_train.tar and the "
            "archives in it there"
        )
    return Annotations(
        image_ids, np.array(labels, np.int64), [NO_BOX] * len(labels), np.zeros((len(labels), 2), np.int64)
    )


def _of_xml(root: Path, number: dict[str, int]) -> Annotations:
    """Images, labels, boxes and sizes of the validation images."""
    paths = sorted((root / XML_FOLDER).glob("*.xml"))
    if not paths:
        raise FileNotFoundError(
            f"expected annotations as {root / XML_FOLDER}/<name>.xml, found none: unpack them there"
        )
    with ThreadPoolExecutor() as threads:
        read = list(threads.map(lambda path: _read_xml(path, number), paths))
    return Annotations(
        [f"val/{path.stem}.JPEG" for path in paths],
        np.array([label for label, _, _ in read], np.int64),
        [torch.tensor(boxes, dtype=torch.float32) for _, boxes, _ in read],
        np.array([size for _, _, size in read], np.int64),
    )


def _read_xml(path: Path, number: dict[str, int]) -> tuple[int, list[list[int]], tuple[int, int]]:
    """Label, boxes and size (width, height) of one image."""
    try:
        if not path.is_file():  # a pipe would never end
            raise ValueError("no file")
        image = ElementTree.fromstring(path.read_bytes())
        width, height = (int(image.findtext(f"size/{side}", "")) for side in ("width", "height"))
        names = [entry.findtext("name", "") for entry in image.iter("object")]
        printed = [
            [int(entry.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for entry in image.iter("object")
        ]
        if len(set(names)) != 1:
            raise ValueError(f"objects of {len(set(names))} classes")
        if not 0 < min(width, height) <= max(width, height) < 2**31:
            raise ValueError(f"an image of {width} x {height} pixels")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise ValueError(
            f"expected size, and objects of one class with name and bndbox, in {path}, found it damaged ({error}): fetch "
            "the annotations again"
        ) from error
    boxes = [[max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)] for x1, y1, x2, y2 in printed]
    for before, (x1, y1, x2, y2) in zip(printed, boxes, strict=True):
        if x1 >= x2 or y1 >= y2:
            raise ValueError(
                f"expected boxes xmin < xmax and ymin < ymax inside the image of {width} x {height} pixels in {path}, "
                f"found {before}: correct or remove it"
            )
    return _class_number(names[0], path, number), boxes, (width, height)


def _class_number(wnid: str, where: Path, number: dict[str, int]) -> int:
    if wnid not in number:
        raise ValueError(
            f"expected a class out of the {len(number):,} WordNet ids of ILSVRC2012 in {where}, found {wnid!r}: correct "
            "or remove it"
        )
    return number[wnid]
