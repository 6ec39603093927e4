"""Bilinear attention pooling: against a loop, under every trunk, and what cannot have it."""

import math

import pytest
import torch

from wsol_lib import attention_pooling
from wsol_lib.attention_pooling import AttentionPooling, bilinear_attention_pooling, create_bap
from wsol_lib.models import BACKBONES

CLASSES = 6


def test_pooling_is_a_loop_over_maps_channels_and_places():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, generator=generator)
    attention = torch.rand(2, 2, 3, 4, generator=generator)
    expected = torch.zeros(2, 10)
    for n in range(2):
        for m in range(2):
            for c in range(5):
                mean = sum(float(attention[n, m, y, x] * features[n, c, y, x]) for y in range(3) for x in range(4)) / 12
                expected[n, 5 * m + c] = math.copysign(math.sqrt(abs(mean)), mean)
        expected[n] /= math.sqrt(sum(float(value) ** 2 for value in expected[n]))
    torch.testing.assert_close(bilinear_attention_pooling(features, attention), expected, atol=1e-5, rtol=0)


def test_pooling_of_zeros_is_zeros_with_a_finite_gradient():
    features = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooled = bilinear_attention_pooling(features, torch.ones(1, 2, 3, 3))
    pooled.sum().backward()
    assert (pooled == 0).all() and torch.isfinite(features.grad).all()


def test_the_head_multiplies_the_pooled_vector_before_its_linear_layer():
    head, features = AttentionPooling(7, CLASSES, 3, factor=10.0).eval(), torch.randn(2, 7, 4, 4)
    pooled = bilinear_attention_pooling(features, head.attention(features))
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(head(features), 10 * pooled @ head.linear.weight.T + head.linear.bias)
    assert (head.attention(features) >= 0).all()


@pytest.mark.parametrize(
    "name, side, cells",
    [("efficientnet_lite0", 224, 14), ("resnet50", 224, 14), ("vgg19_bn", 224, 14), ("inception_v3", 299, 17)],
)
def test_every_backbone_is_cut_at_sixteen_pixels_a_cell(name, side, cells):
    with torch.device("meta"):
        backbone = create_bap(name, CLASSES, pretrained=False).eval()
        images = torch.zeros(1, 3, side, side)
        assert backbone.features(images).shape == (1, attention_pooling.CHANNELS[name], cells, cells)
        assert backbone.attention_maps(images).shape == (1, 32, cells, cells)
        assert backbone(images).shape == (1, CLASSES)
    assert backbone.input_size == side and backbone.num_features == attention_pooling.CHANNELS[name]


def test_a_trunk_is_cut_out_of_the_whole_with_its_normalisation_and_weights():
    whole = BACKBONES["efficientnet_lite0"](1000, True)
    backbone = create_bap("efficientnet_lite0", CLASSES)
    assert torch.equal(backbone.mean, whole.mean) and torch.equal(backbone.std, whole.std)
    theirs = whole.trunk.state_dict()
    for name, value in backbone.trunk.state_dict().items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(
    "name, maps, sentence",
    [
        ("vgg16", 32, "expected a backbone out of inception_v3, .*found 'vgg16'"),
        ("resnet50", 0, "attention map, found 0"),
    ],
)
def test_what_cannot_have_attention_pooling(name, maps, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_bap(name, CLASSES, maps, pretrained=False)
