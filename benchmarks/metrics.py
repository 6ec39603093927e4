"""Speed of the metrics beside the authors' public code, on the same maps and with the same results.

    python benchmarks/metrics.py PATH_OF_A_CHECKOUT_OF_clovaai/wsolevaluation

The checkout is imported as it is; needs opencv-python-headless. Both sides get maps in memory and run in one thread.
With 1,000 maps it takes some three minutes, nearly all of them on the other side; noise takes that side seconds a map,
so there are only a few of those.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import types
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP

SIDE = 224
IOU_THRESHOLDS = (30, 50, 70)
BATCH = 50


def load_public_code(checkout: str) -> types.ModuleType:
    """Their module ``evaluation``, with what it misses today: numpy's old names and munch, a dict with attributes."""
    np.float, np.int, np.bool = float, int, bool
    sys.modules.setdefault("munch", types.SimpleNamespace(Munch=dict))
    sys.path.insert(0, checkout)
    import evaluation

    return evaluation


def make_maps(kind: str, number: int) -> torch.Tensor:
    """(n, SIDE, SIDE) float64 in [0, 1]: CAM-like, bicubic from a coarse grid, or noise."""
    generator = torch.Generator().manual_seed(0)
    side = SIDE if kind == "noise" else int(kind)
    coarse = torch.rand(number, 1, side, side, dtype=torch.float64, generator=generator)
    maps = coarse if kind == "noise" else interpolate(coarse, size=SIDE, mode="bicubic")
    return normalize_score_maps(maps[:, 0])


def make_boxes(number: int) -> list[torch.Tensor]:
    """One to three boxes an image, as many images have in ImageNet."""
    generator = torch.Generator().manual_seed(1)
    boxes = []
    for i in range(number):
        corners = torch.rand(i % 3 + 1, 2, dtype=torch.float64, generator=generator) * SIDE / 2
        sides = torch.rand(len(corners), 2, dtype=torch.float64, generator=generator) * SIDE / 2
        boxes.append(torch.cat([corners, corners + 1 + sides * 0.99], 1))
    return boxes


def public_hits(public: types.ModuleType, maps: np.ndarray, boxes: list[torch.Tensor], every: bool) -> np.ndarray:
    """Right images (IoU thresholds, taus), counted by the authors' evaluator; its constructor only reads files."""
    evaluator = public.BoxEvaluator.__new__(public.BoxEvaluator)
    evaluator.cam_threshold_list = list(np.arange(0, 1, 0.001))
    evaluator.iou_threshold_list = IOU_THRESHOLDS
    evaluator.multi_contour_eval = every
    evaluator.cnt = 0
    evaluator.num_correct = {iou: np.zeros(1000) for iou in IOU_THRESHOLDS}
    evaluator.gt_bboxes = [[public.resize_bbox(box, (1, 1), (1, 1)) for box in own.tolist()] for own in boxes]
    for i, score_map in enumerate(maps):
        evaluator.accumulate(score_map, i)
    return np.stack([evaluator.num_correct[iou] for iou in IOU_THRESHOLDS])


def our_hits(maps: torch.Tensor, boxes: list[torch.Tensor], every: bool) -> np.ndarray:
    metrics = [MaxBoxAccV2(protocol="wsolevaluation")]
    if not every:
        metrics = [MaxBoxAcc(iou / 100, protocol="wsolevaluation") for iou in IOU_THRESHOLDS]
    for metric in metrics:
        for start in range(0, len(maps), BATCH):
            metric.update(maps[start : start + BATCH], boxes[start : start + BATCH])
    return torch.cat([metric.hits for metric in metrics]).numpy()


def seconds(work: Callable, *arguments: object) -> tuple[float, object]:
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def one_pass(metric_class: type, protocol: str, maps: torch.Tensor, boxes: list[torch.Tensor]) -> None:
    """Update one metric with all maps."""
    metric = metric_class(protocol=protocol)
    for start in range(0, len(maps), BATCH):
        metric.update(maps[start : start + BATCH], boxes[start : start + BATCH])


def memory_per_pixel() -> float:
    """Bytes by which the process grows at its peak, per pixel of one large map, float32 and in one worker."""
    side = 3000
    maps = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    MaxBoxAccV2(protocol="wsolevaluation").update(maps, [torch.tensor([[0.0, 0, 10, 10]])])
    unit = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / side**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", help="folder with evaluation.py of clovaai/wsolevaluation")
    parser.add_argument("--maps", type=int, default=1000)
    args = parser.parse_args()
    public = load_public_code(args.checkout)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    first, _ = seconds(lambda: [our_hits(make_maps("7", 1), make_boxes(1), every) for every in (False, True)])
    print(f"first call (compiled, or read from numba's cache): {first:.1f} s")
    print(f"memory of a worker: {memory_per_pixel():.0f} bytes a pixel\n")
    print(f"{'metric':12} {'maps':>22} {'public':>9} {'ours':>9} {'faster':>8} {'2 threads':>10}  same counts")
    noise = max(args.maps // 500, 1)
    for kind, number in (("7", args.maps // 2), ("14", args.maps - args.maps // 2), ("noise", noise)):
        maps, boxes = make_maps(kind, number), make_boxes(number)
        for every, metric_class in ((False, MaxBoxAcc), (True, MaxBoxAccV2)):
            theirs, expected = seconds(public_hits, public, maps.numpy(), boxes, every)
            ours, _ = seconds(one_pass, metric_class, "wsolevaluation", maps, boxes)
            torch.set_num_threads(2)
            together, _ = seconds(one_pass, metric_class, "wsolevaluation", maps, boxes)
            torch.set_num_threads(1)
            same = (our_hits(maps, boxes, every) == expected).all()
            name = f"{number} " + ("of noise" if kind == "noise" else f"from {kind} x {kind}")
            print(
                f"{metric_class.__name__:12} {name:>22} {1e3 * theirs / number:6.1f} ms {1e3 * ours / number:6.2f} ms "
                f"{theirs / ours:7.1f}x {ours / together:9.2f}x  {'yes' if same else 'NO'}",
                flush=True,
            )
    print()
    maps, boxes = make_maps("14", 200).float(), make_boxes(200)
    pxap = PxAP()
    for name, work, arguments in (
        ("MaxBoxAcc, paper", one_pass, (MaxBoxAcc, "paper", maps, boxes)),
        ("MaxBoxAccV2, paper", one_pass, (MaxBoxAccV2, "paper", maps, boxes)),
        ("PxAP", pxap.update, (maps, maps > 0.5)),
        ("boxes at one tau", boxes_from_score_maps, (maps, 0.3)),
    ):
        work(*arguments)
        print(f"{name:20} {200 / seconds(work, *arguments)[0]:7.0f} maps a second and core")


if __name__ == "__main__":
    main()
