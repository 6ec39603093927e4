"""CAM: the einsum, its agreement with two independent packages, and what it refuses."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchcam.methods import CAM as TorchCAM

from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, class_activation_map, localize, resize_maps
from wsol_lib.models import create_backbone


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("efficientnet_lite0").eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def cams(backbone, images):
    with torch.inference_mode():
        features = backbone.features(backbone.preprocess(images))
        return class_activation_map(features, backbone.head.weight, torch.tensor([1, 281, 999]))


def test_written_out_as_a_loop():
    features, weight, classes = torch.randn(2, 4, 3, 5), torch.randn(6, 4), torch.tensor([5, 0])
    expected = torch.zeros(2, 3, 5)
    for n in range(2):
        for k in range(4):
            expected[n] += weight[classes[n], k] * features[n, k]
    torch.testing.assert_close(class_activation_map(features, weight, classes), expected)


def test_its_mean_is_the_logit_without_the_bias(backbone, images, cams):
    with torch.inference_mode():
        logits = backbone(backbone.preprocess(images))
    classes = torch.tensor([1, 281, 999])
    expected = logits[torch.arange(3), classes] - backbone.head.bias[classes]
    torch.testing.assert_close(cams.mean(dim=(1, 2)), expected, atol=1e-4, rtol=1e-4)


def test_agrees_with_torchcam(backbone, images, cams):
    with TorchCAM(backbone, target_layer="trunk", fc_layer="head") as extractor:
        logits = backbone(backbone.preprocess(images))
        (theirs,) = extractor([1, 281, 999], logits, normalized=False)
    torch.testing.assert_close(theirs, cams, atol=1e-5, rtol=1e-5)


def test_agrees_with_grad_cam(backbone, images, cams):
    """For GAP and one linear layer Grad-CAM is the positive part of CAM, up to a factor.

    That package normalises its map, enlarges it, and normalises it once more.
    """
    targets = [ClassifierOutputTarget(k) for k in (1, 281, 999)]
    with GradCAM(backbone, [backbone.trunk]) as extractor:
        theirs = extractor(backbone.preprocess(images), targets)
    ours = normalize_score_maps(resize_maps(normalize_score_maps(cams.relu()), (96, 96)))
    np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)


def test_localize_gives_maps_at_the_size_of_the_images_and_the_logits(backbone, images, cams):
    maps, logits = localize(CAM(backbone), images, torch.tensor([1, 281, 999]), batch_size=2)
    torch.testing.assert_close(maps, resize_maps(cams, (96, 96)))
    with torch.inference_mode():
        torch.testing.assert_close(logits, backbone(backbone.preprocess(images)))


def test_localize_takes_the_predicted_class_when_none_is_given(backbone, images):
    maps, logits = localize(CAM(backbone), images)
    torch.testing.assert_close(maps, localize(CAM(backbone), images, logits.argmax(dim=1))[0])


def test_localize_leaves_the_mode_of_the_backbone_as_it_was(images):
    backbone = create_backbone("efficientnet_lite0", num_classes=2, pretrained=False).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    localize(CAM(backbone), images)
    assert backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} moved"


def test_it_refuses_a_head_without_a_cam():
    vgg16 = create_backbone("efficientnet_lite0", num_classes=2, pretrained=False)
    vgg16.head = nn.Sequential(nn.Flatten(), nn.Linear(1280 * 9, 2))
    with pytest.raises(ValueError, match=r"global average pooling .* found Sequential"):
        CAM(vgg16)


@pytest.mark.parametrize(
    "features, weight, classes, sentence",
    [
        ((2, 4, 3, 3), (5, 3), [0, 1], "same C"),
        ((2, 4, 3, 3), (5, 4), [0], "one class for each of 2 images"),
        ((2, 4, 3, 3), (5, 4), [0, 5], "classes in 0 ... 4, found 5"),
        ((2, 4, 3, 3), (5, 4), [-1, 0], "classes in 0 ... 4, found -1"),
    ],
)
def test_shapes_and_classes_that_do_not_fit(features, weight, classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        class_activation_map(torch.zeros(features), torch.zeros(weight), torch.tensor(classes))
