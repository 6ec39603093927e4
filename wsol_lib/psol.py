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

from typing import Any, ClassVar

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from wsol_lib import localizers, pseudo_boxes
from wsol_lib.cam import Classifier, cross_entropy
from wsol_lib.data import LocalizationDataset, Sample, Subset
from wsol_lib.data.transforms import INTERPOLATION, resized_side, square
from wsol_lib.localizer import BATCH, Localizer, Predictions, Stage, class_probability
from wsol_lib.models import Backbone, BoxRegressor, Network, eval_mode, flat_head
from wsol_lib.processes import gathered, share
from wsol_lib.pseudo_boxes import are_good
from wsol_lib.train import labels

#: Section 4.2, for ImageNet: arguments of :func:`wsol_lib.train.train` for the regressor; "larger" rates of new layers are
#: twice the others in the authors' code. A classifier's rate, and the joint model's, is divided by 10 twice, after a third
#: and after two thirds of the epochs.
OPTIMIZATION: dict[str, Any] = {
    "learning_rate": 1e-3,
    "head_factor": 2.0,
    "batch_size": 256,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "nesterov": False,
    "schedule": "constant",
}
EPOCHS = {"imagenet": 6, "cub": 30}

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


class JointModel(Network):
    """PSOL-Joint: classifier and regressor over one trunk, trained by the sum of their losses.

    PSOL-Sep is no class of its own: a ``CAM`` or ``Backbone`` and a ``BoxRegressor`` with a trunk each, trained apart.

    Args:
        backbone: the classifier; the regressor shares all of it but its last layer
        hidden, loss_weight: of the regressor

    ``backbone`` and ``regressor`` are what :func:`classify` and :func:`predict_boxes` take.
    """

    on_features = True

    def __init__(self, backbone: Backbone, hidden: int = 512, *, loss_weight: float = 50.0):
        super().__init__(backbone=backbone, regressor=BoxRegressor(backbone, hidden, loss_weight=loss_weight))

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


# -- by its name ---------------------------------------------------------------------------------------------------------


class PSOL(Localizer):
    """PSOL by its name, "psol": a regressor that another localizer teaches; the base of all localizers with a student.

    Settings of its own:

    - ``teacher``: a localizer by its name or path, and ``teacher_settings``: of its own hyperparameters, its
      ``input_size`` among them. DDT sees twice the side of what the student sees, the paper's 448 and 224 pixels.
    - ``classifier``: "none", for the paper's boxes go with the classes of any; "separate", PSOL-Sep, trained for as many
      epochs; "joint", PSOL-Joint, one trunk for both.
    - ``hidden``, ``loss_weight``: of the regressor; ``flat_head``: whether it stands on a head that does not pool.

    A box without a classifier has the score 1.
    """

    recipe: ClassVar[dict[str, Any]] = OPTIMIZATION
    recipes: ClassVar[dict[str, dict[str, Any]]] = {name: {"epochs": epochs} for name, epochs in EPOCHS.items()}
    makes_maps = False
    least_classes = 1
    #: what ``classifier`` can be
    classifiers: ClassVar[tuple[str, ...]] = ("none", "separate", "joint")

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        own = {"teacher": "ddt", "teacher_settings": {}, "classifier": "none"}
        return own | {"hidden": 512, "loss_weight": 50.0, "flat_head": False}

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        return {}

    @property
    def input_size(self) -> int:
        return self.settings["input_size"] or self.network.student.backbone.input_size

    def build(self) -> Network:
        """A network with the parts "student" and, if there is one, "classifier"."""
        if self.settings["classifier"] != "joint":
            return self.with_classifier(self.regressor(loss_weight=self.settings["loss_weight"]))
        if self.settings["flat_head"]:
            raise ValueError("expected flat_head=False for a joint classifier, which pools, found True: leave it out")
        options = {name: self.settings[name] for name in ("hidden", "loss_weight")}
        return Network(student=JointModel(self.create_backbone(), **options))

    def regressor(self, **options: Any) -> BoxRegressor:
        """A student over a trunk of its own; ``options`` are those of ``BoxRegressor``."""
        backbone = self.create_backbone()
        if self.settings["flat_head"]:
            size = self.settings["input_size"] or backbone.input_size
            backbone = backbone.with_head(flat_head(backbone, size))
        return BoxRegressor(backbone, self.settings["hidden"], **options)

    def with_classifier(self, student: nn.Module) -> Network:
        """The student, and beside it the classifier that the settings ask for."""
        classifier, known = self.settings["classifier"], self.classifiers
        if classifier not in known:
            raise ValueError(
                f"expected a classifier out of {', '.join(known)}, found {classifier!r}: choose one of these"
            )
        if classifier == "none":
            return Network(student=student)
        return Network(student=student, classifier=Classifier(self.create_backbone()))

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        taught = pseudo_boxes.WithBoxes(dataset, self.teach(dataset, boxed, stage), keep_good=True)
        if not len(taught):
            raise ValueError(f"expected boxes of the teacher {self.settings['teacher']}, found none: choose another")
        joint = self.settings["classifier"] == "joint"
        how = self.falling() | {"targets": labels_and_boxes} if joint else {"targets": relative_boxes}
        self.train(self.network.student, taught, stage("student"), **how)
        self.learn_classes(dataset, stage)

    def learn_classes(self, dataset: LocalizationDataset, stage: Stage) -> None:
        """Train the separate classifier, if there is one."""
        if self.settings["classifier"] == "separate":
            self.train(self.network.classifier, dataset, stage("classifier"), **self.falling())

    def falling(self) -> dict[str, Any]:
        """The rate of what classifies (section 4.2)."""
        return {"schedule": "step", "step_epochs": max(1, round(self.settings["epochs"] / 3)), "step_factor": 0.1}

    def teach(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> Tensor:
        """The teacher's boxes (N, 4) for the labels of the training images, in pixels of each; kept beside checkpoints."""
        kept = None if stage.folder is None else stage.folder / "boxes.json"
        if kept is not None and kept.exists():  # drawn before this training was interrupted
            return pseudo_boxes.load(kept, dataset, keep_good=True)[0]
        teacher = self.settings["teacher"]
        own = {name: self.settings[name] for name in ("backbone", "pretrained", "precision", "num_workers", "seed")}
        own["input_size"] = self.input_size * (2 if teacher == "ddt" else 1)
        own |= self.settings["teacher_settings"]
        folder = None if stage.folder is None else stage.folder / "teacher"
        boxes = _answers(localizers.fit(teacher, dataset, boxed, checkpoint=folder, **own), dataset)
        if kept is not None:
            pseudo_boxes.save(kept, boxes, dataset, {"teacher": teacher, **own}, keep_good=True)
        return boxes

    def augmented(self, dataset: LocalizationDataset) -> LocalizationDataset:
        """Crops that keep a piece of the box, where boxes are learnt: those of the authors' code."""
        changed = super().augmented(dataset)
        if self.settings["augment"] == "crop" and isinstance(dataset, pseudo_boxes.WithBoxes):
            changed.transform = v2.Compose([RandomResizedCrop(self.input_size), v2.RandomHorizontalFlip()])
        return changed

    def parts(self) -> tuple[BoxRegressor, Backbone | None]:
        """What predicts boxes, and what classifies."""
        student = self.network.student
        if isinstance(student, JointModel):
            return student.regressor, student.backbone
        classifier = getattr(self.network, "classifier", None)
        return getattr(student, "regressor", student), None if classifier is None else classifier.backbone

    def look(self, images: Tensor, classes: Tensor | None) -> Predictions:
        boxes, logits = self._boxes_and_logits(images)
        if self.settings["mirror"]:
            mirrored, others = self._boxes_and_logits(images.flip(-1))
            x1, y1, x2, y2 = mirrored.T
            boxes = (boxes + torch.stack([images.shape[-1] - x2, y1, images.shape[-1] - x1, y2], dim=1)) / 2
            logits = None if logits is None else (logits + others) / 2
        scores = torch.ones(len(images)) if logits is None else class_probability(logits, classes)
        return Predictions(boxes, scores, logits=logits)

    def _boxes_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        regressor, classifier = self.parts()
        options = {"input_size": self.input_size, "batch_size": BATCH}
        boxes = predict_boxes(regressor, images, **options)
        return boxes, None if classifier is None else classify(classifier, images, **options)


def _answers(teacher: Localizer, dataset: LocalizationDataset) -> Tensor:
    """The teacher's boxes (N, 4) for the labels of a data set; of several processes each asks for its share."""
    if PartialState().num_processes == 1:
        return teacher.predict_dataset(dataset)[0]
    own, boxes = share(len(dataset), BATCH), torch.zeros(len(dataset), 4)
    part = Subset(dataset, own)
    answers = teacher.predict_dataset(part)[0] if own else boxes[:0]
    for places, found, sizes in gathered((own, answers, part.image_sizes)):
        boxes[places] = found
        dataset.image_sizes[places] = sizes  # which may be known only now
    return boxes
