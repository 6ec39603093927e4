"""Image files: bytes go in, RGB pixels come out, or one sentence that names the file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """Bytes of an image file -> uint8 (H, W, 3), RGB, turned as its EXIF says.

    Raises ValueError with ``name`` if the bytes are not a whole image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"expected an image in {name}, found {len(content):,} bytes that cannot be read as one ({error}): "
            "replace the file or fetch the data again"
        ) from error
