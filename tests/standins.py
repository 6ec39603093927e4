"""Small data sets in the layouts of the real ones, written by the tests that need them."""

import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WNIDS = ("n03", "n01", "n02")  # not sorted, as in the real wnids.txt
WORDS = {"n01": "goldfish, Carassius auratus", "n02": "bullfrog", "n03": "brain coral"}
PER_CLASS = 12
SLIVER = (0, 0, 63, 0)  # of the second training image of each class, as printed


def needs(folder: str) -> pytest.MarkDecorator:
    """Run only where the data root has this folder."""
    there = (Path(os.environ.get("WSOL_DATA") or "/nowhere") / folder).is_dir()
    return pytest.mark.skipif(not there, reason=f"needs {folder} below WSOL_DATA")


def jpeg(colour=(200, 30, 30), size=(64, 64), mode="RGB", **save) -> bytes:
    """A flat picture; JPEG keeps its colour to a few steps of 255."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(content, "JPEG", quality=95, **save)
    return content.getvalue()


def colour_of(number: int) -> tuple[int, int, int]:
    return 10 * (number % 25), 255 - 10 * (number % 25), 128


def tiny_imagenet(root: Path) -> Path:
    """tiny-imagenet-200/ with 3 classes, 12 training and 2 validation images each; the n-th is in ``colour_of(n)``."""
    folder = root / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("".join(f"{wnid}\t{words}\n" for wnid, words in WORDS.items()))
    for wnid in WNIDS:
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        rows = []
        for n in range(PER_CLASS):
            (images / f"{wnid}_{n}.JPEG").write_bytes(jpeg(colour_of(n)))
            box = SLIVER if n == 1 else (n, 2, 40 + n, 63)
            rows.append("\t".join([f"{wnid}_{n}.JPEG", *map(str, box)]))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("\n".join(rows) + "\n")
    rows = []
    for n in range(2 * len(WNIDS)):
        (folder / "val" / "images" / f"val_{n}.JPEG").write_bytes(jpeg(colour_of(n)))
        rows.append(f"val_{n}.JPEG\t{WNIDS[n % 3]}\t0\t0\t{30 + n}\t63")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    return folder


def zipped(folder: Path) -> Path:
    """``folder`` as a zip beside it, the folder itself as its top."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder.parent))
    return archive


def colour_at_centre(image) -> np.ndarray:
    return np.asarray(image)[:, image.shape[1] // 2, image.shape[2] // 2].astype(int)


def sideways() -> Image.Exif:
    """EXIF that asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def photographs(root: Path, names: Iterable[str], size=(48, 36)) -> Path:
    """A folder of files with something in them: noise, a bright square in the left half; each its own."""
    for n, name in enumerate(names):
        pixels = np.random.default_rng(n).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
        pixels[size[1] // 4 : -size[1] // 4, n % 4 : size[0] // 2] += np.uint8(150)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


#: Folder of the public lists -> of each of their splits the images, with the class of each: names as there
LISTED = {
    "CUB": {
        split: [(f"{k + 1:03}.Bird_{k}/{split}_{n}.jpg", k) for k in range(2) for n in range(3)]
        for split in ("train", "val", "test")
    },
    "ILSVRC": {
        "train": [
            (f"train/{wnid}/{wnid}_{n}.JPEG", k) for k, wnid in enumerate(("n01440764", "n01443537")) for n in range(3)
        ],
        "val": [(f"val2/{k}/{n}.jpeg", k) for k in range(2) for n in range(2)],
        "test": [(f"val/ILSVRC2012_val_{n:08}.JPEG", n % 2) for n in range(4)],
    },
}
SIZES_OF_LISTED = ((60, 44), (44, 60), (52, 52))


def wsolevaluation(root: Path) -> Path:
    """The public lists of CUB and ImageNet with images of several sizes; of ImageNet's training images labels alone."""
    for data, splits in LISTED.items():
        for split, images in splits.items():
            lists = root / "wsolevaluation" / "metadata" / data / split
            lists.mkdir(parents=True)
            sizes = [SIZES_OF_LISTED[n % len(SIZES_OF_LISTED)] for n in range(len(images))]
            for (name, _), size in zip(images, sizes):
                photographs(root / "wsolevaluation" / "dataset" / data, [name], size)
            rows = {"class_labels": [f"{name},{label}" for name, label in images]}
            if (data, split) != ("ILSVRC", "train"):
                rows["image_sizes"] = [f"{name},{w},{h}" for (name, _), (w, h) in zip(images, sizes)]
                rows["localization"] = [f"{name},2,5,{w // 2},{h - 9}" for (name, _), (w, h) in zip(images, sizes)]
            for file, lines in rows.items():
                (lists / f"{file}.txt").write_text("\n".join(lines) + "\n")
    return root
