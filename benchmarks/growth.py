"""How time and memory grow with the number of images: train, DDT, predict, evaluate and experiment, each in its own process.

    python benchmarks/growth.py                         # 1,000 and 10,000 images, some minutes on two quiet cores
    python benchmarks/growth.py --images 1000 10000 100000
    python benchmarks/growth.py --record                # also to results/growth-tiny.json, to be committed

The images are JPEG files of 64 x 64 pixels in twenty folders, half of them with a box, seen at 32 pixels (DDT at 64) by a
network without ImageNet's weights: what grows is what is done for each image, and the network is small beside it.
`experiment` trains CAM on all of them and predicts boxes of those that have one. Seconds are those of the processor, which
other programs disturb less than the clock. Memory is the growth of the peak of the process over a call on 640 images; "bytes
an image" compares the largest number of images with the smallest.

The record has one entry for each command and number of images, by its name "COMMAND/IMAGES": ``value`` is the processor's
seconds, ``n`` the number of images, ``clock`` the seconds by the clock, ``mib`` the memory as above.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from tqdm import tqdm

from wsol_lib.__main__ import main as command
from wsol_lib.book import results
from wsol_lib.book.runner import CPU_SETTINGS

WARM = 640  # images of the call that is not counted: as many of each folder as a batch of DDT's has
CLASSES, CONTENTS = 20, 200  # folders; different images, of which all are links
TRAIN = "train --dataset folder --data-root {0} --set pretrained=false"
COMMANDS = {
    "train": TRAIN + " --method cam --out {1}/cam --epochs 1 --input-size 32",
    "train ddt": TRAIN + " --method ddt --out {1}/ddt --input-size 64",
    "predict": "predict --images {0} --model {1}/cam --out {1}/boxes.json",
    "evaluate boxes": "evaluate --boxes {1}/boxes.json --dataset folder --split train-fullsup --root {0}",
    "evaluate maps": "evaluate --scoremaps {1}/maps --dataset folder --split train-fullsup --root {0} --metric MaxBoxAcc",
    "experiment": "experiment growth --profile tiny --data-root {0} --folder {1}/experiments",
}
EXPERIMENT = {
    "dataset": "folder",
    "test": {"split": "train-fullsup"},
    "pretrained": False,
    "input_size": 32,
    "epochs": 1,
    "experiments": {"cam": {"localizer": "cam"}},
}


def make_images(folder: Path, number: int) -> None:
    """The files, and ``annotations.json`` with a box for every second of them."""
    rng, paths = np.random.default_rng(0), []
    (folder / ".contents").mkdir(parents=True)
    for n in range(CONTENTS):
        content = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((64, 64), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        paths.append(folder / ".contents" / f"{n}.jpg")
        paths[-1].write_bytes(content.getvalue())
    names = [f"{n % CLASSES:02}/{n:07}.jpg" for n in range(number)]
    for k in range(CLASSES):
        (folder / f"{k:02}").mkdir()
    for n, name in enumerate(names):
        os.link(paths[n % CONTENTS], folder / name)
    boxed = list(enumerate(names))[::2]
    content = {
        "images": [{"id": n, "file_name": name} for n, name in boxed],
        "annotations": [{"id": n, "image_id": n, "bbox": [8 + n % 9, 8, 40, 32]} for n, _ in boxed],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def make_maps(folder: Path, images: Path) -> None:
    """A score map for each image with a box."""
    rng = np.random.default_rng(0)
    maps = [rng.random((14, 14), dtype=np.float32) for _ in range(CONTENTS)]
    for n, row in enumerate(json.loads((images / "annotations.json").read_text())["images"]):
        path = folder / f"{row['file_name']}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, maps[n % CONTENTS])


def measure(name: str, folder: Path) -> dict[str, float]:
    """Run one command in this process, first on few images; ``folder`` holds "small" and "large"."""
    torch.set_num_threads(1)
    peaks = []
    for size in ("small", "large"):
        os.chdir(folder / size)  # the table of experiments is looked for here
        clock, processor = time.perf_counter(), time.process_time()
        code = command(COMMANDS[name].format(folder / size / "images", folder / size).split())
        assert code == 0, f"{name} ended with {code}"
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    grown = (peaks[1] - peaks[0]) / (2**20 if sys.platform == "darwin" else 1024)
    return {"seconds": time.process_time() - processor, "clock": time.perf_counter() - clock, "mib": grown}


def in_a_process(name: str, folder: Path) -> dict[str, float]:
    call = [sys.executable, os.path.abspath(__file__), "--one", name, str(folder)]
    ended = subprocess.run(call, capture_output=True, text=True, env=os.environ | CPU_SETTINGS)
    if ended.returncode:
        sys.exit(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000], help="numbers (default: 1000 10000)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--record", action="store_true", help="write results/growth-tiny.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]))))
        return
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in args.commands}
    for number in args.images:
        with tempfile.TemporaryDirectory() as name:
            for size, images in (("small", WARM), ("large", number)):
                make_images(Path(name, size, "images"), images)
                make_maps(Path(name, size, "maps"), Path(name, size, "images"))
                Path(name, size, "experiments.yaml").write_text(yaml.safe_dump({"growth": EXPERIMENT}))
            for one in tqdm(args.commands, f"{number:,} images"):
                found[one][number] = in_a_process(one, Path(name))
                if args.record:  # now: what is killed keeps what it has
                    record(one, number, found[one][number])
    print(table(found, args.images))


def record(name: str, number: int, row: dict[str, float]) -> None:
    os.environ["WSOL_RESULTS"] = str(Path(__file__).parents[1] / "results")
    about = {"chapter": "growth", "profile": "tiny", "dataset": "folder", "n": number, "seed": 0}
    facts = {"clock": round(row["clock"], 2), "mib": round(row["mib"], 1)}
    results.record(f"{name}/{number}", round(row["seconds"], 2), **about, **facts)


def table(found: dict[str, dict[int, dict[str, float]]], numbers: list[int]) -> str:
    """Seconds and memory by number of images, then what an image takes of each."""
    head = [f"{unit}, {n:,}" for unit in ("CPU s", "MiB") for n in numbers]
    lines = [f"| | {' | '.join([*head, 'ms an image', 'bytes an image'])} |", "|---" * (len(head) + 3) + "|"]
    for name, rows in found.items():
        cells = [f"{rows[n]['seconds']:.1f}" for n in numbers] + [f"{rows[n]['mib']:.0f}" for n in numbers]
        first, last = rows[min(numbers)], rows[max(numbers)]
        more = max(numbers) - min(numbers) or 1
        cells.append(f"{1000 * (last['seconds'] - first['seconds']) / more:.2f}")
        cells.append(f"{(last['mib'] - first['mib']) * 2**20 / more:,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
