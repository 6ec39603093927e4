"""The losses: values worked out by hand, what carries gradient and what does not, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional as F

from wsol_lib.losses import (
    accuracy,
    box_regression_loss,
    classification_loss,
    consistency_loss,
    regression_loss,
    semantic_tolerance_loss,
    visual_tolerance_loss,
)

# -- SLT Eq. 8 -----------------------------------------------------------------------------------------------------------

#: probabilities 1/2, 1/4, 1/8, 1/8: the cross entropies are log 2, log 4, log 8, log 8
LOGITS = torch.tensor([[4.0, 2.0, 1.0, 1.0]]).log()


@pytest.mark.parametrize(
    "label, k, expected",
    [
        (0, 1, 0.25 * math.log(2)),  # right: tolerated, whatever k
        (1, 1, math.log(4)),  # second, k = 1: in full
        (1, 2, 0.25 * math.log(4)),  # second of two: tolerated
        (2, 2, math.log(8)),
        (2, 3, 0.25 * math.log(8)),  # two share the third place, both are in it
        (3, 3, 0.25 * math.log(8)),
        (3, 4, 0.25 * math.log(8)),  # k = C: alpha times cross entropy
    ],
)
def test_semantic_tolerance_by_hand(label, k, expected):
    loss = semantic_tolerance_loss(LOGITS, torch.tensor([label]), alpha=0.25, k=k)
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_semantic_tolerance_is_the_mean_over_the_batch():
    loss = semantic_tolerance_loss(LOGITS.repeat(3, 1), torch.tensor([0, 1, 2]), alpha=0.5, k=2)
    torch.testing.assert_close(loss, torch.tensor((0.5 * math.log(2) + 0.5 * math.log(4) + math.log(8)) / 3))


@pytest.mark.parametrize("seed", range(20))
def test_k_1_and_alpha_1_is_cross_entropy_to_the_last_bit(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(32, 200, generator=generator), torch.randint(200, (32,), generator=generator)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = semantic_tolerance_loss(ours, labels, alpha=1, k=1), F.cross_entropy(theirs, labels)
    assert torch.equal(loss, expected)
    loss.backward(), expected.backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_alpha_near_1_is_near_cross_entropy():
    logits, labels = torch.randn(32, 20, dtype=torch.float64), torch.randint(20, (32,))
    loss = semantic_tolerance_loss(logits, labels, alpha=1 - 1e-12, k=5)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels), rtol=1e-11, atol=0)


def test_what_is_tolerated_pulls_with_alpha_times_the_gradient():
    logits = LOGITS.repeat(2, 1).requires_grad_()
    semantic_tolerance_loss(logits, torch.tensor([1, 3]), alpha=0.25, k=2).backward()
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125])
    expected = torch.stack([0.25 * (probabilities - torch.eye(4)[1]), probabilities - torch.eye(4)[3]]) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_alpha_0_forgives_entirely():
    assert semantic_tolerance_loss(LOGITS, torch.tensor([1]), alpha=0, k=2) == 0


@pytest.mark.parametrize(
    "logits, labels, alpha, k, sentence",
    [
        (torch.zeros(2, 4), [0, 1], 0.5, 0, r"expected k in 1 ... 4, .* found 0"),
        (torch.zeros(2, 4), [0, 1], 0.5, 5, r"expected k in 1 ... 4, .* found 5"),
        (torch.zeros(2, 4), [0, 1], -0.1, 2, r"expected alpha in \[0, 1\], found -0.1"),
        (torch.zeros(2, 4), [0, 1], 1.1, 2, r"expected alpha in \[0, 1\], found 1.1"),
        (torch.zeros(2, 4), [0, 1], math.nan, 2, r"expected alpha in \[0, 1\], found nan"),
        (torch.full((2, 4), math.nan), [0, 1], 1, 2, "expected finite logits, found NaN"),
        (torch.full((2, 4), math.inf), [0, 1], 0.5, 2, "expected finite logits"),
        (torch.zeros(2, 4), [0], 0.5, 2, r"labels \(N,\) of at least one image, found \(2, 4\) and \(1,\)"),
        (torch.zeros(2, 4, 1), [0, 1], 0.5, 2, r"expected logits \(N, C\)"),
        (torch.zeros(0, 4), [], 0.5, 2, "at least one image"),
        (torch.zeros(2, 4), [0, 4], 0.5, 2, "expected labels in 0 ... 3, found 4"),
        (torch.zeros(2, 4), [0, -1], 0.5, 2, "expected labels in 0 ... 3, found -1"),
    ],
)
def test_semantic_tolerance_refuses(logits, labels, alpha, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        semantic_tolerance_loss(logits, torch.tensor(labels, dtype=torch.long), alpha, k)


# -- SLT Eq. 13 ----------------------------------------------------------------------------------------------------------


def test_visual_tolerance_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])  # one image, two maps of 2 x 2
    restored = torch.tensor([[[[1.0, 0.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]]])
    assert visual_tolerance_loss(maps, restored) == (4 + 9 + 9) / 8
    assert visual_tolerance_loss(torch.cat([maps, maps]), torch.cat([restored, maps])) == (4 + 9 + 9) / 16
    assert visual_tolerance_loss(maps[:, 0], restored[:, 0]) == (4 + 9) / 4


def test_visual_tolerance_as_the_equation_prints_it_adds_the_maps_up():
    maps, restored = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    restored[0, 0], restored[0, 2, 0, 0] = 1.0, 4.0  # squared norm 4 + 16, W x H = 4
    assert visual_tolerance_loss(maps, restored, sum_over_maps=True) == 20 / 4
    assert visual_tolerance_loss(maps, restored) == 20 / 4 / 3
    assert visual_tolerance_loss(maps[:, 0], restored[:, 0], sum_over_maps=True) == 1  # one map an image


def test_both_views_are_pulled_together():
    maps, restored = torch.ones(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, 2, requires_grad=True)
    visual_tolerance_loss(maps, restored).backward()
    torch.testing.assert_close(maps.grad, torch.full((1, 2, 2, 2), 2 / 8))
    torch.testing.assert_close(restored.grad, -maps.grad)


@pytest.mark.parametrize(
    "maps, restored, sentence",
    [
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3, 3), r"found \(1, 2, 4, 4\) and \(1, 2, 3, 3\)"),
        (torch.zeros(4, 4), torch.zeros(4, 4), r"found \(4, 4\)"),
        (torch.zeros(0, 2, 4, 4), torch.zeros(0, 2, 4, 4), r"found \(0, 2, 4, 4\)"),
        (torch.full((1, 1, 2, 2), math.nan), torch.zeros(1, 1, 2, 2), "expected finite maps, found NaN"),
        (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), math.nan), "expected finite restored_maps"),
    ],
)
def test_visual_tolerance_refuses(maps, restored, sentence):
    with pytest.raises(ValueError, match=sentence):
        visual_tolerance_loss(maps, restored)


# -- SLT Eq. 3 and 4 -----------------------------------------------------------------------------------------------------

BOXES = torch.tensor([[8.0, 16.0, 64.0, 96.0], [0.0, 0.0, 32.0, 32.0]])
PSEUDO_BOXES = torch.tensor([[0.0, 0.0, 64.0, 48.0], [0.0, 0.0, 32.0, 32.0]])  # off by 8, 16, 0, 48 pixels; by nothing


@pytest.mark.parametrize(
    "m, expected",
    [
        (16, 0.5 * 0.5**2 + 0.5 + 0 + 2.5),  # by half a cell, one cell, none, three cells
        (1, 7.5 + 15.5 + 0 + 47.5),  # in pixels: the absolute value throughout
        (96, 0.5 * (8**2 + 16**2 + 48**2) / 96**2),  # relative to the image: the square throughout
        (torch.tensor([16.0, 32.0, 16.0, 32.0]), 0.125 + 0.125 + 0 + 1.0),  # cells that are not square
    ],
)
def test_box_regression_by_hand(m, expected):
    loss = box_regression_loss(BOXES, PSEUDO_BOXES, m)
    torch.testing.assert_close(loss, torch.tensor(expected / 2))


def test_the_pseudo_boxes_learn_nothing():
    boxes, pseudo_boxes = BOXES.clone().requires_grad_(), PSEUDO_BOXES.clone().requires_grad_()
    box_regression_loss(boxes, pseudo_boxes, 16).backward()
    assert pseudo_boxes.grad is None
    torch.testing.assert_close(boxes.grad, torch.tensor([[0.5, 1.0, 0.0, 1.0], [0.0] * 4]) / 16 / 2)


@pytest.mark.parametrize(
    "boxes, pseudo_boxes, m, sentence",
    [
        (BOXES, PSEUDO_BOXES[:1], 16, r"found \(2, 4\) and \(1, 4\)"),
        (BOXES[:, :3], PSEUDO_BOXES[:, :3], 16, r"found \(2, 3\)"),
        (BOXES[:0], PSEUDO_BOXES[:0], 16, r"N of at least 1, found \(0, 4\)"),
        (BOXES, PSEUDO_BOXES, 0, "expected m above 0, found 0"),
        (BOXES, PSEUDO_BOXES, math.nan, "expected m above 0, found nan"),
        (BOXES * math.nan, PSEUDO_BOXES, 16, "expected finite boxes, found NaN"),
        (BOXES, PSEUDO_BOXES * math.nan, 16, "expected finite target boxes"),
    ],
)
def test_box_regression_refuses(boxes, pseudo_boxes, m, sentence):
    with pytest.raises(ValueError, match=sentence):
        box_regression_loss(boxes, pseudo_boxes, m)


# -- LCHP Eq. 1 and 2 ----------------------------------------------------------------------------------------------------


def test_classification_by_hand():
    """Probabilities 1/2, 1/4, 1/4 of the raw and 1/8, 1/8, 3/4 of the masked image."""
    raw, masked = torch.tensor([[2.0, 1, 1]]).log(), torch.tensor([[1.0, 1, 6]]).log()
    loss = classification_loss(raw.repeat(2, 1), masked.repeat(2, 1), torch.tensor([0, 2]))
    expected = -(math.log(1 / 2) + math.log(1 / 8) + math.log(1 / 4) + math.log(3 / 4)) / (2 * 2)
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_regression_by_hand():
    boxes = torch.tensor([[0.5, 0.0, 0.5, 1.0], [0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    pseudo_boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.2]], requires_grad=True)
    loss = regression_loss(boxes, pseudo_boxes)
    torch.testing.assert_close(loss, torch.tensor((0.25 + 0.25 + 0.04) / 2))
    loss.backward()
    torch.testing.assert_close(boxes.grad, (boxes - pseudo_boxes).detach())
    assert pseudo_boxes.grad is None


# -- LCHP Eq. 6 ----------------------------------------------------------------------------------------------------------

PREDICTIONS = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2]])
TARGETS = torch.tensor([[0.1, 0.0, 0.3, 0.8], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0], [0.2, 0.2, 0.2, 0.2]])
#: squared norms of the differences: 0.04 + 0.16, 4 * 0.25, 0.25, 0
CONFIDENCE = torch.tensor([0.95, 0.5, 0.9, 1.0])


@pytest.mark.parametrize(
    "tau, expected",
    [(0, 0.2 + 1.0 + 0.25), (0.5, 0.2 + 0.25), (0.75, 0.2 + 0.25), (0.9, 0.2), (0.99, 0.0), (1, 0.0)],
)
def test_consistency_by_hand(tau, expected):
    """Above is strict, and the sum is divided by all four images, however few are confident."""
    loss = consistency_loss(PREDICTIONS, TARGETS, CONFIDENCE, tau)
    torch.testing.assert_close(loss, torch.tensor(expected / 4))


def test_nothing_below_tau_contributes_gradient_and_targets_have_none():
    predictions, targets = PREDICTIONS.clone().requires_grad_(), TARGETS.clone().requires_grad_()
    confidence = CONFIDENCE.clone().requires_grad_()
    consistency_loss(predictions, targets, confidence, 0.9).backward()
    expected = 2 * (PREDICTIONS - TARGETS) / 4
    expected[1:3] = 0
    torch.testing.assert_close(predictions.grad, expected)
    assert targets.grad is None and confidence.grad is None


def test_a_batch_without_a_confident_box_still_has_a_backward_pass():
    predictions = PREDICTIONS.clone().requires_grad_()
    consistency_loss(predictions, TARGETS, CONFIDENCE, 1.0).backward()
    assert (predictions.grad == 0).all()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"tau": -0.1}, r"expected tau in \[0, 1\], found -0.1"),
        ({"tau": math.nan}, r"expected tau in \[0, 1\], found nan"),
        ({"targets": TARGETS[:2]}, r"found \(4, 4\) and \(2, 4\)"),
        ({"confidence": CONFIDENCE[:2]}, r"one confidence for each of 4 boxes, found \(2,\)"),
        ({"confidence": CONFIDENCE[:, None]}, r"found \(4, 1\)"),
        ({"confidence": CONFIDENCE * math.nan}, "expected finite confidence, found NaN"),
        ({"predictions": PREDICTIONS * math.nan}, "expected finite boxes, found NaN"),
        ({"targets": TARGETS * math.inf}, "expected finite target boxes"),
    ],
)
def test_consistency_refuses(change, sentence):
    arguments = {"predictions": PREDICTIONS, "targets": TARGETS, "confidence": CONFIDENCE, "tau": 0.9} | change
    with pytest.raises(ValueError, match=sentence):
        consistency_loss(**arguments)


# -- beside the losses ---------------------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_images_whose_label_scores_highest():
    logits = torch.tensor([[1.0, 2, 3], [3, 2, 1], [0, 1, 0], [9, 0, 0]], requires_grad=True)
    share = accuracy(logits, torch.tensor([2, 0, 0, 0]))
    assert share == 0.75 and not share.requires_grad
