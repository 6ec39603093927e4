"""Attention-based dropout: the two masks, where the layers are, and that they are gone after training."""

from contextlib import ExitStack

import pytest
import torch

from wsol_lib.adl import ADL, drop_mask, importance_map, self_attention
from wsol_lib.cam import CAM, localize
from wsol_lib.models import create_backbone


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)


def maps_behind_its_layers(model, inputs):
    outputs = []
    with ExitStack() as hooks:
        for name in model.layers:
            module = model.backbone.trunk.get_submodule(name)
            handle = module.register_forward_hook(lambda module, arguments, output: outputs.append(output))
            hooks.callback(handle.remove)
        model(inputs)
    return outputs


def test_both_masks_written_out_as_loops():
    features = torch.randn(2, 3, 4, 5)
    attention = self_attention(features)
    assert attention.shape == (2, 1, 4, 5)
    for n in range(2):
        means = [[float(features[n, :, y, x].sum()) / 3 for x in range(5)] for y in range(4)]
        largest = max(max(row) for row in means)
        for y in range(4):
            for x in range(5):
                assert float(attention[n, 0, y, x]) == pytest.approx(means[y][x], abs=1e-6)
                assert float(drop_mask(attention, 0.6)[n, 0, y, x]) == float(means[y][x] < 0.6 * largest)
                expected = 1 / (1 + torch.tensor(-means[y][x]).exp())
                assert float(importance_map(attention)[n, 0, y, x]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("threshold, dropped", [(1.0, 1), (0.75, 2), (0.5, 3), (0.0, 5)])
def test_the_threshold_is_a_share_of_the_maximum(threshold, dropped):
    attention = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).view(1, 1, 1, 5)
    assert int((drop_mask(attention, threshold) == 0).sum()) == dropped


def test_the_drop_mask_is_a_constant_to_autograd_and_the_importance_map_is_not():
    features = torch.rand(1, 3, 4, 4, requires_grad=True)
    mask = drop_mask(self_attention(features), 0.5)
    assert not mask.requires_grad
    (features * mask).sum().backward()
    assert torch.equal(features.grad, mask.expand(1, 3, 4, 4))  # 1 where it is kept, 0 where it is erased
    features.grad = None
    attention = self_attention(features)
    (features * importance_map(attention)).sum().backward()
    # product rule: d/df of sum(f) * s(mean f) over the channels is s + s (1 - s) * mean f
    importance = attention.sigmoid()
    expected = importance + importance * (1 - importance) * attention
    torch.testing.assert_close(features.grad, expected.detach().expand(1, 3, 4, 4))


@pytest.mark.parametrize("drop_rate, mask", [(1.0, lambda attention: drop_mask(attention, 0.9)), (0.0, importance_map)])
def test_the_drop_rate_chooses_between_the_two(backbone, drop_rate, mask):
    """Values and gradients of a layer are those of one mask."""
    features = torch.rand(2, 5, 3, 3, requires_grad=True)
    expected = features * mask(self_attention(features))
    (gradients,) = torch.autograd.grad(expected.square().sum(), features)
    for _ in range(5):
        output = ADL(backbone, drop_rate=drop_rate)._dropout(None, (), features)
        assert torch.equal(output, expected)
        assert torch.equal(torch.autograd.grad(output.square().sum(), features)[0], gradients)


def test_the_drop_rate_is_a_probability(backbone):
    torch.manual_seed(0)
    model, features = ADL(backbone, drop_rate=0.3), torch.rand(1, 2, 3, 3) + 0.1
    erased = sum(bool((model._dropout(None, (), features) == 0).any()) for _ in range(300))
    assert erased == pytest.approx(90, abs=25)


@pytest.mark.parametrize(
    "name, size, stride, maps",
    [
        ("vgg_gap", 224, 16, [(256, 28), (512, 28), (512, 14)]),
        ("vgg_gap", 224, 8, [(256, 28), (512, 28), (512, 28)]),
        ("resnet50", 224, 32, [(1024, 14), (2048, 7), (2048, 7)]),
        ("resnet50", 224, 16, [(1024, 14), (2048, 14), (2048, 14)]),
        ("inception_v3", 299, 32, [(288, 35), (768, 17), (2048, 8)]),
        ("inception_v3", 224, 16, [(288, 28), (768, 14), (1024, 14)]),
        ("densenet161", 224, 32, [(768, 28), (2112, 14), (2208, 7)]),
        ("efficientnet_lite0", 224, 32, [(240, 14), (672, 7), (1280, 7)]),
    ],
)
def test_every_backbone_has_its_places(name, size, stride, maps):
    """(channels, side) of the three maps; on the meta device nothing is computed."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=4, pretrained=False, output_stride=stride).eval()
        outputs = maps_behind_its_layers(ADL(backbone), torch.zeros(1, 3, size, size))
    assert [(*output.shape[1:3],) for output in outputs] == maps


def test_its_layers_are_behind_relus_the_last_one_at_the_last_map(backbone):
    inputs = torch.randn(1, 3, 64, 64)
    outputs = maps_behind_its_layers(ADL(backbone).eval(), inputs)
    assert all((output >= 0).all() and (output > 0).any() for output in outputs)
    torch.testing.assert_close(outputs[-1], backbone.features(inputs))


def test_its_layers_work_in_the_loss_and_are_gone_afterwards(backbone, monkeypatch):
    calls = []
    monkeypatch.setattr(ADL, "_dropout", lambda self, module, arguments, features: calls.append(module))
    model = ADL(backbone).train()
    inputs, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    model.loss(inputs, labels)
    assert calls == [backbone.trunk.get_submodule(name) for name in model.layers]
    model(inputs)
    with pytest.raises(IndexError):
        model.loss(inputs, torch.tensor([0, 99]))  # a loss that fails takes its layers with it
    assert len(calls) == 6 and not any(module._forward_hooks for module in backbone.modules())
    assert model.state_dict().keys() == CAM(backbone).state_dict().keys()


def test_its_map_is_that_of_cam(backbone):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for ours, plain in zip(localize(ADL(backbone), images), localize(CAM(backbone), images)):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("options", [{"drop_rate": -0.5}, {"threshold": 1.5}])
def test_a_hyperparameter_outside_its_range(backbone, options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} in \[0, 1\]"):
        ADL(backbone, **options)


def test_a_backbone_without_known_places(backbone):
    other = create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)
    other.trunk = torch.nn.Sequential(other.trunk)
    with pytest.raises(ValueError, match="expected a backbone out of vgg_gap, resnet50"):
        ADL(other)
