"""The exact posterior: what the dials of SynthBirds say about a label when one cue is seen, worked out by hand."""

import math

import pytest
import torch

from wsol_lib.data.synthbirds import SynthBirds
from wsol_lib.ill_posed import (
    CueTable,
    counted_cues,
    cue_maps,
    cue_posterior,
    failing_correlation,
    merged,
    posterior_ratio,
    synthbirds_cues,
)

RARE_FEET = {"legs": {"duck": 1.0, "songbird": 0.25, "parrot": 0.25, "wader": 0.25}}
DUCK = 0


def posterior(table, label, cue):
    return cue_posterior(table)[label, table.names.index(cue)].item()


def families(rho, part_visibility=RARE_FEET, **options):
    return synthbirds_cues(rho, part_visibility, species_per_family=1, **options)


# -- the joint distribution --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 0.25), (0.4, 0.55), (1.0, 1.0)])
def test_a_habitat_says_as_much_as_its_correlation(rho, expected):
    """rho + (1 - rho) / 4 for its own family."""
    assert posterior(families(rho), DUCK, "pond") == pytest.approx(expected)
    assert posterior(families(rho), DUCK, "meadow") == pytest.approx((1 - expected) / 3)


def test_legs_are_one_cue_of_all_families():
    """1 duck to 3 * 0.25 others."""
    assert posterior(families(0.8), DUCK, "legs") == pytest.approx(1 / 1.75)
    assert posterior(families(0.8), 1, "legs") == pytest.approx(0.25 / 1.75)


def test_species_share_all_parts_of_their_family_but_the_diagnostic_one():
    table = synthbirds_cues(0.8, RARE_FEET)
    assert posterior(table, DUCK, "duck head") == pytest.approx(1 / 3)
    assert posterior(table, DUCK, "scarlet-winged duck wing bar") == 1
    assert posterior(table, 1, "scarlet-winged duck wing bar") == 0
    assert "duck wing bar" not in table.names
    assert posterior(table, DUCK, "songbird wing bar") == 0


def test_a_part_is_seen_with_its_carrier_only():
    """A wing bar in 0.5 * 0.8 of the ducks, in 0.5 of them on a seen wing."""
    table = families(0.0, {"wing": 0.8, "wing bar": 0.5})
    held = table.joint[DUCK] / 0.25
    assert held[table.names.index("duck wing")] == pytest.approx(0.8)
    assert held[table.names.index("duck wing bar")] == pytest.approx(0.4)
    assert held[table.names.index("duck body")] == 1


def test_habitats_are_background_and_all_else_is_foreground():
    table = families(0.8)
    background = [name for name, foreground in zip(table.names, table.foreground) if not foreground]
    assert background == ["pond", "meadow", "forest", "shore"]


def test_the_table_is_what_is_painted():
    """Shares of 80 images a family are within 0.15, three standard errors."""
    dials = dict(part_visibility=RARE_FEET | {"wing bar": 0.5}, species_per_family=1)
    large = dict(image_size=64, object_size=(0.8, 0.9))  # a painted part can be too small to be seen
    painted = counted_cues(SynthBirds("test", n_images=320, habitat_correlation=0.6, **large, **dials))
    exact = synthbirds_cues(0.6, **dials)
    assert painted.names == exact.names
    assert (painted.joint - exact.joint).abs().max() < 0.15 / 4


def test_counting_counts_images_not_pixels():
    data = SynthBirds("test", n_images=8, image_size=48, species_per_family=1, part_visibility={"legs": 0.5})
    table = counted_cues(data)
    ducks = [i for i in range(8) if data.labels[i] == DUCK]
    shown = sum(bool(data.cue_masks(i)["legs"].any()) for i in ducks)
    assert table.joint[DUCK, table.names.index("legs")] == shown / 8
    assert table.joint[:, -4:].sum() == 1


def test_negatives_on_the_pond_make_the_pond_say_less():
    """As many others on the pond as there are ducks: its posterior halves; the feet of the new birds count, too."""
    pond = torch.tensor([[1.0, 0, 0, 0]] * 4)
    others = families(pond, class_prior=(0, 1 / 3, 1 / 3, 1 / 3))
    table = merged([families(0.8), others], [400, 100])
    assert table.joint[:, -4:].sum() == pytest.approx(1)
    assert posterior(table, DUCK, "pond") == pytest.approx(0.85 / 2)
    assert posterior(table, DUCK, "legs") == pytest.approx(1 / (1 + 4 * 0.25))


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        (dict(habitats=1.2), "habitat_correlation .* 0 to 1, found 1.2"),
        (dict(habitats=torch.eye(3)), r"\(4, 4\).*found \(3, 3\)"),
        (dict(habitats=0.5, class_prior=(0.5, 0.5)), "12 classes, found 2"),
        (dict(habitats=0.5, part_visibility={"hat": 0.5}), "found hat"),
    ],
)
def test_what_the_dials_do_not_allow(dials, message):
    with pytest.raises(ValueError, match=message):
        synthbirds_cues(**dials)


# -- Lemma 3.1 ---------------------------------------------------------------------------------------------------------


def some_threshold_works(table, label):
    """Every threshold tried, plainly."""
    held = table.joint[label] > 0
    scores, foreground = cue_posterior(table)[label][held], table.foreground[held]
    return any(((scores >= tau) == foreground).all() for tau in scores)


def test_a_threshold_exists_if_and_only_if_the_ratio_is_above_one():
    torch.manual_seed(0)
    outcomes = []
    for _ in range(300):
        joint = torch.randint(0, 5, (3, 5)).double() / 60  # small numbers: ties and cues nobody holds among them
        joint[:, 0] += 0.01  # each class holds a cue of the object ...
        joint[:, 4] += 0.01  # ... and one behind it
        table = CueTable(tuple("abcde"), torch.tensor([True, True, False, False, False]), joint)
        works = [some_threshold_works(table, label) for label in range(3)]
        assert (posterior_ratio(table) > 1).tolist() == works
        outcomes += works
    assert 20 < sum(outcomes) < 880


def test_cues_of_other_classes_do_not_count():
    """A songbird's head says "no duck" for certain, and is in no image of a duck."""
    assert posterior(families(0.2), DUCK, "songbird head") == 0
    assert posterior_ratio(families(0.2))[DUCK] == pytest.approx((1 / 1.75) / 0.4)


@pytest.mark.parametrize("others", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("species_per_family", [1, 3])
def test_the_failing_correlation_is_where_legs_and_pond_say_the_same(others, species_per_family):
    feet = {"legs": {"duck": 1.0, "songbird": others, "parrot": others, "wader": others}}

    def table_at(rho):
        return synthbirds_cues(rho, feet, species_per_family=species_per_family)

    expected = (4 / (1 + 3 * others) - 1) / 3
    assert failing_correlation(table_at, DUCK) == pytest.approx(expected, abs=1e-3)


def test_a_tie_fails():
    """All feet seen: legs and every habitat say 1/4 at rho = 0. No shared cue: all is well until the pond means duck."""
    assert failing_correlation(lambda rho: families(rho, 1.0), DUCK) == 0
    assert failing_correlation(lambda rho: families(rho, {"legs": 0.0}), DUCK) == 1


def test_enough_negatives_and_it_never_fails():
    """Two others on the pond for each duck: even where all ducks swim the pond says 1/3, and the feet say 1 / 2.25."""
    pond = torch.tensor([[1.0, 0, 0, 0]] * 4)
    others = families(pond, class_prior=(0, 1 / 3, 1 / 3, 1 / 3))
    cured = merged([families(1.0), others], [4, 2])
    assert posterior_ratio(cured)[DUCK] == pytest.approx(3 / 2.25)
    assert math.isnan(failing_correlation(lambda rho: cured, DUCK))


# -- in pictures -------------------------------------------------------------------------------------------------------


def test_every_pixel_shows_its_cue():
    data = SynthBirds("test", n_images=6, image_size=48)
    table = synthbirds_cues(0.8)
    maps = cue_maps(data, [1, 4])
    for i, bag in zip((1, 4), maps):
        assert torch.equal(table.foreground[bag], data[i].mask.as_subclass(torch.Tensor))
        assert torch.equal(bag == table.names.index("legs"), data.cue_masks(i)["legs"])
        (behind,) = bag[~table.foreground[bag]].unique().tolist()
        assert table.names[behind] == data.habitat_names[data.habitats[i]]
        assert (cue_posterior(table)[data.labels[i]][bag] > 0).all()
