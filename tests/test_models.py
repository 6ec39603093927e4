"""Backbones: one interface for every family, and the right weights in the right places."""

import copy
import os
from contextlib import contextmanager
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from wsol_lib.data import load_dataset
from wsol_lib.models import (
    BACKBONES,
    OUTPUT_STRIDES,
    WITHOUT_IMAGENET_HEAD,
    Backbone,
    BoxRegressor,
    GapLinear,
    _Mixed6a,
    create_backbone,
    eval_mode,
    flat_head,
    imagenet_rows,
    split_head,
)

TORCHVISION = ["vgg16", "resnet50", "densenet161", "inception_v3"]


@contextmanager
def no_dice():
    """New weights are all the same: to draw the 138 million of a VGG takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("normal_", "kaiming_normal_", "kaiming_uniform_", "uniform_", "trunc_normal_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor.detach().fill_(0.01))
        yield


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_forward_is_the_head_on_the_features(name):
    with no_dice():
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
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=3, pretrained=False).eval()
        assert backbone.features(torch.zeros(1, 3, 224, 224)).shape[-2:] == (side, side)


STRIDES = [(name, stride) for name, strides in OUTPUT_STRIDES.items() for stride in strides]


@pytest.mark.parametrize("name, stride", [(name, s) for name, s in STRIDES if (name, s) != ("inception_v3", 32)])
def test_a_cell_has_as_many_pixels_as_the_stride_says(name, stride):
    """14 x 14 and 28 x 28 at 224 pixels, the two resolutions of the evaluation paper; on the meta device."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=4, pretrained=False, output_stride=stride).eval()
        features = backbone.features(torch.zeros(1, 3, 224, 224))
        assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, 4)
    assert features.shape[1:] == (backbone.num_features, 224 // stride, 224 // stride)


def test_no_stride_is_the_first_of_those_that_a_backbone_can_have():
    assert list(OUTPUT_STRIDES) == list(BACKBONES)
    with torch.device("meta"):
        for name, strides in OUTPUT_STRIDES.items():
            own, first = (create_backbone(name, 4, pretrained=False, output_stride=s) for s in (None, strides[0]))
            assert own.state_dict().keys() == first.state_dict().keys()
            assert str(own) == str(first)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
@pytest.mark.parametrize("stride", [16, 8])
def test_a_dilated_backbone_has_the_same_weights(name, stride):
    with torch.device("meta"):
        fine, coarse = (create_backbone(name, 3, pretrained=False, output_stride=s).state_dict() for s in (stride, 32))
    assert {key: value.shape for key, value in fine.items()} == {key: value.shape for key, value in coarse.items()}


def test_inception_of_the_evaluation_paper_keeps_its_weights_up_to_mixed_6e():
    """The weights, their names and the sides of 224 pixels are those of its public code; the rest is new."""
    with torch.device("meta"):
        whole = create_backbone("inception_v3", 4, pretrained=False)
        cut = create_backbone("inception_v3", 4, pretrained=False, output_stride=16).eval()
        sides, x = [], torch.zeros(1, 3, 224, 224)
        for module in cut.trunk:
            x = module(x)
            sides.append(x.shape[-1])
    assert sides == [112, 110, 110, 56, 56, 54, 28, 28, 28, 28, 14, 14, 14, 14, 14, 14, 14, 14]
    kept = {key.replace("10.block.", "10."): value.shape for key, value in cut.trunk[:15].state_dict().items()}
    assert kept == {key: value.shape for key, value in whole.trunk[:15].state_dict().items()}
    new = {key: tuple(value.shape) for key, value in cut.trunk[15:].state_dict().items() if key.endswith("weight")}
    assert new == {"15.1.weight": (1024, 768, 3, 3), "16.1.weight": (1024, 1024, 3, 3)}


def test_mixed_6a_without_its_stride_is_the_same_block_on_a_finer_grid():
    """Every second place of it, from the second on, is what the strided block computes; so no weight is in another place."""
    torch.manual_seed(0)
    block = create_backbone("inception_v3", 4, pretrained=False).trunk[10].eval()
    x = torch.rand(1, 288, 9, 9)
    with torch.inference_mode():
        expected = block(x)
        fine = _Mixed6a(block, 8)(x)
    assert fine.shape == (1, 768, 9, 9)
    torch.testing.assert_close(fine[:, :, 1::2, 1::2], expected)


def test_with_new_layers_inception_has_no_head_of_imagenet(monkeypatch):
    with no_dice():
        reference = torchvision.models.get_model("inception_v3", weights=None, init_weights=False)
    weights = torchvision.models.get_model_weights("inception_v3").IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: reference.state_dict())
    with no_dice():
        backbone = create_backbone("inception_v3", 2, output_stride=16, wnids=["n01443537", "n01440764"])
    assert backbone.head.weight.shape == (2, 1024)


def test_a_convolution_may_be_left_out_only_at_vgg_gaps_own_stride():
    with torch.device("meta"):
        assert len(create_backbone("vgg_gap", 3, pretrained=False, output_stride=32, conv6=False).trunk) == 31
    with pytest.raises(ValueError, match="expected output_stride 32 of vgg_gap without conv6, found 16"):
        create_backbone("vgg_gap", 3, pretrained=False, output_stride=16, conv6=False)


@pytest.mark.parametrize("name, stride, known", [("vgg16", 16, "32"), ("resnet50", 4, "32 or 16 or 8")])
def test_a_stride_the_backbone_cannot_do(name, stride, known):
    with pytest.raises(ValueError, match=f"expected output_stride {known} of {name}, found {stride}"):
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
    with no_dice():
        backbone = create_backbone(name).eval()
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    reference.transform_input = True  # of InceptionV3; the others ignore it
    imagenet = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        found, expected = backbone(backbone.preprocess(images)), reference(imagenet(images / 255))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # random weights make logits of any size


def test_vgg_gap_starts_from_the_convolutions_of_vgg16(monkeypatch):
    with no_dice():
        reference = torchvision.models.vgg16(weights=None)
    nn.init.normal_(reference.features[28].weight)
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: reference.state_dict())
    with no_dice():
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
    """Of 1,000 images of the validation set 535 are named right among its 200 classes; padding as PyTorch's names 522,
    another epsilon of batch norm 546, ImageNet's usual scaling 387.

    Rounding by another processor may move some: of two the best logits are less than 0.002 apart. Half of the way to the
    nearest of those mistakes is left to it.
    """
    from timm.data import ImageNetInfo

    dataset = load_dataset("tiny-imagenet", "test")
    backbone: Backbone = create_backbone("efficientnet_lite0").eval()
    imagenet = ImageNetInfo().label_names()
    columns = torch.tensor([imagenet.index(wnid) for wnid in dataset.wnids])
    hits = 0
    with torch.inference_mode():
        for start in range(0, 1000, 100):
            images = dataset.images(range(start, start + 100))
            logits = backbone(backbone.preprocess(images, 224))[:, columns]
            hits += int((logits.argmax(dim=1) == dataset.labels[start : start + 100]).sum())
    assert 530 <= hits <= 540


# -- modes ---------------------------------------------------------------------------------------------------------------


def modes(model):
    return [module.training for module in model.modules()]


def small(training=True, **options):
    backbone = create_backbone("efficientnet_lite0", num_classes=3, pretrained=False, **options)
    return backbone.train(training)


def test_eval_mode_gives_every_module_its_own_mode_back():
    model = small()
    model.trunk[2].eval()  # as what is frozen is
    model.trunk[2][1][0].train()  # and in it something that is not
    before = modes(model)
    assert len(set(before)) == 2
    with eval_mode(model):
        assert not any(modes(model))
    assert modes(model) == before


def test_eval_mode_gives_it_back_after_an_error_too():
    model = small().freeze(2)
    before = modes(model)
    with pytest.raises(RuntimeError, match="in between"), eval_mode(model):
        raise RuntimeError("in between")
    assert modes(model) == before


def test_eval_mode_may_stand_in_itself():
    model = small()
    with eval_mode(model):
        with eval_mode(model):
            pass
        assert not any(modes(model))
    assert all(modes(model))


def test_what_is_no_module_has_no_mode():
    with eval_mode(lambda inputs: inputs):
        pass


# -- stages --------------------------------------------------------------------------------------------------------------

#: Channels of the last map of each resolution, and the sides of the maps for 96 pixels
STAGES = {
    "efficientnet_lite0": [(16, 48), (24, 24), (40, 12), (112, 6), (1280, 3)],
    "vgg16": [(64, 96), (128, 48), (256, 24), (512, 12), (512, 6), (512, 3)],
    "vgg19_bn": [(64, 96), (128, 48), (256, 24), (512, 12), (512, 6), (512, 3)],
    "vgg_gap": [(64, 96), (128, 48), (256, 24), (512, 12), (1024, 6)],
    "inception_v3": [(64, 45), (192, 20), (288, 9), (768, 4), (2048, 1)],
    "resnet50": [(64, 48), (256, 24), (512, 12), (1024, 6), (2048, 3)],
    "densenet161": [(96, 48), (192, 24), (384, 12), (1056, 6), (2208, 3)],
}


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_stages_of_every_backbone(name):
    """Each module is in one of them, in order, and the last one ends where the trunk ends; on meta nothing is computed."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=3, pretrained=False)
        stages, maps, x = backbone.stages(), [], torch.zeros(1, 3, 96, 96)
        with eval_mode(backbone):
            for stage in stages:
                for layer in stage:
                    assert backbone.trunk.get_submodule(layer.name) is layer.module
                    x = layer.module(x)
                    assert layer.channels == x.shape[1]
                maps.append((x.shape[1], x.shape[-1]))
            assert backbone.features(torch.zeros(1, 3, 96, 96)).shape == x.shape
    assert maps == STAGES[name]
    held = [p for stage in stages for layer in stage for p in layer.module.parameters()]
    assert list(map(id, held)) == list(map(id, backbone.trunk.parameters()))


def test_looking_for_the_stages_changes_nothing():
    backbone = small().freeze(1)
    state, before = copy.deepcopy(backbone.state_dict()), modes(backbone)
    backbone.stages()
    assert modes(backbone) == before
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_a_trunk_of_one_piece_is_one_stage():
    stages = Backbone(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 2, 1), 8).stages()
    assert [[(layer.name, layer.channels) for layer in stage] for stage in stages] == [[("", 8)]]


# -- freezing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_what_is_frozen_has_no_gradients_and_stays_in_eval_mode(name):
    with torch.device("meta"):
        backbone = create_backbone(name, num_classes=3, pretrained=False).train()
    stages = backbone.stages()
    assert backbone.freeze(2) is backbone
    for number, stage in enumerate(stages):
        for layer in stage:
            for part in layer.module.modules():
                assert part.training is (number >= 2)
            assert all(p.requires_grad is (number >= 2) for p in layer.module.parameters())
    assert backbone.training and all(modes(backbone.head))
    assert all(p.requires_grad for p in backbone.head.parameters())
    assert not any(modes(backbone.eval())) and any(modes(backbone.train()))
    assert not any(part.training for stage in stages[:2] for layer in stage for part in layer.module.modules())


def test_frozen_batch_norm_does_not_move_and_the_rest_does():
    backbone = small().freeze(2)
    before = copy.deepcopy(backbone.state_dict())
    backbone(torch.randn(4, 3, 32, 32)).sum().backward()
    names = [layer.name for stage in backbone.stages()[:2] for layer in stage]
    frozen = {key for name in names for key in before if key.startswith(f"trunk.{name}.")}
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert frozen and moved and not frozen & moved
    assert all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in moved)
    assert backbone.trunk[0].weight.grad is None and backbone.trunk[3].weight.grad.abs().sum() > 0


def test_none_freezes_the_whole_trunk_and_no_stage_nothing():
    whole, nothing = small().freeze(), small().freeze(0)
    assert not any(modes(whole.trunk)) and all(modes(whole.head)) and whole.head.weight.requires_grad
    assert not any(p.requires_grad for p in whole.trunk.parameters())
    assert all(modes(nothing)) and all(p.requires_grad for p in nothing.parameters())


def frozen_part(backbone):
    """(first weight, batch norm behind it) of what was frozen, the last of what was not."""
    return backbone.trunk[0].weight, backbone.trunk[1], backbone.trunk[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda backbone: backbone.with_head(GapLinear(1280, 5)),
        copy.deepcopy,
        lambda backbone: BoxRegressor(backbone).train().backbone,
        lambda backbone: copy.deepcopy(BoxRegressor(copy.deepcopy(backbone))).eval().train().backbone,
        lambda backbone: nn.Sequential(backbone).train(True)[0],
    ],
    ids=["with_head", "deepcopy", "BoxRegressor", "copies of copies", "inside another module"],
)
def test_what_is_frozen_stays_so(change):
    other = change(small().freeze(1)).train()
    weight, frozen, free = frozen_part(other)
    assert not weight.requires_grad and not frozen.training
    assert free.training and free.weight.requires_grad


def test_a_copy_keeps_its_own_parts_frozen():
    first = small().freeze(1)
    second = copy.deepcopy(first)
    second.freeze(3)
    assert second._frozen[0] is second.trunk[0] and first._frozen[0] is first.trunk[0]
    assert sum(modes(second)) < sum(modes(first))


def test_a_layer_by_its_name_is_the_last_to_freeze():
    backbone = create_backbone("efficientnet_lite0", 4, pretrained=False).freeze("2.5.3")
    learning = {name for name, parameter in backbone.trunk.named_parameters() if parameter.requires_grad}
    assert {name[:3] for name in learning} == {"2.6", "3.w", "4.w", "4.b"}
    assert not backbone.trunk[2][5][3].training and backbone.trunk[2][6].training
    with pytest.raises(ValueError, match=r"expected the last layer to freeze out of 0, 1, .*2.5.3.*, found 'blocks'"):
        backbone.freeze("blocks")


def test_two_heads_freeze_the_trunk_that_they_share():
    first = small()
    second = first.with_head(GapLinear(1280, 5))
    second.freeze(1)
    assert not frozen_part(first.train())[1].training


@pytest.mark.parametrize("stages", [-1, 6, True, 1.0])
def test_a_wrong_number_of_stages(stages):
    backbone = small()
    with pytest.raises(ValueError, match=rf"expected 0 to 5 stages to freeze, .* found {stages}: choose one"):
        backbone.freeze(stages)
    assert all(modes(backbone)) and all(p.requires_grad for p in backbone.parameters())


# -- the flat head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, cells", [(64, 2), (33, 2), (96, 3)])
def test_the_flat_head_has_a_weight_for_every_place(size, cells):
    backbone = small().freeze(1)
    before = modes(backbone)
    head = flat_head(backbone, size, out_features=5, channels=7)
    assert modes(backbone) == before
    assert split_head(head)[1].in_features == 7 * cells * cells
    flat = backbone.with_head(head).eval()
    assert flat(torch.zeros(2, 3, size, size)).shape == (2, 5)
    features = torch.zeros(2, 1280, cells, cells)
    features[0, :, 0, 0] = features[1, :, -1, -1] = 1.0
    here, there = head.eval()(features)
    assert not torch.allclose(here, there)  # the head that pools cannot tell them apart
    gap = GapLinear(1280, 5)(features)
    torch.testing.assert_close(gap[0], gap[1])


def test_the_flat_head_counts_cells_that_are_no_square():
    """A trunk may have fewer rows than columns, or lose some."""
    backbone = Backbone(nn.Conv2d(3, 8, (9, 3), stride=(4, 2)), GapLinear(8, 3), 8)
    height, width = backbone.features(torch.zeros(1, 3, 32, 32)).shape[-2:]
    assert (height, width) == (6, 15)
    head = flat_head(backbone, 32, channels=4)
    assert head[-1].in_features == 4 * height * width
    regressor = BoxRegressor(backbone.with_head(head)).eval()
    assert regressor(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


# -- ImageNet's rows -----------------------------------------------------------------------------------------------------

WNIDS = ("n02099601", "n01443537", "n03796401")


@pytest.fixture
def deep_head(monkeypatch):
    """A backbone with a head of several layers, as those of VGG, and small; its "pretrained" weights are always the same."""

    def create(num_classes, pretrained, output_stride=32):
        with torch.random.fork_rng():
            torch.manual_seed(1 if pretrained else 2)
            neck = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU())
            return Backbone(nn.Conv2d(3, 8, 3), nn.Sequential(*neck, nn.Linear(16, num_classes)), 8)

    monkeypatch.setitem(BACKBONES, "deep_head", create)
    return "deep_head"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "deep_head"])
def test_a_head_for_wnids_starts_with_imagenets_rows(name, deep_head):
    rows = imagenet_rows(WNIDS)
    assert rows == [207, 1, 675]
    chosen = create_backbone(name, len(WNIDS), wnids=WNIDS).eval()
    whole = create_backbone(name).eval()
    assert chosen.num_features == whole.num_features and chosen.input_size == whole.input_size
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found, expected = chosen(x), whole(x)[:, rows]
    assert (found - expected).abs().max() <= 1e-6 * max(1.0, float(expected.abs().max()))
    assert type(chosen.head) is type(whole.head)


@pytest.mark.parametrize("name", [*WITHOUT_IMAGENET_HEAD, "efficientnet_lite0"])
def test_without_imagenets_head_the_last_layer_is_new(name):
    with torch.device("meta"):
        backbone = create_backbone(name, 3, pretrained=False, wnids=WNIDS)
    assert split_head(backbone.head)[1].out_features == 3


def test_rows_at_twice_the_resolution_keep_the_dilation():
    backbone = create_backbone("efficientnet_lite0", 3, output_stride=16, wnids=WNIDS).eval()
    assert backbone.features(torch.zeros(1, 3, 64, 64)).shape[-1] == 4


def test_wnids_that_imagenet_does_not_have():
    with pytest.raises(ValueError, match=r"expected WordNet ids of ImageNet's 1000 classes, found 'n0' and 1 more"):
        create_backbone("efficientnet_lite0", 3, wnids=("n0", "n01443537", "n1"))
    with pytest.raises(ValueError, match="expected a WordNet id a class, found 3 for 4 classes"):
        create_backbone("efficientnet_lite0", 4, wnids=WNIDS)


def test_a_trunk_in_half_precision():
    whole = create_backbone("efficientnet_lite0", 4).eval()
    half = whole.with_head(whole.head)
    half.precision = torch.bfloat16
    inputs = whole.preprocess(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        features, close = whole.features(inputs), half.features(inputs)
    assert close.dtype == torch.float32 and not torch.equal(close, features)
    assert torch.allclose(close, features, atol=0.1 * float(features.abs().max()))
    assert half.with_head(whole.head).precision == torch.bfloat16
