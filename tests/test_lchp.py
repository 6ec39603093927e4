"""LCHP: the generator's boxes on known maps, Eq. 3 to 7 by hand, boxes that move with their images."""

import copy
import math

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from wsol_lib import lchp, localizer, localizers
from wsol_lib.attention_pooling import AttentionPooling, BAPBackbone
from wsol_lib.boxes import localized
from wsol_lib.cam import localize
from wsol_lib.data import LocalizationDataset, load_dataset
from wsol_lib.lchp import LCHPInit, LCHPRefine, masked_pseudo_boxes
from wsol_lib.losses import classification_loss, regression_loss
from wsol_lib.models import Backbone, BoxRegressor, GapLinear
from wsol_lib.psol import classify, encode_boxes, predict_boxes
from wsol_lib.train import train

CLASSES = 6
LABELS = torch.tensor([0, 5, 2, 3])


def small_trunk():
    """One convolution and batch norm, 8 pixels a cell."""
    return nn.Sequential(nn.Conv2d(3, 7, 8, stride=8), nn.BatchNorm2d(7), nn.ReLU())


def small_classifier(seed=0, **options):
    torch.manual_seed(seed)
    return BAPBackbone(small_trunk(), AttentionPooling(7, CLASSES, 3, factor=5.0), 7, **options)


def small_regressor(seed=1, **options):
    torch.manual_seed(seed)
    return BoxRegressor(Backbone(small_trunk(), GapLinear(7, CLASSES), 7, **options), hidden=8)


def small_init(**options):
    return LCHPInit(small_classifier(), small_regressor(), **options)


@pytest.fixture
def inputs():
    return torch.randn(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))


# -- Algorithm 1 ---------------------------------------------------------------------------------------------------------


class Looks:
    """A network whose maps are what it is told, one tensor a call, and which remembers what it was shown."""

    def __init__(self, *maps):
        self.maps, self.seen = list(maps), []

    def features(self, inputs):
        self.seen.append(inputs)
        return self.maps[len(self.seen) - 1]


class LooksAtBrightness:
    """A network that averages 2 x 2 pixels and looks at what is left in them."""

    def features(self, inputs):
        return F.avg_pool2d(inputs, 2)


def map_with(*regions, height=4, width=6, number=1):
    """Zeros (N, 2, h, w) but for rectangles x1, y1, x2, y2, value, whose mean over both channels is the value."""
    maps = torch.zeros(number, 2, height, width)
    for x1, y1, x2, y2, value in regions:
        maps[:, 0, y1:y2, x1:x2] = 2 * value
    return maps


def test_the_box_is_round_what_is_seen_first_and_what_is_seen_then():
    model = Looks(map_with((1, 1, 3, 2, 1.0)), map_with((2, 1, 5, 4, 0.3)))
    images = torch.ones(1, 3, 32, 48)
    boxes = masked_pseudo_boxes(model, images, 0.5)
    assert boxes.tolist() == [[8, 8, 40, 32]] and boxes.dtype == torch.float32
    raw, masked = model.seen
    assert torch.equal(raw, images)
    expected = torch.ones(1, 3, 32, 48)
    expected[:, :, 8:16, 8:24] = 0
    assert torch.equal(masked, expected)


def test_the_box_holds_all_foreground_not_its_largest_part():
    maps = map_with((0, 0, 1, 1, 0.8), (3, 1, 6, 3, 1.0))
    assert masked_pseudo_boxes(Looks(maps, torch.zeros_like(maps)), torch.ones(1, 3, 32, 48), 0.5).tolist() == [
        [0, 0, 48, 24]
    ]


def test_each_image_has_its_own_box():
    images = torch.zeros(3, 3, 8, 12)
    images[0, :, 2:4, 2:6] = 1.0
    images[1, :, 4:8, 8:12] = 0.1  # dark, but all there is
    images[2, :, 0:2, 0:2], images[2, :, 6:8, 10:12] = 1.0, 0.5  # seen when the first is covered
    boxes = masked_pseudo_boxes(LooksAtBrightness(), images, 0.7)
    assert boxes.tolist() == [[2, 2, 6, 4], [8, 4, 12, 8], [0, 0, 12, 8]]


def test_where_nothing_stands_out_the_box_is_the_image():
    empty = torch.zeros(1, 2, 4, 6)
    for maps in (empty, empty - 1, empty + 1):
        assert masked_pseudo_boxes(Looks(maps, maps), torch.ones(1, 3, 32, 48), 0.5).tolist() == [[0, 0, 48, 32]]
    full = masked_pseudo_boxes(Looks(empty, map_with((1, 1, 2, 2, 1.0))), torch.ones(1, 3, 32, 48), 0.5)
    assert full.tolist() == [[0, 0, 48, 32]]
    first_alone = masked_pseudo_boxes(Looks(map_with((1, 1, 2, 2, 1.0)), empty), torch.ones(1, 3, 32, 48), 0.5)
    assert first_alone.tolist() == [[8, 8, 16, 16]]


def test_nothing_is_masked_where_nothing_was_seen():
    images = torch.ones(1, 3, 32, 48)
    _, masked = lchp.masked_regions(Looks(*[torch.zeros(1, 2, 4, 6)] * 2), images, 0.5)
    assert torch.equal(masked, images)


def test_above_delta_is_strict():
    maps = map_with((1, 1, 2, 2, 1.0), (4, 2, 5, 3, 0.5))
    for delta, right in {0.49: 40, 0.5: 16, 0.99: 16}.items():
        assert lchp.foreground_boxes(maps, delta, (32, 48))[0, 2] == right
    assert (lchp.foreground_boxes(maps, 1.0, (32, 48)) == 0).all()


@pytest.mark.parametrize("pixels", [112, 224, 448])
@pytest.mark.parametrize("side", [13, 26, 45, 49, 51, 52])
def test_foreground_at_the_border_ends_where_the_image_ends(side, pixels):
    """26 cells of 448 / 26 pixels, those of InceptionV3's Mixed_6e, would end at 448.00003."""
    maps = map_with((2, 3, side, side, 1.0), height=side, width=side)
    boxes = lchp.foreground_boxes(maps, 0.5, (pixels, pixels))
    assert boxes[0, 2:].tolist() == [pixels, pixels]
    encode_boxes(boxes, torch.tensor([pixels, pixels]))


def test_the_initialisation_runs_at_the_sides_of_the_papers_own_network():
    """448 pixels in 26 x 26 cells; foreground touches the border of nearly every image."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 7, 1), nn.AdaptiveAvgPool2d(26), nn.BatchNorm2d(7), nn.ReLU())
    net = LCHPInit(BAPBackbone(trunk, AttentionPooling(7, CLASSES, 3), 7), small_regressor(), delta=0.1)
    assert torch.isfinite(net.train().loss(torch.randn(2, 3, 448, 448), LABELS[:2])["loss"])


def test_what_delta_is_a_share_of():
    maps = map_with((0, 0, 6, 4, 2.0), (1, 1, 2, 2, 10.0), (4, 2, 5, 3, 6.0))  # 2 everywhere, 10 here and 6 there
    one, two, whole = [8, 8, 16, 16], [8, 8, 40, 24], [0, 0, 48, 32]
    for normalization, delta, expected in [
        ("max", 0.55, two),
        ("max", 0.1, whole),
        ("min-max", 0.55, one),
        ("min-max", 0.1, two),
        ("none", 0.55, whole),
    ]:
        assert lchp.foreground_boxes(maps, delta, (32, 48), normalization=normalization).tolist() == [expected]


def test_at_the_size_of_the_image_the_edge_of_the_box_is_between_cells():
    maps = map_with((1, 1, 5, 3, 1.0))
    at_half = lchp.foreground_boxes(maps, 0.5, (32, 48), upsample=True)
    assert at_half.tolist() == lchp.foreground_boxes(maps, 0.5, (32, 48)).tolist() == [[8, 8, 40, 24]]
    assert lchp.foreground_boxes(maps, 0.8, (32, 48), upsample=True).tolist() == [[10, 10, 38, 22]]


@pytest.mark.parametrize("maps", ["features", "attention"])
def test_what_is_averaged_is_the_features_as_algorithm_1_says_unless_attention_maps_are_asked_for(inputs, maps):
    model = small_classifier().eval()
    look = {"features": model.features, "attention": model.attention_maps}[maps]
    raw = lchp.foreground_boxes(look(inputs), 0.7, (32, 48))
    expected = Looks(look(inputs), look(lchp.mask_out(inputs, raw)))
    found = masked_pseudo_boxes(model, inputs, 0.7, maps=maps)
    assert torch.equal(found, masked_pseudo_boxes(expected, inputs, 0.7))
    assert maps == "attention" or torch.equal(found, masked_pseudo_boxes(model, inputs, 0.7))
    net = small_init(maps=maps).eval()
    torch.testing.assert_close(net.score_maps(inputs)[0], look(inputs).mean(dim=1))
    assert torch.equal(lchp.masked_regions(net.generator, inputs, 0.7, **net.options)[0], found)


def test_the_two_readings_of_algorithm_1_differ(inputs):
    model = small_classifier()
    assert not torch.equal(*(masked_pseudo_boxes(model, inputs, 0.7, maps=maps) for maps in lchp.MAPS))


def test_a_model_that_makes_attention_maps_alone_is_asked_for_these():
    class Attends(Looks):
        features, attention_maps = None, Looks.features

    maps = map_with((1, 1, 3, 2, 1.0))
    for reading in lchp.MAPS:
        boxes = masked_pseudo_boxes(Attends(maps, 0 * maps), torch.ones(1, 3, 32, 48), 0.5, maps=reading)
        assert boxes.tolist() == [[8, 8, 24, 16]]


def test_attention_maps_that_are_not_there():
    images, maps = torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match='expected a model with attention_maps for maps="attention", found Looks'):
        masked_pseudo_boxes(Looks(maps, maps), images, 0.5, maps="attention")
    with pytest.raises(ValueError, match="expected maps out of features, attention, found 'mean'"):
        masked_pseudo_boxes(Looks(maps, maps), images, 0.5, maps="mean")


def test_without_maps_and_features_the_model_itself_is_called():
    images = torch.zeros(1, 3, 32, 48)
    images[:, :, 8:16, 8:24] = 1
    assert masked_pseudo_boxes(lambda inputs: F.avg_pool2d(inputs, 4), images, 0.5).tolist() == [[8, 8, 24, 16]]


def test_uint8_images_are_normalised_first_and_mode_and_statistics_stay():
    model = small_classifier().train()
    before = copy.deepcopy(model.state_dict())
    images = torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8)
    boxes = masked_pseudo_boxes(model, images, 0.7)
    assert torch.equal(boxes, masked_pseudo_boxes(model, model.preprocess(images), 0.7))
    assert model.training and not boxes.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_boxes_of_many_images_are_those_of_one_pass_in_the_images_pixels():
    model = small_classifier().eval()
    images = torch.randint(0, 256, (5, 3, 16, 24), dtype=torch.uint8)
    expected = masked_pseudo_boxes(model, model.preprocess(images, 48), 0.7) * torch.tensor([0.5, 1 / 3, 0.5, 1 / 3])
    found = lchp.predict_pseudo_boxes(model, images, 0.7, input_size=48, batch_size=2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "images, maps, delta, options, sentence",
    [
        (torch.zeros(1, 3, 8, 8), (1, 2, 4, 4), 1.5, {}, r"expected delta in \[0, 1\], found 1.5"),
        (torch.zeros(1, 3, 8, 8), (1, 2, 4, 4), math.nan, {}, r"expected delta in \[0, 1\], found nan"),
        (torch.zeros(1, 3, 8, 8), (1, 4, 4), 0.5, {}, r"expected finite maps \(N, C, h, w\), found \(1, 4, 4\)"),
        (torch.zeros(1, 3, 8, 8), (2, 2, 4, 4), 0.5, {}, r"one map for each of 1 images, found \(2, 2, 4, 4\)"),
        (
            torch.zeros(3, 8, 8),
            (1, 2, 4, 4),
            0.5,
            {},
            r"expected normalised images \(N, 3, H, W\), found .*\(3, 8, 8\)",
        ),
        (torch.zeros(1, 3, 8, 8).int(), (1, 2, 4, 4), 0.5, {}, "found torch.int32"),
        (
            torch.zeros(1, 3, 8, 8),
            (1, 2, 4, 4),
            0.5,
            {"normalization": "sum"},
            "out of max, min-max, none, found 'sum'",
        ),
    ],
)
def test_what_the_generator_refuses(images, maps, delta, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        masked_pseudo_boxes(Looks(torch.zeros(maps), torch.zeros(maps)), images, delta, **options)


# -- LCHP Eq. 7 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.9, 1.0])
def test_the_momentum_update_is_a_loop_over_all_parameters(beta):
    slow, fast = small_classifier(seed=0), small_classifier(seed=1)
    fast.train()(torch.randn(4, 3, 16, 16))  # statistics of its own
    expected = {}
    for (name, theta_2), theta_1 in zip(slow.state_dict().items(), fast.state_dict().values(), strict=True):
        expected[name] = beta * theta_2 + (1 - beta) * theta_1 if theta_2.is_floating_point() else theta_1.clone()
    before = copy.deepcopy(fast.state_dict())
    lchp.momentum_update(slow, fast, beta)
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert all(torch.equal(value, before[name]) for name, value in fast.state_dict().items())


def test_the_momentum_is_a_share():
    with pytest.raises(ValueError, match=r"expected beta in \[0, 1\], found 1.1"):
        lchp.momentum_update(small_classifier(), small_classifier(), 1.1)


# -- LCHP-I --------------------------------------------------------------------------------------------------------------


def test_the_initialisation_is_classification_of_both_images_plus_alpha_times_regression(inputs):
    net = small_init(delta=0.6, alpha=5.0).eval()
    values = net.loss(inputs, LABELS)
    boxes, masked = lchp.masked_regions(net.generator, inputs, 0.6)
    assert not torch.equal(masked, inputs)
    classification = classification_loss(net.classifier(inputs), net.classifier(masked), LABELS)
    regression = regression_loss(net.regressor(inputs), encode_boxes(boxes, torch.tensor([48, 32])))
    torch.testing.assert_close(values["classification"], classification)
    torch.testing.assert_close(values["regression"], regression)
    torch.testing.assert_close(values["loss"], classification + 5 * regression)
    torch.testing.assert_close(values["accuracy"], (net.classifier(inputs).argmax(1) == LABELS).float().mean())
    assert [name for name, value in values.items() if value.requires_grad] == ["loss"]


def test_classifier_and_regressor_learn_apart_and_the_generator_from_neither(inputs):
    net = small_init().train()
    net.loss(inputs, LABELS)["loss"].backward()
    both = [copy.deepcopy([p.grad for p in part.parameters()]) for part in (net.classifier, net.regressor)]
    assert all((grad != 0).any() for grads in both for grad in (grads[0], grads[-1]))
    assert all(p.grad is None and not p.requires_grad for p in net.generator.parameters())
    net.zero_grad()
    net.alpha = 0.0
    net.loss(inputs, LABELS)["loss"].backward()
    assert all((p.grad == 0).all() for p in net.regressor.parameters())
    for parameter, grad in zip(net.classifier.parameters(), both[0], strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_every_step_moves_the_generator_before_it_draws(inputs):
    net = small_init(beta=0.5).train()
    with torch.no_grad():
        net.classifier.head.linear.bias += 1
    before, fast = net.generator.head.linear.bias.clone(), net.classifier.head.linear.bias.clone()
    net.loss(inputs, LABELS)
    torch.testing.assert_close(net.generator.head.linear.bias, (before + fast) / 2)


def test_the_classifiers_rate_falls_by_a_tenth_an_epoch_and_the_regressors_stays(inputs):
    net = small_init().train()

    def gradients():
        net.zero_grad()
        net.loss(inputs, LABELS)["loss"].backward()
        return net.classifier.head.linear.weight.grad.clone(), net.regressor.backbone.trunk[0].weight.grad.clone()

    first = gradients()
    net.decay(3)
    later = gradients()
    torch.testing.assert_close(later[0], 0.9**3 * first[0])
    torch.testing.assert_close(later[1], first[1])


def test_the_regressor_sees_the_images_normalised_its_own_way(monkeypatch):
    images = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8)
    regressor, seen = small_regressor(mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3)), []
    regressor.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    classifier = small_classifier()
    LCHPInit(classifier, regressor).loss(classifier.preprocess(images), LABELS)
    LCHPRefine(classifier, regressor, kinds=()).loss(classifier.preprocess(images))
    assert len(seen) == 3
    for shown in seen:
        torch.testing.assert_close(shown, regressor.backbone.preprocess(images))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"delta": 1.1}, r"expected delta in \[0, 1\], found 1.1"),
        ({"alpha": -1.0}, "expected alpha in .* found -1.0"),
        ({"beta": math.nan}, r"expected beta in \[0, 1\], found nan"),
        ({"normalization": "mean"}, "found 'mean'"),
        ({"maps": "mean"}, "expected maps out of features, attention, found 'mean'"),
    ],
)
def test_what_the_initialisation_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_init(**options)


@pytest.mark.parametrize("stage", [LCHPInit, LCHPRefine])
def test_classifier_and_regressor_are_two_networks(stage):
    regressor = small_regressor()
    with pytest.raises(ValueError, match="expected two networks, found one trunk in both"):
        stage(regressor.backbone, regressor)


# -- confidence ----------------------------------------------------------------------------------------------------------


def test_the_confidence_is_the_largest_probability_on_the_crop():
    """A classifier of the mean of each channel; the crop decides which there are."""
    classifier = Backbone(nn.Identity(), GapLinear(3, 3), 3).train()
    nn.init.eye_(classifier.head.weight), nn.init.zeros_(classifier.head.bias)
    inputs = torch.zeros(4, 3, 16, 24)
    inputs[:, 1, 4:12, 8:20] = math.log(6)  # e^logit: 1, 6, 1
    boxes = torch.tensor([[9.0, 5, 19, 11], [10, 6, 14, 9], [0, 0, 7, 16], [3, 3, 3, 9]])  # a pixel from the edges
    confidence = lchp.crop_confidence(classifier, inputs, boxes)
    torch.testing.assert_close(confidence, torch.tensor([6 / 8, 6 / 8, 1 / 3, 0.0]), atol=1e-4, rtol=0)
    whole = lchp.crop_confidence(classifier, inputs, torch.tensor([[0.0, 0, 24, 16]]).repeat(4, 1))
    torch.testing.assert_close(whole, classifier(inputs).softmax(dim=1).amax(dim=1))
    assert classifier.training and not confidence.requires_grad


def test_every_image_has_one_box_to_be_sure_of(inputs):
    with pytest.raises(ValueError, match=r"for each of 4 images, found \(3, 4\)"):
        lchp.crop_confidence(small_classifier(), inputs, torch.zeros(3, 4))


# -- strong augmentation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [(), *lchp.ABLATION])
def test_a_drawn_rectangle_is_still_under_its_box(kinds):
    torch.manual_seed(0)
    number, height, width = 60, 64, 96
    boxes = torch.tensor([[20.0, 10, 60, 50]]).repeat(number, 1)
    inputs = torch.zeros(number, 3, height, width)
    inputs[:, :, 10:50, 20:60] = 1
    images, moved = lchp.augment_together(lchp.strong_augmentation(kinds), inputs, boxes)
    assert images.shape == inputs.shape and moved.shape == boxes.shape
    found = lchp.foreground_boxes(images, 0.5, (height, width))
    torch.testing.assert_close(moved, found, atol=1.0, rtol=0)
    if kinds:
        assert len(moved.unique(dim=0)) > 2 and not (moved == boxes).all(dim=1).all()
    else:
        assert torch.equal(images, inputs) and torch.equal(moved, boxes)


def test_the_image_moves_as_its_box_says_everywhere():
    """A slope tells where each pixel came from: the map from box to moved box, applied to it, gives the moved image."""
    torch.manual_seed(0)
    height, width = 40, 60
    inputs = (torch.arange(width) + 0.5).expand(30, 3, height, width).clone()
    boxes = torch.tensor([[24.0, 16, 36, 24]]).repeat(30, 1)  # small and central: stays inside whatever is drawn
    images, moved = lchp.augment_together(lchp.strong_augmentation(("scale", "translation")), inputs, boxes)
    assert (moved[:, 0] > 0).all() and (moved[:, 2] < width).all()
    factor = 12 / (moved[:, 2] - moved[:, 0])
    x, inside = torch.arange(width) + 0.5, torch.zeros(30, width, dtype=torch.bool)
    came_from = 24 + (x - moved[:, :1]) * factor[:, None]
    inside = (came_from > 5) & (came_from < width - 5)  # cubic interpolation swings beside what is padded
    row = ((moved[:, 1] + moved[:, 3]) / 2).long()
    difference = images[torch.arange(30), 0, row] - came_from
    assert difference[inside].abs().max() < 0.75


def test_each_kind_does_what_the_paper_says():
    torch.manual_seed(0)
    number, side = 400, 80
    boxes = torch.tensor([[30.0, 30, 40, 50]]).repeat(number, 1)
    inputs = torch.zeros(number, 1, side, side)

    def moved(kind):
        return lchp.augment_together(lchp.strong_augmentation((kind,)), inputs, boxes)[1]

    scaled = moved("scale")
    factors = (scaled[:, 2:] - scaled[:, :2]) / torch.tensor([10, 20])
    assert 0.79 < factors.min() < 0.82 and 1.18 < factors.max() < 1.21
    assert (factors[:, 0] - factors[:, 1]).abs().max() > 0.2  # independently per axis
    torch.testing.assert_close(scaled[:, 1] + scaled[:, 3], torch.full((number,), 80.0), atol=1.01, rtol=0)  # centre

    translated = moved("translation")
    still = (translated == boxes).all(dim=1)
    assert 0.4 < still.float().mean() < 0.6
    widths = (translated[:, 2] - translated[:, 0])[~still]
    assert 10 / 1.5 - 0.01 < widths.min() < 7.5 and 15 < widths.max() < 20.01

    flipped = moved("flip")
    mirrored = flipped != boxes
    assert 0.4 < mirrored[:, 0].float().mean() < 0.6 and not mirrored[:, 1].any()  # 30 to 50 is its own mirror image
    assert set(flipped[:, 0].tolist()) == {30, 40}


def test_flips_are_drawn_apart_in_both_directions():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 10, 20]]).repeat(200, 1)
    moved = lchp.augment_together(lchp.strong_augmentation(("flip",)), torch.zeros(200, 1, 40, 40), boxes)[1]
    corners, counts = moved[:, :2].unique(dim=0, return_counts=True)
    assert corners.tolist() == [[0, 0], [0, 20], [30, 0], [30, 20]] and counts.min() > 30


def test_boxes_that_fill_the_image_never_leave_it():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 83, 71]]).repeat(200, 1)
    for kinds in lchp.ABLATION:
        _, moved = lchp.augment_together(lchp.strong_augmentation(kinds), torch.zeros(200, 1, 71, 83), boxes)
        assert (moved >= 0).all() and (moved <= torch.tensor([83, 71, 83, 71])).all()


def test_what_is_padded_is_zero_and_boxes_are_cut_at_the_border():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 40, 40]]).repeat(60, 1)
    images, moved = lchp.augment_together(lchp.strong_augmentation(("scale",)), torch.ones(60, 3, 40, 40), boxes)
    assert moved.min() == 0 and moved.max() == 40 and moved[:, 0].max() >= 3
    for image, (x1, y1, x2, y2) in zip(images, moved.int().tolist()):
        outside = torch.ones(40, 40, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        assert (image[:, outside] == 0).all() and (image[:, ~outside] > 0.99).all()


def test_another_kind_of_augmentation():
    with pytest.raises(ValueError, match=r"expected kinds out of scale, translation, flip, found .*'rotate'"):
        LCHPRefine(small_classifier(), small_regressor(), kinds=("rotate",))


# -- LCHP-R --------------------------------------------------------------------------------------------------------------


class KnownBoxes(BoxRegressor):
    """A regressor that gives the boxes it was told, relative x y w h, plus what it has learnt."""

    def __init__(self, boxes):
        super().__init__(Backbone(small_trunk(), GapLinear(7, CLASSES), 7), hidden=8)
        self.boxes, self.learnt = boxes, nn.Parameter(torch.zeros(len(boxes), 4))

    def forward(self, inputs):
        return self.boxes + self.learnt


@pytest.fixture
def mirrored(monkeypatch):
    """Refinement under one known augmentation, with confidences 0.95, 0.5, 0.9 and 1."""
    confidence = torch.tensor([0.95, 0.5, 0.9, 1.0])
    monkeypatch.setattr(lchp, "crop_confidence", lambda *arguments: confidence)
    monkeypatch.setattr(lchp, "strong_augmentation", lambda kinds: v2.RandomHorizontalFlip(1.0))
    boxes = torch.tensor([[0.0, 0.2, 0.5, 0.5], [0.1, 0.2, 0.3, 0.5], [0.5, 0.5, 0.25, 0.5], [0.25, 0.5, 0.5, 0.5]])
    return KnownBoxes(boxes)


@pytest.mark.parametrize("tau, expected", [(0.0, 0.25 + 0.25 + 0.0625), (0.5, 0.25 + 0.0625), (0.9, 0.25), (1.0, 0.0)])
def test_refinement_by_hand(inputs, mirrored, tau, expected):
    """Mirrored, x becomes 1 - x - w: off by 0.5, 0.5, 0.25 and 0 from the box that a regressor repeats."""
    values = LCHPRefine(small_classifier(), mirrored, tau=tau).train().loss(inputs, LABELS)
    torch.testing.assert_close(values["loss"], torch.tensor(expected / 4))
    torch.testing.assert_close(values["kept"], (torch.tensor([0.95, 0.5, 0.9, 1.0]) > tau).float().mean())
    torch.testing.assert_close(values["confidence"], torch.tensor(3.35 / 4))


def test_nothing_below_tau_contributes_gradient(inputs, mirrored):
    LCHPRefine(small_classifier(), mirrored, tau=0.9).train().loss(inputs)["loss"].backward()
    expected = torch.zeros(4, 4)
    expected[0, 0] = 2 * (0.0 - 0.5) / 4  # of the prediction alone: the target has none
    torch.testing.assert_close(mirrored.learnt.grad, expected)


def test_a_box_that_leaves_the_image_teaches_nothing(inputs, mirrored):
    net = LCHPRefine(small_classifier(), mirrored, tau=0.0).train()
    net.augmentation = v2.Lambda(lambda image: image)
    assert net.loss(inputs)["kept"] == 1
    gone = lchp.augment_together

    def lose_the_first(*arguments):
        images, moved = gone(*arguments)
        moved[0] = torch.tensor([0.0, 4, 0, 8])
        return images, moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lchp, "augment_together", lose_the_first)
        values = net.loss(inputs)
    assert values["kept"] == 0.75 and values["loss"] == 0


def test_refinement_teaches_the_regressor_and_nothing_else(inputs):
    net = LCHPRefine(small_classifier(), small_regressor(), tau=0.0).train()
    before = copy.deepcopy(net.classifier.state_dict())
    net.loss(inputs)["loss"].backward()
    assert all((p.grad != 0).any() for p in net.regressor.backbone.trunk[0].parameters())
    assert all(p.grad is None and not p.requires_grad for p in net.classifier.parameters())
    for name, value in net.classifier.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("frozen", [False, True])
def test_the_boxes_are_of_the_regressor_as_it_is_or_as_it_came(inputs, mirrored, frozen):
    net = LCHPRefine(small_classifier(), mirrored, tau=0.9, frozen=frozen).train()
    with torch.no_grad():
        net.regressor.learnt[0, 0] = 0.25  # 0.25 to 0.75 is its own mirror image, 0 to 0.5 is not
    torch.testing.assert_close(net.loss(inputs)["loss"], torch.tensor(0.25**2 / 4 if frozen else 0.0))
    assert frozen == (net.teacher is not None and not any(p.requires_grad for p in net.teacher.parameters()))


@pytest.mark.parametrize("tau", [-0.1, 1.1, math.nan])
def test_tau_is_a_probability(tau):
    with pytest.raises(ValueError, match=rf"expected tau in \[0, 1\], found {tau}"):
        LCHPRefine(small_classifier(), small_regressor(), tau=tau)


# -- training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def birds():
    return load_dataset(
        "synthbirds", "train-weaksup", n_images=16, image_size=32, species_per_family=1, habitat_correlation=1.0
    )


def test_one_seed_repeats_both_stages_and_another_differs(birds):
    def trained(seed):
        net = small_init()
        history = train(net, birds, epochs=2, seed=seed, **lchp.OPTIMIZATION, after_epoch=net.decay)
        refine = LCHPRefine(net.classifier, net.regressor, tau=0.0)
        return refine, history + train(refine, birds, epochs=2, seed=seed, **lchp.OPTIMIZATION)

    (first, once), (second, again), (_, other) = trained(0), trained(0), trained(1)
    assert once == again != other
    assert set(once[0]) == {"epoch", "loss", "classification", "regression", "accuracy"}
    assert set(once[-1]) == {"epoch", "loss", "kept", "confidence"}
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_regressor_follows_the_generator(birds):
    net = small_init(delta=0.6)
    history = train(net, birds, epochs=30, learning_rate=0.02, head_factor=1.0, batch_size=16, schedule="constant")
    assert history[-1]["regression"] < 0.8 * history[0]["regression"]
    assert history[-1]["classification"] < history[0]["classification"]


def test_the_attention_can_be_looked_at_as_any_score_map(birds):
    net = small_init().eval()
    images = torch.stack([birds[i].image.as_subclass(torch.Tensor) for i in range(3)])
    maps, logits = localize(net, images)
    assert maps.shape == (3, 32, 32) and (maps >= 0).all()
    with torch.inference_mode():
        torch.testing.assert_close(logits, net.classifier(net.classifier.preprocess(images)))


# -- by their names ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


def fitted(name, birds, boxed=None, **hyperparameters):
    options = {"backbone": "tiny", "attention_maps": 4, "epochs": 1, "input_size": 32, "batch_size": 8}
    return localizers.fit(name, birds, boxed, **options | {"pretrained": False, "hidden": 8} | hyperparameters)


@pytest.mark.parametrize("name", ["lchp-i", "lchp-r"])
def test_the_box_is_the_regressors_and_the_class_the_classifiers(birds, name, tmp_path):
    images, own = birds.images(range(4)), fitted(name, birds)
    found, net = own.predict(images, birds.labels[:4]), own.network.student
    assert torch.equal(found.boxes, predict_boxes(net.regressor, images, input_size=32))
    assert torch.equal(found.logits, classify(net.classifier, images, input_size=32))
    torch.testing.assert_close(found.scores, found.logits.softmax(1)[range(4), birds.labels[:4]])
    own.save(tmp_path)
    assert torch.equal(localizers.load(tmp_path).boxes(images)[0], found.boxes)


def test_delta_is_as_given_or_as_published_or_chosen_from_boxed_images(birds, monkeypatch):
    assert fitted("lchp-i", birds, epochs=0, delta=0.65).network.student.delta == 0.65
    assert fitted("lchp-i", birds, epochs=0).settings["delta"] == lchp.SETTINGS["cub"]["delta"]
    monkeypatch.setattr(lchp.LCHPI, "right", lambda self, boxed, delta: delta == 0.6)
    own = fitted("lchp-i", birds, birds, epochs=0)
    assert own.settings["delta"] == own.network.student.delta == 0.6
    assert fitted("lchp-i", birds, birds, epochs=0, maps="attention").settings["delta"] == 0.7


def test_the_generators_boxes_are_counted_in_pixels_of_each_image(birds):
    own = fitted("lchp-i", birds, epochs=0)
    net, images = own.network.student, birds.images(range(16))
    boxes = lchp.predict_pseudo_boxes(net.generator, images, 0.6, input_size=32)
    assert own.right(birds, 0.6) == int(localized(boxes, birds.boxes).sum())
    one_too_many = LocalizationDataset(
        *("mixed", "test", birds.class_names, birds.labels, [*birds.boxes[:-1], 2 * boxes[-1:]]),
        *(torch.cat([birds.image_sizes[:-1], 2 * birds.image_sizes[-1:]]), birds.image_ids),
    )
    one_too_many._image = lambda i: images[i] if i < 15 else images[i].repeat_interleave(2, 1).repeat_interleave(2, 2)
    others = int(localized(boxes[:-1], birds.boxes[:-1]).sum())
    assert own.right(one_too_many, 0.6) == others + 1  # of twice the size, and right in its own pixels


@pytest.mark.parametrize(
    "epochs, options, stages", [(1, {}, (1, 1)), (4, {}, (2, 2)), (15, {"refinement": 1 / 3}, (10, 5)), (0, {}, ())]
)
def test_refinement_gets_its_share_of_the_epochs(birds, monkeypatch, epochs, options, stages):
    seen = []
    monkeypatch.setattr(
        localizer, "train", lambda network, dataset, **options: seen.append((type(network), options)) or []
    )
    fitted("lchp-r", birds, epochs=epochs, refinement_factor=0.1, tau=0.8, **options)
    assert [options["epochs"] for _, options in seen] == list(stages)
    if stages:
        assert [kind for kind, _ in seen] == [LCHPInit, LCHPRefine]
        assert [options["learning_rate"] for _, options in seen] == pytest.approx([2e-3, 2e-4])


def test_the_refinement_is_as_the_settings_say(birds, monkeypatch):
    seen = []
    monkeypatch.setattr(localizer, "train", lambda network, dataset, **options: seen.append(network) or [])
    fitted("lchp-r", birds, tau=0.8, kinds=["flip"], frozen=True)
    assert seen[1].tau == 0.8 and seen[1].teacher is not None and len(seen[1].augmentation.transforms) == 3
    fitted("lchp-r", birds)
    assert seen[3].tau == 0.9 and seen[3].teacher is None


PSEUDO_LABELS = "wsol_lib.lchp:PseudoLabels"


def test_pseudo_labels_are_the_boxes_that_the_student_of_the_same_settings_learnt(birds, tmp_path):
    teacher, student = fitted(PSEUDO_LABELS, birds, delta=0.6), fitted("lchp-i", birds, delta=0.6)
    images, generator = birds.images(range(4)), student.network.student.generator
    found = teacher.predict(images, birds.labels[:4])
    assert torch.equal(found.boxes, lchp.predict_pseudo_boxes(generator, images, 0.6, input_size=32))
    assert torch.equal(found.logits, student.predict(images).logits)
    teacher.save(tmp_path)
    assert torch.equal(localizers.load(tmp_path).boxes(images)[0], found.boxes)


def test_pseudo_labels_without_training_take_the_delta_of_the_boxed_images(birds, monkeypatch):
    monkeypatch.setattr(lchp.LCHPI, "right", lambda self, boxed, delta: delta == 0.5)
    own, images = fitted(PSEUDO_LABELS, birds, birds, epochs=0, normalization="min-max"), birds.images(range(4))
    by_hand = lchp.predict_pseudo_boxes(
        own.network.student.generator, images, 0.5, input_size=32, normalization="min-max"
    )
    assert torch.equal(own.boxes(images)[0], by_hand)


def test_a_training_that_was_cut_short_goes_on_at_the_rate_it_had(birds, tmp_path):
    """The classifier's rate falls after every epoch, and a checkpoint keeps it."""
    options = {"epochs": 6, "batch_size": 16}

    class Killed(Exception):
        pass

    def kill(net, epoch):
        decay(net, epoch)
        if epoch == 3:
            raise Killed

    decay = LCHPInit.decay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LCHPInit, "decay", kill)
        with pytest.raises(Killed):
            fitted("lchp-r", birds, checkpoint=tmp_path, **options)
    own, left_alone = (fitted("lchp-r", birds, checkpoint=c, **options) for c in (tmp_path, None))
    for name, value in own.network.state_dict().items():
        assert torch.equal(value, left_alone.network.state_dict()[name]), name
    torch.testing.assert_close(own.network.student.rate, torch.tensor(0.9**3))


def test_a_search_draws_alpha_between_two_ends():
    for kind in (lchp.LCHPI, lchp.LCHPR):
        drawn = kind.drawn(kind.defaults())
        assert all(math.isfinite(end) for space in drawn.values() for end in space[:2])
        assert {"delta", "alpha", "beta"} <= set(drawn) and ("tau" in drawn) == (kind is lchp.LCHPR)
