"""What every localizer can do once it has a name: be fitted, asked for boxes, saved and loaded.

:class:`Localizer` is CAM behind that door, and the base of all others. A method says in its own file what is its own: the
network, the supervision, published settings, search space, and what boxed images choose. Everything else, from the resizing
of images to the threshold of the maps, is one for all, so that a difference between two methods is theirs.

    fit      build the network -> learn -> choose (tau, from the boxed images) -> a fitted localizer
    predict  uint8 images -> Predictions(boxes, scores, score_maps, logits)
    save     settings and names as JSON beside weights that torch reads without unpickling code
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import json
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm import tqdm

import wsol_lib
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps, scale_boxes
from wsol_lib.cache import atomic_path
from wsol_lib.cam import CAM, localize
from wsol_lib.data import LabelsOnly, LocalizationDataset, Subset, scaled_boxes
from wsol_lib.data.transforms import random_crop, resized_side, square, stack_images
from wsol_lib.features import can_stand_for_images, features_once
from wsol_lib.hyperparameters import check_hyperparameters
from wsol_lib.metrics import MaxBoxAcc
from wsol_lib.models import OUTPUT_STRIDES, Backbone, create_backbone
from wsol_lib.train import SCHEDULES, labels, train

FORMAT = 1  # of a saved localizer; raised when files of before can no longer be read
AUGMENTATIONS = ("crop", "flip", "none")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: tau where no boxed image chooses it: 20 % of the maximum (CAM, section 3.2 of Zhou et al.), on min-max normalised maps
TAU = 0.2
BATCH = 64  # images in one forward pass when boxes are asked for
OVERLAPPING = ("cuda",)  # devices that compute while boxes are drawn on the CPU
_NETWORK = threading.RLock()

#: What every localizer that learns can be told, and what is taken where neither its paper nor the caller says otherwise.
#: ``input_size`` and ``output_stride`` None are the backbone's own; ``freeze`` is the number of its stages that stay as they
#: are, the name of the last layer that does (:meth:`wsol_lib.models.Backbone.freeze`), or "all";
#: ``augment`` "crop" (random crop out of 256 / 224 of the side, and flips), "flip" (nothing is cut off) or "none";
#: ``imagenet_rows`` starts the head with ImageNet's rows where all classes are ImageNet's; ``mirror`` adds the map of the
#: mirror image; ``tau`` is chosen from boxed images, or TAU without any, unless it is given; ``precision`` is that of the trunk:
#: "bfloat16" takes little more than half the time where the processor computes in it.
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet_lite0",
    "pretrained": True,
    "output_stride": None,
    "imagenet_rows": True,
    "freeze": 0,
    "epochs": 10,
    "batch_size": 32,
    "input_size": None,
    "learning_rate": 0.01,
    "head_factor": 10.0,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "one-cycle",
    "step_epochs": 1,
    "step_factor": 0.1,
    "augment": "crop",
    "mirror": False,
    "tau": None,
    "precision": "float32",
    "seed": 0,
    "num_workers": 0,
}
TRAINING = (
    "epochs", "batch_size", "input_size", "learning_rate", "head_factor", "weight_decay", "momentum", "nesterov", "schedule",
    "step_epochs", "step_factor", "num_workers", "seed",
)  # fmt: skip
#: "Evaluating WSOL Methods Right", its public code: passes over the data sets, the rate divided by 10 now and then, and maps
#: of 14 x 14 cells at 224 pixels; a backbone that cannot have these has its own
EVALUATION_RECIPES: dict[str, dict[str, Any]] = {
    "cub": {"epochs": 50, "schedule": "step", "step_epochs": 15, "output_stride": 16},
    "imagenet": {"epochs": 10, "schedule": "step", "step_epochs": 3, "output_stride": 16},
    "openimages": {"epochs": 10, "schedule": "step", "step_epochs": 3, "output_stride": 16},
}
#: What a search draws for every method that learns: in the paper's public code a learning rate from this range,
#: log-uniformly, and maps of 14 x 14 or 28 x 28 cells at 224 pixels
SEARCHED_RATES, SEARCHED_STRIDES = (1e-5, 1.0, "log"), (16, 8)


class Predictions(NamedTuple):
    """What a localizer says of N images, on the CPU.

    boxes: (N, 4), xyxy in pixels of the images
    scores: (N,) in [0, 1], how sure it is: the probability of the class where it classifies
    score_maps: (N, H, W) in [0, 1], or None if it makes none
    logits: (N, K), or None if it does not classify
    """

    boxes: Tensor
    scores: Tensor
    score_maps: Tensor | None = None
    logits: Tensor | None = None


class Localizer:
    """CAM by its name, and the base of every other localizer.

    A method of yours derives from this class. Mostly it is enough to name a ``network`` with ``loss(inputs, targets)`` and
    ``score_maps(inputs, classes)``, such as one derived from :class:`wsol_lib.cam.CAM`; keyword arguments of the network are
    then hyperparameters of the localizer. What goes another way overrides ``build``, ``learn``, ``choose`` or ``look``.

    Args:
        name: under which it was asked for
        class_names: K names
        settings: all of :meth:`defaults`, as plain values
        wnids: WordNet ids of the classes, where they have some

    Attributes:
        network: the module that holds all weights
        settings, class_names: as given
        tau: the threshold of the normalised score maps; None where boxes come from a regressor
        history: of its trainings, one after the other, a row an epoch
        after_epoch: called with the number of every epoch that is over, if it is set
    """

    #: what its network is; the keyword arguments are hyperparameters
    network_class: ClassVar[Callable[..., nn.Module]] = CAM
    #: what it learns from: "labels", "boxes" (of the boxed images) or "nothing"
    supervision: ClassVar[str] = "labels"
    #: published settings, where they differ from ``SETTINGS``; and what of them differs on a data set, by its name
    recipe: ClassVar[dict[str, Any]] = {}
    recipes: ClassVar[dict[str, dict[str, Any]]] = EVALUATION_RECIPES
    #: whether it gives score maps, of which tau is chosen
    makes_maps: ClassVar[bool] = True
    #: the threshold of its maps where no boxed image chooses one
    published_tau: ClassVar[float | None] = TAU
    #: fewest classes it makes sense for
    least_classes: ClassVar[int] = 2

    network: nn.Module

    def __init__(
        self, name: str, class_names: Sequence[str], settings: dict[str, Any], wnids: Sequence[str] | None = None
    ):
        self.name, self.class_names = name, tuple(class_names)
        self.wnids = None if wnids is None else tuple(wnids)
        self.settings = dict(settings)
        if len(self.class_names) < self.least_classes:
            raise ValueError(
                f"expected at least {self.least_classes} classes for {name}, found {len(self.class_names)}: add a class, or "
                "take ddt, which needs no classifier"
            )
        set_seed(self.settings["seed"])
        self.tau: float | None = self.settings["tau"] if self.makes_maps else None
        self.history: list[dict[str, float]] = []
        self.after_epoch: Callable[[int], None] | None = None
        self.network = self.build().to(PartialState().device).eval()

    # -- what a method says of itself --------------------------------------------------------------------------------

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        """What is this method's own to set, and the published values: the keyword arguments of its network."""
        own = list(inspect.signature(cls.network_class).parameters.values())[1:]
        return {p.name: p.default for p in own if p.kind is p.KEYWORD_ONLY or p.default is not p.empty}

    @classmethod
    def search_space(cls) -> dict[str, tuple[float, float]]:
        """The feasible ranges of what a search draws, beside the learning rate; ends are allowed."""
        return dict(getattr(cls.network_class, "search_space", {}))

    @classmethod
    def drawn(cls, settings: dict[str, Any]) -> dict[str, tuple | list]:
        """What a random search draws, by name: the learning rate and the resolution of maps, and the feasible ranges.

        A pair is the ends of a range, of whole numbers if they are some; with "log" as a third, it is drawn log-uniformly; a
        list has the values themselves. What has no end is to be given one, here or by drawing something that
        :meth:`from_drawn` turns into it. Nothing is a method without a search.

        Args:
            settings: of the search
        """
        space: dict[str, tuple | list] = {}
        if cls.supervision != "nothing":
            space["learning_rate"] = SEARCHED_RATES
            strides = [s for s in SEARCHED_STRIDES if s in OUTPUT_STRIDES.get(settings["backbone"], ())]
            if cls.makes_maps and len(strides) > 1:
                space["output_stride"] = strides
        return space | cls.search_space()

    @classmethod
    def from_drawn(cls, point: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
        """The settings that a point of :meth:`drawn` stands for, beside what is fixed."""
        return point | fixed

    @classmethod
    def defaults(cls, dataset: str = "") -> dict[str, Any]:
        """All settings and the values that are published for a data set, or for none in particular."""
        return SETTINGS | cls.hyperparameters() | cls.recipe | cls.recipes.get(dataset, {})

    @classmethod
    def settings_for(cls, name: str, dataset: str, given: dict[str, Any]) -> dict[str, Any]:
        """``defaults`` with what is given; of that, None stands for the default.

        Raises:
            ValueError: a name that is no setting, a value outside the search space or of the wrong kind
        """
        settings = cls.defaults(dataset)
        unknown = sorted(set(given) - set(settings))
        if unknown:
            raise ValueError(
                f"expected settings of {name} out of {', '.join(settings)}, found {', '.join(unknown)}: leave out what is "
                "not in the list"
            )
        settings |= {key: value for key, value in given.items() if value is not None}
        open_ = [key for key, value in settings.items() if value is inspect.Parameter.empty]
        if open_:
            raise ValueError(f"expected a value of {', '.join(open_)}, for which {name} has no default, found none")
        published = given.get("output_stride") is None
        if published and settings["output_stride"] not in OUTPUT_STRIDES.get(settings["backbone"], ()):
            settings["output_stride"] = None
        _check_settings(settings, cls.defaults(dataset), cls.search_space())
        return json.loads(json.dumps(settings))

    def build(self) -> nn.Module:
        """The network with new weights, or ImageNet's."""
        return self.network_class(self.create_backbone(), **self.own())

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        """Train the network on the labels of ``dataset``.

        Args:
            dataset: whose labels alone may be looked at
            boxed: whose boxes may be looked at, where there are some
            stage: ``stage(name)`` is where the training of that name keeps its checkpoint
        """
        self.train(self.network, dataset, stage("training"))

    def choose(self, boxed: LocalizationDataset) -> None:
        """Set from the boxed images what the method leaves open: tau, at which most of their boxes are right."""
        known = [i for i, own in enumerate(boxed.boxes) if len(own)]
        boxed, metric = Subset(boxed, known), MaxBoxAcc()
        for indices, predictions in self._over(boxed, with_boxes=False):
            shape = predictions.score_maps.shape[-2:]
            metric.update(predictions.score_maps, [scaled_boxes(boxed, i, shape) for i in indices])
        self.tau = float(metric.best_tau())

    def look(self, images: Tensor, classes: Tensor | None) -> Predictions:
        """Score maps of uint8 images (n, 3, H, W), normalised, and logits; boxes and scores are made of them."""
        return self.draw(*self.see(images, classes))

    def see(self, images: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The first half of :meth:`look`, the network's: maps (n, H, W), not normalised, logits, and whose maps they are."""
        maps, logits = self.localize(images, classes)
        if self.settings["mirror"]:
            classes = logits.argmax(dim=1) if classes is None and logits.shape[1] else classes
            flipped, mirrored = self.localize(images.flip(-1), classes)
            maps, logits = maps + flipped.flip(-1), (logits + mirrored) / 2
        return maps, logits, classes

    def draw(self, maps: Tensor, logits: Tensor, classes: Tensor | None) -> Predictions:
        """The second half, which needs no network: on a GPU it is done while the network is at the next images."""
        maps = normalize_score_maps(maps)
        boxes = boxes_from_score_maps(maps, TAU if self.tau is None else self.tau)
        classifies = logits.shape[1] == len(self.class_names)
        scores = class_probability(logits, classes) if classifies else mean_inside(maps, boxes)
        return Predictions(boxes, scores, maps, logits if classifies else None)

    # -- parts that methods put together -----------------------------------------------------------------------------

    def create_backbone(self, create: Callable[..., Backbone] = create_backbone, **options: Any) -> Backbone:
        """A backbone as the settings say, its first stages frozen.

        Args:
            create: with the arguments of ``create_backbone``
            options: further ones
        """
        if create is create_backbone:
            options["output_stride"] = self.settings["output_stride"]
            if self.settings["imagenet_rows"] and self.settings["pretrained"] and self.wnids:
                options["wnids"] = self.wnids
        backbone = create(
            self.settings["backbone"], len(self.class_names), pretrained=self.settings["pretrained"], **options
        )
        backbone.precision = PRECISIONS[self.settings["precision"]]
        stages = self.settings["freeze"]
        return backbone.freeze(None if stages == "all" else stages) if stages else backbone

    def own(self) -> dict[str, Any]:
        """The settings that are arguments of the network."""
        return {name: self.settings[name] for name in self.hyperparameters()}

    @property
    def input_size(self) -> int:
        """Side in pixels of what the network sees."""
        return self.settings["input_size"] or self.network.backbone.input_size

    def train(self, network: nn.Module, dataset: LocalizationDataset, checkpoint: Path | None, **changed: Any) -> list:
        """:func:`wsol_lib.train.train` as the settings say, on ``augmented`` images.

        Args:
            network, dataset, checkpoint: as there
            changed: arguments of ``train`` that differ from the settings; 0 epochs train nothing
        """
        arguments = {name: self.settings[name] for name in TRAINING} | {"targets": labels} | changed
        arguments["input_size"] = self.input_size
        if not arguments["epochs"]:
            return []
        calls = [call for call in (changed.get("after_epoch"), self.after_epoch) if call is not None]
        arguments["after_epoch"] = lambda epoch: [call(epoch) for call in calls]
        augment = self.settings["augment"]
        if augment != "crop" and can_stand_for_images(network):
            images = features_once(network.backbone, dataset, self.input_size, augment == "flip")
        else:
            images = nullcontext(self.augmented(dataset))
        with images as samples:
            history = train(network, samples, checkpoint=checkpoint, **arguments)
        self.history += history
        network.eval()
        return history

    def augmented(self, dataset: LocalizationDataset) -> LocalizationDataset:
        """The same data set, its images of one size and augmented as the settings say; its own transform is not applied."""
        side, dataset = self.input_size, copy.copy(dataset)
        sizes = dataset.image_sizes
        one_size = bool(sizes.all() and (sizes == sizes[0]).all())  # unknown ones are 0
        steps: list[Callable] = [] if one_size else [square(side)]
        if self.settings["augment"] == "crop":
            steps = [random_crop(resized_side(side), side)]
        elif self.settings["augment"] == "flip":
            steps.append(v2.RandomHorizontalFlip())
        dataset.transform = v2.Compose(steps) if steps else None
        return dataset

    def localize(self, images: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """The network's maps at the images' size, not normalised, and its logits."""
        return localize(self.network, images, classes, input_size=self.input_size, batch_size=BATCH)

    # -- the door ----------------------------------------------------------------------------------------------------

    def fit(
        self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, checkpoint: Path | None
    ) -> Localizer:
        """Learn, then choose; see :func:`wsol_lib.localizers.fit`."""
        if boxed is None and self.supervision == "boxes":
            raise ValueError(f"expected boxed images for {self.name}, which learns from them, found none: give boxed=")
        has_boxes = boxed is not None and any(len(boxes) for boxes in boxed.boxes)
        masked = boxed is not None and self.supervision == "boxes" and has_masks(boxed)
        if boxed is not None and not has_boxes and not masked:
            raise ValueError(
                f"expected boxes in {boxed.name} {boxed.split}, found none: give a data set with boxes, or no boxed="
            )
        if boxed is not None and tuple(boxed.class_names) != self.class_names:
            raise ValueError(
                f"expected the {len(self.class_names)} classes of the training images in the boxed ones, found "
                f"{len(boxed.class_names)} others: take both from one data set"
            )
        stage = Stage(checkpoint)
        if checkpoint is not None:
            stage.claim(self._facts(dataset, boxed))
        self.learn(LabelsOnly(dataset), boxed, stage)
        if has_boxes and self.makes_maps and self.settings["tau"] is None:
            self.choose(boxed)
        if self.makes_maps and self.tau is None:
            self.tau = self.published_tau
        self.network.to(PartialState().device).eval()
        return self

    def _facts(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None) -> dict[str, Any]:
        """What makes this fit: another one must not go on with its checkpoints."""
        settings = {name: value for name, value in self.settings.items() if name != "num_workers"}
        train, boxed_facts = _fingerprint(dataset), None
        if boxed is not None:
            boxed_facts = [_fingerprint(boxed), _digest(torch.cat([torch.zeros(0, 4), *boxed.boxes]).numpy().tobytes())]
        return {"method": self.name, "settings": settings, "training images": train, "boxed images": boxed_facts}

    def predict(self, images: Tensor, labels: Tensor | None = None) -> Predictions:
        """Everything the localizer says of some images.

        Args:
            images: uint8 (N, 3, H, W)
            labels: (N,), the class that is looked for in each; None takes the predicted one

        Raises:
            ValueError: images of another kind, another number of labels, labels outside the classes
        """
        labels = None if labels is None else torch.as_tensor(labels)
        _check_images(images, labels, len(self.class_names))
        if not len(images):
            height, width = images.shape[-2:]
            empty = torch.zeros(0, height, width) if self.makes_maps else None
            return Predictions(torch.zeros(0, 4), torch.zeros(0), empty)
        parts = [
            self._looked(images[start : start + BATCH], None if labels is None else labels[start : start + BATCH])
            for start in range(0, len(images), BATCH)
        ]
        return Predictions(*(None if field[0] is None else torch.cat(field) for field in zip(*parts)))

    def _looked(self, images: Tensor, classes: Tensor | None) -> Predictions:
        """:meth:`look`, but of several threads one alone uses the network."""
        with _NETWORK:
            if type(self).look is not Localizer.look:
                return self.look(images, classes)
            seen = self.see(images, classes)
        return self.draw(*seen)

    def boxes(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), xyxy in pixels of ``images``, and scores (N,) in [0, 1]; arguments as of :meth:`predict`."""
        return self.predict(images, labels)[:2]

    def score_maps(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score maps (N, H, W) in [0, 1] at the images' size; arguments as of :meth:`predict`.

        Raises:
            ValueError: also of a localizer that makes none
        """
        if not self.makes_maps:
            raise ValueError(f"expected a localizer that makes score maps, found {self.name}: ask it for boxes")
        return self.predict(images, labels).score_maps

    def predict_dataset(self, dataset: LocalizationDataset) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), in pixels of each image, and scores (N,) for the labels of a data set of any image sizes."""
        boxes, scores = torch.zeros(len(dataset), 4), torch.zeros(len(dataset))
        for indices, predictions in self._over(dataset):
            boxes[indices], scores[indices] = predictions.boxes, predictions.scores
        return boxes, scores

    def _over(self, dataset: LocalizationDataset, with_boxes: bool = True) -> Iterator[tuple[list[int], Predictions]]:
        """Predictions for the labels of a data set, batch by batch; boxes in pixels of each image, maps of what was seen."""

        def found(start: int) -> tuple[list[int], Predictions]:
            indices = list(range(start, min(start + BATCH, len(dataset))))
            images = stack_images(dataset, indices, self.input_size)
            found = self.predict(images, dataset.labels[indices])
            if with_boxes:
                sizes = dataset.image_sizes[indices]
                found = found._replace(boxes=scale_boxes(found.boxes, images.shape[:-3:-1], sizes))
            return indices, found

        starts = range(0, len(dataset), BATCH)
        bar = tqdm(starts, desc=self.name, unit="batch", leave=False, disable=len(starts) <= 2)
        return overlapped(found, bar)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the localizer to a folder, whole or not at all; one that is there is replaced.

        ``localizer.json`` names the file of the weights by its content, so that neither is taken for part of another.

        Raises:
            ValueError: the folder holds something else
        """
        folder = Path(folder)
        check_folder(folder)
        weights = io.BytesIO()
        torch.save(self.network.state_dict(), weights)
        digest = _digest(weights.getbuffer())
        name = f"weights-{digest[:16]}.pt"
        facts = {
            "format": FORMAT,
            "name": self.name,
            "class_names": self.class_names,
            "wnids": self.wnids,
            "settings": self.settings,
            "tau": self.tau,
            "weights": name,
            "sha256": digest,
            "wsol_lib": wsol_lib.__version__,
        }
        text = json.dumps(facts, indent=1) + "\n"
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(weights.getbuffer())
        with atomic_path(folder / FACTS) as temporary:
            temporary.write_text(text)
        for other in folder.iterdir():
            if WEIGHTS.fullmatch(other.name) and other.name != name:
                other.unlink()

    def restore(self, folder: Path, weights: str, sha256: str, tau: float | None) -> Localizer:
        """Take over the weights and the threshold of a saved one; see :func:`wsol_lib.localizers.load`."""
        path = folder / str(weights)
        if not path.is_file() or _digest(path.read_bytes()) != sha256:
            raise ValueError(
                f"expected the weights {weights} as they were saved in {folder}, found them gone or damaged: save "
                "the localizer again"
            )
        try:
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a stranger's file can give any
            raise ValueError(
                f"expected the weights of {self.name} in {path}, found something else ({type(error).__name__}): save the "
                "localizer again"
            ) from error
        self.tau = tau
        return self


def overlapped(function: Callable[[Any], Any], items: Iterable) -> Iterator:
    """``function`` of each item, in their order. With a GPU two are at work: one draws boxes while the other has the network."""
    if PartialState().device.type not in OVERLAPPING:
        yield from map(function, items)
        return
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(2) as threads:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


#: The file that makes a folder a saved localizer, and the folder in it where one that is not finished keeps its trainings.
FACTS, CHECKPOINT = "localizer.json", "checkpoint"
WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.pt")


def check_folder(folder: Path) -> None:
    """ValueError if a localizer may not be saved there: the folder holds something else than one, or is no folder.

    What a save leaves there that was killed in its midst is nothing else.
    """
    if not folder.exists() or (folder / FACTS).is_file():
        return
    strangers = [] if folder.is_dir() else [folder]
    for path in folder.iterdir() if folder.is_dir() else ():
        own = path.name == CHECKPOINT or WEIGHTS.fullmatch(path.name) or re.fullmatch(r"\..+\.part", path.name)
        strangers += [] if own else [path]
    if strangers:
        raise ValueError(
            f"expected a new or empty folder, or one of a localizer, found {folder} with other things in it"
        )


class Stage:
    """Where the trainings of a fit keep their checkpoints: ``stage("student")`` -> a file in the folder, None without one."""

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)

    def claim(self, facts: dict[str, Any]) -> None:
        """Take the folder for the fit that these facts make, plain values all of them.

        Raises:
            ValueError: it is that of another one, or what it says of itself is damaged; it is left as it is
        """
        path = self.folder / "fit.json"
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(facts, indent=1) + "\n")
            return
        try:
            known = dict(json.loads(path.read_text()))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(
                f"expected the facts of a training in {path}, found them damaged ({type(error).__name__}): delete the "
                "folder to train from the start"
            ) from error
        settings, asked = known.pop("settings", None), facts["settings"]
        settings = settings if isinstance(settings, dict) else {}
        other = [name for name in facts if name != "settings" and known.get(name) != facts[name]]
        other += [name for name in asked if settings.get(name) != asked[name]]
        if other:
            raise ValueError(
                f"expected the checkpoints of this training in {self.folder}, found those of one with other "
                f"{', '.join(other)}: correct them, or name another folder"
            )

    def __call__(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.pt"


def wnids_of(dataset: LocalizationDataset) -> tuple[str, ...] | None:
    """The WordNet ids of a data set's classes: its own, those of what it is a subset of, or its class names if they are some."""
    whole: Any = dataset
    while whole is not None:
        if getattr(whole, "wnids", None):
            return tuple(whole.wnids)
        whole = getattr(whole, "dataset", None)
    names = dataset.class_names
    return tuple(names) if all(re.fullmatch(r"n\d{8}", name) for name in names) else None


def has_masks(dataset: LocalizationDataset) -> bool:
    """Whether the images of a data set have masks; it is one for all."""
    return bool(len(dataset)) and dataset.masks(0, (1, 1))[0] is not None


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _fingerprint(dataset: LocalizationDataset) -> str:
    """Which images, in which order, of which classes; of the pixels only those of the first."""
    names = json.dumps([list(dataset.class_names), [str(name) for name in dataset.image_ids]])
    parts = [dataset.labels, dataset.image_sizes, dataset.images([0])]
    return _digest(names.encode() + b"".join(part.contiguous().numpy().tobytes() for part in parts))[:16]


#: What a value has to be where the default is one of these
KINDS: dict[type | tuple[type, ...], str] = {
    bool: "True or False",
    (int, float): "a number",
    str: "text",
    dict: "a dict",
    (list, tuple): "a list",
}
#: Settings that are whole numbers, and the least
WHOLE = {"epochs": 0, "batch_size": 1, "input_size": 1, "step_epochs": 1, "num_workers": 0, "seed": 0}
#: Settings that are numbers from 0 up
RATES = ("learning_rate", "head_factor", "weight_decay", "momentum", "step_factor")


def _check_settings(
    settings: dict[str, Any], defaults: dict[str, Any], search_space: dict[str, tuple[float, float]]
) -> None:
    numbers = dict.fromkeys((*search_space, "tau"), 0.0)
    for name, default in (numbers | {name: defaults[name] for name in defaults if defaults[name] is not None}).items():
        _check_kind(name, settings.get(name), default)
    for name, least in WHOLE.items():
        value = settings[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"expected {name} as a whole number from {least} up, found {value!r}: correct it")
    for name in RATES:
        if not 0 <= settings[name] < math.inf:
            raise ValueError(f"expected {name} from 0 up, found {settings[name]}: correct it")
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected settings of finite numbers, text, lists and dicts, found others ({error}): turn them into these"
        ) from error
    for what, known in (("augment", AUGMENTATIONS), ("a schedule", SCHEDULES), ("a precision", PRECISIONS)):
        value = settings[what.split()[-1]]
        if value not in known:
            raise ValueError(f"expected {what} out of {', '.join(known)}, found {value!r}: choose one of these")
    ranges = search_space | {"tau": (0.0, 1.0)}
    given = {name: settings[name] for name in ranges if settings.get(name) is not None}
    check_hyperparameters(ranges, **given)


def _check_kind(name: str, value: Any, default: Any) -> None:
    """ValueError unless the value is of the default's kind; None is not looked at."""
    kind = next((kind for kind in KINDS if isinstance(default, kind)), None)
    if value is None or kind is None or (name == "freeze" and isinstance(value, str)):
        return
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        word = 'a number of stages, the name of a layer or "all"' if name == "freeze" else KINDS[kind]
        raise ValueError(f"expected {name} as {word}, found {value!r}: correct it")


def _check_images(images: Tensor, labels: Tensor | None, num_classes: int) -> None:
    tensor = isinstance(images, Tensor)
    if not tensor or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        found = f"{images.dtype} of shape {tuple(images.shape)}" if tensor else type(images).__name__
        raise ValueError(
            f"expected uint8 images of shape (N, 3, H, W), a tensor, found {found}: stack images of one size"
        )
    if labels is None:
        return
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.shape != images.shape[:1] or (len(labels) and not whole):
        raise ValueError(
            f"expected a label, a whole number, for each of {len(images)} images, found labels of shape "
            f"{tuple(labels.shape)} and {labels.dtype}: give one an image, or none at all"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"expected labels in 0 ... {num_classes - 1}, the classes of this localizer, found {int(labels.min())} ... "
            f"{int(labels.max())}: the labels and the localizer do not belong together"
        )


def class_probability(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Of the classes that were looked for, (N,)."""
    probabilities = logits.softmax(dim=1)
    return probabilities.amax(dim=1) if classes is None else probabilities.gather(1, classes[:, None].cpu())[:, 0]


def mean_inside(maps: Tensor, boxes: Tensor) -> Tensor:
    """Mean of each map (N, H, W) in [0, 1] inside its box, whose edges are whole pixels: (N,)."""
    sums = nn.functional.pad(maps.double(), (1, 0, 1, 0)).cumsum(1).cumsum(2)
    x1, y1, x2, y2 = boxes.long().unbind(1)
    rows = torch.arange(len(maps))
    total = sums[rows, y2, x2] - sums[rows, y1, x2] - sums[rows, y2, x1] + sums[rows, y1, x1]
    return (total / ((x2 - x1) * (y2 - y1)).clamp(min=1)).clamp(0, 1).float()
