"""The papers' transforms on samples whose picture, box, mask and ignore mask tell the same story."""

import pytest
import torch
from torch import nn

from wsol_lib.data import LocalizationDataset, Sample, make_sample
from wsol_lib.data.transforms import random_crop, resize_images, resized_side, square, stack_images
from wsol_lib.models import Backbone, GapLinear


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
    for transform in (square(16), random_crop(20, 16)):
        moved = transform(plain)
        assert moved.image.shape == (3, 16, 16) and moved.boxes.shape == (0, 4) and moved.mask is None


@pytest.mark.parametrize("crop", [0, 33])
def test_a_crop_has_to_fit_the_square(crop):
    with pytest.raises(ValueError, match=rf"expected a crop of 1 to 32 pixels, the resized image, found {crop}"):
        random_crop(32, crop)


@pytest.mark.parametrize("pair", [(256, 224), (320, 299), (512, 448)])
def test_the_pairs_of_the_papers(pair):
    assert random_crop(*pair)(sample()).image.shape[-2:] == (pair[1],) * 2
    assert resized_side(pair[1]) == pair[0]


def test_a_square_is_what_a_backbone_makes_of_the_image():
    picture = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    backbone = Backbone(nn.Identity(), GapLinear(3, 2), 3)
    moved = square(32)(make_sample(picture, 0, torch.zeros(0, 4), None, "x"))
    torch.testing.assert_close(backbone.preprocess(moved.image[None]), backbone.preprocess(picture[None], 32))


@pytest.mark.parametrize("width, height, side", [(595, 333, 299), (500, 333, 299), (200, 150, 224)])
def test_a_box_that_fills_the_image_fills_the_square(width, height, side):
    whole = torch.tensor([[0.0, 0, width, height]])
    full = make_sample(torch.zeros(3, height, width, dtype=torch.uint8), 0, whole, None, "x")
    for boxes in (square(side)(full).boxes, resize_images(full.boxes, (side, side))):
        torch.testing.assert_close(boxes.as_subclass(torch.Tensor), torch.tensor([[0.0, 0, side, side]]))
        assert boxes.max() <= side


class OfSizes(LocalizationDataset):
    """Images of the given sizes, width and height, that remember that they were read."""

    def __init__(self, *sizes):
        boxes, labels = [torch.zeros(0, 4)] * len(sizes), torch.zeros(len(sizes), dtype=torch.int64)
        super().__init__("sized", "test", ("a",), labels, boxes, torch.tensor(sizes), [str(size) for size in sizes])

    def _image(self, i):
        width, height = self.image_sizes[i].tolist()
        return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))


def test_a_batch_of_one_size_is_left_as_it_is():
    dataset = OfSizes((50, 70), (9, 9), (50, 70))
    for side in (None, 32):
        assert torch.equal(stack_images(dataset, [2, 0], side), dataset.images([2, 0]))


def test_sizes_that_are_not_known_are_not_taken_for_one_size():
    """As of all OpenImages, and of ImageNet's training images."""
    dataset = OfSizes((50, 70), (32, 32))
    known = stack_images(dataset, range(2), 32)
    pictures = [dataset._image(i) for i in range(2)]
    dataset._image, dataset.image_sizes = pictures.__getitem__, torch.zeros(2, 2, dtype=torch.int64)
    assert torch.equal(stack_images(dataset, range(2), 32), known)
    assert dataset.image_sizes.tolist() == [[50, 70], [32, 32]]  # by now they are


def test_a_batch_of_several_sizes_is_one_of_squares():
    dataset, backbone = OfSizes((50, 70), (32, 32), (90, 40)), Backbone(nn.Identity(), GapLinear(3, 2), 3)
    batch = stack_images(dataset, range(3), 32)
    assert (
        batch.shape == (3, 3, 32, 32) and batch.dtype == torch.uint8 and torch.equal(batch[1], dataset.images([1])[0])
    )
    alone = torch.cat([backbone.preprocess(dataset.images([i]), 32) for i in range(3)])
    torch.testing.assert_close(backbone.preprocess(batch, 32), alone)
    with pytest.raises(ValueError, match="expected input_size for images of several sizes, found None for sized"):
        stack_images(dataset, range(3), None)
