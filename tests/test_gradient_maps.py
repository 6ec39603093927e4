"""Gradient maps: the three sums, their agreement with CAM and with two independent packages, and any head."""

import numpy as np
import pytest
import tiny
import torch
import torchcam.methods as torchcam
from pytorch_grad_cam import GradCAM as TheirGradCAM
from pytorch_grad_cam import GradCAMPlusPlus as TheirGradCAMPlusPlus
from pytorch_grad_cam import LayerCAM as TheirLayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F

from wsol_lib import localizers
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, localize, resize_maps
from wsol_lib.data import load_dataset
from wsol_lib.gradient_maps import (
    FusedLayerCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    grad_cam,
    grad_cam_plus_plus,
    layer_cam,
)
from wsol_lib.models import Backbone, create_backbone

METHODS = [GradCAM, GradCAMPlusPlus, LayerCAM]
CLASSES = torch.tensor([1, 281, 999])
EARLIER = "2.5"  # a stage of efficientnet_lite0; what its blocks give is signed


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("efficientnet_lite0").eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(backbone, images):
    return backbone.preprocess(images)


@pytest.fixture(scope="module")
def fully_connected():
    """As vgg16, small: a head whose layers work in place and keep the places of the map apart."""
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)
    )
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(inplace=True), nn.Linear(8, 5)
    )
    return Backbone(trunk, head, 6).eval()


@pytest.mark.parametrize("function", [grad_cam, grad_cam_plus_plus, layer_cam])
def test_written_out_as_a_loop(function):
    features, gradients = torch.rand(2, 3, 2, 4), torch.randn(2, 3, 2, 4)
    expected = torch.zeros(2, 2, 4)
    places = [(y, x) for y in range(2) for x in range(4)]
    for n in range(2):
        for k in range(3):
            a, g = features[n, k], gradients[n, k]
            if function is grad_cam:
                weight = sum(g[p] for p in places) / 8
            else:  # Grad-CAM++ Eq. 19, then the sum of alpha ReLU(g)
                alpha = {p: g[p] ** 2 / (2 * g[p] ** 2 + a.sum() * g[p] ** 3) for p in places}
                weight = sum(alpha[p] * max(g[p], 0) for p in places)
            for p in places:
                expected[n][p] += (max(g[p], 0) if function is layer_cam else weight) * a[p]
    torch.testing.assert_close(function(features, gradients), expected.clamp(min=0))


def test_without_gradients_the_maps_are_zero_and_finite():
    features = torch.rand(1, 3, 2, 2)
    for function in (grad_cam, grad_cam_plus_plus, layer_cam):
        assert torch.equal(function(features, torch.zeros(1, 3, 2, 2)), torch.zeros(1, 2, 2))


def test_for_a_gap_head_grad_cam_is_the_positive_part_of_cam(backbone, inputs):
    plain, logits = CAM(backbone).score_maps(inputs, CLASSES)
    maps, same = GradCAM(backbone).score_maps(inputs, CLASSES)
    torch.testing.assert_close(maps, plain.relu() / 9, atol=1e-5, rtol=1e-4)  # 3 x 3 cells
    torch.testing.assert_close(same, logits)


@pytest.mark.parametrize(
    "method, theirs", [(GradCAM, torchcam.GradCAM), (LayerCAM, torchcam.LayerCAM)], ids=["GradCAM", "LayerCAM"]
)
@pytest.mark.parametrize("layer", [None, EARLIER])
def test_agrees_with_torchcam(backbone, inputs, method, theirs, layer):
    """Not Grad-CAM++: torchcam 0.5 divides a copy in it, and so weighs with the cubes of the gradients."""
    with theirs(backbone, target_layer=f"trunk.{layer}" if layer else "trunk") as extractor:
        (expected,) = extractor(CLASSES.tolist(), backbone(inputs), normalized=False)
    maps, _ = method(backbone, layer=layer).score_maps(inputs, CLASSES)
    torch.testing.assert_close(maps, expected.relu(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "method, theirs", [(GradCAM, TheirGradCAM), (GradCAMPlusPlus, TheirGradCAMPlusPlus), (LayerCAM, TheirLayerCAM)]
)
@pytest.mark.parametrize("head", ["GAP", "fully connected"])
def test_agrees_with_grad_cam(backbone, fully_connected, images, method, theirs, head):
    """That package normalises, enlarges, and normalises once more.

    Its Grad-CAM++ adds 1e-6 to a denominator of about the gradients' square; large logits make that vanish, and they leave the
    other two maps as they are.
    """
    model = backbone if head == "GAP" else fully_connected
    inputs = model.preprocess(images)
    classes = [int(k) % model(inputs).shape[1] for k in CLASSES]
    loud = Backbone(model.trunk, nn.Sequential(model.head, Louder()), model.num_features).eval()
    with theirs(loud, [loud.trunk]) as extractor:
        expected = extractor(inputs, [ClassifierOutputTarget(k) for k in classes])
    maps, _ = method(loud).score_maps(inputs, torch.tensor(classes))
    ours = normalize_score_maps(resize_maps(normalize_score_maps(maps), (96, 96)))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


class Louder(nn.Module):
    def forward(self, logits):
        return 1e5 * logits


@pytest.mark.parametrize("method", METHODS)
def test_an_earlier_layer_is_seen_before_the_next_one_works_on_it_in_place(fully_connected, inputs, method):
    """Layer 0 is a convolution, followed by a ReLU in place: the map is that of the convolution's signed output."""
    maps, logits = method(fully_connected, layer="0").score_maps(inputs, torch.tensor([0, 1, 2]))
    features = fully_connected.trunk[0](inputs).detach().requires_grad_()
    root = fully_connected.head(fully_connected.trunk[1:](features.clone()))
    (gradients,) = torch.autograd.grad(root[[0, 1, 2], [0, 1, 2]].sum(), features)
    assert (features < 0).any()
    torch.testing.assert_close(maps, method.weigh(features.detach(), gradients))
    torch.testing.assert_close(logits, root.detach())


@pytest.mark.parametrize("method", METHODS)
def test_localize_takes_any_head_and_leaves_nothing_behind(fully_connected, images, method):
    model = method(fully_connected)
    model.zero_grad()  # what the other packages left
    maps, logits = localize(model, images, torch.tensor([0, 1, 2]), batch_size=2)
    assert maps.shape == (3, 96, 96) and logits.shape == (3, 5) and (maps >= 0).all() and (maps > 0).any()
    for i in range(3):  # an image's map is its own business
        alone, _ = localize(model, images[i : i + 1], torch.tensor([i]))
        torch.testing.assert_close(alone[0], maps[i])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled() and not maps.requires_grad and not logits.requires_grad


def test_it_takes_the_predicted_class_when_none_is_given(backbone, inputs):
    maps, logits = GradCAM(backbone).score_maps(inputs)
    torch.testing.assert_close(maps, GradCAM(backbone).score_maps(inputs, logits.argmax(dim=1))[0])


def test_it_trains_as_a_classifier_does(fully_connected, inputs):
    labels = torch.tensor([0, 1, 4])
    values = GradCAM(fully_connected).loss(inputs, labels)
    torch.testing.assert_close(values["loss"], F.cross_entropy(fully_connected(inputs), labels))


def test_a_layer_that_is_not_there(backbone):
    with pytest.raises(ValueError, match="expected the name of a module in the backbone's trunk, found 'layer4'"):
        GradCAM(backbone, layer="layer4")


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 5], [0, 1, -1]])
def test_classes_that_do_not_fit(fully_connected, inputs, classes):
    with pytest.raises(ValueError, match=r"expected one class in 0 ... 4 for each of 3 images, found \[0, 1"):
        LayerCAM(fully_connected).score_maps(inputs, torch.tensor(classes))


def test_all_stages_of_layer_cam_are_joined_by_their_highest_share(backbone, inputs):
    model = FusedLayerCAM(backbone)
    assert model.layers == [group[-1].name for group in backbone.stages()] and len(model.layers) == 5
    maps, logits = model.score_maps(inputs, CLASSES)
    shares = []
    for i, layer in enumerate(model.layers):
        own = LayerCAM(backbone, layer=layer).score_maps(inputs, CLASSES)[0]
        own = own / own.amax(dim=(1, 2), keepdim=True)
        shares.append(resize_maps((2 * own).tanh() if i < 3 else own, (48, 48)))
    torch.testing.assert_close(maps, torch.stack(shares).amax(dim=0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(logits, backbone(inputs).detach())
    assert not any(module._forward_hooks for module in backbone.modules()) and not maps.requires_grad


@pytest.mark.parametrize("path, network", [("GradCAMLocalizer", GradCAM), ("LayerCAMLocalizer", FusedLayerCAM)])
def test_gradient_maps_are_localizers_by_their_paths(path, network):
    birds = load_dataset("synthbirds", "train-fullsup", n_images=12, image_size=32)
    with tiny.registered():
        own = localizers.fit(f"wsol_lib.gradient_maps:{path}", birds, birds, **tiny.settings(path, epochs=0))
    assert type(own.network) is network and own.tau is not None
    maps = own.score_maps(birds.images([0, 1]), birds.labels[:2])
    by_hand, _ = localize(own.network, birds.images([0, 1]), birds.labels[:2])
    torch.testing.assert_close(maps, normalize_score_maps(by_hand))
