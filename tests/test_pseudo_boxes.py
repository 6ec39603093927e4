"""Pseudo boxes: what a localizer guessed is what the student sees, and what the file says."""

import json

import pytest
import torch
from torchvision.transforms import v2

from wsol_lib import pseudo_boxes
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps, scale_boxes
from wsol_lib.cam import CAM, localize
from wsol_lib.data import LocalizationDataset, Subset, load_dataset
from wsol_lib.data.transforms import stack_images
from wsol_lib.models import create_backbone

SETTINGS = {"method": "cam", "tau": 0.24, "backbone": "efficientnet_lite0"}
BOXES = torch.tensor([[1.0, 2, 30, 20], [0, 0, 32, 32], [5.5, 6.25, 7, 8], [0.1, 0.2, 31.9, 31.7]])
BAD = torch.tensor([[1.0, 2, 30, 20], [4, 4, 4, 9], [5, 6, 7, 33], [float("nan"), 0, 1, 1]])


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=4, image_size=32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CAM(create_backbone("efficientnet_lite0", 12))


# -- from a localizer ----------------------------------------------------------------------------------------------------


def test_boxes_from_score_maps_of_the_labels(birds, model):
    maps, _ = localize(model, birds.images(range(4)), birds.labels, input_size=64)
    expected = boxes_from_score_maps(normalize_score_maps(maps), 0.5)
    torch.testing.assert_close(pseudo_boxes.from_localizer(model, birds, 0.5, input_size=64, batch_size=3), expected)


class TwoSizes(LocalizationDataset):
    """Two images of the same content, the second twice as wide and three times as high."""

    def __init__(self):
        self.pictures = [picture := load_dataset("synthbirds", "test", n_images=1, image_size=32)[0].image]
        self.pictures.append(picture.repeat_interleave(3, 1).repeat_interleave(2, 2))
        sizes, boxes = torch.tensor([[32, 32], [64, 96]]), [torch.tensor([[0.0, 0, 1, 1]])] * 2
        super().__init__("two", "test", ("bird",), torch.zeros(2, dtype=torch.int64), boxes, sizes, ["a", "b"])

    def _image(self, i):
        return self.pictures[i]


def test_images_of_several_sizes_get_boxes_in_their_own_pixels(model):
    small, large = pseudo_boxes.from_localizer(model, TwoSizes(), 0.5, input_size=32)
    torch.testing.assert_close(large, small * torch.tensor([2.0, 3, 2, 3]), atol=4, rtol=0)
    with pytest.raises(ValueError, match="expected input_size for images of several sizes, found None for two"):
        pseudo_boxes.from_localizer(model, TwoSizes(), 0.5)


class Photographs(LocalizationDataset):
    """Grey images of the given sizes, width and height."""

    def __init__(self, *sizes):
        names, boxes = [str(size) for size in sizes], [torch.tensor([[0.0, 0, 1, 1]])] * len(sizes)
        labels = torch.zeros(len(sizes), dtype=torch.int64)
        super().__init__("photographs", "test", ("grey",), labels, boxes, torch.tensor(sizes), names)

    def _image(self, i):
        width, height = self.image_sizes[i].tolist()
        return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))


def test_boxes_that_fill_a_resized_image_are_boxes_inside_the_image(model):
    """299 pixels of 333 / 299 each would end at 333.00003, and the image would be lost without a word."""
    dataset = Photographs((500, 333), (333, 500), (640, 480))
    found = pseudo_boxes.from_localizer(model, dataset, 0.0, input_size=299)
    assert found.tolist() == [[0, 0, 500, 333], [0, 0, 333, 500], [0, 0, 640, 480]]
    assert len(pseudo_boxes.WithBoxes(dataset, found, keep_good=True)) == 3


def test_an_image_is_localized_alike_whatever_the_sizes_beside_it(model):
    """Alone it is resized by the backbone, among others before it: both in one way."""
    large = Photographs((150, 130))
    alone, _ = localize(model, large.images([0]), large.labels, input_size=64)
    among, _ = localize(model, stack_images(Photographs((150, 130), (90, 70)), [0, 1], 64), torch.tensor([0, 0]))
    expected = boxes_from_score_maps(normalize_score_maps(alone), 0.6)[0]
    found = pseudo_boxes.from_localizer(model, Photographs((150, 130), (90, 70)), 0.6, input_size=64)[0]
    small = boxes_from_score_maps(normalize_score_maps(among), 0.6)[0]
    assert torch.equal(found, scale_boxes(small[None], (64, 64), (150, 130))[0])
    torch.testing.assert_close(found, expected, atol=4, rtol=0)
    assert torch.equal(
        model.backbone.preprocess(stack_images(Photographs((150, 130), (90, 70)), [0, 1], 64), 64)[:1],
        model.backbone.preprocess(large.images([0]), 64),
    )


# -- what the student sees -----------------------------------------------------------------------------------------------


def test_the_boxes_of_the_data_set_are_replaced(birds):
    student_sees = pseudo_boxes.WithBoxes(birds, BOXES)
    assert len(student_sees) == 4 and student_sees.labels.tolist() == birds.labels.tolist()
    for i in range(4):
        assert student_sees[i].boxes.tolist() == BOXES[i : i + 1].tolist()
        assert (student_sees[i].image == birds[i].image).all() and student_sees[i].image_id == birds[i].image_id
    assert birds[0].boxes.tolist() != BOXES[:1].tolist()


def test_image_and_pseudo_box_move_together():
    mirrored = load_dataset("synthbirds", "test", n_images=4, image_size=32, transform=v2.RandomHorizontalFlip(p=1))
    sample = pseudo_boxes.WithBoxes(mirrored, BOXES)[0]
    assert sample.boxes.tolist() == [[2, 2, 31, 20]]
    assert (sample.image == mirrored.images([0])[0].flip(-1)).all()


def test_of_a_subset(birds):
    two = pseudo_boxes.WithBoxes(Subset(birds, [3, 1]), BOXES[:2])
    assert [sample.image_id for sample in (two[0], two[1])] == [birds.image_ids[3], birds.image_ids[1]]
    assert two[1].boxes.tolist() == BOXES[1:2].tolist()


def test_boxes_that_are_no_good_are_named_or_left_out(birds):
    with pytest.raises(
        ValueError, match=r"found 3 of 4 others \(the first, \[4.0, 4.0, 4.0, 9.0\], of synthbirds/.*/000001"
    ):
        pseudo_boxes.WithBoxes(birds, BAD)
    left = pseudo_boxes.WithBoxes(birds, BAD, keep_good=True)
    assert len(left) == 1 and left[0].boxes.tolist() == BAD[:1].tolist() and left.image_ids == birds.image_ids[:1]


@pytest.mark.parametrize("boxes", [BOXES[:3], BOXES[:, :3], BOXES[:, None]])
def test_another_number_of_boxes(birds, boxes, tmp_path):
    for use in (
        lambda: pseudo_boxes.WithBoxes(birds, boxes),
        lambda: pseudo_boxes.save(tmp_path / "b", boxes, birds, {}),
    ):
        with pytest.raises(ValueError, match=r"expected one box \(4 numbers\) for each of the 4 images of synthbirds"):
            use()


# -- COCO JSON -----------------------------------------------------------------------------------------------------------


def edited(path, birds, edit):
    """A file of good boxes with something changed."""
    pseudo_boxes.save(path, BOXES, birds, SETTINGS)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_what_is_saved_is_loaded_to_the_last_digit(birds, tmp_path):
    pseudo_boxes.save(tmp_path / "deeper" / "boxes.json", BOXES, birds, SETTINGS)
    boxes, settings = pseudo_boxes.load(tmp_path / "deeper" / "boxes.json", birds)
    assert boxes.dtype == torch.float32 and boxes.tolist() == BOXES.tolist()
    assert settings == SETTINGS
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["boxes.json"]


def test_the_file_is_coco(birds, tmp_path):
    pseudo_boxes.save(tmp_path / "boxes.json", BOXES, birds, SETTINGS)
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert content["info"]["settings"] == SETTINGS
    assert content["images"][1] == {"id": 2, "file_name": birds.image_ids[1], "width": 32, "height": 32}
    assert [category["name"] for category in content["categories"]] == list(birds.class_names)
    first = content["annotations"][0]
    assert first == {
        **{"id": 1, "image_id": 1, "category_id": int(birds.labels[0]) + 1},
        **{"bbox": [1, 2, 29, 18], "area": 29 * 18, "iscrowd": 0},
    }


def test_the_field_s_own_reader_reads_it(birds, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    pseudo_boxes.save(tmp_path / "boxes.json", BOXES, birds, SETTINGS)
    read = coco.COCO(str(tmp_path / "boxes.json"))
    for i, image_id in enumerate(birds.image_ids):
        (image,) = [image for image in read.loadImgs(read.getImgIds()) if image["file_name"] == image_id]
        (row,) = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        x, y, w, h = row["bbox"]
        assert [x, y, x + w, y + h] == pytest.approx(BOXES[i].tolist())
        assert read.loadCats(row["category_id"])[0]["name"] == birds.class_names[birds.labels[i]]


def test_boxes_find_their_images_in_another_order(birds, tmp_path):
    pseudo_boxes.save(tmp_path / "boxes.json", BOXES, birds, SETTINGS)
    turned = pseudo_boxes.load(tmp_path / "boxes.json", Subset(birds, [2, 0, 3, 1]))[0]
    assert turned.tolist() == BOXES[[2, 0, 3, 1]].tolist()


def test_saving_boxes_that_are_no_good(birds, tmp_path):
    path = tmp_path / "boxes.json"
    with pytest.raises(ValueError, match=r"expected boxes with an area inside their images, found 3 of 4 others"):
        pseudo_boxes.save(path, BAD, birds, SETTINGS)
    assert not path.exists()
    pseudo_boxes.save(path, BAD, birds, SETTINGS, keep_good=True)
    assert [len(json.loads(path.read_text())[key]) for key in ("images", "annotations")] == [4, 1]
    with pytest.raises(ValueError, match=r"found 3 of 4 others .* keep_good=True"):
        pseudo_boxes.load(path, birds)
    boxes, _ = pseudo_boxes.load(path, birds, keep_good=True)
    assert boxes.tolist() == [BAD[0].tolist(), [0] * 4, [0] * 4, [0] * 4]


def test_ids_that_the_data_set_does_not_have(birds, tmp_path):
    path = edited(
        tmp_path / "boxes.json", birds, lambda content: content["images"][2].update(file_name="elsewhere.jpg")
    )
    with pytest.raises(ValueError, match=r"expected image ids of synthbirds .* found 1 others \(elsewhere.jpg"):
        pseudo_boxes.load(path, birds)
    boxes, _ = pseudo_boxes.load(path, birds, keep_good=True)
    assert boxes[[0, 1, 3]].tolist() == BOXES[[0, 1, 3]].tolist() and boxes[2].tolist() == [0] * 4


def test_an_annotation_without_an_image(birds, tmp_path):
    path = edited(tmp_path / "boxes.json", birds, lambda content: content["annotations"][0].update(image_id=99))
    with pytest.raises(ValueError, match=r"found 1 others \(99 is the first\)"):
        pseudo_boxes.load(path, birds)


def test_two_boxes_of_one_image(birds, tmp_path):
    path = edited(tmp_path / "boxes.json", birds, lambda content: content["annotations"][1].update(image_id=1))
    with pytest.raises(ValueError, match=r"expected one box an image in .*, found 2 of synthbirds/.*/000000"):
        pseudo_boxes.load(path, birds)
    boxes, _ = pseudo_boxes.load(path, birds, keep_good=True)
    assert boxes.tolist() == [[0] * 4, [0] * 4, *BOXES[2:].tolist()]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, '{"images": [], "annotations": [], "info": []}'),
        *(f'{{"images": [], "annotations": [{{"image_id": 1, "bbox": {box}}}]}}' for box in ("[1, 2]", '"1234"')),
        '{"images": [], "annotations": [{"image_id": 1, "bbox": [true, true, true, true]}]}',
    ],
    ids=lambda text: text[-20:],
)
def test_a_file_that_is_not_coco(birds, tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(ValueError, match=r"expected COCO JSON with images and annotations in .*boxes.json"):
        pseudo_boxes.load(tmp_path / "boxes.json", birds)


def test_a_file_that_is_not_there(birds, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected pseudo boxes at .*none.json, found no such file"):
        pseudo_boxes.load(tmp_path / "none.json", birds)


def test_settings_that_json_cannot_say(birds, tmp_path):
    with pytest.raises(ValueError, match="expected settings of numbers, strings, lists and dicts"):
        pseudo_boxes.save(tmp_path / "boxes.json", BOXES, birds, {"tau": torch.tensor(0.2)})
    assert not list(tmp_path.iterdir())


def test_sizes_that_lists_leave_out_come_with_the_boxes(birds, tmp_path):
    """Of ImageNet's training images they are found out while boxes are drawn, and a killed training goes on without that."""
    pseudo_boxes.save(tmp_path / "boxes.json", BOXES, birds, SETTINGS)
    unlisted = Subset(birds, range(4))
    unlisted.image_sizes = torch.zeros(4, 2, dtype=torch.int64)
    found, _ = pseudo_boxes.load(tmp_path / "boxes.json", unlisted, keep_good=True)
    assert torch.equal(found, BOXES) and unlisted.image_sizes.tolist() == [[32, 32]] * 4
