"""COCO JSON of boxes: written row by row, read back as the best box of each image."""

import json

import pytest

from wsol_lib.data import coco

IMAGES = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (1, 2, 3)]
ROWS = [
    coco.annotation(1, 1, 1, (1, 2, 11, 22), 0.25),
    coco.annotation(2, 3, 1, (0, 0, 40, 30), 0.5),
    coco.annotation(3, 1, 2, (5, 5, 7, 7), 0.75),
    coco.annotation(4, 1, 2, (0, 0, 1, 1), 0.75),
]


def test_rows_may_come_from_generators(tmp_path):
    coco.write(tmp_path / "boxes.json", {"description": "ours"}, images=iter(IMAGES), annotations=iter(()))
    assert json.loads((tmp_path / "boxes.json").read_text()) == {
        "info": {"description": "ours"},
        "images": IMAGES,
        "annotations": [],
    }


def test_a_box_is_printed_as_x_y_width_height():
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0, "score": 0.25}
    assert ROWS[0] == row
    assert "score" not in coco.annotation(1, 1, 1, (1, 2, 11, 22))


@pytest.mark.parametrize("rows", [[{"score": float("nan")}], [{"path": object()}]])
def test_what_json_cannot_say_leaves_the_file_as_it_was(tmp_path, rows):
    (tmp_path / "boxes.json").write_text("before")
    with pytest.raises(ValueError, match=r"JSON|settings of numbers"):
        coco.write(tmp_path / "boxes.json", {}, annotations=rows)
    assert (tmp_path / "boxes.json").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_best_box_of_each_image_is_read_and_the_first_of_equal_ones(tmp_path):
    crowd = {"image_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    coco.write(tmp_path / "boxes.json", {}, images=[*IMAGES, {"id": 9, "file_name": "9"}], annotations=[*ROWS, crowd])
    assert coco.read_best(tmp_path / "boxes.json") == {
        "1.jpg": ((40, 30), (5, 5, 7, 7), 3),
        "2.jpg": ((40, 30), None, 0),
        "3.jpg": ((40, 30), (0, 0, 40, 30), 1),
        "9": (None, None, 0),
    }


WITH_BOX = '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "bbox": %s}]}'


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"images": []}', '{"images": [], "annotations": [{"image_id": 1}]}', "[" * 100_000),
        *(
            WITH_BOX % box
            for box in ('"1234"', "[true, true, true, true]", "[1, 2, Infinity, 4]", f"[1, 2, 3, {10**400}]")
        ),
    ],
    ids=lambda text: text[-30:],
)
def test_something_else_than_coco_is_named(tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(ValueError, match=r"expected COCO JSON with images and annotations in .*boxes\.json, found"):
        coco.read_best(tmp_path / "boxes.json")
    with pytest.raises(FileNotFoundError, match=r"expected boxes in .*none\.json, found no such file"):
        coco.read_best(tmp_path / "none.json")
