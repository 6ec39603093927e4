"""What SynthBirds promises: repeatable pictures, exact annotations, dials that do what they say."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from wsol_lib.data.birds.drawing import INSTANCE_STRIDE
from wsol_lib.data.birds.plans import BODY_PLANS, PART_NAMES
from wsol_lib.data.synthbirds import SPLITS, SynthBirds, draw_habitats, hidden_parts, paint_picture, visible_boxes

DIALS = {
    "image_size": 96,
    "object_size": (0.5, 0.9),
    "position_spread": 0.7,
    "part_difference": 1.0,
    "part_visibility": {},
    "instances": (1, 1),
    "clutter": 0.5,
}


def birds(split="test", n_images=24, image_size=64, **dials):
    return SynthBirds(split, n_images=n_images, image_size=image_size, **dials)


def pictures(dataset):
    return torch.stack([dataset[i].image for i in range(len(dataset))])


# -- the data set ------------------------------------------------------------------------------------------------------


def test_a_sample_has_image_label_boxes_mask_and_id():
    dataset = birds(n_images=3)
    sample = dataset[1]
    assert sample.image.shape == (3, 64, 64) and sample.image.dtype == torch.uint8
    assert sample.label == dataset.labels[1] and isinstance(sample.label, int)
    assert sample.boxes.shape == (1, 4) and sample.boxes.dtype == torch.float32
    assert sample.boxes.canvas_size == (64, 64)
    assert sample.mask.shape == (64, 64) and sample.mask.dtype == torch.bool
    assert sample.image_id == dataset.image_ids[1]
    assert dataset.image_sizes.tolist() == [[64, 64]] * 3
    with pytest.raises(IndexError, match="below 3, found 3"):
        dataset[3]


def test_classes_are_species_within_families():
    dataset = birds(n_images=12)
    assert len(dataset.class_names) == len(set(dataset.class_names)) == 12
    assert dataset.family_of_class.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(name.endswith(dataset.family_names[f]) for name, f in zip(dataset.class_names, dataset.family_of_class))
    assert torch.equal(dataset.families, dataset.family_of_class[dataset.labels])
    assert len(set(dataset.diagnostic_part_of_class)) == 4
    assert set(dataset.diagnostic_part_of_class) <= set(dataset.part_names)


def test_every_run_of_classes_holds_each_class_once():
    labels = birds("train-weaksup", n_images=24, n_families=2).labels
    assert all(sorted(run.tolist()) == list(range(6)) for run in labels.split(6))


def test_default_sizes(monkeypatch, tmp_path):
    painted = {}

    def render(**arguments):
        painted[arguments["split"]] = arguments["n_images"]
        raise InterruptedError

    monkeypatch.setenv("WSOL_CACHE", str(tmp_path))
    monkeypatch.setattr("wsol_lib.data.synthbirds.render", render)
    for split in SPLITS:
        with pytest.raises(InterruptedError):
            SynthBirds(split, n_families=2)
    assert painted == {"train-weaksup": 1200, "train-fullsup": 60, "test": 600}


def test_transform_is_applied():
    assert birds(n_images=1, transform=lambda sample: sample.label)[0] in range(12)


# -- repeatable, and different where it should be ----------------------------------------------------------------------


def test_pictures_repeat_with_the_seed_and_do_not_depend_on_how_many_are_painted():
    few, many = birds(n_images=5, seed=3), birds(n_images=17, seed=3)
    assert torch.equal(pictures(few), pictures(many)[:5])
    assert torch.equal(few.labels, many.labels[:5]) and torch.equal(few.habitats, many.habitats[:5])
    assert all(torch.equal(a, b) for a, b in zip(few.boxes, many.boxes))


def test_a_large_set_is_painted_once_and_then_read_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOL_CACHE", str(tmp_path))
    monkeypatch.setattr("wsol_lib.data.synthbirds.KEPT_FROM", 6)
    assert len(birds(n_images=5)) == 5 and not list(tmp_path.rglob("*.pt"))
    painted = birds(n_images=6)
    monkeypatch.setattr("wsol_lib.data.synthbirds.paint_picture", None)
    read = birds(n_images=6)
    assert torch.equal(pictures(painted), pictures(read)) and torch.equal(painted.habitats, read.habitats)
    assert all(torch.equal(a, b) for a, b in zip(painted.boxes, read.boxes))


def test_seeds_and_splits_are_different_streams():
    versions = [birds(n_images=4), birds(n_images=4, seed=1), *(birds(s, 4) for s in list(SPLITS)[:2])]
    versions = [pictures(version).flatten(1) for version in versions]
    for i, a in enumerate(versions):
        assert not any((a == b).all(1).any() for b in versions[:i])


# -- annotations are exact ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instances", [1, (2, 4)])
def test_cues_are_disjoint_and_make_up_the_mask(instances):
    dataset = birds(instances=instances)
    seen = set()
    for i, sample in enumerate(dataset[i] for i in range(len(dataset))):
        cues = dataset.cue_masks(i)
        assert tuple(cues) == dataset.part_names
        assert torch.equal(sum(cue.int() for cue in cues.values()), sample.mask.int())
        seen |= {part for part, cue in cues.items() if cue.any()}
    assert seen == set(dataset.part_names)


def test_boxes_are_tight_around_the_visible_pixels_of_each_bird():
    content = np.zeros((8, 9), dtype=np.uint8)
    content[1:4, 2:7] = 1  # the first bird's body
    content[2:6, 6:9] = 2 + INSTANCE_STRIDE  # the second one's head, in front
    assert visible_boxes(content).tolist() == [[2, 1, 6 + 1, 4], [6, 2, 9, 6]]
    content[1:4, 6] = 2 + INSTANCE_STRIDE  # covers the first bird's last column
    assert visible_boxes(content)[0].tolist() == [2, 1, 6, 4]
    content[content == 1] = 2 + INSTANCE_STRIDE  # and now all of it
    assert len(visible_boxes(content)) == 1


def test_a_single_birds_box_is_the_extent_of_its_mask():
    for sample in birds():
        rows, columns = torch.where(sample.mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert sample.boxes.tolist() == [[float(edge) for edge in expected]]


def test_boxes_of_a_flock_cover_its_mask():
    for sample in birds(instances=3):
        covered = torch.zeros_like(sample.mask)
        for x0, y0, x1, y1 in sample.boxes.int().tolist():
            covered[y0:y1, x0:x1] = True
        assert not (sample.mask & ~covered).any()


# -- species -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", range(len(BODY_PLANS)))
def test_species_of_a_family_differ_in_the_diagnostic_part_alone(family):
    part = PART_NAMES.index(BODY_PLANS[family].diagnostic_part)
    shares = []
    for state in range(6):
        versions = [paint_picture(np.random.default_rng(state), family, s, state % 4, **DIALS) for s in range(3)]
        (image, content), others = versions[0], versions[1:]
        diagnostic = content == 1 + part
        edges = np.asarray(Image.fromarray(diagnostic.astype(np.uint8)).filter(ImageFilter.MaxFilter(3)), dtype=bool)
        for other, other_content in others:
            assert np.array_equal(content, other_content)
            difference = np.abs(image.astype(int) - other).max(-1)
            assert not difference[~edges].any()  # smooth edges share one pixel with their neighbours
            assert np.median(difference[diagnostic]) > 40
        shares.append(diagnostic.sum() / (content > 0).sum())
    assert 0.02 < np.mean(shares) < 0.08


def test_part_difference_scales_the_difference_down_to_none():
    def difference(dial):
        a, b = (
            paint_picture(np.random.default_rng(5), 0, s, 0, **{**DIALS, "part_difference": dial})[0] for s in (0, 1)
        )
        return np.abs(a.astype(int) - b).sum()

    assert difference(0.0) == 0
    assert difference(0.5) == pytest.approx(difference(1.0) / 2, rel=0.1)


# -- dials -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_habitats_follow_the_stated_distribution(rho):
    n = 20_000
    families = np.arange(n) % 4
    habitats = draw_habitats(families, 4, rho, np.random.default_rng(0))
    joint = np.bincount(4 * families + habitats, minlength=16).reshape(4, 4) / (n / 4)
    expected = rho * np.eye(4) + (1 - rho) / 4
    assert np.abs(joint - expected).max() < 4 * np.sqrt(0.25 / (n / 4))


def test_habitat_correlation_reaches_the_pictures():
    own = birds(n_images=12, habitat_correlation=1.0)
    assert torch.equal(own.habitats, own.families)
    mixed = birds(n_images=48, habitat_correlation=0.0)
    assert set(mixed.habitats.tolist()) == {0, 1, 2, 3} and not torch.equal(mixed.habitats, mixed.families)
    rng = [np.random.default_rng(1) for _ in range(2)]
    (a, content), (b, _) = (paint_picture(r, 0, 0, h, **DIALS) for r, h in zip(rng, (0, 1)))
    background = content == 0
    assert np.abs(a.astype(int) - b)[background].mean() > 20


def test_object_size_is_the_long_side_of_the_bird():
    for low, high in ((0.3, 0.4), (0.9, 1.0)):
        boxes = torch.cat(birds(n_images=48, image_size=96, object_size=(low, high)).boxes)
        long_side = (boxes[:, 2:] - boxes[:, :2]).max(1).values / 96
        assert long_side.min() > low - 3 / 96 and long_side.max() < high + 3 / 96
        assert long_side.max() - long_side.min() > 0.6 * (high - low)


def test_position_spread_goes_from_the_centre_to_everywhere_inside():
    def centres(spread):
        boxes = torch.cat(birds(n_images=48, object_size=0.4, position_spread=spread).boxes)
        assert boxes.min() >= 0 and boxes.max() <= 64
        return (boxes[:, :2] + boxes[:, 2:]) / 128 - 0.5

    half_pixel = 1 / 128
    assert centres(0).abs().max() < 3 * half_pixel
    assert centres(1).abs().max() > 0.3
    assert (centres(0.5) - centres(1) / 2).abs().max() < 3 * half_pixel


def test_instances_are_counted_and_smaller_in_a_flock():
    assert {len(boxes) for boxes in birds(instances=(1, 3)).boxes} == {1, 2, 3}
    flock = birds(instances=4, object_size=0.8)
    assert all(len(boxes) <= 4 for boxes in flock.boxes) and sum(map(len, flock.boxes)) > 3.8 * len(flock)
    assert max((boxes[:, 2:] - boxes[:, :2]).max() for boxes in flock.boxes) < 64 * 0.4 + 3


def test_part_visibility_is_the_probability_that_a_part_is_painted():
    dataset = birds(
        n_images=200, image_size=48, part_visibility={"legs": 0.25, "beak": 0.0, "wing": 0.5, "wing bar": 0.5}
    )
    cues = [dataset.cue_masks(i) for i in range(200)]
    rate = {part: np.mean([bool(cue[part].any()) for cue in cues]) for part in PART_NAMES}
    assert rate["body"] == rate["head"] == 1 and rate["beak"] == 0
    for part, expected in (("legs", 0.25), ("wing", 0.5), ("wing bar", 0.25)):
        assert abs(rate[part] - expected) < 0.12


def test_part_visibility_can_be_set_per_family():
    dataset = birds(n_images=36, part_visibility={"legs": {"duck": 0.0}})
    for i, family in enumerate(dataset.families.tolist()):
        assert dataset.cue_masks(i)["legs"].any() == (dataset.family_names[family] != "duck")


def test_one_visibility_for_all_leaves_body_and_head():
    dataset = birds(n_images=8, part_visibility=0.0)
    assert all({p for p, cue in dataset.cue_masks(i).items() if cue.any()} == {"body", "head"} for i in range(8))


def test_a_tail_takes_its_tip_along():
    assert hidden_parts({"tail": 0.0}, np.random.default_rng(0)) == {"tail", "tail tip"}


def test_clutter_changes_the_background_alone():
    for habitat in range(4):
        empty, full = (
            paint_picture(np.random.default_rng(2), 0, 0, habitat, **{**DIALS, "clutter": c}) for c in (0.0, 1.0)
        )
        assert np.array_equal(empty[1], full[1])
        assert (empty[0] != full[0])[empty[1] == 0].any()


# -- bad dials ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"split": "train"}, "split of train-weaksup, train-fullsup, test, found 'train'"),
        ({"seed": -1}, "seed to be an integer from 0"),
        ({"n_images": 0}, "n_images to be an integer from 1"),
        ({"image_size": 8}, "image_size to be an integer from 32 to 512, found 8"),
        ({"habitat_correlation": 1.5}, "habitat_correlation to be a number from 0 to 1, found 1.5"),
        ({"habitat_correlation": float("nan")}, "habitat_correlation to be a number from 0 to 1, found nan"),
        ({"object_size": (0.8, 0.4)}, r"object_size as \(lo, hi\) with lo <= hi"),
        ({"object_size": (0.01, 0.4)}, "object_size to be a number from 0.1 to 1, found 0.01"),
        ({"object_size": (0.2, 0.3, 0.4)}, "object_size to be a number or a pair"),
        ({"object_size": None}, "object_size to be a number from 0.1 to 1, found None"),
        ({"position_spread": -0.1}, "position_spread to be a number from 0 to 1"),
        ({"part_difference": "large"}, "part_difference to be a number from 0 to 1, found 'large'"),
        ({"part_visibility": {"feet": 0.5}}, "part_visibility to name parts among .*, found feet"),
        ({"part_visibility": {"legs": {"goose": 0.5}}}, "part_visibility to name families among duck, .*, found goose"),
        ({"part_visibility": {"legs": 2}}, r"part_visibility\['legs'\] to be a number from 0 to 1, found 2"),
        ({"instances": 0}, "instances to be an integer from 1 to 15, found 0"),
        ({"instances": 1.5}, "instances to be an integer"),
        ({"clutter": 7}, "clutter to be a number from 0 to 1, found 7"),
        ({"n_families": 9}, "n_families to be an integer from 1 to 4, found 9"),
        ({"species_per_family": 0}, "species_per_family to be an integer from 1 to 4, found 0"),
    ],
)
def test_a_dial_out_of_range_is_named(dials, message):
    with pytest.raises(ValueError, match=message):
        SynthBirds(**{"split": "test", "n_images": 1, **dials})
