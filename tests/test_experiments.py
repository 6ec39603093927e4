"""Experiments: what is finished is never run again, what is killed goes on, and no record is made of uncommitted code."""

import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from types import SimpleNamespace

import killed
import numpy as np
import pytest
import torch
from fake_localizer import write_table

from wsol_lib.__main__ import main
from wsol_lib.baselines import centred_boxes
from wsol_lib.book import experiments, records, units
from wsol_lib.book.definitions import load_experiments
from wsol_lib.book.experiments import baselines, listing, units_of
from wsol_lib.boxes import localized
from wsol_lib.data import load_dataset
from wsol_lib.search.locks import Locks

COMMITTED = "0123456789ab"


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(units, "commit", lambda: COMMITTED)
    (tmp_path / "results").mkdir()
    return tmp_path


def logged(book):
    """(begins or ends, seed) of every fit so far."""
    path = book / "log"
    return [tuple(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []


def processes(book):
    """Those that have begun a fit so far."""
    path = book / "log"
    return {line.split()[2] for line in path.read_text().splitlines()} if path.exists() else set()


def with_log(book):
    return {"hyperparameters": {"log": str(book / "log")}}


def experiment(*arguments):
    return main(["experiment", *arguments, "--profile", "tiny"])


def process(book, told="told"):
    """The command, at work in a process of its own; what it prints goes to the file ``told``."""
    return killed.start(_experiment_in, book, told)


def _experiment_in(book, told):
    os.chdir(book)
    experiments.time = SimpleNamespace(sleep=lambda _: time.sleep(0.01))
    with open(told, "w") as file, redirect_stdout(file):
        sys.exit(experiment())


def states(book):
    found = load_experiments("tiny")
    with Locks(book / "_build" / "experiments" / "running") as locks:
        lines = listing(list(found.values()), book / "_build" / "experiments", locks).splitlines()
    return {line.split("  ")[0]: line for line in lines}


# -- running -----------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_run_again(book, capsys):
    write_table(book, {"a": with_log(book), "b": {}})
    assert experiment("fake-a") == 0
    assert logged(book) == [("begins", "0"), ("ends", "0"), ("begins", "1"), ("ends", "1")]
    told = capsys.readouterr().out
    assert "GT-known Loc" in told and "fake-a" in told and "fake-b" not in told
    assert experiment("fake") == 0
    assert len(logged(book)) == 4
    assert "fake-b" in capsys.readouterr().out
    assert experiment("fake-a", "--force") == 0
    assert len(logged(book)) == 8
    assert not list((book / "results").iterdir())


@pytest.mark.parametrize("damage", ["flipped", "cut off", "of another kind"])
def test_a_damaged_unit_is_run_again_and_the_others_are_not(book, damage):
    write_table(book, {"a": with_log(book)})
    assert experiment() == 0
    (one,) = load_experiments("tiny").values()
    unit = units_of(one, book / "_build" / "experiments")[1]
    whole, right = unit.path.read_bytes(), unit.outcome()
    middle = whole.index(b"facts.npy") + 300
    damaged = {"flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "cut off": whole[:middle]}
    unit.path.write_bytes(damaged.get(damage, b"[]"))
    assert "1 of 2 seeds finished" in states(book)["fake-a"]
    assert experiment("--record") == 0
    assert [seed for what, seed in logged(book) if what == "begins"] == ["0", "1", "1"]
    assert unit.outcome().keys() == right.keys()
    assert all((value == right[name]).all() for name, value in unit.outcome().items())


def test_another_seed_adds_to_those_that_are_finished(book):
    write_table(book, {"a": with_log(book)})
    assert experiment() == 0
    write_table(book, {"a": with_log(book) | {"seeds": [0, 1, 5]}})
    assert "2 of 3 seeds finished" in states(book)["fake-a"]
    assert experiment() == 0
    assert [seed for what, seed in logged(book) if what == "begins"] == ["0", "1", "5"]


def test_the_same_definition_under_two_names_is_run_once(book):
    write_table(book, {"a": with_log(book), "b": with_log(book)})
    assert experiment("--record") == 0
    assert len(logged(book)) == 4
    assert records.load_record("fake-a")["value"] == records.load_record("fake-b")["value"]


def test_killed_and_started_again_it_goes_on(book):
    write_table(book, {"a": {**with_log(book), "seeds": [0, 1, 2]}})
    held = book / "log.held"
    held.write_text("1")
    first = process(book)
    killed.until(lambda: ("begins", "1") in logged(book))
    assert "running" in states(book)["fake-a"]
    first.kill()
    assert killed.ended(first) == killed.KILLED
    assert ("ends", "1") not in logged(book)
    held.unlink()
    assert "1 of 3 seeds finished" in states(book)["fake-a"]  # and the unit of the killed process is free at once
    assert killed.ended(process(book)) == 0
    assert logged(book) == [
        *(("begins", "0"), ("ends", "0"), ("begins", "1")),
        *(("begins", "1"), ("ends", "1"), ("begins", "2"), ("ends", "2")),
    ]
    (one,) = load_experiments("tiny").values()
    own = units_of(one, book / "_build" / "experiments")
    assert [unit.facts()["starts"] for unit in own] == [1, 2, 1]
    assert not any(unit.checkpoint.exists() for unit in own)


def test_processes_share_the_units_and_wait_for_each_other(book):
    write_table(book, {"a": {**with_log(book), "seeds": [0, 1, 2, 3]}})
    held = book / "log.held"
    held.write_text("0 1 2 3")
    both = [process(book, f"told-{number}") for number in range(2)]
    killed.until(lambda: len(processes(book)) == 2)
    held.unlink()
    assert [killed.ended(one) for one in both] == [0, 0]
    assert sorted(logged(book)) == sorted((what, str(seed)) for what in ("begins", "ends") for seed in range(4))
    assert len(processes(book)) == 2
    assert all(
        "fake-a" in (book / f"told-{number}").read_text() for number in range(2)
    )  # both have the whole result at the end


def test_processes_of_accelerate_launch_work_for_themselves(book, monkeypatch):
    write_table(book, {"a": {"seeds": [0]}})
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "4,7"}.items():
        monkeypatch.setenv(name, value)
    assert experiment() == 0
    assert "RANK" not in os.environ and "WORLD_SIZE" not in os.environ
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_what_fails_is_said_once_and_the_others_are_run(book, capsys):
    fails = {"hyperparameters": {"fails": "expected nothing, found a failure"}}
    write_table(
        book,
        {"a": fails, "b": {"seeds": [0]}, "c": {"localizer": "cam", "dataset": "tiny-imagenet", "train-weaksup": {}}},
    )
    assert experiment("fake-a", "fake-b") == 1
    told = capsys.readouterr()
    assert told.err.count("error: expected nothing, found a failure (fake-a, seed 0; fake-a, seed 1)") == 1
    assert "fake-b" in told.out and "fake-a" not in told.out


def test_data_that_are_not_there(book, capsys, monkeypatch):
    monkeypatch.delenv("WSOL_DATA", raising=False)
    splits = {"train-weaksup": {}, "train-fullsup": {}, "test": {}}
    write_table(book, {"a": {"seeds": [0]}}, dataset="cub", **splits)
    assert experiment() == 1
    assert "error: expected the folder that holds cub as root= or in the environment" in capsys.readouterr().err
    assert experiment("--data-root", str(book / "nowhere")) == 1
    assert "error: expected a folder that holds cub at" in capsys.readouterr().err
    assert "?" in states(book)["fake-a"]


def test_unknown_names(book, capsys):
    write_table(book, {"a": {}})
    assert experiment("fake-b") == 2
    assert (
        "error: expected a group out of fake, or an experiment out of fake-a, found 'fake-b'" in capsys.readouterr().err
    )
    assert main(["experiment", "--profile", "huge"]) == 2
    assert "error: expected a profile out of quick, tiny, full, found 'huge'" in capsys.readouterr().err


# -- states ------------------------------------------------------------------------------------------------------------


def test_the_list_says_what_state_each_is_in(book, capsys):
    write_table(book, {"a": {}, "b": {"epochs": 4}, "c": {"epochs": 6}})
    assert experiment("--list") == 0
    assert all("missing" in line and "?" in line for line in capsys.readouterr().out.splitlines()[1:4])
    assert experiment("fake-a") == 0
    assert experiment("fake-b", "--record") == 0
    found = states(book)
    assert "finished" in found["fake-a"] and "missing" in found["fake-c"]
    assert "recorded" in found["fake-b"] and "another" not in found["fake-b"]
    assert "?" not in found["fake-c"]  # nothing of the kind took long
    write_table(book, {"a": {}, "b": {"epochs": 5}})
    assert "recorded by another definition" in states(book)["fake-b"]
    assert experiment("--record") == 0
    assert "another" not in states(book)["fake-b"]
    path = book / "results" / "fake-b.json"
    path.write_text(path.read_text().replace('"n": 24', '"n": 25'))
    assert "recorded, but edited" in states(book)["fake-b"]


def test_time_is_estimated_from_units_that_were_left_alone(book):
    write_table(book, {"a": {"seeds": [0, 1, 2]}, "b": {"epochs": 200}})
    folder = book / "_build" / "experiments"
    one, other = load_experiments("tiny").values()
    assert units.Rates(folder).seconds(one, 24, 24) is None
    rates = units.Rates(folder)
    rows = {
        "unit": one.definition | {"seeds": [0]},
        "images_seen": 24,
        "data": {"test": {"n": 24}},
        "seconds": {"fit": 7.0, "predict": 1.0},
        "device": units.device(),
    }
    rates.add({**rows, "starts": 2})
    rates.add({**rows, "starts": 1, "device": "another"})
    assert rates.seconds(one, 24, 24) is None
    rates.add({**rows, "starts": 1})
    assert rates.seconds(one, 24, 24) == 8
    assert rates.seconds(other, 2400, 24) == pytest.approx(8 * (3 * 2400 + 24) / (3 * 24 + 24))


# -- records -----------------------------------------------------------------------------------------------------------


def test_no_record_of_uncommitted_code(book, capsys, monkeypatch):
    write_table(book, {"a": with_log(book)})
    for source, found in ((f"{COMMITTED}+", "changes in them"), (None, "no repository")):
        monkeypatch.setattr(units, "commit", lambda source=source: source)
        assert experiment("--record") == 2
        assert f"to record with, found {found}: commit them first" in capsys.readouterr().err
    assert logged(book) == []
    monkeypatch.setattr(units, "commit", lambda: f"{COMMITTED}+")
    assert experiment() == 0  # but it can be tried
    monkeypatch.setattr(units, "commit", lambda: COMMITTED)
    assert experiment("--record") == 0  # what was tried is no measurement: it is run again
    assert len(logged(book)) == 8
    assert [row["commit"] for row in records.load_record("fake-a")["seeds"]] == [COMMITTED] * 2


def test_the_commit_tells_changes_of_the_library_and_of_the_table_only(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    monkeypatch.setattr(units.wsol_lib, "__file__", str(tmp_path / "wsol_lib" / "__init__.py"))
    assert units.commit() is None
    for name in ("wsol_lib/a.py", "book/experiments.yaml", "book/chapter.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    assert units.is_committed(units.commit())
    (tmp_path / "book" / "chapter.ipynb").write_text("changed")
    assert units.is_committed(units.commit())
    for name in ("wsol_lib/a.py", "wsol_lib/new.py", "book/experiments.yaml"):
        (tmp_path / name).write_text("changed")
        assert not units.is_committed(units.commit()), name
        git("add", ".")
        git("commit", "-q", "-m", "change")


def test_a_record_is_written_anew_and_only_when_it_must_be(book):
    write_table(book, {"a": with_log(book)})
    assert experiment("--record") == 0
    path = book / "results" / "fake-a.json"
    before = path.read_bytes()
    path.with_name("fake-a.json").write_bytes(before)
    assert experiment("--record") == 0
    assert path.read_bytes() == before and len(logged(book)) == 4
    path.write_text(json.dumps(json.loads(before) | {"stale": 1}))
    assert experiment("--record") == 2  # it was edited
    assert experiment("--record", "--force") == 0
    assert "stale" not in json.loads(path.read_text()) and len(logged(book)) == 8
    (book / "results" / "boxes" / "fake-a.npz").unlink()
    assert experiment("--record") == 0  # written again from what is finished
    assert records.load_record("fake-a") and len(logged(book)) == 8


def test_baselines_are_those_of_the_same_images():
    test = load_dataset("synthbirds", "test", n_images=24, image_size=64, position_spread=0.2)
    boxed = load_dataset("synthbirds", "train-fullsup", n_images=24, image_size=64, position_spread=0.2)
    found = baselines(test, boxed)

    def of(side, dataset=test):
        return float(localized(centred_boxes(dataset.image_sizes, side), dataset.boxes).double().mean())

    assert found["whole_image"] == of(1.0)
    chosen, floor = found["centred_box"], found["centred_box_best_on_test"]
    sides = np.arange(1, 101) / 100
    assert of(chosen["side"], boxed) == max(of(side, boxed) for side in sides)
    assert (chosen["value"], floor["value"]) == (of(chosen["side"]), max(of(side) for side in sides))
    assert "centred_box" not in baselines(test, None)


def test_seeds_that_looked_at_different_data_are_no_record(book, capsys):
    write_table(book, {"a": {}})
    assert experiment() == 0
    (one,) = load_experiments("tiny").values()
    unit = units_of(one, book / "_build" / "experiments")[1]
    facts = unit.facts()
    facts["data"]["train-weaksup"]["pixels"] = "others"
    np.savez(unit.path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **unit.outcome())
    assert experiment("--record") == 1
    assert (
        "expected one set of data for all seeds of fake-a, found several: run it with --force"
        in capsys.readouterr().err
    )


# -- predictions -------------------------------------------------------------------------------------------------------


def test_boxes_are_in_pixels_of_the_images_as_they_are(tmp_path):
    from PIL import Image

    from wsol_lib import localizers

    sizes = [(40, 20), (64, 64), (30, 90)]
    for i, size in enumerate(sizes):
        path = tmp_path / "test" / "thing" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, i, i)).save(path)
    dataset = load_dataset("folder", "test", tmp_path)
    dataset.boxes = [torch.tensor([[0.0, 0, w, h]]) for w, h in sizes]
    fitted = localizers.fit("centre", dataset, tau=0.5)
    predicted, measured = units.predict(fitted, dataset, 32)
    for box, (w, h) in zip(predicted["boxes"] / records.STEPS, sizes):
        x1, y1, x2, y2 = box / np.array([w, h, w, h])
        assert x1 == pytest.approx(1 - x2, abs=0.05) and (x1, x2) == pytest.approx((y1, y2), abs=0.05)
    assert measured["max_box_acc"] == 1.0 and "top" not in predicted
