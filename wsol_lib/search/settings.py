"""What makes trials comparable: the settings of a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from wsol_lib.evaluate import CURVES
from wsol_lib.localizers import Localizer, find

CHECKPOINTS = ("last", "best")


@dataclass(frozen=True)
class Settings:
    """What makes trials comparable; with another value it is another study.

    Attributes:
        method: one of :data:`wsol_lib.localizers.NAMES` that has something to search, or the path of your own,
            "package.module:Class"
        backbone: as in :func:`wsol_lib.models.create_backbone`
        dataset: as in :func:`wsol_lib.data.load_dataset`
        options: of the data set; "SPLIT.NAME" is for this split alone, as in "train-weaksup.n_images"
        epochs, batch_size: of each training; None are the published ones of the method and the data set
        input_size: side in pixels of what the network sees, the evaluation paper's 224
        proxy: share of the training images of each class that the trials see, in (0, 1]
        checkpoint: "last", or the "best" of all epochs on ``train-fullsup``
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; a data set without boxes has PxAP in any case. What makes no score maps is
            judged by the boxes that it gives, at the same IoU thresholds
        fixed: what is not drawn: any other setting of the localizer (:meth:`wsol_lib.localizers.Localizer.defaults`), such as
            "learning_rate", "output_stride", "schedule" or an argument of the method
        seed: of the points and of every training
        pretrained: ImageNet weights, or random ones

    Raises:
        ValueError: an unknown name, a value outside its range, a method without anything to search
    """

    method: str
    backbone: str
    dataset: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    batch_size: int | None = None
    input_size: int = 224
    proxy: float = 1.0
    checkpoint: str = "last"
    metric: str = "MaxBoxAccV2"
    fixed: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    pretrained: bool = True

    def __post_init__(self):
        for name, known in (("checkpoint", CHECKPOINTS), ("metric", CURVES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"expected a {name} out of {', '.join(known)}, found {getattr(self, name)!r}: choose one of these"
                )
        if not 0 < self.proxy <= 1:
            raise ValueError(f"expected proxy, a share of the training images, in (0, 1], found {self.proxy}")
        twice = sorted(set(self.fixed) & {"num_workers", *(f.name for f in fields(self))})
        if twice:
            raise ValueError(
                f"expected fixed values of what is not a setting of the search itself, found {', '.join(twice)}: say it there"
            )
        if self.epochs == 0:
            raise ValueError("expected epochs from 1 up, found 0: correct it")
        if not self.localizer.drawn(self.of_localizer()):
            raise ValueError(
                f"expected a method with something to search, found {self.method}, which has nothing: fit it, or choose "
                "another"
            )

    @property
    def localizer(self) -> type[Localizer]:
        """The class behind ``method``."""
        return find(self.method)

    def of_localizer(self, **values: Any) -> dict[str, Any]:
        """All settings of the localizer, of which ``values`` are instead of those that are published or fixed."""
        own = {
            name: getattr(self, name)
            for name in ("backbone", "pretrained", "epochs", "batch_size", "input_size", "seed")
        }
        return self.localizer.settings_for(self.method, self.dataset, own | self.fixed | values)

    def drawn(self) -> dict[str, tuple | list]:
        """What is drawn, as :meth:`wsol_lib.localizers.Localizer.drawn` says it, without what is fixed."""
        space = self.localizer.drawn(self.of_localizer())
        return {name: drawn for name, drawn in space.items() if name not in self.fixed}

    def facts(self) -> dict[str, Any]:
        """All that makes trials comparable, by name: the settings of the search and, but for what is drawn, the localizer's."""
        drawn = {"num_workers", *self.drawn()}
        own = {name: value for name, value in self.of_localizer().items() if name not in drawn}
        return {name: value for name, value in asdict(self).items() if name != "fixed"} | own
