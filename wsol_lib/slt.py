"""SLT-Net: a localizer that forgives mistakes, and a box regressor that learns its boxes.

Guo et al., "Strengthen Learning Tolerance for Weakly Supervised Object Localization" (CVPR 2021), section 3. The localizer
(Eq. 2, 8 to 13) may confuse similar classes, and has to say the same of an image and of its transformed twin. The
regressor learns the localizer's boxes in the same steps (Eq. 3, 4), the classifier is any other network (Eq. 5)::

    localizer = SLTLocalizer(create_localizer_backbone("vgg16", 200), **SETTINGS["cub"])
    net = SLTNet(localizer, BoxRegressor(create_backbone("vgg16")))
    train(net, dataset, epochs=EPOCHS["cub"], **NEW_OPTIMIZATION)
    boxes, logits = predict(net, classifier, images)
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.cam import CAM, class_activation_map, resize_maps
from wsol_lib.data import LocalizationDataset
from wsol_lib.data.transforms import resize_images
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import Localizer, Stage
from wsol_lib.losses import accuracy, box_regression_loss, require_k, semantic_tolerance_loss, visual_tolerance_loss
from wsol_lib.models import Backbone, BoxRegressor, GapLinear, Network, create_backbone
from wsol_lib.psol import PSOL, classify, predict_boxes, renormalize, require_two_networks

#: Section 4.1: arguments of :class:`SLTLocalizer`, and how long it is trained together with the regressor. The paper's beta
#: belongs to its Eq. 13 as printed.
SETTINGS: dict[str, dict[str, Any]] = {
    "cub": {"alpha": 0.4, "k": 30, "beta": 10.0, "sum_over_maps": True},
    "imagenet": {"alpha": 0.2, "k": 100, "beta": 10.0, "sum_over_maps": True},
}
EPOCHS = {"cub": 4, "imagenet": 2}
#: Section 4.1, the "New Optimization" of Table 5: arguments of :func:`wsol_lib.train.train`. The paper gives neither a
#: larger rate for new layers nor a schedule. The old optimization (section 4.2) has a rate of 1e-3 and more iterations; how
#: many is not given.
NEW_OPTIMIZATION: dict[str, Any] = {
    "learning_rate": 2e-4,
    "head_factor": 1.0,
    "batch_size": 16,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "nesterov": False,
    "schedule": "constant",
}
#: What a search draws for beta, which has no end: two decades to either side of the paper's 10.
DRAWN_BETA = {"beta": (0.1, 1000.0, "log")}
#: Table 5, its parts on and off: what :class:`SLTLocalizer` is given to leave the others out
ABLATION: dict[str, dict[str, Any]] = {
    "CAM": {"alpha": 1.0, "average": False, "beta": 0.0},
    "L_SMT": {"average": False, "beta": 0.0},
    "L_SMT, top-K ACAM": {"beta": 0.0},
    "L_VST": {"alpha": 1.0, "average": False},
    "SLT": {},
}

STIMULI = ("colour", "flip", "scale")
#: The paper names the changes of colour and of scale but not their strength; these are ours: factors of 1 - s to 1 + s,
#: a turn of the hue by at most this share of the colour circle, sides of 0.75 to 1.25 of the image's.
COLOUR_STRENGTH = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
SCALES = (0.75, 1.25)
GREY = (0.299, 0.587, 0.114)

#: Section 4.1: how many modules the localizer loses at the end of its trunk, and the channels that are left
SURGERY = {"vgg16": (1, 512), "inception_v3": (3, 768)}


def create_localizer_backbone(name: str, num_classes: int, pretrained: bool = True) -> Backbone:
    """The backbone of the localizer, after the paper's surgery (section 4.1).

    "vgg16" loses its last pooling and its first two fully connected layers: 14 x 14 features of 512 channels at 224 pixels.
    "inception_v3" loses its last three blocks, Mixed_7a to 7c: 17 x 17 features of 768 channels at 299 pixels. Both go on
    with GAP and a new linear layer, without the extra convolution of Zhou et al., which the text does not mention. Any
    other name is ``create_backbone``'s own: Table 6 has ResNet50 and DenseNet161, the text nothing on how they were cut.

    Args:
        name, num_classes, pretrained: of :func:`wsol_lib.models.create_backbone`

    Raises:
        ValueError, FileNotFoundError: those of :func:`wsol_lib.models.create_backbone`
    """
    whole = create_backbone(name, num_classes, pretrained)
    if name not in SURGERY:
        return whole
    removed, channels = SURGERY[name]
    cut = Backbone(whole.trunk[:-removed], GapLinear(channels, num_classes), channels, input_size=whole.input_size)
    cut.mean, cut.std = whole.mean, whole.std
    return cut


def top_k_average_map(class_maps: Tensor, logits: Tensor, k: int) -> Tensor:
    """The mean of the class activation maps of the k highest scores (SLT Eq. 9).

    These are the classes that are predicted: the map knows no label, not even where the label is known and not among them.

    Args:
        class_maps: (N, C, h, w), one map a class
        logits: (N, C)
        k: in 1 ... C; 1 is the map of the predicted class, C the mean of all

    Returns:
        (N, h, w), not normalised

    Raises:
        ValueError: shapes that do not fit, k outside its range, logits that are NaN
    """
    _require_ranked(class_maps, logits, k)
    top = logits.topk(k, dim=1).indices[:, :, None, None]
    return class_maps.gather(1, top.expand(-1, -1, *class_maps.shape[-2:])).mean(dim=1)


def _require_ranked(class_maps: Tensor, logits: Tensor, k: int) -> None:
    if class_maps.ndim != 4 or logits.shape != class_maps.shape[:2]:
        raise ValueError(
            f"expected class maps (N, C, h, w) and logits (N, C), found {tuple(class_maps.shape)} and "
            f"{tuple(logits.shape)}: give one map and one score a class"
        )
    require_k(k, logits.shape[1])
    if logits.isnan().any():
        raise ValueError("expected logits that can be ranked, found NaN: lower the learning rate and start again")


# -- visual stimuli (section 3.4) ----------------------------------------------------------------------------------------


class SpatialTransform(NamedTuple):
    """What g of Eq. 10 does to the geometry of a batch; its inverse is the whole of g' (Eq. 12), colour has none.

    Attributes:
        flipped: bool (N,), the images that are mirrored
        size: (H', W'), to which all are resized
    """

    flipped: Tensor
    size: tuple[int, int]

    def apply(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> (N, 3, H', W'), resized as all images are, bicubic with antialiasing."""
        return self._flip(resize_images(images, self.size))

    def restore(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of the transformed images (N, C, h', w') -> where they belong in the images themselves, (N, C, H, W)."""
        if maps.shape[-2:] != size:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return self._flip(maps)

    def _flip(self, images: Tensor) -> Tensor:
        return torch.where(self.flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def draw_transform(
    number: int, size: tuple[int, int], cells: tuple[int, int], stimuli: tuple[str, ...] = STIMULI
) -> SpatialTransform:
    """Draw a :class:`SpatialTransform`: each image mirrored or not, all at one scale out of ``SCALES``.

    The scaled image has whole cells of the feature map, so that the map of the transformed image covers all of it and
    nothing else.

    Args:
        number: N, images in the batch
        size: (H, W) of the images
        cells: (h, w) of their feature maps
        stimuli: out of ``STIMULI``; what is missing is not drawn
    """
    flipped = torch.rand(number) < 0.5 if "flip" in stimuli else torch.zeros(number, dtype=torch.bool)
    if "scale" not in stimuli:
        return SpatialTransform(flipped, tuple(size))
    scale = float(torch.empty(()).uniform_(*SCALES))
    height, width = (round(max(1, round(c * scale)) * side / c) for side, c in zip(size, cells))
    return SpatialTransform(flipped, (height, width))


def draw_colours(number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw brightness, contrast, saturation and hue for ``number`` images, within ``COLOUR_STRENGTH``: (N,) each."""
    brightness, contrast, saturation, hue = (
        torch.empty(number).uniform_(-strength, strength) for strength in COLOUR_STRENGTH.values()
    )
    return 1 + brightness, 1 + contrast, 1 + saturation, hue


def adjust_colours(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Colour jitter, every image by amounts of its own: one 3 x 3 matrix and one shift an image.

    As torchvision's ``adjust_brightness`` and so on, one after the other, but clamped once, and with the hue turned about
    the grey axis instead of in HSV. torchvision jitters a batch by one amount only, which batch norm would partly undo.

    Args:
        images: (N, 3, H, W) in [0, 1]
        brightness, contrast, saturation: (N,) factors, 1 changes nothing
        hue: (N,), share of the colour circle, 0 changes nothing

    Returns:
        (N, 3, H, W) in [0, 1]
    """
    grey = images.new_tensor(GREY)
    brightness, contrast, saturation, hue = (
        amount.to(images)[:, None, None] for amount in (brightness, contrast, saturation, hue)
    )
    eye, ones = torch.eye(3).to(images), images.new_ones(3, 3)
    cross = (torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5).to(images)
    angle = 2 * torch.pi * hue
    turn = angle.cos() * eye + (1 - angle.cos()) / 3 * ones + angle.sin() * cross  # Rodrigues, about (1, 1, 1)
    colour = turn @ (saturation * eye + (1 - saturation) * grey)
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
    mean_grey = brightness * (pixels @ grey).mean(dim=1)[:, None, None]
    pixels = pixels @ (brightness * contrast * colour).mT + (1 - contrast) * mean_grey
    return pixels.clamp_(0, 1).unflatten(1, images.shape[-2:]).permute(0, 3, 1, 2)


# -- localizer (sections 3.3 and 3.4) ------------------------------------------------------------------------------------


class SLTLocalizer(CAM):
    """The localizer of SLT-Net: Eq. 8 instead of cross entropy, Eq. 9 instead of one class's map, Eq. 13 beside it.

    Every part can be left out (``ABLATION``): alpha = 1 is cross entropy, ``average=False`` the map of one class, beta = 0
    saves the second view. The second view is not classified: Eq. 8 has the scores of one image.

    Args:
        backbone: one with a GAP head, as ``create_localizer_backbone`` makes
        alpha: in [0, 1], what an image still costs whose label is among the k highest scores
        k: classes that are similar to the right one and classes whose maps are averaged; None takes 15 % of all classes,
            the paper's 30 of 200 on CUB (on ImageNet it is 100 of 1000)
        beta: weight of the visual tolerance loss, at least 0
        sum_over_maps: add up the classes in Eq. 13, as it is printed and as ``SETTINGS`` have it; otherwise their mean is
            taken, the words' mean squared error, which is weaker by the number of classes at the same beta
        stimuli: out of ``STIMULI``, what the second view is changed by
        average: whether the map is the mean over the k highest scores
        keep_label: where a class is asked for, it is always one of the k averaged, if need be in place of the k-th; the
            paper averages the predicted ones, whatever the label

    Raises:
        ValueError: another head, alpha, k or beta outside their ranges, an unknown stimulus
    """

    #: k has no range of its own: it goes by the number of classes
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"alpha": (0.0, 1.0), "beta": (0.0, float("inf"))}

    def __init__(
        self,
        backbone: Backbone,
        *,
        alpha: float = 0.4,
        k: int | None = None,
        beta: float = 10.0,
        sum_over_maps: bool = False,
        stimuli: tuple[str, ...] = STIMULI,
        average: bool = True,
        keep_label: bool = False,
    ):
        super().__init__(backbone)
        num_classes = backbone.head.out_features
        k = max(1, round(0.15 * num_classes)) if k is None else k
        require_k(k, num_classes)
        check_hyperparameters(self.search_space, alpha=alpha, beta=beta)
        if not set(stimuli) <= set(STIMULI):
            raise ValueError(f"expected stimuli out of {', '.join(STIMULI)}, found {stimuli}: choose some of these")
        self.alpha, self.k, self.beta, self.stimuli = alpha, k, beta, stimuli
        self.sum_over_maps, self.average, self.keep_label = sum_over_maps, average, keep_label

    def class_maps(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) -> the class activation maps of all classes (N, K, h, w) (SLT Eq. 7)."""
        return F.conv2d(features, self.backbone.head.weight[:, :, None, None])

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Semantic plus beta times visual tolerance loss (SLT Eq. 2), and both alone; "accuracy" of the first view.

        Args:
            inputs: normalised images (N, 3, H, W)
            targets: labels (N,)
        """
        return self.loss_and_maps(inputs, targets)[0]

    def loss_and_maps(self, inputs: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """``loss``, and the score maps (N, h, w) of the same pass, without gradient."""
        features = self.backbone.features(inputs)
        logits = self.backbone.head(features)
        loss = semantic = semantic_tolerance_loss(logits, targets, self.alpha, self.k)
        visual = semantic.new_zeros(())
        if self.beta > 0 and self.stimuli:
            maps, restored = self.class_maps(features), self._second_view(inputs, features.shape[-2:])
            visual = visual_tolerance_loss(maps, restored, sum_over_maps=self.sum_over_maps)
            loss = semantic + self.beta * visual
        values = {"loss": loss, "semantic": semantic.detach(), "visual": visual.detach()}
        values["accuracy"] = accuracy(logits, targets)
        with torch.no_grad():
            return values, self._maps(features, logits, targets)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean map of the k highest scores (SLT Eq. 9), and the logits.

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,); looked at with ``keep_label`` or without ``average`` only

        Returns:
            maps (N, h, w), not normalised, and logits (N, K)
        """
        features = self.backbone.features(inputs)
        logits = self.backbone.head(features)
        return self._maps(features, logits, classes), logits

    def _maps(self, features: Tensor, logits: Tensor, classes: Tensor | None) -> Tensor:
        if not self.average:
            chosen = logits.argmax(dim=1) if classes is None else classes
            return class_activation_map(features, self.backbone.head.weight, chosen)
        if self.keep_label and classes is not None:
            logits = logits.scatter(1, classes[:, None], float("inf"))
        return top_k_average_map(self.class_maps(features), logits, self.k)

    def _second_view(self, inputs: Tensor, cells: tuple[int, int]) -> Tensor:
        """The class maps of the transformed images, moved back: M^it of SLT Eq. 10 to 12, (N, K, h, w)."""
        images = inputs
        if "colour" in self.stimuli:
            mean, std = self.backbone.mean, self.backbone.std
            images = (adjust_colours(inputs * std + mean, *draw_colours(len(inputs))) - mean) / std
        transform = draw_transform(len(inputs), inputs.shape[-2:], cells, self.stimuli)
        return transform.restore(self.class_maps(self.backbone.features(transform.apply(images))), cells)


# -- localizer and regressor in step (section 3.1) -----------------------------------------------------------------------


class SLTNet(Network):
    """Localizer and regressor, each with a network of its own, trained in the same steps (SLT section 3.1, Figure 2a).

    In every step the regressor learns the boxes that the localizer draws for the same images. No gradient flows back
    through them, so Eq. 1 is a sum of separate trainings, and the classifier, its third term, may as well be trained
    elsewhere. For training and ``cam.localize`` it stands for its localizer.

    Args:
        localizer: its map and its loss are used
        regressor: over another backbone, which may be of another family
        tau: threshold of the score maps, min-max normalised, in [0, 1]; the 20 % of CAM (section 3.2)
        m: by which boxes in pixels are divided before smooth L1 (Eq. 3); None is what "downsampling factor" says, the
            pixels of the image a cell of the localizer's map, 1 is pixels, the side of the image makes them relative

    Raises:
        ValueError: one trunk in both
    """

    def __init__(self, localizer: SLTLocalizer, regressor: BoxRegressor, *, tau: float = 0.2, m: float | None = None):
        super().__init__(localizer=localizer, regressor=regressor)
        require_two_networks(localizer.backbone, regressor.backbone)
        self.tau, self.m = tau, m

    @property
    def backbone(self) -> Backbone:
        """The localizer's."""
        return self.localizer.backbone

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The first two terms of SLT Eq. 1: the localizer's loss, and its entries, plus "regression" (Eq. 3).

        Args:
            inputs: images (N, 3, H, W), normalised for the localizer
            targets: labels (N,)
        """
        values, maps = self.localizer.loss_and_maps(inputs, targets)
        m = _pixels_per_cell(inputs, maps) if self.m is None else self.m
        regression = box_regression_loss(self._predict(inputs), self.pseudo_boxes(maps, inputs.shape[-2:]), m)
        return values | {"loss": values["loss"] + regression, "regression": regression.detach()}

    def pseudo_boxes(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Score maps (N, h, w) -> the boxes (N, 4) that the localizer draws in images of ``size`` (H, W), in pixels."""
        return boxes_from_score_maps(normalize_score_maps(resize_maps(maps.float(), size)), self.tau)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The localizer's."""
        return self.localizer.score_maps(inputs, classes)

    def _predict(self, inputs: Tensor) -> Tensor:
        """The regressor's boxes (N, 4), xyxy in pixels; where they leave the image they are not cut, to be learned from."""
        boxes = self.regressor(renormalize(inputs, self.localizer.backbone, self.regressor.backbone))
        height, width = inputs.shape[-2:]
        return box_convert(boxes, "xywh", "xyxy") * boxes.new_tensor([width, height, width, height])


def predict(
    net: SLTNet,
    classifier: Backbone,
    images: Tensor,
    *,
    crops: int = 1,
    input_size: int | None = None,
    resize: int | None = None,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Inference (SLT section 3.1, Figure 2c): the box from the regressor, the class from any classifier.

    Args:
        net: the localizer is not used any more
        classifier: of ``create_backbone`` or ``psol.create_classifier``
        images: uint8 (N, 3, H, W)
        crops: of the classifier's, 1 or the 10 of the paper; boxes come from the whole image
        input_size: side in pixels of what both networks see; None is the images' own for the regressor, for the classifier
            what it was trained on
        resize: of the classifier's images before they are cropped, as in :func:`wsol_lib.psol.classify`
        batch_size: images in one forward pass

    Returns:
        boxes (N, 4), xyxy in pixels of ``images``, and class scores (N, K), float32 on the CPU
    """
    boxes = predict_boxes(net.regressor, images, input_size=input_size, batch_size=batch_size)
    options = {"crops": crops, "input_size": input_size, "resize": resize, "batch_size": batch_size}
    return boxes, classify(classifier, images, **options)


def _pixels_per_cell(inputs: Tensor, maps: Tensor) -> Tensor:
    """m for x, y, x, y: sides of the images by sides of their score maps."""
    height, width = (side / cells for side, cells in zip(inputs.shape[-2:], maps.shape[-2:]))
    return inputs.new_tensor([width, height, width, height])


class SLTMaps(Localizer):
    """SLT-Net's localizer alone, boxes drawn from its maps: the rows of Tables 5 and 6, "wsol_lib.slt:SLTMaps".

    ``ABLATION`` names the settings of Table 5's rows. Here tau is chosen from boxed images, as everybody's.
    """

    network_class = SLTLocalizer
    recipe: ClassVar[dict[str, Any]] = NEW_OPTIMIZATION | {"sum_over_maps": True}
    recipes: ClassVar[dict[str, dict[str, Any]]] = {name: {"epochs": EPOCHS[name], **SETTINGS[name]} for name in EPOCHS}

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return super().hyperparameters() | {"stimuli": list(STIMULI)}

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        """Also ``DRAWN_BETA``; after the paper's surgery there is one resolution."""
        space = super().drawn(settings) | DRAWN_BETA
        if settings["backbone"] in SURGERY:
            space.pop("output_stride", None)
        return space

    def build(self) -> SLTLocalizer:
        return _build_localizer(self)


def _build_localizer(method: Localizer) -> SLTLocalizer:
    """As the settings say, over the paper's surgery where there is one."""
    cut = method.settings["backbone"] in SURGERY
    backbone = method.create_backbone(create_localizer_backbone) if cut else method.create_backbone()
    return SLTLocalizer(backbone, **{name: method.settings[name] for name in SLTMaps.hyperparameters()})


class SLT(PSOL):
    """SLT-Net by its name, "slt": its box is the regressor's, which its localizer teaches in the same steps.

    Settings of its own are those of :class:`SLTLocalizer` and of :class:`SLTNet`, whose ``tau`` is the paper's 20 %, for it is
    needed before there is a map to choose it on; ``classifier``, ``hidden`` and ``flat_head`` as in
    :class:`wsol_lib.psol.PSOL`, but that no trunk is shared.
    """

    network_class = SLTLocalizer
    recipe: ClassVar[dict[str, Any]] = SLTMaps.recipe | {"tau": 0.2}
    recipes: ClassVar[dict[str, dict[str, Any]]] = SLTMaps.recipes
    least_classes = 2
    classifiers = ("none", "separate")

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return SLTMaps.hyperparameters() | {"m": None, "classifier": "none", "hidden": 512, "flat_head": False}

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        return dict(SLTLocalizer.search_space)

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        """Also ``DRAWN_BETA``."""
        return super().drawn(settings) | DRAWN_BETA

    def build(self) -> Network:
        net = SLTNet(_build_localizer(self), self.regressor(), tau=self.settings["tau"], m=self.settings["m"])
        return self.with_classifier(net)

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        self.train(self.network.student, dataset, stage("student"))
        self.learn_classes(dataset, stage)
