"""SPG: the masks, who learns from whom, and where the branches stand."""

import pytest
import torch

from wsol_lib.cam import CAM, localize
from wsol_lib.data import load_dataset
from wsol_lib.models import create_backbone
from wsol_lib.spg import SPG, guidance_mask, guided_loss, last_map_before_the_end
from wsol_lib.train import train


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=32, image_size=64, species_per_family=1)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return create_backbone("efficientnet_lite0", num_classes=4, pretrained=False).eval()


def trained(birds, seed):
    torch.manual_seed(0)
    model = SPG(create_backbone("efficientnet_lite0", num_classes=4), channels=16)
    return train(model, birds, epochs=1, batch_size=16, seed=seed)


@pytest.mark.parametrize("low, high", [(0.3, 0.6), (0.5, 0.5), (0.0, 1.0), (0.9, 0.95)])
def test_the_mask_written_out_as_a_loop(low, high):
    maps = torch.rand(3, 64, 64)
    maps[1] *= 0.55  # never above 0.6
    maps[2] = 0.2
    maps[2, 0, :2] = 1.0  # above, but of 64 x 64 pixels at least 2.45 have to be
    mask = guidance_mask(maps, low, high)
    for n in range(3):
        values = maps[n].flatten().tolist()
        bar = high if sum(value > high for value in values) >= 30 / 224**2 * 64**2 else 0.7 * max(values)
        expected = [0.0 if value < low else 1.0 if value > bar else -1.0 for value in values]
        assert mask[n].flatten().tolist() == expected


def test_what_lies_on_a_threshold_is_left_open():
    """Above and below are strict. Half of the map is above, so that the foreground is not made of something else."""
    maps = torch.tensor([[[0.25, 0.5, 0.125, 0.75], [1.0, 1.0, 1.0, 1.0]]])
    assert guidance_mask(maps, low=0.25, high=0.5)[0, 0].tolist() == [-1, -1, 0, 1]
    assert guidance_mask(maps, low=0.5, high=0.5)[0, 0].tolist() == [0, -1, 0, 1]


def test_a_map_of_224_pixels_needs_30_above_the_threshold():
    maps = torch.full((2, 224, 224), 0.6)
    maps[0, 0, :29], maps[1, 0, :30] = 0.8, 0.8
    assert [int((mask == 1).sum()) for mask in guidance_mask(maps, 0.1, 0.7)] == [224 * 224, 30]


def test_the_guided_loss_written_out_as_a_loop():
    scores, mask = torch.randn(2, 3, 3), torch.randint(-1, 2, (2, 3, 3)).float()
    losses = []
    for score, told in zip(scores.flatten(), mask.flatten()):
        if told >= 0:
            losses.append(-float(torch.log(torch.sigmoid(score if told == 1 else -score))))
    assert float(guided_loss(scores, mask)) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_what_is_open_costs_nothing():
    scores = torch.randn(1, 2, 2, requires_grad=True)
    mask = torch.tensor([[[1.0, -1.0], [0.0, -1.0]]])
    guided_loss(scores, mask).backward()
    assert torch.equal(scores.grad != 0, mask >= 0)
    assert float(guided_loss(scores.detach(), torch.full((1, 2, 2), -1.0))) == 0


def test_the_mask_is_a_constant_to_autograd():
    assert not guidance_mask(torch.rand(1, 4, 4, requires_grad=True), 0.2, 0.7).requires_grad


@pytest.mark.parametrize("branch, own", [("b2", ("b2", "shared")), ("b1", ("b1", "shared")), ("c", ("c",))])
def test_what_teaches_a_branch_gets_no_gradient_from_it(backbone, branch, own):
    model = SPG(backbone, channels=8, low_b1=0.5, low_b2=0.5, low_c=0.6)
    _, guidance = model.guidance(torch.randn(2, 3, 96, 96), torch.tensor([0, 1]))
    scores, mask = guidance[branch]
    assert (mask >= 0).any() and not mask.requires_grad
    guided_loss(scores, mask).backward()
    for name in ("b1", "b2", "shared", "c"):
        grads = [parameter.grad for parameter in getattr(model, name).parameters()]
        assert all((grad is not None) == (name in own) for grad in grads)
    assert model.backbone.head.weight.grad is None
    assert backbone.trunk[0].weight.grad.abs().sum() > 0


def test_a_teaches_b2_teaches_b1_and_both_teach_c(backbone):
    """At equal ends of a pair nothing is open, and each mask shows what its teacher is above."""
    half = {f"{end}_{branch}": 0.5 for end in ("low", "high") for branch in ("b1", "b2", "c")}
    model = SPG(backbone, channels=8, **half)
    inputs, classes = torch.randn(3, 3, 96, 96), torch.tensor([0, 1, 3])
    logits, guidance = model.guidance(inputs, classes)
    torch.testing.assert_close(logits, backbone(inputs))
    (b2, of_a), (b1, of_b2), (_, of_both) = guidance["b2"], guidance["b1"], guidance["c"]
    maps = torch.nn.functional.interpolate(model.score_maps(inputs, classes)[0][:, None], 96, mode="bilinear")[:, 0]
    lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    assert torch.equal(of_a, guidance_mask((maps - lowest) / (highest - lowest), 0.5, 0.5))
    assert torch.equal(of_b2, guidance_mask(b2.sigmoid(), 0.5, 0.5))
    assert torch.equal(of_both, guidance_mask((b1.sigmoid() + b2.sigmoid()) / 2, 0.5, 0.5))


def test_each_pair_of_thresholds_is_that_of_its_branch(backbone):
    inputs, classes = torch.randn(2, 3, 96, 96), torch.tensor([0, 1])
    plain = SPG(backbone, channels=8)
    for branch in ("b1", "b2", "c"):
        other = SPG(backbone, channels=8, **{f"low_{branch}": 1.0, f"high_{branch}": 1.0})
        other.load_state_dict(plain.state_dict())
        ours, theirs = plain.guidance(inputs, classes)[1], other.guidance(inputs, classes)[1]
        assert [name for name in ours if not torch.equal(ours[name][1], theirs[name][1])] == [branch]


def test_the_loss_is_the_sum_of_all_four(backbone):
    model, inputs, labels = SPG(backbone, channels=8), torch.randn(2, 3, 96, 96), torch.tensor([0, 3])
    values, (logits, guidance) = model.loss(inputs, labels), model.guidance(inputs, labels)
    guided = sum(guided_loss(scores, mask) for scores, mask in guidance.values())
    torch.testing.assert_close(values["loss"], torch.nn.functional.cross_entropy(logits, labels) + guided)
    torch.testing.assert_close(values["guidance"], guided.detach())
    assert set(values) == {"loss", "accuracy", "guidance"} and not values["guidance"].requires_grad


def test_its_map_is_that_of_cam_and_repeats(backbone):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    model = SPG(backbone, channels=8)
    for ours, again, plain in zip(localize(model, images), localize(model, images), localize(CAM(backbone), images)):
        assert torch.equal(ours, plain) and torch.equal(ours, again)


@pytest.mark.parametrize(
    "name, size, stride, place, channels, side",
    [
        ("vgg_gap", 224, 16, "22", 512, 28),
        ("resnet50", 224, 32, "6.5", 1024, 14),
        ("resnet50", 224, 16, "5.3", 512, 28),
        ("inception_v3", 299, 32, "14", 768, 17),
        ("inception_v3", 224, 16, "9", 288, 28),
        ("densenet161", 224, 32, "0.transition3.conv", 1056, 14),
        ("efficientnet_lite0", 224, 32, "2.4.2", 112, 14),
    ],
)
def test_where_b1_stands_on_every_backbone(name, size, stride, place, channels, side):
    """On the meta device nothing is computed."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=4, pretrained=False, output_stride=stride).eval()
        model = SPG(backbone)
        features, middle = model._features(torch.zeros(1, 3, size, size))
        assert model.b1(middle).shape == (1, 512, side, side) and model.b2(features).shape[1] == 512
    assert (model.place, middle.shape[1]) == (place, channels)
    assert not any(module._forward_hooks for module in backbone.modules())


def test_looking_for_the_place_leaves_the_trunk_as_it_was(backbone):
    before = {name: value.clone() for name, value in backbone.train().state_dict().items()}
    last_map_before_the_end(backbone.trunk)
    assert backbone.trunk.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_one_seed_repeats_and_another_differs(birds):
    once = trained(birds, 0)
    assert once == trained(birds, 0)
    assert once != trained(birds, 1)


def test_a_threshold_outside_its_range(backbone):
    with pytest.raises(ValueError, match=r"expected high_c in \[0, 1\], found 1.5"):
        SPG(backbone, high_c=1.5)
    assert list(SPG.search_space) == ["low_b1", "high_b1", "low_b2", "high_b2", "low_c", "high_c"]


@pytest.mark.parametrize("branch", ["b1", "b2", "c"])
def test_a_low_threshold_above_its_high_one(backbone, branch):
    with pytest.raises(ValueError, match=rf"expected low_{branch} in \[0, 0.4\], not above high_{branch}, found 0.6"):
        SPG(backbone, **{f"low_{branch}": 0.6, f"high_{branch}": 0.4})


def test_a_trunk_of_one_piece(backbone):
    backbone.trunk = backbone.trunk[0]
    with pytest.raises(ValueError, match="expected a trunk of modules one after another"):
        SPG(backbone)
