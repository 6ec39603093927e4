"""The baselines without learning."""

import os

import pytest
import torch

from wsol_lib.baselines import centre_gaussian_maps, centred_boxes
from wsol_lib.boxes import boxes_from_score_maps, localized
from wsol_lib.data import load_dataset
from wsol_lib.metrics import MaxBoxAcc


def test_a_centred_box_is_a_fraction_of_both_sides():
    assert centred_boxes(torch.tensor([[10, 20], [8, 8]]), 0.5).tolist() == [[2.5, 5, 7.5, 15], [2, 2, 6, 6]]
    assert centred_boxes(torch.tensor([[10, 20]]), 1.0).tolist() == [[0, 0, 10, 20]]


@pytest.mark.parametrize("fraction", [0, 1.1, float("nan")])
def test_a_fraction_outside_the_image(fraction):
    with pytest.raises(ValueError, match=r"expected a fraction .* in \(0, 1\]"):
        centred_boxes(torch.tensor([[10, 20]]), fraction)


def test_a_gaussian_spans_zero_to_one_and_is_symmetric():
    (first, second) = centre_gaussian_maps(2, 5, 8)
    assert first.min() == 0 and first.max() == 1
    assert torch.equal(first, second) and torch.allclose(first, first.flip(0)) and torch.allclose(first, first.flip(1))


@pytest.mark.parametrize("tau", [0.0, 0.2, 0.5, 0.9])
def test_its_boxes_are_centred(tau):
    x1, y1, x2, y2 = boxes_from_score_maps(centre_gaussian_maps(1, 40, 64), tau)[0].tolist()
    assert x1 + x2 == 64 and y1 + y2 == 40


@pytest.mark.skipif("WSOL_DATA" not in os.environ, reason="WSOL_DATA is not set: no Tiny-ImageNet to measure")
def test_on_all_validation_boxes_of_tiny_imagenet():
    data = load_dataset("tiny-imagenet", "test")
    assert len(data) == 10_000
    assert f"{localized(centred_boxes(data.image_sizes, 1.0), data.boxes).float().mean():.3f}" == "0.521"
    metric = MaxBoxAcc()
    metric.update(centre_gaussian_maps(len(data), 64, 64), data.boxes)
    assert f"{metric.compute():.3f}" == "0.571"
