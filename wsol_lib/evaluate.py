"""Score a folder of score maps: one ``.npy`` file an image goes in, a small table of metrics comes out.

The files are named as the authors' public code names them: DIR/<image id>.npy, for instance
DIR/val/ILSVRC2012_val_00000001.JPEG.npy. Each holds one map (height, width) of any size with scores in [0, 1]; the true
boxes are scaled from the image to its map.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.data import SPLITS, LocalizationDataset, load_dataset, scaled_boxes, scaled_masks
from wsol_lib.metrics import PROTOCOLS, BoxAcc, MaxBoxAcc, MaxBoxAccV2, PxAP

EXAMPLES = """examples:
  python -m wsol_lib evaluate --scoremaps maps --dataset cub --split test --root DATA
  python -m wsol_lib evaluate --scoremaps maps --dataset imagenet --metric MaxBoxAccV2 --protocol wsolevaluation
  python -m wsol_lib evaluate --scoremaps maps --dataset openimages --metric PxAP --normalize min-max
"""
CURVES = {"MaxBoxAcc": MaxBoxAcc, "MaxBoxAccV2": MaxBoxAccV2}
METRICS = (*CURVES, "BoxAcc", "PxAP")
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--scoremaps", type=Path, required=True, metavar="DIR", help="folder of the .npy files")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="cub, imagenet, synthbirds ...")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: test)")
    parser.add_argument("--root", metavar="DATA", help="folder with the data (default: $WSOL_DATA)")
    parser.add_argument(
        "--metric",
        nargs="+",
        choices=METRICS,
        default=list(CURVES),
        metavar="METRIC",
        help=f"out of {', '.join(METRICS)}: BoxAcc has the fixed tau = 0.2 of the maximum, PxAP needs masks "
        f"(default: {' '.join(CURVES)})",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=list(PROTOCOLS),
        metavar="PROTOCOL",
        help=f"reading of the maps in MaxBoxAcc and MaxBoxAccV2, out of {', '.join(PROTOCOLS)} (default: both)",
    )
    parser.add_argument(
        "--normalize", choices=("min-max", "max"), help="bring each map to [0, 1] first (default: it must be there)"
    )


def run(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.dataset, args.split, root=args.root)
    paths = find_score_maps(args.scoremaps, dataset)
    metrics = {
        (name, protocol): CURVES[name](protocol=protocol)
        for name in CURVES
        for protocol in args.protocol
        if name in args.metric
    }
    if "BoxAcc" in args.metric:
        metrics["BoxAcc", "tau = 0.2 max"] = BoxAcc()
    pxap = PxAP() if "PxAP" in args.metric else None
    with tqdm(total=len(paths), unit="map", desc=f"{args.dataset} {args.split}") as progress:
        for indices, score_maps in batches(paths, args.normalize):
            if metrics:
                boxes = [scaled_boxes(dataset, i, score_maps.shape[-2:]) for i in indices]
            for metric in metrics.values():
                metric.update(score_maps, boxes)
            if pxap is not None:
                pxap.update(score_maps, *scaled_masks(dataset, indices, score_maps.shape[-2:]))
            progress.update(len(indices))
    rows = [(*names, f"{100 * metric.compute():.2f} %", taus(metric)) for names, metric in metrics.items()]
    if pxap is not None:
        rows.append(("PxAP", "paper", f"{100 * pxap.compute():.2f} %", "all"))
    print(table([("metric", "protocol", "value", "best tau"), *rows]))
    return 0


def find_score_maps(folder: Path, dataset: LocalizationDataset) -> list[Path]:
    """The file of each image of the data set; FileNotFoundError says how many are missing and which is the first."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of score maps at {folder}, found none: correct --scoremaps")
    paths = [folder / f"{image_id}.npy" for image_id in dataset.image_ids]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"expected a score map for each of {len(paths):,} images of {dataset.name} {dataset.split}, found "
            f"{len(missing):,} missing, first {missing[0]}: write them there, named by image id"
        )
    return paths


def load_score_map(path: Path, normalize: str | None) -> Tensor:
    """One map (H, W), float64 as in the public code, in [0, 1]; ValueError names the file and what is wrong with it."""
    try:
        with open(path, "rb") as file:  # not np.load, which would open a zip of arrays, too
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # what stands in the header is parsed as Python, and so are the errors
        raise ValueError(f"expected a numpy array in {path}, found a damaged file ({error}): write it again") from None
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise ValueError(
            f"expected one map of numbers (height, width) in {path}, found {array.dtype} {array.shape}: save it alone"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite scores in {path}, found NaN or infinity: correct the map")
    score_map = torch.from_numpy(array.astype(np.float64))
    if normalize:
        score_map = normalize_score_maps(score_map[None], normalize)[0]
    lowest, highest = score_map.aminmax()
    if lowest < 0 or highest > 1:
        raise ValueError(
            f"expected scores in [0, 1] in {path}, found {lowest:.4g} to {highest:.4g}: add --normalize min-max"
        )
    return score_map


def batches(paths: list[Path], normalize: str | None) -> Iterator[tuple[list[int], Tensor]]:
    """Indices and maps (n, H, W), n <= 64: neighbours of one size go together."""
    indices: list[int] = []
    maps: list[Tensor] = []
    for i, path in enumerate(paths):
        score_map = load_score_map(path, normalize)
        if maps and (len(maps) == BATCH or score_map.shape != maps[0].shape):
            yield indices, torch.stack(maps)
            indices, maps = [], []
        indices.append(i)
        maps.append(score_map)
    if maps:
        yield indices, torch.stack(maps)


def taus(metric: MaxBoxAcc | MaxBoxAccV2 | BoxAcc) -> str:
    if isinstance(metric, BoxAcc):
        return "fixed"
    best = metric.best_tau()
    return " ".join(f"{tau:.3f}" for tau in (best if isinstance(best, tuple) else (best,)))


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as left-aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
