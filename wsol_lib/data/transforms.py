"""How images are resized and cropped, in training and at test, with their boxes and masks moved along.

Everything is resized in one way, bicubic with antialiasing, which on 8-bit images gives what Pillow gives; masks take the
nearest pixel. Images stay uint8, ``Backbone.preprocess`` scales and normalises them.

======================================= ========================= ===================================
paper                                   training                  test
======================================= ========================= ===================================
Evaluating WSOL Methods Right, its code ``random_crop(256, 224)`` ``square(224)``
PSOL sec. 4, SLT-Net sec. 4             ``random_crop(256, 224)`` ``psol.classify(..., resize=256)``
the same with InceptionV3               ``random_crop(320, 299)`` ``psol.classify(..., resize=320)``
both, classification of ImageNet        \                         ``psol.classify(..., crops=10)``
PSOL sec. 4, the images of DDT          ``square(448)``           \
LCHP sec. 4                             ``random_crop(512, 448)`` ``square(448)``
======================================= ========================= ===================================

Every resize is to a square and so changes the aspect ratio. PSOL names no training crop; its public code takes torchvision's
random resized crop and has the one above, SLT-Net's, beside it. At test PSOL predicts the box of the middle of the image,
too, and compares it with the true box cut there, which makes large objects a little easier; ``psol.predict_boxes`` looks at
the whole image. LCHP names no test crop: the whole image is our reading.

Boxes are cut at the border of the crop. After a training crop a box of which nothing is left is taken out, so that
``boxes`` may be (0, 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from wsol_lib.data.sample import LocalizationDataset, Sample

INTERPOLATION = InterpolationMode.BICUBIC
#: Side to which the papers resize an image of which they crop this side
RESIZED = {224: 256, 299: 320, 448: 512}


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """Images (..., H, W), or the tv_tensors that belong to one, at another size (height, width).

    Boxes are cut at the border, beyond which rounding puts some of them by a hair.
    """
    resized = functional.resize(images, list(size), interpolation=INTERPOLATION, antialias=True)
    is_boxes = isinstance(resized, tv_tensors.BoundingBoxes)
    return functional.clamp_bounding_boxes(resized) if is_boxes else resized


def stack_images(dataset: LocalizationDataset, indices: Sequence[int], side: int | None) -> Tensor:
    """Some images of a data set as one batch, its transform not applied.

    Sizes that the data set does not know (0, as of ImageNet's training images) are known to it afterwards.

    Args:
        dataset: its images may differ in size
        indices: which of them
        side: in pixels, of the squares to which they are resized if they differ; images of one size are left as they are

    Returns:
        uint8 (n, 3, H, W)

    Raises:
        ValueError: images of several sizes and no side
    """
    sizes = dataset.image_sizes[list(indices)]
    if sizes.all() and (sizes == sizes[0]).all():  # unknown ones are 0
        return dataset.images(indices)
    if side is None:
        raise ValueError(
            f"expected input_size for images of several sizes, found None for {dataset.name}: give the side in pixels "
            "that the backbone is to see"
        )
    resized = []
    for i in indices:
        image = dataset.images([i])[0]
        dataset.image_sizes[i] = torch.tensor(image.shape[:-3:-1])
        resized.append(resize_images(image, (side, side)))
    return torch.stack(resized)


def random_crop(resize: int = 256, crop: int = 224) -> Callable[[Sample], Sample]:
    """Training: resize to a square of side ``resize``, crop one of side ``crop`` anywhere, flip every second image."""
    if not 0 < crop <= resize:
        raise ValueError(
            f"expected a crop of 1 to {resize} pixels, the resized image, found {crop}: correct one of them"
        )
    return v2.Compose([square(resize), v2.RandomCrop(crop), v2.RandomHorizontalFlip(), WithoutLostBoxes()])


def resized_side(crop: int) -> int:
    """Side to which an image is resized before a square of side ``crop`` is cut out of it: ``RESIZED``, or 256 / 224 of it.

    >>> resized_side(299), resized_side(112)
    (320, 128)
    """
    return RESIZED.get(crop, round(crop * 256 / 224))


def square(side: int = 224) -> Callable[[Sample], Sample]:
    """The whole image, resized to a square."""
    # rounding would leave some boxes a hair outside
    return v2.Compose([v2.Resize((side, side), INTERPOLATION, antialias=True), v2.ClampBoundingBoxes()])


class WithoutLostBoxes(nn.Module):
    """Boxes of which a crop left nothing are taken out; v2.SanitizeBoundingBoxes would take a mask (H, W) for one mask a box."""

    def forward(self, sample: Sample) -> Sample:
        x1, y1, x2, y2 = sample.boxes.as_subclass(Tensor).unbind(1)
        kept = (x1 < x2) & (y1 < y2)
        if kept.all():
            return sample
        return sample._replace(boxes=tv_tensors.wrap(sample.boxes.as_subclass(Tensor)[kept], like=sample.boxes))
