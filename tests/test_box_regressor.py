"""PSOL's regressor: two layers in place of the last one, and the sizes that the paper's Table 2 prints."""

import functools

import pytest
import timm
import torch
from torch import nn

from wsol_lib.models import (
    BACKBONES,
    BoxRegressor,
    count_flops,
    count_parameters,
    create_backbone,
    create_classifier,
    split_head,
)
from wsol_lib.psol import JointModel


def small(**options):
    return BoxRegressor(create_backbone("efficientnet_lite0", 5, pretrained=False), **options)


@functools.cache
def on_meta(name, num_classes=1000, **options):
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes, pretrained=False, **options)
        return backbone, BoxRegressor(backbone), JointModel(backbone)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_one_box_an_image_in_shares_of_its_sides(name):
    assert on_meta(name)[1].eval()(torch.zeros(2, 3, 96, 96, device="meta")).shape == (2, 4)


def test_boxes_are_between_0_and_1():
    boxes = small().eval()(100 * torch.randn(3, 3, 64, 64))
    assert boxes.min() >= 0 and boxes.max() <= 1


def test_two_layers_stand_where_the_last_one_stood():
    backbone = create_backbone("efficientnet_lite0", 5, pretrained=False).eval()
    regressor = BoxRegressor(backbone, hidden=7)
    assert [type(layer) for layer in regressor.backbone.head[-1]] == [nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid]
    assert regressor.backbone.head[-1][0].weight.shape == (7, 1280)
    assert regressor.backbone.trunk is backbone.trunk and backbone.head.weight.shape == (5, 1280)
    assert not regressor.training and not regressor.backbone.training
    x = torch.randn(2, 3, 64, 64)
    pooled = backbone.features(x).mean(dim=(2, 3))
    torch.testing.assert_close(regressor(x), regressor.backbone.head[-1](pooled))


def test_vgg16_keeps_its_other_fully_connected_layers():
    backbone, regressor, _ = on_meta("vgg16")
    neck, layers = regressor.backbone.head
    assert [layer.out_features for layer in neck if isinstance(layer, nn.Linear)] == [4096, 4096]
    assert neck[2] is backbone.head[2] and layers[0].in_features == 4096


def test_the_loss_is_the_weighted_squared_error():
    regressor = small(loss_weight=50.0).eval()
    x, boxes = torch.randn(2, 3, 32, 32), torch.rand(2, 4)
    values = regressor.loss(x, boxes)
    torch.testing.assert_close(values["mse"], ((regressor(x) - boxes) ** 2).mean().detach())
    torch.testing.assert_close(values["loss"], 50 * values["mse"])
    assert values["loss"].requires_grad and not values["mse"].requires_grad


def test_per_class_regression_learns_and_gives_the_box_of_the_class():
    regressor = small(num_classes=3).eval()
    x, labels = torch.randn(2, 3, 32, 32), torch.tensor([2, 0])
    boxes = regressor(x)
    assert boxes.shape == (2, 3, 4)
    torch.testing.assert_close(regressor(x, labels), torch.stack([boxes[0, 2], boxes[1, 0]]))
    regressor.loss(x, (labels, torch.rand(2, 4)))["loss"].backward()
    touched = regressor.backbone.head[-1][2].weight.grad.view(3, 4, -1).abs().sum(dim=(1, 2)) > 0
    assert touched.tolist() == [True, False, True]


def test_a_head_without_a_last_linear_layer():
    backbone = create_backbone("efficientnet_lite0", pretrained=False).with_head(nn.Flatten())
    with pytest.raises(ValueError, match="expected a head whose last layer is linear, found Flatten"):
        BoxRegressor(backbone)


def test_another_head_on_the_same_trunk():
    backbone = on_meta("inception_v3", 3)[0].eval()
    other = backbone.with_head(nn.Flatten())
    assert other.trunk is backbone.trunk and other.mean is backbone.mean and other.std is backbone.std
    assert other.input_size == 299 and other.num_features == 2048 and not other.training
    assert backbone.head.out_features == 3


# -- Table 2 -------------------------------------------------------------------------------------------------------------

# The two auxiliary classifiers (one in the classifier, one left in the regressor) that torchvision's InceptionV3 trains
# with; ours has none.
AUXILIARY = 3_326_696

# row of the table, backbone, parameters in millions as printed. The two rows of VGG-GAP were counted with the 200 classes
# of CUB, all others with the 1,000 of ImageNet.
SINGLE = [
    ("VGG16-CAM", "vgg_gap", 200, 14.82),
    ("VGG16-Grad-CAM, DDT-VGG16", "vgg16", 1000, 138.36),
    ("ResNet50-CAM", "resnet50", 1000, 25.56),
]
SEPARATE = [
    ("PSOL-VGG16-Sep", "vgg16", 1000, 274.72),
    ("PSOL-InceptionV3-Sep", "inception_v3", 1000, 53.32),
    ("PSOL-ResNet50-Sep", "resnet50", 1000, 50.12),
    ("PSOL-DenseNet161-Sep", "densenet161", 1000, 56.29),
]
JOINT = [
    ("PSOL-VGG16-Joint", "vgg16", 1000, 140.46),
    ("PSOL-VGG-GAP-Joint", "vgg_gap", 200, 15.08),
    ("PSOL-ResNet50-Joint", "resnet50", 1000, 26.61),
    ("PSOL-DenseNet161-Joint", "densenet161", 1000, 29.81),
]


def table_2(name, num_classes):
    """Classifier, regressor and joint model of a row; PSOL's VGG-GAP is the one without conv6."""
    return on_meta(name, num_classes, **({"conv6": False} if name == "vgg_gap" else {}))


def millions(number):
    return round(number / 1e6, 2)


@pytest.mark.parametrize("row, name, num_classes, printed", SINGLE)
def test_parameters_of_one_classifier(row, name, num_classes, printed):
    assert millions(count_parameters(table_2(name, num_classes)[0])) == printed


@pytest.mark.parametrize("row, name, num_classes, printed", SEPARATE)
def test_parameters_of_two_networks(row, name, num_classes, printed):
    classifier, regressor, _ = table_2(name, num_classes)
    auxiliary = 2 * AUXILIARY if name == "inception_v3" else 0
    assert millions(count_parameters(classifier) + count_parameters(regressor) + auxiliary) == printed


@pytest.mark.parametrize("row, name, num_classes, printed", JOINT)
def test_parameters_of_a_joint_network(row, name, num_classes, printed):
    assert millions(count_parameters(table_2(name, num_classes)[2])) == printed


def test_parameters_that_the_paper_prints_differently():
    """Three rows where the models give another number than the table."""
    classifier, regressor, _ = table_2("vgg_gap", 200)
    assert millions(count_parameters(classifier) + count_parameters(regressor)) == 29.80  # 29.64 is 2 x 14.82
    assert millions(count_parameters(table_2("inception_v3", 1000)[2]) + AUXILIARY) == 28.21  # printed 29.21
    assert millions(count_parameters(table_2("densenet161", 1000)[0])) == 28.68  # DenseNet161-CAM, printed 29.81


# backbone, input size, giga multiply-adds of one network and of two as printed
FLOPS = [
    ("vgg_gap", 224, 15.35, 30.70),
    ("inception_v3", 299, 5.71, 11.42),
    ("resnet50", 224, 4.09, 8.18),
    ("densenet161", 224, 7.73, 15.46),
]


@pytest.mark.parametrize("name, size, one, two", FLOPS)
def test_flops_are_those_of_the_convolutions(name, size, one, two):
    """The -Sep rows are twice the rounded count of one network; a joint model runs its trunk once."""
    _, regressor, joint = table_2(name, 1000)
    assert [round(count_flops(model, size) / 1e9, 2) for model in (regressor, joint)] == [one, one]
    assert round(2 * one, 2) == two


def test_flops_of_one_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))
    assert count_flops(model, 8) == 4 * 8 * 8 * 3 * 3 * 3
    assert count_flops(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), 2) == 0
    assert model.training


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 4)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 16


def test_conv6_is_of_vgg_gap_alone():
    with pytest.raises(ValueError, match="expected conv6=False with vgg_gap, found it with resnet50"):
        create_backbone("resnet50", pretrained=False, conv6=False)
    backbone, _, _ = on_meta("vgg_gap", conv6=False)
    assert backbone.features(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 512, 7, 7)


# -- any classifier ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["efficientnet_b0", "dpn48b"])
def test_any_classifier_of_timm(name):
    classifier = create_classifier(name, pretrained=False).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert classifier(x).shape == (2, 1000)
        torch.testing.assert_close(classifier(x), classifier.trunk.model(x))
        assert classifier.features(x).shape[:2] == (2, classifier.num_features)
    config = timm.data.resolve_model_data_config(classifier.trunk.model)
    assert tuple(classifier.mean.flatten().tolist()) == pytest.approx(config["mean"])
    assert tuple(classifier.std.flatten().tolist()) == pytest.approx(config["std"])
    assert count_parameters(classifier) == count_parameters(classifier.trunk.model)


def test_efficientnet_b7_sees_600_pixels():
    with torch.device("meta"):
        assert create_classifier("tf_efficientnet_b7", pretrained=False).input_size == 600


def test_a_classifier_that_timm_does_not_have():
    with pytest.raises(ValueError, match="expected the name of a classifier of timm, found 'dpn132'"):
        create_classifier("dpn132")


def test_classifier_weights_that_are_not_to_be_had(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(FileNotFoundError, match=r"expected the weights of dpn131 .* found neither"):
        create_classifier("dpn131")


def test_split_head_gives_the_layer_itself():
    backbone = create_backbone("efficientnet_lite0", 5, pretrained=False)
    neck, last = split_head(backbone.head)
    assert last is backbone.head and neck(torch.zeros(2, 1280, 3, 3)).shape == (2, 1280)
