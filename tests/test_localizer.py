"""The base of all localizers: settings and where they come from, the threshold that boxed images choose, what is predicted."""

import itertools
import math
import threading
import time

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from wsol_lib import localizer as room
from wsol_lib import localizers
from wsol_lib.boxes import box_iou, boxes_from_score_maps, normalize_score_maps
from wsol_lib.cam import CAM, localize
from wsol_lib.data import LabelsOnly, Subset, load_dataset
from wsol_lib.localizer import EVALUATION_RECIPES, SETTINGS, TAU, Localizer, wnids_of
from wsol_lib.localizers import NAMES, fit
from wsol_lib.metrics import MaxBoxAcc
from wsol_lib.models import OUTPUT_STRIDES, create_backbone

BIRDS = {"image_size": 40, "species_per_family": 1}


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=12, **BIRDS)


@pytest.fixture(scope="module")
def boxed():
    return load_dataset("synthbirds", "train-fullsup", n_images=16, **BIRDS)


@pytest.fixture(scope="module")
def cam(birds, boxed, _tiny):
    return fit("cam", birds, boxed, **tiny.SETTINGS)


@pytest.fixture(scope="module")
def images(birds):
    return birds.images(range(len(birds)))


def settings_of(name="cam", dataset="", **given):
    return localizers.find(name).settings_for(name, dataset, given)


# -- settings ------------------------------------------------------------------------------------------------------------


class Own(CAM):
    """A network with two hyperparameters."""

    search_space = {"depth": (1, 8), "share": (0.0, 1.0)}  # noqa: RUF012

    def __init__(self, backbone, *, depth: int = 2, share: float = 0.5):
        super().__init__(backbone)
        self.depth, self.share = depth, share


class Published(Localizer):
    """Its paper has settings for all data sets, and for two of them others."""

    network_class = Own
    recipe = {"learning_rate": 0.3, "share": 0.25, "weight_decay": 0.0}  # noqa: RUF012
    recipes = {"cub": {"learning_rate": 0.4, "epochs": 7}, "synthbirds": {"share": 0.75}}  # noqa: RUF012


def published(dataset="", **given):
    return Published.settings_for("published", dataset, given)


def test_what_is_nobodys_is_everybodys():
    assert {key: settings_of()[key] for key in SETTINGS} == SETTINGS
    assert published()["momentum"] == SETTINGS["momentum"] and published()["depth"] == 2


def test_a_recipe_goes_before_the_default_and_that_of_a_data_set_before_both():
    assert [published(name)["learning_rate"] for name in ("", "imagenet", "cub")] == [0.3, 0.3, 0.4]
    assert [published(name)["share"] for name in ("", "cub", "synthbirds")] == [0.25, 0.25, 0.75]
    assert [published(name)["epochs"] for name in ("", "cub")] == [SETTINGS["epochs"], 7]


def test_what_is_given_goes_before_all_and_none_is_the_published_value():
    assert published("cub", learning_rate=0.1, share=0)["learning_rate"] == 0.1
    assert published("cub", learning_rate=0.1, share=0)["share"] == 0  # and not what is empty
    assert published("cub", weight_decay=None, learning_rate=None, share=None) == published("cub")
    assert published(weight_decay=None)["weight_decay"] == 0.0


def test_a_fit_asks_for_the_data_set_that_it_gets(birds):
    path = f"{__name__}:Published"
    ours = fit(path, birds, **tiny.SETTINGS)
    assert ours.settings["share"] == ours.network.share == 0.75
    assert fit(path, birds, share=0.1, **tiny.SETTINGS).network.share == 0.1
    assert (
        fit(path, birds, **tiny.SETTINGS | {"epochs": None, "batch_size": None}, learning_rate=1e-9).history[-1][
            "epoch"
        ]
        == 10
    )


@pytest.mark.parametrize("dataset", EVALUATION_RECIPES)
def test_what_the_evaluation_paper_published_is_taken_on_its_data_sets(dataset):
    settings = settings_of(dataset=dataset, backbone="resnet50")
    assert {key: settings[key] for key in EVALUATION_RECIPES[dataset]} == EVALUATION_RECIPES[dataset]


def test_a_published_resolution_that_a_backbone_does_not_have_gives_way_and_a_given_one_does_not():
    assert 16 not in OUTPUT_STRIDES["vgg16"]
    assert settings_of(dataset="cub", backbone="vgg16")["output_stride"] is None
    assert settings_of(dataset="cub", backbone="vgg16", output_stride=16)["output_stride"] == 16  # and is refused there


@pytest.mark.parametrize("name", NAMES)
def test_published_settings_are_feasible_whatever_the_data_set(name):
    method = localizers.find(name)
    for dataset in ("", "synthbirds", *method.recipes):
        settings = method.settings_for(name, dataset, {})
        assert settings.keys() == method.defaults().keys() >= set(SETTINGS)
    assert set(method.hyperparameters()) >= set(method.search_space()) - {"tau"}


def test_settings_are_plain_and_the_callers_stay_his():
    given = {"teacher_settings": {"epochs": 1, "kinds": ("a", "b")}}
    settings = settings_of("psol", **given)
    settings["teacher_settings"]["epochs"] = 2
    assert settings["teacher_settings"]["kinds"] == ["a", "b"]
    assert given == {"teacher_settings": {"epochs": 1, "kinds": ("a", "b")}}
    settings_of("psol")["teacher_settings"]["epochs"] = 3
    assert settings_of("psol")["teacher_settings"] == {}


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"momentun": 0.9},
            "expected settings of it out of .*momentum.*, found momentun: leave out what is not in the list",
        ),
        ({"size": 1, "colour": 2}, "found colour, size: leave out"),
        ({"epochs": -1}, "expected epochs as a whole number from 0 up, found -1"),
        ({"epochs": 1.5}, "expected epochs as a whole number from 0 up, found 1.5"),
        ({"epochs": True}, "expected epochs as a number, found True"),
        ({"epochs": "3"}, "expected epochs as a number, found '3'"),
        ({"batch_size": 0}, "expected batch_size as a whole number from 1 up, found 0"),
        ({"input_size": -32}, "expected input_size as a whole number from 1 up, found -32"),
        ({"input_size": "32"}, "expected input_size as a whole number from 1 up, found '32'"),
        ({"input_size": True}, "expected input_size as a whole number from 1 up, found True"),
        ({"step_epochs": 0}, "expected step_epochs as a whole number from 1 up, found 0"),
        ({"num_workers": -1}, "expected num_workers as a whole number from 0 up, found -1"),
        ({"seed": -1}, "expected seed as a whole number from 0 up, found -1"),
        ({"seed": 0.5}, "expected seed as a whole number from 0 up, found 0.5"),
        ({"learning_rate": -0.1}, "expected learning_rate from 0 up, found -0.1"),
        ({"learning_rate": math.nan}, "expected learning_rate from 0 up, found nan"),
        ({"learning_rate": math.inf}, "expected learning_rate from 0 up, found inf"),
        ({"learning_rate": "fast"}, "expected learning_rate as a number, found 'fast'"),
        ({"weight_decay": False}, "expected weight_decay as a number, found False"),
        ({"momentum": -0.9}, "expected momentum from 0 up, found -0.9"),
        ({"nesterov": 1}, "expected nesterov as True or False, found 1"),
        ({"mirror": "yes"}, "expected mirror as True or False, found 'yes'"),
        ({"pretrained": "no"}, "expected pretrained as True or False, found 'no'"),
        ({"backbone": 50}, "expected backbone as text, found 50"),
        ({"schedule": "cosine"}, "expected a schedule out of one-cycle, constant, step, found 'cosine'"),
        ({"augment": "mixup"}, "expected augment out of crop, flip, none, found 'mixup'"),
        ({"precision": "half"}, "expected a precision out of float32, bfloat16, found 'half'"),
        ({"freeze": [1]}, r"expected freeze as a number of stages, the name of a layer or \"all\", found \[1\]"),
        ({"freeze": True}, 'expected freeze as a number of stages, the name of a layer or "all", found True'),
        ({"tau": 1.5}, r"expected tau in \[0, 1\], found 1.5"),
        ({"tau": -0.1}, r"expected tau in \[0, 1\], found -0.1"),
        ({"tau": "0.3"}, "expected tau as a number, found '0.3'"),
        ({"tau": True}, "expected tau as a number, found True"),
        ({"share": 1.1}, r"expected share in \[0, 1\], found 1.1"),
        ({"share": "half"}, "expected share as a number, found 'half'"),
        ({"depth": 9}, r"expected an integer depth in \[1, 8\], found 9"),
        ({"depth": 2.5}, r"expected an integer depth in \[1, 8\], found 2.5"),
        ({"depth": torch.tensor(2)}, "expected depth as a number, found tensor"),
        ({"output_stride": {1}}, "expected settings of finite numbers, text, lists and dicts, found others"),
    ],
    ids=lambda value: "-".join(map(str, itertools.chain(*value.items()))) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        Published.settings_for("it", "", given)


def test_kinds_beside_numbers():
    for given in ({"teacher_settings": 3}, {"teacher": 3}, {"flat_head": 0}):
        with pytest.raises(ValueError, match=f"expected {next(iter(given))} as (a dict|text|True or False), found"):
            settings_of("psol", **given)
    with pytest.raises(ValueError, match="expected kinds as a list, found 'flip'"):
        settings_of("lchp-r", kinds="flip")


def test_numbers_of_numpy_are_numbers():
    assert published(share=np.float64(0.5))["share"] == 0.5


# -- what settings do ----------------------------------------------------------------------------------------------------


def test_frozen_stages_stay_and_the_others_learn(birds):
    start, end = (
        fit("cam", birds, **tiny.SETTINGS | {"epochs": epochs}, freeze=2).network.state_dict() for epochs in (0, 1)
    )
    still = {name for name in start if torch.equal(start[name], end[name])}
    assert still == {name for name in start if name.startswith(("backbone.trunk.0.", "backbone.trunk.1."))}


def test_a_wrong_number_of_stages_is_said(birds):
    with pytest.raises(ValueError, match=r"expected 0 to 3 stages to freeze, .* found 4"):
        fit("cam", birds, **tiny.SETTINGS, freeze=4)


def test_nothing_is_trained_in_no_epoch(birds):
    fitted = fit("cam", birds, **tiny.SETTINGS | {"epochs": 0})
    assert fitted.history == [] and not fitted.network.training
    torch.manual_seed(0)
    assert torch.equal(fitted.network.backbone.head.weight, CAM(tiny.create(4, False)).backbone.head.weight)


def test_the_history_has_a_row_an_epoch(cam):
    assert [row["epoch"] for row in cam.history] == [1, 2]
    assert all(math.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1 for row in cam.history)


def test_somebody_may_be_called_after_every_epoch(birds):
    seen, watched = [], Localizer("cam", birds.class_names, settings_of(**tiny.SETTINGS))
    watched.after_epoch = seen.append
    watched.fit(birds, None, None)
    assert seen == [1, 2]


@pytest.mark.parametrize("augment, sides", [("crop", {tiny.SIZE}), ("flip", {40}), ("none", {40})])
def test_what_is_shown_of_images_of_one_size(augment, sides, birds):
    """Crops have the network's size; what is whole keeps its own until the network is asked."""
    shown = Localizer("cam", birds.class_names, settings_of(**tiny.SETTINGS, augment=augment)).augmented(birds)
    assert {shown[i].image.shape[-1] for i in range(len(birds))} == sides
    assert birds.transform is None  # theirs is another
    torch.manual_seed(0)
    views = [shown[0].image for _ in range(12)]
    plain = [torch.equal(view, birds.images([0])[0]) for view in views]
    flipped = [torch.equal(view, birds.images([0])[0].flip(-1)) for view in views]
    assert all(plain) is (augment == "none") and any(flipped) is (augment == "flip")
    assert (any(plain) and all(a or b for a, b in zip(plain, flipped))) is (augment != "crop")


@pytest.mark.parametrize("augment", ["crop", "flip", "none"])
def test_a_data_set_brings_no_transform_of_its_own(birds, augment):
    changed = Subset(birds, range(4))
    changed.transform = lambda sample: 1 / 0
    assert fit("cam", changed, **tiny.SETTINGS, augment=augment).history


def test_labels_are_all_that_can_be_seen_of_training_images(birds):
    seen = LabelsOnly(birds)
    assert torch.equal(seen[3].image, birds[3].image) and seen[3].label == birds[3].label
    assert seen[3].mask is None and seen[3].ignore is None and len(seen[3].boxes) == 0
    assert birds[3].mask is not None and len(birds[3].boxes)
    assert torch.equal(seen.images([1, 2]), birds.images([1, 2])) and len(seen) == len(birds)
    assert seen.class_names == birds.class_names and seen.image_ids == birds.image_ids


# -- ImageNet's rows -----------------------------------------------------------------------------------------------------

WNIDS = ("n02099601", "n01443537", "n03796401", "n02123045")


def test_wnids_are_those_of_the_data_set_or_its_class_names(birds):
    assert wnids_of(birds) is None
    named = Subset(birds, [0])
    named.class_names = WNIDS
    assert wnids_of(named) == WNIDS
    whole = Subset(birds, range(3))
    whole.wnids = list(WNIDS)
    assert wnids_of(Subset(LabelsOnly(whole), [1])) == WNIDS


def test_the_head_starts_with_imagenets_rows_where_all_classes_are_imagenets(birds, tmp_path):
    named = Subset(birds, range(4))
    named.class_names = WNIDS
    given = {"epochs": 0, "input_size": 32}
    whole = create_backbone("efficientnet_lite0")
    fitted = fit("cam", named, **given)
    assert torch.equal(fitted.network.backbone.head.weight, whole.head.weight[[207, 1, 675, 281]])
    assert not torch.equal(
        fit("cam", named, **given, imagenet_rows=False).network.backbone.head.weight, whole.head.weight[:4]
    )
    fitted.save(tmp_path / "model")
    loaded = localizers.load(tmp_path / "model")
    assert loaded.wnids == WNIDS and torch.equal(
        loaded.network.backbone.head.weight, fitted.network.backbone.head.weight
    )


def test_new_weights_have_no_rows_of_imagenets(birds):
    named = Subset(birds, range(4))
    named.class_names = WNIDS
    assert fit("cam", named, **tiny.SETTINGS | {"epochs": 0}).network.backbone.head.out_features == 4


# -- the threshold -------------------------------------------------------------------------------------------------------


def accuracy(maps, boxes, tau):
    """Share of images whose box is right at this tau, one image after the other."""
    found = boxes_from_score_maps(maps, tau)
    return np.mean([float(box_iou(one[None], own).max()) >= 0.5 for one, own in zip(found, boxes)])


@pytest.mark.parametrize("name", ["cam", "centre", "has", "few-shot", "ddt"])
def test_tau_is_the_one_at_which_most_boxes_are_right(name, birds, boxed):
    fitted = fit(name, birds, boxed, **tiny.settings(name))
    maps = fitted.score_maps(boxed.images(range(len(boxed))), boxed.labels)
    by_hand = {tau: accuracy(maps, boxed.boxes, tau) for tau in np.linspace(0, 1, 51)}
    assert accuracy(maps, boxed.boxes, fitted.tau) >= max(by_hand.values())
    metric = MaxBoxAcc()
    metric.update(maps, boxed.boxes)
    assert accuracy(maps, boxed.boxes, fitted.tau) == pytest.approx(float(metric.compute()))
    if name in ("cam", "centre", "few-shot"):
        assert fitted.tau == pytest.approx(metric.best_tau(), abs=1e-3)
    boxes, _ = fitted.predict_dataset(boxed)
    right = np.mean([float(box_iou(one[None], own).max()) >= 0.5 for one, own in zip(boxes, boxed.boxes)])
    assert right == pytest.approx(float(metric.compute()))


def test_a_given_tau_is_kept(birds, boxed):
    assert fit("cam", birds, boxed, **tiny.SETTINGS, tau=0.37).tau == 0.37
    assert fit("cam", birds, boxed, **tiny.SETTINGS, tau=0).tau == 0


def test_without_boxed_images_tau_is_the_published_one(birds):
    fitted = fit("cam", birds, **tiny.SETTINGS)
    assert fitted.tau == TAU and fitted.settings["tau"] is None


def test_boxed_images_change_the_threshold_alone(birds, cam):
    for name, value in fit("cam", birds, **tiny.SETTINGS).network.state_dict().items():
        assert torch.equal(value, cam.network.state_dict()[name])


def test_images_without_boxes_are_not_looked_at_for_it(birds, boxed, cam):
    some = Subset(boxed, [0, *range(len(boxed)), 1])
    some.boxes = [torch.zeros(0, 4), *boxed.boxes, torch.zeros(0, 4)]
    assert fit("cam", birds, some, **tiny.SETTINGS).tau == cam.tau


# -- predictions ---------------------------------------------------------------------------------------------------------


def test_batches_do_not_change_what_is_said(cam, birds, images, monkeypatch):
    whole = cam.predict(images, birds.labels)
    monkeypatch.setattr(room, "BATCH", 5)
    for ours, theirs in zip(cam.predict(images, birds.labels), whole):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(cam.predict_dataset(birds)[1], whole.scores, rtol=0, atol=1e-5)


def test_the_score_is_the_probability_of_the_class_that_is_looked_for(cam, birds, images):
    given, guessed = cam.predict(images, birds.labels), cam.predict(images)
    probabilities = given.logits.softmax(1)
    torch.testing.assert_close(given.scores, probabilities[range(len(images)), birds.labels])
    torch.testing.assert_close(guessed.scores, probabilities.amax(1))
    again = cam.predict(images, guessed.logits.argmax(1))
    assert torch.equal(again.boxes, guessed.boxes) and torch.equal(again.score_maps, guessed.score_maps)
    assert not torch.equal(given.score_maps, guessed.score_maps)


def test_without_a_classifier_the_score_is_the_mean_inside_the_box(birds, boxed, images):
    fitted = fit("few-shot", birds, boxed, **tiny.SETTINGS)
    boxes, scores, maps, logits = fitted.predict(images)
    assert logits is None
    for box, score, one in zip(boxes.long().tolist(), scores, maps):
        x1, y1, x2, y2 = box
        inside = one[y1:y2, x1:x2]
        assert float(score) == pytest.approx(float(inside.mean()) if inside.numel() else 0.0, abs=1e-5)


def test_the_mirror_image_is_averaged_with_it(birds, boxed, images):
    """The class is the one that the image itself is taken for."""
    fitted = fit("cam", birds, boxed, **tiny.SETTINGS, mirror=True)
    for labels in (birds.labels, None):
        maps, logits = localize(fitted.network, images, labels, input_size=tiny.SIZE)
        classes = logits.argmax(1) if labels is None else labels
        mirrored, others = localize(fitted.network, images.flip(-1), classes, input_size=tiny.SIZE)
        found = fitted.predict(images, labels)
        expected = normalize_score_maps((maps + mirrored.flip(-1)) / 2)
        torch.testing.assert_close(found.score_maps, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.logits, (logits + others) / 2)
        assert torch.equal(found.boxes, boxes_from_score_maps(found.score_maps, fitted.tau))
    plain = fitted.predict(images, birds.labels).score_maps
    torch.testing.assert_close(
        fitted.predict(images.flip(-1), birds.labels).score_maps.flip(-1), plain, rtol=0, atol=1e-5
    )


def test_the_mirror_image_is_asked_for_the_class_of_the_image(birds, images):
    fitted, asked = fit("cam", birds, **tiny.SETTINGS, mirror=True), []

    def localize(images, classes):
        """Taken for class 1, and its mirror image for class 2."""
        asked.append(None if classes is None else classes.tolist())
        logits = torch.eye(4)[torch.full((len(images),), len(asked))]
        return torch.rand(len(images), 40, 40), logits

    fitted.localize = localize
    fitted.predict(images[:3])
    assert asked == [None, [1, 1, 1]]


def test_images_of_any_size_have_boxes_in_their_own_pixels(cam, birds):
    image = birds.images([0])
    wide = image.repeat_interleave(3, dim=-1)
    assert cam.score_maps(wide).shape == (1, 40, 120)
    (small,), (large,) = cam.boxes(image)[0], cam.boxes(wide)[0]
    torch.testing.assert_close(large / torch.tensor([3.0, 1, 3, 1]), small, rtol=0, atol=1.5)


def test_predict_dataset_is_predict(cam, birds, images):
    boxes, scores = cam.predict_dataset(birds)
    found = cam.predict(images, birds.labels)
    assert torch.equal(boxes, found.boxes) and torch.equal(scores, found.scores)


def test_boxes_are_drawn_while_the_network_looks_at_the_next_images(cam, birds, monkeypatch):
    """As on a GPU: the first boxes wait until the network has begun with the second images, and it never has two at once."""
    monkeypatch.setattr(room, "BATCH", 4)
    alone = cam.predict_dataset(birds)
    begun, at_work, most, draw, see = [threading.Event() for _ in range(3)], [], [], cam.draw, cam.see

    def seen(images, classes):
        at_work.append(0)
        most.append(len(at_work))
        begun[len(most) - 1].set()
        time.sleep(0.05)  # for another one to come in, if it may
        found = see(images, classes)
        at_work.pop()
        return found

    def drawn(maps, logits, classes):
        assert begun[1].wait(60)
        return draw(maps, logits, classes)

    monkeypatch.setattr(room, "OVERLAPPING", ("cpu",))
    monkeypatch.setattr(cam, "see", seen)
    monkeypatch.setattr(cam, "draw", drawn)
    for both in zip(cam.predict_dataset(birds), alone):
        assert torch.equal(*both)
    assert most == [1, 1, 1]


def test_what_goes_wrong_in_an_overlapping_look_is_said(monkeypatch):
    monkeypatch.setattr(room, "OVERLAPPING", ("cpu",))
    found = room.overlapped(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_labels_may_be_a_list(cam, birds, images):
    assert torch.equal(cam.boxes(images, birds.labels.tolist())[0], cam.boxes(images, birds.labels)[0])


def test_nothing_is_said_of_no_image(cam):
    found = cam.predict(torch.zeros(0, 3, 20, 30, dtype=torch.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.score_maps.shape == (0, 20, 30)


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.rand(2, 3, 32, 32), r"torch.float32 of shape \(2, 3, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"torch.uint8 of shape \(3, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), r"torch.uint8 of shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), r"torch.uint8 of shape \(2, 32, 32, 3\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), "ndarray"),
        ([torch.zeros(3, 32, 32, dtype=torch.uint8)], "list"),
    ],
)
def test_images_of_another_kind(cam, images, found):
    with pytest.raises(
        ValueError, match=rf"expected uint8 images of shape \(N, 3, H, W\), a tensor, found {found}: stack"
    ):
        cam.predict(images)


@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.zeros(11, dtype=torch.int64), r"expected a label, a whole number, for each of 12 images, .* \(11,\)"),
        (torch.zeros(12, 1, dtype=torch.int64), r"for each of 12 images, found labels of shape \(12, 1\)"),
        (torch.tensor(0), r"for each of 12 images, found labels of shape \(\)"),
        (torch.zeros(12), "expected a label, a whole number, .* torch.float32"),
        (torch.zeros(12, dtype=torch.bool), "expected a label, a whole number, .* torch.bool"),
        (torch.full((12,), 4), r"expected labels in 0 ... 3, the classes of this localizer, found 4 ... 4"),
        (torch.tensor([0] * 11 + [-1]), r"expected labels in 0 ... 3, the classes of this localizer, found -1 ... 0"),
    ],
)
def test_labels_of_another_kind(cam, images, labels, message):
    with pytest.raises(ValueError, match=message):
        cam.predict(images, labels)


def test_a_network_in_train_mode_is_asked_in_eval_mode(cam, images):
    before = {name: value.clone() for name, value in cam.network.state_dict().items()}
    expected = cam.predict(images)
    cam.network.train()
    found = cam.predict(images)
    assert cam.network.training
    cam.network.eval()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected))
    assert all(torch.equal(value, before[name]) for name, value in cam.network.state_dict().items())


def test_a_constant_map_gives_no_box_or_the_whole_image(birds, images):
    """Normalised it is zero everywhere: below every tau but 0."""

    class Flat(CAM):
        def score_maps(self, inputs, classes=None):
            maps, logits = super().score_maps(inputs, classes)
            return torch.zeros_like(maps), logits

    fitted = fit("cam", birds, **tiny.SETTINGS | {"epochs": 0})
    fitted.network.__class__ = Flat
    assert fitted.boxes(images)[0].tolist() == [[0, 0, 0, 0]] * 12
    fitted.tau = 0.0
    assert fitted.boxes(images)[0].tolist() == [[0, 0, 40, 40]] * 12


# -- a localizer of one's own --------------------------------------------------------------------------------------------


class Squares(Localizer):
    """It knows without learning: a box in the middle."""

    supervision = "nothing"
    makes_maps = False
    least_classes = 1

    @classmethod
    def hyperparameters(cls):
        return {"side": 0.5}

    def build(self):
        return nn.Identity()

    def learn(self, dataset, boxed, stage):
        pass

    def look(self, images, classes):
        height, width = images.shape[-2:]
        middle, half = torch.tensor([width, height] * 2) / 2, torch.tensor([width, height]) * self.settings["side"] / 2
        box = middle + torch.cat([-half, half])
        return room.Predictions(box.expand(len(images), 4), torch.full((len(images),), 0.5))

    @property
    def input_size(self):
        return 32


def test_without_maps_there_is_no_threshold(birds, boxed, images):
    fitted = fit(f"{__name__}:Squares", birds, boxed)
    assert fitted.tau is None
    boxes, scores = fitted.boxes(images)
    assert boxes.tolist() == [[10, 10, 30, 30]] * 12 and scores.tolist() == [0.5] * 12
    assert fitted.predict(images[:0]).score_maps is None
    with pytest.raises(ValueError, match="expected a localizer that makes score maps"):
        fitted.score_maps(images)
