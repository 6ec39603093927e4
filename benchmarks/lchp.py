"""What LCHP's two stages cost: seconds a training step beside a plain step, interleaved in one run.

    python benchmarks/lchp.py

efficientnet_lite0, 32 images of 128 pixels, forward, backward and SGD, one step of every row after the other in each round.
"seconds" is the median over the rounds, "factor" that of the row's over the plain step's of the same round; the
initialisation has to stay at 3.3 or below. Processor seconds stand beside the clock's for machines that do other work, too.
"""

from __future__ import annotations

import time

import torch

from wsol_lib.cam import CAM
from wsol_lib.lchp import LCHPInit, LCHPRefine, create_bap
from wsol_lib.models import BoxRegressor, create_backbone

CLASSES, BATCH, SIZE = 200, 32, 128
ROUNDS, WARM_UP = 5, 1


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,))

    def backbone():
        return create_backbone("efficientnet_lite0", CLASSES, pretrained=False)

    def classifier():
        return create_bap("efficientnet_lite0", CLASSES, pretrained=False)

    models = {
        "plain CAM": CAM(backbone()),
        "LCHP-I": LCHPInit(classifier(), BoxRegressor(backbone())),
        "LCHP-R": LCHPRefine(classifier(), BoxRegressor(backbone()), tau=0),
    }
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9) for model in models.values()]
    seconds = torch.zeros(WARM_UP + ROUNDS, len(models), 2)  # by the clock, of the processor
    for row in seconds:
        for spent, model, optimizer in zip(row, models.values(), optimizers, strict=True):
            start = torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)
            model.train().loss(inputs, labels)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            spent[:] = torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64) - start
    seconds = seconds[WARM_UP:]
    medians, factors = seconds.median(dim=0).values, (seconds / seconds[:, :1]).median(dim=0).values
    print(
        f"{BATCH} images of {SIZE} px, {ROUNDS} rounds; torch {torch.__version__}, {torch.get_num_threads()} threads\n"
    )
    print("| step | seconds | factor | processor seconds | factor |\n|---|---|---|---|---|")
    for name, (clock, processor), (by_clock, by_processor) in zip(models, medians, factors, strict=True):
        print(f"| {name} | {clock:.3f} | {by_clock:.2f} | {processor:.3f} | {by_processor:.2f} |")


if __name__ == "__main__":
    main()
