"""SPG: what a map is sure of, what guides what, and that guidance is a constant."""

import pytest
import torch
from torch.nn import functional as F

from wsol_lib.cam import CAM
from wsol_lib.data import load_dataset
from wsol_lib.models import create_backbone
from wsol_lib.spg import SPG, UNSURE, guidance, guided_loss
from wsol_lib.train import train


def spg(name="efficientnet_lite0", pretrained=True, **options):
    torch.manual_seed(0)
    return SPG(create_backbone(name, num_classes=4, pretrained=pretrained), channels=8, **options)


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_guidance_written_out_as_a_loop():
    scores = torch.rand(2, 4, 4)
    expected = torch.empty_like(scores)
    for n in range(2):
        for y in range(4):
            for x in range(4):
                score = scores[n, y, x]
                expected[n, y, x] = 1.0 if score > 0.7 else 0.0 if score < 0.2 else UNSURE
    torch.testing.assert_close(guidance(scores, 0.2, 0.7), expected)


def test_guided_loss_is_the_mean_over_what_is_sure():
    logits, mask = torch.tensor([[[2.0, -1.0, 0.5]]]), torch.tensor([[[1.0, 0.0, UNSURE]]])
    expected = (F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-1.0))) / 2
    torch.testing.assert_close(guided_loss(logits, mask), expected)
    assert guided_loss(logits, torch.full_like(mask, UNSURE)) == 0


def test_guidance_is_a_constant_to_autograd():
    scores = torch.rand(1, 3, 3, requires_grad=True)
    assert not guidance(scores, 0.2, 0.7).requires_grad


def test_each_guided_loss_teaches_its_own_layers(inputs):
    model = spg().train()
    model.loss(inputs, torch.tensor([0, 3]))["loss"].backward()
    for part in (model.b1, model.b2, model.shared, model.c, model.backbone.head):
        assert all(parameter.grad is not None for parameter in part.parameters())


def test_the_loss_is_the_sum_of_its_parts(inputs):
    model, labels = spg().eval(), torch.tensor([0, 3])
    values = model.loss(inputs, labels)
    expected = F.cross_entropy(model(inputs), labels) + values["b1"] + values["b2"] + values["c"]
    torch.testing.assert_close(values["loss"], expected)
    assert set(values) == {"loss", "accuracy", "b1", "b2", "c"}


def test_thresholds_that_leave_nothing_sure_leave_plain_cross_entropy(inputs):
    labels = torch.tensor([0, 3])
    model = spg(b2_low=0, b2_high=1, b1_low=0, b1_high=1, c_low=0, c_high=1).eval()
    torch.testing.assert_close(model.loss(inputs, labels)["loss"], F.cross_entropy(model(inputs), labels))


def test_the_map_is_that_of_cam(inputs):
    model, labels = spg().eval(), torch.tensor([0, 3])
    torch.testing.assert_close(model.score_maps(inputs, labels), CAM(model.backbone).score_maps(inputs, labels))


@pytest.mark.parametrize("name", ["vgg_gap", "resnet50", "inception_v3", "densenet161"])
def test_it_works_on_other_backbones(name):
    values = spg(name, pretrained=False).loss(torch.randn(2, 3, 96, 96), torch.tensor([0, 1]))
    assert torch.isfinite(values["loss"])


def test_one_seed_repeats_and_another_differs():
    birds = load_dataset("synthbirds", "train-weaksup", n_images=16, image_size=64, species_per_family=1)

    def history(seed):
        return train(spg(), birds, epochs=1, batch_size=8, seed=seed)

    assert history(0) == history(0) != history(1)


def test_thresholds_out_of_range():
    with pytest.raises(ValueError, match=r"expected b1_high in \[0, 1\], found 1.5"):
        spg(b1_high=1.5)
    with pytest.raises(ValueError, match=r"expected c_low <= c_high within \[0, 1\], found 0.8 > 0.7"):
        spg(c_low=0.8)
