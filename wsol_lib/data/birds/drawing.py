"""The brush of SynthBirds: pose a body plan, choose an individual's colours, paint it part by part and light it.

The number of the part is painted along with the colour, in the alpha channel of the canvas, so masks and parts are
exact by construction.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wsol_lib.data.birds.plans import COMMON_COLOURS, PART_NAMES, BodyPlan

SUPERSAMPLING = 3  # canvas pixels per image pixel and side: what makes edges smooth
INSTANCE_STRIDE = 16  # alpha of a painted pixel = 1 + part + INSTANCE_STRIDE * instance; 0 is background
MAX_INSTANCES = 255 // INSTANCE_STRIDE


# -- pose --------------------------------------------------------------------------------------------------------------


def pose_points(plan: BodyPlan, rng: np.random.Generator) -> np.ndarray:
    """The plan's points in a random pose, long side 1, centred at the origin: (P, 2)."""
    flip, tilt, turn, back, plump = rng.random(5)
    points, head = plan.points.copy(), plan.turning
    turned = _rotate(points[head] - plan.neck, np.interp(turn, (0, 1), plan.head_turn))
    if back < plan.looks_back:
        turned[:, 0] *= -1
    points[head] = turned + plan.neck
    points = _rotate(points * (1, 0.95 + 0.1 * plump), np.interp(tilt, (0, 1), plan.tilt))
    if flip < 0.5:
        points[:, 0] *= -1
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / (high - low).max()


def _rotate(points: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]])


# -- colour ------------------------------------------------------------------------------------------------------------


@cache
def rgb(colour: str) -> tuple[int, ...]:
    """``"#rrggbb"`` -> (r, g, b)."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def mix(a: tuple, b: tuple, share: float) -> tuple[int, ...]:
    """The colour `share` of the way from a to b."""
    (r, g, b), (to_r, to_g, to_b) = a, b
    return int(r + share * (to_r - r)), int(g + share * (to_g - g)), int(b + share * (to_b - b))


def plumage_colours(plan: BodyPlan, species: int, part_difference: float, rng: np.random.Generator) -> dict:
    """The colours of one individual: the family's, the species' diagnostic one, and some jitter of both."""
    marks = [rgb(colour) for colour in plan.species.values()]
    colours = {name: rgb(colour) for name, colour in (COMMON_COLOURS | plan.plumage).items()}
    colours["diagnostic"] = mix(np.mean(marks, axis=0), marks[species], part_difference)
    gain = rng.uniform(0.92, 1.06) * rng.uniform(0.97, 1.03, 3) * rng.uniform(0.95, 1.05, (len(colours), 1))
    jittered = np.clip(np.array(list(colours.values())) * gain, 0, 255).astype(int).tolist()
    return {name: tuple(colour) for name, colour in zip(colours, jittered)}


# -- paint and light ---------------------------------------------------------------------------------------------------

#: how far each part stands out towards the light, 0 to 255
RELIEF = {
    "body": 150,
    "head": 175,
    "neck patch": 175,
    "beak": 160,
    "wing": 230,
    "wing bar": 230,
    "tail": 110,
    "tail tip": 110,
    "legs": 70,
}
_RELIEF_OF_INSTANCE = [RELIEF[part] for part in PART_NAMES] + [0] * (INSTANCE_STRIDE - len(PART_NAMES))
RELIEF_OF_ALPHA = np.array([0] + _RELIEF_OF_INSTANCE * MAX_INSTANCES, dtype=np.uint8)


def paint_bird(
    brush: ImageDraw.ImageDraw, plan: BodyPlan, points: np.ndarray, colours: dict, hidden: frozenset, instance: int
) -> None:
    """Paint a bird on an RGBA canvas, shape by shape, without the hidden parts.

    points: (P, 2) the plan's points in canvas pixels; colours: name -> (r, g, b).
    """
    unit = np.ptp(points, axis=0).max() / np.ptp(plan.points, axis=0).max()
    begin = 0
    for shape, end in zip(plan.shapes, plan.ends):
        if shape.part not in hidden:
            outline = points[begin:end].ravel().tolist()
            fill = (*colours[shape.colour], 1 + PART_NAMES.index(shape.part) + INSTANCE_STRIDE * instance)
            if shape.width is None:
                brush.polygon(outline, fill=fill)
            else:
                brush.line(outline, fill=fill, width=max(1, round(shape.width * unit)))
        begin = end


def shade(
    image: np.ndarray, content: np.ndarray, coverage: np.ndarray, light: tuple[float, float], bird_size: float
) -> np.ndarray:
    """Soft light over the birds: image (H, W, 3) float32 -> (H, W, 3).

    content: (H, W) uint8, as painted in alpha; coverage: (H, W) float32, the share of a pixel that is bird, 0 to 1.

    The parts' relief, blurred coarsely (round bodies) and finely (the edge of a wing), is lit from `light`, a direction
    in the image plane: slopes that face it brighten, slopes that face away darken. `bird_size` in pixels sets the blur.
    """
    relief = Image.fromarray(RELIEF_OF_ALPHA[content])
    lit = np.zeros(content.shape, dtype=np.float32)
    for share, gain in ((0.09, 0.9), (0.02, 0.3)):
        radius = share * bird_size
        height = np.asarray(relief.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) * (radius / 255)
        reach = 1 + int(radius / 3)  # slopes over several pixels: the relief has 8 bits only
        padded = np.pad(height, reach, mode="edge")
        inner = slice(reach, -reach)
        slope_x = (padded[inner, 2 * reach :] - padded[inner, : -2 * reach]) / (2 * reach)
        slope_y = (padded[2 * reach :, inner] - padded[: -2 * reach, inner]) / (2 * reach)
        lit -= gain * (slope_x * light[0] + slope_y * light[1])
    return image * (1 + np.clip(lit, -0.45, 0.35) * coverage)[..., None]
