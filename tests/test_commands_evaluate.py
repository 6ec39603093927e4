"""The command that scores a file of boxes."""

import json
import re

import pytest
import standins

from wsol_lib.__main__ import main
from wsol_lib.data import coco
from wsol_lib.evaluate import match

NAMES = ["cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"]  # of 48 x 36 pixels
TRUTH = (0, 0, 10, 10)


@pytest.fixture
def root(tmp_path):
    """Four photographs with one true box each, of 10 x 10 pixels."""
    folder = standins.photographs(tmp_path / "photographs", NAMES)
    write(folder / "annotations.json", [(name, TRUTH, None) for name in NAMES])
    return folder


def write(path, rows, size=(48, 36), names=None):
    """A COCO file of (name, box, score)."""
    names = list(dict.fromkeys(name for name, _, _ in rows)) if names is None else names
    images = [{"id": i, "file_name": name, "width": size[0], "height": size[1]} for i, name in enumerate(names)]
    annotations = [coco.annotation(n, names.index(name), 1, box, score) for n, (name, box, score) in enumerate(rows)]
    for row in annotations:
        del row["category_id"]
    coco.write(path, {}, images=images, annotations=annotations)
    return path


def call(root, path, *more):
    return main(["evaluate", "--boxes", str(path), "--dataset", "folder", "--data-root", str(root), *more])


def rows_of(text):
    return [re.split("  +", line) for line in text.splitlines()]


def test_each_iou_has_a_row_with_its_interval(root, capsys):
    """IoU 1, 0.6, 0.4 and 0.1."""
    boxes = [(0, 0, 10, 10), (0, 0, 10, 6), (0, 0, 10, 4), (0, 0, 10, 1)]
    path = write(root.parent / "boxes.json", [(name, box, 0.5) for name, box in zip(NAMES, boxes)])
    assert call(root, path) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows[0] == ["metric", "IoU", "value", "95 % interval", "images"]
    assert [row[:3] for row in rows[1:]] == [
        ["GT-known Loc", "0.3", "75.00 %"],
        ["GT-known Loc", "0.5", "50.00 %"],
        ["GT-known Loc", "0.7", "25.00 %"],
    ]
    assert rows[2][3] == "15.00 ... 85.00 %" and rows[2][4] == "4"


def test_the_box_of_the_highest_score_counts_and_none_is_wrong(root, capsys):
    rows = [(NAMES[0], (20, 20, 30, 30), 0.4), (NAMES[0], TRUTH, 0.9), (NAMES[1], TRUTH, 0.1), (NAMES[2], TRUTH, 0.1)]
    assert call(root, write(root.parent / "boxes.json", rows, names=NAMES)) == 0
    said = capsys.readouterr().out
    assert "75.00 %" in said
    assert "1 images without a box count as wrong" in said
    assert "1 images with several boxes: the one of the highest score counts" in said


def test_what_predict_writes_is_scored(root, capsys):
    out = root.parent / "boxes.json"
    main(["predict", "--images", str(root), "--out", str(out), "--method", "centre", "--set", "tau=0.9"])
    assert call(root, out, "--split", "train-fullsup") == 0
    assert "0.00 %" in capsys.readouterr().out
    assert call(root, out, "--option", "flat=true") == 0


def test_names_may_have_other_folders_in_front():
    assert match(["val/a.jpg", "val/b.jpg"], ["b.jpg", "a.jpg"]) == ["a.jpg", "b.jpg"]
    assert match(["a/x.jpg", "b/x.jpg"], ["images/a/x.jpg", "images/b/x.jpg"]) == ["images/a/x.jpg", "images/b/x.jpg"]
    assert match(["a/x.jpg", "b/x.jpg"], ["b/x.jpg", "a/x.jpg"]) == ["a/x.jpg", "b/x.jpg"]
    assert match(["a/x.jpg", "b/x.jpg"], ["x.jpg"]) == [None, None]  # whose would it be?
    assert match(["x.jpg"], ["b/x.jpg", "c/x.jpg"]) == match(["a/x.jpg"], ["b/x.jpg", "c/x.jpg"]) == [None]
    assert match(["a/x.jpg", "a/y.jpg"], ["a/x.jpg", "b/z.jpg"]) == ["a/x.jpg", None]


def test_what_does_not_fit_is_said_in_one_sentence(root, tmp_path, capsys):
    write(tmp_path / "few.json", [(NAMES[0], TRUTH, 0.5)])
    write(tmp_path / "small.json", [(name, TRUTH, 0.5) for name in NAMES], size=(24, 18))
    good = write(tmp_path / "good.json", [(name, TRUTH, 0.5) for name in NAMES])
    (tmp_path / "damaged.json").write_text("{")
    partly = json.loads((root / "annotations.json").read_text())
    del partly["annotations"][3]
    (tmp_path / "partly.json").write_text(json.dumps(partly))
    for path, more, rule in [
        (tmp_path / "none.json", [], "expected boxes in .*none.json, found no such file"),
        (
            tmp_path / "few.json",
            [],
            r"each of 4 images of folder test in .*few\.json, found 3 missing, first cat/1\.png",
        ),
        (tmp_path / "small.json", [], r"expected cat/0\.png of 48 x 36 pixels in .*small\.json, found 24 x 18"),
        (tmp_path / "damaged.json", [], "expected COCO JSON"),
        (
            good,
            ["--option", f"boxes={tmp_path / 'partly.json'}"],
            r"true boxes for every image .*, found none for dog/3",
        ),
        (good, ["--split", "dev"], "expected a split out of"),
    ]:
        assert call(root, path, *more) == 2
        error = capsys.readouterr().err.strip()
        assert re.search(rule, error), error
        assert "\n" not in error


def test_maps_or_boxes_not_both(root, capsys):
    with pytest.raises(SystemExit):
        call(root, "boxes.json", "--scoremaps", "maps")
    assert "not allowed with" in capsys.readouterr().err
