"""SLT-Net: the averaged map, transforms that are undone, each part on and off, and a regressor that learns in step."""

import math

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from wsol_lib import localizers, slt
from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.cam import CAM, localize
from wsol_lib.data import load_dataset
from wsol_lib.losses import semantic_tolerance_loss
from wsol_lib.models import Backbone, BoxRegressor, GapLinear
from wsol_lib.psol import classify
from wsol_lib.slt import ABLATION, SLTLocalizer, SLTNet, SpatialTransform, top_k_average_map
from wsol_lib.train import train

CLASSES = 6
LABELS = torch.tensor([0, 5, 2, 3])


def small_backbone(seed=0, **options):
    """A trunk of one convolution and batch norm, 8 pixels a cell."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Conv2d(3, 7, 8, stride=8), nn.BatchNorm2d(7), nn.ReLU())
    return Backbone(trunk, GapLinear(7, CLASSES), 7, **options)


def mean_backbone():
    """A trunk that only averages 8 x 8 pixels: it says the same of an image and its mirror image."""
    torch.manual_seed(0)
    return Backbone(nn.AvgPool2d(8), GapLinear(3, CLASSES), 3)


def small_net(**options):
    localizer = SLTLocalizer(small_backbone(), k=2)
    return SLTNet(localizer, BoxRegressor(small_backbone(seed=1), hidden=8), **options)


@pytest.fixture
def inputs():
    return torch.randn(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))


# -- SLT Eq. 9 -----------------------------------------------------------------------------------------------------------


def test_the_maps_of_the_k_highest_scores_are_averaged():
    class_maps = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1).expand(2, 3, 2, 4)
    logits = torch.tensor([[0.1, 0.3, 0.2], [-1.0, -3.0, -2.0]])
    for k, (first, second) in {1: (10, 1), 2: (55, 50.5), 3: (37, 37)}.items():
        maps = top_k_average_map(class_maps, logits, k)
        assert maps.shape == (2, 2, 4)
        torch.testing.assert_close(maps, torch.tensor([first, second]).view(2, 1, 1).expand(2, 2, 4).float())


@pytest.mark.parametrize(
    "class_maps, logits, k, sentence",
    [
        ((2, 3, 4, 4), torch.zeros(2, 3), 0, "expected k in 1 ... 3, .* found 0"),
        ((2, 3, 4, 4), torch.zeros(2, 3), 4, "expected k in 1 ... 3, .* found 4"),
        ((2, 3, 4, 4), torch.zeros(2, 5), 2, r"found \(2, 3, 4, 4\) and \(2, 5\)"),
        ((3, 4, 4), torch.zeros(3, 4), 2, r"expected class maps \(N, C, h, w\)"),
        ((2, 3, 4, 4), torch.full((2, 3), math.nan), 2, "logits that can be ranked, found NaN"),
    ],
)
def test_what_cannot_be_averaged(class_maps, logits, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        top_k_average_map(torch.zeros(class_maps), logits, k)


# -- SLT Eq. 10 and 12 ---------------------------------------------------------------------------------------------------


def smooth_images(height, width, number=4):
    """Hills of a size of their own in each image, in [0, 1], none of them symmetric."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    hills = [torch.exp(-8 * ((x - 0.2 - 0.1 * n) ** 2 + (y - 0.7) ** 2)) + 0.3 * x for n in range(number)]
    return torch.stack(hills)[:, None].repeat(1, 3, 1, 1) / 1.4


@pytest.mark.parametrize("scale", [0.75, 0.8, 0.9, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("flipped", [(False,) * 4, (True,) * 4, (True, False, False, True)])
def test_the_inverse_returns_an_unmoved_map(flipped, scale):
    images = smooth_images(40, 60)
    size = (round(40 * scale), round(60 * scale))
    transform = SpatialTransform(torch.tensor(flipped), size)
    moved = transform.apply(images)
    assert moved.shape == (4, 3, *size)
    restored = transform.restore(moved, (40, 60))
    torch.testing.assert_close(restored, images, atol=0.02 if scale != 1 else 0, rtol=0)
    for n in range(4):  # and there was something to undo
        assert flipped[n] == (
            not torch.allclose(F.interpolate(moved, (40, 60), mode="bilinear")[n], images[n], atol=0.1)
        )


def test_the_map_of_the_transformed_image_goes_back_to_that_of_the_image():
    """What a network that only averages says of a scaled mirror image is, moved back, what it says of the image."""
    images, backbone = smooth_images(128, 192), mean_backbone()
    cells = backbone.features(images).shape[-2:]
    for seed in range(20):
        torch.manual_seed(seed)
        transform = slt.draw_transform(4, (128, 192), cells)
        restored = transform.restore(backbone.features(transform.apply(images)), cells)
        torch.testing.assert_close(restored, backbone.features(images), atol=0.03, rtol=0)


def test_scaled_images_have_whole_cells_and_all_stay_within_the_range():
    torch.manual_seed(0)
    drawn = [slt.draw_transform(8, (128, 256), (4, 8)) for _ in range(200)]
    assert {transform.size[0] for transform in drawn} == {96, 128, 160}
    assert {transform.size[1] for transform in drawn} == {192, 224, 256, 288, 320}
    assert 0.45 < torch.stack([transform.flipped for transform in drawn]).float().mean() < 0.55
    assert slt.draw_transform(1, (8, 8), (1, 1)).size == (8, 8)


def test_what_is_not_among_the_stimuli_is_not_drawn():
    for _ in range(20):
        assert slt.draw_transform(8, (64, 64), (8, 8), ("flip",)).size == (64, 64)
        assert not slt.draw_transform(8, (64, 64), (8, 8), ("scale", "colour")).flipped.any()


# -- colour --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.6, 1.4])
@pytest.mark.parametrize("position, name", enumerate(["brightness", "contrast", "saturation"]))
def test_colours_change_as_in_torchvision(position, name, factor):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    amounts = [torch.ones(2), torch.ones(2), torch.ones(2), torch.zeros(2)]
    amounts[position] = torch.tensor([factor, 1.0])  # the second image stays
    expected = torch.stack([getattr(transforms, f"adjust_{name}")(images[0], factor), images[1]])
    torch.testing.assert_close(slt.adjust_colours(images, *amounts), expected, atol=1e-4, rtol=0)


def test_a_third_of_the_colour_circle_turns_red_to_green_and_grey_to_grey():
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1)
    turned = slt.adjust_colours(images, one, one, one, one / 3)
    torch.testing.assert_close(turned, images[:, [2, 0, 1]])
    torch.testing.assert_close(turned, transforms.adjust_hue(images, 1 / 3))
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(slt.adjust_colours(grey, one, one, one, 0.1 * one), grey)


def test_every_image_gets_amounts_of_its_own_within_the_stated_strength():
    torch.manual_seed(0)
    for amounts, (name, strength) in zip(slt.draw_colours(1000), slt.COLOUR_STRENGTH.items()):
        middle = 0 if name == "hue" else 1
        assert middle - strength <= amounts.min() < middle - 0.95 * strength, name
        assert middle + strength >= amounts.max() > middle + 0.95 * strength, name


def test_the_colours_of_images_change_not_those_of_normalised_inputs(monkeypatch):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    seen = []

    def spy(images, *_):
        seen.append(images)
        return images

    monkeypatch.setattr(slt, "adjust_colours", spy)
    localizer = SLTLocalizer(small_backbone(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)), stimuli=("colour",))
    values = localizer.train().loss(localizer.backbone.preprocess(images), LABELS)
    torch.testing.assert_close(seen[0], images / 255)
    torch.testing.assert_close(values["visual"], torch.tensor(0.0))  # colours that come back unchanged


# -- localizer -----------------------------------------------------------------------------------------------------------


def test_the_loss_is_semantic_plus_beta_times_visual(inputs):
    localizer = SLTLocalizer(small_backbone(), alpha=0.3, k=2, beta=7.0).train()
    values = localizer.loss(inputs, LABELS)
    torch.testing.assert_close(values["loss"], values["semantic"] + 7 * values["visual"])
    logits = localizer(inputs)
    torch.testing.assert_close(values["semantic"], semantic_tolerance_loss(logits, LABELS, 0.3, 2))
    torch.testing.assert_close(values["accuracy"], (logits.argmax(1) == LABELS).float().mean())
    assert values["visual"] > 0
    assert [name for name, value in values.items() if value.requires_grad] == ["loss"]


def test_the_visual_loss_compares_all_class_maps_with_those_of_the_mirrored_image(inputs):
    localizer = SLTLocalizer(small_backbone(), stimuli=("flip",)).eval()
    torch.manual_seed(0)
    flipped = slt.draw_transform(4, (32, 48), (4, 6), ("flip",)).flipped
    torch.manual_seed(0)
    found = localizer.loss(inputs, LABELS)["visual"]
    maps = localizer.class_maps(localizer.backbone.features(inputs))
    mirrored = localizer.class_maps(localizer.backbone.features(inputs.flip(-1))).flip(-1)
    torch.testing.assert_close(found, (maps - mirrored).square()[flipped].sum() / maps.numel())
    assert SLTLocalizer(mean_backbone(), stimuli=("flip",)).loss(inputs, LABELS)["visual"] < 1e-12


def test_the_visual_loss_can_add_the_classes_up_as_eq_13_is_printed(inputs):
    values = []
    for sum_over_maps in (False, True):
        localizer = SLTLocalizer(small_backbone(), alpha=0, k=CLASSES, beta=3.0, sum_over_maps=sum_over_maps).train()
        torch.manual_seed(0)
        values.append(localizer.loss(inputs, LABELS))
    mean, summed = values
    assert mean["visual"] > 0
    torch.testing.assert_close(summed["visual"], CLASSES * mean["visual"])
    torch.testing.assert_close(
        summed["loss"], CLASSES * mean["loss"]
    )  # with all mistakes forgiven nothing else is left


def test_the_published_settings_are_those_of_the_printed_equation():
    backbone = Backbone(nn.AvgPool2d(8), GapLinear(3, 200), 3)
    assert SLTLocalizer(backbone, **slt.SETTINGS["cub"]).sum_over_maps and not SLTLocalizer(backbone).sum_over_maps


def test_the_mean_of_a_class_map_is_its_logit_without_the_bias(inputs):
    localizer = SLTLocalizer(small_backbone()).eval()
    means = localizer.class_maps(localizer.backbone.features(inputs)).mean(dim=(2, 3))
    torch.testing.assert_close(means + localizer.backbone.head.bias, localizer(inputs))


def test_without_its_parts_it_is_cam(inputs):
    plain, bare = CAM(small_backbone().eval()), SLTLocalizer(small_backbone().eval(), **ABLATION["CAM"])
    assert torch.equal(bare.loss(inputs, LABELS)["loss"], plain.loss(inputs, LABELS)["loss"])
    for classes in (None, LABELS):
        assert torch.equal(bare.score_maps(inputs, classes)[0], plain.score_maps(inputs, classes)[0])


def test_each_part_is_switched_alone(inputs):
    torch.manual_seed(0)
    seen = {}
    for name, options in ABLATION.items():
        localizer = SLTLocalizer(small_backbone().eval(), k=3, **options)
        values = localizer.loss(inputs, LABELS)
        plain = torch.equal(values["semantic"], F.cross_entropy(localizer(inputs), LABELS))
        one_map = torch.equal(localizer.score_maps(inputs)[0], CAM(localizer.backbone).score_maps(inputs)[0])
        seen[name] = (not plain, not one_map, bool(values["visual"] > 0))
    assert seen == {
        "CAM": (False, False, False),
        "L_SMT": (True, False, False),
        "L_SMT, top-K ACAM": (True, True, False),
        "L_VST": (False, False, True),
        "SLT": (True, True, True),
    }


@pytest.mark.parametrize("options, passes", [({}, 2), ({"beta": 0}, 1), ({"stimuli": ()}, 1)])
def test_without_visual_tolerance_there_is_no_second_view(inputs, options, passes):
    localizer, seen = SLTLocalizer(small_backbone(), **options), []
    localizer.backbone.trunk.register_forward_hook(lambda *_: seen.append(1))
    localizer.loss(inputs, LABELS)
    assert len(seen) == passes


def test_both_views_teach_the_trunk(inputs):
    """With every mistake forgiven what is left is the visual loss; detaching either view would change its gradient."""
    localizer = SLTLocalizer(small_backbone().eval(), alpha=0, k=CLASSES, beta=1, stimuli=("flip",))
    weight = localizer.backbone.trunk[0].weight
    torch.manual_seed(0)
    localizer.loss(inputs, LABELS)["loss"].backward()
    torch.manual_seed(0)
    flipped = slt.draw_transform(4, (32, 48), (4, 6), ("flip",)).flipped
    assert flipped.any()
    maps = localizer.class_maps(localizer.backbone.features(inputs[flipped]))
    mirrored = localizer.class_maps(localizer.backbone.features(inputs[flipped].flip(-1))).flip(-1)
    expected = torch.autograd.grad((maps - mirrored).square().sum() / (maps.numel() / flipped.sum() * 4), weight)[0]
    torch.testing.assert_close(weight.grad, expected)


def test_the_score_map_is_that_of_the_predicted_classes_unless_the_label_is_kept(inputs):
    localizer = SLTLocalizer(small_backbone().eval(), k=2)
    maps, logits = localizer.score_maps(inputs)
    torch.testing.assert_close(logits, localizer(inputs))
    class_maps = localizer.class_maps(localizer.backbone.features(inputs))
    torch.testing.assert_close(maps, top_k_average_map(class_maps, logits, 2))
    worst, best = logits.argmin(dim=1), logits.argmax(dim=1)
    assert torch.equal(localizer.score_maps(inputs, worst)[0], maps)
    localizer.keep_label = True
    assert torch.equal(localizer.score_maps(inputs)[0], maps)
    torch.testing.assert_close(localizer.score_maps(inputs, best)[0], maps)
    both = torch.stack([class_maps[range(4), worst], class_maps[range(4), best]]).mean(dim=0)
    torch.testing.assert_close(localizer.score_maps(inputs, worst)[0], both)


def test_localizing_changes_nothing_and_draws_nothing():
    localizer = SLTLocalizer(small_backbone(), k=2).train()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    before, state = {name: value.clone() for name, value in localizer.state_dict().items()}, torch.get_rng_state()
    first, second = localize(localizer, images), localize(localizer, images)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state) and localizer.training
    for name, value in localizer.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} moved"


def test_k_is_by_default_the_papers_share_of_the_classes():
    backbone = Backbone(nn.AvgPool2d(8), GapLinear(3, 200), 3)
    assert SLTLocalizer(backbone).k == slt.SETTINGS["cub"]["k"]
    assert SLTLocalizer(Backbone(nn.AvgPool2d(8), GapLinear(3, 2), 3)).k == 1


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"k": 0}, "expected k in 1 ... 6, .* found 0"),
        ({"k": 7}, "expected k in 1 ... 6, .* found 7"),
        ({"alpha": 1.5}, r"expected alpha in \[0, 1\], found 1.5"),
        ({"alpha": math.nan}, r"expected alpha in \[0, 1\], found nan"),
        ({"beta": -1}, "expected beta in .* found -1"),
        ({"stimuli": ("color",)}, "expected stimuli out of colour, flip, scale, found .*color"),
    ],
)
def test_what_a_localizer_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SLTLocalizer(small_backbone(), **options)


@pytest.mark.parametrize(
    "name, features, last", [("vgg16", (1, 512, 14, 14), "ReLU"), ("inception_v3", (1, 768, 17, 17), "InceptionC")]
)
def test_the_surgery_of_the_localizer(monkeypatch, name, features, last):
    for function in (
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "trunc_normal_",
    ):  # 138 million draws, for shapes
        monkeypatch.setattr(nn.init, function, lambda tensor, *_, **__: tensor)
    backbone = slt.create_localizer_backbone(name, CLASSES, pretrained=False).eval()
    with torch.inference_mode():
        found = backbone.features(torch.zeros(1, 3, backbone.input_size, backbone.input_size))
    assert found.shape == features and type(list(backbone.trunk)[-1]).__name__ == last
    assert backbone.input_size == {"vgg16": 224, "inception_v3": 299}[name]
    assert backbone.mean[0] == {"vgg16": 0.485, "inception_v3": 0.5}[name]
    assert SLTLocalizer(backbone).backbone.head.weight.shape == (CLASSES, features[1])


def test_the_surgery_can_be_looked_at_without_weights():
    with torch.device("meta"):
        backbone = slt.create_localizer_backbone("vgg16", CLASSES, pretrained=False)
        assert backbone.features(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 4, 4)


# -- localizer and regressor in step -------------------------------------------------------------------------------------


class KnownBoxes(nn.Module):
    """A regressor that gives what it was told and remembers what it was shown."""

    def __init__(self, boxes, backbone):
        super().__init__()
        self.boxes, self.backbone = nn.Parameter(torch.tensor(boxes)), backbone

    def forward(self, inputs):
        self.seen = inputs
        return self.boxes


def test_the_regression_loss_is_that_of_boxes_in_cells_of_the_map(inputs, monkeypatch):
    """48 x 32 pixels, 6 x 4 cells: m = 8. Predicted: x y w h = 0.5 0.25 0.5 0.5 of the image, 24 8 48 24 in pixels."""
    regressor = KnownBoxes([[0.5, 0.25, 0.5, 0.5]] * 4, small_backbone(seed=1))
    pseudo_boxes = torch.tensor([[20.0, 8.0, 48.0, 8.0]]).repeat(4, 1)  # off by 4, 0, 0, 16 pixels
    monkeypatch.setattr(SLTNet, "pseudo_boxes", lambda self, maps, size: pseudo_boxes)
    for m, expected in {None: 0.125 + 1.5, 8.0: 0.125 + 1.5, 1.0: 3.5 + 15.5, 32.0: 0.5 * (1 / 64 + 1 / 4)}.items():
        net = SLTNet(SLTLocalizer(small_backbone()), regressor, m=m)
        torch.manual_seed(0)
        values = net.loss(inputs, LABELS)
        torch.testing.assert_close(values["regression"], torch.tensor(expected))
        torch.manual_seed(0)
        alone = net.localizer.loss(inputs, LABELS)
        torch.testing.assert_close(values["loss"], alone["loss"] + expected)
        assert set(values) == set(alone) | {"regression"} and not values["regression"].requires_grad


def test_the_pseudo_boxes_are_those_of_the_localizers_map():
    maps = torch.full((1, 4, 6), -3.0)
    maps[0, 1:3, 2:5] = 5.0
    (box,) = small_net(tau=0.5).pseudo_boxes(maps, (32, 48))
    assert box.tolist() == [16, 8, 40, 24]


def test_training_draws_the_boxes_from_the_map_of_the_same_pass(inputs, monkeypatch):
    net, seen = small_net(), []
    net.train()
    original = SLTNet.pseudo_boxes

    def spy(self, maps, size):
        seen.append((maps, size))
        return original(self, maps, size)

    monkeypatch.setattr(SLTNet, "pseudo_boxes", spy)
    net.loss(inputs, LABELS)
    maps, size = seen[0]
    features = net.backbone.features(inputs)
    expected = top_k_average_map(net.localizer.class_maps(features), net.backbone.head(features), 2)
    torch.testing.assert_close(maps, expected)
    assert size == (32, 48) and not maps.requires_grad


def test_the_regressor_teaches_the_localizer_nothing(inputs):
    net = SLTNet(
        SLTLocalizer(small_backbone(), alpha=0, k=CLASSES, beta=0), BoxRegressor(small_backbone(seed=1), hidden=8)
    )
    net.loss(inputs, LABELS)["loss"].backward()
    assert all((p.grad == 0).all() for p in net.localizer.parameters())
    assert all((p.grad != 0).any() for p in net.regressor.backbone.trunk[0].parameters())


def test_the_regressor_sees_the_images_normalised_its_own_way():
    images = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8)
    other = small_backbone(seed=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    net = SLTNet(SLTLocalizer(small_backbone()), KnownBoxes([[0.1, 0.1, 0.8, 0.8]] * 4, other))
    net.loss(net.backbone.preprocess(images), LABELS)
    torch.testing.assert_close(net.regressor.seen, other.preprocess(images))


def test_localizer_and_regressor_are_two_networks():
    backbone = small_backbone()
    with pytest.raises(ValueError, match="expected two networks, found one trunk in both"):
        SLTNet(SLTLocalizer(backbone), BoxRegressor(backbone))


@pytest.fixture(scope="module")
def birds():
    return load_dataset(
        "synthbirds", "train-weaksup", n_images=16, image_size=32, species_per_family=1, habitat_correlation=1.0
    )


def test_one_seed_repeats_and_another_differs(birds):
    def trained(seed):
        net = small_net()
        return net, train(net, birds, epochs=2, seed=seed, **slt.NEW_OPTIMIZATION)

    (first, once), (second, again), (_, other) = trained(0), trained(0), trained(1)
    assert once == again != other
    assert set(once[0]) == {"epoch", "loss", "semantic", "visual", "regression", "accuracy"}
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_regressor_follows_the_localizer(birds):
    net = small_net()
    history = train(net, birds, epochs=30, learning_rate=0.05, head_factor=1.0, batch_size=16, schedule="constant")
    assert history[-1]["regression"] < 0.7 * history[0]["regression"]


def test_inference_takes_the_box_from_the_regressor_and_the_class_from_the_classifier(birds):
    net, classifier = small_net().eval(), small_backbone(seed=2, input_size=32).eval()
    images = torch.stack([birds[i].image.as_subclass(torch.Tensor) for i in range(3)])
    boxes, logits = slt.predict(net, classifier, images)
    with torch.inference_mode():
        torch.testing.assert_close(logits, classifier(classifier.preprocess(images)))
        x, y, w, h = net.regressor(net.regressor.backbone.preprocess(images)).T
    torch.testing.assert_close(boxes, 32 * torch.stack([x, y, (x + w).clamp(max=1), (y + h).clamp(max=1)], dim=1))
    assert torch.equal(localize(net, images)[0], localize(net.localizer, images)[0])


def test_inference_resizes_before_it_crops_as_the_classifier_alone(birds):
    net, classifier = small_net().eval(), small_backbone(seed=2, input_size=24).eval()
    images = torch.stack([birds[i].image.as_subclass(torch.Tensor) for i in range(2)])
    boxes, logits = slt.predict(net, classifier, images, resize=32)
    assert torch.equal(logits, classify(classifier, images, resize=32))
    assert not torch.equal(logits, slt.predict(net, classifier, images)[1])
    assert torch.equal(boxes, slt.predict(net, classifier, images)[0])


# -- by its name ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


def fitted(birds, **hyperparameters):
    options = {"backbone": "tiny", "pretrained": False, "epochs": 1, "input_size": 32, "batch_size": 8, "hidden": 8}
    return localizers.fit("slt", birds, **options | hyperparameters)


def test_the_published_settings_reach_its_parts(birds):
    own = fitted(birds, k=2, average=False, epochs=0)
    net = own.network.student
    assert (net.localizer.alpha, net.localizer.beta, net.localizer.k) == (0.4, 10.0, 2)
    assert net.localizer.sum_over_maps and not net.localizer.average and net.tau == 0.2 and own.tau is None
    imagenet = slt.SLT.defaults("imagenet")
    assert {name: imagenet[name] for name in ("alpha", "k", "beta", "epochs", "learning_rate", "nesterov")} == {
        **{"alpha": 0.2, "k": 100, "beta": 10.0, "epochs": 2, "learning_rate": 2e-4, "nesterov": False}
    }


def test_its_box_is_the_regressors_and_its_class_that_of_a_classifier_apart(birds, tmp_path):
    images = birds.images(range(4))
    own = fitted(birds, classifier="separate")
    found = own.predict(images, birds.labels[:4])
    boxes, logits = slt.predict(own.network.student, own.network.classifier.backbone, images, input_size=32)
    assert torch.equal(found.boxes, boxes) and torch.equal(found.logits, logits)
    assert fitted(birds).predict(images).logits is None
    own.save(tmp_path)
    assert torch.equal(localizers.load(tmp_path).boxes(images)[0], found.boxes)
    with pytest.raises(ValueError, match="expected a classifier out of none, separate, found 'joint'"):
        fitted(birds, classifier="joint")


@pytest.mark.parametrize("row", ABLATION)
def test_the_maps_alone_are_a_localizer_for_every_row_of_table_5(birds, tmp_path, row):
    options = {"backbone": "tiny", "pretrained": False, "epochs": 1, "input_size": 32, "batch_size": 8} | ABLATION[row]
    own = localizers.fit("wsol_lib.slt:SLTMaps", birds, birds, k=2, **options)
    expected = {"alpha": 0.4, "beta": 10.0, "average": True} | ABLATION[row]
    assert {name: getattr(own.network, name) for name in expected} == expected and own.network.sum_over_maps
    images, labels = birds.images(range(4)), birds.labels[:4]
    found, (maps, logits) = own.predict(images, labels), localize(own.network, images, labels, input_size=32)
    torch.testing.assert_close(found.score_maps, normalize_score_maps(maps))
    assert torch.equal(found.boxes, boxes_from_score_maps(found.score_maps, own.tau)) and torch.equal(
        found.logits, logits
    )
    own.save(tmp_path)
    assert torch.equal(localizers.load(tmp_path).boxes(images, labels)[0], found.boxes)


def test_the_maps_alone_have_the_papers_surgery_and_settings(monkeypatch):
    settings = slt.SLTMaps.defaults("cub")
    published = slt.SLT.defaults("cub")
    assert all(settings[name] == published[name] for name in ("alpha", "k", "beta", "epochs", "learning_rate"))
    assert settings["tau"] is None and published["tau"] == 0.2
    cut = small_backbone()
    monkeypatch.setattr(slt, "create_localizer_backbone", lambda name, *_, **__: cut)
    own = slt.SLTMaps("maps", list("abcdef"), settings | {"backbone": "vgg16", "k": 2})
    assert own.network.backbone is cut


@pytest.mark.parametrize("method", [slt.SLT, slt.SLTMaps])
def test_a_search_draws_beta_between_two_ends(birds, method):
    drawn = method.drawn(method.defaults())
    assert all(math.isfinite(end) for space in drawn.values() for end in space[:2])
    assert {"alpha", "beta", "learning_rate"} <= set(drawn)
