"""ACoL: what is erased, where gradients go, and how the two maps become one."""

import pytest
import torch

from wsol_lib.acol import ACoL, erase
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.data import load_dataset
from wsol_lib.models import create_backbone
from wsol_lib.train import train


def acol(**options):
    torch.manual_seed(0)
    return ACoL(create_backbone("efficientnet_lite0", num_classes=4), channels=8, **options)


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_erasing_written_out_as_a_loop():
    features, maps = torch.rand(2, 3, 4, 5), torch.randn(2, 4, 5)
    expected = features.clone()
    for n in range(2):
        low, high = maps[n].min(), maps[n].max()
        for y in range(4):
            for x in range(5):
                if (maps[n, y, x] - low) / (high - low) >= 0.6:
                    expected[n, :, y, x] = 0
    torch.testing.assert_close(erase(features, maps, 0.6), expected)


def test_what_is_erased_is_a_constant_to_autograd():
    features, maps = torch.rand(1, 2, 3, 3, requires_grad=True), torch.randn(1, 3, 3, requires_grad=True)
    erased = erase(features, maps, 0.5)
    erased.sum().backward()
    assert maps.grad is None
    torch.testing.assert_close(features.grad, (erased != 0).float())


def test_the_second_branch_does_not_teach_the_first(inputs):
    model = acol().train()
    features = model.backbone.features(inputs).detach()
    _, maps = model.first(features, torch.tensor([0, 3]))
    model.second(erase(features, maps, model.threshold))[0].sum().backward()
    assert all(parameter.grad is None for parameter in model.first.parameters())
    assert all(parameter.grad is not None for parameter in model.second.convolutions.parameters())


def test_the_loss_is_the_sum_of_both_cross_entropies(inputs):
    model, labels = acol().eval(), torch.tensor([0, 3])
    features = model.backbone.features(inputs)
    first, maps = model.first(features, labels)
    second, _ = model.second(erase(features, maps, 0.7))
    expected = torch.nn.functional.cross_entropy(first, labels) + torch.nn.functional.cross_entropy(second, labels)
    torch.testing.assert_close(model.loss(inputs, labels)["loss"], expected)
    torch.testing.assert_close(model(inputs), first)


def test_the_score_map_is_the_larger_of_both_normalised_maps(inputs):
    model, labels = acol().eval(), torch.tensor([1, 2])
    maps, logits = model.score_maps(inputs, labels)
    features = model.backbone.features(inputs)
    _, first = model.first(features, labels)
    _, second = model.second(erase(features, first, 0.7), labels)
    first, second = normalize_score_maps(first), normalize_score_maps(second)
    assert (maps >= first).all() and (maps >= second).all() and ((maps == first) | (maps == second)).all()
    torch.testing.assert_close(model.score_maps(inputs)[0], model.score_maps(inputs, logits.argmax(1))[0])


@pytest.mark.parametrize("name", ["vgg_gap", "resnet50", "densenet161"])
def test_it_works_on_other_backbones(name):
    model = ACoL(create_backbone(name, num_classes=3, pretrained=False), channels=4).eval()
    maps, logits = model.score_maps(torch.randn(1, 3, 64, 64))
    assert maps.ndim == 3 and logits.shape == (1, 3)


def test_one_seed_repeats_and_another_differs():
    birds = load_dataset("synthbirds", "train-weaksup", n_images=16, image_size=64, species_per_family=1)

    def history(seed):
        return train(acol(), birds, epochs=1, batch_size=8, seed=seed)

    once = history(0)
    assert once == history(0) != history(1)
    assert {"epoch", "loss", "accuracy", "accuracy_second"} == set(once[0])


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match=r"expected threshold in \[0, 1\], found"):
        acol(threshold=threshold)
