"""OpenImages30k: 100 classes whose truth is masks, read from the public lists and their mask files.

See :mod:`wsol_lib.data.metadata` for the lists. ``localization.txt`` names, for each image of ``train-fullsup`` and
``test``, one or more object masks and one ignore mask. Mask files lie with the images or without them.

- The mask is the union of an image's object masks. A pixel of the ignore mask is not counted, unless an object mask has
  it too: the object wins.
- Mask files have a resolution of their own, often 1,600 pixels wide. A Sample has them at the size of its image;
  ``masks(i, size)`` reads them at any size, nearest pixel, in one step and without the image. At 224 x 224 these are
  exactly the masks that the authors' code compares, whatever the size of the images on this disk.
- Of 1-bit, grey, RGB and RGBA files, all of which occur, every pixel that is not black counts; transparency does not.
- There are neither boxes nor sizes: ``boxes`` are empty and ``image_sizes`` 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wsol_lib.data.images import decode_mask, image_bytes
from wsol_lib.data.metadata import FETCH, ListedDataset, places_of, read_lines
from wsol_lib.data.sample import resized_mask


class OpenImages(ListedDataset):
    """OpenImages30k, 100 classes: 29,819 / 2,500 / 5,000 images, the latter two with masks.

    Args:
        split: "train-weaksup" (no masks), "train-fullsup" or "test"
        root: folder with ``wsolevaluation/metadata/`` and, if images or masks are asked for,
            ``wsolevaluation/dataset/OpenImages/`` or ``OpenImages/``, either with ``train/``, ``val/`` and ``test/``
        transform: applied to each Sample

    Beside the attributes of every data set: ``mask_files``, of each image its object masks, and ``ignore_files``.

    Raises:
        FileNotFoundError: a list is missing; ``[i]``, ``masks``: an image or mask is
        ValueError: a list is damaged; ``[i]``, ``masks``: an image or mask is
    """

    list_folder = "OpenImages"
    image_folders = ("wsolevaluation/dataset/OpenImages", "OpenImages")
    num_classes = 100
    boxed_splits = ()

    def __init__(self, split: str, root: Path, transform: Callable | None = None):
        super().__init__(split, root, transform)
        self.mask_files, self.ignore_files = (
            ([], []) if split == "train-weaksup" else _read_masks(self.lists / "localization.txt", self.image_ids)
        )

    def masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        i = self._checked(index)
        if not self.mask_files:
            return None, None
        mask = torch.stack([self._mask_file(name, size) for name in self.mask_files[i]]).any(0)
        return mask, self._mask_file(self.ignore_files[i], size) & ~mask

    def _mask_file(self, name: str, size: tuple[int, int]) -> Tensor:
        path = self._find(name)
        if path is None:
            raise self._missing(f"the mask {name}")
        return resized_mask(torch.from_numpy(decode_mask(image_bytes(path), str(path))), size)

    @staticmethod
    def _name(folder: str) -> str:
        return f"/m/{folder}"  # the lists have OpenImages' machine ids, no words


def _read_masks(path: Path, image_ids: list[str]) -> tuple[list[list[str]], list[str]]:
    """Object mask files and the ignore mask file of each image; an image's first row alone names the latter."""
    rows = [line.rsplit(",", 2) for line in read_lines(path)]
    mask_files: list[list[str]] = [[] for _ in image_ids]
    ignore_files = [""] * len(image_ids)
    bad = next((row for row in rows if len(row) != 3 or not row[1]), None)
    if bad is None:
        places = places_of([row[0] for row in rows], {image_id: i for i, image_id in enumerate(image_ids)}, path)
        for place, row in zip(places.tolist(), rows, strict=True):
            if bool(row[2]) != (not mask_files[place]):
                bad = row
                break
            mask_files[place].append(row[1])
            ignore_files[place] = ignore_files[place] or row[2]
    if bad is not None:
        raise ValueError(
            f"expected rows of an image id, its mask and, in its first row alone, what to ignore in {path}, found "
            f"{','.join(bad)!r}: {FETCH}"
        )
    return mask_files, ignore_files
