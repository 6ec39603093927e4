"""The mark of a painted bird in its score map, and the size of boxes."""

import pytest
import torch

from wsol_lib.book import parts
from wsol_lib.data import load_dataset


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "test", n_images=12, image_size=64)


def mark(birds, i):
    return birds.cue_masks(i)[birds.diagnostic_part_of_class[int(birds.labels[i])]]


def test_a_map_that_is_the_same_everywhere_does_not_care_for_the_mark(birds):
    assert parts.on_mark(torch.full((12, 64, 64), 0.5), birds) == pytest.approx(1)


def test_scores_beside_the_bird_count_nothing_and_those_on_it_are_what_the_mark_is_held_against(birds):
    maps = torch.stack([mark(birds, i).float() + (~birds[i].mask).float() for i in range(12)])
    seen = [i for i in range(12) if mark(birds, i).any()]
    by_hand = [birds[i].mask.sum().item() / mark(birds, i).sum().item() for i in seen]
    assert parts.on_mark(maps, birds) == pytest.approx(sum(by_hand) / len(by_hand))


def test_an_image_in_which_the_mark_is_hidden_is_left_out():
    hidden = load_dataset("synthbirds", "test", n_images=12, image_size=64, part_visibility={"beak": 0.0})
    waders = hidden.families == 3
    maps = torch.where(waders[:, None, None], torch.rand(12, 64, 64), torch.ones(12, 64, 64))
    assert waders.any() and parts.on_mark(maps, hidden) == pytest.approx(1)


def test_the_side_ratio_is_the_median_over_images():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 1], [0, 0, 9, 9]])
    assert parts.side_ratio(boxes, [torch.tensor([[5.0, 5, 6, 6]])] * 3) == pytest.approx(2)
    assert parts.side_ratio(boxes[1:2], [torch.tensor([[0.0, 0, 1, 16]])]) == pytest.approx(0.5)
