"""CAM beside a map of objects, from the few boxed images that all methods may look at.

For the methods of the four papers the boxed images of ``train-fullsup`` choose one number, the threshold. They can say more:
a small head on the finished, frozen trunk learns from them which cells belong to an object, of whatever class, and its map
is mixed into CAM's. Not of a paper; it shows what is left in a budget of labels and a few boxes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, class_activation_map
from wsol_lib.data import LocalizationDataset, Subset
from wsol_lib.few_shot import FewShot, foreground_of_boxes
from wsol_lib.localizer import Localizer, Stage
from wsol_lib.models import Backbone


class GuidedCAM(CAM):
    """CAM, and a head on the same features that marks objects of any class.

    Args:
        backbone: one with a GAP head
        share: of the map of objects in the mixture; 0 is CAM
        channels: of the head's hidden layer

    Raises:
        ValueError: the backbone has another head
    """

    search_space: ClassVar[dict[str, tuple[float, float]]] = {"share": (0.0, 1.0)}

    def __init__(self, backbone: Backbone, *, share: float = 0.2, channels: int = 64):
        super().__init__(backbone)
        self.share = share
        layers = nn.Conv2d(backbone.num_features, channels, 1), nn.ReLU(), nn.Conv2d(channels, 1, 1)
        self.objects = nn.Sequential(*layers).to(backbone.mean.device)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`wsol_lib.cam.CAM.score_maps`; both maps are normalised before they are mixed, (N, h, w) in [0, 1]."""
        features = self.backbone.features(inputs)
        logits = self.backbone.head(features)
        chosen = logits.argmax(dim=1) if classes is None else classes
        maps = class_activation_map(features, self.backbone.head.weight, chosen)
        marked = self.objects(features)[:, 0].sigmoid()
        maps, marked = (normalize_score_maps(own.float()) for own in (maps, marked))
        return (1 - self.share) * maps + self.share * marked, logits


class Objects(FewShot):
    """The few-shot network that is in a :class:`GuidedCAM`: its head alone is trained, its trunk frozen from now on."""

    on_features = True

    def __init__(self, guided: GuidedCAM):
        super().__init__(guided.backbone)
        self.backbone = guided.backbone.with_head(guided.objects).freeze()


class Guided(Localizer):
    """``wsol_lib.guided:Guided``: CAM from labels, then the head from boxed images, ``passes`` over them at ``rate``.

    The images it learns the head from choose its tau as well. With ``wsol_lib.few_shot`` it shares the loss, with CAM all
    settings of the training.
    """

    network_class = GuidedCAM

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return super().hyperparameters() | {"passes": 4, "rate": 0.05}

    def build(self) -> GuidedCAM:
        own = super().hyperparameters()
        return GuidedCAM(self.create_backbone(), **{name: self.settings[name] for name in own})

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        known = [] if boxed is None else [i for i, own in enumerate(boxed.boxes) if len(own)]
        if not known:
            raise ValueError(
                f"expected boxed images for {self.name}, which learns from them, too, found none: give boxed="
            )
        super().learn(dataset, boxed, stage)
        changed = {"epochs": self.settings["passes"], "learning_rate": self.settings["rate"], "head_factor": 1.0}
        targets = {"targets": foreground_of_boxes}
        self.train(Objects(self.network), Subset(boxed, known), stage("objects"), **changed, **targets)
