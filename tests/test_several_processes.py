"""Two processes over gloo give what one gives, where nothing hangs on which images share a batch."""

import json
import os

import killed
import pytest
import tiny
import torch
from torch import nn

from wsol_lib import train as training
from wsol_lib.__main__ import main
from wsol_lib.cam import CAM
from wsol_lib.data import load_dataset
from wsol_lib.localizers import load
from wsol_lib.models import Backbone, GapLinear


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


def train_plain(dataset, batch_size, result):
    """A network without batch norm, which would normalise by the images of a process alone; nothing in it is drawn."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    net = CAM(Backbone(trunk, GapLinear(8, 12), 8))
    history = training.train(net, dataset, epochs=2, batch_size=batch_size, learning_rate=0.05)
    torch.save({"state": net.state_dict(), "history": history}, result)


def command(arguments):
    os.environ.pop("ACCELERATE_USE_CPU", None)  # torchrun does not set it
    if main(arguments):
        raise SystemExit(1)


def test_two_processes_train_what_one_trains(tmp_path):
    birds = load_dataset("synthbirds", "train-weaksup", n_images=12, image_size=32)
    assert killed.run(train_plain, birds, 4, tmp_path / "one") == 0
    both = killed.in_two_processes(train_plain, lambda rank: (birds, 2, tmp_path / f"two-{rank}"))
    assert [killed.ended(process) for process in both] == [0, 0]
    one, *two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two-0", "two-1"))
    for other in two:
        torch.testing.assert_close(other["state"], one["state"], rtol=1e-4, atol=1e-6)
        assert [row["loss"] for row in other["history"]] == pytest.approx(
            [row["loss"] for row in one["history"]], rel=1e-5
        )


@pytest.mark.parametrize("method", ["psol", "cam"])
def test_two_processes_of_the_command_keep_one_localizer(method, tmp_path):
    """PSOL's teacher too: each process draws its boxes, one keeps them. Heads alone learn, so that batch norm stays."""

    def arguments(out, batch_size):
        call = [
            "train",
            "--method",
            method,
            "--dataset",
            "synthbirds",
            "--out",
            str(tmp_path / out),
            "--backbone",
            "tiny",
        ]
        call += ["--epochs", "2", "--input-size", "32", "--batch-size", str(batch_size)]
        call += ["--option", "image_size=32", "train-weaksup.n_images=12", "train-fullsup.n_images=12"]
        return [*call, "--set", "freeze=all", "augment=none", "learning_rate=0.05", "schedule=constant"]

    assert killed.run(command, arguments("one", 4)) == 0
    both = killed.in_two_processes(command, lambda rank: (arguments("two", 2),))
    assert [killed.ended(process) for process in both] == [0, 0]
    one, two = (load(tmp_path / name) for name in ("one", "two"))
    torch.testing.assert_close(two.network.state_dict(), one.network.state_dict(), rtol=1e-4, atol=1e-6)
    assert two.tau == one.tau
    assert not (tmp_path / "two" / "checkpoint").exists()
    assert len(json.loads((tmp_path / "two" / "training.json").read_text())["history"]) == 2
