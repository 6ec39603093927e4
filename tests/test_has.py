"""Hide-and-Seek: patches are hidden one by one, in training alone, and the rest of the image trains."""

import pytest
import torch

from wsol_lib.cam import CAM, localize
from wsol_lib.has import HideAndSeek, hide_patches
from wsol_lib.models import create_backbone


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)


def spied(backbone, monkeypatch, inputs, **options):
    """What the classifier is shown."""
    shown = []
    monkeypatch.setattr(CAM, "loss", lambda self, inputs, targets: shown.append(inputs) or {})
    HideAndSeek(backbone, **options).loss(inputs, torch.zeros(len(inputs), dtype=torch.long))
    return shown[0]


def test_hiding_written_out_as_a_loop():
    inputs, hidden = torch.randn(2, 3, 7, 10), torch.rand(2, 3, 4) < 0.5
    expected = inputs.clone()
    for n in range(2):
        for y in range(7):
            for x in range(10):
                if hidden[n, y // 3, x // 3]:
                    expected[n, :, y, x] = 0
    assert torch.equal(hide_patches(inputs, hidden, 3), expected)


def test_the_images_themselves_stay():
    inputs = torch.ones(1, 3, 4, 4)
    hide_patches(inputs, torch.ones(1, 2, 2, dtype=torch.bool), 2)
    assert (inputs == 1).all()


def test_gradients_reach_what_is_seen_and_nothing_else():
    inputs = torch.randn(1, 1, 4, 4, requires_grad=True)
    hide_patches(inputs, torch.tensor([[[True, False], [False, True]]]), 2).sum().backward()
    expected = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert torch.equal(inputs.grad[0, 0], expected)


@pytest.mark.parametrize("drop_rate", [0.0, 0.25, 1.0])
def test_the_drop_rate_is_the_share_of_hidden_patches(backbone, monkeypatch, drop_rate):
    torch.manual_seed(0)
    shown = spied(backbone, monkeypatch, torch.ones(16, 3, 64, 64), drop_rate=drop_rate, grid_size=4)
    assert float((shown == 0).float().mean()) == pytest.approx(drop_rate, abs=0.02)


def test_each_image_has_patches_of_its_own_of_the_size_asked_for(backbone, monkeypatch):
    shown = spied(backbone, monkeypatch, torch.ones(2, 3, 32, 32), grid_size=16)
    patches = shown.unflatten(3, (2, 16)).unflatten(2, (2, 16))
    assert (patches == patches[:, :1, :, :1, :, :1]).all()
    torch.manual_seed(0)
    shown = spied(backbone, monkeypatch, torch.ones(2, 3, 32, 32), grid_size=4)
    assert (shown[0] != shown[1]).any()


def test_its_map_is_that_of_cam(backbone):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for ours, plain in zip(localize(HideAndSeek(backbone), images), localize(CAM(backbone), images)):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("options", [{"drop_rate": 1.5}, {"grid_size": 0}, {"grid_size": 225}])
def test_a_hyperparameter_outside_its_range(backbone, options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} in \["):
        HideAndSeek(backbone, **options)
