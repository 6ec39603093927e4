"""Questions of the papers: the same trainings, looked at in another way."""

import pytest
import tiny
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from wsol_lib import lchp, localizers
from wsol_lib.book.questions import FamilyCAM, correlation
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.data import load_dataset
from wsol_lib.psol import classify

QUESTIONS = "wsol_lib.book.questions:"


@pytest.fixture(scope="module", autouse=True)
def small_backbone():
    with tiny.registered():
        yield


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=12, image_size=32)


def fitted(name, birds, like="", **changed):
    return localizers.fit(QUESTIONS + name, birds, birds, **tiny.settings(like or name, **changed))


def test_a_first_look_is_the_box_before_anything_is_covered(birds):
    own, images = fitted("FirstLook", birds, "lchp-i", epochs=0, delta=0.9), birds.images(range(12))
    generator = own.network.student.generator
    features = generator.features(generator.preprocess(images)).detach()
    by_hand = lchp.foreground_boxes(features, 0.9, (32, 32))
    found, logits = own.predict(images)[0], own.predict(images).logits
    assert torch.equal(found, by_hand)
    both = localizers.fit(
        "wsol_lib.lchp:PseudoLabels", birds, birds, **tiny.settings("lchp-i", epochs=0, delta=0.9)
    ).predict(images)
    assert torch.equal(logits, both.logits)
    assert (both.boxes[:, :2] <= found[:, :2]).all() and (both.boxes[:, 2:] >= found[:, 2:]).all()
    assert not torch.equal(both.boxes, found)


def test_where_nothing_stands_out_the_first_look_is_the_whole_image(birds):
    own = fitted("FirstLook", birds, "lchp-i", epochs=0, delta=1.0)
    assert own.boxes(birds.images([0]))[0].tolist() == [[0, 0, 32, 32]]


def test_a_score_is_how_sure_the_classifier_is_of_the_crop(birds):
    images = birds.images(range(4))
    plain = localizers.fit("lchp-i", birds, birds, **tiny.settings("lchp-i", delta=0.6)).predict(images)
    own = fitted("Sure", birds, "lchp-i", delta=0.6)
    found, classifier = own.predict(images, birds.labels[:4]), own.parts()[1]
    assert torch.equal(found.boxes, plain.boxes) and torch.equal(found.logits, plain.logits)
    inputs = classifier.preprocess(images)
    assert torch.equal(found.scores, lchp.crop_confidence(classifier, inputs, found.boxes))


def test_of_a_whole_image_it_is_the_classifier_s_own_probability(birds):
    images = transforms.resize(birds.images(range(4)), [40, 48])
    own = fitted("Sure", birds, "lchp-i", delta=0.6, whole=True)
    found = own.predict(images, birds.labels[:4])
    assert found.boxes.tolist() == [[0, 0, 48, 40]] * 4
    logits = classify(own.parts()[1], images, input_size=32)
    torch.testing.assert_close(found.scores, logits.softmax(1).amax(1), atol=1e-5, rtol=1e-4)


def test_a_map_that_only_looks_at_brightness_is_steady_but_for_what_moves(birds, monkeypatch):
    own = fitted("Steady", birds, k=2, beta=0.0, average=False)
    images = birds.images(range(3))
    asked = []

    def answer(side):
        def maps_of(images, *rest, **options):
            asked.append((side, options.get("input_size")))
            return images.float().mean(dim=1) + 1, torch.zeros(len(images), 12)

        return maps_of

    monkeypatch.setattr(own, "localize", answer("seen"))
    monkeypatch.setattr(
        "wsol_lib.book.questions.maps_of", lambda network, *rest, **options: answer("smaller")(*rest, **options)
    )
    found = own.predict(images, birds.labels[:3])
    assert asked == [("seen", None), ("seen", None), ("smaller", 32), ("seen", None)]
    assert (found.scores > 0.9).all() and (found.scores < 1).all()  # recoloured, brightness is not the same
    again = images.float().mean(dim=1)
    torch.testing.assert_close(found.score_maps, normalize_score_maps(again), atol=1e-5, rtol=1e-4)


def test_the_mirrored_map_is_moved_back(birds, monkeypatch):
    """A network that looks at the left edge whatever is there contradicts itself when the image is mirrored."""
    own = fitted("Steady", birds, k=2, beta=0.0, average=False)
    ramp = torch.linspace(1, 0, 32).expand(2, 32, 32)

    def left(*rest, **options):
        return ramp, torch.zeros(2, 12)

    monkeypatch.setattr(own, "localize", left)
    monkeypatch.setattr("wsol_lib.book.questions.maps_of", left)
    torch.testing.assert_close(own.predict(birds.images([0, 1]), birds.labels[:2]).scores, torch.full((2,), 2 / 3))


def test_correlation_by_hand():
    maps = torch.tensor([[[0.0, 1], [2, 3]], [[0.0, 1], [2, 3]], [[1.0, 1], [1, 1]]])
    others = torch.tensor([[[5.0, 7], [9, 11]], [[3.0, 2], [1, 0]], [[0.0, 1], [2, 3]]])
    torch.testing.assert_close(correlation(maps, others), torch.tensor([1.0, -1.0, 0.0]))


def test_a_family_s_loss_and_map_do_not_know_its_members():
    torch.manual_seed(0)
    model = FamilyCAM(tiny.create(6, pretrained=False), sisters=3).eval()
    inputs, features = torch.randn(2, 3, 32, 32), None
    logits, features = model(inputs), model.backbone.features(inputs)
    families = logits.softmax(1).unflatten(1, (2, 3)).sum(2)
    for labels in ([0, 5], [2, 3]):
        loss = model.loss(inputs, torch.tensor(labels))
        torch.testing.assert_close(loss["loss"], F.nll_loss(families.log(), torch.tensor([0, 1])))
        maps, same = model.score_maps(inputs, torch.tensor(labels))
        weights = torch.stack([model.backbone.head.weight[:3].mean(0), model.backbone.head.weight[3:].mean(0)])
        torch.testing.assert_close(maps, torch.einsum("nchw,nc->nhw", features, weights))
        torch.testing.assert_close(same, logits)
    with pytest.raises(ValueError, match="expected families of 4 classes each, found 6 classes: name another number"):
        FamilyCAM(tiny.create(6, pretrained=False), sisters=4)


def test_families_are_a_localizer_by_its_path(birds):
    own = fitted("Families", birds)
    maps = own.score_maps(birds.images([0]), birds.labels[:1])
    sister = own.score_maps(birds.images([0]), birds.labels[:1] // 3 * 3 + (birds.labels[:1] + 1) % 3)
    assert torch.equal(maps, sister)
