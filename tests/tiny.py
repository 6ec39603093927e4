"""A backbone of a few hundred weights by the name "tiny", and settings with which every localizer is fitted in an instant."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from wsol_lib import adl, attention_pooling, models
from wsol_lib.models import Backbone, GapLinear

SIZE = 32
#: of every fit here
SETTINGS = {"backbone": "tiny", "pretrained": False, "input_size": SIZE, "batch_size": 4, "epochs": 2}
STUDENT = {"hidden": 8, "learning_rate": 0.01}
#: and of some
OWN = {
    "acol": {"channels": 4},
    "spg": {"channels": 4},
    "ddt": {"epochs": None},
    "psol": {**STUDENT, "teacher": "cam", "teacher_settings": {"epochs": 1, "batch_size": 4, "tau": 0.3}},
    "slt": STUDENT,
    "lchp-i": {**STUDENT, "attention_maps": 4},
    "lchp-r": {**STUDENT, "attention_maps": 4},
}


def settings(name: str, **changed) -> dict:
    return SETTINGS | OWN.get(name, {}) | changed


def create(num_classes: int, pretrained: bool, output_stride: int = 8) -> Backbone:
    """Three resolutions, 4 x 4 cells at 32 pixels; a "pretrained" one is the same whenever it is made."""
    with torch.random.fork_rng(devices=[], enabled=pretrained):
        if pretrained:
            torch.manual_seed(7)
        trunk = nn.Sequential(*(_stage(*channels) for channels in ((3, 8), (8, 12), (12, 16))))
        return Backbone(trunk, GapLinear(16, num_classes), 16, input_size=SIZE)


def _stage(here: int, there: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(here, there, 3, stride=2, padding=1), nn.BatchNorm2d(there), nn.ReLU())


@contextmanager
def registered():
    """For a while it is one of the library's backbones."""
    cut = attention_pooling._cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BACKBONES, "tiny", create)
        patch.setitem(models.OUTPUT_STRIDES, "tiny", (8,))
        patch.setitem(adl.LAYERS, "tiny", ("1.2", "2.2"))
        patch.setitem(attention_pooling.CHANNELS, "tiny", 16)
        patch.setattr(attention_pooling, "_cut", lambda name, trunk: trunk if name == "tiny" else cut(name, trunk))
        yield
