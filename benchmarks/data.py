"""Images a second: Tiny-ImageNet from its cache beside torchvision's ImageFolder, which decodes the files.

    python benchmarks/data.py --root DIR      # DIR holds tiny-imagenet-200/

Both load the validation set in shuffled batches of uint8 (n, 3, 64, 64), once to warm up and then three times; the
fastest counts. "samples" makes every ``Sample`` with its boxes, one by one; "images" is ``dataset.images(indices)``,
batch by batch.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

from wsol_lib.data import load_dataset
from wsol_lib.train import collate

BATCH = 128
REPEATS = 3


class Batches(torch.utils.data.Dataset):
    """A list of indices -> images and labels, for a loader that is given batches of indices."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, indices: list[int]):
        return self.dataset.images(indices), self.dataset.labels[indices]


def rate(loader: DataLoader, n_images: int) -> float:
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        found = sum(len(images) for images, _ in loader)
        seconds.append(time.perf_counter() - start)
        assert found == n_images
    return n_images / min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=os.environ.get("WSOL_DATA"))
    root = parser.parse_args().root
    torch.set_num_threads(1)
    dataset = load_dataset("tiny-imagenet", "test", root)
    files = ImageFolder(Path(root) / "tiny-imagenet-200" / "val", transform=pil_to_tensor)
    batches = Batches(dataset)

    def by_batch(workers: int) -> DataLoader:
        sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
        return DataLoader(batches, sampler=sampler, batch_size=None, num_workers=workers)

    loaders: dict[str, Callable[[int], DataLoader]] = {
        "ImageFolder, files": lambda workers: DataLoader(files, BATCH, shuffle=True, num_workers=workers),
        "cache, samples": lambda workers: DataLoader(
            dataset, BATCH, shuffle=True, collate_fn=collate, num_workers=workers
        ),
        "cache, images": by_batch,
    }
    print(f"{len(dataset):,} images, {BATCH} a batch; torch {torch.__version__}, {os.cpu_count()} cores\n")
    print("| images a second | 0 workers | 2 workers | factor, 0 workers | factor, 2 workers |\n|---|---|---|---|---|")
    base = None
    for name, make in loaders.items():
        rates = [rate(make(workers), len(dataset)) for workers in (0, 2)]
        base = base or rates
        factors = [r / b for r, b in zip(rates, base, strict=True)]
        print(f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {factors[0]:.1f} | {factors[1]:.1f} |")


if __name__ == "__main__":
    main()
