"""SPG, self-produced guidance: a classifier's own map, cut at two thresholds, teaches its trunk what is object.

Zhang et al., "Self-produced Guidance for Weakly-supervised Object Localization" (ECCV 2018), section 3; "Evaluating WSOL
Methods Right", section 5.1, whose code is the reference here. In the paper's names: A is the classifier, whose class
activation map is cut into foreground, background and what is left open, and teaches B2; what B2 says teaches B1; and what
both say on average teaches C. B1, B2 and C exist for their gradient in the trunk alone, the score map is that of A.

Where the branches stand, on every backbone: B1 on the last feature map of the last resolution but one, B2 and C on the last
feature map. That is conv4_3 and conv6 of vgg_gap, Mixed_6e and Mixed_7c of inception_v3, layer3 and layer4 of resnet50,
transition3 and the last map of densenet161, stage 5 and the last map of efficientnet_lite0; where a stride of 16 makes
stages one, Mixed_5d of inception_v3 and layer2 of resnet50. The reference has places of its own for each backbone: B1 and B2
both before the last stage, on InceptionV3 behind Mixed_5d and Mixed_6e, on ResNet50 at the two ends of layer3; it puts new
convolutions into A of VGG; and its loss of a mask that leaves everything open is 0 / 0, here 0. The authors' own code has
low_b2 = 0.05, the other thresholds are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, class_activation_map, cross_entropy, resize_maps
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone, stages_of

OPEN = -1.0

#: Fewer pixels than this share of the image, the reference's 30 of 224 x 224, are no foreground to learn from.
LEAST_FOREGROUND = 30 / 224**2
#: Then the foreground is what is above this share of the maximum.
LOWERED = 0.7


def guidance_mask(maps: Tensor, low: float, high: float) -> Tensor:
    """Foreground above ``high``, background below ``low``, the rest is left open; a constant to autograd.

    If too little is above ``high``, foreground is what exceeds 0.7 of the image's maximum. Background goes first: what is
    below ``low`` is background in any case.

    Args:
        maps: (N, H, W) in [0, 1]
        low, high: in [0, 1], low not above high

    Returns:
        (N, H, W): 1 foreground, 0 background, -1 open

    >>> guidance_mask(torch.tensor([[[0.0, 0.3, 0.6, 0.9]]]), low=0.2, high=0.5)
    tensor([[[ 0., -1.,  1.,  1.]]])
    """
    # made of comparisons, so no gradient gets through
    few = (maps > high).float().mean(dim=(1, 2), keepdim=True) < LEAST_FOREGROUND
    bar = torch.where(few, LOWERED * maps.amax(dim=(1, 2), keepdim=True), high)
    mask = torch.full_like(maps, OPEN).masked_fill(maps > bar, 1.0)
    return mask.masked_fill(maps < low, 0.0)


def guided_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Mean binary cross entropy of the pixels that are not open; 0 if all are.

    Args:
        scores: (N, H, W), whose sigmoid is the probability of the foreground
        mask: (N, H, W), as :func:`guidance_mask` gives
    """
    counts = (mask != OPEN).to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores, mask.clamp(min=0), weight=counts, reduction="sum")
    return losses / counts.sum().clamp(min=1)


class SPG(CAM):
    """CAM whose trunk also learns to tell object from background, from masks that it produces itself.

    The thresholds are named after the branch that learns from the mask, low for background and high for foreground.

    Args:
        backbone: one with a GAP head, and with a trunk of modules one after another
        low_b1, high_b1: cut the probabilities of B2, in [0, 1]
        low_b2, high_b2: cut A's map, min-max normalised, in [0, 1]
        low_c, high_c: cut the mean of the probabilities of B1 and B2, in [0, 1]
        channels: of the branches' 3 x 3 convolutions, two in B1 and in B2, which share the second, and one in C; 512 for
            every backbone, as the reference has it on VGG and InceptionV3 (on ResNet50 its B1 and B2 have 1024). On
            "efficientnet_lite0" 64 are lean

    Raises:
        ValueError: another head, a threshold outside its range, a low one above its high one, a trunk of one piece
    """

    #: hyperparameters and their feasible ranges; of each pair the low one must not be above the high one
    search_space: ClassVar[dict[str, tuple[float, float]]] = {
        f"{end}_{branch}": (0.0, 1.0) for branch in ("b1", "b2", "c") for end in ("low", "high")
    }

    def __init__(
        self,
        backbone: Backbone,
        *,
        low_b1: float = 0.05,
        high_b1: float = 0.5,
        low_b2: float = 0.01,
        high_b2: float = 0.7,
        low_c: float = 0.1,
        high_c: float = 0.7,
        channels: int = 512,
    ):
        super().__init__(backbone)
        self.thresholds = {"b1": (low_b1, high_b1), "b2": (low_b2, high_b2), "c": (low_c, high_c)}
        for branch, (low, high) in self.thresholds.items():
            check_hyperparameters(self.search_space, **{f"low_{branch}": low, f"high_{branch}": high})
            if low > high:
                raise ValueError(
                    f"expected low_{branch} in [0, {high:g}], not above high_{branch}, found {low}: swap the two"
                )
        self.place, middle = last_map_before_the_end(backbone.trunk)
        self.b1 = _convolution(middle, channels)
        self.b2 = _convolution(backbone.num_features, channels)
        self.shared = nn.Sequential(_convolution(channels, channels), nn.Conv2d(channels, 1, 1))
        self.c = nn.Sequential(_convolution(backbone.num_features, channels), nn.Conv2d(channels, 1, 1))
        self.to(backbone.mean.device)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """ "loss", cross entropy and the three guided losses; beside it "accuracy" and "guidance", the sum of the three.

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: labels (N,), whose map teaches B2
        """
        logits, guidance = self.guidance(inputs, targets)
        guided = sum(guided_loss(scores, mask) for scores, mask in guidance.values())
        classified = cross_entropy(logits, targets)
        return {**classified, "loss": classified["loss"] + guided, "guidance": guided.detach()}

    def guidance(self, inputs: Tensor, classes: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """What each branch says and what it is told, at the size of the images.

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,), whose map teaches B2

        Returns:
            logits (N, K); and for "b2", "b1" and "c" scores (N, H, W), whose sigmoid is the probability of the foreground,
            with the mask (N, H, W) of :func:`guidance_mask` they learn from
        """
        features, middle = self._features(inputs)
        weight = self.backbone.head.weight.detach()
        maps = resize_maps(class_activation_map(features.detach(), weight, classes), inputs.shape[2:])
        b1, b2 = self.shared(self.b1(middle)), self.shared(self.b2(features))
        b1, b2, c = (resize_maps(scores[:, 0].float(), inputs.shape[2:]) for scores in (b1, b2, self.c(features)))
        of_b1, of_b2 = b1.detach().sigmoid(), b2.detach().sigmoid()
        teachers = {"b2": (b2, normalize_score_maps(maps)), "b1": (b1, of_b2), "c": (c, (of_b1 + of_b2) / 2)}
        return self.backbone.head(features), {
            branch: (scores, guidance_mask(teacher, *self.thresholds[branch]))
            for branch, (scores, teacher) in teachers.items()
        }

    def _features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The last feature map and the one that B1 reads."""
        middle = []
        module = self.backbone.trunk.get_submodule(self.place)
        handle = module.register_forward_hook(lambda module, arguments, output: middle.append(output.float()))
        try:
            return self.backbone.features(inputs), middle[0]
        finally:
            handle.remove()


def last_map_before_the_end(trunk: nn.Module) -> tuple[str, int]:
    """Where a trunk goes over to its last resolution: the name of the module before it, and the channels of its output.

    Raises:
        ValueError: the trunk is not a sequence of modules, or has one resolution
    """
    stages = stages_of(trunk)
    if len(stages) < 2:
        raise ValueError(
            "expected a trunk of modules one after another, of several resolutions, found one that cannot be taken apart: "
            "create the backbone with create_backbone"
        )
    last = stages[-2][-1]
    return last.name, last.channels


def _convolution(in_channels: int, channels: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True))
    return layers.to(memory_format=torch.channels_last)


class SPGLocalizer(Localizer):
    """SPG by its name, "spg".

    A search draws its thresholds in pairs, of which the smaller one is the low one: uniform over all pairs that are allowed.
    """

    network_class = SPG

    @classmethod
    def from_drawn(cls, point: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
        values = point | fixed
        for branch in ("b1", "b2", "c"):
            low, high = f"low_{branch}", f"high_{branch}"
            if low in values and high in values:  # beside one that is fixed the other is cut off there
                values[low], values[high] = sorted((values[low], values[high]))
        return values | fixed
