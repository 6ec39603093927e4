"""What class activation maps cost over the plain forward pass, beside the field's packages, in one run.

    python benchmarks/cam.py [--batch-size 64]

All begin with the same uint8 images of 224 pixels and efficientnet_lite0. "plain" ends with logits, the others with logits and
maps of 224 x 224: :func:`wsol_lib.cam.localize`, torch-cam's CAM enlarged in the same way, and Grad-CAM of grad-cam, which has no
CAM of this kind. They take turns, in one thread; medians of the processor's seconds, which other programs disturb less than
those of the clock, and of the ratios to the plain pass of the same turn. Allowed are 1.05.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import CAM as TorchCAM

from wsol_lib.book.runner import CPU_SETTINGS
from wsol_lib.cam import CAM, localize, resize_maps
from wsol_lib.models import create_backbone

ALLOWED = 1.05


def contestants(images: torch.Tensor) -> dict[str, Callable[[], object]]:
    model = CAM(create_backbone("efficientnet_lite0", pretrained=False)).eval()
    backbone, classes = model.backbone, torch.zeros(len(images), dtype=torch.int64)
    torch_cam = TorchCAM(backbone, target_layer="trunk.4", fc_layer="head")
    torch_cam.disable_hooks()
    grad_cam = GradCAM(backbone, [backbone.trunk[-1]])

    def plain() -> torch.Tensor:
        with torch.no_grad():
            return backbone(backbone.preprocess(images))

    def of_torch_cam() -> object:
        torch_cam.enable_hooks()
        with torch.no_grad():
            (maps,) = torch_cam(classes.tolist(), backbone(backbone.preprocess(images)))
            maps = resize_maps(maps, images.shape[-2:])
        torch_cam.disable_hooks()
        return maps

    def of_grad_cam() -> object:
        return grad_cam(backbone.preprocess(images), [ClassifierOutputTarget(0)] * len(images))

    return {
        "plain": plain,
        "localize": lambda: localize(model, images, classes, batch_size=len(images)),
        "torch-cam": of_torch_cam,
        "grad-cam": of_grad_cam,
    }


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5, help="of all; one more is not counted")
    args = parser.parse_args()
    if not CPU_SETTINGS.keys() <= os.environ.keys():  # as every command of the library sets them for itself
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | CPU_SETTINGS)
    torch.set_num_threads(1)
    images = torch.randint(256, (args.batch_size, 3, 224, 224), dtype=torch.uint8)
    functions = contestants(images)
    turns = torch.tensor([[seconds(one) for one in functions.values()] for _ in range(args.turns + 1)])[1:]
    medians, ratios = turns.median(dim=0).values, (turns / turns[:, :1]).median(dim=0).values
    print(
        f"efficientnet_lite0, {args.batch_size} images of 224 px, {args.turns} turns, one thread, torch {torch.__version__}"
    )
    print("| | seconds | over plain |\n|---|---|---|")
    for name, own, ratio in zip(functions, medians, ratios):
        print(f"| {name} | {own:.2f} | {ratio:.3f} |")
    met = ratios[1] <= min(ALLOWED, *ratios[2:])
    print(f"localize at most {ALLOWED:.2f} and not slower than the packages: {'yes' if met else 'NO'}")


if __name__ == "__main__":
    main()
