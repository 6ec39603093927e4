"""Two processes over gloo give what one gives, where nothing hangs on which images share a batch."""

import json
import os
import time
from contextlib import redirect_stdout
from types import SimpleNamespace

import killed
import numpy as np
import pytest
import standins
import tiny
import torch
from fake_localizer import NO_MAPS, write_table
from torch import nn

from wsol_lib import evaluate, localizer, psol
from wsol_lib import train as training
from wsol_lib.__main__ import main
from wsol_lib.book import experiments, units
from wsol_lib.cam import CAM
from wsol_lib.commands import reading
from wsol_lib.data import coco, load_dataset
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
    localizer.BATCH = psol.BATCH = 4  # what a process takes of a teacher's work
    if main(arguments):
        raise SystemExit(1)


def commands(calls, each, folder, told):
    """Some calls one after the other in one folder, EACH the images of a process; what they print goes to the file ``told``."""
    evaluate.BATCH = reading.BATCH = 2
    units.commit = lambda: "0123456789ab"
    experiments.time = SimpleNamespace(sleep=lambda _: time.sleep(0.01))
    os.chdir(folder)
    with open(told, "w") as file, redirect_stdout(file):
        for arguments in calls:
            command(arguments.replace("EACH", each).split())


def side_by_side(calls, one, two, meanwhile=lambda: None):
    """The same calls by one process in a folder, and by two in another; what the first of each has printed."""
    for folder in (one, two):
        folder.mkdir(exist_ok=True)
    alone = killed.start(commands, calls, "4", one, one / "told")
    both = killed.in_two_processes(commands, lambda rank: (calls, "2", two, two / f"told-{rank}"))
    meanwhile()
    assert [killed.ended(process) for process in (alone, *both)] == [0, 0, 0]
    return (one / "told").read_text(), (two / "told-0").read_text(), (two / "told-1").read_text()


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


NAMES = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(3)]


def test_two_processes_of_every_command_find_what_one_finds(tmp_path):
    """One launch for all: DDT's covariance, score maps and boxes that are scored, boxes that are predicted."""
    good, hurt, maps = (tmp_path / name for name in ("photographs", "hurt", "maps"))
    standins.photographs(good, NAMES)
    standins.photographs(hurt, NAMES)
    (hurt / "dog" / "bad.png").write_bytes(b"no photograph")
    images = [{"id": i, "file_name": name, "width": 48, "height": 36} for i, name in enumerate(NAMES)]
    boxes = [coco.annotation(i, i, i // 3, (5, 9, 24, 27), 1.0) for i in range(len(NAMES))]
    kinds = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    coco.write(good / "annotations.json", {}, images=images, categories=kinds, annotations=boxes)
    for i, image_id in enumerate(load_dataset("synthbirds", "test", n_images=5, image_size=32).image_ids):
        (maps / image_id).parent.mkdir(parents=True, exist_ok=True)
        np.save(maps / f"{image_id}.npy", np.random.default_rng(i).random((8, 8)))
    birds = "--dataset synthbirds --backbone tiny --input-size 32 --batch-size 4"
    birds += " --option image_size=32 train-weaksup.n_images=12 train-fullsup.n_images=12"
    small = "--backbone tiny --epochs 1 --input-size 32 --batch-size EACH --set freeze=all augment=none tau=0.3"
    of_ddt = f"predict --images {good} --flat --model ddt --out boxes.json"
    calls = [
        f"train --method ddt --out by-class {birds}",
        f"train --method ddt --out ddt {birds} --set class_wise=false",
        f"evaluate --scoremaps {maps} --dataset synthbirds --option n_images=5 image_size=32"
        f" --metric {' '.join(evaluate.METRICS)}",
        of_ddt,
        of_ddt,  # is finished
        f"evaluate --boxes boxes.json --dataset folder --root {good}",
        f"predict --images {hurt} --method cam --out cam.json {small}",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    alone, first, second = side_by_side(calls, one, two)
    assert first == alone and "boxes.json is finished" in alone and "1 damaged ones left out" in alone
    assert second == ""  # everything is said once
    for name in ("by-class", "ddt"):
        mine, theirs = (load(folder / name).network.state_dict() for folder in (one, two))
        torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=1e-7)
    for name in ("boxes", "cam"):
        mine, theirs = (json.loads((folder / f"{name}.json").read_text()) for folder in (one, two))
        assert theirs["images"] == mine["images"] and theirs["info"]["damaged"] == mine["info"]["damaged"]
        scores = [[row["score"] for row in found["annotations"]] for found in (theirs, mine)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_two_processes_of_a_search_are_one_search(tmp_path):
    call = "search --method has --dataset synthbirds --backbone tiny --input-size 32 --epochs 1 --batch-size EACH"
    call += " --option image_size=32 train-weaksup.n_images=12 train-fullsup.n_images=12 test.n_images=4"
    call += " --fix freeze=all augment=none grid_size=8 --trials 1 --storage has.journal --test --out best"
    both = killed.in_two_processes(commands, lambda rank: ([call], "2", tmp_path, tmp_path / f"told-{rank}"))
    assert [killed.ended(process) for process in both] == [0, 0]
    first, second = ((tmp_path / f"told-{rank}").read_text() for rank in (0, 1))
    assert "look 1 at test" in first and second == ""  # everything is said once
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["best"], "no checkpoint is left"


def test_two_processes_share_experiments_and_record_what_one_records(tmp_path):
    for folder in (one := tmp_path / "one", two := tmp_path / "two"):
        (folder / "results").mkdir(parents=True)
        log = {"hyperparameters": {"log": "log"}}
        write_table(folder, {"a": {**log, "seeds": [0, 1, 2]}, "b": {"seeds": [0], "localizer": NO_MAPS}})
    held = two / "log.held"
    held.write_text("0 1 2")

    def lines():
        return [line.split() for line in (two / "log").read_text().splitlines()] if (two / "log").exists() else []

    def both_have_begun():
        killed.until(lambda: len({process for *_, process in lines()}) == 2)
        held.unlink()

    alone, first, second = side_by_side(["experiment --profile tiny --record"], one, two, both_have_begun)
    assert first == second == alone
    assert sorted(seed for what, seed, _ in lines() if what == "ends") == ["0", "1", "2"]
    for name in ("fake-a", "fake-b"):
        mine, theirs = (json.loads((folder / "results" / f"{name}.json").read_text()) for folder in (one, two))
        for record in (mine, theirs):
            del record["checksum"]  # of the seconds, too
            for seed in record["seeds"]:
                del seed["seconds"]
        assert theirs == mine
