"""What a training step of each method costs over one of plain CAM, side by side in one run.

    python benchmarks/methods.py

One step is forward pass, backward pass and update of efficientnet_lite0, in one thread and in seconds of the processor, so
that other programs disturb it little. The methods take turns, step by step, and each is compared with the CAM step of its
own turn; the median of the turns is shown. On a machine with other work to do it still wanders by some percent: take more
steps. HaS, CutMix and ADL may cost 10 % over CAM, ACoL and SPG the FLOPs of their branch plus 10 %.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsol_lib.acol import ACoL
from wsol_lib.adl import ADL
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.has import HideAndSeek
from wsol_lib.models import create_backbone
from wsol_lib.spg import SPG

METHODS = (CAM, HideAndSeek, CutMix, ADL, ACoL, SPG)
SLACK = 0.1


class Trainee:
    """A method with its optimizer on random images."""

    def __init__(self, method: type[CAM], batch_size: int, side: int, classes: int):
        torch.manual_seed(0)
        self.model = method(create_backbone("efficientnet_lite0", num_classes=classes, pretrained=False)).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
        inputs = torch.randn(batch_size, 3, side, side)
        self.inputs = inputs.to(memory_format=torch.channels_last)
        self.labels = torch.randint(classes, (batch_size,))

    def step(self) -> float:
        """CPU seconds of one training step."""
        start = time.process_time()
        self.model.loss(self.inputs, self.labels)["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.process_time() - start

    def first_step(self) -> int:
        """FLOPs of the forward pass of a training step; the first step allocates and is not timed.

        The backward pass costs about twice as many everywhere; torch's counter is far off for depthwise convolutions there.
        """
        with FlopCounterMode(display=False) as counter:
            self.model.loss(self.inputs, self.labels)
        self.step()
        return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="turns of all methods that are timed")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=128, help="of the images, in pixels")
    parser.add_argument("--classes", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    trainees = [Trainee(method, args.batch_size, args.side, args.classes) for method in METHODS]
    flops = torch.tensor([trainee.first_step() for trainee in trainees], dtype=torch.float64)
    extra = flops / flops[0] - 1
    turns = torch.tensor([[trainee.step() for trainee in trainees] for _ in range(args.steps)])
    times, ratios = turns.median(dim=0).values, (turns / turns[:, :1]).median(dim=0).values
    print(f"efficientnet_lite0, {args.batch_size} images of {args.side} px, {args.steps} steps, one thread")
    print(f"{'method':12} {'ms/step':>8} {'ratio':>6} {'extra FLOPs':>12} {'allowed':>8}")
    for i, method in enumerate(METHODS):
        allowed = 1 + SLACK + float(extra[i])
        print(
            f"{method.__name__:12} {1e3 * times[i]:8.0f} {ratios[i]:6.2f} {100 * extra[i]:10.1f} % {allowed:8.2f}  "
            f"{'yes' if ratios[i] <= allowed else 'NO'}"
        )


if __name__ == "__main__":
    main()
