"""PSOL: boxes as numbers, two tasks on one trunk or on two, and any classifier's classes beside any localizer's boxes."""

from typing import ClassVar

import pytest
import tiny
import torch
from torch import nn
from torchvision.transforms import v2

from wsol_lib import localizer, localizers, psol
from wsol_lib.boxes import box_iou
from wsol_lib.data import load_dataset, make_sample
from wsol_lib.metrics import LocalizationAccuracy
from wsol_lib.models import Backbone, BoxRegressor, GapLinear, count_flops, count_parameters, create_backbone
from wsol_lib.pseudo_boxes import WithBoxes
from wsol_lib.psol import (
    JointModel,
    RandomResizedCrop,
    classify,
    decode_boxes,
    encode_boxes,
    labels_and_boxes,
    predict_boxes,
    relative_boxes,
    renormalize,
)
from wsol_lib.train import train

SIZES = torch.tensor([[100, 50], [64, 64], [31, 77]])
BOXES = torch.tensor([[10.0, 0, 40, 50], [3.5, 7.25, 60, 64], [0, 0, 31, 77]])


def backbone(num_classes=12, pretrained=False):
    torch.manual_seed(0)
    return create_backbone("efficientnet_lite0", num_classes, pretrained)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=8, image_size=32)


# -- encoding ------------------------------------------------------------------------------------------------------------


def test_a_box_is_its_upper_left_corner_and_its_sides_in_shares_of_the_image():
    torch.testing.assert_close(encode_boxes(BOXES, SIZES)[0], torch.tensor([0.1, 0.0, 0.3, 1.0]))


def test_encoding_and_back():
    torch.testing.assert_close(decode_boxes(encode_boxes(BOXES, SIZES), SIZES), BOXES)


def test_a_predicted_box_ends_where_the_image_ends():
    assert decode_boxes(torch.tensor([[0.5, 0.75, 0.9, 0.5]]), torch.tensor([100, 40])).tolist() == [[50, 30, 100, 40]]


@pytest.mark.parametrize("box", [[4.0, 4, 4, 9], [9, 1, 4, 5], [-1, 0, 5, 5], [0, 0, 101, 5], [float("nan"), 0, 1, 1]])
def test_a_box_that_cannot_be_learnt(box):
    with pytest.raises(ValueError, match=r"expected boxes x1 < x2, y1 < y2 inside .*\[100.0, 50.0\] pixels as box 1"):
        encode_boxes(torch.tensor([[0.0, 0, 1, 1], box]), SIZES[0])


# What a transform does to the image is known; what the regressor is then asked for must be the same box on it.
MOVES = {
    "flip": (v2.RandomHorizontalFlip(p=1), lambda x, y: (100 - x, y), (100, 50)),
    "crop": (v2.CenterCrop((40, 60)), lambda x, y: (x - 20, y - 5), (60, 40)),
    "resize": (v2.Resize((224, 224)), lambda x, y: (2.24 * x, 4.48 * y), (224, 224)),
}


@pytest.mark.parametrize("move", MOVES)
def test_boxes_go_with_the_image(move):
    transform, point, (width, height) = MOVES[move]
    box = torch.tensor([[30.0, 10, 70, 44]])
    sample = transform(make_sample(torch.zeros(3, 50, 100, dtype=torch.uint8), 0, box, None, "a"))
    (xa, ya), (xb, yb) = point(30.0, 10.0), point(70.0, 44.0)
    expected = torch.tensor([[min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)]])
    assert sample.image.shape[-2:] == (height, width)
    decoded = decode_boxes(relative_boxes([sample]), torch.tensor([width, height]))
    torch.testing.assert_close(decoded, expected)


def test_the_papers_view_of_a_test_image():
    """Resized to 256 x 256, cropped to 224 x 224: a box that touches the border is cut (section 4.2)."""
    view = v2.Compose([v2.Resize((256, 256)), v2.CenterCrop(224)])
    whole = torch.tensor([[0.0, 0, 64, 32]])
    sample = view(make_sample(torch.zeros(3, 64, 64, dtype=torch.uint8), 0, whole, None, "a"))
    torch.testing.assert_close(relative_boxes([sample]), torch.tensor([[0, 0, 1, 112 / 224]]))


def test_the_targets_of_training(birds):
    samples = [birds[3], birds[5]]
    expected = encode_boxes(torch.cat([birds.boxes[3], birds.boxes[5]]), torch.tensor([32, 32]))
    found = relative_boxes(samples)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(found, expected)
    labels, boxes = labels_and_boxes(samples)
    assert labels.tolist() == birds.labels[[3, 5]].tolist() and (boxes == expected).all()


@pytest.mark.parametrize("number", [0, 2])
def test_an_image_teaches_one_box(number):
    boxes = torch.tensor([[0.0, 0, 1, 1]] * number).view(number, 4)
    sample = make_sample(torch.zeros(3, 8, 8, dtype=torch.uint8), 0, boxes, None, "sparrow.jpg")
    with pytest.raises(ValueError, match=f"expected one box an image, found {number} in sparrow.jpg"):
        relative_boxes([sample])


def test_random_crops_keep_a_piece_of_the_box():
    corner = make_sample(torch.zeros(3, 64, 64, dtype=torch.uint8), 0, torch.tensor([[0.0, 0, 9, 9]]), None, "a")
    torch.manual_seed(0)
    samples = [RandomResizedCrop(32)(corner) for _ in range(40)]
    assert {sample.image.shape for sample in samples} == {(3, 32, 32)}
    assert (relative_boxes(samples)[:, 2:] > 0).all()
    lost = [v2.RandomResizedCrop(32, scale=(0.2, 1.0))(corner).boxes for _ in range(40)]
    assert any((boxes[:, 2:] <= boxes[:, :2]).any() for boxes in lost)


def test_a_box_that_fills_the_image_fills_every_crop():
    """595 pixels resized to 299 would end at 299.00003."""
    torch.manual_seed(0)
    for side in (595, 333):
        whole = torch.tensor([[0.0, 0, side, side]])
        filled = make_sample(torch.zeros(3, side, side, dtype=torch.uint8), 0, whole, None, "a")
        for _ in range(40):
            boxes = relative_boxes([RandomResizedCrop(299)(filled)])
            torch.testing.assert_close(boxes, torch.tensor([[0.0, 0, 1, 1]]))


def test_images_are_renormalized_from_one_network_for_another():
    here = Backbone(nn.Identity(), GapLinear(3, 2), 3)
    there = Backbone(nn.Identity(), GapLinear(3, 2), 3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(renormalize(here.preprocess(images), here, there), there.preprocess(images))


def test_a_box_that_no_crop_keeps_gets_the_whole_image():
    point = make_sample(torch.zeros(3, 64, 64, dtype=torch.uint8), 0, torch.tensor([[8.0, 8, 8, 8]]), None, "a")
    assert RandomResizedCrop(32)(point).boxes.tolist() == [[4, 4, 4, 4]]


# -- joint and separate --------------------------------------------------------------------------------------------------


def test_joint_training_shares_the_trunk():
    joint = JointModel(backbone(), hidden=16)
    assert joint.regressor.backbone.trunk is joint.backbone.trunk
    box_layers = count_parameters(joint.regressor.backbone.head)
    assert count_parameters(joint) == count_parameters(joint.backbone) + box_layers
    assert count_flops(joint, 64) == count_flops(joint.backbone, 64)


@pytest.mark.parametrize("task, untouched", [(0, "regressor"), (1, "classifier")])
def test_both_tasks_reach_the_shared_trunk_and_only_their_own_layers(task, untouched):
    joint = JointModel(backbone(), hidden=16).eval()
    joint(torch.randn(2, 3, 64, 64))[task].sum().backward()
    assert joint.backbone.trunk[0].weight.grad.abs().sum() > 0
    own = {"classifier": joint.backbone.head.weight, "regressor": joint.regressor.backbone.head[-1][0].weight}
    assert own.pop(untouched).grad is None
    assert own.popitem()[1].grad.abs().sum() > 0


def test_the_joint_loss_is_the_sum():
    joint = JointModel(backbone(), loss_weight=50.0).eval()
    x, labels, boxes = torch.randn(2, 3, 32, 32), torch.tensor([3, 4]), torch.rand(2, 4)
    logits, predicted = joint(x)
    values = joint.loss(x, (labels, boxes))
    mse = ((predicted - boxes) ** 2).mean()
    torch.testing.assert_close(values["loss"], nn.functional.cross_entropy(logits, labels) + 50 * mse)
    torch.testing.assert_close(values["mse"], mse.detach())
    torch.testing.assert_close(logits, joint.backbone(x))
    torch.testing.assert_close(predicted, joint.regressor(x))


def test_joint_training_runs(birds):
    joint = JointModel(backbone(), hidden=8)
    before = joint.backbone.trunk[0].weight.clone()
    (history,) = train(joint, birds, epochs=1, batch_size=8, targets=labels_and_boxes)
    assert set(history) == {"epoch", "loss", "accuracy", "mse"}
    assert (joint.backbone.trunk[0].weight != before).any()


def test_the_student_learns_the_pseudo_boxes(birds):
    """All pseudo boxes are the left half, and so are the student's."""
    half = torch.tensor([[0.0, 0, 16, 32]]).expand(8, 4)
    student = BoxRegressor(backbone(pretrained=True), hidden=32)
    student.backbone.trunk.requires_grad_(False)
    options = dict(learning_rate=0.005, head_factor=2, targets=relative_boxes)
    train(student, WithBoxes(birds, half), epochs=20, batch_size=8, **options)
    assert box_iou(predict_boxes(student, birds.images(range(8))), half[:1]).min() > 0.65  # the whole image has 0.5


# -- prediction ----------------------------------------------------------------------------------------------------------


def test_boxes_are_in_pixels_of_the_images_whatever_the_backbone_sees():
    regressor = BoxRegressor(backbone(), hidden=8)
    images = torch.randint(0, 256, (5, 3, 40, 60), dtype=torch.uint8)
    boxes = predict_boxes(regressor, images, input_size=32, batch_size=2)
    with torch.no_grad():
        relative = regressor.eval()(regressor.backbone.preprocess(images, 32))
    torch.testing.assert_close(boxes, decode_boxes(relative, torch.tensor([60, 40])))
    assert (boxes[:, 2] <= 60).all() and (boxes[:, 3] <= 40).all()


def test_prediction_leaves_the_mode_of_every_part_as_it_was():
    regressor = BoxRegressor(backbone(), hidden=8).train()
    regressor.backbone.trunk.eval()  # as what is frozen
    predict_boxes(regressor, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert regressor.training and regressor.backbone.head.training and not regressor.backbone.trunk.training


def test_per_class_boxes_need_the_classes():
    regressor = BoxRegressor(backbone(), hidden=8, num_classes=3)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected classes for a regressor with a box per class, found None"):
        predict_boxes(regressor, images)
    classes = torch.tensor([2, 0, 1])
    boxes = predict_boxes(regressor, images, classes, batch_size=2)
    with torch.no_grad():
        relative = regressor.eval()(regressor.backbone.preprocess(images))[torch.arange(3), classes]
    torch.testing.assert_close(boxes, decode_boxes(relative, torch.tensor([32, 32])))


class _SeesLeftEdge(nn.Module):
    """A trunk whose feature is the brightness of the leftmost column."""

    def forward(self, x):
        return x[:, :1, :, :1]


def toy_classifier():
    """Two classes: the logit of the first is the brightness of the left edge in [0, 1], the other's is 0."""
    head = GapLinear(1, 2)
    head.load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.zeros(2)})
    return Backbone(_SeesLeftEdge(), head, 1, mean=(0.0,) * 3, std=(1.0,) * 3, input_size=224)


def bright_on_the_left(columns):
    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    image[..., :columns] = 255
    return image


def test_one_crop_is_the_whole_image_or_its_middle():
    image = bright_on_the_left(10)
    whole = classify(toy_classifier(), image, input_size=256)
    torch.testing.assert_close(whole, torch.tensor([[1.0, 0.0]]))
    middle = classify(toy_classifier(), image, input_size=224, resize=256)  # begins at column 16
    torch.testing.assert_close(middle, torch.tensor([[0.0, 0.0]]))


def test_ten_crops_average_probabilities():
    """Left of column 10 it is bright: the two left corners see it at their left edge, no other view does."""
    logits = classify(toy_classifier(), bright_on_the_left(10), crops=10)
    probability = (2 * torch.sigmoid(torch.tensor(1.0)) + 8 * 0.5) / 10
    torch.testing.assert_close(logits.exp(), torch.stack([probability, 1 - probability])[None])


@pytest.mark.parametrize("input_size, resized", [(224, 256), (299, 320), (448, 512), (112, 128)])
def test_ten_crops_are_cut_out_of_the_papers_squares(input_size, resized):
    """Section 4.2: 256 for crops of 224, 320 for those of 299. Only views of the left border see the bright columns."""
    seen, classifier = [], toy_classifier()
    preprocess = classifier.preprocess
    classifier.preprocess = lambda images, size: seen.append(size) or preprocess(images, size)
    classify(classifier, bright_on_the_left(10), crops=10, input_size=input_size)
    assert seen == [resized]


@pytest.mark.parametrize("crops, resize", [(5, None), (1, 100)])
def test_crops_that_cannot_be_cut(crops, resize):
    with pytest.raises(ValueError, match="expected 1 or 10 crops no larger than the resized image"):
        classify(toy_classifier(), bright_on_the_left(10), crops=crops, resize=resize)


def test_any_classifier_goes_with_any_localizer(birds):
    images = birds.images(range(8))
    classifier, localizer = backbone(), BoxRegressor(backbone(), hidden=8)
    accuracy = LocalizationAccuracy()
    accuracy.update(
        predict_boxes(localizer, images), classify(classifier, images, input_size=32), birds.boxes, birds.labels
    )
    values = accuracy.compute()
    assert values["top1_loc"] <= values["top5_loc"] <= values["gt_known_loc"] <= 1


# -- by its name ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


def fitted(birds, **hyperparameters):
    options = {"backbone": "tiny", "pretrained": False, "epochs": 1, "input_size": 32, "batch_size": 4, "hidden": 8}
    return localizers.fit("psol", birds, **options | hyperparameters)


class KnownTeacher(localizers.Localizer):
    """A teacher that says what it was told, counts how often it is fitted, and finds nothing in the last image."""

    supervision = "nothing"
    fits: ClassVar[list[dict]] = []

    @classmethod
    def hyperparameters(cls):
        return {"box": [0.0, 0.0, 16.0, 32.0]}

    def build(self):
        return nn.Module()

    def learn(self, dataset, boxed, stage):
        self.fits.append(self.settings)

    def predict_dataset(self, dataset):
        boxes = torch.tensor([self.settings["box"]]).repeat(len(dataset), 1)
        boxes[-1] = 0
        return boxes, torch.ones(len(dataset))


TEACHER = f"{KnownTeacher.__module__}:KnownTeacher"


def test_the_student_learns_what_its_teacher_says_and_no_more(birds, monkeypatch):
    seen = []
    monkeypatch.setattr(
        localizer, "train", lambda network, dataset, **options: seen.append((network, dataset, options)) or []
    )
    own = fitted(birds, teacher=TEACHER, teacher_settings={"box": [1.0, 2, 30, 31]})
    ((network, dataset, options),) = seen
    assert network is own.network.student and isinstance(network, BoxRegressor)
    assert len(dataset) == 7  # the teacher found nothing in the last one
    assert all(boxes.tolist() == [[1, 2, 30, 31]] for boxes in dataset.boxes)
    assert options["targets"] is relative_boxes and not options["nesterov"] and options["schedule"] == "constant"
    assert (relative_boxes([dataset[i] for i in range(7)])[:, 2:] > 0).all()  # crops that keep a piece of the box


def test_ddt_sees_twice_the_side_of_what_the_student_sees(birds, monkeypatch):
    asked = []

    def fit(name, dataset, boxed, **options):
        asked.append((name, options))
        return KnownTeacher(name, dataset.class_names, KnownTeacher.settings_for(name, "", {"pretrained": False}))

    monkeypatch.setattr(localizers, "fit", fit)
    own = {"pretrained": False, "hidden": 8, "epochs": 0, "input_size": 32}
    for teacher, teacher_settings in (("ddt", {}), ("cam", {}), ("ddt", {"input_size": 48, "class_wise": False})):
        settings = psol.PSOL.settings_for("psol", "", own | {"teacher": teacher, "teacher_settings": teacher_settings})
        psol.PSOL("psol", birds.class_names, settings).fit(birds, None, None)
    assert [(name, options["input_size"]) for name, options in asked] == [("ddt", 64), ("cam", 32), ("ddt", 48)]
    assert asked[2][1]["class_wise"] is False and asked[0][1]["backbone"] == "efficientnet_lite0"


def test_an_interrupted_training_keeps_the_teachers_boxes(birds, tmp_path):
    options = {"teacher": TEACHER, "checkpoint": tmp_path}
    KnownTeacher.fits.clear()
    first, second = fitted(birds, **options), fitted(birds, **options)
    assert len(KnownTeacher.fits) == 1
    images = birds.images(range(8))
    assert torch.equal(first.boxes(images)[0], second.boxes(images)[0])
    assert torch.equal(first.boxes(images)[0], fitted(birds, teacher=TEACHER).boxes(images)[0])
    with pytest.raises(ValueError, match="teacher_settings"):
        fitted(birds, **options, teacher_settings={"box": [0.0, 0, 8, 8]})


@pytest.mark.parametrize("classifier", ["none", "separate", "joint"])
def test_the_classes_are_those_of_the_classifier_that_is_asked_for(birds, classifier, tmp_path):
    own, images = fitted(birds, teacher=TEACHER, classifier=classifier), birds.images(range(8))
    found = own.predict(images, birds.labels)
    assert (found.boxes >= 0).all() and (found.boxes <= 32).all() and found.score_maps is None
    if classifier == "none":
        assert found.logits is None and (found.scores == 1).all()
    else:
        backbone = own.network.student.backbone if classifier == "joint" else own.network.classifier.backbone
        torch.testing.assert_close(found.logits, classify(backbone, images, input_size=32))
        torch.testing.assert_close(found.scores, found.logits.softmax(1)[range(8), birds.labels])
    own.save(tmp_path)
    assert torch.equal(localizers.load(tmp_path).predict(images, birds.labels).boxes, found.boxes)


def test_the_rate_of_what_classifies_falls_after_each_third_of_the_epochs(birds, monkeypatch):
    """Section 4.2: after 2 of 6 epochs on ImageNet, after 10 of 30 on CUB; that of the regressor stays."""
    seen = []
    monkeypatch.setattr(localizer, "train", lambda network, dataset, **options: seen.append(options) or [])
    for dataset, step in {"imagenet": 2, "cub": 10}.items():
        epochs = psol.PSOL.defaults(dataset)["epochs"]
        for classifier in ("separate", "joint"):
            fitted(birds, teacher=TEACHER, classifier=classifier, epochs=epochs)
            assert [seen[-1][name] for name in ("schedule", "step_epochs", "step_factor")] == ["step", step, 0.1]
        assert seen[-3]["schedule"] == "constant"


def test_with_the_mirror_image_a_mirrored_image_has_the_mirrored_box(birds):
    own, images = fitted(birds, teacher=TEACHER, mirror=True, classifier="joint"), birds.images(range(8))
    found, mirrored = own.predict(images), own.predict(images.flip(-1))
    torch.testing.assert_close(
        mirrored.boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]),
        found.boxes - torch.tensor([32, 0, 32, 0]),
        atol=1e-3,
        rtol=0,
    )
    torch.testing.assert_close(mirrored.logits, found.logits, atol=1e-4, rtol=1e-4)


def test_a_head_that_does_not_pool_fits_its_input(birds):
    own = fitted(birds, teacher=TEACHER, flat_head=True, input_size=64)
    assert own.boxes(birds.images(range(8)))[0].shape == (8, 4)
    with pytest.raises(ValueError, match="expected flat_head=False for a joint classifier"):
        fitted(birds, teacher=TEACHER, flat_head=True, classifier="joint")


@pytest.mark.parametrize("classifier", ["none", "joint"])
def test_over_a_frozen_trunk_students_learn_from_features_what_they_learn_from_images(birds, classifier, monkeypatch):
    options = {"freeze": "all", "augment": "none", "epochs": 2, "classifier": classifier, "teacher": TEACHER}
    short = fitted(birds, **options)
    assert localizer.can_stand_for_images(short.network.student)
    seen = []
    monkeypatch.setattr(localizer, "can_stand_for_images", lambda network: seen.append(network))
    long = fitted(birds, **options)
    assert seen == [long.network.student]
    images = birds.images(range(8))
    torch.testing.assert_close(short.boxes(images)[0], long.boxes(images)[0], atol=0.1, rtol=0)
    assert short.history[1]["loss"] == pytest.approx(long.history[1]["loss"], rel=1e-2)


def test_a_classifier_that_is_not_known(birds):
    with pytest.raises(ValueError, match="expected a classifier out of none, separate, joint, found 'both'"):
        fitted(birds, teacher=TEACHER, classifier="both")
