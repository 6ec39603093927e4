"""Reading speed: images a second of every reader beside torchvision's ImageFolder, and seconds to read annotations.

    python benchmarks/data.py                 # on files that it makes
    python benchmarks/data.py --root DIR      # and on what DIR holds: tiny-imagenet-200/, wsolevaluation/, CUB_200_2011/

Three tables. *Training batches*: JPEG files of 400 x 350 pixels, resized to 256, cropped to 224 and flipped, from each
reader (boxes and masks moved along; masks are two more files an image) and from a plain ImageFolder (PIL images, same
transform). *Tiny-ImageNet*: the validation set in shuffled batches of uint8 (n, 3, 64, 64) from its cache and decoded
from its files; "images" is ``dataset.images(indices)``, batch by batch, "batches" all that is known of the samples
(``dataset.batch(indices)``), "samples" the same as one ``Sample`` each. *Annotations*:
of all images, none opened. Each is run once to warm up; then the contestants take turns, three times, and the fastest
run of each counts.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from wsol_lib.book.runner import CPU_SETTINGS
from wsol_lib.data import Batch, Sample, load_dataset
from wsol_lib.data.transforms import random_crop

REPEATS = 3
WIDTH, HEIGHT = 400, 350
FOLDERS = {"cub": "CUB_200_2011/images", "imagenet": "ILSVRC/train", "openimages": "OpenImages", "folder": "folder"}
CLASS_FOLDERS = {"cub": "001.Bird", "imagenet": "n01440764", "openimages": "val/0bt_c3", "folder": "bird"}
CONTESTANTS = {  # row -> reader, split
    "cub": ("cub", "train-weaksup"),
    "imagenet": ("imagenet", "train-weaksup"),
    "openimages": ("openimages", "train-weaksup"),
    "openimages with masks": ("openimages", "train-fullsup"),
    "folder": ("folder", "train-weaksup"),
}


class Batches(Dataset):
    """What ``read`` gives of a list of indices, for a loader that is given batches of indices."""

    def __init__(self, read: Callable[[list[int]], tuple]):
        self.read = read

    def __getitem__(self, indices: list[int]) -> tuple:
        return self.read(indices)


def whole(batch: Batch) -> tuple[Tensor, Tensor, list[str], Tensor, list[int]]:
    """All of a batch without masks; the boxes in one tensor, for a worker sends each by itself."""
    return batch.images, batch.labels, batch.image_ids, torch.cat(batch.boxes), [len(boxes) for boxes in batch.boxes]


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in samples])
    return images, torch.tensor([sample.label for sample in samples])


def rates(loaders: dict[str, Callable[[], DataLoader]], n_images: int) -> dict[str, float]:
    """Images a second of each; they take turns, so that other programs of the machine slow all of them alike."""
    seconds = {name: [] for name in loaders}
    for _ in range(1 + REPEATS):
        for name, make in loaders.items():
            loader = make()
            start = time.perf_counter()
            found = sum(len(images) for images, *_ in loader)
            seconds[name].append(time.perf_counter() - start)
            assert found == n_images
    return {name: n_images / min(found[1:]) for name, found in seconds.items()}


def make_files(root: Path, n_images: int) -> None:
    """The same photographs, blurred noise, in the layout of each reader; OpenImages with two masks for each."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(n_images):
        content = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8))
        noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        contents.append(content.getvalue())
    ids = {}
    for name, folder in FOLDERS.items():
        class_folder = CLASS_FOLDERS[name]
        (root / folder / class_folder).mkdir(parents=True)
        suffix = "JPEG" if name == "imagenet" else "jpg"
        ids[name] = [f"{class_folder}/{i:04}.{suffix}" for i in range(n_images)]
        for image_id, content in zip(ids[name], contents, strict=True):
            (root / folder / image_id).write_bytes(content)
    numbered = list(enumerate(ids["cub"], 1))
    for file, row in (
        ("images", "{1}"),
        ("image_class_labels", "1"),
        ("train_test_split", "1"),
        ("bounding_boxes", "50 40 200 150"),
    ):
        (root / f"CUB_200_2011/{file}.txt").write_text("".join(f"{k} {row.format(k, i)}\n" for k, i in numbered))
    stems = [image_id[:-4] for image_id in ids["openimages"]]
    rows = {"train": "", "val": "".join(f"{stem}.jpg,{stem}_m.png,{stem}_ignore.png\n" for stem in stems)}
    for split, localization in rows.items():
        lists = root / "wsolevaluation/metadata/OpenImages" / split
        lists.mkdir(parents=True)
        (lists / "class_labels.txt").write_text("".join(f"{stem}.jpg,0\n" for stem in stems))
        (lists / "localization.txt").write_text(localization)
    mask = Image.new("1", (WIDTH, HEIGHT))
    mask.paste(1, (50, 40, 250, 190))
    for stem in stems:
        for kind in ("m", "ignore"):
            mask.save(root / "OpenImages" / f"{stem}_{kind}.png")


def training_batches(n_images: int, batch: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_files(root, n_images)
        pil_transform = v2.Compose(
            [v2.Resize((256, 256)), v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        )
        plain = ImageFolder(root / FOLDERS["cub"], transform=pil_transform)
        datasets = {
            row: load_dataset(reader, split, root / "folder" if reader == "folder" else root, transform=random_crop())
            for row, (reader, split) in CONTESTANTS.items()
        }
        print(f"\n{n_images} images of {WIDTH} x {HEIGHT} pixels, batches of {batch} at 224 x 224\n")
        print(
            "| images a second | 0 workers | 2 workers | factor, 0 workers | factor, 2 workers |\n|---|---|---|---|---|"
        )

        def loaders(workers: int) -> dict[str, Callable[[], DataLoader]]:
            def make(dataset, collate_fn=None):
                return lambda: DataLoader(dataset, batch, shuffle=True, collate_fn=collate_fn, num_workers=workers)

            return {"ImageFolder": make(plain), **{name: make(data, collate) for name, data in datasets.items()}}

        print_factors([rates(loaders(workers), n_images) for workers in (0, 2)])


def tiny_imagenet(root: Path, batch: int) -> None:
    dataset = load_dataset("tiny-imagenet", "test", root)
    files = ImageFolder(root / "tiny-imagenet-200" / "val", transform=v2.PILToTensor())
    dataset.images([0])  # decodes them all, once
    mirrored = load_dataset("tiny-imagenet", "test", root, transform=v2.RandomHorizontalFlip())
    reads = {
        "cache, batches": lambda indices: whole(dataset.batch(indices)),
        "cache, batches, half mirrored": lambda indices: whole(mirrored.batch(indices)),
        "cache, images": lambda indices: (dataset.images(indices), dataset.labels[indices]),
    }

    def loaders(workers: int) -> dict[str, Callable[[], DataLoader]]:
        sampler = BatchSampler(RandomSampler(dataset), batch, drop_last=False)

        def make(read: Callable) -> Callable[[], DataLoader]:
            return lambda: DataLoader(Batches(read), sampler=sampler, batch_size=None, num_workers=workers)

        return {
            "ImageFolder, files": lambda: DataLoader(files, batch, shuffle=True, num_workers=workers),
            "cache, samples": lambda: DataLoader(dataset, batch, shuffle=True, collate_fn=collate, num_workers=workers),
            **{name: make(read) for name, read in reads.items()},
        }

    print(f"\nTiny-ImageNet, {len(dataset):,} images of 64 x 64 pixels, batches of {batch}\n")
    print("| images a second | 0 workers | 2 workers | factor, 0 workers | factor, 2 workers |\n|---|---|---|---|---|")
    print_factors([rates(loaders(workers), len(dataset)) for workers in (0, 2)])


def print_factors(measured: list[dict[str, float]]) -> None:
    """One row a contestant; factors over the first."""
    first = next(iter(measured[0]))
    for name in measured[0]:
        cells = [f"{m[name]:,.0f}" for m in measured] + [f"{m[name] / m[first]:.2f}" for m in measured]
        print(f"| {name} | {' | '.join(cells)} |")


def annotations(root: Path) -> None:
    print("\n| annotations of | images | boxes | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "CUB_200_2011").symlink_to((root / "CUB_200_2011").resolve())
        for title, reader, splits, folder in (
            ("cub, public lists", "cub", ("train-weaksup", "test"), root),
            ("cub, official files", "cub", ("train-weaksup", "test"), Path(name)),
            ("imagenet test, public lists", "imagenet", ("test",), root),
            ("openimages test, mask files listed", "openimages", ("test",), root),
        ):
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                read = [load_dataset(reader, split, folder) for split in splits]
                seconds.append(time.perf_counter() - start)
            boxes = sum(len(b) for dataset in read for b in dataset.boxes)
            print(f"| {title} | {sum(map(len, read)):,} | {boxes:,} | {min(seconds):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("WSOL_DATA"), help="real data (default: $WSOL_DATA)"
    )
    parser.add_argument("--images", type=int, default=256, help="files to make for the training batches (default: 256)")
    args = parser.parse_args()
    if not CPU_SETTINGS.keys() <= os.environ.keys():  # as every command of the library sets them for itself
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | CPU_SETTINGS)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores")
    training_batches(args.images, batch=32)
    root = Path(args.root) if args.root else Path("nowhere")
    if (root / "tiny-imagenet-200").is_dir():
        tiny_imagenet(root, batch=128)
    if (root / "wsolevaluation").is_dir() and (root / "CUB_200_2011").is_dir():
        annotations(root)


if __name__ == "__main__":
    main()
