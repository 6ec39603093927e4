"""What makes trials comparable: the settings of a search."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from wsol_lib.acol import ACoL
from wsol_lib.adl import ADL
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.evaluate import CURVES
from wsol_lib.few_shot import FewShot
from wsol_lib.has import HideAndSeek
from wsol_lib.slt import SLTLocalizer
from wsol_lib.spg import SPG

METHODS: dict[str, type[CAM]] = {
    "cam": CAM,
    "has": HideAndSeek,
    "acol": ACoL,
    "spg": SPG,
    "adl": ADL,
    "cutmix": CutMix,
    "few-shot": FewShot,
    "slt": SLTLocalizer,
}
CHECKPOINTS = ("last", "best")


@dataclass(frozen=True)
class Settings:
    """What makes trials comparable; with another value it is another study.

    Attributes:
        method: out of ``METHODS``
        backbone: as in :func:`wsol_lib.models.create_backbone`
        dataset: as in :func:`wsol_lib.data.load_dataset`
        options: of the data set; "SPLIT.NAME" is for this split alone, as in "train-weaksup.n_images"
        epochs, batch_size: of each training
        input_size: side in pixels of what the backbone sees: in training random crops, out of 256 / 224 of it, and flips
        proxy: share of the training images of each class that the trials see, in (0, 1]
        checkpoint: "last", or the "best" of all epochs on ``train-fullsup``
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; a data set without boxes has PxAP in any case
        fixed: what is not drawn: "learning_rate" and keyword arguments of the method
        seed: of the points and of every training
        pretrained: ImageNet weights, or random ones

    Raises:
        ValueError: an unknown name, a number outside its range
    """

    method: str
    backbone: str
    dataset: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 32
    input_size: int = 224
    proxy: float = 1.0
    checkpoint: str = "last"
    metric: str = "MaxBoxAccV2"
    fixed: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    pretrained: bool = True

    def __post_init__(self):
        for name, known in (("method", METHODS), ("checkpoint", CHECKPOINTS), ("metric", CURVES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"expected a {name} out of {', '.join(known)}, found {getattr(self, name)!r}: choose one of these"
                )
        if not 0 < self.proxy <= 1:
            raise ValueError(f"expected proxy, a share of the training images, in (0, 1], found {self.proxy}")
        if min(self.epochs, self.batch_size, self.input_size) < 1:
            raise ValueError(
                "expected epochs, batch_size and input_size from 1 up, found "
                f"{self.epochs}, {self.batch_size} and {self.input_size}: correct them"
            )
        known = ["learning_rate", *list(inspect.signature(METHODS[self.method]).parameters)[1:]]
        unknown = sorted(set(self.fixed) - set(known))
        if unknown:
            raise ValueError(
                f"expected fixed values of {self.method} out of {', '.join(known)}, found {', '.join(unknown)}: leave out "
                "what is not in the list"
            )
