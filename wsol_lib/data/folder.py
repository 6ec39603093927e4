"""A reader's own images: a folder for each class, boxes optional in one COCO JSON.

Two layouts, told apart by whether a folder with the name of a split is there:

- ``root/<class>/*`` (as torchvision's ImageFolder): the same images are ``train-weaksup`` and ``test``. Good for
  looking at boxes, but a score on ``test`` is then one on training images.
- ``root/<split>/<class>/*`` with ``train-weaksup``, ``train-fullsup`` and ``test`` kept apart, as many as there are.

With ``flat=True`` folders mean nothing: all images below ``root``, at any depth, are of the one class "object", for methods
that need no labels.

``train-fullsup`` is, in either, only the images that have a box. Classes are the sorted folder names, over all splits.

Images are jpg, png, webp or bmp of any size, turned as their EXIF says, at any depth below their class; names that
begin with a dot are passed over. They are decoded every time they are asked for.

Boxes: ``images`` with ``file_name`` relative to ``root``, ``annotations`` with ``bbox`` as x, y, width, height in
pixels of the turned image. They are cut at the border of the image. Where the file lists ``categories``, each box must
be of the class of its image's folder, unless ``flat``: another one would be no ground truth for it. Crowds are not looked
at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib.data import SPLITS, coco
from wsol_lib.data.images import decode_rgb, image_bytes, image_size
from wsol_lib.data.sample import LocalizationDataset

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: The one class of images whose folders mean nothing.
OBJECT = "object"
CHUNK = 5000  # images whose sizes are asked for together


class ImageFolder(LocalizationDataset):
    """The images of one folder; see the module's docstring for the layouts and for what the boxes look like.

    Args:
        split: "train-weaksup", "train-fullsup" (only images with a box) or "test"
        root: the folder
        boxes: a COCO JSON; None takes ``annotations.json`` in ``root`` if it is there, else no image has a box
        flat: all images are of one class, whatever their folders
        leave_out: names of images below ``root`` that are passed over, damaged ones for instance
        transform: applied to each Sample

    Raises:
        FileNotFoundError: no such folder of this split, no image in it, no file ``boxes``, or no box for "train-fullsup"
        ValueError: an image or the JSON is damaged, or the JSON does not fit the images
    """

    def __init__(
        self,
        split: str,
        root: Path,
        boxes: str | Path | None = None,
        flat: bool = False,
        leave_out: Collection[str] = (),
        transform: Callable | None = None,
    ):
        self.root = root
        files, class_names = _all_files(root) if flat else _files_of_split(root, split)
        left_out = set(leave_out)
        files = [(image_id, label) for image_id, label in files if image_id not in left_out]
        annotations = root / "annotations.json" if boxes is None else Path(boxes)
        boxed = boxes is not None or annotations.exists()
        if boxed and not annotations.is_file():
            raise FileNotFoundError(
                f"expected boxes in {annotations}, found no such file: correct boxes= or leave it out"
            )
        boxes_of = _read_coco(annotations, root, flat) if boxed else {}
        if split == "train-fullsup":
            files = [(image_id, label) for image_id, label in files if image_id in boxes_of]
            if not files:
                raise FileNotFoundError(
                    f"expected images with boxes for train-fullsup in {root}, found no box for any: write them to "
                    f"{annotations}"
                )
        image_ids, none = [image_id for image_id, _ in files], torch.zeros(0, 4)
        sizes = _sizes(root, image_ids, f"sizes of {split}")
        super().__init__(
            name="folder",
            split=split,
            class_names=class_names,
            labels=torch.tensor([label for _, label in files]),
            boxes=[
                _fitted(boxes_of[i], i, size, annotations) if i in boxes_of else none
                for i, size in zip(image_ids, map(tuple, sizes.tolist()), strict=True)
            ],
            image_sizes=sizes,
            image_ids=image_ids,
            transform=transform,
        )

    def _image(self, i: int) -> Tensor:
        path = self.root / self.image_ids[i]
        return torch.from_numpy(decode_rgb(image_bytes(path), str(path))).permute(2, 0, 1)


def image_files(folder: Path) -> list[str]:
    """Names, below ``folder`` and at any depth, of the files with a suffix of an image, sorted folder by folder."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place).relative_to(folder).as_posix()
        names = [name for name in (*folders, *files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += names if here == "." else [f"{here}/{name}" for name in names]
    return sorted(found, key=lambda name: name.split("/"))


def _all_files(root: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    files = [(name, 0) for name in image_files(root)]
    if not files:
        raise FileNotFoundError(
            f"expected images below {root} with a suffix out of {', '.join(SUFFIXES)}, found none: put some there, or "
            "correct root="
        )
    return files, (OBJECT,)


def _files_of_split(root: Path, split: str) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(path below ``root``, label) of each image of the split, and the class names."""
    splits = [name for name in SPLITS if (root / name).is_dir()]
    if splits and split not in splits:
        raise FileNotFoundError(
            f"expected a folder {split} in {root}, found {', '.join(splits)}: make one, or ask for one of these splits"
        )
    folders = [folder for name in splits or ["."] for folder in (root / name).iterdir()]
    class_names = tuple(sorted({f.name for f in folders if f.is_dir() and not f.name.startswith(".")}))
    chosen = root / split if splits else root
    files = [
        ((chosen / name).relative_to(root).as_posix() + "/" + file, label)
        for label, name in enumerate(class_names)
        for file in image_files(chosen / name)
    ]
    if not files:
        raise FileNotFoundError(
            f"expected images as {chosen}/<class>/<name> with a suffix out of {', '.join(SUFFIXES)}, found none: "
            "put each class in a folder of its own there, or correct root="
        )
    return files, class_names


def _sizes(root: Path, image_ids: list[str], title: str) -> Tensor:
    """Width and height of each image, int64 (N, 2); of a few thousand at a time, for what a thread has to do takes room."""
    sizes = torch.zeros(len(image_ids), 2, dtype=torch.int64)
    with (
        ThreadPoolExecutor() as threads,
        tqdm(total=len(sizes), desc=title, unit="images", disable=len(sizes) < CHUNK) as bar,
    ):
        for start in range(0, len(sizes), CHUNK):
            here = image_ids[start : start + CHUNK]
            sizes[start : start + CHUNK] = torch.tensor(list(threads.map(lambda name: image_size(root / name), here)))
            bar.update(len(here))
    return sizes


def _read_coco(path: Path, root: Path, flat: bool) -> dict[str, tuple[list, tuple]]:
    """File name -> its boxes as printed (x, y, width, height) and the printed size, for images that have any box."""
    try:
        content = coco.read_json(path)
        listed = {entry["id"]: entry for entry in content["images"]}
        names = {key: Path(entry["file_name"]).as_posix() for key, entry in listed.items()}
        categories = {entry["id"]: entry["name"] for entry in content.get("categories", [])}
        boxes: dict[str, tuple[list, tuple]] = {}
        boxed: list[tuple[str, str | None]] = []
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                key = annotation["image_id"]
                boxed.append((names[key], categories.get(annotation.get("category_id"))))
                size = (listed[key].get("width"), listed[key].get("height"))
                boxes.setdefault(names[key], ([], size))[0].append(annotation["bbox"])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"expected COCO JSON in {path}: images with id and file_name, annotations with image_id (one of these) and "
            "bbox, "
            f"found something else ({type(error).__name__}: {error}): export the annotations again"
        ) from error
    for name in names.values():
        if Path(name).is_absolute() or ".." in Path(name).parts or not os.path.isfile(root / name):
            raise ValueError(
                f"expected each file_name of {path} below {root}, found no file {name} there: write names relative to "
                "that "
                "folder, as class/name.jpg"
            )
    for name, category in boxed if categories and not flat else []:
        parts = Path(name).parts
        if category != (found := parts[1] if parts[0] in SPLITS else parts[0]):
            raise ValueError(
                f"expected boxes of the class {found} for {name} in {path}, found the category {category}: correct it, "
                "or take the list categories out of the file if all boxes are of their image's class"
            )
    return boxes


def _fitted(entry: tuple[list, tuple], name: str, size: tuple[int, int], path: Path) -> Tensor:
    """Printed boxes of one image -> float32 (k, 4), xyxy, cut at the border of the image of this ``size``."""
    printed, printed_size = entry
    if None not in printed_size and printed_size != size:
        raise ValueError(
            f"expected {name} of {' x '.join(map(str, printed_size))} pixels, as {path} says, found {size[0]} x "
            f"{size[1]} "
            "(turned as its EXIF says): draw the boxes on the image as it is now"
        )
    boxes = []
    for box in printed:
        try:
            x, y, width, height = coco.xywh(box)
            x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + width, size[0]), min(y + height, size[1])
            if not (x1 < x2 and y1 < y2):  # nor for nan
                raise ValueError
        except ValueError:
            raise ValueError(
                f"expected boxes x, y, width, height of some area inside {name} of {size[0]} x {size[1]} pixels in "
                f"{path}, "
                f"found {box}: correct or remove it"
            ) from None
        boxes.append((x1, y1, x2, y2))
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
