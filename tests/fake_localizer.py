"""A localizer that costs nothing, and a table of experiments with it: what the tests of the experiments share."""

import os
from contextlib import suppress
from pathlib import Path

import killed
import torch
import yaml
from torch import nn

from wsol_lib.baselines import centre_gaussian_maps
from wsol_lib.boxes import boxes_from_score_maps
from wsol_lib.localizer import Localizer, Predictions

FAKE = "fake_localizer:Fake"
NO_MAPS = "fake_localizer:NoMaps"


class Fake(Localizer):
    """Gaussians off the centre by what the seed draws, and logits that are drawn, too.

    It writes one line into the file ``log`` when a fit begins and one when it is over. A fit whose seed stands in the file
    ``log``.held is not over before that file is gone.
    """

    supervision = "labels"
    least_classes = 1

    @classmethod
    def hyperparameters(cls):
        return {"log": "", "size": 0.5, "fails": ""}

    def build(self):
        return nn.Linear(2, 2)

    @property
    def input_size(self):
        return self.settings["input_size"] or 32

    def learn(self, dataset, boxed, stage):
        if self.settings["fails"]:
            raise ValueError(self.settings["fails"])
        self._log("begins")
        killed.until(lambda: not self._held())
        self._log("ends")

    def _held(self):
        with suppress(FileNotFoundError):
            return str(self.settings["seed"]) in Path(f"{self.settings['log']}.held").read_text().split()
        return False

    def _log(self, what):
        if self.settings["log"]:
            with open(self.settings["log"], "a") as file:
                file.write(f"{what} {self.settings['seed']} {os.getpid()}\n")

    def look(self, images, classes):
        drawn = torch.Generator().manual_seed(self.settings["seed"] + int(images.float().mean() * 1000))
        maps = centre_gaussian_maps(len(images), *images.shape[-2:])
        shifts = torch.randint(0, images.shape[-1] // 2, (len(images),), generator=drawn).tolist()
        maps = torch.stack([one.roll(shift, -1) for one, shift in zip(maps, shifts)])
        boxes = boxes_from_score_maps(maps, 0.2 if self.tau is None else self.tau)
        logits = torch.randn(len(images), len(self.class_names), generator=drawn)
        return Predictions(boxes, torch.rand(len(images), generator=drawn), maps, logits)


class NoMaps(Fake):
    """The same boxes as of a student: no maps, no logits, no threshold."""

    makes_maps = False

    def look(self, images, classes):
        boxes = super().look(images, classes).boxes
        return Predictions(boxes * 0.97, torch.ones(len(images)))


def write_table(where: Path, entries: dict, **shared) -> Path:
    """``book/experiments.yaml`` in a folder: one group "fake" of tiny birds with these entries."""
    group = {
        "dataset": "synthbirds",
        "train-weaksup": {"n_images": 12, "image_size": 32},
        "train-fullsup": {"n_images": 12, "image_size": 32},
        "test": {"n_images": 24, "image_size": 32},
        "localizer": FAKE,
        "epochs": 2,
        "seeds": [0, 1],
        "why": "a stand-in",
        **shared,
        "experiments": entries,
    }
    path = where / "book" / "experiments.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"fake": group}))
    return path
