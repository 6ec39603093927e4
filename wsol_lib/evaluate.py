"""Score a folder of score maps, or a file of boxes, and print a small table.

Score maps are one ``.npy`` file an image, named as the authors' public code names them: DIR/<image id>.npy, for instance
DIR/val/ILSVRC2012_val_00000001.JPEG.npy. Each holds one map (height, width) of any size with scores in [0, 1]; the true
boxes are scaled from the image to its map.

Boxes are COCO JSON, as `predict` writes it; ``file_name`` is the image id, with or without the folders in front of it. The best
box of each image counts, whatever its category: it is GT-known Loc if it was made for the true class.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib import processes
from wsol_lib.boxes import localized, normalize_score_maps
from wsol_lib.commands.arguments import pairs
from wsol_lib.data import SPLITS, LocalizationDataset, coco, load_dataset, scaled_boxes, scaled_masks
from wsol_lib.metrics import PROTOCOLS, BoxAcc, MaxBoxAcc, MaxBoxAccV2, PxAP
from wsol_lib.uncertainty import mean_share

EXAMPLES = """examples:
  python -m wsol_lib evaluate --scoremaps maps --dataset cub --split test --root DATA
  python -m wsol_lib evaluate --scoremaps maps --dataset imagenet --metric MaxBoxAccV2 --protocol wsolevaluation
  python -m wsol_lib evaluate --scoremaps maps --dataset openimages --metric PxAP --normalize min-max
  python -m wsol_lib evaluate --boxes boxes.json --dataset folder --split train-fullsup --root photographs
"""
IOUS = (0.3, 0.5, 0.7)
CURVES = {"MaxBoxAcc": MaxBoxAcc, "MaxBoxAccV2": MaxBoxAccV2}
METRICS = (*CURVES, "BoxAcc", "PxAP")
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scoremaps", type=Path, metavar="DIR", help="folder of the .npy files")
    what.add_argument(
        "--boxes", type=Path, metavar="FILE", help="COCO JSON; --metric and what is after it is not for boxes"
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="cub, imagenet, synthbirds ...")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: test)")
    parser.add_argument("--root", "--data-root", metavar="DATA", help="folder with the data (default: $WSOL_DATA)")
    parser.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="of the data set: flat=true ...")
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
    state = processes.begin()
    dataset = load_dataset(args.dataset, args.split, root=args.root, **pairs(args.option))
    if args.boxes is not None:
        if state.is_main_process:
            print(box_table(args.boxes, dataset))
        return 0
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
    own = processes.share(len(paths), BATCH)
    bar = {"unit": "map", "desc": f"{args.dataset} {args.split}", "disable": not state.is_main_process}
    with tqdm(total=len(own), **bar) as progress:
        for places, score_maps in batches([paths[i] for i in own], args.normalize):
            indices = [own[place] for place in places]
            if metrics:
                boxes = [scaled_boxes(dataset, i, score_maps.shape[-2:]) for i in indices]
            for metric in metrics.values():
                metric.update(score_maps, boxes)
            if pxap is not None:
                pxap.update(score_maps, *scaled_masks(dataset, indices, score_maps.shape[-2:]))
            progress.update(len(indices))
    for metric in [*metrics.values(), pxap] if state.num_processes > 1 else ():
        if metric is not None:
            metric.to(state.device)  # where the counts of all are added up
    rows = [(*names, f"{100 * metric.compute():.2f} %", taus(metric)) for names, metric in metrics.items()]
    if pxap is not None:
        rows.append(("PxAP", "paper", f"{100 * pxap.compute():.2f} %", "all"))
    if state.is_main_process:
        print(table([("metric", "protocol", "value", "best tau"), *rows]))
    return 0


def box_table(path: Path, dataset: LocalizationDataset) -> str:
    """How many boxes of a COCO file reach the IoU thresholds, as a table; see :func:`read_boxes`."""
    predicted, several = read_boxes(path, dataset)
    without = int((predicted == 0).all(dim=1).sum())
    rows = [("metric", "IoU", "value", "95 % interval", "images")]
    for threshold in IOUS:
        share, low, high = mean_share(localized(predicted, dataset.boxes, threshold).numpy())
        interval = f"{100 * low:.2f} ... {100 * high:.2f} %"
        rows.append(("GT-known Loc", f"{threshold}", f"{100 * share:.2f} %", interval, f"{len(dataset):,}"))
    notes = [f"{without:,} images without a box count as wrong"] if without else []
    notes += [f"{several:,} images with several boxes: the one of the highest score counts"] if several else []
    return "\n".join([table(rows), *notes])


def read_boxes(path: Path, dataset: LocalizationDataset) -> tuple[Tensor, int]:
    """The best box of each image of a data set in a COCO file.

    Returns:
        (N, 4), xyxy in pixels of the images, zeros where the file has none, and how many images have several

    Raises:
        FileNotFoundError: no such file
        ValueError: no COCO JSON, images that it does not list or of another size, images without a true box
    """
    listed = coco.read_best(path)
    names = match(dataset.image_ids, list(listed))
    missing = [image_id for image_id, name in zip(dataset.image_ids, names) if name is None]
    if missing:
        raise ValueError(
            f"expected each of {len(names):,} images of {dataset.name} {dataset.split} in {path}, found {len(missing):,} "
            f"missing, first {missing[0]}: predict boxes for these images, or correct --dataset or --split"
        )
    boxes = torch.zeros(len(names), 4)
    for i, (name, size) in enumerate(zip(names, dataset.image_sizes.tolist())):
        found = listed[name]
        if found.size is not None and all(size) and list(found.size) != size:
            raise ValueError(
                f"expected {name} of {size[0]} x {size[1]} pixels in {path}, found {found.size[0]} x {found.size[1]}: draw the "
                "boxes on the images of this data set"
            )
        if not len(dataset.boxes[i]):
            raise ValueError(
                f"expected true boxes for every image of {dataset.name} {dataset.split}, found none for "
                f"{dataset.image_ids[i]}: choose another split, as train-fullsup"
            )
        if found.box is not None:
            boxes[i] = torch.tensor(found.box)
    return boxes, sum(listed[name].boxes > 1 for name in names)


def match(image_ids: Sequence[str], names: Sequence[str]) -> list[str | None]:
    """Which name is each image id's: the same, or the same without the first folders of all of the ones or the others.

    >>> match(["val/a.jpg", "val/b.jpg"], ["b.jpg", "a.jpg"]), match(["a.jpg"], ["photographs/a.jpg"])
    (['a.jpg', 'b.jpg'], ['photographs/a.jpg'])
    """
    best: list[str | None] = [None] * len(image_ids)
    depth = max((name.count("/") for name in (*image_ids, *names)), default=0)
    for cut in range(depth + 1):
        for of_ids, of_names in ((cut, 0), (0, cut)):
            short = {_without(name, of_names): name for name in names}
            if len(short) < len(names):  # two photographs of one name in different folders
                continue
            found = [short.get(_without(image_id, of_ids)) for image_id in image_ids]
            known = len(found) - found.count(None)
            if len(set(found) - {None}) < known:  # several ids for one photograph
                continue
            if known == len(found):
                return found
            best = max(best, found, key=lambda names: len(names) - names.count(None))
    return best


def _without(name: str, folders: int) -> str:
    return "/".join(name.split("/")[folders:]) or name


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
