"""The papers' transforms on samples whose picture, box, mask and ignore mask tell the same story."""

import pytest
import torch

from wsol_lib.data import Sample, make_sample
from wsol_lib.data.transforms import center_crop, random_crop, square, ten_crop


def sample(box=(40, 20, 80, 60), size=(80, 160)):
    """Black but for the white box, which is the mask too; the image's left quarter is ignored."""
    mask = torch.zeros(size, dtype=torch.bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    ignore = torch.zeros(size, dtype=torch.bool)
    ignore[:, : size[1] // 4] = True
    return make_sample(mask.to(torch.uint8).mul(255).expand(3, -1, -1), 7, torch.tensor([box]), mask, "x", ignore)


def extent(mask):
    """The box round what is True."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def agrees(moved: Sample, within=1.5):
    box = moved.boxes[0].as_subclass(torch.Tensor)
    for seen in (moved.mask, moved.image[0] > 127):
        assert (box - torch.tensor(extent(seen))).abs().max() <= within


def test_a_square_takes_the_whole_image():
    moved = square(40)(sample())
    assert isinstance(moved, Sample) and moved.image.shape == (3, 40, 40) and moved.image.dtype == torch.uint8
    assert moved.boxes.tolist() == [[10, 10, 20, 30]] and moved.boxes.canvas_size == (40, 40)
    assert extent(moved.mask) == [10, 10, 20, 30] and moved.mask.dtype == torch.bool
    assert extent(moved.ignore) == [0, 0, 10, 40] and moved.ignore.dtype == torch.bool
    assert (moved.label, moved.image_id) == (7, "x")


def test_a_centre_crop_takes_the_middle_of_the_square():
    moved = center_crop(40, 32)(sample())
    assert moved.image.shape == (3, 32, 32) and moved.boxes.tolist() == [[6, 6, 16, 26]]
    assert extent(moved.ignore) == [0, 0, 6, 32]
    agrees(moved)


def test_a_centre_crop_cuts_boxes_and_keeps_those_outside_without_area():
    moved = center_crop(40, 20)(sample(box=(0, 0, 80, 40)))
    assert moved.boxes.tolist() == [[0, 0, 10, 10]]
    x1, y1, x2, y2 = center_crop(40, 20)(sample(box=(0, 0, 20, 10))).boxes[0].tolist()
    assert (x2 - x1) * (y2 - y1) == 0


def test_a_random_crop_moves_everything_together_and_flips_half():
    torch.manual_seed(0)
    transform, flipped, places = random_crop(48, 40), 0, set()
    for _ in range(60):
        moved = transform(sample())
        assert moved.image.shape == (3, 40, 40)
        agrees(moved)
        places.add(moved.boxes[0, 0].item())
        flipped += bool(moved.ignore[:, -1].any())
    assert 15 < flipped < 45 and len(places) > 8


def test_a_box_that_a_random_crop_loses_is_taken_out_and_others_stay():
    corner = sample(box=(0, 0, 10, 5), size=(160, 160))
    both = make_sample(corner.image, 0, torch.tensor([[0.0, 0, 10, 5], [60, 60, 100, 100]]), None, "x")
    torch.manual_seed(1)
    lost = 0
    for _ in range(40):
        boxes = random_crop(160, 100)(both).boxes
        assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all() and 1 <= len(boxes) <= 2
        assert boxes.canvas_size == (100, 100)
        lost += len(boxes) == 1
        assert random_crop(160, 100)(corner).boxes.shape in ((0, 4), (1, 4))
    assert lost > 20


def test_a_sample_without_boxes_or_mask_goes_through():
    plain = make_sample(torch.zeros(3, 30, 20, dtype=torch.uint8), 0, torch.zeros(0, 4), None, "x")
    for transform in (square(16), center_crop(20, 16), random_crop(20, 16)):
        moved = transform(plain)
        assert moved.image.shape == (3, 16, 16) and moved.boxes.shape == (0, 4) and moved.mask is None


def test_ten_crops_are_corners_and_middle_and_their_mirror_images():
    image = torch.arange(36, dtype=torch.uint8).reshape(1, 6, 6).expand(3, -1, -1)
    crops = ten_crop(6, 4)(make_sample(image, 0, torch.zeros(0, 4), None, "x"))
    assert crops.shape == (10, 3, 4, 4) and type(crops) is torch.Tensor
    assert crops[:5, 0, 0, 0].tolist() == [0, 2, 12, 14, 7]
    assert torch.equal(crops[5:], crops[[1, 0, 3, 2, 4]].flip(-1))  # the mirror image's upper left is the upper right


@pytest.mark.parametrize("transform", [random_crop, center_crop, ten_crop])
@pytest.mark.parametrize("crop", [0, 33])
def test_a_crop_has_to_fit_the_square(transform, crop):
    with pytest.raises(ValueError, match=rf"expected a crop of 1 to 32 pixels, the resized image, found {crop}"):
        transform(32, crop)


@pytest.mark.parametrize("pair", [(256, 224), (320, 299), (512, 448)])
def test_the_pairs_of_the_papers(pair):
    assert (
        random_crop(*pair)(sample()).image.shape[-2:] == center_crop(*pair)(sample()).image.shape[-2:] == (pair[1],) * 2
    )
