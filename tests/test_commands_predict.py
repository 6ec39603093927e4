"""The command that draws boxes for a folder of photographs: the file, the sheet, what is damaged, killed or wrong."""

import fcntl
import json
import random
import re
import time

import killed
import numpy as np
import pytest
import standins
import tiny
import torch
from PIL import Image
from pycocotools.coco import COCO
from skimage import data as photographs

from wsol_lib import localizers
from wsol_lib.__main__ import main
from wsol_lib.boxes import scale_boxes
from wsol_lib.commands import plan, reading
from wsol_lib.commands.journal import Journal
from wsol_lib.commands.sheet import Entry
from wsol_lib.commands.sheet import write as write_sheet
from wsol_lib.data.images import read_square

TINY = ["--backbone", "tiny", "--input-size", "32"]
TRAINED = [*TINY, "--epochs", "1", "--batch-size", "8", "--set", "pretrained=false"]
NAMES = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(4)]


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


def call(images, *more, out="boxes.json"):
    out = images.parent / out
    return main(["predict", "--images", str(images), "--out", str(out), *more]), out


@pytest.fixture
def flat(tmp_path):
    """Four photographs without classes, one to be turned a quarter, one in a format without loss."""
    folder = tmp_path / "flat"
    (folder / "deeper").mkdir(parents=True)
    Image.fromarray(photographs.chelsea()).save(folder / "cat.jpg", quality=95)
    Image.fromarray(photographs.chelsea()[:, ::-1]).save(folder / "turned.jpg", exif=standins.sideways())
    Image.fromarray(photographs.coffee()).save(folder / "coffee.png")
    Image.fromarray(photographs.camera()).save(folder / "deeper" / "grey.png")
    return folder


@pytest.fixture
def by_class(tmp_path):
    return standins.photographs(tmp_path / "by-class", NAMES)


# -- the boxes -----------------------------------------------------------------------------------------------------------


def test_the_field_s_own_reader_reads_boxes_of_imagenet_s_classes(flat, capsys):
    status, out = call(flat, "--flat", "--input-size", "96")
    assert status == 0 and "4 photographs, 4 boxes in" in capsys.readouterr().out
    coco = COCO(str(out))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        "cat.jpg", "coffee.png", "deeper/grey.png", "turned.jpg"
    ]  # fmt: skip
    fitted = localizers.pretrained("cam", input_size=96)
    for image in coco.loadImgs(coco.getImgIds()):
        (row,) = coco.imgToAnns[image["id"]]
        square, size = read_square(flat / image["file_name"], 96)
        found = fitted.predict(torch.from_numpy(square).permute(2, 0, 1)[None])
        (box,) = scale_boxes(found.boxes, (96, 96), size).tolist()
        assert (image["width"], image["height"]) == size
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box, abs=0.011)
        assert row["score"] == pytest.approx(float(found.scores), abs=1e-5) and row["iscrowd"] == 0
        (category,) = coco.loadCats(row["category_id"])
        assert category["name"] == fitted.class_names[int(found.logits.argmax())]
        assert row["category_id"] == 1 + int(found.logits.argmax()) and row["area"] == pytest.approx(
            width * height, 1e-3
        )


def test_a_turned_photograph_has_the_size_and_the_box_that_one_sees(flat):
    coco = COCO(str(call(flat, "--flat", "--input-size", "96")[1]))
    turned = coco.loadImgs(4)[0]
    assert (turned["width"], turned["height"]) == photographs.chelsea().shape[:2]
    upright = Image.fromarray(photographs.chelsea()[:, ::-1]).rotate(-90, expand=True)
    other = flat.parent / "other"
    other.mkdir()
    upright.save(other / "upright.jpg", quality=95)
    same = COCO(str(call(other, "--input-size", "96", out="other.json")[1]))
    assert coco.imgToAnns[4][0]["bbox"] == pytest.approx(same.imgToAnns[1][0]["bbox"], abs=15)


def test_info_says_how_it_was_made(flat):
    info = json.loads(call(flat, "--flat", "--input-size", "96", "--set", "tau=0.4")[1].read_text())["info"]
    assert info["method"] == "cam" and info["tau"] == 0.4 and info["settings"]["input_size"] == 96
    assert re.fullmatch(r"wsol_lib \d+\.\d+\.\d+", info["version"]) and info["damaged"] == []


def test_a_method_without_classes_finds_objects(flat):
    content = json.loads(call(flat, "--method", "centre", "--flat", "--set", "tau=0.5")[1].read_text())
    assert content["categories"] == [{"id": 1, "name": "object"}]
    width, height = photographs.coffee().shape[1::-1]
    x, y, w, h = content["annotations"][1]["bbox"]
    assert (x + w / 2, y + h / 2) == pytest.approx((width / 2, height / 2), abs=0.01) and w < width


def test_where_nothing_was_found_there_is_no_box(flat, monkeypatch):
    predict = localizers.Localizer.predict

    def without_the_second(self, images, labels=None):
        found = predict(self, images, labels)
        found.boxes[1] = 0
        return found

    monkeypatch.setattr(localizers.Localizer, "predict", without_the_second)
    _, out = call(flat, "--method", "centre", "--flat")
    content = json.loads(out.read_text())
    assert len(content["images"]) == 4 and [a["image_id"] for a in content["annotations"]] == [1, 3, 4]
    assert "<figcaption>coffee.png<br>no box" in out.with_suffix(".html").read_text()


def test_ddt_looks_for_what_a_flat_folder_has_in_common(flat):
    content = json.loads(call(flat, "--method", "ddt", "--flat", "--input-size", "64")[1].read_text())
    assert len(content["annotations"]) == 4 and content["info"]["method"] == "ddt"


def test_a_method_is_trained_on_class_folders_and_boxes_are_those_of_the_folder_s_class(by_class):
    status, out = call(by_class, "--method", "cam", *TRAINED)
    content = json.loads(out.read_text())
    assert status == 0 and [c["name"] for c in content["categories"]] == ["cat", "dog"]
    assert [a["category_id"] for a in content["annotations"]] == [1] * 4 + [2] * 4
    assert sorted(path.name for path in by_class.parent.iterdir()) == ["boxes.html", "boxes.json", "by-class"]


def test_predicted_classes_can_be_asked_for(by_class):
    folder = json.loads(call(by_class, *TRAINED)[1].read_text())["annotations"]
    predicted = json.loads(call(by_class, *TRAINED, "--classes", "predicted", out="p.json")[1].read_text())[
        "annotations"
    ]
    assert all(a["score"] >= 0.5 for a in predicted)  # of two classes
    assert [a["score"] for a in folder] != [a["score"] for a in predicted]


def test_boxed_photographs_choose_tau(by_class):
    row = {"id": 1, "image_id": 1, "bbox": [0, 9, 24, 18]}
    coco = {"images": [{"id": 1, "file_name": "cat/0.png"}], "annotations": [row]}
    (by_class / "annotations.json").write_text(json.dumps(coco))
    assert json.loads(call(by_class, "--method", "centre")[1].read_text())["info"]["tau"] != 0.2


def test_a_saved_localizer_looks_at_photographs_of_any_kind(by_class, flat):
    where = ["--dataset", "folder", "--data-root", str(by_class), "--out", str(by_class.parent / "model")]
    main(["train", "--method", "cam", *where, *TRAINED])
    model = ["--model", str(by_class.parent / "model")]
    content = json.loads(call(flat, *model)[1].read_text())
    assert {c["name"] for c in content["categories"]} <= {"cat", "dog"} and len(content["annotations"]) == 4
    assert content["info"]["settings"]["input_size"] == 32
    named = json.loads(call(by_class, *model, "--classes", "folder", "--input-size", "64", out="n.json")[1].read_text())
    assert [a["category_id"] for a in named["annotations"]] == [1] * 4 + [2] * 4
    assert named["info"]["settings"]["input_size"] == 64


# -- damaged, killed, repeated -------------------------------------------------------------------------------------------


def test_a_saved_localizer_can_compute_in_another_precision(by_class, tmp_path, capsys):
    localizers.pretrained("cam", input_size=64).save(tmp_path / "model")
    model = ["--model", str(tmp_path / "model")]
    plain, coarse = (
        json.loads(call(by_class, *model, *more, out=f"{len(more)}.json")[1].read_text())
        for more in ([], ["--precision", "bfloat16"])
    )
    assert [content["info"]["settings"]["precision"] for content in (plain, coarse)] == ["float32", "bfloat16"]
    scores = [torch.tensor([row["score"] for row in content["annotations"]]) for content in (plain, coarse)]
    assert not torch.equal(*scores)
    torch.testing.assert_close(*scores, rtol=0.2, atol=0.05)
    assert call(by_class, *model, "--precision", "float8", out="no.json")[0] == 2
    assert "expected a precision out of float32, bfloat16, found 'float8'" in capsys.readouterr().err


def test_a_damaged_photograph_is_named_and_left_out(by_class, capsys):
    (by_class / "cat/0.png").write_bytes((by_class / "cat/0.png").read_bytes()[:100])
    (by_class / "dog/9.jpg").write_text("a letter")
    status, out = call(by_class, *TRAINED)
    said = capsys.readouterr()
    assert status == 0 and "2 damaged ones left out" in said.out
    assert re.findall(r"left out: expected an image in \S*(cat/0\.png|dog/9\.jpg)", said.err) == [
        "cat/0.png",
        "dog/9.jpg",
    ]
    content = json.loads(out.read_text())
    assert [row["file_name"] for row in content["images"]] == [name for name in NAMES if name != "cat/0.png"]
    assert [row["file_name"] for row in content["info"]["damaged"]] == ["cat/0.png", "dog/9.jpg"]
    assert str(by_class) not in out.read_text()
    assert [a["category_id"] for a in content["annotations"]] == [1] * 3 + [2] * 4
    assert call(by_class, *TRAINED)[0] == 0 and "is finished: 9 photographs" in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--method", "centre"], TRAINED, ["--flat"]])
def test_nothing_but_damaged_photographs(tmp_path, more, capsys):
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "damaged" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "damaged" / name).write_bytes(b"no image")
    status, _ = call(tmp_path / "damaged", *more)
    assert status == 2 and "found all 2 damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


SLOW = """
import os, time
from wsol_lib.baselines import Centre

class Slow(Centre):
    batches = 0

    def look(self, images, classes):
        self.batches += 1
        if self.batches == 3 and "WAIT_FOR_THE_KILL" in os.environ:
            time.sleep(600)
        return super().look(images, classes)
"""


def test_killed_in_the_middle_and_repeated_it_writes_what_an_undisturbed_call_writes(tmp_path, monkeypatch):
    folder = standins.photographs(tmp_path / "many", [f"{n:03}.png" for n in range(4 * reading.BATCH)], size=(9, 7))
    (folder / "070.png").write_bytes(b"damaged")
    (tmp_path / "slow_localizer.py").write_text(SLOW)
    method = ["--method", "slow_localizer:Slow", "--input-size", "16"]
    journal = tmp_path / "boxes.journal"
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["predict", "--images", str(folder), "--out", str(tmp_path / "boxes.json"), *method]
    running = killed.start(main, arguments, WAIT_FOR_THE_KILL="yes")
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + 2 * reading.BATCH:
        assert running.is_alive()
        time.sleep(0.02)
    running.kill()
    assert killed.ended(running) == killed.KILLED
    done = journal.read_bytes().count(b"\n") - 1
    assert done == 2 * reading.BATCH and not (tmp_path / "boxes.json").exists()
    with journal.open("ab") as file:
        file.write(b'{"file": "cut short')
    assert call(folder, *method)[0] == 0
    assert call(folder, *method, out="alone.json")[0] == 0
    assert (tmp_path / "boxes.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert not journal.exists() and not list(tmp_path.glob(".boxes*"))


def test_what_is_done_is_not_done_again(by_class, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 4)
    seen = []
    predict = localizers.Localizer.predict

    def counted(self, images, labels=None):
        seen.append(len(images))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return predict(self, images, labels)

    monkeypatch.setattr(localizers.Localizer, "predict", counted)
    fits = []
    monkeypatch.setattr(plan, "fit", lambda *args, **more: fits.append(1) or localizers.fit(*args, **more))
    assert call(by_class, *TRAINED)[0] == 130
    assert call(by_class, *TRAINED)[0] == 0
    assert seen == [4, 4, 4] and fits == [1]


def interrupted(folder, monkeypatch, *more):
    """A call that was stopped when all was predicted and nothing was written."""
    with monkeypatch.context() as patch:
        patch.setattr("wsol_lib.commands.predict.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(folder, *more)[0] == 130


def test_other_settings_are_not_mixed_in(by_class, monkeypatch, capsys):
    interrupted(by_class, monkeypatch, "--method", "centre")
    before = (by_class.parent / "boxes.journal").read_bytes()
    status, out = call(by_class, "--method", "centre", "--set", "tau=0.5")
    assert status == 2 and not out.exists()
    assert "of other tau (None instead of 0.5): repeat the call as it was" in capsys.readouterr().err
    assert (by_class.parent / "boxes.journal").read_bytes() == before
    assert call(by_class, "--method", "centre", "--set", "tau=0.5", "--force")[0] == 0
    assert json.loads(out.read_text())["info"]["tau"] == 0.5


def test_a_photograph_that_was_mended_meanwhile_is_looked_at_again(by_class, monkeypatch):
    content = (by_class / "dog/3.png").read_bytes()
    (by_class / "dog/3.png").write_bytes(b"damaged")
    interrupted(by_class, monkeypatch, "--method", "centre", "--flat")
    (by_class / "dog/3.png").write_bytes(content)
    content = json.loads(call(by_class, "--method", "centre", "--flat")[1].read_text())
    assert len(content["images"]) == 8 and content["info"]["damaged"] == []


def test_a_finished_file_is_left_alone(by_class, capsys):
    _, out = call(by_class, "--method", "centre")
    before = out.stat().st_mtime_ns
    assert call(by_class, "--method", "centre")[0] == 0
    assert "is finished: 8 photographs" in capsys.readouterr().out
    assert call(by_class, "--method", "centre", "--set", "tau=0.5")[0] == 2
    assert "found it made with other settings: name another --out" in capsys.readouterr().err
    standins.photographs(by_class, ["cat/more.png"])
    assert call(by_class, "--method", "centre", "--flat")[0] == 2
    assert "other settings" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before
    assert call(by_class, "--method", "centre", "--force")[0] == 0
    assert len(json.loads(out.read_text())["images"]) == 9


def test_photographs_that_came_later_are_not_passed_over(flat, capsys):
    call(flat, "--flat", "--input-size", "64")
    (flat / "coffee.png").rename(flat / "tea.png")
    assert call(flat, "--flat", "--input-size", "64")[0] == 2
    assert "made with 2 other photographs" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["boxes.json", "boxes.html", "boxes.journal"])
def test_files_of_somebody_else_are_not_written_over(by_class, name, capsys):
    (by_class.parent / name).write_text("mine\n")
    assert call(by_class, "--method", "centre")[0] == 2
    assert name in capsys.readouterr().err
    assert (by_class.parent / name).read_text() == "mine\n"
    assert len(list(by_class.parent.iterdir())) == 2


def test_a_journal_has_one_writer(tmp_path):
    arguments = tmp_path / "a.journal", {"method": "cam"}, ["a"], tmp_path
    with Journal(*arguments), pytest.raises(ValueError, match=r"alone, found another process at it"):
        Journal(*arguments)


def test_no_flipped_byte_of_a_journal_is_believed(tmp_path):
    path, names, draw = tmp_path / "a.journal", [f"{n}.png" for n in range(4)], random.Random(0)
    lines = [{"box": [n, 1, 12, 20.5], "score": n / 4} for n in range(4)]
    with Journal(path, {"method": "cam", "tau": 0.25}, names, tmp_path) as journal:
        journal.add(0, lines)
    content = path.read_bytes()
    for place in draw.sample(range(len(content)), 60):
        flipped = bytearray(content)
        flipped[place] ^= draw.randint(1, 255)
        path.write_bytes(flipped)
        try:
            with Journal(path, {"method": "cam", "tau": 0.25}, names, tmp_path) as journal:
                assert not all(journal.has(n, n + 1) for n in range(4))
                assert all(line | lines[i] == line for i, line in journal.lines())
        except ValueError as error:  # of its first line
            assert str(error).startswith("expected") and path.read_bytes() == flipped


def test_a_journal_that_its_writer_has_just_removed_is_not_written_to(tmp_path, monkeypatch):
    path = tmp_path / "a.journal"
    flock = fcntl.flock

    def too_late(*arguments):
        path.unlink()  # by the one who had it
        flock(*arguments)

    monkeypatch.setattr("wsol_lib.commands.journal.fcntl.flock", too_late)
    with pytest.raises(ValueError, match=r"alone, found another process at it"):
        Journal(path, {"method": "cam"}, ["a"], tmp_path)


# -- what is wrong -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_said_in_one_sentence(by_class, flat, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    one = standins.photographs(tmp_path / "one", ["cat/1.png", "cat/2.png"])
    split = standins.photographs(tmp_path / "split", ["test/cat/1.png", "test/dog/1.png"])
    for folder, more, rule in [
        (tmp_path / "nowhere", [], "expected a folder of photographs at .*nowhere, found none"),
        (tmp_path / "empty", [], r"expected photographs in .*empty with a suffix out of \.jpg.*, found none"),
        (one, [], "two classes or more.* for cam learns.*found the one class cat: sort them, or take ddt, or cam with --flat"),
        (one, ["--method", "adl", "--flat"], "for adl learns to tell them apart, found 2 without classes"),
        (flat, [], r"found both \(cat\.jpg and deeper/grey\.png\): move them, or take all as one lot by --flat"),
        (split, [], "expected a folder for each class in .*split, found the splits test"),
        (by_class, ["--method", "few-shot"], r"expected boxes of some photographs in .*annotations\.json for few-shot"),
        (by_class, ["--method", "camm"], "expected a localizer out of centre, cam"),
        (by_class, ["--set", "dropout=1"], "expected settings of cam .* found dropout"),
        (flat, ["--flat", "--backbone", "vgg_gap"], "expected a backbone that comes with a classifier, found vgg_gap"),
        (flat, ["--flat", "--classes", "folder"], r"localizer's 1000 classes \(tench, goldfish, .*found photographs in no"),
        (by_class, ["--flat", "--classes", "folder"], "found cat and 1 others that are none"),
        (by_class, ["--model", str(tmp_path / "empty")], "expected a saved localizer"),
        (by_class, ["--model", str(tmp_path / "empty"), "--epochs", "3"], "or --precision alone beside --model"),
    ]:  # fmt: skip
        status, _ = call(folder, *more)
        error = capsys.readouterr().err.strip()
        assert status == 2 and error.startswith("error: ") and "\n" not in error
        assert re.search(rule, error), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by-class", "empty", "flat", "one", "split"]
    assert call(by_class, out="boxes.txt")[0] == 2


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda folder, facts: facts.update(format=99), "found format 99"),
        (lambda folder, facts: facts.pop("settings"), "found them damaged"),
        (lambda folder, facts: (folder / facts["weights"]).write_bytes(b""), "found them gone or damaged"),
    ],
    ids=["another version", "facts", "weights"],
)
def test_a_model_folder_that_is_no_good(by_class, tmp_path, capsys, change, rule):
    model = tmp_path / "model"
    localizers.pretrained("cam").save(model)
    facts = json.loads((model / "localizer.json").read_text())
    change(model, facts)
    (model / "localizer.json").write_text(json.dumps(facts))
    assert call(by_class, "--model", str(model))[0] == 2
    assert rule in capsys.readouterr().err
    assert not (tmp_path / "boxes.json").exists()


@pytest.mark.parametrize("name", [name for name in localizers.NAMES if name != "cam"])
def test_what_has_to_learn_is_not_taken_untrained(name):
    with pytest.raises(ValueError, match=f"expected a method that needs no training, as cam, found {name}: fit it"):
        localizers.pretrained(name)


def test_photographs_of_other_classes_than_the_model_s(by_class, tmp_path, capsys):
    localizers.pretrained("cam").save(tmp_path / "model")
    assert call(by_class, "--model", str(tmp_path / "model"), "--classes", "folder")[0] == 2
    assert "names of the localizer's 1000 classes" in capsys.readouterr().err
    assert not (tmp_path / "boxes.journal").exists()


# -- the sheet -----------------------------------------------------------------------------------------------------------


def test_the_sheet_shows_the_lowest_scores_first_and_says_what_it_leaves_out(by_class):
    _, out = call(by_class, *TRAINED, "--sheet", "5")
    page, content = out.with_suffix(".html").read_text(), json.loads(out.read_text())
    names = {row["id"]: row["file_name"] for row in content["images"]}
    lowest = sorted((row["score"], row["image_id"]) for row in content["annotations"])[:5]
    assert re.findall(r"<figcaption>([^<]+)<br>", page) == [names[image] for _, image in lowest]
    assert "5 of 8 photographs, lowest scores first" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # it needs no other file
    x, y, width, height = next(a for a in content["annotations"] if a["image_id"] == lowest[0][1])["bbox"]
    assert f"left: {x / 48:.2%}; top: {y / 36:.2%}; width: {width / 48:.2%}; height: {height / 36:.2%}" in page


def test_the_sheet_can_be_left_out(by_class):
    call(by_class, "--method", "centre", "--sheet", "0")
    assert not (by_class.parent / "boxes.html").exists()


def test_names_cannot_write_html(tmp_path):
    name = '<img src=x onerror="alert(1)">.png'
    folder = standins.photographs(tmp_path / "photographs", ["plain.png"])
    line = {"size": [4, 4], "box": None, "score": 0.5}
    write_sheet(tmp_path / "a.html", name, [Entry(name, line, name)], 1, [{"file_name": name, "reason": name}], folder)
    page = (tmp_path / "a.html").read_text()
    assert "<img src=x" not in page and page.count("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;.png") == 7


def test_thumbnails_are_small(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(np.zeros((900, 1200, 3), np.uint8)).save(folder / "a.jpg")
    entry = Entry("a.jpg", {"size": [1200, 900], "box": [0, 0, 600, 450], "score": 0.5}, "cat")
    write_sheet(tmp_path / "a.html", "title", [entry], 1, [], folder)
    assert (tmp_path / "a.html").stat().st_size < 5000
    assert "left: 0.00%; top: 0.00%; width: 50.00%; height: 50.00%" in (tmp_path / "a.html").read_text()
