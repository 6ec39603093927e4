"""The few-shot baseline: its targets, its loss, and that drawn masks teach it more than the centre of the image knows."""

import pytest
import torch
from torch.nn import functional as F

from wsol_lib.baselines import centre_gaussian_maps
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import localize
from wsol_lib.data import load_dataset
from wsol_lib.data.sample import make_sample
from wsol_lib.few_shot import FewShot, foreground
from wsol_lib.metrics import PxAP
from wsol_lib.models import create_backbone
from wsol_lib.train import train


def few_shot():
    torch.manual_seed(0)
    return FewShot(create_backbone("efficientnet_lite0", num_classes=4))


def sample(boxes, mask=None):
    return make_sample(torch.zeros(3, 4, 6, dtype=torch.uint8), 0, torch.tensor(boxes).view(-1, 4), mask, "a")


def test_masks_are_the_targets_where_there_are_masks():
    mask = torch.rand(4, 6) > 0.5
    assert torch.equal(foreground([sample([[0.0, 0, 1, 1]], mask)]), mask[None].float())


def test_boxes_written_out_as_a_loop():
    boxes = [[0.6, 1.0, 3.4, 3.0], [4.0, 0.0, 6.0, 1.0]]
    expected = torch.zeros(4, 6)
    for y in range(4):
        for x in range(6):
            expected[y, x] = any(x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2 for x1, y1, x2, y2 in boxes)
    assert torch.equal(foreground([sample(boxes)])[0], expected)


def test_a_sample_without_mask_and_boxes():
    with pytest.raises(ValueError, match="expected a mask or boxes of a, found neither"):
        foreground([sample([])])


def test_the_loss_is_the_mean_over_all_pixels():
    model, inputs = few_shot().eval(), torch.randn(2, 3, 64, 64)
    targets = (torch.rand(2, 2, 2) > 0.5).float()
    values = model.loss(inputs, targets)
    torch.testing.assert_close(values["loss"], F.binary_cross_entropy_with_logits(model(inputs), targets))
    torch.testing.assert_close(values["accuracy"], ((model(inputs) > 0) == targets.bool()).float().mean())


def test_the_map_does_not_depend_on_the_class():
    model, inputs = few_shot().eval(), torch.randn(2, 3, 64, 64)
    maps, logits = model.score_maps(inputs, torch.tensor([0, 1]))
    torch.testing.assert_close(maps, model.score_maps(inputs, torch.tensor([3, 2]))[0])
    assert logits.shape == (2, 4) and (maps > 0).all() and (maps < 1).all()


def test_forty_drawn_masks_beat_the_centre():
    dials = {"image_size": 96, "object_size": (0.4, 0.6)}
    shots = load_dataset("synthbirds", "train-fullsup", n_images=40, **dials)
    test = load_dataset("synthbirds", "test", n_images=40, **dials)
    model = few_shot()
    history = train(model, shots, epochs=3, batch_size=8, targets=foreground)
    assert history[-1]["loss"] < history[0]["loss"]
    maps, _ = localize(model, test.images(range(40)))
    masks = torch.stack([test[i].mask for i in range(40)])

    def pxap(score_maps):
        metric = PxAP()
        metric.update(normalize_score_maps(score_maps), masks)
        return metric.compute()

    assert pxap(maps) > pxap(centre_gaussian_maps(40, 96, 96)) + 0.1


def test_one_seed_repeats_and_another_differs():
    shots = load_dataset("synthbirds", "train-fullsup", n_images=16, image_size=64)

    def history(seed):
        return train(few_shot(), shots, epochs=1, batch_size=8, targets=foreground, seed=seed)

    assert history(0) == history(0) != history(1)
