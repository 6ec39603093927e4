"""ACoL: what is erased, where gradients go, and the map that both branches make."""

import pytest
import torch
from torch.nn import functional as F

from wsol_lib.acol import ACoL, erase
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import class_activation_map, localize
from wsol_lib.data import load_dataset
from wsol_lib.models import create_backbone
from wsol_lib.train import train


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=32, image_size=64, species_per_family=1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)
    return ACoL(backbone, channels=8).eval()


def trained(birds, seed):
    torch.manual_seed(0)
    model = ACoL(create_backbone("efficientnet_lite0", num_classes=4), channels=16)
    return train(model, birds, epochs=1, batch_size=16, seed=seed)


def test_erasing_written_out_as_a_loop():
    features, maps = torch.randn(2, 3, 4, 5), torch.randn(2, 4, 5)
    erased = erase(features, maps, 0.6)
    for n in range(2):
        lowest, highest = float(maps[n].min()), float(maps[n].max())
        for y in range(4):
            for x in range(5):
                strong = (float(maps[n, y, x]) - lowest) / (highest - lowest) >= 0.6
                for c in range(3):
                    assert float(erased[n, c, y, x]) == (0 if strong else float(features[n, c, y, x]))


@pytest.mark.parametrize("threshold, erased", [(1.0, 1), (0.75, 2), (0.5, 3), (0.0, 5)])
def test_the_threshold_is_reached_not_exceeded(threshold, erased):
    maps = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).view(1, 1, 5)
    assert int((erase(torch.ones(1, 1, 1, 5), maps, threshold) == 0).sum()) == erased


def test_a_map_without_contrast_erases_nothing():
    features = torch.randn(1, 2, 3, 3)
    assert torch.equal(erase(features, torch.full((1, 3, 3), 7.0), 0.7), features)


def test_the_erasing_is_a_constant_to_autograd():
    features = torch.randn(1, 2, 3, 3, requires_grad=True)
    maps = torch.arange(9.0).view(1, 3, 3).requires_grad_()
    erase(features, maps, 0.5).sum().backward()
    assert maps.grad is None
    assert torch.equal(features.grad, (maps < 4).float()[:, None].expand(1, 2, 3, 3))


def test_the_loss_of_b_reaches_b_and_the_trunk_but_not_a(model):
    inputs, labels = torch.randn(2, 3, 96, 96), torch.tensor([0, 1])
    _, (logits_a, logits_b) = model._both(inputs, labels)
    F.cross_entropy(logits_b, labels).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.backbone.head.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.branch_b.parameters())
    assert model.backbone.trunk[0].weight.grad.abs().sum() > 0
    model.zero_grad()
    F.cross_entropy(logits_a, labels).backward()
    assert all(parameter.grad is None for parameter in model.branch_b.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.backbone.head.parameters())


def test_the_loss_is_the_sum_of_both_and_erases_the_map_of_the_label(model):
    inputs, labels = torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 3])
    features, head, b = model.backbone.features(inputs), model.backbone.head, model.branch_b
    values = model.loss(inputs, labels)
    maps = class_activation_map(head[:-1](features), head[-1].weight, labels)
    logits_a, logits_b = head(features), b(erase(features, maps, model.threshold))
    expected = F.cross_entropy(logits_a, labels) + F.cross_entropy(logits_b, labels)
    torch.testing.assert_close(values["loss"], expected)
    assert float(values["accuracy"]) == float((logits_a.argmax(1) == labels).float().mean())
    assert float(values["accuracy_b"]) == float((logits_b.argmax(1) == labels).float().mean())
    assert not values["accuracy"].requires_grad


def test_the_map_is_the_larger_one_of_both_normalised_ones(model):
    inputs, classes = torch.randn(2, 3, 96, 96), torch.tensor([3, 1])
    maps, logits = model.score_maps(inputs, classes)
    features, head, b = model.backbone.features(inputs), model.backbone.head, model.branch_b
    map_a = class_activation_map(head[:-1](features), head[-1].weight, classes)
    map_b = class_activation_map(b[:-1](erase(features, map_a, 0.7)), b[-1].weight, classes)
    assert not torch.equal(normalize_score_maps(map_a), maps.detach())
    torch.testing.assert_close(maps, torch.maximum(normalize_score_maps(map_a), normalize_score_maps(map_b)))
    torch.testing.assert_close(logits, model(inputs))
    predicted = model.score_maps(inputs)[0]
    assert torch.equal(predicted, model.score_maps(inputs, logits.argmax(dim=1))[0])


def test_two_passes_in_eval_mode_give_one_map(model):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for once, again in zip(localize(model, images), localize(model, images)):
        assert torch.equal(once, again)


@pytest.mark.parametrize("name", ["vgg_gap", "resnet50", "inception_v3", "densenet161", "efficientnet_lite0"])
def test_every_backbone_gets_its_branches(name):
    """On the meta device nothing is computed."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=4, pretrained=False)
        model = ACoL(backbone)
        branches = model.backbone.head, model.branch_b
        assert all(branch(torch.zeros(2, backbone.num_features, 3, 3)).shape == (2, 4) for branch in branches)
    assert branches[0][0].weight.shape == branches[1][0].weight.shape == (1024, backbone.num_features, 3, 3)


def test_one_seed_repeats_and_another_differs(birds):
    once = trained(birds, 0)
    assert once == trained(birds, 0)
    assert once != trained(birds, 1)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_its_range(threshold):
    backbone = create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)
    with pytest.raises(ValueError, match=r"expected threshold in \[0, 1\]"):
        ACoL(backbone, threshold=threshold)
