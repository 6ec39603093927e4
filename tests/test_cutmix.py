"""CutMix: a rectangle of another image and its share of the label, in training alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wsol_lib import cutmix
from wsol_lib.cam import CAM, localize
from wsol_lib.cutmix import CutMix, mixed_cross_entropy, paste, random_rectangle
from wsol_lib.models import create_backbone


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)


def test_pasting_written_out_as_a_loop():
    inputs, others = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    expected = inputs.clone()
    for y in range(5):
        for x in range(8):
            if 1 <= y < 4 and 2 <= x < 8:
                expected[:, :, y, x] = others[:, :, y, x]
    before = inputs.clone()
    mixed, share = paste(inputs, others, (2, 1, 8, 4))
    assert torch.equal(mixed, expected) and torch.equal(inputs, before)
    assert share == 1 - 18 / 40


def test_gradients_reach_the_pixels_that_are_seen_and_nothing_else():
    inputs, others = torch.zeros(1, 1, 3, 3, requires_grad=True), torch.zeros(1, 1, 3, 3, requires_grad=True)
    paste(inputs, others, (0, 0, 2, 1))[0].sum().backward()
    assert torch.equal(others.grad[0, 0], torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert torch.equal(inputs.grad, 1 - others.grad)


def test_a_rectangle_worked_out_by_hand(monkeypatch):
    """lambda = 0.75: sides half the image's, 10 x 20 pixels, round (3, 30) in an image of 20 x 40."""
    centre = iter([3, 30])
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.75)
    monkeypatch.setattr(np.random, "randint", lambda side: next(centre))
    assert random_rectangle(20, 40, 1.0) == (20, 0, 40, 8)


@pytest.mark.parametrize("size_prior, deviation", [(1e-6, 0.5), (1.0, 12**-0.5), (1e6, 0.0)])
def test_the_size_prior_spreads_the_areas(size_prior, deviation):
    """Beta(a, a) has mean 1/2 and variance 1 / (8 a + 4), which is 1/4 for a tiny a and 0 for a huge one."""
    np.random.seed(0)
    shares = np.random.beta(size_prior, size_prior, 4000)
    assert shares.mean() == pytest.approx(0.5, abs=0.03) and shares.std() == pytest.approx(deviation, abs=0.02)
    boxes = np.array([random_rectangle(224, 224, size_prior) for _ in range(500)])
    assert (boxes >= 0).all() and (boxes <= 224).all()
    assert (boxes[:, 2:] - boxes[:, :2]).max() <= (224 if size_prior < 10 else 159)


def test_the_loss_written_out_as_a_loop():
    logits, labels, others = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 3, 1])
    expected, right = 0.0, 0.0
    for n in range(3):
        for label, share in ((labels[n], 0.7), (others[n], 0.3)):
            expected -= share * float(F.log_softmax(logits[n], dim=0)[label]) / 3
            right += share * float(logits[n].argmax() == label) / 3
    values = mixed_cross_entropy(logits, labels, others, 0.7)
    assert float(values["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(values["accuracy"]) == pytest.approx(right)


def test_images_and_labels_are_mixed_in_the_same_order(backbone, monkeypatch):
    """The images carry their labels as colours, so each mixed image says whose label it has to count."""
    labels = torch.arange(8)
    inputs = labels.float().view(8, 1, 1, 1).expand(8, 3, 16, 16)
    seen = {}
    monkeypatch.setattr(CutMix, "forward", lambda self, mixed: seen.update(mixed=mixed) or torch.zeros(8, 8))
    monkeypatch.setattr(cutmix, "mixed_cross_entropy", lambda logits, *rest: seen.update(rest=rest))
    monkeypatch.setattr(cutmix, "random_rectangle", lambda height, width, prior: (2, 4, 8, 16))
    torch.manual_seed(0)
    CutMix(backbone).loss(inputs, labels)
    first, second, share = seen["rest"]
    assert share == 1 - 6 * 12 / 256
    assert torch.equal(first, labels) and torch.equal(seen["mixed"][:, 0, 0, 0].long(), first)
    assert not torch.equal(second, labels) and torch.equal(seen["mixed"][:, 2, 15, 7].long(), second)


@pytest.mark.parametrize(
    "options, mixed", [({"mix_rate": 0.0}, 0), ({"mix_rate": 0.25}, 50), ({"size_prior": 0.0}, 0), ({}, 200)]
)
def test_the_mix_rate_is_the_share_of_mixed_batches(backbone, monkeypatch, options, mixed):
    calls = []
    monkeypatch.setattr(CutMix, "forward", lambda self, inputs: torch.zeros(2, 4))
    monkeypatch.setattr(cutmix, "paste", lambda inputs, others, rectangle: calls.append(1) or (inputs, 1.0))
    np.random.seed(0)
    model = CutMix(backbone, **options)
    for _ in range(200):
        model.loss(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    assert len(calls) == pytest.approx(mixed, abs=15)


def test_its_map_is_that_of_cam(backbone):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for ours, plain in zip(localize(CutMix(backbone), images), localize(CAM(backbone), images)):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("options", [{"mix_rate": 1.5}, {"size_prior": -0.5}])
def test_a_hyperparameter_outside_its_range(backbone, options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} in \["):
        CutMix(backbone, **options)
