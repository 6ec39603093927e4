"""A localizer of your own, for every command: --method my_localizer:MyLocalizer, called from the folder of this file."""

from typing import ClassVar

from torch import Tensor

from wsol_lib.baselines import centre_gaussian_maps
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM
from wsol_lib.localizers import Localizer
from wsol_lib.models import Backbone


class CentredCAM(CAM):
    """CAM that expects things in the middle: a share of its map is a Gaussian there.

    Args:
        backbone: one with a GAP head
        prior: that share; 0 is CAM, 1 the centre baseline
    """

    search_space: ClassVar[dict[str, tuple[float, float]]] = {"prior": (0.0, 1.0)}

    def __init__(self, backbone: Backbone, *, prior: float = 0.3):
        super().__init__(backbone)
        self.prior = prior

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps, logits = super().score_maps(inputs, classes)
        middle = centre_gaussian_maps(*maps.shape).to(maps)
        return (1 - self.prior) * normalize_score_maps(maps) + self.prior * middle, logits


class MyLocalizer(Localizer):
    """What it learns from, its settings and its search are those of CAM, and the keyword arguments of its network."""

    network_class = CentredCAM
