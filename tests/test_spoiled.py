"""Errors with a dial: what noise and bias do to boxes, and a teacher that hands them out."""

import pytest
import torch

from wsol_lib import localizers
from wsol_lib.book.spoiled import spoil
from wsol_lib.boxes import box_iou
from wsol_lib.data import Subset, load_dataset

TRUE = torch.tensor([[20.0, 30, 60, 80]]).expand(2000, 4)
SIZES = torch.tensor([[100, 100]]).expand(2000, 2)


def test_dials_at_zero_spoil_nothing():
    assert torch.equal(spoil(TRUE, SIZES, noise=0.0, bias=0.0), TRUE)


def test_noise_moves_edges_both_ways_and_leaves_the_mean():
    moved = spoil(TRUE, SIZES, noise=0.1, bias=0.0)
    assert torch.allclose(moved.mean(0), TRUE[0], atol=0.5)
    assert torch.allclose(moved.std(0), torch.tensor([4.0, 5, 4, 5]), rtol=0.1)


def test_bias_keeps_the_centre_and_takes_off_its_mean_share():
    moved = spoil(TRUE, SIZES, noise=0.0, bias=0.3)
    assert torch.allclose(moved[:, :2] + moved[:, 2:], TRUE[:, :2] + TRUE[:, 2:], atol=1e-4)
    shares = (moved[:, 2:] - moved[:, :2]) / (TRUE[:, 2:] - TRUE[:, :2])
    assert shares.min() >= 0.4 - 1e-5 and shares.max() <= 1 and abs(shares.mean() - 0.7) < 0.01


def test_a_share_s_of_the_sides_has_an_iou_of_s_squared():
    moved = spoil(TRUE, SIZES, noise=0.0, bias=0.4)
    shares = ((moved[:, 2:] - moved[:, :2]) / (TRUE[:, 2:] - TRUE[:, :2]))[:, 0]
    assert torch.allclose(box_iou(moved, TRUE[:1])[:, 0], shares**2, atol=1e-5)


def test_spoiled_boxes_are_boxes_inside_their_images():
    moved = spoil(TRUE, SIZES, noise=2.0, bias=0.5)
    assert (moved >= 0).all() and (moved <= 100).all() and (moved[:, 2:] - moved[:, :2] >= 1).all()


def test_another_seed_spoils_otherwise():
    first, again, other = (spoil(TRUE, SIZES, 0.1, 0.0, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=6, image_size=32)


def teacher(birds, **settings):
    return localizers.fit("wsol_lib.book.spoiled:Spoiled", birds, birds, **settings)


def test_a_teacher_gives_the_spoiled_boxes_in_the_order_it_is_asked(birds):
    boxes, scores = teacher(birds, noise=0.2).predict_dataset(Subset(birds, [4, 1]))
    expected = spoil(torch.cat(birds.boxes), birds.image_sizes, 0.2, 0.0)
    assert torch.equal(boxes, expected[[4, 1]]) and scores.tolist() == [1, 1]


def test_a_teacher_knows_no_other_images(birds):
    others = load_dataset("synthbirds", "test", n_images=2, image_size=32)
    with pytest.raises(ValueError, match=r"expected images whose boxes are known, found .* without"):
        teacher(birds).predict_dataset(others)


def test_a_student_learns_from_it_by_name(birds):
    student = localizers.fit(
        "psol",
        birds,
        birds,
        teacher="wsol_lib.book.spoiled:Spoiled",
        teacher_settings={"bias": 0.4},
        pretrained=False,
        input_size=32,
        epochs=1,
        freeze="all",
        augment="flip",
        flat_head=True,
    )
    assert student.boxes(birds.images([0, 1]))[0].shape == (2, 4)
