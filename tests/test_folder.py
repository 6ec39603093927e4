"""A reader's own folder: layouts, formats, boxes from COCO JSON, and what is said when they do not fit."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import standins
from PIL import Image
from torchvision.transforms import v2

from wsol_lib.data import load_dataset


def picture(path, colour=(10, 200, 60), size=(40, 30), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **save)


@pytest.fixture
def root(tmp_path):
    """root/<class>/*: three images of two classes, 40 x 30 pixels."""
    for name in ("cat/b.png", "cat/a.jpg", "dog/c.png"):
        picture(tmp_path / name)
    return tmp_path


def annotate(root, boxes, name="annotations.json", **image):
    """A COCO JSON with (file_name, bbox) pairs; every image of ``boxes`` once."""
    names = list(dict.fromkeys(file_name for file_name, _ in boxes))
    coco = {
        "images": [{"id": 10 + i, "file_name": file_name, **image} for i, file_name in enumerate(names)],
        "annotations": [{"id": i, "image_id": 10 + names.index(n), "bbox": box} for i, (n, box) in enumerate(boxes)],
    }
    (root / name).write_text(json.dumps(coco))
    return root / name


def load(root, split="test", **options):
    return load_dataset("folder", split, root=root, **options)


def test_a_plain_tree_is_both_train_weaksup_and_test(root):
    for split in ("train-weaksup", "test"):
        data = load(root, split)
        assert data.class_names == ("cat", "dog")
        assert data.image_ids == ["cat/a.jpg", "cat/b.png", "dog/c.png"]
        assert data.labels.tolist() == [0, 0, 1]
        assert data.image_sizes.tolist() == [[40, 30]] * 3
        assert [tuple(b.shape) for b in data.boxes] == [(0, 4)] * 3
    assert data[1].image.shape == (3, 30, 40) and data[1].label == 0
    assert standins.colour_at_centre(data[1].image).tolist() == [10, 200, 60]


def test_boxes_become_corners_several_an_image(root):
    annotate(root, [("dog/c.png", [1, 2, 10, 20]), ("cat/a.jpg", [0, 0, 5.5, 6]), ("dog/c.png", [3, 4, 5, 6])])
    data = load(root)
    assert [b.tolist() for b in data.boxes] == [[[0, 0, 5.5, 6]], [], [[1, 2, 11, 22], [3, 4, 8, 10]]]
    assert data[2].boxes.tolist() == data.boxes[2].tolist() and data[2].boxes.canvas_size == (30, 40)


def test_train_fullsup_is_the_images_with_a_box_their_labels_unchanged(root):
    annotate(root, [("dog/c.png", [1, 2, 10, 20])])
    data = load(root, "train-fullsup")
    assert data.image_ids == ["dog/c.png"] and data.labels.tolist() == [1]
    assert data.class_names == ("cat", "dog")


def test_train_fullsup_without_boxes_says_where_to_write_them(root):
    with pytest.raises(FileNotFoundError, match=r"expected images with boxes for train-fullsup .*annotations.json"):
        load(root, "train-fullsup")


def test_split_folders_keep_the_splits_apart_and_share_the_classes(tmp_path):
    for name in ("train-weaksup/ant/1.png", "train-weaksup/bee/2.png", "test/bee/3.png"):
        picture(tmp_path / name)
    annotate(tmp_path, [("test/bee/3.png", [0, 0, 4, 4])])
    assert load(tmp_path, "train-weaksup").image_ids == ["train-weaksup/ant/1.png", "train-weaksup/bee/2.png"]
    test = load(tmp_path)
    assert test.class_names == ("ant", "bee") and test.labels.tolist() == [1]
    assert test.boxes[0].tolist() == [[0, 0, 4, 4]]
    with pytest.raises(FileNotFoundError, match=r"expected a folder train-fullsup in .*, found train-weaksup, test"):
        load(tmp_path, "train-fullsup")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".bmp"])
def test_formats(tmp_path, suffix):
    picture(tmp_path / "a" / f"x{suffix}", size=(9, 7))
    data = load(tmp_path)
    assert data.image_sizes.tolist() == [[9, 7]] and data[0].image.shape == (3, 7, 9)
    assert np.abs(standins.colour_at_centre(data[0].image) - (10, 200, 60)).max() < 8


def test_other_files_and_hidden_ones_are_passed_over(root):
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / "._a.jpg").write_bytes(b"what macOS leaves behind")
    picture(root / ".thumbnails" / "a.png")
    picture(root / "cat" / "deeper" / "d.png")
    data = load(root)
    assert data.image_ids == ["cat/a.jpg", "cat/b.png", "cat/deeper/d.png", "dog/c.png"]
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_turns_image_and_size_alike(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / "a" / "x.jpg", size=(40, 30), exif=exif)
    data = load(tmp_path)
    assert data.image_sizes[0].tolist() == ([30, 40] if orientation >= 5 else [40, 30])
    assert list(data[0].image.shape) == [3, *data.image_sizes[0].tolist()[::-1]]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_turns_image_and_size_alike(tmp_path, suffix):
    picture(tmp_path / "a" / f"x{suffix}", size=(40, 30), exif=standins.sideways())
    annotate(tmp_path, [(f"a/x{suffix}", [0, 0, 30, 40])], width=30, height=40)
    data = load(tmp_path)
    assert data.image_sizes.tolist() == [[30, 40]] and data[0].image.shape == (3, 40, 30)
    assert data.boxes[0].tolist() == [[0, 0, 30, 40]]


def test_boxes_are_cut_at_the_border(root):
    annotate(root, [("cat/a.jpg", [-3, 25, 50, 10.5])])
    assert load(root).boxes[0].tolist() == [[0, 25, 40, 30]]


def test_crowds_are_no_boxes(root):
    path = annotate(root, [("cat/a.jpg", [0, 0, 4, 4]), ("cat/a.jpg", [1, 1, 4, 4])])
    coco = json.loads(path.read_text())
    coco["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(coco))
    assert load(root).boxes[0].tolist() == [[1, 1, 5, 5]]


def test_another_file_of_boxes_can_be_named(root):
    annotate(root, [("cat/a.jpg", [0, 0, 4, 4])])
    other = annotate(root, [("cat/a.jpg", [1, 1, 2, 2])], name="other.json")
    assert load(root, boxes=other).boxes[0].tolist() == [[1, 1, 3, 3]]
    with pytest.raises(FileNotFoundError, match=r"expected boxes in .*none.json, found no such file"):
        load(root, boxes=root / "none.json")


def test_transforms_take_the_whole_sample(root):
    annotate(root, [("cat/a.jpg", [0, 0, 10, 30])])
    assert load(root, transform=v2.RandomHorizontalFlip(p=1))[0].boxes.tolist() == [[30, 0, 40, 30]]


# --- bad input


@pytest.mark.parametrize(
    "box",
    [
        *([5, 5, 0, 4], [5, 5, 4, -1], [40, 0, 5, 5], [1, 2, 3], [1, 2, 3, "x"], [1, 2, float("nan"), 4]),
        *(
            "1234",
            [True] * 4,
            [1, 2, float("inf"), 4],
            [1, 2, 3, 10**400],
            ["1", "2", "3", "4"],
            {"1": 2, "3": 4},
            None,
        ),
    ],
    ids=lambda box: str(box)[:20],
)
def test_a_box_without_area_in_its_image_is_named(root, box):
    annotate(root, [("cat/b.png", box)])
    with pytest.raises(ValueError, match=r"boxes x, y, width, height of some area inside cat/b.png of 40 x 30"):
        load(root)


@pytest.mark.parametrize(
    "name",
    ["b.png", "cat/none.png", "../{root}/cat/b.png", "{absolute}/cat/b.png", "cat", "cat/" + 300 * "x", "cat/\0"],
)
def test_a_file_name_that_is_not_below_the_root_is_named(root, name):
    annotate(root, [(name.format(root=root.name, absolute=root), [0, 0, 4, 4])])
    with pytest.raises(ValueError, match=r"expected each file_name of .*annotations.json below .*, found no file"):
        load(root)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"images": []}',
        '{"images": [{"id": 1}], "annotations": []}',
        '{"images": [], "annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1]}]}',
        '{"images": [{"id": 1, "file_name": "cat/a.jpg"}], "annotations": [{"image_id": 1}]}',
        "\0\1",
        "[" * 100_000,
        '{"images": ' + '[{"id": ' * 100_000,
    ],
    ids=lambda content: content[:20],
)
def test_broken_json_is_named(root, content):
    (root / "annotations.json").write_text(content)
    with pytest.raises(ValueError, match=r"expected COCO JSON in .*annotations.json"):
        load(root)


@pytest.mark.parametrize("category, found", [(1, None), (2, "dog"), (3, "zebra"), (9, "None")])
def test_a_category_that_is_not_the_class_of_the_folder_is_named(root, category, found):
    path = annotate(root, [("cat/a.jpg", [0, 0, 4, 4])])
    coco = json.loads(path.read_text())
    coco["categories"] = [{"id": i, "name": name} for i, name in enumerate(("cat", "dog", "zebra"), 1)]
    coco["annotations"][0]["category_id"] = category
    path.write_text(json.dumps(coco))
    if found is None:
        assert load(root).boxes[0].tolist() == [[0, 0, 4, 4]]
    else:
        with pytest.raises(ValueError, match=f"boxes of the class cat for cat/a.jpg in .*, found the category {found}"):
            load(root)


def test_boxes_of_an_image_of_another_size_are_refused(root):
    annotate(root, [("cat/a.jpg", [0, 0, 4, 4])], width=30, height=40)
    with pytest.raises(ValueError, match=r"expected cat/a.jpg of 30 x 40 pixels, as .* found 40 x 30"):
        load(root)


def test_a_file_that_is_no_image_is_named(root):
    (root / "dog" / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"expected an image in .*dog/c.png"):
        load(root)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_named_like_an_image_is_named(root, make):
    make(root / "cat" / "p.jpg")
    with pytest.raises(ValueError, match=r"expected an image in .*cat/p.jpg, found .*no file, but a folder, a pipe"):
        load(root)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("named", [True, False])
def test_boxes_that_are_no_file_are_named(root, make, named):
    make(root / "annotations.json")
    with pytest.raises(FileNotFoundError, match=r"expected boxes in .*annotations.json, found no such file"):
        load(root, **({"boxes": root / "annotations.json"} if named else {}))


def test_an_image_that_is_gone_is_named_when_it_is_decoded(root):
    data = load(root)
    (root / "cat" / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected an image in .*cat/a.jpg, found .*nothing at all"):
        data[0]


def test_an_image_cut_short_is_named_when_it_is_decoded(root):
    content = standins.jpeg(size=(400, 300))
    (root / "cat" / "a.jpg").write_bytes(content[: len(content) // 2])
    data = load(root)
    with pytest.raises(ValueError, match=r"expected an image in .*cat/a.jpg, found [0-9,]+ bytes"):
        data[0]


def test_no_images_at_all(tmp_path):
    picture(tmp_path / "loose.png")
    with pytest.raises(FileNotFoundError, match=r"expected images as .*/<class>/<name> .* found none"):
        load(tmp_path)


def test_in_a_flat_folder_all_images_are_of_one_class(root):
    picture(root / "top.png")
    annotate(root, [("dog/c.png", [1, 2, 10, 20])])
    data = load(root, flat=True)
    assert data.image_ids == ["cat/a.jpg", "cat/b.png", "dog/c.png", "top.png"]
    assert data.class_names == ("object",) and data.labels.tolist() == [0] * 4
    assert load(root, "train-fullsup", flat=True).image_ids == ["dog/c.png"]


def test_images_come_folder_by_folder_as_paths_are_sorted(tmp_path):
    names = ["a/x.png", "a-b.png", "a.b/y.png", "a/deeper/Z.PNG", "a/deeper.png", "B.png", ".hidden/c.png", "a/.d.png"]
    for name in names:
        picture(tmp_path / name)
    expected = [str(path) for path in sorted(map(Path, names)) if not any(part[0] == "." for part in path.parts)]
    assert load(tmp_path, flat=True).image_ids == expected and len(expected) == 6


def test_sizes_are_asked_for_a_few_at_a_time(root, monkeypatch):
    monkeypatch.setattr("wsol_lib.data.folder.CHUNK", 2)
    picture(root / "dog/d.png", size=(7, 5))
    assert load(root).image_sizes.tolist() == [[40, 30]] * 3 + [[7, 5]]


def test_a_flat_folder_may_have_boxes_of_any_category(root):
    path = annotate(root, [("dog/c.png", [1, 2, 10, 20])])
    coco = json.loads(path.read_text()) | {"categories": [{"id": 1, "name": "wolf"}]}
    coco["annotations"][0]["category_id"] = 1
    path.write_text(json.dumps(coco))
    assert len(load(root, flat=True).boxes[2]) == 1
    with pytest.raises(ValueError, match="found the category wolf"):
        load(root)


def test_images_can_be_left_out(root):
    (root / "cat/a.jpg").write_bytes(b"damaged")
    assert load(root, leave_out=["cat/a.jpg"]).image_ids == ["cat/b.png", "dog/c.png"]


def test_a_flat_folder_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected images below"):
        load(tmp_path, flat=True)
