"""Localizers that put one question of a paper: trained as a method is, and then looked at in another way.

The ledger asks them, as experiments, by their paths: ``wsol_lib.book.questions:FirstLook`` and so on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsol_lib.boxes import scale_boxes
from wsol_lib.cam import CAM, cross_entropy
from wsol_lib.cam import localize as maps_of
from wsol_lib.lchp import LCHPI, PseudoLabels, crop_confidence, foreground_boxes
from wsol_lib.localizer import Localizer, Predictions
from wsol_lib.models import Backbone
from wsol_lib.slt import SLTMaps, adjust_colours

#: Brightness, contrast, saturation and hue of the recoloured copy: half of what SLT-Net's training changes them by at most
COLOURS = (1.2, 0.8, 0.8, 0.05)
CELL = 32  # pixels; sides of smaller copies are a multiple, so that they have whole cells


class FirstLook(PseudoLabels):
    """What LCHP's generator draws at its first look, without covering it and looking again (section 3.1)."""

    def _boxes_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        _, logits = super()._boxes_and_logits(images)
        generator = self.network.student.generator
        inputs = generator.preprocess(images, self.input_size)
        options = {name: self.settings[name] for name in ("normalization", "upsample")}
        with torch.no_grad():
            features = generator.features(inputs)
        found = foreground_boxes(features, self.settings["delta"], inputs.shape[-2:], **options).cpu()
        nothing = (found[:, 2:] <= found[:, :2]).any(dim=1, keepdim=True)
        found = torch.where(nothing, _whole(inputs), found)
        return scale_boxes(found, inputs.shape[:-3:-1], images.shape[:-3:-1]), logits


class Sure(LCHPI):
    """LCHP-I, whose score is how sure its classifier is of the crop of a box, whatever the class (section 3.2).

    The box is its own, or the whole image with the setting ``whole``.
    """

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return super().hyperparameters() | {"whole": False}

    def look(self, images: Tensor, classes: Tensor | None) -> Predictions:
        found = super().look(images, classes)
        if self.settings["whole"]:
            found = found._replace(boxes=_whole(images))
        _, classifier = self.parts()
        inputs = classifier.preprocess(images, self.input_size)
        boxes = scale_boxes(found.boxes, images.shape[:-3:-1], inputs.shape[:-3:-1]).to(inputs)
        return found._replace(scores=crop_confidence(classifier, inputs, boxes).cpu())


class Steady(SLTMaps):
    """SLT-Net's localizer, whose score is how alike its map stays when the image changes (section 3.4).

    The image is mirrored, made a quarter smaller, and recoloured, one at a time; each copy's map is moved back and correlated
    with that of the image, over its pixels; the score is the mean of the three, none counted below 0.
    """

    def look(self, images: Tensor, classes: Tensor | None) -> Predictions:
        found = super().look(images, classes)
        one = torch.ones(len(images))
        colours = adjust_colours(images.float() / 255, *(amount * one for amount in COLOURS))
        smaller = max(1, round(0.75 * self.input_size / CELL)) * CELL
        copies = [
            self.localize(images.flip(-1), classes)[0].flip(-1),
            maps_of(self.network, images, classes, input_size=smaller)[0],
            self.localize((255 * colours).round().to(torch.uint8), classes)[0],
        ]
        alike = torch.stack([correlation(copy, found.score_maps) for copy in copies])
        return found._replace(scores=alike.clamp(min=0).mean(dim=0))


class FamilyCAM(CAM):
    """CAM that need not tell sister classes apart: it learns which family an image is of, and shows the family's map.

    Args:
        backbone: one with a GAP head
        sisters: classes of a family; they follow each other

    Raises:
        ValueError: another head; classes that are no such families
    """

    def __init__(self, backbone: Backbone, *, sisters: int = 3):
        super().__init__(backbone)
        if sisters < 1 or backbone.head.out_features % sisters:
            raise ValueError(
                f"expected families of {sisters} classes each, found {backbone.head.out_features} classes: name another number"
            )
        self.sisters = sisters

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the families, whose probability is the sum over their classes; "accuracy" is that of families."""
        families = self.backbone(inputs).unflatten(1, (-1, self.sisters)).logsumexp(dim=2)
        return cross_entropy(families, targets // self.sisters)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As that of CAM, but the mean map of the class and its sisters."""
        features = self.backbone.features(inputs)
        logits = self.backbone.head(features)
        chosen = logits.argmax(dim=1) if classes is None else classes
        weights = self.backbone.head.weight.unflatten(0, (-1, self.sisters)).mean(dim=1)
        return torch.einsum("nchw,nc->nhw", features, weights[chosen // self.sisters]), logits


class Families(Localizer):
    """:class:`FamilyCAM` as a localizer; telling lookalikes apart, says SLT-Net (section 3.3), is what draws a map to parts."""

    network_class = FamilyCAM


def correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Pearson's, of each pair of maps (N, H, W): (N,); 0 where one is the same everywhere."""
    maps, others = (own.flatten(1) - own.flatten(1).mean(dim=1, keepdim=True) for own in (maps, others))
    lengths = maps.norm(dim=1) * others.norm(dim=1)
    return (maps * others).sum(dim=1) / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)


def _whole(images: Tensor) -> Tensor:
    """The whole of each image as its box (N, 4)."""
    height, width = images.shape[-2:]
    return torch.tensor([0.0, 0.0, width, height]).repeat(len(images), 1)
