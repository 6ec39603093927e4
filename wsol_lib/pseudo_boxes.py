"""Pseudo boxes: what a localizer guessed becomes the data set that a student learns from, by way of a COCO file.

PSOL ("Rethinking the Route Towards WSOL", CVPR 2020), Algorithm 1, line 2. A localizer with score maps gives boxes through
:func:`from_localizer`; boxes of any other make (DDT's, a detector's, a person's) go the same way from there. All are
(N, 4), xyxy in pixels of the data set's images, one row an image. Where a localizer found nothing, its row has no area; such
a row is an error, or left out if the caller says ``keep_good``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import wsol_lib
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps, scale_boxes
from wsol_lib.cam import CAM, localize
from wsol_lib.data import LocalizationDataset, Subset, coco
from wsol_lib.data.transforms import stack_images


def from_localizer(
    model: CAM, dataset: LocalizationDataset, tau: float, *, input_size: int | None = None, batch_size: int = 64
) -> Tensor:
    """The box round the largest component of {s >= tau} of each image's map, for the label of the image.

    Args:
        model: CAM or a method after it
        dataset: its labels choose the map; its transform is not applied
        tau: in [0, 1], on maps that are min-max normalised
        input_size: side in pixels to which the images are resized; None keeps theirs, which must be one size then
        batch_size: images in one forward pass; their score maps are not kept

    Returns:
        (N, 4), xyxy in pixels of the images

    Raises:
        ValueError: images of several sizes and no ``input_size``
    """
    boxes = []
    for start in tqdm(range(0, len(dataset), batch_size), desc="pseudo boxes", unit="batch"):
        indices = range(start, min(start + batch_size, len(dataset)))
        images = stack_images(dataset, indices, input_size)
        maps, _ = localize(model, images, dataset.labels[indices], input_size=input_size, batch_size=batch_size)
        found = boxes_from_score_maps(normalize_score_maps(maps), tau)
        boxes.append(scale_boxes(found, images.shape[:-3:-1], dataset.image_sizes[indices]))
    return torch.cat(boxes)


def are_good(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Which boxes (N, 4) have an area and are inside their images, of width and height (N, 2): bool (N,).

    >>> are_good(torch.tensor([[0.0, 0, 4, 4], [2, 1, 2, 3], [0, 0, 9, 4]]), torch.tensor([[4, 4]] * 3))
    tensor([ True, False, False])
    """
    sizes = image_sizes.to(boxes)
    return (boxes >= 0).all(1) & (boxes[:, 2:] <= sizes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)


class WithBoxes(Subset):
    """A data set under other boxes, which the data set's transform moves along with the image.

    Args:
        dataset: images, labels and transform are taken from it; its own boxes are not
        boxes: (N, 4), xyxy in pixels, one for each of its images
        keep_good: leave out the images whose box has no area or is not inside them

    Raises:
        ValueError: another number of boxes; a box that is no good, unless ``keep_good``
    """

    def __init__(self, dataset: LocalizationDataset, boxes: Tensor, *, keep_good: bool = False):
        good = _checked(boxes, dataset, keep_good)
        super().__init__(dataset, good.tolist())
        self.boxes = list(boxes[good].float().cpu()[:, None])


def save(
    path: Path | str,
    boxes: Tensor,
    dataset: LocalizationDataset,
    settings: dict,
    *,
    scores: Tensor | None = None,
    keep_good: bool = False,
) -> None:
    """Write pseudo boxes as COCO JSON, whole or not at all.

    Args:
        path: the file; one that is there is replaced
        boxes: (N, 4), xyxy in pixels, one for each image of ``dataset``
        dataset: gives the image ids (COCO's ``file_name``), sizes and classes
        settings: what the boxes were made with, as plain values; kept in COCO's ``info``
        scores: (N,), of the boxes, where they have some
        keep_good: write an image without annotation where its box has no area or is not inside it

    Raises:
        ValueError: another number of boxes; a box that is no good, unless ``keep_good``; settings that JSON has no word for
    """
    good = _checked(boxes, dataset, keep_good)
    about = {"description": f"pseudo boxes of {dataset.name} {dataset.split}", "version": wsol_lib.__version__}
    rows = zip(
        good.tolist(),
        dataset.labels[good].tolist(),
        boxes[good].double().cpu().tolist(),
        [None] * len(good) if scores is None else scores[good.to(scores.device)].tolist(),
    )
    coco.write(
        path,
        about | {"settings": settings},
        images=(
            {"id": i, "file_name": name, "width": width, "height": height}
            for i, (name, (width, height)) in enumerate(zip(dataset.image_ids, dataset.image_sizes.tolist()), start=1)
        ),
        categories=({"id": k, "name": name} for k, name in enumerate(dataset.class_names, start=1)),
        annotations=(coco.annotation(n, i + 1, k + 1, *rest) for n, (i, k, *rest) in enumerate(rows, start=1)),
    )


def load(path: Path | str, dataset: LocalizationDataset, *, keep_good: bool = False) -> tuple[Tensor, dict]:
    """Read pseudo boxes from COCO JSON, matched to the images of a data set by their ids.

    Args:
        path: a file of :func:`save`, or any COCO file whose ``file_name`` are image ids of ``dataset``
        dataset: which images, and in which order; sizes that it does not know it takes from the file
        keep_good: pass over ids that the data set does not have, and give zeros where an image has no good box

    Returns:
        boxes (N, 4) float32, xyxy in pixels, and the settings that made them ({} if the file has none)

    Raises:
        FileNotFoundError: no such file
        ValueError: the file is not COCO JSON; unless ``keep_good``: ids that the data set does not have, images without
            a box or with several, boxes that have no area or are not inside their image
    """
    names, found, settings, sizes = _read(Path(path))
    place = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    unknown = [str(name) for name in names if name not in place]
    if unknown and not keep_good:
        raise ValueError(
            f"expected image ids of {dataset.name} {dataset.split} in {path}, found {len(unknown)} others ({unknown[0]} "
            "is the first): take the data set that the boxes were made for, or keep_good=True to pass over them"
        )
    known = torch.tensor([name in place for name in names], dtype=torch.bool)
    target = torch.tensor([place[name] for name in names if name in place], dtype=torch.int64)
    times = torch.bincount(target, minlength=len(dataset))
    if (times > 1).any() and not keep_good:
        i = int((times > 1).nonzero()[0])
        raise ValueError(
            f"expected one box an image in {path}, found {times[i]} of {dataset.image_ids[i]}: keep the best one"
        )
    boxes = torch.zeros(len(dataset), 4)
    boxes[target] = torch.cat([found[known, :2], found[known, :2] + found[known, 2:]], dim=1).float()
    boxes[times != 1] = 0
    unlisted = (~dataset.image_sizes.all(dim=1)).nonzero()[:, 0]  # as those of ImageNet's training images are
    if len(unlisted):
        dataset.image_sizes[unlisted] = torch.tensor([sizes.get(dataset.image_ids[i], (0, 0)) for i in unlisted])
    good = _checked(boxes, dataset, keep_good)
    return torch.zeros_like(boxes).index_copy(0, good, boxes[good]), settings


def _read(path: Path) -> tuple[list, Tensor, dict, dict]:
    """The image id of each annotation, its xywh (M, 4) float64, the settings, and the sizes of images by their ids."""
    if not path.is_file():
        raise FileNotFoundError(
            f"expected pseudo boxes at {path}, found no such file: correct the path, or save them first"
        )
    try:
        content = coco.read_json(path)
        ids = {image["id"]: image["file_name"] for image in content["images"]}
        names = [ids.get(row["image_id"], row["image_id"]) for row in content["annotations"]]
        boxes = torch.tensor([coco.xywh(row["bbox"]) for row in content["annotations"]], dtype=torch.float64)
        sizes = {
            row["file_name"]: (int(row.get("width") or 0), int(row.get("height") or 0)) for row in content["images"]
        }
        return names, boxes.reshape(len(names), 4), content.get("info", {}).get("settings", {}), sizes
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"expected COCO JSON with images and annotations in {path}, found something else "
            f"({type(error).__name__}: {error}): save the boxes again"
        ) from error


def _checked(boxes: Tensor, dataset: LocalizationDataset, keep_good: bool) -> Tensor:
    """Places of the good boxes, int64 (n,)."""
    if boxes.shape != (len(dataset), 4):
        raise ValueError(
            f"expected one box (4 numbers) for each of the {len(dataset)} images of {dataset.name} {dataset.split}, found "
            f"boxes of shape {tuple(boxes.shape)}: give all images a row, of zeros where nothing was found"
        )
    good = are_good(boxes.cpu(), dataset.image_sizes)
    if not good.all() and not keep_good:
        i = int((~good).nonzero()[0])
        raise ValueError(
            f"expected boxes with an area inside their images, found {int((~good).sum())} of {len(good)} others (the first, "
            f"{boxes[i].tolist()}, of {dataset.image_ids[i]}): mend them, or go on without them by keep_good=True"
        )
    return good.nonzero()[:, 0]
