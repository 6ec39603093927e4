"""The papers' transforms: a ``Sample`` goes in, the ``Sample`` that a network sees comes out, boxes and masks moved along.

Built of torchvision.transforms.v2; images stay uint8, ``Backbone.preprocess`` scales and normalises them.

======================================= ========================= =========================
paper                                   training                  test
======================================= ========================= =========================
Evaluating WSOL Methods Right, its code ``random_crop(256, 224)`` ``square(224)``
PSOL sec. 4, SLT-Net sec. 4             ``random_crop(256, 224)`` ``center_crop(256, 224)``
the same with InceptionV3               ``random_crop(320, 299)`` ``center_crop(320, 299)``
both, classification of ImageNet        \                         ``ten_crop(256, 224)``
PSOL sec. 4, the images of DDT          ``square(448)``           \
LCHP sec. 4                             ``random_crop(512, 448)`` ``center_crop(512, 448)``
======================================= ========================= =========================

Every resize is to a square and so changes the aspect ratio. PSOL names no training crop; its public code takes torchvision's
random resized crop and has the one above, SLT-Net's, beside it. LCHP names no test crop: the centre is our reading.

Boxes are cut at the border of the crop. After a training crop a box of which nothing is left is taken out, so that
``boxes`` may be (0, 4). After a centre crop every box is kept, as one without area at the border if it lies outside: at
test each image has to be counted, and no prediction can hit such a box. Boxes and predictions are then both of the crop;
PSOL's public code compares them in this way, although the cut makes large objects a little easier.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsol_lib.data.sample import Sample


def random_crop(resize: int = 256, crop: int = 224) -> Callable[[Sample], Sample]:
    """Training: resize to a square of side ``resize``, crop one of side ``crop`` anywhere, flip every second image."""
    return v2.Compose([*_squares(resize, crop, v2.RandomCrop), v2.RandomHorizontalFlip(), _WithoutLostBoxes()])


def center_crop(resize: int = 256, crop: int = 224) -> Callable[[Sample], Sample]:
    """Test: resize to a square of side ``resize``, crop the middle of side ``crop``."""
    return v2.Compose(_squares(resize, crop, v2.CenterCrop))


def square(side: int = 224) -> Callable[[Sample], Sample]:
    """The whole image, resized to a square."""
    return v2.Resize((side, side), antialias=True)


def ten_crop(resize: int = 256, crop: int = 224) -> Callable[[Sample], Tensor]:
    """Classification at test: the four corners, the middle and their mirror images, uint8 (10, 3, crop, crop).

    Boxes would be ten different ones: take ``dataset.labels`` for the labels, and the mean of the ten softmax outputs.
    """
    image_to_crops = v2.Compose([*_squares(resize, crop, v2.TenCrop), torch.stack])
    return lambda sample: image_to_crops(sample.image.as_subclass(Tensor))


def _squares(resize: int, crop: int, cut: Callable[[int], nn.Module]) -> list[nn.Module]:
    if not 0 < crop <= resize:
        raise ValueError(
            f"expected a crop of 1 to {resize} pixels, the resized image, found {crop}: correct one of them"
        )
    return [square(resize), cut(crop)]


class _WithoutLostBoxes(nn.Module):
    """v2.SanitizeBoundingBoxes would take a mask (H, W) for one mask a box."""

    def forward(self, sample: Sample) -> Sample:
        x1, y1, x2, y2 = sample.boxes.as_subclass(Tensor).unbind(1)
        kept = (x1 < x2) & (y1 < y2)
        if kept.all():
            return sample
        return sample._replace(boxes=tv_tensors.wrap(sample.boxes.as_subclass(Tensor)[kept], like=sample.boxes))
