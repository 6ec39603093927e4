"""Image files as RGB pixels; what cannot be read is named in one sentence."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

# What Pillow raises for files that are no whole image: there is no list of it, each format has errors of its own.
UNREADABLE = Exception


def image_bytes(path: Path) -> bytes:
    """Content of an image file; ValueError with ``path`` if it is none or cannot be read."""
    try:
        _raise_if_no_file(path)
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(b"", str(path), error) from error


def _raise_if_no_file(path: Path) -> None:
    if not os.path.isfile(path):  # opened, a pipe would be waited for until somebody writes to it
        raise OSError("no file, but a folder, a pipe or nothing at all")


def decode_rgb(content: bytes, name: str, turn: bool = True, least: int | None = None) -> np.ndarray:
    """Bytes of an image file -> uint8 (H, W, 3), RGB, turned as its EXIF says.

    ``turn=False`` leaves the pixels as they are stored: published boxes were drawn on those, and some EXIF are wrong.
    The format is told by the content, not by the name. Greyscale, CMYK and palettes become RGB, of 16 bits the upper 8
    are kept, and what lies under transparent pixels is shown. Floating-point pixels are refused: nobody says which number
    is white. A JPEG is decoded at a half, a quarter or an eighth of its
    sides as long as none gets shorter than ``least``, which takes a fraction of the time.

    Raises ValueError with ``name`` if the bytes are not a whole image.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if least is not None:
                opened.draft(None, (least, least))
            image = ImageOps.exif_transpose(opened) if turn else opened
            _raise_if_floating(image)
            if image.mode.startswith("I"):  # convert would cut off at 255
                return np.repeat((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except UNREADABLE as error:
        raise _unreadable(content, name, error) from error


def decode_mask(content: bytes, name: str) -> np.ndarray:
    """Bytes of a mask file, 1-bit, grey, RGB or RGBA -> bool (H, W), True where it is not black; errors as above."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            _raise_if_floating(image)
            return np.array(image.convert("L")) > 0
    except UNREADABLE as error:
        raise _unreadable(content, name, error) from error


def _raise_if_floating(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, save them with 8 or 16 bits")


def _unreadable(content: bytes, name: str, error: Exception) -> ValueError:
    return ValueError(
        f"expected an image in {name}, found {len(content):,} bytes that cannot be read as one ({error}): replace the file "
        "or fetch the data again"
    )


def image_size(path: Path, turn: bool = True) -> tuple[int, int]:
    """Width and height of an image file, from its first bytes where the format allows it; ``turn`` as above.

    Raises ValueError with ``path`` if the file is not an image.
    """
    try:
        _raise_if_no_file(path)
        with Image.open(path) as image:
            sideways = turn and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return image.size[::-1] if sideways else image.size
    except UNREADABLE as error:
        raise ValueError(
            f"expected an image in {path}, found something that cannot be read as one ({error}): replace or remove the "
            "file"
        ) from error


def read_square(path: Path, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """An image file as a network sees it, for those who need no more of it.

    Args:
        path: the file
        side: in pixels, of the square to which the image is resized, bicubic with antialiasing as everywhere; of a large
            JPEG no more is decoded than a shorter side of two to four times that

    Returns:
        uint8 (side, side, 3), RGB, turned as its EXIF says; and the turned image's width and height

    Raises:
        ValueError: with ``path``, if the file cannot be read as a whole image
    """
    size = image_size(path)
    pixels = Image.fromarray(decode_rgb(image_bytes(path), str(path), least=2 * side))
    return np.array(pixels.resize((side, side), Image.Resampling.BICUBIC)), size
