"""Features computed once: the head learns what it would have learnt from the images, and the trunk is given back."""

import pytest
import torch

from wsol_lib import localizers
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.data import load_dataset
from wsol_lib.features import can_stand_for_images, features_once
from wsol_lib.has import HideAndSeek
from wsol_lib.models import BoxRegressor, create_backbone, flat_head
from wsol_lib.pseudo_boxes import WithBoxes
from wsol_lib.psol import relative_boxes
from wsol_lib.train import labels, train

BIRDS = dict(n_images=16, image_size=48, species_per_family=1)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", **BIRDS)


def frozen(classes=4):
    torch.manual_seed(0)
    return create_backbone("efficientnet_lite0", classes, pretrained=False).freeze()


def test_only_what_sees_features_alone_over_a_frozen_trunk_may_do_without_images():
    class Mine(CAM):
        """Derived, and silent on what it shows to the trunk."""

    assert can_stand_for_images(CAM(frozen()))
    assert can_stand_for_images(BoxRegressor(frozen()))
    assert not can_stand_for_images(CAM(create_backbone("efficientnet_lite0", 4, pretrained=False)))
    for method in (Mine, HideAndSeek, CutMix):
        assert not can_stand_for_images(method(frozen()))


@pytest.mark.parametrize("targets", [labels, relative_boxes])
def test_the_loss_is_that_of_the_images(birds, targets):
    def network():
        backbone = frozen()
        return CAM(backbone) if targets is labels else BoxRegressor(backbone.with_head(flat_head(backbone, 48)))

    first, second = network(), network()
    second.load_state_dict(first.state_dict())
    options = dict(epochs=2, batch_size=8, learning_rate=0.01, targets=targets)
    with features_once(first.backbone, birds, 48, mirrored=False) as features:
        once = train(first, features, **options)
    again = train(second, birds, input_size=48, **options)
    for row, other in zip(once, again):
        assert row == pytest.approx(other, rel=0.01, abs=1e-3)  # half precision


def test_mirrored_features_come_with_mirrored_boxes(birds):
    backbone = frozen()
    with features_once(backbone, birds, 48, mirrored=True) as features:
        samples = [features.__getitems__([3])[0] for _ in range(20)]
    one, other = {tuple(sample.boxes[0].tolist()): sample for sample in samples}.values()
    assert one.boxes[0, 0] == pytest.approx(other.image.shape[-1] - other.boxes[0, 2].item())
    assert one.boxes[0, 1] == other.boxes[0, 1]
    image = backbone.preprocess(birds.images([3]), 48)
    expected = [backbone.eval().features(view)[0] for view in (image, image.flip(-1))]
    for sample in (one, other):
        assert min((sample.image.float() - view).abs().max() for view in expected) < 0.01


def test_the_trunk_is_given_back_whatever_happens(birds):
    backbone = frozen()
    trunk = backbone.trunk
    with pytest.raises(RuntimeError), features_once(backbone, birds, 48, mirrored=False):
        raise RuntimeError
    assert backbone.trunk is trunk
    assert backbone.preprocess(birds.images([0]), 48).shape == (1, 3, 48, 48)


def test_a_localizer_over_a_frozen_trunk_takes_this_way_and_no_other_does(birds, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "wsol_lib.localizer.features_once", lambda *arguments: taken.append(arguments[3]) or features_once(*arguments)
    )
    settings = dict(pretrained=False, epochs=1, input_size=48, batch_size=8)
    for augment, freeze in (("flip", "all"), ("none", "all"), ("crop", "all"), ("flip", 2)):
        localizers.fit("cam", birds, augment=augment, freeze=freeze, **settings)
    assert taken == [True, False]


def test_pseudo_boxes_take_the_place_of_the_true_ones(birds):
    boxes = torch.tensor([[6.0, 12, 30, 48]]).repeat(len(birds), 1)
    backbone = frozen()
    with features_once(backbone, WithBoxes(birds, boxes), 48, mirrored=False) as features:
        torch.testing.assert_close(
            relative_boxes(features.__getitems__([0, 1])), torch.tensor([[0.125, 0.25, 0.5, 0.75]] * 2)
        )
