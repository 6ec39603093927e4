"""Data sets by name and split: sequences of samples, the same for every data set.

The three splits are those of "Evaluating WSOL Methods Right" (section 4.2): train on ``train-weaksup`` (labels), choose
on ``train-fullsup`` (boxes), look at ``test`` once.
"""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from pathlib import Path

from wsol_lib.data.sample import (
    Batch,
    LabelsOnly,
    LocalizationDataset,
    Sample,
    Subset,
    drawn_per_class,
    limited_per_class,
    make_sample,
    scaled_boxes,
    scaled_masks,
)

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "LabelsOnly",
    "LocalizationDataset",
    "Sample",
    "Subset",
    "drawn_per_class",
    "limited_per_class",
    "load_dataset",
    "make_sample",
    "scaled_boxes",
    "scaled_masks",
]

SPLITS = ("train-weaksup", "train-fullsup", "test")

# name -> module, class, whether it reads files below a data root; imported when asked for
_READERS = {
    "synthbirds": ("synthbirds", "SynthBirds", False),
    "tiny-imagenet": ("tiny_imagenet", "TinyImageNet", True),
    "cub": ("cub", "CUB", True),
    "imagenet": ("imagenet", "ImageNet", True),
    "openimages": ("openimages", "OpenImages", True),
    "folder": ("folder", "ImageFolder", True),
}
DATASETS = tuple(_READERS)


def load_dataset(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    limit_per_class: int | None = None,
    limit_seed: int = 0,
    **options,
) -> LocalizationDataset:
    """Open one split of a data set.

    Args:
        name: "synthbirds" (generated, needs no files), "tiny-imagenet", "cub", "imagenet", "openimages" or "folder"
        split: "train-weaksup", "train-fullsup" or "test"
        root: folder that holds the data; None takes the one named by the environment variable WSOL_DATA
        limit_per_class: of "train-fullsup", at most so many images of each class (section 5.5); None takes all
        limit_seed: draws which
        options: of the reader; ``transform`` (Sample -> anything) is one of all readers

    Returns:
        a data set: ``len()``, ``[i]`` -> ``Sample``, and without touching an image ``labels`` (N,), ``boxes`` (N tensors
        (k, 4)), ``image_sizes`` (N, 2) as width and height, ``image_ids``, ``class_names`` and ``images_per_class`` (K,).

    Raises:
        ValueError: an unknown name, split or option; content that is not what the format promises
        FileNotFoundError: the data are not there
    """
    if name not in _READERS:
        raise ValueError(f"expected a data set out of {', '.join(_READERS)}, found {name!r}: choose one of these names")
    if split not in SPLITS:
        raise ValueError(f"expected a split out of {', '.join(SPLITS)}, found {split!r}: choose one of these")
    if limit_per_class is not None and split != "train-fullsup":
        raise ValueError(f"expected limit_per_class with train-fullsup, found it with {split}: leave it out there")
    module, class_name, has_root = _READERS[name]
    reader = getattr(import_module(f"wsol_lib.data.{module}"), class_name)
    known = [*list(inspect.signature(reader.__init__).parameters)[2:], "limit_per_class", "limit_seed"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"expected options of {name} out of {', '.join(known)}, found {', '.join(unknown)}: leave out what is not "
            "in the list"
        )
    if has_root:
        options["root"] = _data_root(name, root)
    dataset = reader(split, **options)
    return dataset if limit_per_class is None else limited_per_class(dataset, limit_per_class, limit_seed)


def _data_root(name: str, root: str | Path | None) -> Path:
    chosen = root or os.environ.get("WSOL_DATA")
    if not chosen:
        raise FileNotFoundError(
            f"expected the folder that holds {name} as root= or in the environment variable WSOL_DATA, found neither: "
            "name it, see the page 'Getting the data' for how to fill it"
        )
    if not Path(chosen).is_dir():
        raise FileNotFoundError(
            f"expected a folder that holds {name} at {chosen}, found none: correct root= or WSOL_DATA, or fetch the "
            "data first"
        )
    return Path(chosen)
