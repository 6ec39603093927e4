"""Image files: bytes go in, RGB pixels come out, or one sentence that names the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

# what Pillow raises for files that are no whole image
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_rgb(content: bytes, name: str, turn: bool = True) -> np.ndarray:
    """Bytes of an image file -> uint8 (H, W, 3), RGB, turned as its EXIF says.

    ``turn=False`` leaves the pixels as they are stored: published boxes were drawn on those, and some EXIF are wrong.

    Raises ValueError with ``name`` if the bytes are not a whole image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array((ImageOps.exif_transpose(image) if turn else image).convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(
            f"expected an image in {name}, found {len(content):,} bytes that cannot be read as one ({error}): "
            "replace the file or fetch the data again"
        ) from error


def turned_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, turned as its EXIF says, from its first bytes where the format allows it.

    Raises ValueError with ``path`` if the file is not an image.
    """
    try:
        with Image.open(path) as image:
            sideways = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return image.size[::-1] if sideways else image.size
    except UNREADABLE as error:
        raise ValueError(
            f"expected an image in {path}, found something that cannot be read as one ({error}): replace or remove the "
            "file"
        ) from error
