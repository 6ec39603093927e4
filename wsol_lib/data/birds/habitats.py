"""The places of SynthBirds: pond, meadow, forest and shore, painted from back to front behind the birds.

Lengths are shares of the image side, x to the right and y down. Scenery knows where the birds stand (a branch runs
under their feet, water ripples around them, and a swimmer floats) but nothing else of what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wsol_lib.data.birds.drawing import mix, rgb

# -- palettes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mood:
    """Light of the hour: colours of the sky, a low sun or none, and the tint of everything."""

    zenith: tuple
    haze: tuple
    sun: tuple | None
    tint: tuple[float, float, float]


MOODS = (
    Mood(rgb("#7fb7dd"), rgb("#e3f1f2"), None, (1.00, 1.00, 1.00)),  # noon
    Mood(rgb("#a9cbe0"), rgb("#fbe9d2"), rgb("#fff6dc"), (1.03, 1.00, 0.95)),  # morning
    Mood(rgb("#8f9fc4"), rgb("#f8cfae"), rgb("#ffdf9e"), (1.04, 0.96, 0.90)),  # evening
    Mood(rgb("#b4c3c9"), rgb("#e2e7e4"), None, (0.95, 0.98, 1.00)),  # overcast
)

WHITE, BLACK = (255, 255, 255), (20, 24, 30)
WATER, DEEP_WATER, BANK, SUNLIT = rgb("#8fc4cf"), rgb("#2f7390"), rgb("#4f7f62"), rgb("#b9cf8a")
LILY_PAD, YOUNG_PAD, LILY, REED, DRY_REED, CATTAIL = (
    rgb(c) for c in ("#3f7d4a", "#7fae57", "#fad9e2", "#3d6b3e", "#8a9c4a", "#6e4a2f")
)
FAR_GRASS, GRASS, DARK_BLADE, PALE_BLADE = rgb("#b5cf7c"), rgb("#5c8f3c"), rgb("#2f6b2f"), rgb("#d3df7d")
FAR_HILLS, NEAR_HILLS, POLLEN = rgb("#7fa7a0"), rgb("#86b07a"), rgb("#d9982b")
PETALS = tuple(rgb(c) for c in ("#f7f3ea", "#f4b8c8", "#e8c84a", "#c9a3dc", "#e98a6d"))
CANOPY, UNDERGROWTH, SUNSPOT, SHADOW, TRUNK = (rgb(c) for c in ("#7fa56a", "#2c4f3f", "#dbe79a", "#1d3a30", "#3f3a33"))
BARK, PALE_BARK, OLD_LEAF, YOUNG_LEAF = rgb("#6f533c"), rgb("#8b7355"), rgb("#2f6f3a"), rgb("#adc65c")
SEA, WET_SAND, SAND, NEAR_SAND, RIPPLE, SPECK = (
    rgb(c) for c in ("#5fa3b5", "#c9ad84", "#ecd9b0", "#dbc194", "#b99768", "#8c6d47")
)
PEBBLE, PALE_PEBBLE, SHELL, PINK_SHELL = rgb("#7f858a"), rgb("#cdbfae"), rgb("#f3dfd2"), rgb("#e5a48c")


# -- the scene and its brushes -----------------------------------------------------------------------------------------


@dataclass
class Scene:
    """What scenery is painted from and on; `wash` comes first."""

    rng: np.random.Generator
    size: int  # side of the canvas in canvas pixels
    horizon: float  # above all feet
    feet: list[tuple[float, float, float]]  # (x, y, half width) of each bird's footing on solid ground
    waterlines: list[tuple[float, float, float]]  # the same in water, where swimmers float on their bellies
    clutter: float  # 0 to 1
    mood: Mood

    def wash(self, *stops: tuple[float, tuple]) -> None:
        """A fresh canvas, coloured from top to bottom through (y, colour) stops; alpha is 0 everywhere."""
        ys, colours = zip(*stops)
        column = np.zeros((self.size, 4), dtype=np.uint8)
        for channel in range(3):
            column[:, channel] = np.interp(np.arange(self.size) / self.size, ys, [c[channel] for c in colours])
        self.canvas = Image.fromarray(np.repeat(column, self.size, axis=0).reshape(self.size, self.size, 4))
        self.brush = ImageDraw.Draw(self.canvas)

    def polygon(self, points: list, colour: tuple) -> None:
        """points: x, y, x, y, ..."""
        self.brush.polygon([self.size * p for p in points], fill=(*colour, 0))

    def oval(self, x: float, y: float, rx: float, ry: float, colour: tuple) -> None:
        s = self.size
        self.brush.ellipse((s * (x - rx), s * (y - ry), s * (x + rx), s * (y + ry)), fill=(*colour, 0))

    def fan(self, x: float, y: float, rx: float, ry: float, begin: float, end: float, colour: tuple) -> None:
        """An oval's sector between two angles in degrees."""
        s = self.size
        self.brush.pieslice((s * (x - rx), s * (y - ry), s * (x + rx), s * (y + ry)), begin, end, fill=(*colour, 0))

    def leaf(self, x: float, y: float, length: float, angle: float, colour: tuple) -> None:
        """A pointed leaf that grows from (x, y) in the direction of the angle (radians)."""
        c, s = length * np.cos(angle), length * np.sin(angle)
        outline = ((0, 0), (0.3, 0.22), (0.6, 0.22), (1, 0), (0.6, -0.22), (0.3, -0.22))
        self.polygon([v for u, t in outline for v in (x + u * c - t * s, y + u * s + t * c)], colour)

    def scatter(self, n: int, top: float = 0, bottom: float = 1, near: float = 1.0) -> list[list[float]]:
        """n places (x, y, depth, a, b, c), far ones first: depth is 0 at `top`, 1 at `bottom`; a, b, c are dice.

        near < 1 puts more of them at the bottom.
        """
        dice = self.rng.random((n, 6))
        dice[:, 2] = np.sort(dice[:, 2]) ** near
        dice[:, 1] = top + dice[:, 2] * (bottom - top)
        return dice.tolist()

    def distractors(self, most: int, top: float = 0) -> list[list[float]]:
        """As many places as the clutter dial asks for."""
        return self.scatter(round(self.clutter * most), top)

    def streaks(self, n: int, top: float, bottom: float, base: tuple, tones: tuple, length: float, strength: float):
        """Flat strokes that grow towards the viewer, in the base colours (far, near) mixed with one of two tones."""
        for x, y, depth, long, which, strong in self.scatter(n, top, bottom, near=0.8):
            tone = mix(mix(*base, depth), tones[which < 0.5], strength * (0.4 + 0.6 * strong))
            self.oval(x, y, length * (0.2 + depth * (0.3 + long)), 0.002 + 0.004 * depth, tone)

    def hills(self, y: float, height: float, colour: tuple, waves: float, foot: float) -> None:
        """A wavy silhouette from about y - height to y, filled down to `foot`."""
        x = np.linspace(0, 1, 40)
        a, b, c = 2 * np.pi * self.rng.random(3)
        turns = np.pi * waves * x
        wave = np.sin(turns + a) + 0.5 * np.sin(2 * turns + b) + 0.25 * np.sin(4.6 * turns + c)
        ridge = y - height * (0.5 + 0.28 * wave)
        self.polygon([*np.stack([x, ridge], 1).ravel().tolist(), 1, foot, 0, foot], colour)

    def trees(self, y: float, height: float, colour: tuple, light: tuple) -> None:
        """A row of round trees with their feet at y, or their reflection where the height is negative."""
        n = 24
        for k, (shift, tall, tone) in enumerate(self.rng.random((n, 3)).tolist()):
            r = abs(height) * (0.35 + 0.3 * tall)
            x = 1.1 * (k + shift) / n - 0.05
            self.oval(x, y - height * (0.1 + 0.4 * tall), 1.2 * r, r, mix(colour, light, 0.3 * tone))

    def heaven(self) -> None:
        """A low sun, when the mood has one, and clouds, all of them above the horizon."""
        horizon = int(self.horizon * self.size) + 1
        ground = self.canvas.crop((0, horizon, self.size, self.size))
        haze, (x, y) = self.mood.haze, self.rng.random(2)
        for radius, share in ((0.15, 0.2), (0.105, 0.4), (0.065, 1.0)) if self.mood.sun else ():
            self.oval(0.1 + 0.8 * x, (0.5 + 0.5 * y) * self.horizon, radius, radius, mix(haze, self.mood.sun, share))
        for x, y, _, large, *_ in self.scatter(3, 0.02, max(0.8 * self.horizon, 0.03)):
            r = 0.03 + 0.04 * large
            for dx, rise in ((-1.6, 0.5), (-0.6, 0.9), (0.5, 1.0), (1.5, 0.55)):
                self.oval(x + dx * r, y - 0.3 * rise * r, 1.2 * rise * r, 0.55 * rise * r, mix(haze, WHITE, 0.6))
        self.canvas.paste(ground, (0, horizon))


# -- pond --------------------------------------------------------------------------------------------------------------


def paint_pond(scene: Scene) -> None:
    """Still water before a wooded bank; lily pads and reeds."""
    y0, haze = scene.horizon, scene.mood.haze
    far, near = mix(WATER, haze, 0.35), mix(DEEP_WATER, scene.mood.zenith, 0.15)
    scene.wash((0, scene.mood.zenith), (y0, haze), (y0 + 0.01, far), ((y0 + 1) / 2, mix(far, near, 0.7)), (1, near))
    scene.hills(y0, 0.2, mix(BANK, haze, 0.6), waves=2, foot=y0)
    scene.trees(y0, -0.09, mix(far, BANK, 0.4), mix(far, BANK, 0.3))
    scene.trees(y0, 0.11, BANK, mix(BANK, SUNLIT, 0.6))
    scene.polygon([0, y0 - 0.01, 1, y0 - 0.01, 1, y0 + 0.005, 0, y0 + 0.005], mix(BANK, BLACK, 0.2))
    scene.streaks(110, y0 + 0.02, 1, (far, near), (BLACK, WHITE), length=0.09, strength=0.25)
    for x, y, width in scene.waterlines:
        water = mix(far, near, (y - y0) / (1 - y0))
        light, lighter, dark = mix(water, WHITE, 0.25), mix(water, WHITE, 0.4), mix(water, BLACK, 0.25)
        for ring, tone in ((1.28, light), (1.20, water), (1.05, lighter), (0.97, dark)):
            scene.oval(x, y, ring * width, 0.16 * ring * width, tone)
    for x, y, depth, green, turn, blooms in scene.distractors(9, y0 + 0.1):
        _lily(scene, x, y, 0.02 + 0.05 * depth, mix(LILY_PAD, YOUNG_PAD, green), 360 * turn, blooms > 0.6)
    for x, y, _, tall, lean, dry in scene.distractors(8, y0 + 0.3 * (1 - y0)):
        x = 0.25 * x if x < 0.5 else 1 - 0.25 * (1 - x)  # reeds frame the picture
        _reed(scene, x, y, 0.3 + 0.3 * tall, 0.1 * (lean - 0.5), mix(REED, DRY_REED, dry))


def _lily(scene: Scene, x: float, y: float, r: float, green: tuple, notch: float, blooms: bool) -> None:
    scene.oval(x, y + 0.1 * r, r, 0.36 * r, mix(green, BLACK, 0.45))
    scene.fan(x, y, r, 0.36 * r, notch, notch + 320, green)
    for angle in (-2.5, -0.64, -2.0, -1.14, -1.57) if blooms else ():
        scene.leaf(x, y - 0.1 * r, 0.55 * r, angle, mix(LILY, WHITE, 0.5 * abs(np.cos(angle))))


def _reed(scene: Scene, x: float, y: float, height: float, lean: float, green: tuple) -> None:
    scene.polygon([x - 0.011, y, x + 0.011, y, x + lean, y - height], green)
    scene.polygon([x - 0.025, y, x - 0.008, y, x - 0.025 - lean, y - 0.7 * height], mix(green, BLACK, 0.2))
    scene.oval(x + 0.85 * lean, y - 0.86 * height, 0.013, 0.06, CATTAIL)


# -- meadow ------------------------------------------------------------------------------------------------------------


def paint_meadow(scene: Scene) -> None:
    """Grass in front of hills, under a sky with clouds; flowers."""
    y0, haze = scene.horizon, scene.mood.haze
    far = mix(FAR_GRASS, haze, 0.25)
    scene.wash((0, scene.mood.zenith), (y0, haze), (y0 + 0.003, far), (1, GRASS))
    scene.heaven()
    scene.hills(y0, 0.15, mix(FAR_HILLS, haze, 0.45), waves=3, foot=y0)
    scene.hills(y0, 0.07, mix(NEAR_HILLS, haze, 0.25), waves=4, foot=y0 + 0.005)
    for x, y, width in scene.feet:
        scene.oval(x, y, width, 0.14 * width, mix(mix(far, GRASS, (y - y0) / (1 - y0)), BLACK, 0.3))
    _grass(scene, 170, far)
    for x, y, depth, tall, kind, _ in scene.distractors(26, y0 + 0.03):
        _flower(scene, x, y, 0.008 + 0.017 * depth, (0.02 + 0.05 * tall) * depth, PETALS[int(kind * len(PETALS))])
    _grass(scene, 130, far)


def _grass(scene: Scene, n: int, far: tuple) -> None:
    for x, y, depth, tall, lean, tone in scene.scatter(n, scene.horizon, 1.08, near=0.75):
        height, width = 0.012 + 0.085 * depth * (0.5 + tall), 0.004 + 0.008 * depth
        green = mix(mix(far, GRASS, depth), DARK_BLADE if tall < 0.5 else PALE_BLADE, 0.1 + 0.45 * tone)
        scene.polygon([x - width, y, x + width, y, x + 0.9 * (lean - 0.5) * height, y - height], green)


def _flower(scene: Scene, x: float, y: float, r: float, stem: float, petal: tuple) -> None:
    scene.polygon([x - 0.003, y + stem, x + 0.003, y + stem, x, y], DARK_BLADE)
    for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False).tolist():
        scene.oval(x + 0.6 * r * np.sin(angle), y - 0.6 * r * np.cos(angle), 0.5 * r, 0.5 * r, petal)
    scene.oval(x, y, 0.4 * r, 0.4 * r, POLLEN)


# -- forest ------------------------------------------------------------------------------------------------------------


def paint_forest(scene: Scene) -> None:
    """A branch in front of trunks and light that falls through leaves."""
    top = mix(CANOPY, scene.mood.haze, 0.3)
    _dappled_light(scene, top)
    for x, _, depth, lean, *_ in scene.scatter(4):
        trunk, w = mix(TRUNK, mix(top, UNDERGROWTH, 0.5), 0.75 - 0.45 * depth), 0.015 + 0.03 * depth
        foot = x + 0.12 * (lean - 0.5)
        scene.polygon([x - w, 0, x + w, 0, foot + 1.3 * w, 1, foot - 1.3 * w, 1], trunk)
        scene.polygon([x + 0.4 * w, 0, x + w, 0, foot + 1.3 * w, 1, foot + 0.5 * w, 1], mix(trunk, BLACK, 0.25))
    for x, y, _ in scene.feet:
        _branch(scene, x, y, 0.055)
    for x, y, _, long, turn, tone in scene.distractors(26):
        if tone < 0.6:
            y *= 0.22  # leaves hang along the frame: from above
        else:
            x = 0.2 * x if x < 0.5 else 1 - 0.2 * (1 - x)  # and from both sides
        scene.leaf(x, y, 0.07 + 0.06 * long, 0.6 + 2.2 * turn, mix(OLD_LEAF, YOUNG_LEAF, tone))


def _dappled_light(scene: Scene, top: tuple) -> None:
    """Foliage out of focus: discs of light and shadow, painted small, blurred and enlarged."""
    full, scene.size = scene.size, scene.size // 6
    scene.wash((0, top), (0.7, UNDERGROWTH), (1, mix(UNDERGROWTH, BLACK, 0.3)))
    for x, y, depth, size, bright, tone in scene.scatter(60):
        colour = mix(mix(top, UNDERGROWTH, depth), SUNSPOT if bright < 0.4 else SHADOW, 0.12 + 0.3 * tone)
        scene.oval(x, y, 0.02 + 0.05 * size, 0.02 + 0.05 * size, colour)
    foliage = scene.canvas.convert("RGB").filter(ImageFilter.GaussianBlur(0.012 * scene.size))
    scene.size, scene.canvas = full, foliage.resize((full, full), Image.Resampling.BILINEAR)
    scene.canvas.putalpha(0)
    scene.brush = ImageDraw.Draw(scene.canvas)


def _branch(scene: Scene, x: float, y: float, thick: float) -> None:
    """A branch across the picture whose upper edge passes under the feet at (x, y)."""
    slope, bend, bark, thin_end = scene.rng.uniform((-0.14, -0.04, 0, 0), (0.14, 0.04, 1, 1))
    xs = np.linspace(-0.02, 1.02, 14)
    top = y + slope * (xs - x) + bend * (xs - x) ** 2 - 0.08 * thick
    width = thick * np.linspace(*((0.6, 1.25) if thin_end < 0.5 else (1.25, 0.6)), len(xs))
    bark = mix(BARK, PALE_BARK, bark)
    for low, high, tone in ((0, 1, mix(bark, BLACK, 0.35)), (0, 0.7, bark), (0.04, 0.25, mix(bark, WHITE, 0.22))):
        upper, lower = np.stack([xs, top + low * width], 1), np.stack([xs, top + high * width], 1)
        scene.polygon(np.vstack([upper, lower[::-1]]).ravel().tolist(), tone)
    for _, _, u, long, turn, tone in scene.scatter(9):
        k, angle = int(u * (len(xs) - 1)), 0.5 + 2.2 * turn
        stem, angle = (top[k], -angle) if tone < 0.4 else (top[k] + width[k], angle)
        scene.leaf(xs[k], stem, 0.06 + 0.06 * long, angle, mix(OLD_LEAF, YOUNG_LEAF, tone))


# -- shore -------------------------------------------------------------------------------------------------------------


def paint_shore(scene: Scene) -> None:
    """Sand, surf and a wide sky; shells and pebbles."""
    y0, haze = scene.horizon, scene.mood.haze
    surf = y0 + 0.3 * (min(y for _, y, _ in scene.feet) - y0) + 0.02
    sea = mix(SEA, haze, 0.2)
    water = ((y0 + 0.003, mix(sea, BLACK, 0.15)), (surf, sea))
    beach = ((surf + 0.003, WET_SAND), (surf + 0.12, SAND), (1, NEAR_SAND))
    scene.wash((0, scene.mood.zenith), (y0, haze), *water, *beach)
    scene.heaven()
    scene.streaks(24, y0 + 0.01, surf, (sea, sea), (BLACK, WHITE), length=0.1, strength=0.3)
    scene.hills(surf + 0.03, 0.02, mix(sea, WHITE, 0.75), waves=3, foot=surf - 0.012)
    scene.hills(surf + 0.018, 0.02, mix(sea, WHITE, 0.25), waves=3, foot=surf - 0.02)
    scene.streaks(26, surf + 0.08, 1, (SAND, NEAR_SAND), (RIPPLE, WHITE), length=0.13, strength=0.35)
    for x, y, depth, dark, tone, _ in scene.scatter(240, surf + 0.05):
        speck = mix(SAND, SPECK if dark < 0.65 else WHITE, 0.25 + 0.4 * tone)
        scene.oval(x, y, 0.003 + 0.004 * depth, 0.002 + 0.003 * depth, speck)
    for x, y, width in scene.feet:
        scene.oval(x, y, width, 0.15 * width, mix(SAND, SPECK, 0.55))
    for x, y, depth, large, tone, kind in scene.distractors(16, surf + 0.08):
        (_pebble if kind < 0.6 else _shell)(scene, x, y, 0.012 + 0.03 * depth * (0.4 + large), tone)


def _pebble(scene: Scene, x: float, y: float, r: float, tone: float) -> None:
    stone = mix(PEBBLE, PALE_PEBBLE, tone)
    scene.oval(x + 0.2 * r, y + 0.25 * r, 1.1 * r, 0.6 * r, RIPPLE)
    scene.oval(x, y, r, 0.65 * r, stone)
    scene.oval(x - 0.25 * r, y - 0.2 * r, 0.45 * r, 0.22 * r, mix(stone, WHITE, 0.4))


def _shell(scene: Scene, x: float, y: float, r: float, tone: float) -> None:
    shell = mix(SHELL, PINK_SHELL, tone)
    scene.oval(x + 0.2 * r, y + 0.25 * r, 1.1 * r, 0.5 * r, RIPPLE)
    for k, begin in enumerate(range(200, 340, 20)):
        scene.fan(x, y + 0.4 * r, r, r, begin, begin + 20, mix(shell, BLACK, 0.18) if k % 2 else shell)


HABITATS = {"pond": paint_pond, "meadow": paint_meadow, "forest": paint_forest, "shore": paint_shore}
