"""What a training step of each method costs over a plain step, side by side in one run.

    python benchmarks/steps.py                # each method beside a plain step
    python benchmarks/steps.py --real DATA    # a training on Tiny-ImageNet beside the same step on a fixed batch

One step is forward pass, backward pass and update of efficientnet_lite0 on random images, in one thread. The methods take
turns, step by step, and each is compared with the plain step of its own turn; medians over the turns are shown, of the
clock and of the processor's seconds, which other programs disturb less. "allowed" is 10 % over plain for what has no branch
of its own, the branch's FLOPs plus 10 % for ACoL and SPG, 2.2 for SLT's two views and 3.3 for LCHP's initialisation.

With --real the experiment photos-cam is trained for some short epochs by the library's own loop: photographs are read from the
cache, mirrored, put together, resized and normalised, losses are summed up. After each epoch a twin of the network takes as
many steps on one batch that lies ready. Their ratio is the share of the step's speed that is left; allowed are 0.90 and more.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wsol_lib.acol import ACoL
from wsol_lib.adl import ADL
from wsol_lib.attention_pooling import create_bap
from wsol_lib.book.definitions import load_experiments
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.data import LabelsOnly, Subset, load_dataset
from wsol_lib.has import HideAndSeek
from wsol_lib.lchp import LCHPInit, LCHPRefine
from wsol_lib.localizer import Localizer, wnids_of
from wsol_lib.models import BoxRegressor, create_backbone
from wsol_lib.slt import SLTLocalizer, SLTNet
from wsol_lib.spg import SPG

NAME = "efficientnet_lite0"
SLACK = 0.1
BRANCH = "branch"  # allowed: the FLOPs of a branch of its own


def rows(classes: int) -> dict[str, tuple[Callable[[], nn.Module], float | str | None]]:
    """Name of a method -> how it is made, and what its step may cost."""

    def backbone() -> nn.Module:
        return create_backbone(NAME, classes, pretrained=False)

    def classifier() -> nn.Module:
        return create_bap(NAME, classes, pretrained=False)

    return {
        "plain CAM": (lambda: CAM(backbone()), None),
        "HaS": (lambda: HideAndSeek(backbone()), 1 + SLACK),
        "CutMix": (lambda: CutMix(backbone()), 1 + SLACK),
        "ADL": (lambda: ADL(backbone()), 1 + SLACK),
        "ACoL": (lambda: ACoL(backbone()), BRANCH),
        "ACoL, 128 channels": (lambda: ACoL(backbone(), channels=128), BRANCH),
        "SPG": (lambda: SPG(backbone()), BRANCH),
        "SPG, 64 channels": (lambda: SPG(backbone(), channels=64), BRANCH),
        "SLT, two views": (lambda: SLTLocalizer(backbone()), 2.2),
        "SLT-Net": (lambda: SLTNet(SLTLocalizer(backbone()), BoxRegressor(backbone())), None),
        "LCHP-I": (lambda: LCHPInit(classifier(), BoxRegressor(backbone())), 3.3),
        "LCHP-R": (lambda: LCHPRefine(classifier(), BoxRegressor(backbone()), tau=0), None),
    }


class Trainee:
    """A method with its optimizer on random images."""

    def __init__(self, make: Callable[[], nn.Module], inputs: torch.Tensor, labels: torch.Tensor):
        torch.manual_seed(0)
        self.model, self.inputs, self.labels = make().train(), inputs, labels
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

    def step(self) -> tuple[float, float]:
        """One training step: seconds by the clock, and of the processor."""
        clock, processor = time.perf_counter(), time.process_time()
        self.model.loss(self.inputs, self.labels)["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - clock, time.process_time() - processor

    def first_step(self) -> int:
        """FLOPs of the forward pass (torch's counter is far off for depthwise convolutions in the backward pass).

        The first step allocates and is not timed.
        """
        with FlopCounterMode(display=False) as counter:
            self.model.loss(self.inputs, self.labels)
        self.step()
        return counter.get_total_flops()


def real(root: Path, steps: int, epochs: int) -> None:
    """A training with real data, and the same step on a fixed batch, epoch by epoch in turns."""
    one = load_experiments("tiny")["photos-cam"]
    given = {"input_size": one.input_size, "batch_size": one.batch_size, "epochs": epochs, **one.hyperparameters}
    whole = load_dataset(one.dataset, "train-weaksup", root)
    dataset = LabelsOnly(Subset(whole, torch.linspace(0, len(whole) - 1, steps * one.batch_size).long().tolist()))
    settings = Localizer.settings_for("cam", one.dataset, given)
    localizer = Localizer("cam", dataset.class_names, settings, wnids_of(dataset))
    twin = copy.deepcopy(localizer.network)
    batch = range(one.batch_size)
    inputs = twin.backbone.preprocess(dataset.images(batch), one.input_size)
    trainee = Trainee(lambda: twin, inputs, dataset.labels[batch])
    rows, starts = [], [time.process_time()]

    def turn(epoch: int) -> None:
        own = time.process_time() - starts[-1]
        rows.append((own / steps, sum(trainee.step()[1] for _ in range(steps)) / steps))
        starts.append(time.process_time())

    localizer.train(localizer.network, dataset, None, after_epoch=turn)
    print(f"photos-cam, {one.batch_size} images of {one.input_size} px, seconds of the processor a step, one thread")
    print("| epoch | real data | fixed batch | ratio |\n|---|---|---|---|")
    for epoch, (own, fixed) in enumerate(rows, start=1):
        print(f"| {epoch} | {own:.3f} | {fixed:.3f} | {fixed / own:.3f} |")
    ratio = statistics.median(fixed / own for own, fixed in rows[1:])
    print(f"median without the first epoch: {ratio:.3f}; allowed from 0.90 up: {'yes' if ratio >= 0.9 else 'NO'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="turns of all methods that are timed")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=128, help="of the images, in pixels")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument(
        "--real", type=Path, metavar="DATA", help="folder with tiny-imagenet-200; nothing else is measured"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.real is not None:
        real(args.real, steps=10, epochs=1 + args.steps)
        return
    inputs = torch.randn(args.batch_size, 3, args.side, args.side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(args.classes, (args.batch_size,))
    methods = rows(args.classes)
    trainees = [Trainee(make, inputs, labels) for make, _ in methods.values()]
    flops = torch.tensor([trainee.first_step() for trainee in trainees], dtype=torch.float64)
    turns = torch.tensor([[trainee.step() for trainee in trainees] for _ in range(args.steps)])
    seconds, ratios = turns.median(dim=0).values, (turns / turns[:, :1]).median(dim=0).values
    print(f"{NAME}, {args.batch_size} images of {args.side} px, {args.steps} steps, one thread")
    print(f"{'method':20} {'s/step':>7} {'by clock':>9} {'processor':>10} {'FLOPs':>6} {'allowed':>8}")
    for i, (name, (_, allowed)) in enumerate(methods.items()):
        share = float(flops[i] / flops[0])
        allowed = share + SLACK if allowed == BRANCH else allowed
        verdict = "" if allowed is None else f"{allowed:8.2f} {'yes' if ratios[i].max() <= allowed else 'NO'}"
        print(f"{name:20} {seconds[i, 0]:7.2f} {ratios[i, 0]:9.2f} {ratios[i, 1]:10.2f} {share:6.2f} {verdict}")


if __name__ == "__main__":
    main()
