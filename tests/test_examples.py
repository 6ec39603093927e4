"""The examples run as they are printed, and are as short as it is said."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import standins
from pycocotools.coco import COCO

from wsol_lib import localizers
from wsol_lib.__main__ import main

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(4)]
TINY = ["epochs=1", "input_size=32", "batch_size=4", "learning_rate=0.0001"]


@pytest.fixture
def photographs(tmp_path):
    """Two classes, one photograph of each with its box."""
    folder = standins.photographs(tmp_path / "photographs", NAMES)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    images = [{"id": 1, "file_name": "cat/0.png"}, {"id": 2, "file_name": "dog/0.png"}]
    rows = [{"id": i, "image_id": i, "category_id": i, "bbox": [0, 9, 24, 18]} for i in (1, 2)]
    coco = {"images": images, "categories": categories, "annotations": rows}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


def test_they_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert lengths["any_localizer.py"] <= 15 and lengths["my_localizer.py"] <= 40


@pytest.mark.parametrize("name", localizers.NAMES)
def test_the_same_lines_serve_all_thirteen(name, photographs, monkeypatch):
    out = photographs.parent / "boxes.json"
    monkeypatch.setattr(sys, "argv", ["any_localizer.py", name, str(photographs), str(out), *TINY])
    runpy.run_path(str(EXAMPLES / "any_localizer.py"))
    coco = COCO(str(out))
    assert len(coco.imgs) == 8 and {c["name"] for c in coco.dataset["categories"]} == {"cat", "dog"}
    assert coco.anns
    for row in coco.anns.values():
        x, y, width, height = row["bbox"]
        assert 0 <= x < x + width <= 48 and 0 <= y < y + height <= 36 and 0 <= row["score"] <= 1


def test_a_localizer_of_your_own_goes_through_train_predict_and_evaluate(photographs, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    settings = ["--epochs", "1", "--input-size", "32", "--batch-size", "4", "--set", "pretrained=false", "prior=0.9"]
    data = ["--dataset", "folder", "--data-root", str(photographs)]
    model, boxes = photographs.parent / "model", photographs.parent / "boxes.json"
    method = ["--method", "my_localizer:MyLocalizer"]
    assert main(["train", *method, *data, "--out", str(model), *settings]) == 0
    assert "prior 0.9 (published: 0.3)" in capsys.readouterr().out
    assert main(["predict", "--images", str(photographs), "--out", str(boxes), "--model", str(model)]) == 0
    assert json.loads(boxes.read_text())["info"]["method"] == "my_localizer:MyLocalizer"
    assert main(["evaluate", "--boxes", str(boxes), *data, "--split", "train-fullsup"]) == 0
    assert "GT-known Loc" in capsys.readouterr().out
    spot = photographs.parent / "spot.json"
    assert main(["predict", "--images", str(photographs), "--out", str(spot), *method, *settings]) == 0
    assert len(json.loads(spot.read_text())["annotations"]) == 8


def test_its_prior_moves_boxes_to_the_middle(photographs, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from wsol_lib.data import load_dataset

    data = load_dataset("folder", "test", photographs)
    options = {"epochs": 0, "input_size": 96, "pretrained": False}
    own, centre = (
        localizers.fit("my_localizer:MyLocalizer", data, prior=prior, **options).boxes(data.images([0]))[0]
        for prior in (0.0, 1.0)
    )
    x1, y1, x2, y2 = centre[0].tolist()
    assert (x1 + x2, y1 + y2) == (48, 36) and own.tolist() != centre.tolist()
