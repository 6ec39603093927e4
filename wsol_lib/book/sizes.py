"""Parameters and FLOPs of the models of PSOL's Table 2, counted without computing them."""

from __future__ import annotations

import torch

from wsol_lib.models import BoxRegressor, count_flops, count_parameters, create_backbone
from wsol_lib.psol import JointModel

#: Row of the table -> backbone, classes, and how it localizes: "" (a single network), "sep" (a classifier and a regressor) or
#: "joint". The rows with VGG-GAP fit only with the 200 classes of CUB, all others with ImageNet's 1,000.
ROWS = {
    "VGG16-CAM": ("vgg_gap", 200, ""),
    "DDT-VGG16": ("vgg16", 1000, ""),
    "PSOL-VGG16-Sep": ("vgg16", 1000, "sep"),
    "PSOL-VGG16-Joint": ("vgg16", 1000, "joint"),
    "PSOL-VGG-GAP-Sep": ("vgg_gap", 200, "sep"),
    "PSOL-VGG-GAP-Joint": ("vgg_gap", 200, "joint"),
    "PSOL-InceptionV3-Sep": ("inception_v3", 1000, "sep"),
    "PSOL-InceptionV3-Joint": ("inception_v3", 1000, "joint"),
    "ResNet50-CAM": ("resnet50", 1000, ""),
    "PSOL-ResNet50-Sep": ("resnet50", 1000, "sep"),
    "PSOL-ResNet50-Joint": ("resnet50", 1000, "joint"),
    "DenseNet161-CAM": ("densenet161", 1000, ""),
    "PSOL-DenseNet161-Sep": ("densenet161", 1000, "sep"),
    "PSOL-DenseNet161-Joint": ("densenet161", 1000, "joint"),
}


def count(row: str) -> tuple[float, float]:
    """Millions of parameters of a model of ``ROWS``, and GFLOPs of its convolutions for one image.

    Sep is two networks, a classifier and a regressor; Joint is one, whose trunk is computed once.

    >>> parameters, flops = count("ResNet50-CAM")
    >>> f"{parameters:.2f}"
    '25.56'
    """
    name, num_classes, kind = ROWS[row]
    options = {"conv6": False} if name == "vgg_gap" else {}
    with torch.device("meta"):
        networks = [create_backbone(name, num_classes, pretrained=False, **options) for _ in range(1 + (kind == "sep"))]
        models = [*networks[:1], *(BoxRegressor(network) for network in networks[1:])]
        flops = len(networks) * count_flops(networks[0], 299 if name == "inception_v3" else 224)
        if kind == "joint":
            models = [JointModel(networks[0])]
    return sum(map(count_parameters, models)) / 1e6, flops / 1e9
