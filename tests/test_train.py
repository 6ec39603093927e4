"""Training a classifier: it learns from labels alone, repeats on one seed, and refuses what cannot work."""

import pytest
import torch

from wsol_lib import train as training
from wsol_lib.adl import ADL
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.data import load_dataset
from wsol_lib.few_shot import foreground
from wsol_lib.has import HideAndSeek
from wsol_lib.models import create_backbone

BIRDS = dict(n_images=32, image_size=32, species_per_family=1, habitat_correlation=1.0)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", **BIRDS)


def train(dataset, seed=0, epochs=2, **options):
    torch.manual_seed(0)
    backbone = create_backbone("efficientnet_lite0", num_classes=4)
    return backbone, training.train(CAM(backbone), dataset, epochs=epochs, batch_size=16, seed=seed, **options)


def test_it_learns(birds):
    backbone, history = train(birds, epochs=6, learning_rate=0.02)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["accuracy"] > 0.8 > 0.5 > history[0]["accuracy"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert not backbone.training


def test_one_seed_repeats_and_another_differs(birds):
    (first, once), (second, again), (_, other) = train(birds), train(birds), train(birds, seed=1)
    assert once == again
    torch.testing.assert_close(first.head.weight, second.head.weight, rtol=0, atol=0)
    assert once != other


@pytest.mark.parametrize("method", [ADL, CutMix, lambda backbone: HideAndSeek(backbone, grid_size=8)])
def test_methods_that_draw_repeat_on_one_seed_too(birds, method):
    def history(seed):
        torch.manual_seed(0)
        model = method(create_backbone("efficientnet_lite0", num_classes=4))
        return training.train(model, birds, epochs=1, batch_size=16, seed=seed)

    assert history(0) == history(0) != history(1)


def test_boxes_and_masks_are_never_looked_at(birds):
    class LabelsOnly(torch.utils.data.Dataset):
        labels, class_names = birds.labels, birds.class_names

        def __len__(self):
            return len(birds)

        def __getitem__(self, i):
            return birds[i]._replace(boxes=None, mask=None)

    assert train(LabelsOnly(), epochs=1)[1] == train(birds, epochs=1)[1]


def test_the_head_learns_faster_than_the_trunk(birds):
    fresh = create_backbone("efficientnet_lite0", num_classes=4)
    frozen, _ = train(birds, learning_rate=1e-12, head_factor=1e10, weight_decay=0.0)
    torch.testing.assert_close(frozen.trunk[0].weight, fresh.trunk[0].weight, rtol=0, atol=1e-7)
    torch.manual_seed(0)
    assert (frozen.head.weight - create_backbone("efficientnet_lite0", num_classes=4).head.weight).abs().max() > 1e-3


def test_targets_are_what_the_method_sees(birds):
    samples = [birds[3], birds[5]]
    assert training.labels(samples).tolist() == birds.labels[[3, 5]].tolist()

    class Spy(CAM):
        def loss(self, inputs, targets):
            seen.append(targets)
            return super().loss(inputs, targets[0])

    seen = []
    spy = Spy(create_backbone("efficientnet_lite0", num_classes=4, pretrained=False))
    training.train(
        spy, birds, epochs=1, batch_size=16, targets=lambda samples: (training.labels(samples), foreground(samples))
    )
    assert [[tuple(part.shape) for part in pair] for pair in seen] == [[(16,), (16, 32, 32)]] * 2


def test_after_every_epoch_the_caller_may_look_at_the_model(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)
    seen = []
    training.train(
        CAM(backbone), birds, epochs=2, batch_size=16, after_epoch=lambda epoch: seen.append((epoch, backbone.training))
    )
    assert seen == [(1, False), (2, False)]


def test_frozen_parameters_stay(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=4)
    backbone.trunk.requires_grad_(False)
    before = backbone.trunk[0].weight.clone()
    training.train(CAM(backbone), birds, epochs=1, batch_size=16, schedule="constant")
    torch.testing.assert_close(backbone.trunk[0].weight, before, rtol=0, atol=0)


def test_an_unknown_schedule(birds):
    with pytest.raises(ValueError, match="expected a schedule out of one-cycle, constant, step, found 'cosine'"):
        train(birds, schedule="cosine")


def test_labels_outside_the_classes_of_the_head(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=3, pretrained=False)
    with pytest.raises(ValueError, match=r"expected labels in 0 ... 2, .* found 0 ... 3: .* num_classes=4"):
        training.train(CAM(backbone), birds, epochs=1)


def test_a_loss_that_explodes_says_what_to_do(birds):
    with pytest.raises(ValueError, match=r"expected a finite training loss, found .* lower learning_rate"):
        train(birds, learning_rate=1e20)
