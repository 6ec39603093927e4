"""Tiny-ImageNet-200: 64 x 64 photographs of 200 ImageNet classes, each with one box, read in the official layout.

``tiny-imagenet-200/`` or ``tiny-imagenet-200.zip`` below the data root, as published for Stanford's course CS231n. Images are
decoded once into a memory-mapped array in the cache; every later epoch reads pixels, not files.

Conventions, each found out from the files:

- Classes are numbered in the order of their sorted WordNet ids, as in ImageNet.
- The published box corners are indices of pixels, both included (the largest is 63), so 1 is added to the lower right corner
  to get continuous edges. 41 of the 10,000 validation boxes (and some training boxes) have no width or no height as printed;
  read this way they are slivers of one pixel at the border and stay in the data: nobody's score is helped by leaving them out.
- ``test`` is the validation set (the published test images have no labels). ``train-fullsup`` is, of each class, the first ten
  training images whose box is not a sliver; ``train-weaksup`` is the rest.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib.cache import atomic_path, cache_dir
from wsol_lib.data.images import decode_rgb
from wsol_lib.data.sample import LocalizationDataset

SIDE = 64
FULLSUP_PER_CLASS = 10
CHUNK = 1000  # images decoded before they are written
FETCH = "fetch the data with `python data_scripts/tiny_imagenet.py --root DIR`"

Row = tuple[str, str, list[int]]  # file inside the data set, WordNet id, printed box


class TinyImageNet(LocalizationDataset):
    """Tiny-ImageNet-200; see the module's docstring for what is decided where the files leave it open.

    Parameters
    ----------
    split: "train-weaksup" (98,000 images), "train-fullsup" (2,000) or "test" (10,000)
    root: folder with ``tiny-imagenet-200/`` or ``tiny-imagenet-200.zip``
    transform: applied to each Sample

    Beside the attributes of every data set: ``wnids``, the WordNet id of each class.

    Raises
    ------
    FileNotFoundError: neither folder nor zip, or a file that the lists name is missing
    ValueError: a damaged zip, list or image
    """

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        source = _Source(root)
        self.wnids = tuple(sorted(source.text("wnids.txt").split()))
        rows = _validation_rows(source) if split == "test" else _training_rows(source, self.wnids, split)
        boxes = torch.tensor([box for _, _, box in rows], dtype=torch.float32)
        boxes[:, 2:] += 1
        number = {wnid: k for k, wnid in enumerate(self.wnids)}
        words = dict(line.split("\t", 1) for line in source.text("words.txt").splitlines())
        super().__init__(
            name="tiny-imagenet",
            split=split,
            class_names=tuple(words[wnid].split(",")[0] for wnid in self.wnids),
            labels=torch.tensor([number.get(wnid, -1) for _, wnid, _ in rows]),
            boxes=list(boxes[:, None]),
            image_sizes=torch.full((len(rows), 2), SIDE),
            image_ids=[Path(member).name for member, _, _ in rows],
            transform=transform,
        )
        self._pixels = _decoded(source, split, [member for member, _, _ in rows])

    def _image(self, i: int) -> Tensor:
        return torch.from_numpy(self._pixels[i].copy()).permute(2, 0, 1)


class _Source:
    """The files of the data set by their names inside it, out of the folder or out of the zip."""

    def __init__(self, root: Path):
        folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
        self.path = folder if folder.is_dir() else archive
        if folder.is_dir():
            self._read = lambda member: (folder / member).read_bytes()
        elif archive.is_file():
            try:
                opened = zipfile.ZipFile(archive)
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"expected a whole zip at {archive}, found one that is damaged or cut short ({error}): delete it and {FETCH}"
                ) from error
            self._read = lambda member: opened.read(f"tiny-imagenet-200/{member}")
        else:
            raise FileNotFoundError(
                f"expected tiny-imagenet-200/ or tiny-imagenet-200.zip in {root}, found neither: {FETCH}"
            )

    def read(self, member: str) -> bytes:
        try:
            return self._read(member)
        except (FileNotFoundError, KeyError) as error:
            raise FileNotFoundError(f"expected {member} in {self.path}, found no such file: {FETCH} again") from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"expected {member} in {self.path}, found it damaged ({error}): {FETCH} again") from error

    def text(self, member: str) -> str:
        return self.read(member).decode()


def _validation_rows(source: _Source) -> list[Row]:
    lines = [line.split("\t") for line in source.text("val/val_annotations.txt").splitlines()]
    return [(f"val/images/{name}", wnid, _printed_box(box, name)) for name, wnid, *box in lines]


def _training_rows(source: _Source, wnids: tuple[str, ...], split: str) -> list[Row]:
    rows = []
    for wnid in wnids:
        lines = [line.split("\t") for line in source.text(f"train/{wnid}/{wnid}_boxes.txt").splitlines()]
        of_class = [(f"train/{wnid}/images/{name}", wnid, _printed_box(box, name)) for name, *box in lines]
        solid = [row for row in of_class if row[2][0] < row[2][2] and row[2][1] < row[2][3]]
        held_out = solid[:FULLSUP_PER_CLASS]
        rows += held_out if split == "train-fullsup" else [row for row in of_class if row not in held_out]
    return rows


def _printed_box(fields: list[str], name: str) -> list[int]:
    """x1, y1, x2, y2 as printed, pixels counted from 0, both corners included."""
    try:
        x1, y1, x2, y2 = map(int, fields)
        if not (0 <= x1 <= x2 < SIDE and 0 <= y1 <= y2 < SIDE):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"expected x1, y1, x2, y2 with x1 <= x2 and y1 <= y2 in 0 ... {SIDE - 1} for {name}, found {fields}: {FETCH} again"
        ) from None
    return [x1, y1, x2, y2]


def _decoded(source: _Source, split: str, members: list[str]) -> np.ndarray:
    """All images as a memory-mapped uint8 array (N, 64, 64, 3); decoded on the first call, read from the cache later."""
    facts = source.path.stat()
    key = hashlib.sha256(repr((str(source.path.resolve()), facts.st_mtime_ns, facts.st_size, members)).encode())
    path = cache_dir() / "tiny-imagenet" / f"{split}-{key.hexdigest()[:16]}.npy"
    if not path.exists():
        with atomic_path(path) as temporary, ThreadPoolExecutor() as threads:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(members), SIDE, SIDE, 3))
            starts = range(0, len(members), CHUNK)
            for start in tqdm(starts, f"decoding {split}", unit=f"{CHUNK:,} images", disable=len(members) < 5000):
                chunk = slice(start, start + CHUNK)
                array[chunk] = list(threads.map(partial(_decode, source), members[chunk]))
            array.flush()
    return np.load(path, mmap_mode="r")


def _decode(source: _Source, member: str) -> np.ndarray:
    pixels = decode_rgb(source.read(member), member)
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(
            f"expected {SIDE} x {SIDE} pixels in {member}, found {pixels.shape[1]} x {pixels.shape[0]}: {FETCH} again"
        )
    return pixels
