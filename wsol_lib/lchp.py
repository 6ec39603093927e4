"""LCHP: a box regressor that learns a classifier's boxes, and then to move its own along with the image.

Sun and Zhu, "Learning Consistency from High-quality Pseudo-labels for Weakly Supervised Object Localization" (2022),
section 3. LCHP-I teaches a PSOL student with the boxes of a mask-based generator (Algorithm 1), which is a slow copy
(Eq. 7) of a classifier with bilinear attention pooling that is trained in the same steps (Eq. 1 to 3). LCHP-R goes on
without boxes from outside: the student's own boxes, where the classifier is sure of what is in them, have to move along
with the image (Eq. 4 to 6)::

    net = LCHPInit(create_bap("inception_v3", 200), BoxRegressor(create_backbone("inception_v3")), **SETTINGS["cub"])
    train(net, dataset, epochs=40, **OPTIMIZATION, after_epoch=net.decay)  # LCHP-I
    train(LCHPRefine(net.classifier, net.regressor), dataset, epochs=40, **OPTIMIZATION)  # LCHP-R
    boxes, logits = psol.predict_boxes(net.regressor, images), psol.classify(net.classifier, images)

The classifier is made by :func:`wsol_lib.attention_pooling.create_bap`. Zeros, where a region is masked out or an image
padded, are zeros of the normalised image: its mean colour.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.ops import box_convert, roi_align
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from wsol_lib.attention_pooling import create_bap
from wsol_lib.boxes import localized, normalize_score_maps, scale_boxes
from wsol_lib.cam import resize_maps
from wsol_lib.data import LocalizationDataset
from wsol_lib.data.transforms import resize_images, stack_images
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.localizer import BATCH, Stage
from wsol_lib.losses import accuracy, classification_loss, consistency_loss, regression_loss
from wsol_lib.models import Backbone, BoxRegressor, Network, eval_mode
from wsol_lib.psol import PSOL, decode_boxes, encode_boxes, renormalize, require_two_networks

#: Section 4.3: delta of the generator, and the epochs of both stages
SETTINGS: dict[str, dict[str, Any]] = {
    "cub": {"delta": 0.7},
    "imagenet": {"delta": 0.7},
    "tiny-imagenet": {"delta": 0.8},
}
EPOCHS = {"cub": (40, 40), "imagenet": (10, 5), "tiny-imagenet": (40, 40)}
#: Table 3
DELTAS = (0.5, 0.6, 0.7, 0.8)
#: Section 4.3: arguments of :func:`wsol_lib.train.train` in both stages, but for the refinement on ImageNet, whose rate is a
#: tenth. The paper gives no larger rate for new layers.
OPTIMIZATION: dict[str, Any] = {
    "learning_rate": 2e-3,
    "head_factor": 1.0,
    "batch_size": 32,
    "weight_decay": 1e-5,
    "momentum": 0.9,
    "nesterov": False,
    "schedule": "constant",
}
DECAY = 0.9  # of the classifier's rate after every epoch of the initialisation; the regressor's stays

AUGMENTATIONS = ("scale", "translation", "flip")
#: Table 6
ABLATION: tuple[tuple[str, ...], ...] = (
    ("scale",),
    ("translation",),
    ("flip",),
    ("scale", "translation"),
    ("scale", "flip"),
    ("translation", "flip"),
    AUGMENTATIONS,
)
SCALES = (0.8, 1.2)
PORTION = 0.25  # of the image that is cropped or padded at most, on each side

#: What Algorithm 1 averages over its channels
MAPS = ("features", "attention")
NORMALIZATIONS = ("max", "min-max", "none")


# -- generator (Algorithm 1) ---------------------------------------------------------------------------------------------


def masked_pseudo_boxes(model: Any, images: Tensor, delta: float, *, maps: str = "features", **options: Any) -> Tensor:
    """The box round what a network looks at, and round what it looks at when that is covered (LCHP Algorithm 1).

    Args:
        model: asked for ``features(inputs)``, as every ``Backbone`` has them; if it has none for
            ``attention_maps(inputs)``, and if not these either it is called itself. Maps are (N, C, h, w) of any C, h and
            w. It is asked twice, for all images at once; a module is put into eval mode meanwhile
        images: normalised float (N, 3, H, W); uint8 ones go through the model's ``preprocess`` first
        delta: in [0, 1], above which the mean over the channels is foreground
        maps: what is averaged. "features" are the feature maps, Algorithm 1's own words (steps 1 and 2) and those of
            section 3.1. "attention" asks the model for ``attention_maps`` alone: section 4.3 has a 1 x 1 convolution
            "generate attention maps" of which Algorithm 1 says nothing, and the mean is called the attention map A. The
            two differ a lot: a few attention maps that are high everywhere make the whole image foreground
        options: of :func:`foreground_boxes`

    Returns:
        (N, 4), xyxy in pixels of the images, float32. Where nothing is above delta, the whole image: nothing in it stands
        out. Where that is so in the second pass alone, the box of the first.

    Raises:
        ValueError: delta outside its range, images or maps of another shape, attention maps of a model that has none
    """
    if images.dtype == torch.uint8 and hasattr(model, "preprocess"):
        images = model.preprocess(images)
    return masked_regions(model, images, delta, maps=maps, **options)[0]


@torch.no_grad()
def masked_regions(
    model: Any, inputs: Tensor, delta: float, *, maps: str = "features", **options: Any
) -> tuple[Tensor, Tensor]:
    """As :func:`masked_pseudo_boxes`: the boxes (N, 4), and beside them the masked images I_m (N, 3, H, W)."""
    _check_normalised(inputs)
    size = inputs.shape[-2:]
    with eval_mode(model):
        raw = foreground_boxes(_maps(model, inputs, maps), delta, size, **options)
        masked = mask_out(inputs, raw)
        hidden = foreground_boxes(_maps(model, masked, maps), delta, size, **options)
    return _merge(raw, hidden, size), masked


def foreground_boxes(
    maps: Tensor, delta: float, size: tuple[int, int], *, normalization: str = "max", upsample: bool = False
) -> Tensor:
    """Steps 2 to 4 of Algorithm 1: the smallest box round all places whose mean over the channels is above delta.

    Args:
        maps: (N, C, h, w), features or attention maps
        delta: in [0, 1]; "above" is strict
        size: (H, W) of the images
        normalization: what delta is a share of. "max" is the image's largest attention, as in WS-DAN; "min-max" the span
            between its smallest and largest, the better choice for features without a ReLU (those of
            "efficientnet_lite0"), whose mean may be below zero everywhere; "none" takes the paper at its word and compares
            the attention as it is, which no ReLU keeps below 1
        upsample: threshold the attention at the size of the images instead of its own, which the paper thresholds

    Returns:
        (N, 4), xyxy in pixels of the images; zeros where nothing is above delta

    Raises:
        ValueError: delta outside its range, an unknown normalization, maps of another shape or not finite
    """
    _check_generator(delta, normalization)
    _check_finite(maps)
    attention = maps.float().mean(dim=1)
    if upsample:
        attention = resize_maps(attention, size)
    if normalization == "max":
        foreground = attention > delta * attention.amax(dim=(1, 2), keepdim=True)
    else:
        foreground = (normalize_score_maps(attention) if normalization == "min-max" else attention) > delta
    (x1, x2), (y1, y2) = _span(foreground.any(dim=1)), _span(foreground.any(dim=2))
    return scale_boxes(torch.stack([x1, y1, x2, y2], dim=1).to(attention), attention.shape[:0:-1], size[::-1])


def mask_out(inputs: Tensor, boxes: Tensor) -> Tensor:
    """Images (N, 3, H, W) with zeros in each pixel whose centre is in the image's box (N, 4): I_m of section 3.1."""
    x, y = (torch.arange(side, device=inputs.device) + 0.5 for side in inputs.shape[:-3:-1])
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    inside = ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None, :]
    return inputs.masked_fill(inside[:, None], 0)


def _maps(model: Any, inputs: Tensor, maps: str) -> Tensor:
    """What Algorithm 1 averages, (N, C, h, w)."""
    _check_maps(maps)
    methods = {"features": ("features", "attention_maps"), "attention": ("attention_maps",)}[maps]
    found = next((method for method in methods if callable(getattr(model, method, None))), None)
    if found is None and maps == "attention":
        raise ValueError(
            f'expected a model with attention_maps for maps="attention", found {type(model).__name__} without: make one '
            'with create_bap, or take maps="features"'
        )
    seen = getattr(model, found)(inputs) if found else model(inputs)
    if len(seen) != len(inputs):
        raise ValueError(
            f"expected one map for each of {len(inputs)} images, found {tuple(seen.shape)}: give (N, C, h, w)"
        )
    return seen


def _merge(first: Tensor, second: Tensor, size: tuple[int, int]) -> Tensor:
    """Step 7: the box round two boxes (N, 4), of which one or both may be empty."""
    empty = (second[:, 2:] <= second[:, :2]).any(dim=1, keepdim=True)
    second = torch.where(empty, first, second)
    merged = torch.cat([torch.minimum(first, second)[:, :2], torch.maximum(first, second)[:, 2:]], dim=1)
    nothing = (first[:, 2:] <= first[:, :2]).any(dim=1, keepdim=True)
    return torch.where(nothing, first.new_tensor([0, 0, size[1], size[0]]), merged)


def _span(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Start of the first and end of the last True in each row (N, n): (N,) twice; zeros in a row without one."""
    places = torch.arange(marked.shape[1], device=marked.device).expand_as(marked)
    start = places.masked_fill(~marked, marked.shape[1]).amin(dim=1)
    end = (places + 1).masked_fill(~marked, 0).amax(dim=1)
    return torch.minimum(start, end), end


def _check_normalised(inputs: Tensor) -> None:
    if inputs.ndim != 4 or not inputs.is_floating_point():
        raise ValueError(
            f"expected normalised images (N, 3, H, W), found {inputs.dtype} of shape {tuple(inputs.shape)}: "
            "use the backbone's preprocess"
        )


def _check_finite(maps: Tensor) -> None:
    if maps.ndim != 4 or not torch.isfinite(maps).all():
        raise ValueError(
            f"expected finite maps (N, C, h, w), found {tuple(maps.shape)} or NaN: give what the last layer gives"
        )


def _check_maps(maps: str) -> None:
    if maps not in MAPS:
        raise ValueError(f"expected maps out of {', '.join(MAPS)}, found {maps!r}: choose one of these")


def _check_generator(delta: float, normalization: str) -> None:
    check_hyperparameters({"delta": (0.0, 1.0)}, delta=delta)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"expected a normalization out of {', '.join(NORMALIZATIONS)}, found {normalization!r}: choose one of these"
        )


@torch.no_grad()
def predict_pseudo_boxes(
    model: Backbone,
    images: Tensor,
    delta: float,
    *,
    input_size: int | None = None,
    batch_size: int = 64,
    **options: Any,
) -> Tensor:
    """:func:`masked_pseudo_boxes` of many images, in batches: the row "Pseudo Label" of the paper's tables.

    Args:
        model: of ``create_bap``, or any backbone
        images: uint8 (N, 3, H, W)
        delta, options: as there, ``maps`` among them
        input_size: side in pixels to which the images are resized before the backbone; None keeps theirs
        batch_size: images in one forward pass

    Returns:
        (N, 4), xyxy in pixels of ``images``, float32 on the CPU
    """
    boxes = []
    for batch in images.split(batch_size):
        inputs = model.preprocess(batch, input_size)
        found = masked_pseudo_boxes(model, inputs, delta, **options).cpu()
        boxes.append(scale_boxes(found, inputs.shape[:-3:-1], images.shape[:-3:-1]))
    return torch.cat(boxes)


# -- LCHP-I: initialisation (section 3.1) --------------------------------------------------------------------------------


@torch.no_grad()
def momentum_update(slow: nn.Module, fast: nn.Module, beta: float) -> None:
    """Move the generator a little towards the classifier: theta_2 = beta theta_2 + (1 - beta) theta_1 (LCHP Eq. 7).

    The running means and variances of batch norm, which the paper does not mention, move like the parameters.

    Args:
        slow: theta_2, changed in place
        fast: theta_1, a module of the same make
        beta: in [0, 1]

    Raises:
        ValueError: beta outside its range
    """
    check_hyperparameters({"beta": (0.0, 1.0)}, beta=beta)
    theirs = fast.state_dict()
    for name, value in slow.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - beta)
        else:
            value.copy_(theirs[name])


class LCHPInit(Network):
    """LCHP-I: classifier, its slow copy that draws the boxes, and the regressor that learns them, trained in the same steps.

    No gradient flows through the boxes, so classifier and regressor learn apart. The generator also masks the images of
    Eq. 1, so that both of its boxes are of images as the classifier sees them.

    Args:
        classifier: of ``create_bap``, or any backbone
        regressor: over a trunk of its own, which may be of another family
        delta: of the generator, in [0, 1]
        alpha: weight of the regression (Eq. 3), at least 0
        beta: momentum of the generator (Eq. 7), in [0, 1]; 0 draws the boxes with the classifier itself
        maps: what the generator averages, "features" or "attention", as in :func:`masked_pseudo_boxes`
        options: of :func:`foreground_boxes`

    Raises:
        ValueError: one trunk in both, delta, alpha or beta outside their ranges, unknown maps
    """

    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {
        "delta": (0.0, 1.0),
        "alpha": (0.0, float("inf")),
        "beta": (0.0, 1.0),
    }

    def __init__(
        self,
        classifier: Backbone,
        regressor: BoxRegressor,
        *,
        delta: float = 0.7,
        alpha: float = 20.0,
        beta: float = 0.9,
        maps: str = "features",
        **options: Any,
    ):
        super().__init__(classifier=classifier, regressor=regressor)
        check_hyperparameters(self.search_space, delta=delta, alpha=alpha, beta=beta)
        _check_generator(delta, options.get("normalization", "max"))
        _check_maps(maps)
        require_two_networks(classifier, regressor.backbone)
        self.generator = copy.deepcopy(classifier).requires_grad_(False)
        self.delta, self.alpha, self.beta, self.options = delta, alpha, beta, {"maps": maps, **options}
        self.register_buffer("rate", torch.ones(()))  # of the classifier; a checkpoint keeps it

    @property
    def backbone(self) -> Backbone:
        """The classifier."""
        return self.classifier

    def decay(self, epoch: int) -> None:
        """``after_epoch`` of :func:`wsol_lib.train.train`: from now on the classifier learns 0.9 ** epoch times as fast.

        Its loss is multiplied, which for SGD is its rate but for what momentum still carries, and leaves the regressor's
        rate as it is (section 4.3).
        """
        self.rate.fill_(DECAY**epoch)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """L_init (LCHP Eq. 3), the classifier's part times its rate; "classification", "regression" and "accuracy" beside it.

        Args:
            inputs: images (N, 3, H, W), normalised for the classifier
            targets: labels (N,)
        """
        momentum_update(self.generator, self.classifier, self.beta)
        boxes, masked = masked_regions(self.generator, inputs, self.delta, **self.options)
        raw_logits, masked_logits = self.classifier(torch.cat([inputs, masked])).chunk(2)
        classification = classification_loss(raw_logits, masked_logits, targets)
        predicted = self.regressor(renormalize(inputs, self.classifier, self.regressor.backbone))
        regression = regression_loss(predicted, encode_boxes(boxes, _width_height(inputs)))
        return {
            "loss": self.rate * classification + self.alpha * regression,
            "classification": classification.detach(),
            "regression": regression.detach(),
            "accuracy": accuracy(raw_logits, targets),
        }

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The generator's mean map A (N, h, w), which knows no class, and the classifier's logits (N, K)."""
        return _maps(self.generator, inputs, self.options["maps"]).mean(dim=1), self.classifier(inputs)


# -- LCHP-R: refinement (section 3.2) ------------------------------------------------------------------------------------


@torch.no_grad()
def crop_confidence(classifier: Backbone, inputs: Tensor, boxes: Tensor) -> Tensor:
    """How sure a classifier is of what is in a box: its largest probability on the crop, whatever the class (section 3.2).

    The crop is resized to the size of the images, its sides apart.

    Args:
        classifier: put into eval mode for the pass and back afterwards
        inputs: images (N, 3, H, W), normalised for it
        boxes: (N, 4), xyxy in pixels of the images

    Returns:
        (N,) in [0, 1]; 0 for a box without area

    Raises:
        ValueError: another number of boxes
    """
    _check_one_box_each(boxes, inputs)
    places = torch.arange(len(boxes), device=boxes.device)[:, None]
    regions = torch.cat([places.to(inputs), boxes.to(inputs)], dim=1)
    crops = roi_align(inputs, regions, tuple(inputs.shape[-2:]), sampling_ratio=1, aligned=True)
    with eval_mode(classifier):
        confidence = classifier(crops).float().softmax(dim=1).amax(dim=1)
    return confidence * _has_area(boxes)


def _check_one_box_each(boxes: Tensor, inputs: Tensor) -> None:
    if boxes.shape != (len(inputs), 4):
        raise ValueError(
            f"expected one box (4 numbers) for each of {len(inputs)} images, found {tuple(boxes.shape)}: give (N, 4)"
        )


class RandomScale(v2.Transform):
    """Scale the content about the centre by 80 to 120 %, each axis by its own draw; the image keeps its size (section 4.3)."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"size": transforms.get_size(flat_inputs[0]), "factors": torch.empty(2).uniform_(*SCALES).tolist()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        height, width = params["size"]
        scaled = [round(side * factor) for side, factor in zip(params["size"], params["factors"])]
        top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2  # below 0 the crop pads
        return transforms.crop(resize_images(inpt, scaled), top, left, height, width)


class RandomCropOrPad(v2.Transform):
    """With probability 1/2 crop or pad each side by a share of its own, up to 25 %, and resize back (section 4.3).

    Sides are drawn apart and the size is kept, which are the defaults of imgaug's CropAndPad, the paper's library.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        shares = torch.empty(4).uniform_(-PORTION, PORTION) if torch.rand(()) < 0.5 else torch.zeros(4)
        height, width = transforms.get_size(flat_inputs[0])
        left, top, right, bottom = (round(float(s) * side) for s, side in zip(shares, (width, height) * 2))
        window = (-top, -left, height + top + bottom, width + left + right)  # above 0 a share pads
        return {"size": (height, width), "window": window}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return resize_images(transforms.crop(inpt, *params["window"]), params["size"])


def strong_augmentation(kinds: tuple[str, ...] = AUGMENTATIONS) -> v2.Transform:
    """S of LCHP Eq. 4, for an image and its tv_tensors boxes together; flips are in both directions, independently.

    Args:
        kinds: out of ``AUGMENTATIONS``

    Raises:
        ValueError: another kind
    """
    if not set(kinds) <= set(AUGMENTATIONS):
        raise ValueError(f"expected kinds out of {', '.join(AUGMENTATIONS)}, found {kinds}: choose some of these")
    flips = [v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)]
    steps = {"scale": [RandomScale()], "translation": [RandomCropOrPad()], "flip": flips}
    return v2.Compose([v2.Identity(), *(step for kind in AUGMENTATIONS if kind in kinds for step in steps[kind])])


def augment_together(augmentation: v2.Transform, inputs: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Move each image and its box by the same draw, every image by one of its own.

    Args:
        augmentation: as :func:`strong_augmentation` makes
        inputs: images (N, 3, H, W)
        boxes: (N, 4), xyxy in pixels

    Returns:
        images (N, 3, H, W) and boxes (N, 4), cut at the border; one that has left the image has no area
    """
    pairs = [
        augmentation(
            tv_tensors.Image(image), tv_tensors.BoundingBoxes(box[None], format="XYXY", canvas_size=image.shape[-2:])
        )
        for image, box in zip(inputs, boxes)
    ]
    images = torch.stack([image.as_subclass(Tensor) for image, _ in pairs])
    return images, torch.cat([box.as_subclass(Tensor) for _, box in pairs])


class LCHPRefine(Network):
    """LCHP-R: the regressor's box on an augmented image has to be its box on the image itself, augmented (LCHP Eq. 6).

    Labels are not looked at, and the classifier does not learn. Boxes count where the classifier is sure of their content,
    unless the augmentation has moved them out of the image. As in FixMatch the boxes are those of the regressor as it is
    now.

    Args:
        classifier: decides which boxes are good
        regressor: trained by :class:`LCHPInit`; goes on learning
        tau: in [0, 1], above which a confidence is high
        kinds: of the strong augmentation, out of ``AUGMENTATIONS``
        frozen: take the boxes of the regressor as it came, not as it is now; the paper's words ("the initialized
            localization network") allow for this, its Eq. 4 has one Loc for both

    Raises:
        ValueError: one trunk in both, tau outside its range, an unknown kind
    """

    #: hyperparameters and their feasible ranges
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"tau": (0.0, 1.0)}

    def __init__(
        self,
        classifier: Backbone,
        regressor: BoxRegressor,
        *,
        tau: float = 0.9,
        kinds: tuple[str, ...] = AUGMENTATIONS,
        frozen: bool = False,
    ):
        super().__init__(regressor=regressor, classifier=classifier.requires_grad_(False))
        check_hyperparameters(self.search_space, tau=tau)
        require_two_networks(classifier, regressor.backbone)
        self.tau = tau
        self.teacher = copy.deepcopy(regressor).requires_grad_(False) if frozen else None
        self.augmentation = strong_augmentation(kinds)

    @property
    def backbone(self) -> Backbone:
        """The classifier."""
        return self.classifier

    def loss(self, inputs: Tensor, targets: Any = None) -> dict[str, Tensor]:
        """L_refine (LCHP Eq. 6); beside it "kept", the share of boxes above tau, and their mean "confidence".

        Args:
            inputs: images (N, 3, H, W), normalised for the classifier
            targets: not used
        """
        size = _width_height(inputs)
        own = renormalize(inputs, self.classifier, self.regressor.backbone)
        boxes = decode_boxes(self._pseudo_boxes(own), size)
        confidence = crop_confidence(self.classifier, inputs, boxes)
        images, moved = augment_together(self.augmentation, own, boxes)
        confident = confidence * _has_area(moved)
        relative = box_convert(moved, "xyxy", "xywh") / size.to(moved).repeat(2)
        return {
            "loss": consistency_loss(self.regressor(images), relative, confident, self.tau),
            "kept": (confident > self.tau).float().mean(),
            "confidence": confidence.mean(),
        }

    @torch.no_grad()
    def _pseudo_boxes(self, inputs: Tensor) -> Tensor:
        """Loc(I_r): relative boxes (N, 4). The regressor predicts in train mode, or batch norm never saw a whole image."""
        if self.teacher is None:
            return self.regressor(inputs).float()
        with eval_mode(self.teacher):
            return self.teacher(inputs).float()


def _width_height(inputs: Tensor) -> Tensor:
    return torch.tensor(inputs.shape[:-3:-1])


def _has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


# -- by their names ------------------------------------------------------------------------------------------------------


class LCHPI(PSOL):
    """LCHP-I by its name, "lchp-i": its box is the regressor's, its class that of the classifier that drew the boxes.

    Settings of its own are those of :class:`LCHPInit`, of :func:`foreground_boxes` and of
    :func:`wsol_lib.attention_pooling.create_bap`; ``hidden`` and ``flat_head`` as in :class:`wsol_lib.psol.PSOL`. Where
    ``delta`` is not given, the boxed images choose it out of ``DELTAS`` before the training, on the features of the
    pretrained trunk; without them, and for attention maps, which are random then, it is the published one.
    """

    recipe: ClassVar[dict[str, Any]] = OPTIMIZATION | {"input_size": 448}
    recipes: ClassVar[dict[str, dict[str, Any]]] = {name: {"epochs": first} for name, (first, _) in EPOCHS.items()}
    least_classes = 2

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        own = {"delta": None, "alpha": 20.0, "beta": 0.9, "maps": "features", "normalization": "max", "upsample": False}
        return own | {"attention_maps": 32, "factor": 100.0, "hidden": 512, "flat_head": False}

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        return dict(LCHPInit.search_space)

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        """alpha, which has no end, from two decades to either side of the paper's 20."""
        return super().drawn(settings) | {"alpha": (0.2, 2000.0, "log")}

    def build(self) -> Network:
        head = {name: self.settings[name] for name in ("attention_maps", "factor")}
        own = {name: self.settings[name] for name in ("alpha", "beta", "maps", "normalization", "upsample")}
        return Network(student=LCHPInit(self.create_backbone(create_bap, **head), self.regressor(), **own))

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        self.initialize(dataset, boxed, stage, self.settings["epochs"])

    def initialize(
        self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage, epochs: int
    ) -> None:
        """The first stage; the delta that it takes is then among the settings."""
        net = self.network.student
        if self.settings["delta"] is None:
            known = boxed is not None and self.settings["maps"] == "features"
            published = SETTINGS.get(dataset.name, SETTINGS["cub"])["delta"]
            self.settings["delta"] = max(DELTAS, key=lambda delta: self.right(boxed, delta)) if known else published
        net.delta = self.settings["delta"]
        self.train(net, dataset, stage("initialization"), epochs=epochs, after_epoch=net.decay)

    def right(self, boxed: LocalizationDataset, delta: float) -> int:
        """How many of the generator's boxes are right."""
        net, count = self.network.student, 0
        for start in range(0, len(boxed), BATCH):
            indices = range(start, min(start + BATCH, len(boxed)))
            images = stack_images(boxed, indices, self.input_size)
            found = predict_pseudo_boxes(net.generator, images, delta, input_size=self.input_size, **net.options)
            found = scale_boxes(found, images.shape[:-3:-1], boxed.image_sizes[indices])
            count += int(localized(found, [boxed.boxes[i] for i in indices]).sum())
        return count

    def parts(self) -> tuple[BoxRegressor, Backbone]:
        return self.network.student.regressor, self.network.student.classifier


class LCHPR(LCHPI):
    """LCHP-R by its name, "lchp-r": LCHP-I, and then its refinement.

    Settings of its own beside those of :class:`LCHPI`: ``epochs`` are those of both stages, of which the refinement gets the
    share ``refinement``, and each at least one; ``refinement_factor`` times as large are its rates; ``tau``, ``kinds`` and
    ``frozen`` are those of :class:`LCHPRefine`, tau the confidence above which a box is good.
    """

    recipe: ClassVar[dict[str, Any]] = LCHPI.recipe | {"tau": 0.9}
    recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "cub": {"epochs": 80},
        "tiny-imagenet": {"epochs": 80},
        "imagenet": {"epochs": 15, "refinement": 1 / 3, "refinement_factor": 0.1},
    }

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        own = {"refinement": 0.5, "refinement_factor": 1.0, "kinds": list(AUGMENTATIONS), "frozen": False}
        return super().hyperparameters() | own

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        return LCHPInit.search_space | LCHPRefine.search_space | {"refinement": (0.0, 1.0)}

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        epochs = self.settings["epochs"]
        last = max(1, round(self.settings["refinement"] * epochs)) if epochs else 0
        self.initialize(dataset, boxed, stage, max(1, epochs - last) if epochs else 0)
        own = {"tau": self.settings["tau"], "kinds": tuple(self.settings["kinds"]), "frozen": self.settings["frozen"]}
        rate = self.settings["learning_rate"] * self.settings["refinement_factor"]
        net = LCHPRefine(self.network.student.classifier, self.network.student.regressor, **own)
        self.train(net, dataset, stage("refinement"), epochs=last, learning_rate=rate)


class PseudoLabels(LCHPI):
    """What the generator of LCHP-I draws, as a localizer: the row "Pseudo Label", by the path "wsol_lib.lchp:PseudoLabels".

    It is trained as :class:`LCHPI` is, settings and seed alike, so that the two compare a teacher with its own student;
    0 epochs leave Algorithm 1 on the pretrained trunk.
    """

    def _boxes_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        _, logits = super()._boxes_and_logits(images)
        net = self.network.student
        options = {"input_size": self.input_size, "batch_size": BATCH, **net.options}
        return predict_pseudo_boxes(net.generator, images, self.settings["delta"], **options), logits
