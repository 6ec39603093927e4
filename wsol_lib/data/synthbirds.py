"""SynthBirds, the embedded data set of the book: birds with parts, in families and species, in textured habitats.

Everything a weakly supervised localizer is judged by is known exactly, because it is painted: class, box, mask, and
which pixel shows which part (a *cue* in section 3 of "Evaluating Weakly Supervised Object Localization Methods Right").
A family shares a body plan; species of a family differ in the colour of one small part only. Dials set how strongly the
habitat predicts the family, how large, how central and how visible the birds are, and how far the species differ.
Nothing is downloaded: image `i` depends on (seed, split, i) and the dials alone; between releases of Pillow, edges can
differ by a pixel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from tqdm import tqdm

from wsol_lib.cache import cached
from wsol_lib.data.birds.drawing import (
    INSTANCE_STRIDE,
    MAX_INSTANCES,
    SUPERSAMPLING,
    paint_bird,
    plumage_colours,
    pose_points,
    shade,
)
from wsol_lib.data.birds.habitats import HABITATS, MOODS, Mood, Scene
from wsol_lib.data.birds.plans import BODY_PLANS, PART_NAMES, BodyPlan
from wsol_lib.data.sample import LocalizationDataset

SPLITS = {"train-weaksup": 1200, "train-fullsup": None, "test": 600}  # default sizes; None: FULLSUP_PER_CLASS a class
FULLSUP_PER_CLASS = 10
KEPT_FROM = 500  # sets of at least so many images are painted once and then read from the cache
CARRIED_BY = {"wing bar": "wing", "tail tip": "tail"}  # a bar is seen only with its wing, a tip only with its tail
ALWAYS_SEEN = ("body", "head")
HIDEABLE_PARTS = tuple(part for part in PART_NAMES if part not in ALWAYS_SEEN)
_GRAIN = (
    np.random.default_rng(0).normal(0, 2.0, (640, 640, 1)).astype(np.float32)
)  # the paper that the plates are printed on


# -- which bird where --------------------------------------------------------------------------------------------------


def balanced_labels(n_images: int, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Class of every image: each run of `n_classes` images holds every class once, in random order: (N,) int64."""
    blocks = np.tile(np.arange(n_classes), (-(-n_images // n_classes), 1))
    return rng.permuted(blocks, axis=1).ravel()[:n_images]


def draw_habitats(
    families: np.ndarray, n_habitats: int, habitat_correlation: float, rng: np.random.Generator
) -> np.ndarray:
    """With probability rho the family's own habitat, else any one of all, its own included: (N,) int64."""
    own, other = rng.random((len(families), 2)).T
    return np.where(own < habitat_correlation, families, (other * n_habitats).astype(np.int64))


def place_birds(outlines: list, size_range: tuple, position_spread: float, side: int, rng: np.random.Generator) -> list:
    """Scale and shift outlines (centred, long side 1) so that each bird is wholly inside a canvas of the given side.

    Further birds take the one of 12 random places that overlaps least with the birds already there.
    """
    placed, boxes = [], np.zeros((0, 4))
    for outline in outlines:
        size = rng.uniform(*size_range) / np.sqrt(len(outlines))
        outline = outline * size * side
        half = np.abs(outline).max(0)
        u = rng.uniform(-1, 1, (12 if placed else 1, 2))
        centres = side / 2 + position_spread * u * (side / 2 - half)
        candidates = np.concatenate([centres - half, centres + half], 1)
        low = np.maximum(candidates[:, None, :2], boxes[None, :, :2])
        high = np.minimum(candidates[:, None, 2:], boxes[None, :, 2:])
        best = (high - low).clip(0).prod(2).sum(1).argmin()
        placed.append(outline + centres[best])
        boxes = np.vstack([boxes, candidates[best]])
    return placed


def hidden_parts(part_visibility: Mapping[str, float], rng: np.random.Generator) -> frozenset:
    """One coin per part that can hide; a part that hides takes along the part it carries."""
    coins = dict(zip(HIDEABLE_PARTS, rng.random(len(HIDEABLE_PARTS))))
    hidden = {part for part, coin in coins.items() if coin >= part_visibility.get(part, 1.0)}
    return frozenset(hidden | {part for part, carrier in CARRIED_BY.items() if carrier in hidden})


# -- one picture -------------------------------------------------------------------------------------------------------


def paint_picture(
    rng: np.random.Generator,
    family: int,
    species: int,
    habitat: int,
    *,
    image_size: int,
    object_size: tuple[float, float],
    position_spread: float,
    part_difference: float,
    part_visibility: Mapping[str, Mapping[str, float]],
    instances: tuple[int, int],
    clutter: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint one picture; the dials are those of `SynthBirds`, part_visibility as family name -> part -> probability.

    Returns the image (H, W, 3) uint8 and what each pixel shows (H, W) uint8: 0 background, else
    1 + part + INSTANCE_STRIDE * instance. Random draws do not depend on the species, so two species painted from the
    same random state differ in the colour of the diagnostic part alone.
    """
    plan, side = BODY_PLANS[family], image_size * SUPERSAMPLING
    outlines = [pose_points(plan, rng) for _ in range(rng.integers(instances[0], instances[1] + 1))]
    outlines = place_birds(outlines, object_size, position_spread, side, rng)
    outlines.sort(key=lambda outline: outline[plan.soles, 1].max())  # far birds first
    colours = [plumage_colours(plan, species, part_difference, rng) for _ in outlines]
    hidden = [hidden_parts(part_visibility.get(plan.name, {}), rng) for _ in outlines]

    scene = _scene(plan, outlines, hidden, side, clutter, rng)
    list(HABITATS.values())[habitat](scene)
    for instance, bird in enumerate(zip(outlines, colours, hidden)):
        paint_bird(scene.brush, plan, *bird, instance)

    middle = SUPERSAMPLING // 2
    alpha = scene.canvas.getchannel("A")
    content = np.asarray(alpha)[middle::SUPERSAMPLING, middle::SUPERSAMPLING].copy()
    coverage = np.asarray(alpha.point([0] + [255] * 255).reduce(SUPERSAMPLING), dtype=np.float32) / 255
    image = np.asarray(scene.canvas.convert("RGB").reduce(SUPERSAMPLING), dtype=np.float32)
    bird_size = max(float(np.ptp(outline, axis=0).max()) for outline in outlines) / SUPERSAMPLING
    from_right, strength, exposure = rng.uniform((-1, 0.6, 0.94), (1, 1.2, 1.06))
    image = shade(image, content, coverage, (from_right * strength, -strength), bird_size)
    return _develop(image, from_right, exposure, scene.mood, rng), content


def _scene(plan: BodyPlan, outlines: list, hidden: list, side: int, clutter: float, rng: np.random.Generator) -> Scene:
    """The stage for birds at the given places: it shows what they stand or swim on, with the horizon above."""

    def footing(outline: np.ndarray, points: np.ndarray) -> tuple[float, float, float]:
        (x, y), width = outline[points].mean(0), np.ptp(outline[points, 0])
        return x / side, y / side, 0.6 * width / side + 0.03

    feet = [footing(o, plan.belly if "legs" in h else plan.soles) for o, h in zip(outlines, hidden)]
    waterlines = [footing(o, plan.belly) for o in outlines] if plan.swims else feet
    highest = min(y for _, y, _ in feet + waterlines)
    horizon = max(min(rng.uniform(0.22, 0.5), highest - 0.06), 0.06)
    return Scene(rng, side, horizon, feet, waterlines, clutter, MOODS[rng.integers(len(MOODS))])


def _develop(image: np.ndarray, from_right: float, exposure: float, mood: Mood, rng: np.random.Generator) -> np.ndarray:
    """A brighter side, exposure, the tint of the hour and a little grain: (H, W, 3) float32 -> uint8."""
    across = 1 + np.linspace(-0.06, 0.06, image.shape[1])[:, None] * from_right
    gain = (exposure * across * mood.tint).astype(np.float32)
    y, x = rng.integers(0, len(_GRAIN) - len(image), 2)
    grain = _GRAIN[y : y + len(image), x : x + len(image)]
    return np.clip(image * gain + grain, 0, 255).astype(np.uint8)


def visible_boxes(content: np.ndarray) -> np.ndarray:
    """Tight boxes around the visible pixels of each instance: (H, W) uint8 -> (k, 4) float32 xyxy, continuous edges."""
    boxes = []
    for first in range(1, int(content.max()) + 1, INSTANCE_STRIDE):  # the alpha of an instance's first part
        seen = (content >= first) & (content < first + INSTANCE_STRIDE)
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        if len(columns):  # else it is wholly behind another bird
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, dtype=np.float32)


# -- a split -----------------------------------------------------------------------------------------------------------


def render(
    split: str,
    seed: int,
    n_images: int,
    image_size: int,
    habitat_correlation: float,
    n_families: int,
    species_per_family: int,
    **dials,
) -> dict:
    """Paint a whole split; depends on its plain arguments alone, so that the result can be cached.

    Returns tensors: images (N, 3, H, W) uint8; content (N, H, W) uint8, as of `paint_picture`; labels and habitats (N,)
    int64; boxes (M, 4) float32, image after image; box_counts (N,) int64.
    """
    stream = (seed, list(SPLITS).index(split))
    plan_rng = np.random.default_rng((*stream, 0))
    labels = balanced_labels(n_images, n_families * species_per_family, plan_rng)
    families, species = np.divmod(labels, species_per_family)
    habitats = draw_habitats(families, n_families, habitat_correlation, np.random.default_rng((*stream, 1)))
    images = np.empty((n_images, 3, image_size, image_size), dtype=np.uint8)
    content = np.empty((n_images, image_size, image_size), dtype=np.uint8)
    boxes = []
    for i in tqdm(range(n_images), desc=f"painting synthbirds {split}", disable=n_images < KEPT_FROM, leave=False):
        rng = np.random.default_rng((*stream, 2, i))
        image, content[i] = paint_picture(rng, families[i], species[i], habitats[i], image_size=image_size, **dials)
        images[i] = image.transpose(2, 0, 1)
        boxes.append(visible_boxes(content[i]))
    return {
        "images": torch.from_numpy(images),
        "content": torch.from_numpy(content),
        "labels": torch.from_numpy(labels),
        "habitats": torch.from_numpy(habitats),
        "boxes": torch.from_numpy(np.concatenate(boxes)),
        "box_counts": torch.tensor([len(b) for b in boxes]),
    }


class SynthBirds(LocalizationDataset):
    """Birds in habitats, painted on construction; large sets are kept in the cache. See the module's docstring.

    Args:
        split: "train-weaksup", "train-fullsup" or "test": independent random streams.
        seed: 0 to 2**32 - 1.
        n_images: default 1,200 for train-weaksup, 10 a class for train-fullsup, 600 for test. Balanced over classes:
            every run of as many images as there are classes holds each class once. The first images of a larger set
            are the smaller set.
        image_size: side of the square images in pixels, 32 to 512.
        habitat_correlation: rho in [0, 1]. There is one habitat per family, and
            p(habitat | family) = rho + (1 - rho) / n_families for the family's own habitat and
            (1 - rho) / n_families for each other one; species and habitat are independent given the family.
        object_size: (lo, hi) within [0.1, 1]: the long side of a bird's extent, all parts drawn, in shares of the image
            side, uniform. A bird in a flock of k is 1 / sqrt(k) of that.
        position_spread: 0 puts birds in the centre, 1 anywhere where they are wholly inside the image.
        part_difference: 0 to 1: how far the colour of the diagnostic part is from the family's average colour of it
            towards the species' own. At 0 the species of a family look the same.
        part_visibility: probability that a part is painted at all, independently per bird and part: one number for all
            parts but body and head, which always are, or a mapping from part name to a number or to a mapping from
            family name to numbers; what is not named is 1. ``{"beak": 0.9, "legs": {"duck": 0.2}}``. A wing bar is
            painted only with its wing and a tail tip only with its tail, so p(wing bar) is the product of the two.
        instances: birds of one species per image, a number or (lo, hi), uniform, 1 to 15.
        clutter: 0 to 1: how many lily pads, flowers, leaves, shells ... lie about, always behind the birds.
        n_families, species_per_family: 1 to 4 each; class = family * species_per_family + species.
        transform: applied to the Sample.

    Attributes beside those of every data set of `wsol_lib.data`: `part_names`, `family_names`, `habitat_names` (tuples
    of str; habitat f is family f's own), `habitats` and `families` (N,) int64, `family_of_class` (C,) int64 and
    `diagnostic_part_of_class` (tuple of C str).

    A part can be painted and yet be covered by another part or bird: `cue_masks` tells what is seen.

    Raises:
        ValueError: an unknown split, or a dial out of its range.
    """

    part_names = PART_NAMES

    def __init__(
        self,
        split: str,
        seed: int = 0,
        n_images: int | None = None,
        image_size: int = 128,
        habitat_correlation: float = 0.8,
        object_size: tuple[float, float] = (0.4, 0.8),
        position_spread: float = 1.0,
        part_difference: float = 1.0,
        part_visibility: float | Mapping[str, float | Mapping[str, float]] = 1.0,
        instances: int | tuple[int, int] = 1,
        clutter: float = 0.5,
        n_families: int = 4,
        species_per_family: int = 3,
        transform: Callable | None = None,
    ):
        if split not in SPLITS:
            raise ValueError(f"expected a split of {', '.join(SPLITS)}, found {split!r}: choose one of these")
        n_families = _integer("n_families", n_families, 1, len(BODY_PLANS))
        species_per_family = _integer("species_per_family", species_per_family, 1, 4)
        if n_images is None:
            n_images = SPLITS[split] or FULLSUP_PER_CLASS * n_families * species_per_family
        n_images = _integer("n_images", n_images, 1, 2**31)
        paint = functools.partial(cached, render) if n_images >= KEPT_FROM else render
        painted = paint(
            split=split,
            seed=_integer("seed", seed, 0, 2**32 - 1),
            n_images=n_images,
            image_size=_integer("image_size", image_size, 32, 512),
            habitat_correlation=checked_number("habitat_correlation", habitat_correlation, 0, 1),
            n_families=n_families,
            species_per_family=species_per_family,
            object_size=_range("object_size", object_size, 0.1, 1, checked_number),
            position_spread=checked_number("position_spread", position_spread, 0, 1),
            part_difference=checked_number("part_difference", part_difference, 0, 1),
            part_visibility=visibility_by_family(part_visibility),
            instances=_range("instances", instances, 1, MAX_INSTANCES, _integer),
            clutter=checked_number("clutter", clutter, 0, 1),
        )
        plans = BODY_PLANS[:n_families]
        super().__init__(
            name="synthbirds",
            split=split,
            class_names=tuple(f"{s} {plan.name}" for plan in plans for s in list(plan.species)[:species_per_family]),
            labels=painted["labels"],
            boxes=list(painted["boxes"].split(painted["box_counts"].tolist())),
            image_sizes=torch.full((n_images, 2), image_size),
            image_ids=[f"synthbirds/{split}/{seed}/{i:06d}" for i in range(n_images)],
            transform=transform,
        )
        self._images, self._content = painted["images"], painted["content"]
        self._describe_families(plans, species_per_family, painted["habitats"])

    def _describe_families(self, plans: tuple[BodyPlan, ...], species_per_family: int, habitats: torch.Tensor) -> None:
        self.family_names = tuple(plan.name for plan in plans)
        self.habitat_names = tuple(HABITATS)[: len(plans)]
        self.family_of_class = torch.arange(len(plans)).repeat_interleave(species_per_family)
        self.diagnostic_part_of_class = tuple(plans[f].diagnostic_part for f in self.family_of_class.tolist())
        self.families, self.habitats = self.family_of_class[self.labels], habitats

    def _image(self, i: int) -> torch.Tensor:
        return self._images[i].clone()

    def _read(self, places: list[int]) -> torch.Tensor:
        return self._images[places]

    def _mask(self, i: int) -> torch.Tensor:
        return self._content[i] > 0

    def cue_masks(self, index: int) -> dict[str, torch.Tensor]:
        """Where each part is seen in image `index`, before any transform: part name -> (H, W) bool.

        The masks are disjoint and their union is the sample's mask; a part that is not seen has an empty mask.
        """
        content = self._content[self._checked(index)]
        part = torch.where(content > 0, (content - 1) % INSTANCE_STRIDE, INSTANCE_STRIDE)
        return {name: part == k for k, name in enumerate(PART_NAMES)}


# -- checking the dials ------------------------------------------------------------------------------------------------


def checked_number(name: str, value, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ValueError(
            f"expected {name} to be a number from {low} to {high}, found {value!r}: choose one in that range"
        )
    return float(value)


def _integer(name: str, value, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(
            f"expected {name} to be an integer from {low} to {high}, found {value!r}: choose one in that range"
        )
    return int(value)


def _range(name: str, value, low, high, check: Callable) -> tuple:
    """(lo, hi) from a pair or from one number."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"expected {name} to be a number or a pair (lo, hi), found {value!r}: give one or two numbers")
    lo, hi = (check(name, v, low, high) for v in pair)
    if lo > hi:
        raise ValueError(f"expected {name} as (lo, hi) with lo <= hi, found {value!r}: swap the two")
    return lo, hi


def visibility_by_family(value) -> dict[str, dict[str, float]]:
    """Family name -> part -> probability, of the parts that are not always painted."""
    value = value if isinstance(value, Mapping) else dict.fromkeys(HIDEABLE_PARTS, value)
    _known("parts", value, HIDEABLE_PARTS)
    visibility = {plan.name: {} for plan in BODY_PLANS}
    for part, families in value.items():
        families = families if isinstance(families, Mapping) else dict.fromkeys(visibility, families)
        _known("families", families, tuple(visibility))
        for family, probability in families.items():
            visibility[family][part] = checked_number(f"part_visibility[{part!r}]", probability, 0, 1)
    return visibility


def _known(what: str, names: Mapping, known: tuple) -> None:
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"expected part_visibility to name {what} among {', '.join(known)}, found {', '.join(unknown)}: "
            "leave that out (body and head are always seen)"
        )
