"""Backbones: one interface for every family, and the right weights in the right places."""

import os
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from wsol_lib.data import load_dataset
from wsol_lib.models import BACKBONES, DILATABLE, Backbone, GapLinear, create_backbone

TORCHVISION = ["vgg16", "resnet50", "densenet161", "inception_v3"]


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_forward_is_the_head_on_the_features(name):
    backbone = create_backbone(name, num_classes=7, pretrained=False).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        features = backbone.features(x)
        logits = backbone(x)
    assert features.shape[:2] == (2, backbone.num_features)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(backbone.head(features), logits)


@pytest.mark.parametrize("name, side", [("vgg16", 7), ("vgg_gap", 14), ("resnet50", 7), ("efficientnet_lite0", 7)])
def test_feature_maps_have_the_resolution_of_the_papers(name, side):
    backbone = create_backbone(name, num_classes=3, pretrained=False).eval()
    with torch.inference_mode():
        assert backbone.features(torch.zeros(1, 3, 224, 224)).shape[-2:] == (side, side)


@pytest.mark.parametrize("name", DILATABLE)
def test_a_dilated_backbone_has_the_same_weights_and_twice_the_resolution(name):
    fine = create_backbone(name, num_classes=3, pretrained=False, output_stride=16).eval()
    coarse = create_backbone(name, num_classes=3, pretrained=False, output_stride=32).eval()
    coarse.load_state_dict(fine.state_dict())
    with torch.inference_mode():
        assert fine.features(torch.zeros(1, 3, 64, 64)).shape[-1] == 4
        assert coarse.features(torch.zeros(1, 3, 64, 64)).shape[-1] == 2


@pytest.mark.parametrize("name, stride", [("vgg16", 16), ("resnet50", 8)])
def test_a_stride_the_backbone_cannot_do(name, stride):
    with pytest.raises(ValueError, match=f"expected output_stride 16 or 32 .* found {stride} with {name}"):
        create_backbone(name, pretrained=False, output_stride=stride)


def test_the_gap_head_is_the_mean_of_the_linear_layer_over_positions():
    head, features = GapLinear(5, 3), torch.randn(2, 5, 4, 6)
    everywhere = torch.einsum("nchw,kc->nkhw", features, head.weight) + head.bias[:, None, None]
    torch.testing.assert_close(head(features), everywhere.mean(dim=(2, 3)))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_weights_give_torchvision_logits(name, monkeypatch):
    """The download is replaced by random weights; what is then computed is torchvision's own forward."""
    reference = torchvision.models.get_model(name, weights=None).eval()
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: reference.state_dict())
    backbone = create_backbone(name).eval()
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    reference.transform_input = True  # of InceptionV3; the others ignore it
    imagenet = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        found, expected = backbone(backbone.preprocess(images)), reference(imagenet(images / 255))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # random weights make logits of any size


def test_vgg_gap_starts_from_the_convolutions_of_vgg16(monkeypatch):
    reference = torchvision.models.vgg16(weights=None)
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: reference.state_dict())
    backbone = create_backbone("vgg_gap", num_classes=4)
    torch.testing.assert_close(backbone.trunk[28].weight, reference.features[28].weight)


def test_without_a_network_the_sentence_says_what_is_missing(monkeypatch):
    def no_network(self, **_):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models.ResNet50_Weights, "get_state_dict", no_network)
    with pytest.raises(FileNotFoundError, match=r"expected the ImageNet weights of resnet50 .* use efficientnet_lite0"):
        create_backbone("resnet50")


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"efficientnet_lite0, vgg16, .*found 'resnet5O'"):
        create_backbone("resnet5O")
    with pytest.raises(ValueError, match="num_classes=0"):
        create_backbone("resnet50", num_classes=0)


def test_pretrained_keeps_the_head_only_for_imagenets_classes():
    state = create_backbone("efficientnet_lite0").head.weight
    assert state.shape == (1000, 1280) and state.std() > 0.02  # a fresh layer has 1 / sqrt(3 * 1280) = 0.016
    assert create_backbone("efficientnet_lite0", num_classes=12).head.weight.shape == (12, 1280)


def test_preprocess_is_what_pillow_and_the_weights_expect():
    backbone = create_backbone("efficientnet_lite0", pretrained=False)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32)
    found = backbone.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None], size=224)
    # one grey level of rounding at most
    assert (found[0].permute(1, 2, 0) * 128 + 127 - torch.from_numpy(expected)).abs().max() < 1.01


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_preprocess_refuses_what_is_not_a_batch_of_uint8_images(images):
    with pytest.raises(ValueError, match="expected uint8 images of shape"):
        create_backbone("efficientnet_lite0", pretrained=False).preprocess(images)


@pytest.mark.skipif("WSOL_DATA" not in os.environ, reason="WSOL_DATA is not set: no Tiny-ImageNet to classify")
def test_embedded_weights_classify_tiny_imagenet():
    """54 to 55 % on 1,000 images of the validation set among its 200 classes; wrong padding or scaling loses percents."""
    from timm.data import ImageNetInfo

    dataset = load_dataset("tiny-imagenet", "test")
    backbone: Backbone = create_backbone("efficientnet_lite0").eval()
    imagenet = ImageNetInfo().label_names()
    columns = torch.tensor([imagenet.index(wnid) for wnid in dataset.wnids])
    hits = 0
    with torch.inference_mode():
        for start in range(0, 1000, 100):
            images = torch.stack([dataset[i].image for i in range(start, start + 100)])
            logits = backbone(backbone.preprocess(images, 224))[:, columns]
            hits += int((logits.argmax(dim=1) == dataset.labels[start : start + 100]).sum())
    assert 0.535 <= hits / 1000 <= 0.56
