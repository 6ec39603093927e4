"""The few-shot baseline: what its targets are, what it learns from them, and that these beat a box in the middle."""

import pytest
import torch
from torchvision import tv_tensors

from wsol_lib.baselines import centre_gaussian_maps
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import localize
from wsol_lib.data import Subset, load_dataset
from wsol_lib.few_shot import FewShot, foreground
from wsol_lib.metrics import PxAP
from wsol_lib.models import create_backbone
from wsol_lib.train import train

BIRDS = dict(image_size=64, species_per_family=1)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-fullsup", n_images=32, **BIRDS)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FewShot(create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)).eval()


def trained(birds, seed=0, epochs=1, learning_rate=0.1, head_factor=1):
    torch.manual_seed(0)
    model = FewShot(create_backbone("efficientnet_lite0", num_classes=4, output_stride=16))
    options = dict(batch_size=8, learning_rate=learning_rate, head_factor=head_factor)
    return model, train(model, birds, epochs=epochs, seed=seed, targets=foreground, **options)


def test_masks_are_taken_as_they_are(birds):
    samples = [birds[0], birds[3]]
    masks = foreground(samples)
    assert type(masks) is torch.Tensor and masks.dtype == torch.float32
    assert torch.equal(masks, torch.stack([sample.mask for sample in samples]).float())


def test_boxes_are_masks_where_there_are_none(birds):
    boxes = torch.tensor([[1.0, 2.0, 5.0, 4.0], [30.6, 40.4, 33.4, 64.0]])
    sample = birds[0]._replace(mask=None, boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(64, 64)))
    mixed = foreground([sample, birds[1]])
    for y in range(64):
        for x in range(64):
            inside = any(x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2 for x1, y1, x2, y2 in boxes.tolist())
            assert float(mixed[0, y, x]) == inside
    assert mixed[0, :32].sum() == 4 * 2
    assert torch.equal(mixed[1].bool(), birds[1].mask)


def test_what_is_to_be_ignored_is_marked_and_costs_nothing(birds, model):
    ignore = torch.zeros(64, 64, dtype=torch.bool)
    ignore[:, 32:] = True
    sample = birds[0]._replace(mask=tv_tensors.Mask(birds[0].mask & ~ignore), ignore=tv_tensors.Mask(ignore))
    masks = foreground([sample])
    assert (masks[0, :, 32:] == -1).all() and (masks[0, :, :32] >= 0).all()
    torch.nn.init.constant_(model.backbone.head.bias, -1.0)
    inputs = torch.randn(1, 3, 64, 64)
    scores = torch.nn.functional.interpolate(model(inputs)[:, None], (64, 64), mode="bilinear")[0, 0].detach()
    losses = [
        -float(torch.log(torch.sigmoid(score if told else -score)))
        for score, told in zip(scores[:, :32].flatten(), masks[0, :, :32].flatten())
    ]
    values = {name: value.detach() for name, value in model.loss(inputs, masks).items()}
    assert float(values["loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    right = ((scores > 0) == (masks[0] > 0))[:, :32].float().mean()
    assert float(values["accuracy"]) == pytest.approx(float(right))
    assert not model.loss(inputs, masks)["accuracy"].requires_grad


def test_the_saliency_comes_without_classes(model):
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    maps, logits = localize(model, images)
    assert maps.shape == (3, 64, 64) and (maps >= 0).all() and (maps <= 1).all()
    assert logits.shape == (3, 0)
    assert torch.equal(maps, localize(model, images, torch.tensor([0, 1, 2]))[0])
    inputs = model.backbone.preprocess(images)
    torch.testing.assert_close(model.score_maps(inputs)[0], model(inputs).sigmoid())


def test_it_learns_the_drawn_masks_and_beats_the_centre_on_them():
    """On new images so short a training decides nothing: one thread more in a sum, and the score is another."""
    drawn = load_dataset("synthbirds", "train-fullsup", n_images=16, object_size=(0.6, 0.9), **BIRDS)
    model, history = trained(drawn, epochs=8, learning_rate=0.03, head_factor=5)
    assert history[-1]["loss"] < history[0]["loss"]
    masks = foreground([drawn[i] for i in range(16)]).bool()
    ours, centre = PxAP(), PxAP()
    ours.update(normalize_score_maps(localize(model, drawn.images(range(16)))[0]), masks)
    centre.update(centre_gaussian_maps(16, 64, 64), masks)
    assert ours.compute() > centre.compute() + 0.08


def test_one_seed_repeats_and_another_differs(birds):
    some = Subset(birds, range(16))
    once = trained(some)[1]
    assert once == trained(some)[1]
    assert once != trained(some, seed=1)[1]


def test_training_without_masks_says_what_to_do(birds):
    with pytest.raises(ValueError, match=r"expected masks \(N, H, W\), .* targets=foreground"):
        train(FewShot(create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)), birds, epochs=1)
