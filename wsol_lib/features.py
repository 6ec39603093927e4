"""Features of a frozen trunk: computed once, then only what stands on them is trained.

A trunk that stays as it is says the same of an image in every epoch. Where a network's loss looks at images through
``backbone.features`` alone (``on_features = True`` in its class) and nothing but mirroring is random, the features of each
image and of its mirror image stand for both: an epoch costs what the head costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from tqdm import tqdm

from wsol_lib.boxes import scale_boxes
from wsol_lib.data import LocalizationDataset, Sample
from wsol_lib.data.transforms import stack_images
from wsol_lib.models import Backbone, Network, eval_mode

BATCH = 64


def can_stand_for_images(network: nn.Module) -> bool:
    """Whether the loss of this very class sees images as features alone, and no weight of the trunk is trained.

    A class derived from one of which it is true has to say so again, for it may show other images to the trunk.
    """
    if not (isinstance(network, Network) and type(network).__dict__.get("on_features", False)):
        return False
    return not any(parameter.requires_grad for parameter in network.backbone.trunk.parameters())


@contextmanager
def features_once(
    backbone: Backbone, dataset: LocalizationDataset, input_size: int, mirrored: bool
) -> Iterator[LocalizationDataset]:
    """For a while the backbone's trunk does nothing, and the data set given has features for images.

    Args:
        backbone: its trunk is frozen
        dataset: images of any sizes, its transform is not applied
        input_size: side in pixels at which the trunk sees them
        mirrored: whether every second sample drawn is the mirror image

    Yields:
        samples whose ``image`` is the feature map (C, h, w) in float16, and whose boxes are in its cells
    """
    with tempfile.TemporaryFile() as file:
        views = _computed(backbone, dataset, input_size, 2 if mirrored else 1, file)
        trunk, backbone.trunk = backbone.trunk, nn.Identity()
        backbone.preprocess = lambda features, size=None: features.to(backbone.mean.device).float()
        try:
            yield _Features(dataset, views)
        finally:
            del backbone.preprocess
            backbone.trunk = trunk


@torch.no_grad()
def _computed(backbone: Backbone, dataset: LocalizationDataset, input_size: int, views: int, file) -> np.ndarray:
    """(views, N, C, h, w) in float16 on disk, gone when the file is closed."""
    array = None
    starts = range(0, len(dataset), BATCH)
    with eval_mode(backbone):
        for start in tqdm(starts, desc="features", unit="batch", leave=False, disable=len(starts) <= 2):
            indices = range(start, min(start + BATCH, len(dataset)))
            inputs = backbone.preprocess(stack_images(dataset, indices, input_size), input_size)
            for view in range(views):
                features = backbone.features(inputs.flip(-1) if view else inputs).half().cpu().numpy()
                if array is None:
                    shape = (views, len(dataset), *features.shape[1:])
                    array = np.memmap(file, np.float16, "w+", shape=shape)
                array[view, start : start + len(indices)] = features
    return array


class _Features(LocalizationDataset):
    def __init__(self, dataset: LocalizationDataset, views: np.ndarray):
        self.views, cells = views, views.shape[:-3:-1]
        boxes = [scale_boxes(own, size, cells) for own, size in zip(dataset.boxes, dataset.image_sizes)]
        super().__init__(
            dataset.name,
            dataset.split,
            dataset.class_names,
            dataset.labels,
            boxes,
            torch.tensor(cells).expand(len(dataset), 2),
            dataset.image_ids,
        )

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        view = torch.randint(len(self.views), (len(indices),))
        features = torch.from_numpy(self.views[view.numpy(), np.asarray(indices)])
        return [self._of_view(i, own, bool(flipped)) for i, own, flipped in zip(indices, features, view)]

    def _of_view(self, i: int, features: Tensor, flipped: bool) -> Sample:
        boxes, width = self.boxes[i], features.shape[-1]
        if flipped:
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(features.shape[-2:]))
        return Sample(features, int(self.labels[i]), boxes, None, self.image_ids[i])
