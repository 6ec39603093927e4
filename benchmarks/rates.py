"""Rates of this machine for the estimates of `experiment --list` and of the page "On a cluster": book/rates.yaml.

    python benchmarks/rates.py [--write]

For each backbone, at the side it was made for: floating-point operations of forward passes a second, when images are looked at
and when they are learnt from (with backward pass and update, but the forward pass's operations alone are counted). Then
photographs of 500 x 375 pixels that one process reads as squares, decoded, resized, cropped, mirrored; and score maps that
become boxes. On a CPU in one thread and in the processor's seconds, which other programs disturb less than those of the clock;
networks on a GPU in seconds of the clock.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from predict import make_photographs
from torch import nn

from wsol_lib.book import costs, units
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.cache import atomic_path
from wsol_lib.data import load_dataset
from wsol_lib.data.transforms import random_crop, resized_side
from wsol_lib.models import BACKBONES, create_backbone

SIDES = (224, 448)
HEADER = """# How fast things are. "measured" is written by `python benchmarks/rates.py --write`, an entry a device. "assumed" are
# GPUs that nobody has measured: the peak that is printed for dense TF32, which torch takes for convolutions, and the share of
# it that a training of such networks reaches, by what is usually reported of ResNet50.
# gflops: backbone -> [looking, learning], of forward passes; reads: side in pixels -> photographs of 500 x 375 a second and
# process; boxes: score maps of 224 x 224 pixels that become boxes a second
"""


def fastest(function: Callable, repeats: int, gpu: bool) -> float:
    """Seconds of the fastest call; the first one allocates and is not timed."""
    clock = time.perf_counter if gpu else time.process_time
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        function()
        if gpu:
            torch.cuda.synchronize()
        taken.append(clock() - start)
    return min(taken[1:])


def of_backbone(name: str, batch: int, repeats: int, device: torch.device) -> list[float]:
    """Gigaflops of the forward pass a second: looking, learning."""
    with torch.device("meta"):
        on_paper = create_backbone(name, pretrained=False)
    flops = costs.look_of(on_paper, on_paper.input_size).flops * batch / 1e9
    backbone = create_backbone(name, pretrained=False).to(device).train()
    side = backbone.input_size
    inputs = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1e-4, momentum=0.9)

    def learn() -> None:
        nn.functional.cross_entropy(backbone(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    learning = fastest(learn, repeats, device.type == "cuda")
    backbone.eval()
    with torch.no_grad():
        looking = fastest(lambda: backbone(inputs), repeats, device.type == "cuda")
    return [round(flops / looking, 1), round(flops / learning, 1)]


def reads(number: int) -> dict[int, float]:
    """Photographs a second that one process reads, by the side of what a network sees of them."""
    with tempfile.TemporaryDirectory() as name:
        make_photographs(Path(name) / "photographs", number, (500, 375))
        dataset = load_dataset("folder", "train-weaksup", name)
        found = {}
        for side in SIDES:
            dataset.transform = random_crop(resized_side(side), side)
            found[side] = round(number / fastest(lambda: [dataset[i] for i in range(number)], 2, gpu=False), 1)
    return found


def boxes(number: int) -> float:
    """Score maps that become boxes in a second: smooth ones, as a network's are."""
    maps = torch.nn.functional.interpolate(torch.rand(number, 1, 14, 14), (224, 224), mode="bilinear")[:, 0]
    taken = fastest(lambda: boxes_from_score_maps(normalize_score_maps(maps), 0.2), 2, gpu=False)
    return round(number / taken, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into book/rates.yaml, in place of this device's entry")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = 64 if device.type == "cuda" else 4
    entry = {"device": units.device(), "date": datetime.date.today().isoformat(), "torch": str(torch.__version__)}
    if device.type == "cuda":
        entry["memory"] = torch.cuda.get_device_properties(device).total_memory
    entry["reads"] = reads(24)
    entry["boxes"] = boxes(64)
    print(f"reads: {entry['reads']}, boxes: {entry['boxes']}", flush=True)
    entry["gflops"] = {}
    for name in BACKBONES:
        entry["gflops"][name] = of_backbone(name, batch, args.repeats, device)
        print(f"{name}: {entry['gflops'][name]}", flush=True)
    path = Path("book") / costs.FILE
    content = yaml.safe_load(path.read_text())
    others = [one for one in content["measured"] if one["device"] != entry["device"]]
    text = HEADER + yaml.safe_dump(content | {"measured": [*others, entry]}, sort_keys=False, default_flow_style=None)
    if args.write:
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
