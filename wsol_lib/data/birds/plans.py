"""The field guide of SynthBirds: four families as small tables of outlines and colours.

A bird lives in its own units: about one body length, x to the right, y down, looking right. Every shape belongs to one
part. Species of a family share every outline and every colour but the one named ``"diagnostic"``, which only shapes of
the family's diagnostic part use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PART_NAMES = ("body", "head", "neck patch", "beak", "wing", "wing bar", "tail", "tail tip", "legs")
TURNING_PARTS = ("head", "neck patch", "beak")  # they move when the bird turns its head


# -- geometry ----------------------------------------------------------------------------------------------------------


def spline(knots, closed: bool = False, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through the knots, `steps` points from one to the next: (n, 2) -> (m, 2)."""
    knots = np.asarray(knots, dtype=float)
    padded = np.vstack([knots[-1:], knots, knots[:2]]) if closed else np.vstack([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, knots[-1:]])


def blob(*knots: tuple[float, float]) -> np.ndarray:
    """A smooth closed outline."""
    return spline(knots, closed=True)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """A circle."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


@dataclass(frozen=True)
class Strip:
    """A wing, tail, neck or beak: the band between two curves from its root (u = 0) to its tip (u = 1)."""

    upper: tuple
    lower: tuple

    def at(self, u: np.ndarray, t: float) -> np.ndarray:
        """Points at u along the band and t across it (0: upper curve, 1: lower curve): (n,) -> (n, 2)."""
        upper, lower = (spline(curve, steps=8) for curve in (self.upper, self.lower))
        sides = [[np.interp(u, np.linspace(0, 1, len(side)), side[:, k]) for k in (0, 1)] for side in (upper, lower)]
        return ((1 - t) * np.array(sides[0]) + t * np.array(sides[1])).T

    def patch(self, u0: float = 0, u1: float = 1, t0: float = 0, t1: float = 1) -> np.ndarray:
        """The closed outline of the piece of the band between u0 and u1, t0 and t1."""
        u = np.linspace(u0, u1, 14)
        return np.vstack([self.at(u, t0), self.at(u[::-1], t1)])

    def line(self, t: float, u0: float = 0, u1: float = 1) -> np.ndarray:
        """One curve along the band: the edge of a feather."""
        return self.at(np.linspace(u0, u1, 8), t)


# -- shapes and families -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shape:
    """One stroke of paint: a filled outline, or a line when a width is given (in bird units)."""

    part: str
    colour: str
    points: np.ndarray
    width: float | None = None


@dataclass(frozen=True, eq=False)
class BodyPlan:
    """One family: shapes in painting order and colours; a species is a choice of the diagnostic colour."""

    name: str
    diagnostic_part: str
    species: dict[str, str]  # name of the species -> its diagnostic colour
    plumage: dict[str, str]  # name of a colour -> hex
    shapes: tuple[Shape, ...]
    neck: tuple[float, float]  # the head turns around this point
    tilt: tuple[float, float]  # degrees; negative lifts the head
    head_turn: tuple[float, float]  # degrees
    looks_back: float = 0.0  # probability that the head looks over the back
    swims: bool = False  # in water it floats on its belly; others wade

    @cached_property
    def points(self) -> np.ndarray:
        """The points of all shapes, one below the other: (P, 2)."""
        return np.vstack([shape.points for shape in self.shapes])

    @cached_property
    def ends(self) -> list[int]:
        """Where in `points` each shape ends."""
        return np.cumsum([len(shape.points) for shape in self.shapes]).tolist()

    def of_parts(self, *parts: str) -> np.ndarray:
        """Which of `points` belong to the given parts: (P,) bool."""
        return np.concatenate([np.full(len(shape.points), shape.part in parts) for shape in self.shapes])

    @cached_property
    def turning(self) -> np.ndarray:
        """Which of `points` turn with the head: (P,) bool."""
        return self.of_parts(*TURNING_PARTS)

    @cached_property
    def soles(self) -> np.ndarray:
        """Which of `points` touch the ground: (P,) bool."""
        legs = self.of_parts("legs")
        return legs & (self.points[:, 1] > self.points[legs, 1].max() - 0.06)

    @cached_property
    def belly(self) -> np.ndarray:
        """Which of `points` touch the ground when the legs are out of sight, or the water: (P,) bool."""
        body = self.of_parts("body")
        return body & (self.points[:, 1] > self.points[body, 1].max() - 0.08)


#: colours that all families share; legs look alike on purpose: a foreground cue that tells little about the class
COMMON_COLOURS = {"eye": "#17130f", "glint": "#ffffff", "legs": "#dd8544"}


def _eye(x: float, y: float, r: float) -> list[Shape]:
    return [
        Shape("head", "eye ring", disc(x, y, 1.3 * r)),
        Shape("head", "eye", disc(x, y, r)),
        Shape("head", "glint", disc(x + 0.3 * r, y - 0.35 * r, 0.36 * r)),
    ]


def _leg(*knots: tuple[float, float], toe: float, width: float) -> list[Shape]:
    x, y = knots[-1]
    toes = ((x - 0.5 * toe, y + 0.012), (x, y), (x + toe, y + 0.02))
    return [Shape("legs", "legs", np.array(knots), width), Shape("legs", "legs", np.array(toes), 0.8 * width)]


def _webbed_leg(x: float, top: float, foot: float) -> list[Shape]:
    web = ((x - 0.03, foot - 0.03), (x + 0.03, foot - 0.03), (x + 0.17, foot + 0.05), (x - 0.05, foot + 0.05))
    leg = ((x + 0.03, top), (x, foot))
    return [Shape("legs", "legs", np.array(leg), 0.05), Shape("legs", "legs", np.array(web))]


def _feathers(part: str, colour: str, strip: Strip, across: tuple, u0: float, u1: float = 0.97) -> list[Shape]:
    return [Shape(part, colour, strip.line(t, u0, u1), 0.014) for t in across]


def _flecks(part: str, colour: str, *places: tuple[float, float], size: float = 0.026) -> list[Shape]:
    """Feather edges on the breast: small cups."""
    cup = np.array([(-1, 0), (-0.5, 0.6), (0.5, 0.6), (1, 0)]) * size
    return [Shape(part, colour, cup + place, 0.016) for place in places]


# The tables are drawings: their line breaks follow the bird, not the formatter.
# fmt: off

def _duck() -> BodyPlan:
    wing = Strip(upper=((0.24, -0.10), (0.02, -0.22), (-0.30, -0.20), (-0.70, -0.10)),
                 lower=((0.24, -0.06), (0.10, 0.12), (-0.26, 0.14), (-0.70, -0.08)))
    tail = Strip(upper=((-0.48, -0.12), (-0.66, -0.19), (-0.84, -0.30)),
                 lower=((-0.48, 0.16), (-0.68, 0.06), (-0.86, -0.13)))
    beak = Strip(upper=((0.59, -0.63), (0.68, -0.55), (0.80, -0.50), (0.90, -0.49)),
                 lower=((0.57, -0.45), (0.68, -0.42), (0.80, -0.41), (0.90, -0.45)))
    neck = Strip(upper=((0.28, -0.62), (0.29, -0.42), (0.20, -0.24), (0.06, -0.14)),
                 lower=((0.58, -0.46), (0.53, -0.34), (0.56, -0.18), (0.62, 0.00)))
    shapes = (
        *_webbed_leg(-0.10, top=0.22, foot=0.40),
        *_webbed_leg(0.15, top=0.22, foot=0.42),
        Shape("tail", "tail", tail.patch()),
        Shape("tail tip", "pale", tail.patch(u0=0.68)),
        *_feathers("tail", "tail dark", tail, (0.35, 0.68), 0.1, 0.66),
        Shape("head", "head", neck.patch()),
        Shape("body", "body", blob((-0.66, -0.06), (-0.34, -0.20), (0.06, -0.22), (0.34, -0.24), (0.58, -0.16),
                                   (0.66, 0.04), (0.52, 0.23), (0.12, 0.31), (-0.34, 0.26), (-0.60, 0.12))),
        Shape("body", "belly", blob((0.40, 0.16), (0.44, 0.25), (0.12, 0.30), (-0.34, 0.25), (-0.58, 0.12),
                                    (-0.30, 0.16))),
        Shape("body", "breast", blob((0.32, -0.23), (0.57, -0.15), (0.645, 0.04), (0.50, 0.215), (0.30, 0.23),
                                     (0.24, 0.02))),
        *_flecks("body", "breast dark", (0.38, -0.08), (0.50, -0.06), (0.33, 0.04), (0.45, 0.05), (0.56, 0.05),
                 (0.38, 0.14), (0.50, 0.14)),
        Shape("neck patch", "pale", neck.patch(0.50, 0.64)),
        Shape("head", "head", blob((0.27, -0.48), (0.26, -0.66), (0.40, -0.79), (0.57, -0.74), (0.64, -0.59),
                                   (0.58, -0.44),
                                   (0.42, -0.38))),
        Shape("head", "sheen", blob((0.32, -0.58), (0.34, -0.68), (0.46, -0.73), (0.53, -0.69), (0.42, -0.62))),
        Shape("beak", "beak", beak.patch()),
        Shape("beak", "beak dark", beak.line(0.6), 0.014),
        *_eye(0.49, -0.60, 0.042),
        Shape("wing", "wing", wing.patch()),
        Shape("wing", "covert", wing.patch(0.0, 0.38)),
        *_feathers("wing", "wing dark", wing, (0.3, 0.5, 0.7, 0.86), 0.42),
        *_flecks("wing", "wing", (0.10, -0.10), (0.02, -0.02), (0.12, 0.01), (-0.04, -0.12)),
        Shape("wing bar", "pale", wing.patch(0.41, 0.69, 0.42, 0.98)),
        Shape("wing bar", "diagnostic", wing.patch(0.44, 0.66, 0.42, 0.98)),
    )
    return BodyPlan(
        "duck", "wing bar",
        {"scarlet-winged": "#d93a3a", "sapphire-winged": "#2867d8", "emerald-winged": "#16a34a",
         "amber-winged": "#f2a81d"},
        {"body": "#b9a894", "belly": "#d8cbb8", "breast": "#7a4d3a", "breast dark": "#5d3829", "head": "#2f5d4f",
         "sheen": "#4f8d74", "wing": "#94826f", "wing dark": "#6b5b4c", "covert": "#a89782", "tail": "#7d6c5b",
         "tail dark": "#5f5144", "pale": "#f4efe4", "beak": "#e6b74a", "beak dark": "#a5762a", "eye ring": "#5e9a82"},
        shapes, neck=(0.34, -0.24), tilt=(-6, 6), head_turn=(-14, 14), looks_back=0.15, swims=True,
    )


def _songbird() -> BodyPlan:
    wing = Strip(upper=((0.18, -0.10), (0.00, -0.23), (-0.30, -0.13), (-0.70, 0.20)),
                 lower=((0.18, -0.08), (0.13, 0.13), (-0.18, 0.26), (-0.70, 0.22)))
    tail = Strip(upper=((-0.40, 0.02), (-0.72, 0.14), (-1.02, 0.23)), lower=((-0.40, 0.22), (-0.70, 0.31),
                                                                             (-0.99, 0.40)))
    beak = Strip(upper=((0.49, -0.46), (0.59, -0.44), (0.71, -0.36)), lower=((0.49, -0.32), (0.59, -0.33),
                                                                             (0.71, -0.36)))
    shapes = (
        Shape("tail", "wing", tail.patch()),
        Shape("tail tip", "wing dark", tail.patch(u0=0.82)),
        *_feathers("tail", "wing dark", tail, (0.35, 0.7), 0.1, 0.8),
        *_leg((-0.10, 0.30), (-0.12, 0.46), (-0.06, 0.62), toe=0.1, width=0.04),
        *_leg((0.10, 0.30), (0.08, 0.46), (0.14, 0.64), toe=0.1, width=0.04),
        Shape("body", "back", blob((-0.52, 0.10), (-0.30, -0.20), (0.02, -0.38), (0.36, -0.32), (0.49, -0.04),
                                   (0.40, 0.26),
                                   (0.08, 0.41), (-0.28, 0.34))),
        Shape("body", "belly", blob((0.42, -0.18), (0.475, -0.02), (0.39, 0.25), (0.08, 0.395), (-0.30, 0.31),
                                    (-0.10, 0.20),
                                    (0.16, 0.04))),
        *_flecks("body", "fleck", (0.25, 0.08), (0.36, 0.09), (0.18, 0.17), (0.29, 0.18), (0.38, 0.19), (0.10, 0.26),
                 (0.22, 0.27), (0.02, 0.33), (0.31, 0.27)),
        Shape("head", "back", blob((0.04, -0.30), (0.08, -0.54), (0.27, -0.67), (0.47, -0.60), (0.55, -0.40),
                                   (0.47, -0.22),
                                   (0.26, -0.14))),
        Shape("head", "cap", blob((0.07, -0.46), (0.13, -0.60), (0.28, -0.675), (0.46, -0.61), (0.52, -0.49),
                                  (0.34, -0.54))),
        Shape("head", "cheek", blob((0.26, -0.43), (0.38, -0.50), (0.51, -0.42), (0.47, -0.28), (0.31, -0.29))),
        Shape("neck patch", "diagnostic", blob((0.52, -0.32), (0.53, -0.18), (0.46, -0.04), (0.33, 0.00), (0.26, -0.12),
                                               (0.34, -0.24))),
        Shape("beak", "beak", beak.patch()),
        Shape("beak", "beak dark", beak.line(0.55), 0.014),
        *_eye(0.37, -0.46, 0.048),
        Shape("wing", "wing", wing.patch()),
        Shape("wing", "covert", wing.patch(0.0, 0.42)),
        *_flecks("wing", "wing", (0.08, -0.10), (0.00, -0.02), (0.09, 0.03), (-0.06, -0.12)),
        Shape("wing bar", "pale", wing.patch(0.42, 0.49, 0.06, 0.94)),
        *_feathers("wing", "wing dark", wing, (0.25, 0.45, 0.65, 0.85), 0.53),
    )
    return BodyPlan(
        "songbird", "neck patch",
        {"ruby-throated": "#d7263d", "gold-throated": "#f6b81c", "azure-throated": "#2479d0",
         "moss-throated": "#3f9142"},
        {"back": "#8d7159", "belly": "#f2e3c9", "fleck": "#c9ad8b", "cap": "#6b5240", "cheek": "#bda489",
         "wing": "#6f5847",
         "wing dark": "#463830", "covert": "#836a55", "pale": "#efe2cc", "beak": "#4a4340", "beak dark": "#292524",
         "eye ring": "#f3ead8"},
        shapes, neck=(0.28, -0.20), tilt=(-16, 8), head_turn=(-14, 14),
    )


def _parrot() -> BodyPlan:
    wing = Strip(upper=((-0.02, -0.34), (-0.26, -0.22), (-0.34, 0.12), (-0.34, 0.58)),
                 lower=((0.04, -0.32), (0.14, -0.10), (0.02, 0.24), (-0.32, 0.60)))
    tail = Strip(upper=((-0.28, 0.26), (-0.38, 0.62), (-0.52, 1.12)), lower=((0.00, 0.36), (-0.18, 0.70),
                                                                             (-0.38, 1.16)))
    shapes = (
        Shape("tail", "tail", tail.patch()),
        *_feathers("tail", "tail dark", tail, (0.35, 0.68), 0.1, 0.68),
        Shape("tail tip", "diagnostic", tail.patch(u0=0.70)),
        Shape("body", "body", blob((-0.20, -0.42), (0.12, -0.48), (0.30, -0.28), (0.33, 0.00), (0.22, 0.28),
                                   (0.02, 0.44),
                                   (-0.18, 0.46), (-0.32, 0.20), (-0.32, -0.16))),
        Shape("body", "belly", blob((0.24, -0.30), (0.305, -0.02), (0.20, 0.26), (0.02, 0.41), (0.04, 0.10),
                                    (0.12, -0.14))),
        *_flecks("body", "fleck", (0.18, -0.16), (0.26, -0.10), (0.14, -0.06), (0.22, -0.01), (0.12, 0.06),
                 (0.20, 0.10),
                 (0.10, 0.18), (0.18, 0.21), (0.08, 0.29)),
        *_leg((0.02, 0.36), (0.06, 0.44), (0.08, 0.49), toe=0.1, width=0.05),
        *_leg((0.14, 0.28), (0.19, 0.40), (0.21, 0.46), toe=0.1, width=0.05),
        Shape("head", "head", blob((-0.18, -0.40), (-0.18, -0.66), (0.00, -0.82), (0.22, -0.80), (0.34, -0.64),
                                   (0.32, -0.44),
                                   (0.16, -0.30), (-0.06, -0.28))),
        Shape("head", "crown", blob((-0.10, -0.72), (0.02, -0.81), (0.21, -0.79), (0.31, -0.69), (0.18, -0.71),
                                    (0.04, -0.70))),
        Shape("head", "mask", blob((0.12, -0.66), (0.26, -0.70), (0.34, -0.58), (0.30, -0.46), (0.18, -0.48))),
        Shape("neck patch", "neck patch", blob((0.32, -0.44), (0.20, -0.38), (-0.02, -0.38), (-0.16, -0.44),
                                               (-0.12, -0.32),
                                               (0.06, -0.24), (0.28, -0.30))),
        Shape("beak", "beak dark", blob((0.30, -0.52), (0.40, -0.50), (0.38, -0.42), (0.30, -0.42))),
        Shape("beak", "beak", blob((0.28, -0.68), (0.40, -0.68), (0.49, -0.56), (0.47, -0.40), (0.41, -0.50),
                                   (0.30, -0.52))),
        *_eye(0.20, -0.61, 0.044),
        Shape("wing", "wing", wing.patch()),
        Shape("wing", "covert", wing.patch(0.0, 0.36)),
        *_flecks("wing", "wing", (-0.08, -0.20), (-0.18, -0.12), (-0.04, -0.10), (0.06, -0.14), (-0.12, -0.03),
                 (0.02, -0.02)),
        Shape("wing bar", "wing bar", wing.patch(0.36, 0.43, 0.03, 0.97)),
        *_feathers("wing", "wing dark", wing, (0.25, 0.45, 0.65, 0.85), 0.47),
    )
    return BodyPlan(
        "parrot", "tail tip",
        {"crimson-tailed": "#d8263e", "lemon-tailed": "#f8d21f", "indigo-tailed": "#4348d8", "pearl-tailed": "#f3eee6"},
        {"body": "#4faa57", "belly": "#9bcf6a", "fleck": "#74b355", "head": "#3f9a58", "crown": "#5fb46a",
         "mask": "#f3ead2",
         "neck patch": "#2f7f86", "wing": "#2f7f4f", "wing dark": "#1d5a3a", "covert": "#46a05c", "wing bar": "#e9c349",
         "tail": "#357d5e", "tail dark": "#235a45", "beak": "#e9dcc3", "beak dark": "#5a5048", "eye ring": "#d8c9a8"},
        shapes, neck=(0.06, -0.36), tilt=(-14, 6), head_turn=(-12, 16), looks_back=0.25,
    )


def _wader() -> BodyPlan:
    wing = Strip(upper=((0.26, -0.10), (0.06, -0.22), (-0.28, -0.14), (-0.70, 0.16)),
                 lower=((0.26, -0.06), (0.16, 0.12), (-0.20, 0.22), (-0.70, 0.18)))
    tail = Strip(upper=((-0.36, -0.02), (-0.60, 0.08), (-0.82, 0.19)), lower=((-0.36, 0.18), (-0.58, 0.24),
                                                                              (-0.78, 0.31)))
    neck = Strip(upper=((0.42, -0.86), (0.34, -0.66), (0.36, -0.46), (0.30, -0.26), (0.12, -0.16)),
                 lower=((0.60, -0.76), (0.48, -0.62), (0.52, -0.42), (0.52, -0.20), (0.44, 0.06)))
    beak = Strip(upper=((0.60, -0.90), (0.78, -0.85), (1.04, -0.73)), lower=((0.59, -0.77), (0.78, -0.765),
                                                                             (1.04, -0.71)))
    shapes = (
        Shape("tail", "wing", tail.patch()),
        Shape("tail tip", "wing dark", tail.patch(u0=0.66)),
        *_leg((-0.10, 0.14), (-0.16, 0.52), (-0.06, 0.92), toe=0.13, width=0.036),
        *_leg((0.08, 0.14), (0.04, 0.54), (0.14, 0.95), toe=0.13, width=0.036),
        Shape("head", "body", neck.patch()),
        Shape("body", "body", blob((-0.44, 0.06), (-0.22, -0.17), (0.10, -0.24), (0.38, -0.16), (0.46, 0.04),
                                   (0.26, 0.22),
                                   (-0.08, 0.28), (-0.34, 0.20))),
        *_flecks("body", "fleck", (0.34, -0.02), (0.28, 0.07), (0.38, 0.06), (0.20, 0.14), (0.31, 0.14)),
        Shape("neck patch", "neck patch", neck.patch(0.46, 0.62)),
        Shape("head", "body", blob((0.40, -0.80), (0.42, -0.93), (0.54, -0.98), (0.65, -0.91), (0.66, -0.81),
                                   (0.54, -0.73))),
        Shape("head", "crest", blob((0.60, -0.93), (0.50, -0.99), (0.38, -0.94), (0.16, -0.80), (0.38, -0.86),
                                    (0.50, -0.89))),
        Shape("beak", "diagnostic", beak.patch()),
        Shape("beak", "beak dark", beak.line(0.6), 0.012),
        *_eye(0.555, -0.865, 0.034),
        Shape("wing", "wing", wing.patch()),
        Shape("wing", "covert", wing.patch(0.0, 0.40)),
        *_flecks("wing", "wing", (0.16, -0.08), (0.06, -0.12), (0.08, -0.01), (-0.03, -0.05), (0.02, 0.06),
                 (0.15, 0.03)),
        Shape("wing bar", "pale", wing.patch(0.40, 0.47, 0.06, 0.94)),
        *_feathers("wing", "wing dark", wing, (0.25, 0.45, 0.65, 0.85), 0.51),
    )
    return BodyPlan(
        "wader", "beak",
        {"coral-billed": "#e2413c", "golden-billed": "#f5b921", "slate-billed": "#35547d", "jade-billed": "#2f9e6e"},
        {"body": "#eef0f2", "fleck": "#c9d2da", "neck patch": "#b9c7d3", "crest": "#39424f", "wing": "#9fb0bf",
         "wing dark": "#5d6b7c", "covert": "#bccad6", "pale": "#f7f8f8", "beak dark": "#3a3636", "eye ring": "#f3ead8"},
        shapes, neck=(0.26, -0.14), tilt=(-8, 8), head_turn=(-10, 14), looks_back=0.12,
    )

# fmt: on

BODY_PLANS = (_duck(), _songbird(), _parrot(), _wader())
