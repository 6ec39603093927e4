"""Tiny-ImageNet-200: 64 x 64 photographs of 200 ImageNet classes, each with one box, read in the official layout.

``tiny-imagenet-200/`` or ``tiny-imagenet-200.zip`` below the data root, as published for Stanford's course CS231n.
The first image that is asked for decodes all of its split into a memory-mapped array in the cache; every later epoch reads
pixels, not files. Annotations alone decode nothing.

The array is decoded again if it does not fit:

- the data were changed before it was opened: an image of the split has another size or time of change (of the zip, the zip
  has). Not noticed is an image replaced by one of as many bytes whose time was set back. Where looking at 98,000 files takes
  long, as on a network drive, the zip is the better source;
- it was damaged: its length, its header or its list of checksums is not what was written, or an image, when a process first
  reads it, has another checksum.

Conventions, each found out from the files:

- Classes are numbered in the order of their sorted WordNet ids, as in ImageNet.
- The published box corners are indices of pixels, both included (the largest is 63), so 1 is added to the lower right
  corner to get continuous edges. The whole image then scores 52.1 % at IoU 0.5; were the corners edges, 49.9 %. 41 of
  the 10,000 validation boxes and 434 of the 100,000 training boxes have no width or no height as printed; read this way
  they are slivers of one pixel, all but one of either at the border, and stay in the data: nobody's score is helped by
  leaving them out.
- ``test`` is the validation set (the published test images have no labels). ``train-fullsup`` is, of each class, the
  first ten training images whose box is not a sliver; ``train-weaksup`` is the rest.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib.cache import atomic_path, cache_dir, one_at_a_time
from wsol_lib.data.images import decode_rgb
from wsol_lib.data.sample import LocalizationDataset

SIDE = 64
FULLSUP_PER_CLASS = 10
CHUNK = 1000  # images decoded before they are written
_DIGEST = hashlib.sha256().digest_size
_SUM = np.dtype("<u4")  # of one image
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)  # as damaged files show themselves
FETCH = "fetch the data with `python data_scripts/tiny_imagenet.py --root DIR`"

Row = tuple[str, str, list[int]]  # file inside the data set, WordNet id, printed box


class TinyImageNet(LocalizationDataset):
    """Tiny-ImageNet-200; see the module's docstring for what is decided where the files leave it open.

    Args:
        split: "train-weaksup" (98,000 images), "train-fullsup" (2,000) or "test" (10,000)
        root: folder with ``tiny-imagenet-200/`` or ``tiny-imagenet-200.zip``
        transform: applied to each Sample

    Beside the attributes of every data set: ``wnids``, the WordNet id of each class.

    Raises:
        FileNotFoundError: neither folder nor zip, or a file that the lists name is missing
        ValueError: a damaged zip, list or image
    """

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        source = _Source(root)
        self.wnids = tuple(sorted(source.text("wnids.txt").split()))
        rows = _validation_rows(source, self.wnids) if split == "test" else _training_rows(source, self.wnids, split)
        boxes = torch.tensor([box for _, _, box in rows], dtype=torch.float32)
        boxes[:, 2:] += 1
        number = {wnid: k for k, wnid in enumerate(self.wnids)}
        words = dict(line.split("\t", 1) for line in source.text("words.txt").splitlines() if "\t" in line)
        super().__init__(
            name="tiny-imagenet",
            split=split,
            class_names=tuple(words.get(wnid, wnid).split(",")[0] for wnid in self.wnids),
            labels=torch.tensor([number[wnid] for _, wnid, _ in rows]),
            boxes=list(boxes[:, None]),
            image_sizes=torch.full((len(rows), 2), SIDE),
            image_ids=[Path(member).name for member, _, _ in rows],
            transform=transform,
        )
        self._members = [member for member, _, _ in rows]
        self._root = root

    @cached_property
    def _pixels(self) -> _Pixels:
        return _cached_pixels(_Source(self._root), self.split, self._members)

    def __getstate__(self) -> dict:  # a worker process maps the file itself
        state = super().__getstate__()
        state.pop("_pixels", None)
        return state

    def _image(self, i: int) -> Tensor:
        return self._read([i])[0]

    def _read(self, places: list[int]) -> Tensor:
        pixels = self._pixels.read(places)
        if pixels is None:  # damaged since they were written
            self._pixels = _cached_pixels(_Source(self._root), self.split, self._members, trusted=False)
            pixels = self._pixels.read(places)
        if pixels is None:
            raise ValueError(
                f"expected the images that were just written to {self._pixels.path}, found others: look at the disk, or name "
                "another place in WSOL_CACHE"
            )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class _Source:
    """The files of the data set by their names inside it, out of the folder or out of the zip."""

    def __init__(self, root: Path):
        folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
        self.path = folder if folder.is_dir() else archive
        if folder.is_dir():
            self._read = self._read_file
        elif archive.is_file():
            try:
                opened = zipfile.ZipFile(archive)
            except _DAMAGED as error:
                raise ValueError(
                    f"expected a whole zip at {archive}, found one that is damaged or cut short ({error}): delete it "
                    f"and {FETCH}"
                ) from error
            self._read = lambda member: opened.read(f"tiny-imagenet-200/{member}")
        else:
            raise FileNotFoundError(
                f"expected tiny-imagenet-200/ or tiny-imagenet-200.zip in {root}, found neither: {FETCH}"
            )

    def _read_file(self, member: str) -> bytes:
        if not (self.path / member).is_file():  # nor would a pipe ever end
            raise FileNotFoundError
        return (self.path / member).read_bytes()

    def read(self, member: str) -> bytes:
        try:
            return self._read(member)
        except (FileNotFoundError, KeyError) as error:
            raise FileNotFoundError(f"expected {member} in {self.path}, found no such file: {FETCH} again") from error
        except _DAMAGED as error:
            raise ValueError(f"expected {member} in {self.path}, found it damaged ({error}): {FETCH} again") from error

    def state(self, members: list[str]) -> str:
        """A hash that changes with these files, as far as their sizes and times tell; of a zip, those of the zip."""
        facts = []
        for path in [f"{self.path}/{member}" for member in members] if self.path.is_dir() else [self.path]:
            try:
                found = os.stat(path)
                facts += [found.st_size, found.st_mtime_ns]
            except OSError:  # who reads it says what is wrong
                facts += [0, 0]
        return hashlib.sha256(repr((facts, members)).encode()).hexdigest()

    def text(self, member: str) -> str:
        text = self.read(member).decode(errors="replace")
        if not text.strip():
            raise ValueError(f"expected a list in {member} in {self.path}, found it empty: {FETCH} again")
        return text


def _validation_rows(source: _Source, wnids: tuple[str, ...]) -> list[Row]:
    rows = []
    for line in source.text("val/val_annotations.txt").splitlines():
        name, wnid, *box = line.split("\t") if "\t" in line else (line, "")
        if wnid not in wnids:
            raise ValueError(
                f"expected a class out of the {len(wnids)} in wnids.txt for {name} in val_annotations.txt, found "
                f"{wnid!r}: {FETCH} again"
            )
        rows.append((f"val/images/{name}", wnid, _printed_box(box, name)))
    return rows


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
            f"expected x1, y1, x2, y2 with x1 <= x2 and y1 <= y2 in 0 ... {SIDE - 1} for {name}, found {fields}: "
            f"{FETCH} again"
        ) from None
    return [x1, y1, x2, y2]


class _Pixels:
    """All images of a split, uint8 (N, 64, 64, 3), mapped from a file; each is held against its checksum when it is first read.

    Behind the array, where numpy does not look, the file has the checksum of each image, and one of its header and of these.
    """

    def __init__(self, path: Path, count: int):
        self.path = path
        self.array = np.load(path, mmap_mode="r")
        self.sums = np.fromfile(path, _SUM, count, offset=len(_header(count)) + self.array.nbytes)
        self.unread = np.ones(count, bool)

    def read(self, places: list[int]) -> np.ndarray | None:
        """Some of the images; None if one is not what was written."""
        pixels = self.array[places]
        for k in np.flatnonzero(self.unread[places]).tolist():
            if zlib.crc32(pixels[k]) != self.sums[places[k]]:
                return None
            self.unread[places[k]] = False
        return pixels

    def are_right(self) -> bool:
        """Whether all images are what was written."""
        starts = range(0, len(self.array), CHUNK)
        return all(self.read(list(range(len(self.array)))[start : start + CHUNK]) is not None for start in starts)


def _cached_pixels(source: _Source, split: str, members: list[str], trusted: bool = True) -> _Pixels:
    """All images, from a file that is made on the first call and found in the cache later.

    Several processes that begin together, as a loader's workers do, wait for the first to make it. One that is not
    ``trusted`` is read as a whole.
    """
    place = hashlib.sha256(str(source.path.resolve()).encode()).hexdigest()[:8]
    path = cache_dir() / "tiny-imagenet" / f"{split}-{place}-{source.state(members)[:16]}.npy"
    with one_at_a_time(path.parent):
        if not _is_whole(path, len(members)) or not (trusted or _Pixels(path, len(members)).are_right()):
            _decode_all(source, split, members, path)
            for outdated in path.parent.glob(f"{split}-{place}-*.npy"):
                if outdated != path:  # of the data before they were changed
                    outdated.unlink()
        return _Pixels(path, len(members))


def _decode_all(source: _Source, split: str, members: list[str], path: Path) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor() as threads:
        file.write(header := _header(len(members)))
        sums = []
        starts = range(0, len(members), CHUNK)
        for start in tqdm(starts, f"decoding {split}", unit=f"{CHUNK:,} images", disable=len(members) < 5000):
            # written, not mapped: a full disk is then an OSError and not the end of the process
            for pixels in threads.map(partial(_decode, source), members[start : start + CHUNK]):
                file.write(pixels.tobytes())
                sums.append(zlib.crc32(pixels))
        listed = np.array(sums, _SUM).tobytes()
        file.write(listed + hashlib.sha256(header + listed).digest())


def _is_whole(path: Path, count: int) -> bool:
    """Whether ``path`` is there, as long as it should be, and has the header and the list of checksums that were written."""
    if not path.exists():
        return False
    header, sums = _header(count), count * _SUM.itemsize
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) != len(header) + count * SIDE * SIDE * 3 + sums + _DIGEST:
            return False
        file.seek(-sums - _DIGEST, os.SEEK_END)
        listed, digest = file.read(sums), file.read()
        file.seek(0)
        return digest == hashlib.sha256(file.read(len(header)) + listed).digest()


def _header(count: int) -> bytes:
    header = io.BytesIO()
    shape = (count, SIDE, SIDE, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _decode(source: _Source, member: str) -> np.ndarray:
    pixels = decode_rgb(source.read(member), member, turn=False)
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(
            f"expected {SIDE} x {SIDE} pixels in {member}, found {pixels.shape[1]} x {pixels.shape[0]}: {FETCH} again"
        )
    return pixels
