"""When no threshold can find the object: the exact posterior of a class, given a cue of the image.

Section 3 of "Evaluating Weakly Supervised Object Localization Methods Right". An image is a bag of cues M, each either
foreground (T = 1) or background (T = 0), and its label Y is that of the whole bag. Even the score that knows everything a
label can teach, s(M) = p(Y | M), may rank a background cue above a foreground one. For SynthBirds it is known exactly.

A cue is drawn so: take an image, take any cue of the list, keep the pair if the image holds the cue. So every cue of an
image counts once, however large it is, and p(Y | M = m) is the share of Y among the images that hold m.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsol_lib.data.birds.habitats import HABITATS
from wsol_lib.data.birds.plans import BODY_PLANS, PART_NAMES
from wsol_lib.data.synthbirds import CARRIED_BY, SynthBirds, checked_number, visibility_by_family

SHARED_PARTS = ("legs",)  # they look the same in all families: one cue, whoever stands on them
TIE = 1e-9  # two posteriors that differ by less are equal, and one threshold cannot part them


class CueTable(NamedTuple):
    """The joint distribution of label and cues.

    names: of the M cues
    foreground: bool (M,), T of each cue
    joint: float64 (K, M), p(Y = k and the image holds cue m)
    """

    names: tuple[str, ...]
    foreground: Tensor
    joint: Tensor


# -- the joint distribution --------------------------------------------------------------------------------------------


def synthbirds_cues(
    habitats: float | Tensor,
    part_visibility: float | Mapping[str, float | Mapping[str, float]] = 1.0,
    n_families: int = 4,
    species_per_family: int = 3,
    class_prior: Sequence[float] | None = None,
) -> CueTable:
    """The joint distribution that SynthBirds draws from, worked out from its dials.

    The cues are the parts as they look, so that a part is one cue for all classes that share its looks: the diagnostic
    part belongs to one species, legs to all birds, any other part to one family. Habitats are the background cues.

    Args:
        habitats: the dial habitat_correlation, or any table p(habitat | family) of shape (n_families, n_families)
        part_visibility, n_families, species_per_family: the dials of `SynthBirds`
        class_prior: p(Y) of the K = n_families * species_per_family classes; None is the balanced one

    Raises:
        ValueError: a dial out of its range, a table or a prior of another shape
    """
    if not isinstance(habitats, Tensor):
        habitats = checked_number("habitat_correlation", habitats, 0, 1)
        habitats = habitats * torch.eye(n_families, dtype=torch.float64) + (1 - habitats) / n_families
    if habitats.shape != (n_families, n_families):
        raise ValueError(
            f"expected p(habitat | family) of shape {(n_families, n_families)}, found {tuple(habitats.shape)}: "
            "give one row a family"
        )
    classes = n_families * species_per_family
    prior = torch.tensor([1 / classes] * classes if class_prior is None else class_prior, dtype=torch.float64)
    if len(prior) != classes:
        raise ValueError(f"expected a prior of {classes} classes, found {len(prior)}: give one probability a class")
    family_of_class = torch.arange(n_families).repeat_interleave(species_per_family)
    visibility = visibility_by_family(part_visibility)
    names = _cue_names(n_families, species_per_family)
    held = np.zeros((classes, len(names)))  # p(image holds cue | class)
    for c, family in enumerate(family_of_class.tolist()):
        seen = visibility[BODY_PLANS[family].name]
        for part in PART_NAMES:
            carrier = seen.get(CARRIED_BY.get(part, ""), 1.0)
            held[c, names.index(_cue_of_part(part, c, species_per_family))] = seen.get(part, 1.0) * carrier
    held[:, -n_families:] = habitats[family_of_class]
    foreground = torch.arange(len(names)) < len(names) - n_families
    return CueTable(names, foreground, prior[:, None] * torch.from_numpy(held))


def counted_cues(dataset: SynthBirds) -> CueTable:
    """The same table counted in the images of a data set, by the parts that can be seen: what a finite sample knows."""
    species_per_family = len(dataset.class_names) // len(dataset.family_names)
    names = _cue_names(len(dataset.family_names), species_per_family)
    joint = torch.zeros(len(dataset.class_names), len(names), dtype=torch.float64)
    for i, c in enumerate(dataset.labels.tolist()):
        joint[c, names.index(dataset.habitat_names[int(dataset.habitats[i])])] += 1
        for part, mask in dataset.cue_masks(i).items():
            joint[c, names.index(_cue_of_part(part, c, species_per_family))] += bool(mask.any())
    foreground = torch.arange(len(names)) < len(names) - len(dataset.family_names)
    return CueTable(names, foreground, joint / len(dataset))


def merged(tables: Sequence[CueTable], numbers: Sequence[float]) -> CueTable:
    """The table of data sets put together, of so many images each."""
    shares = np.asarray(numbers, dtype=float) / np.sum(numbers)
    return tables[0]._replace(joint=sum(share * table.joint for share, table in zip(shares, tables)))


# -- the posterior and what it can tell apart --------------------------------------------------------------------------


def cue_posterior(table: CueTable) -> Tensor:
    """p(Y = k | M = m), the score that knows everything labels can teach: float64 (K, M); NaN where no image holds m."""
    return table.joint / table.joint.sum(0)


def posterior_ratio(table: CueTable) -> Tensor:
    """The foreground-background posterior ratio of each class at its worst: float64 (K,).

    The lowest p(Y | foreground cue) over the highest p(Y | background cue), among the cues that images of the class hold.
    A threshold that parts object and background in all of them exists if and only if the ratio is above 1 (Lemma 3.1,
    for a finite number of cues).
    """
    posterior, held = cue_posterior(table), table.joint > 0
    lowest = posterior.masked_fill(~(held & table.foreground), torch.inf).amin(1)
    highest = posterior.masked_fill(~(held & ~table.foreground), 0).amax(1)
    return lowest / highest


def failing_correlation(table_at: Callable[[float], CueTable], label: int) -> float:
    """The smallest habitat correlation in 0, 0.001 ... 1 at which no threshold finds the class; NaN where some always do.

    Args:
        table_at: habitat correlation -> the table of the world with it
        label: the class, 0 ... K - 1
    """
    for rho in np.linspace(0, 1, 1001).tolist():
        if posterior_ratio(table_at(rho))[label] <= 1 + TIE:
            return rho
    return float("nan")


def cue_maps(dataset: SynthBirds, indices: Sequence[int]) -> Tensor:
    """Which cue each pixel shows, as its place in the names of the data set's table: (N, H, W) int64.

    ``cue_posterior(table)[label][cue_maps(...)]`` is the score map of the exact posterior.
    """
    species_per_family = len(dataset.class_names) // len(dataset.family_names)
    names = _cue_names(len(dataset.family_names), species_per_family)
    maps = []
    for i in indices:
        habitat = names.index(dataset.habitat_names[int(dataset.habitats[i])])
        parts = dataset.cue_masks(i)
        shown = torch.full(next(iter(parts.values())).shape, habitat)
        for part, mask in parts.items():
            shown[mask] = names.index(_cue_of_part(part, int(dataset.labels[i]), species_per_family))
        maps.append(shown)
    return torch.stack(maps)


# -- names -------------------------------------------------------------------------------------------------------------


def _cue_of_part(part: str, label: int, species_per_family: int) -> str:
    """The cue that a part of a bird of the class is, such as "duck head", "scarlet-winged duck wing bar" or "legs"."""
    family, species = divmod(label, species_per_family)
    plan = BODY_PLANS[family]
    if part in SHARED_PARTS:
        return part
    if part == plan.diagnostic_part and species_per_family > 1:
        return f"{list(plan.species)[species]} {plan.name} {part}"
    return f"{plan.name} {part}"


@functools.cache
def _cue_names(n_families: int, species_per_family: int) -> tuple[str, ...]:
    """All cues: parts, class after class, each once, then as many habitats as families."""
    labels = range(n_families * species_per_family)
    parts = [_cue_of_part(part, label, species_per_family) for label in labels for part in PART_NAMES]
    return (*dict.fromkeys(parts), *list(HABITATS)[:n_families])
