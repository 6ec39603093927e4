"""Photographs a second of `python -m wsol_lib predict --method cam`, decoding included, and where the time goes.

    python benchmarks/predict.py [--images 1000] [--size 500 375]

It makes JPEG files: pieces of the photographs that ship with scikit-image and scikit-learn, cut at random places, so that they
have the detail of photographs. One table: first the parts, each alone and one after another, decoding in one thread; then the
command as it is, a process of its own with the import of everything, its threads decoding beside the network, by the clock and
in the processor's seconds, which other programs disturb less. Rows of photographs of 12 megapixels show what decoding at a
fraction of the size saves.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data as photographs
from sklearn.datasets import load_sample_images

from wsol_lib.book.runner import CPU_SETTINGS
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.cam import resize_maps
from wsol_lib.commands.reading import BATCH
from wsol_lib.data.images import decode_rgb
from wsol_lib.localizers import pretrained
from wsol_lib.models import eval_mode

SIDE = 224
LARGE, LARGE_SIZE = 8, (4032, 3024)


def make_photographs(folder: Path, number: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of quality 90: pieces of real photographs, enlarged where they are too small."""
    rng = np.random.default_rng(0)
    wide = [Image.fromarray(image) for image in load_sample_images().images]
    wide += [Image.fromarray(image()) for image in (photographs.astronaut, photographs.coffee, photographs.rocket)]
    folder.mkdir()
    paths = []
    for i in range(number):
        whole = wide[i % len(wide)]
        share = rng.uniform(0.5, 1)
        width = min(whole.width, whole.height * size[0] / size[1]) * share
        height = width * size[1] / size[0]
        left, top = rng.uniform(0, whole.width - width), rng.uniform(0, whole.height - height)
        piece = whole.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        paths.append(folder / f"{i:05}.jpg")
        piece.save(paths[-1], quality=90)
    return paths


def seconds(function: Callable, items: list) -> tuple[float, list]:
    start = time.perf_counter()
    results = [function(item) for item in items]
    return time.perf_counter() - start, results


def row(name: str, number: int, taken: float) -> None:
    print(f"| {name} | {number:,} | {taken:.2f} | {1000 * taken / number:.2f} | {number / taken:,.0f} |", flush=True)


def parts(paths: list[Path]) -> None:
    """Each part alone."""
    contents = [path.read_bytes() for path in paths]
    taken, decoded = seconds(lambda content: decode_rgb(content, "", least=2 * SIDE), contents)
    row("decode", len(paths), taken)
    resize = Image.Resampling.BICUBIC
    taken, squares = seconds(lambda pixels: np.array(Image.fromarray(pixels).resize((SIDE, SIDE), resize)), decoded)
    row("resize", len(paths), taken)
    model = pretrained("cam").network
    batches = [
        torch.from_numpy(np.stack(squares[start : start + BATCH])).permute(0, 3, 1, 2)
        for start in range(0, len(squares), BATCH)
    ]
    with torch.no_grad(), eval_mode(model):
        taken, maps = seconds(lambda images: model.score_maps(model.backbone.preprocess(images))[0], batches)
    row("network", len(paths), taken)
    boxes_from_score_maps(normalize_score_maps(maps[0]), 0.2)  # compiled, or read from where it is kept
    taken, _ = seconds(lambda small: boxes_of(small), maps)
    row("boxes", len(paths), taken)


def boxes_of(maps: torch.Tensor) -> torch.Tensor:
    return boxes_from_score_maps(normalize_score_maps(resize_maps(maps, (SIDE, SIDE))), 0.2)


def command(folder: Path, number: int) -> None:
    out = folder.parent / f"{folder.name}.json"
    call = [sys.executable, "-m", "wsol_lib", "predict", "--images", folder, "--out", out, "--method", "cam"]
    start, before = time.perf_counter(), os.times()
    plain = {name: value for name, value in os.environ.items() if name not in CPU_SETTINGS}
    subprocess.run(call, check=True, capture_output=True, env=plain)
    row("predict, all of it", number, time.perf_counter() - start)
    after = os.times()
    row("the same, of the processor", number, sum(after[2:4]) - sum(before[2:4]))


def large(folder: Path) -> None:
    contents = [path.read_bytes() for path in make_photographs(folder, LARGE, LARGE_SIZE)]
    for name, least in (("decode 12 megapixels, whole", None), ("decode 12 megapixels, a fraction", 2 * SIDE)):
        taken, _ = seconds(lambda content, least=least: decode_rgb(content, "", least=least), contents)
        row(name, LARGE, taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="photographs to make (default: 1000)")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="width and height (default: 500 375)")
    args = parser.parse_args()
    if not CPU_SETTINGS.keys() <= os.environ.keys():  # the parts run as in the command, which sets the same for itself
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | CPU_SETTINGS)
    with tempfile.TemporaryDirectory() as name:
        paths = make_photographs(Path(name) / "photographs", args.images, tuple(args.size))
        width, height = args.size
        load = os.getloadavg()[0]
        print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {load:.1f}; {width} x {height} pixels\n")
        print("| part | photographs | seconds | ms each | a second |\n|---|---|---|---|---|")
        parts(paths)
        command(paths[0].parent, len(paths))
        large(Path(name) / "large")


if __name__ == "__main__":
    main()
