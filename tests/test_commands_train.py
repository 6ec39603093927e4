"""The command that trains a localizer: what it says, what it keeps, and that nothing kept is lost."""

import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout

import killed
import pytest
import standins
import tiny
import torch

from wsol_lib import localizers
from wsol_lib.__main__ import main
from wsol_lib.cache import one_at_a_time
from wsol_lib.commands import train
from wsol_lib.localizer import Localizer

TINY = ["--backbone", "tiny", "--input-size", "32", "--batch-size", "8", "--set", "pretrained=false", "output_stride=8"]
NAMES = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(6)]


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


@pytest.fixture
def root(tmp_path):
    return standins.photographs(tmp_path / "photographs", NAMES)


def annotate(root, name="cat/0.png"):
    coco = {
        "images": [{"id": 1, "file_name": name}],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 9, 24, 18]}],
    }
    (root / "annotations.json").write_text(json.dumps(coco))


def call(root, *more, method="cam", out="out"):
    folder = root.parent / out
    given = ["--method", method, "--dataset", "folder", "--data-root", str(root), "--out", str(folder)]
    return main(["train", *given, "--epochs", "1", *TINY, *more]), folder


def weights(folder):
    return json.loads((folder / "localizer.json").read_text())["sha256"]


def test_what_was_trained_is_said_and_kept(root, capsys):
    status, out = call(root)
    said = capsys.readouterr()
    assert status == 0
    assert "trained cam on 12 images of 2 classes, folder train-weaksup" in said.out
    assert (
        "unlike the published ones: pretrained False (published: True), output_stride 8 (published: None)" in said.out
    )
    assert "epochs 1 (published: 10)" in said.out and "input_size 32 (published: None)" in said.out
    assert "tau 0.200, the published one" in said.out and "no boxed images" in said.err
    assert sorted(path.name for path in out.iterdir())[::2] == ["localizer.json", f"weights-{weights(out)[:16]}.pt"]
    report = json.loads((out / "training.json").read_text())
    assert report["method"] == "cam" and report["train"]["images"] == 12 and len(report["history"]) == 1
    fitted = localizers.load(out)
    assert fitted.class_names == ("cat", "dog") and fitted.tau == 0.2


def test_boxed_images_choose_tau(root, capsys):
    annotate(root)
    _, out = call(root)
    assert f"tau {localizers.load(out).tau:.3f}, chosen on 1 boxed images" in capsys.readouterr().out
    assert localizers.load(out).tau != 0.2
    call(root, "--set", "tau=0.4", out="other")
    assert "tau 0.400, as it was given" in capsys.readouterr().out


def test_published_settings_are_not_named(root, capsys):
    call(root, method="centre")
    assert "unlike the published ones" in capsys.readouterr().out
    arguments = ["--method", "centre", "--dataset", "folder", "--data-root", str(root)]
    main(["train", *arguments, "--out", str(root.parent / "other"), "--seed", "3", "--set", "num_workers=0"])
    assert "all settings are the published ones" in capsys.readouterr().out


def test_options_of_the_data_set_and_of_one_split(tmp_path, capsys):
    options = ["image_size=32", "train-weaksup.n_images=24", "train-fullsup.n_images=12"]
    out = ["--out", str(tmp_path / "out")]
    assert main(["train", "--method", "centre", "--dataset", "synthbirds", *out, "--option", *options]) == 0
    said = capsys.readouterr().out
    assert "trained centre on 24 images" in said and "chosen on 12 boxed images" in said


def test_a_finished_training_is_not_repeated(root, capsys):
    _, out = call(root)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert call(root, "--set", "num_workers=2")[0] == 0  # which makes no difference
    assert "is finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_another_training_does_not_replace_a_finished_one_unless_it_is_forced(root, capsys):
    _, out = call(root)
    before = weights(out)
    assert call(root, "--seed", "1")[0] == 2
    assert "found one with other seed (0 instead of 1): correct them, name another --out" in capsys.readouterr().err
    standins.photographs(root, ["dog/more.png"])
    assert call(root)[0] == 2
    assert "found one with other train" in capsys.readouterr().err
    assert weights(out) == before
    assert call(root, "--seed", "1", "--force")[0] == 0
    assert weights(out) != before and len(list(out.glob("weights-*"))) == 1


def test_an_interrupted_training_goes_on(root, monkeypatch, capsys):
    _, alone = call(root, "--epochs", "2", out="alone")
    trained = []

    def stopped(self, *arguments, **settings):
        trained.append(1)
        self.after_epoch = lambda epoch: (_ for _ in ()).throw(KeyboardInterrupt) if epoch == 2 else None
        return learn(self, *arguments, **settings)

    learn = Localizer.learn
    with monkeypatch.context() as patch:
        patch.setattr(Localizer, "learn", stopped)
        status, out = call(root, "--epochs", "2")
    assert status == 130 and trained and [path.name for path in out.iterdir()] == ["checkpoint"]
    assert "interrupted" in capsys.readouterr().err
    assert call(root, "--epochs", "2", "--seed", "1")[0] == 2
    assert "found one with other seed (0 instead of 1)" in capsys.readouterr().err
    assert call(root, "--epochs", "2", "--set", "num_workers=0")[0] == 0
    resumed, undisturbed = (localizers.load(folder).network.state_dict() for folder in (out, alone))
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
    assert not (out / "checkpoint").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_a_training_killed_in_its_last_steps_is_finished_by_the_next_call(root, monkeypatch, step):
    """Before and after the checkpoints are set aside to be removed."""
    steps = []

    def killed(*_, **__):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.shutil, "rmtree", killed)
        status, out = call(root)
    assert status == 130 and (out / "localizer.json").exists()
    assert len([path for path in out.iterdir() if path.is_dir()]) == 1
    assert call(root)[0] == 0
    assert not [path for path in out.iterdir() if path.is_dir()]


def say_to(path, arguments):
    with open(path, "w") as said, redirect_stdout(said), redirect_stderr(said):
        sys.exit(main(arguments))


def test_of_two_calls_at_once_the_second_waits_for_what_the_first_has_trained(root, tmp_path):
    """The folder is held here until both have come to it: none can have ended before the other begins."""
    out = tmp_path / "out"
    given = ["--method", "cam", "--dataset", "folder", "--data-root", str(root), "--out", str(out)]
    settings = ["--backbone", "tiny", "--batch-size", "4", "--epochs", "2", "--set", "pretrained=false"]
    said = [tmp_path / f"{number}.txt" for number in range(2)]
    waits = f"another training is at work in {out}: this one waits until it has ended\n"
    with one_at_a_time(out):
        both = [killed.start(say_to, path, ["train", *given, *settings]) for path in said]
        killed.until(lambda: all(path.exists() and path.read_text() == waits for path in said))
    assert [killed.ended(process) for process in both] == [0, 0], [path.read_text() for path in said]
    first, second = sorted((path.read_text() for path in said), key=lambda text: "is finished" in text)
    assert "kept in" in first and "is finished" not in first
    assert "is finished: trained" in second and "kept in" not in second
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".json", ".pt"]


def test_a_folder_with_other_things_is_left_alone(root, capsys):
    (root.parent / "out").mkdir()
    (root.parent / "out" / "thesis.tex").write_text("mine")
    assert call(root)[0] == 2
    assert "with other things in it" in capsys.readouterr().err
    assert [path.name for path in (root.parent / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("method", "more", "rule"),
    [
        ("camm", [], "expected a localizer out of centre, cam"),
        ("no.such:Thing", [], "expected a localizer at no.such:Thing, found none"),
        ("cam", ["--set", "dropout=1"], "expected settings of cam .* found dropout"),
        ("cam", ["--set", "tau"], "expected NAME=VALUE, found 'tau'"),
        ("cam", ["--set", "epochs=3"], "expected each setting once, found epochs twice"),
        ("cam", ["--option", "boxes=none.json"], r"expected boxes in none\.json"),
        (
            "few-shot",
            [],
            r"expected boxed images for few-shot, which learns from them, found none: expected images with boxes",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_leaves_nothing(root, capsys, method, more, rule):
    status, out = call(root, *more, method=method)
    error = capsys.readouterr().err.strip()
    assert status == 2 and error.startswith("error: ") and "\n" not in error
    assert re.search(rule, error)
    assert not out.exists()


def test_one_class_and_no_images(tmp_path, capsys):
    root = standins.photographs(tmp_path / "one", ["cat/0.png", "cat/1.png"])
    assert call(root)[0] == 2
    assert "expected at least 2 classes for cam, found 1" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert call(tmp_path / "none")[0] == 2
    assert "expected images as" in capsys.readouterr().err
