"""CAM beside a map of objects: what the head learns, what it leaves alone, and what becomes of its map."""

import pytest
import torch

from wsol_lib import localizers
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM
from wsol_lib.data import load_dataset
from wsol_lib.guided import GuidedCAM
from wsol_lib.models import Backbone, create_backbone

SMALL = dict(epochs=0, input_size=64, batch_size=8, pretrained=False, augment="flip", passes=2, channels=8)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-fullsup", n_images=16, image_size=64, species_per_family=1)


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def guided(**own):
    torch.manual_seed(0)
    return GuidedCAM(create_backbone("efficientnet_lite0", num_classes=4, pretrained=False), **own).eval()


@torch.no_grad()
def test_without_a_share_of_objects_it_is_cam(inputs):
    model, classes = guided(share=0.0), torch.tensor([0, 1, 2])
    maps, logits = model.score_maps(inputs, classes)
    plain, same = CAM(model.backbone).eval().score_maps(inputs, classes)
    torch.testing.assert_close(maps, normalize_score_maps(plain))
    assert torch.equal(logits, same)


@torch.no_grad()
def test_both_maps_are_normalised_before_they_are_mixed(inputs):
    maps = [guided(share=share).score_maps(inputs, torch.tensor([0, 1, 2]))[0] for share in (0.0, 1.0, 0.25)]
    for own in maps[:2]:
        assert torch.equal(own.flatten(1).aminmax(dim=1).max, torch.ones(3))
    torch.testing.assert_close(maps[2], 0.75 * maps[0] + 0.25 * maps[1])
    assert not torch.allclose(maps[0], maps[1])


def test_the_head_learns_boxes_and_nothing_else_moves(birds):
    fitted = localizers.fit("wsol_lib.guided:Guided", birds, birds, **SMALL)
    untrained = localizers.fit("wsol_lib.guided:Guided", birds, birds, **SMALL | {"passes": 0})
    assert [row["epoch"] for row in fitted.history] == [1, 2] and not untrained.history
    assert fitted.history[1]["loss"] < fitted.history[0]["loss"]
    before = untrained.network.state_dict()
    changed = {name for name, value in fitted.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"objects.{place}.{part}" for place in (0, 2) for part in ("weight", "bias")}


def test_the_training_sees_features_once(birds, monkeypatch):
    seen, features = [], Backbone.features
    monkeypatch.setattr(
        Backbone, "features", lambda self, inputs: (seen.append(inputs.shape[-1]), features(self, inputs))[1]
    )
    localizers.fit("wsol_lib.guided:Guided", birds, birds, **SMALL | {"passes": 3, "tau": 0.3})
    assert seen.count(64) == 2  # the images, and their mirror images


def test_it_is_saved_and_loaded(birds, tmp_path):
    fitted = localizers.fit("wsol_lib.guided:Guided", birds, birds, **SMALL)
    fitted.save(tmp_path / "guided")
    images = birds.images(range(4))
    again = localizers.load(tmp_path / "guided").predict(images, birds.labels[:4])
    assert torch.equal(fitted.predict(images, birds.labels[:4]).score_maps, again.score_maps)


@pytest.mark.parametrize("boxed", [None, "without"])
def test_without_boxed_images_it_says_what_to_give(birds, boxed):
    with pytest.raises(ValueError, match="expected box"):
        localizers.fit("wsol_lib.guided:Guided", birds, boxed and _without_boxes(birds), **SMALL)


def _without_boxes(birds):
    bare = load_dataset("synthbirds", "train-fullsup", n_images=4, image_size=64, species_per_family=1)
    bare.boxes = [own[:0] for own in bare.boxes]
    return bare
