"""COCO JSON of one box an image: written row by row, so that a million images take no memory, and read back.

The format is that of pycocotools and of labelling tools: ``images`` with id, file_name, width and height, ``categories``,
``annotations`` with image_id, category_id and ``bbox`` as x, y, width, height in pixels, beside them ``score`` where there
is one, and ``info`` with whatever is to be said of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from wsol_lib.cache import atomic_path


def write(path: Path | str, info: dict[str, Any], **lists: Iterable[dict[str, Any]]) -> None:
    """Write a COCO file, whole or not at all; one that is there is replaced.

    Args:
        path: the file
        info: about the whole
        lists: images, categories, annotations: their rows, which are not kept

    Raises:
        ValueError: something that JSON has no word for, such as NaN
    """
    try:
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write('{"info": ' + json.dumps(info, allow_nan=False))
            for name, rows in lists.items():
                file.write(f', "{name}": [')
                for n, row in enumerate(rows):
                    file.write((", " if n else "") + json.dumps(row, allow_nan=False))
                file.write("]")
            file.write("}")
    except TypeError as error:
        raise ValueError(
            f"expected settings of numbers, strings, lists and dicts, found other things ({error}): turn them into these"
        ) from error


def annotation(number: int, image: int, category: int, box: Iterable[float], score: float | None = None) -> dict:
    """One row of ``annotations``.

    Args:
        number, image, category: ids of the row, its image and its class
        box: x1, y1, x2, y2 in pixels of the image
        score: in [0, 1], or None
    """
    x1, y1, x2, y2 = map(float, box)
    width, height = x2 - x1, y2 - y1
    row = {"id": number, "image_id": image, "category_id": category, "bbox": [x1, y1, width, height]}
    return row | {"area": width * height, "iscrowd": 0} | ({} if score is None else {"score": score})


def xywh(printed: Any) -> tuple[float, float, float, float]:
    """The ``bbox`` of a row: x, y, width, height; ValueError if it is not a list of four numbers that a picture may have."""
    if not isinstance(printed, list | tuple) or len(printed) != 4 or not all(map(_is_pixels, printed)):
        raise ValueError(f"{printed!r} where a bbox of four numbers should be")
    return tuple(map(float, printed))


def _is_pixels(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < 2**31  # a bool is no number here, nor is NaN


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError if it has none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, RecursionError) as error:  # of lists that are nested a thousand deep
        raise ValueError(str(error)) from error


class Listed(NamedTuple):
    """What a COCO file says of one image: its size, where it says so, and the best of its boxes, where it has some."""

    size: tuple[int, int] | None
    box: tuple[float, float, float, float] | None  # x1, y1, x2, y2
    boxes: int


def read_best(path: Path) -> dict[str, Listed]:
    """File name -> the box of the highest score of each image that a COCO file lists; of equal scores the first.

    Raises:
        FileNotFoundError: no such file
        ValueError: something else than COCO JSON
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected boxes in {path}, found no such file: correct the path")
    best: dict[Any, tuple[float, tuple, int]] = {}
    try:
        content = read_json(path)
        images = {row["id"]: row for row in content["images"]}
        for row in (row for row in content["annotations"] if not row.get("iscrowd")):
            x, y, width, height = xywh(row["bbox"])
            key, score = images[row["image_id"]]["id"], float(row.get("score", 1))
            before = best.get(key, (float("-inf"), None, 0))
            now = (score, (x, y, x + width, y + height)) if score > before[0] else before[:2]
            best[key] = (*now, before[2] + 1)
        listed = {}
        for key, row in images.items():
            size = (row["width"], row["height"]) if row.get("width") and row.get("height") else None
            _, box, boxes = best.get(key, (0, None, 0))
            listed[row["file_name"]] = Listed(size, box, boxes)
        return listed
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"expected COCO JSON with images and annotations in {path}, found something else "
            f"({type(error).__name__}: {error}): write the boxes again"
        ) from error
