"""OpenImages: masks and ignore masks on files that the test makes, and on the real ones that the public code ships."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import standins
import torch
from PIL import Image

from wsol_lib.data import load_dataset, scaled_masks
from wsol_lib.metrics import PxAP

ID, OTHER = "val/01226z/a,b.jpg", "val/0by6g/c.jpg"
ROWS = (
    f"{ID},val/01226z/a_1.png,val/01226z/a_ignore.png\n"
    f"{OTHER},val/0by6g/c_1.png,val/0by6g/c_ignore.png\n"
    f"{ID},val/01226z/a_2.png,\n"
)


def lists(root, rows=ROWS, folder="val"):
    target = root / "wsolevaluation" / "metadata" / "OpenImages" / folder
    target.mkdir(parents=True)
    (target / "class_labels.txt").write_text(f"{ID},0\n{OTHER},1\n")
    (target / "localization.txt").write_text(rows)
    return root


def picture(root, name, area=None, size=(8, 6), mode="1"):
    """Black but for the white ``area`` (x1, y1, x2, y2), if any."""
    path = root / "OpenImages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size)
    if area:
        image.paste("white" if mode not in "1L" else 255, area)
    image.save(path)


def load(root, split="train-fullsup"):
    return load_dataset("openimages", split, root=root)


@pytest.fixture
def root(tmp_path):
    """The first image: two objects of one column each, and an ignored half that holds one of them."""
    lists(tmp_path)
    picture(tmp_path, "val/01226z/a_1.png", (0, 0, 1, 6))
    picture(tmp_path, "val/01226z/a_2.png", (5, 0, 6, 6), mode="RGBA")
    picture(tmp_path, "val/01226z/a_ignore.png", (4, 0, 8, 6), mode="RGB")
    picture(tmp_path, "val/0by6g/c_1.png", (2, 2, 4, 4), mode="L")
    picture(tmp_path, "val/0by6g/c_ignore.png", mode="RGBA")
    return tmp_path


def test_files_are_listed_without_being_there(tmp_path):
    data = load(lists(tmp_path))
    assert data.mask_files == [["val/01226z/a_1.png", "val/01226z/a_2.png"], ["val/0by6g/c_1.png"]]
    assert data.ignore_files == ["val/01226z/a_ignore.png", "val/0by6g/c_ignore.png"]
    assert data.class_names[:2] == ("/m/01226z", "/m/0by6g") and [len(b) for b in data.boxes] == [0, 0]


def test_the_mask_is_the_union_and_the_object_wins_over_ignore(root):
    mask, ignore = load(root).masks(0, (6, 8))
    assert mask.dtype == ignore.dtype == torch.bool and mask.shape == ignore.shape == (6, 8)
    assert mask[3].tolist() == [True, False, False, False, False, True, False, False]
    assert ignore[3].tolist() == [False, False, False, False, True, False, True, True]


def test_transparent_black_is_background(root):
    mask, ignore = load(root).masks(1, (6, 8))
    assert mask.nonzero().aminmax(dim=0)[1].tolist() == [3, 3] and not ignore.any()


def test_a_sample_has_masks_at_the_size_of_its_image(root):
    picture(root, ID, size=(16, 12), mode="RGB")
    sample = load(root)[0]
    assert sample.image.shape == (3, 12, 16) and sample.mask.shape == sample.ignore.shape == (12, 16)
    assert sample.mask[0].tolist() == [True] * 2 + [False] * 8 + [True] * 2 + [False] * 4
    assert not (sample.mask & sample.ignore).any() and sample.boxes.shape == (0, 4)


def test_ignored_pixels_do_not_count_in_pxap(root):
    data, pxap = load(root), PxAP()
    perfect, wrong_where_ignored = data.masks(0, (6, 8))
    scores = (perfect | wrong_where_ignored).double()[None]
    pxap.update(scores, *scaled_masks(data, [0], (6, 8)))
    assert pxap.compute() == 1
    pxap.reset()
    pxap.update(scores, perfect[None])
    assert pxap.compute() < 0.5


def test_training_images_have_no_masks(tmp_path):
    lists(tmp_path, folder="train", rows="")
    data = load(tmp_path, "train-weaksup")
    assert data.masks(0, (4, 4)) == (None, None)


# --- bad input


def test_a_missing_mask_is_named(root):
    (root / "OpenImages/val/01226z/a_2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the mask val/01226z/a_2.png in .* found no such file"):
        load(root).masks(0, (6, 8))


def test_a_damaged_mask_is_named(root):
    (root / "OpenImages/val/01226z/a_2.png").write_bytes(b"PNG")
    with pytest.raises(ValueError, match=r"expected an image in .*a_2.png, found 3 bytes"):
        load(root).masks(0, (6, 8))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"{OTHER},a.png\n", r"expected rows of an image id, its mask and"),
        (f"{ID},,ignore.png\n{OTHER},b.png,ignore.png\n", r"found 'val/01226z/a,b.jpg,,ignore.png'"),
        (f"{ID},a.png,\n{OTHER},b.png,ignore.png\n", r"found 'val/01226z/a,b.jpg,a.png,'"),
        (f"{ID},a.png,i.png\n{ID},b.png,i.png\n{OTHER},b.png,i.png\n", r"found 'val/01226z/a,b.jpg,b.png,i.png'"),
        (f"{ID},a.png,i.png\n", rf"for each of 2 images, found none for {OTHER}"),
        (f"{ID},a.png,i.png\n{OTHER},b.png,i.png\nx.jpg,b.png,i.png\n", r"only images that .*, found x.jpg"),
        ("", r"for each of 2 images"),
    ],
)
def test_a_damaged_list_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load(lists(tmp_path, rows))


# --- the real lists and masks


@standins.needs("wsolevaluation/metadata")
@pytest.mark.parametrize(("split", "masks"), [("train-fullsup", 3_854), ("test", 7_632)])
def test_real_lists(split, masks):
    data = load(None, split)
    assert sum(map(len, data.mask_files)) == masks == len({name for names in data.mask_files for name in names})
    assert len(set(data.ignore_files)) == len(data) and all(data.mask_files)


@standins.needs("wsolevaluation/test_data")
def test_real_masks_are_those_that_the_public_code_compares(tmp_path):
    """Both resized to 224 x 224 by OpenCV, then joined: what its evaluation does."""
    cv2 = pytest.importorskip("cv2")
    files = Path(os.environ["WSOL_DATA"]) / "wsolevaluation/test_data/test_masks/val"
    shutil.copytree(files, tmp_path / "OpenImages" / "val")
    ignores = sorted(files.rglob("*_ignore.png"))
    rows, labels = [], []
    for ignore in ignores:
        stem, folder = ignore.name.removesuffix("_ignore.png"), f"val/{ignore.parent.name}"
        masks = sorted(path.name for path in ignore.parent.glob(f"{stem}_m*.png"))
        rows += [
            f"{folder}/{stem}.jpg,{folder}/{name},{'' if k else f'{folder}/{ignore.name}'}"
            for k, name in enumerate(masks)
        ]
        labels.append(f"{folder}/{stem}.jpg,0")
    lists(tmp_path, "\n".join(rows))
    (tmp_path / "wsolevaluation/metadata/OpenImages/val/class_labels.txt").write_text("\n".join(labels))
    data = load(tmp_path)
    assert len(data) == 5 and sum(map(len, data.mask_files)) == 6
    shares = []
    for i in range(len(data)):
        read = [cv2.imread(str(tmp_path / "OpenImages" / name), cv2.IMREAD_GRAYSCALE) for name in data.mask_files[i]]
        expected = np.any([cv2.resize(a, (224, 224), interpolation=cv2.INTER_NEAREST) > 0 for a in read], axis=0)
        ignore = cv2.imread(str(tmp_path / "OpenImages" / data.ignore_files[i]), cv2.IMREAD_GRAYSCALE)
        ignore = cv2.resize(ignore, (224, 224), interpolation=cv2.INTER_NEAREST) > 0
        found = data.masks(i, (224, 224))
        assert np.array_equal(found[0], expected) and np.array_equal(found[1], ignore & ~expected)
        shares.append((float(expected.mean()), float(found[1].float().mean())))
    assert max(mask for mask, _ in shares) == 1 and min(mask for mask, _ in shares) == 0
    assert max(ignored for _, ignored in shares) > 0.5
