"""PSOL: a box regressor that learns a localizer's boxes, and then needs neither its score maps nor a label.

Zhang, Cao and Wu, "Rethinking the Route Towards Weakly Supervised Object Localization" (CVPR 2020), Algorithm 1 and
section 3.2: localization is taught apart from classification, by regression onto boxes that some localizer guessed, and
its boxes go with the classes of any classifier. The regressor itself is :class:`wsol_lib.models.BoxRegressor`, the
pseudo boxes come from :mod:`wsol_lib.pseudo_boxes`, and both are trained by :func:`wsol_lib.train.train`::

    student = BoxRegressor(create_backbone("efficientnet_lite0"))
    train(student, pseudo_boxes.WithBoxes(dataset, boxes), epochs=6, targets=relative_boxes)
    predicted = predict_boxes(student, images, input_size=224)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from wsol_lib.cam import cross_entropy
from wsol_lib.data import Sample
from wsol_lib.data.transforms import INTERPOLATION, resized_side, square
from wsol_lib.models import Backbone, BoxRegressor, eval_mode
from wsol_lib.pseudo_boxes import are_good
from wsol_lib.train import labels

ATTEMPTS = 30  # crops that are tried before the whole image is taken, as in the authors' code


# -- boxes as numbers in [0, 1] (section 3.2.2) --------------------------------------------------------------------------


def encode_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Boxes in pixels -> what the regressor learns: x* = x / w_i, y* = y / h_i, w* = w / w_i, h* = h / h_i.

    Args:
        boxes: (N, 4), xyxy in pixels, inside the image
        image_sizes: (N, 2) or (2,), width and height

    Returns:
        (N, 4) in [0, 1]: x, y of the upper left corner, width, height

    Raises:
        ValueError: naming the box that is not inside its image or has no area

    >>> encode_boxes(torch.tensor([[10.0, 0, 40, 50]]), torch.tensor([100, 50]))
    tensor([[0.1000, 0.0000, 0.3000, 1.0000]])
    """
    sizes = image_sizes.to(boxes).expand(len(boxes), 2)
    good = are_good(boxes, sizes)
    if not good.all():
        i = int((~good).nonzero()[0])
        raise ValueError(
            f"expected boxes x1 < x2, y1 < y2 inside their images, found {boxes[i].tolist()} in an image of "
            f"{sizes[i].tolist()} pixels as box {i}: leave this image out"
        )
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1) / sizes.repeat(1, 2)


def decode_boxes(relative: Tensor, image_sizes: Tensor) -> Tensor:
    """The way back: (N, 4) in [0, 1] -> xyxy in pixels, cut at the right and lower border of the image.

    >>> decode_boxes(torch.tensor([[0.1, 0.0, 0.3, 1.0], [0.5, 0.5, 0.9, 0.2]]), torch.tensor([100, 50]))
    tensor([[ 10.,   0.,  40.,  50.],
            [ 50.,  25., 100.,  35.]])
    """
    corners = torch.cat([relative[:, :2], relative[:, :2] + relative[:, 2:]], dim=1).clamp(0, 1)
    return corners * image_sizes.to(relative).expand(len(relative), 2).repeat(1, 2)


# -- what the student may see --------------------------------------------------------------------------------------------


def relative_boxes(samples: list[Sample]) -> Tensor:
    """The boxes of samples as the regressor learns them, (N, 4): ``targets`` of :func:`wsol_lib.train.train`.

    Raises:
        ValueError: a sample that has not exactly one box, or one whose box has been cropped away
    """
    counts = [len(sample.boxes) for sample in samples]
    if set(counts) != {1}:
        i = next(i for i, count in enumerate(counts) if count != 1)
        raise ValueError(
            f"expected one box an image, found {counts[i]} in {samples[i].image_id}: "
            "give each image the one to learn with pseudo_boxes.WithBoxes"
        )
    boxes = torch.cat([sample.boxes.as_subclass(Tensor) for sample in samples])
    sizes = torch.tensor([sample.image.shape[:-3:-1] for sample in samples])
    return encode_boxes(boxes, sizes)


def labels_and_boxes(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Labels (N,) and relative boxes (N, 4): ``targets`` of joint training and of per-class regression."""
    return labels(samples), relative_boxes(samples)


class RandomResizedCrop(v2.RandomResizedCrop):
    """A random crop, resized, that keeps a piece of every box: the augmentation of the authors' code.

    Args:
        size: side in pixels of the result
        scale: smallest and largest share of the image's area
    """

    def __init__(self, size: int, scale: tuple[float, float] = (0.2, 1.0)):
        super().__init__(size, scale=scale, interpolation=INTERPOLATION, antialias=True)

    def forward(self, sample: Sample) -> Sample:
        """After ``ATTEMPTS`` crops that lost a box, the whole image, resized."""
        for _ in range(ATTEMPTS):
            cropped = v2.ClampBoundingBoxes()(super().forward(sample))
            if (cropped.boxes[:, 2:] > cropped.boxes[:, :2]).all():
                return cropped
        return square(self.size[0])(sample)


# -- one network or two (section 4.1) ------------------------------------------------------------------------------------


class JointModel(nn.Module):
    """PSOL-Joint: classifier and regressor over one trunk, trained by the sum of their losses.

    PSOL-Sep is no class of its own: a ``CAM`` or ``Backbone`` and a ``BoxRegressor`` with a trunk each, trained apart.

    Args:
        backbone: the classifier; the regressor shares all of it but its last layer
        hidden, loss_weight: of the regressor

    ``backbone`` and ``regressor`` are what :func:`classify` and :func:`predict_boxes` take.
    """

    def __init__(self, backbone: Backbone, hidden: int = 512, *, loss_weight: float = 50.0):
        super().__init__()
        self.backbone = backbone
        self.regressor = BoxRegressor(backbone, hidden, loss_weight=loss_weight)
        self.training = backbone.training

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) -> logits (N, K) and relative boxes (N, 4), the trunk computed once."""
        features = self.backbone.features(inputs)
        return self.backbone.head(features), self.regressor.backbone.head(features)

    def loss(self, inputs: Tensor, targets: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Cross entropy plus weighted squared error; "accuracy" and "mse" beside it.

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: labels (N,) and relative boxes (N, 4), as :func:`labels_and_boxes` gives
        """
        logits, boxes = self(inputs)
        classification = cross_entropy(logits, targets[0])
        error = F.mse_loss(boxes, targets[1])
        total = classification["loss"] + self.regressor.loss_weight * error
        return classification | {"loss": total, "mse": error.detach()}


def require_two_networks(first: Backbone, second: Backbone) -> None:
    """ValueError if two backbones share their trunk: teacher and student learn apart."""
    if first.trunk is second.trunk:
        raise ValueError("expected two networks, found one trunk in both: create a backbone for each")


def renormalize(inputs: Tensor, here: Backbone, there: Backbone) -> Tensor:
    """Images (N, 3, H, W) normalised for one backbone -> the same images normalised for another."""
    return (inputs * here.std + here.mean - there.mean) / there.std


# -- Algorithm 1, lines 4 and 5 ------------------------------------------------------------------------------------------


@torch.no_grad()
def predict_boxes(
    regressor: BoxRegressor,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    input_size: int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """The box of each image.

    Args:
        regressor: looked at in eval mode, whatever mode it is in
        images: uint8 (N, 3, H, W)
        classes: (N,), of the images, for a regressor with a box per class
        input_size: side in pixels to which the images are resized before the backbone; None keeps theirs
        batch_size: images in one forward pass

    Returns:
        (N, 4), xyxy in pixels of ``images``, cut at their border; float32 on the CPU

    Raises:
        ValueError: a regressor with a box per class and no classes
    """
    if regressor.num_classes is not None and classes is None:
        raise ValueError(
            "expected classes for a regressor with a box per class, found None: give those that a classifier predicts"
        )

    def boxes(batch: slice) -> Tensor:
        inputs = regressor.backbone.preprocess(images[batch], input_size)
        return regressor(inputs, None if classes is None else classes[batch].to(inputs.device))

    relative = _in_batches(regressor, boxes, len(images), batch_size, "boxes")
    return decode_boxes(relative, torch.tensor(images.shape[:-3:-1]))


@torch.no_grad()
def classify(
    classifier: Backbone,
    images: Tensor,
    *,
    crops: int = 1,
    input_size: int | None = None,
    resize: int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Class scores of each image, to go with the boxes of any localizer into :class:`wsol_lib.metrics.LocalizationAccuracy`.

    Args:
        classifier: of ``create_backbone`` or ``create_classifier``; looked at in eval mode, whatever mode it is in
        images: uint8 (N, 3, H, W)
        crops: 1, the middle; or 10, the middle, the corners and their mirror images
        input_size: side in pixels of a crop; None is what the classifier was trained on
        resize: side to which an image is resized before it is cropped; None is ``input_size``, which crops nothing off, with
            one crop, and with ten 256 for crops of 224 and 320 for crops of 299 pixels (section 4.2)
        batch_size: crops in one forward pass

    Returns:
        (N, K) float32 on the CPU: logits; of ten crops the logarithm of their mean probabilities

    Raises:
        ValueError: another number of crops, or crops larger than the image
    """
    size = input_size or classifier.input_size
    resize = resize or (size if crops == 1 else resized_side(size))
    if crops not in (1, 10) or resize < size:
        raise ValueError(
            f"expected 1 or 10 crops no larger than the resized image, found {crops} of {size} pixels out of {resize}: "
            "correct crops, input_size or resize"
        )

    def scores(batch: slice) -> Tensor:
        whole = classifier.preprocess(images[batch], resize)
        if crops == 1:
            return classifier(transforms.center_crop(whole, [size, size]))
        views = torch.stack(transforms.ten_crop(whole, [size, size]), dim=1)
        logits = classifier(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return logits.float().log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(crops))

    return _in_batches(classifier, scores, len(images), max(1, batch_size // crops), "classes")


def _in_batches(model: nn.Module, function, number: int, batch_size: int, name: str) -> Tensor:
    """``function`` of slices of 0 ... number - 1, joined on the CPU; the model is in eval mode meanwhile."""
    starts = range(0, number, batch_size)
    with eval_mode(model):
        parts = [
            function(slice(start, start + batch_size)).float().cpu()
            for start in tqdm(starts, desc=name, unit="batch", disable=len(starts) <= 2)
        ]
    return torch.cat(parts)
