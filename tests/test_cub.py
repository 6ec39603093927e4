"""CUB from its official files: small ones that the test writes, and every row of the real ones."""

import os
from pathlib import Path

import pytest
import standins
import torch
from PIL import Image

from wsol_lib.data import load_dataset
from wsol_lib.data.cub import PART_NAMES

IDS = ("001.Black_footed_Albatross/a.jpg", "001.Black_footed_Albatross/b.jpg", "003.Sooty_Albatross/c.jpg")


def official(root, **content):
    """Three images of 40 x 30 pixels, the second for training; each file replaced by what ``content`` gives."""
    parts = "".join(
        f"{k} {p} {10 * k + p}.0 {p}.0 1\n" if p != 2 else f"{k} 2 0.0 0.0 0\n" for k in (1, 2, 3) for p in range(1, 16)
    )
    written = {
        "images": "".join(f"{k} {image_id}\n" for k, image_id in enumerate(IDS, 1)),
        "image_class_labels": "1 1\n2 1\n3 3\n",
        "train_test_split": "1 0\n2 1\n3 0\n",
        "bounding_boxes": "1 0.0 2.0 20.0 10.0\n2 5.0 5.0 10.0 10.0\n3 10.0 5.0 33.0 25.0\n",
        "parts/part_locs": parts,
    } | content
    folder = root / "CUB_200_2011"
    (folder / "parts").mkdir(parents=True)
    for file, text in written.items():
        if text is not None:
            (folder / f"{file}.txt").write_text(text)
    return root


def photographs(root, ids=IDS):
    for image_id in ids:
        path = root / "CUB_200_2011" / "images" / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path, exif=standins.sideways())
    return root


def load(root, split="test"):
    return load_dataset("cub", split, root=root)


def test_annotations_come_without_lists_and_without_images(tmp_path):
    data = load(official(tmp_path))
    assert data.image_ids == [IDS[0], IDS[2]] and data.labels.tolist() == [0, 2] and data.labels.dtype == torch.int64
    assert [b.tolist() for b in data.boxes] == [[[0, 2, 20, 12]], [[10, 5, 43, 30]]]
    assert data.boxes[0].dtype == torch.float32 and data.image_sizes.tolist() == [[0, 0]] * 2
    assert data.class_names[:3] == ("Black footed Albatross", "class 1", "Sooty Albatross")
    assert load(tmp_path, "train-weaksup").image_ids == [IDS[1]]


def test_images_tell_the_sizes_and_boxes_are_cut_at_the_last_pixel(tmp_path):
    data = load(photographs(official(tmp_path)))
    assert data.image_sizes.tolist() == [[40, 30]] * 2
    assert [b.tolist() for b in data.boxes] == [[[0, 2, 20, 12]], [[10, 5, 39, 29]]]
    assert data[1].image.shape == (3, 30, 40)


def test_the_public_lists_come_first(tmp_path):
    lists = official(tmp_path) / "wsolevaluation" / "metadata" / "CUB" / "test"
    lists.mkdir(parents=True)
    for file, row in (("class_labels", "0"), ("image_sizes", "40,30"), ("localization", "1,1,9,9")):
        (lists / f"{file}.txt").write_text(f"{IDS[0]},{row}\n")
    assert load(tmp_path).boxes[0].tolist() == [[1, 1, 9, 9]]
    assert load(tmp_path, "train-weaksup").boxes[0].tolist() == [[5, 5, 15, 15]]
    assert torch.equal(load(tmp_path).parts[0, 0], torch.tensor([11.0, 1, 1]))


def test_parts_are_x_y_and_whether_they_are_seen(tmp_path):
    parts = load(official(tmp_path)).parts
    assert parts.shape == (2, len(PART_NAMES), 3) and parts.dtype == torch.float32
    assert parts[1, 14].tolist() == [45, 15, 1] and parts[1, 1].tolist() == [0, 0, 0]


# --- bad input


def test_cubv2_needs_the_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the list .*val/class_labels.txt, found no such file: put"):
        load(official(tmp_path), "train-fullsup")


def test_a_listed_image_that_is_missing_is_named(tmp_path):
    photographs(official(tmp_path), IDS[:1])
    with pytest.raises(
        FileNotFoundError, match=rf"expected the image {IDS[2]}, which images.txt names, in .* found no"
    ):
        load(tmp_path)


@pytest.mark.parametrize("box", ["-1.0 2.0 9.0 9.0", "1 2 0 9", "1 2 9 -3", "nan 2 9 9", "40 5 3 9"])
def test_a_box_that_is_empty_turned_or_begins_outside_is_named(tmp_path, box):
    rows = f"1 {box}\n2 1 1 9 9\n3 1 1 9 9\n"
    with pytest.raises(
        ValueError, match=rf"of some area inside their image in .*bounding_boxes.txt, found .* for {IDS[0]}"
    ):
        load(photographs(official(tmp_path, bounding_boxes=rows)))


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        (
            "images",
            "1 a.b/c.jpg\n3 a.b/d.jpg\n",
            r"expected a row '2 class/name.jpg' in .*images.txt, found '3 a.b/d.jpg'",
        ),
        ("images", "1 a b\n", r"found '1 a b'"),
        ("image_class_labels", "1 1\n2 1\n3 x\n", r"rows of 2 numbers in .*image_class_labels.txt, found .*'x'"),
        ("image_class_labels", "1 1\n2 1\n", r"expected 3 rows of 2 numbers .*found others \(2 rows of 2\)"),
        ("image_class_labels", "1 1\n2 1\n3 201\n", rf"expected labels in 0 ... 199, .* found 200 for image {IDS[2]}"),
        ("train_test_split", "1 0\n1 1\n3 0\n", r"in the order of images.txt"),
        ("bounding_boxes", "1 1 1 9\n2 1 1 9\n3 1 1 9\n", r"3 rows of 4"),
        ("bounding_boxes", "", r"expected 3 rows of 5 numbers"),
        (
            "bounding_boxes",
            "1 1 1 9 9\n2 1 1 inf 9\n3 1 1 9 9\n",
            r"numbers below 2,147,483,648 in .*boxes.txt, found inf",
        ),
        ("image_class_labels", f"1 1\n2 1\n3 {20 * '9'}\n", r"numbers below .* in .*class_labels.txt, found 1e\+20"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*input contained no data")
def test_a_damaged_file_is_named(tmp_path, file, rows, message):
    with pytest.raises(ValueError, match=message):
        load(official(tmp_path, **{file: rows}))


@pytest.mark.parametrize("instead", [None, os.mkdir, os.mkfifo])
@pytest.mark.parametrize("file", ["image_class_labels", "train_test_split", "bounding_boxes"])
def test_a_missing_file_is_named(tmp_path, file, instead):
    root = official(tmp_path, **{file: None})
    if instead:
        instead(tmp_path / "CUB_200_2011" / f"{file}.txt")
    with pytest.raises(FileNotFoundError, match=rf"expected the list .*{file}.txt, found no such file: unpack CUB"):
        load(root)


def test_parts_that_are_missing_or_cut_short_are_named(tmp_path):
    data = load(official(tmp_path, **{"parts/part_locs": None}))
    with pytest.raises(FileNotFoundError, match=r"expected the list .*part_locs.txt, found no such file"):
        _ = data.parts
    (tmp_path / "CUB_200_2011/parts/part_locs.txt").write_text("1 1 2.0 3.0 1\n")
    with pytest.raises(ValueError, match=r"expected 45 rows of 5 numbers in .*part_locs.txt, .*\(1 rows of 5\)"):
        _ = data.parts


# --- every row of the real files


@standins.needs("CUB_200_2011")
@standins.needs("wsolevaluation/metadata")
def test_official_files_give_the_boxes_of_the_lists_but_for_the_78_that_the_lists_cut(tmp_path):
    (tmp_path / "CUB_200_2011").symlink_to(Path(os.environ["WSOL_DATA"]) / "CUB_200_2011")
    uncut = outside = 0
    for split in ("train-weaksup", "test"):
        lists, files = load(None, split), load(tmp_path, split)
        assert files.image_ids == lists.image_ids and torch.equal(files.labels, lists.labels)
        printed, cut, sizes = torch.cat(files.boxes), torch.cat(lists.boxes), lists.image_sizes
        assert torch.equal(printed[:, :2], cut[:, :2]) and torch.equal(printed, printed.round())
        assert torch.equal(torch.minimum(printed[:, 2:], sizes - 1.0), cut[:, 2:])
        uncut += int((printed != cut).any(1).sum())
        outside += int((printed[:, 2:] > sizes).any(1).sum())
    assert (uncut, outside) == (78, 30)


@standins.needs("CUB_200_2011")
@standins.needs("wsolevaluation/metadata")
def test_real_parts():
    data = [load(None, split) for split in ("train-weaksup", "test")]
    parts, sizes = torch.cat([d.parts for d in data]), torch.cat([d.image_sizes for d in data])
    seen = parts[..., 2] == 1
    assert seen.sum() == 141_407 and not parts[~seen].any()
    assert (((parts[..., :2] > sizes[:, None]).any(-1)) & seen).sum() == 1
    with pytest.raises(ValueError, match="expected train-weaksup or test for parts, found train-fullsup"):
        _ = load(None, "train-fullsup").parts
