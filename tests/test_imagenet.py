"""ImageNet from its official files, XML and class folders, as the test writes them."""

import os

import pytest
import torch
from PIL import Image

from wsol_lib.data import load_dataset

OBJECT = "<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
SEA_SNAKE, TENCH = "n01751748", "n01440764"


def xml(root, number, *boxes, name=SEA_SNAKE, size=(500, 375), text=None):
    """One annotation in the layout of the official ones."""
    path = root / "ILSVRC/Annotations/CLS-LOC/val" / f"ILSVRC2012_val_{number:08}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(OBJECT.format(*box, name=name) for box in boxes)
    width, height = size
    path.write_text(
        text
        or f"<annotation><folder>val</folder><filename>{path.stem}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size><segmented>0</segmented>{objects}</annotation>"
    )
    return root


def load(root, split="test"):
    return load_dataset("imagenet", split, root=root)


def test_xml_gives_labels_sizes_and_boxes_as_printed(tmp_path):
    xml(tmp_path, 2, (45, 49, 499, 162), (2, 69, 437, 207), name=TENCH)
    data = load(xml(tmp_path, 1, (111, 108, 441, 193)))
    assert data.image_ids == ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG"]
    assert data.labels.tolist() == [65, 0] and data.class_names[65] == "sea snake"
    assert [b.tolist() for b in data.boxes] == [[[111, 108, 441, 193]], [[45, 49, 499, 162], [2, 69, 437, 207]]]
    assert data.image_sizes.tolist() == [[500, 375]] * 2 and data.boxes[0].dtype == torch.float32


@pytest.mark.parametrize("folder", ["ILSVRC", "ILSVRC/Data/CLS-LOC", "wsolevaluation/dataset/ILSVRC"])
def test_a_cmyk_image_is_found_and_its_size_must_be_the_printed_one(tmp_path, folder):
    data = load(xml(tmp_path, 1, (0, 0, 9, 9), size=(20, 10)))
    path = tmp_path / folder / data.image_ids[0]
    path.parent.mkdir(parents=True)
    Image.new("CMYK", (20, 10)).save(path, "JPEG")
    assert data[0].image.shape == (3, 10, 20) and data[0].image.float().mean() > 250
    Image.new("RGB", (10, 20)).save(path, "JPEG")
    with pytest.raises(ValueError, match=r"expected 20 x 10 pixels in .* found 10 x 20"):
        data[0]


def test_a_box_that_leaves_its_image_is_cut(tmp_path):
    assert load(xml(tmp_path, 1, (-3, 5, 600, 380))).boxes[0].tolist() == [[0, 5, 500, 375]]


def test_training_images_are_the_files_in_class_folders(tmp_path):
    for name in (f"{SEA_SNAKE}/b.JPEG", f"{SEA_SNAKE}/a.JPEG", f"{TENCH}/c.JPEG", f"{TENCH}/readme.txt", "x.tar"):
        path = tmp_path / "ILSVRC/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data = load(tmp_path, "train-weaksup")
    assert data.image_ids == [f"train/{TENCH}/c.JPEG", f"train/{SEA_SNAKE}/a.JPEG", f"train/{SEA_SNAKE}/b.JPEG"]
    assert data.labels.tolist() == [0, 65, 65] and [len(b) for b in data.boxes] == [0, 0, 0]


def test_the_public_lists_come_first(tmp_path):
    lists = xml(tmp_path, 1, (1, 1, 9, 9)) / "wsolevaluation/metadata/ILSVRC/test"
    lists.mkdir(parents=True)
    for file, row in (("class_labels", "7"), ("image_sizes", "40,30"), ("localization", "2,2,9,9")):
        (lists / f"{file}.txt").write_text(f"val/x.JPEG,{row}\n")
    assert load(tmp_path).image_ids == ["val/x.JPEG"]


# --- bad input


@pytest.mark.parametrize("box", [(9, 5, 9, 20), (9, 5, 3, 20), (9, 20, 20, 5), (510, 5, 520, 20)])
def test_a_box_without_area_is_named(tmp_path, box):
    with pytest.raises(ValueError, match=r"inside the image of 500 x 375 pixels in .*00000001.xml, found \["):
        load(xml(tmp_path, 1, box))


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><size>",
        "rubbish",
        "<annotation></annotation>",
        "<annotation><size><width>5</width><height>5</height></size></annotation>",
        f"<annotation><size><width>x</width><height>5</height></size>{OBJECT.format(1, 1, 3, 3, name=TENCH)}</annotation>",
        "<annotation><size><width>9</width><height>9</height></size>"
        f"{OBJECT.format(1, 1, 3, 3, name=TENCH)}{OBJECT.format(1, 1, 3, 3, name=SEA_SNAKE)}</annotation>",
        f"<annotation><size><width>9</width><height>9</height></size>{OBJECT.format('', 1, 3, 3, name=TENCH)}</annotation>",
        f"<annotation><size><width>{20 * '9'}</width><height>9</height></size>{OBJECT.format(1, 1, 3, 3, name=TENCH)}"
        "</annotation>",
    ],
)
def test_a_damaged_xml_is_named(tmp_path, text):
    with pytest.raises(
        ValueError, match=r"expected size, and objects of one class .* in .*00000001.xml, found it damaged"
    ):
        load(xml(tmp_path, 1, text=text))


@pytest.mark.parametrize("instead", [os.mkdir, os.mkfifo])
def test_an_xml_that_is_no_file_is_named(tmp_path, instead):
    root = xml(tmp_path, 1, (1, 1, 9, 9))
    (path,) = root.rglob("*.xml")
    path.unlink()
    instead(path)
    with pytest.raises(ValueError, match=r"in .*00000001.xml, found it damaged \(no file\)"):
        load(root)


def test_an_unknown_class_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"1,000 WordNet ids of ILSVRC2012 in .*00000001.xml, found 'n99'"):
        load(xml(tmp_path, 1, (1, 1, 9, 9), name="n99"))
    (tmp_path / "ILSVRC/train/n98").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"in .*train/n98, found 'n98'"):
        load(tmp_path, "train-weaksup")


def test_empty_folders_and_imagenetv2_without_lists_are_named(tmp_path):
    for folder in ("ILSVRC/Annotations/CLS-LOC/val", "ILSVRC/train"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"expected annotations as .*val/<name>.xml, found none"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected images as .*train/<WordNet id>/<name>.JPEG, found none"):
        load(tmp_path, "train-weaksup")
    with pytest.raises(FileNotFoundError, match=r"expected the list .*val/class_labels.txt, found no such file"):
        load(tmp_path, "train-fullsup")
