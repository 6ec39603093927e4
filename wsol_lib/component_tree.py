"""Component tree: every threshold of a score map in one pass over its pixels ("Evaluating WSOL Right", Section 4.1).

A falling tau only ever adds pixels to the mask {s >= tau}, so the connected components of all masks of a map form one
tree, the max-tree. The functions here walk it from the highest pixel down: a union-find keeps area, first pixel and
tight box of every living component. A map comes in as whole-number levels (a pixel is in the mask of level l if its own
level is at least l); what goes out is one small number a level, the rank of its box or boxes: how many of the IoU
thresholds the best match with the true boxes reaches.

Everything is compiled by numba, releases the GIL, and works in memory for one map (some 40 bytes a pixel).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
import torch


def compiled(function: Callable) -> Callable:
    """Compile with numba; keep the machine code on disk where there is a writable place for it."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # package folder and home are both read-only: compile again in every process
        return numba.njit(nogil=True)(function)


inlined = numba.njit(nogil=True, forceinline=True)  # for the innermost steps, where a call costs more than the work


def over_threads(work: Callable[[slice], int], number: int) -> int:
    """Share ``number`` maps out over ``torch.get_num_threads()`` threads, each ``work(part)`` on a slice of them.

    ``work`` returns the first bad map of its part or -1, and so does this function for the whole.
    """
    workers = max(1, min(torch.get_num_threads(), number))
    starts = [number * worker // workers for worker in range(workers + 1)]
    parts = [slice(*ends) for ends in pairwise(starts)]
    if workers == 1:
        found = [work(parts[0])]
    else:
        with ThreadPoolExecutor(workers) as threads:
            found = list(threads.map(work, parts))
    return next((part.start + bad for part, bad in zip(parts, found) if bad >= 0), -1)


# -- What a pixel finds around it when it joins a mask: nine bits of its 3 x 3 neighbourhood, one table row each -----

# Bits row by row, the pixel itself is bit 4; even bits are corners, odd ones share an edge with it.
_PLACES = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


def _groups_around(code: int, connectivity: int) -> list[int]:
    """One neighbour of each group of set neighbours that the pixel joins; within a group they are joined already."""
    reach = 2 if connectivity == 8 else 1  # largest squared distance of two connected pixels
    groups: list[set[int]] = []
    for place in (place for place in range(9) if place != 4 and code >> place & 1):
        near = {
            other for other in range(9) if sum((a - b) ** 2 for a, b in zip(_PLACES[place], _PLACES[other])) <= reach
        }
        joined = [group for group in groups if group & near]
        groups = [group for group in groups if group not in joined] + [{place}.union(*joined)]
    if connectivity == 4:
        groups = [{place for place in group if place % 2} for group in groups]
    return [min(group) for group in groups if group]


def _joins(connectivity: int) -> np.ndarray:
    """(512, 5): how many groups of neighbours a new pixel joins, then the place of one neighbour of each."""
    table = np.zeros((512, 5), np.int8)
    for code in range(512):
        groups = _groups_around(code, connectivity)
        table[code, : len(groups) + 1] = [len(groups), *groups]
    return table


def _polygon_gains() -> np.ndarray:
    """(512,): growth of the polygon through a component's border pixels, in half pixels, when a pixel is added.

    The polygon covers a 2 x 2 quad of pixel centres wholly if all four are set and half if three are: in each of its
    four quads a new pixel adds one half if at least two of the other three are there.
    """
    quads = ((0, 1, 3), (1, 2, 5), (3, 6, 7), (5, 7, 8))
    return np.array([sum(sum(code >> p & 1 for p in quad) >= 2 for quad in quads) for code in range(512)], np.int8)


JOINS_8, JOINS_4 = _joins(8), _joins(4)
PIXEL_GAINS, POLYGON_GAINS = np.ones(512, np.int8), _polygon_gains()


# -- The order in which pixels join: row << 16 | column in the map with a frame of one pixel, highest level first ----


@compiled
def count_pixels(levels: np.ndarray, ends: np.ndarray) -> None:
    """``ends[l]``: the number of pixels of level l and above in the (H, W) levels."""
    ends[:] = 0
    for y in range(levels.shape[0]):
        for x in range(levels.shape[1]):
            ends[levels[y, x]] += 1
    for level in range(len(ends) - 2, -1, -1):
        ends[level] += ends[level + 1]


@compiled
def sort_pixels(levels: np.ndarray, order: np.ndarray, ends: np.ndarray) -> None:
    """Counting sort: ``order[:ends[l]]`` are the pixels of level l and above."""
    count_pixels(levels, ends)
    cursors = ends[1:].copy()
    for y in range(levels.shape[0]):
        for x in range(levels.shape[1]):
            level = levels[y, x]
            order[cursors[level]] = (y + 1) << 16 | x + 1
            cursors[level] += 1


@compiled
def sort_filled_pixels(
    levels: np.ndarray, order: np.ndarray, ends: np.ndarray, waiting: np.ndarray, stack: np.ndarray, seen: np.ndarray
) -> None:
    """As :func:`sort_pixels` for the map whose masks have their holes filled.

    A pixel is outside a filled mask if a path of edge neighbours leads from it to the frame below the mask's level. So
    its filled level is the lowest possible maximum over such a path: a flood that rises from the frame meets the pixels
    in the order of their filled levels. The last three arguments are memory: a pixel of ``waiting`` waits for the flood
    to reach its level, one on the ``stack`` is about to be flooded.
    """
    height, width = levels.shape
    stride = width + 2
    steps = ((-stride, -1 << 16), (stride, 1 << 16), (-1, -1), (1, 1))
    count_pixels(levels, ends)
    firsts, lasts = ends[1:].copy(), ends[1:].copy()  # the part of ``waiting`` that belongs to each level
    seen[:] = 0
    seen[:stride] = seen[-stride:] = 1
    for y in range(1, height + 1):
        seen[y * stride] = seen[(y + 1) * stride - 1] = 1
        for x in range(1, width + 1, 1 if y in (1, height) else max(width - 1, 1)):
            level = levels[y - 1, x - 1]
            seen[y * stride + x] = 1
            waiting[lasts[level]] = y << 16 | x
            lasts[level] += 1
    position = height * width
    for level in range(len(firsts)):
        ends[level] = position
        for waiter in range(firsts[level], lasts[level]):
            stack[0] = waiting[waiter]
            depth = 1
            while depth:
                depth -= 1
                pixel = stack[depth]
                position -= 1
                order[position] = pixel
                i = (pixel >> 16) * stride + (pixel & 0xFFFF)
                for step, packed_step in steps:
                    if seen[i + step]:
                        continue
                    seen[i + step] = 1
                    there = pixel + packed_step
                    above = levels[(there >> 16) - 1, (there & 0xFFFF) - 1]
                    if above <= level:
                        stack[depth] = there
                        depth += 1
                    else:
                        waiting[lasts[above]] = there
                        lasts[above] += 1


# -- Union-find ------------------------------------------------------------------------------------------------------


class Forest(NamedTuple):
    """The components of a growing mask. Its pixels are numbered row by row in the map with a frame of one pixel."""

    near: np.ndarray  # which of left neighbour (1), pixel (2) and right neighbour (4) are in the mask
    labels: np.ndarray  # the node that a pixel of the mask was given
    places: np.ndarray  # (9,) from a pixel to the places of its 3 x 3 neighbourhood
    parents: np.ndarray  # the node that has taken a node in; itself while it lives
    nodes: np.ndarray  # one row for each component ever born, columns as below; node 0 is none
    live: np.ndarray  # number of living components by rank
    changed: np.ndarray  # nodes touched by the latest call of join_pixels


AREA, FIRST, LEFT, TOP, RIGHT, BOTTOM, RANK, LEVEL = range(8)
OUTSIDE, ENDLESS = 1, 1 << 30  # node and area of the frame, where holes are looked for


@compiled
def new_forest(height: int, width: int, four_connected: bool, ranks: int) -> Forest:
    """Memory for maps of one size. Components are born at pixels no two of which are neighbours: that bounds them."""
    births = (height * width + 1) // 2 if four_connected else ((height + 1) // 2) * ((width + 1) // 2)
    size = (height + 2) * (width + 2)
    return Forest(
        np.empty(size, np.uint8),
        np.empty(size, np.int32),
        np.array([dy * (width + 2) + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]),
        np.empty(births + 2, np.int32),
        np.empty((births + 2, 8), np.int32),
        np.empty(ranks + 1, np.int64),
        np.empty(births + 2, np.int32),
    )


@compiled
def clear(forest: Forest) -> None:
    """Start again with an empty mask."""
    forest.near[:] = 0
    forest.live[:] = 0
    forest.parents[0], forest.nodes[0, AREA], forest.nodes[0, FIRST] = 0, -1, 0


@compiled
def set_frame(forest: Forest, height: int, width: int) -> None:
    """Put the frame into the mask, as the node OUTSIDE that takes in every component that it meets."""
    near, labels, stride = forest.near, forest.labels, width + 2
    near[:stride] = near[-stride:] = 7
    labels[:stride] = labels[-stride:] = OUTSIDE
    for y in range(1, height + 1):
        near[y * stride + 1] |= 1
        near[y * stride + width] |= 4
        labels[y * stride] = labels[(y + 1) * stride - 1] = OUTSIDE
    forest.parents[OUTSIDE] = OUTSIDE
    forest.nodes[OUTSIDE] = 0
    forest.nodes[OUTSIDE, AREA] = ENDLESS


@inlined
def find(parents: np.ndarray, node: int) -> int:
    """The living component that a node has become part of."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@inlined
def merge(forest: Forest, one: int, other: int) -> int:
    """Make two living components one: the larger takes in the smaller."""
    nodes = forest.nodes
    if nodes[one, AREA] < nodes[other, AREA]:
        one, other = other, one
    forest.parents[other] = one
    forest.live[nodes[other, RANK]] -= 1
    nodes[one, AREA] += nodes[other, AREA]
    nodes[one, FIRST] = min(nodes[one, FIRST], nodes[other, FIRST])
    nodes[one, LEFT] = min(nodes[one, LEFT], nodes[other, LEFT])
    nodes[one, TOP] = min(nodes[one, TOP], nodes[other, TOP])
    nodes[one, RIGHT] = max(nodes[one, RIGHT], nodes[other, RIGHT])
    nodes[one, BOTTOM] = max(nodes[one, BOTTOM], nodes[other, BOTTOM])
    return one


@compiled
def join_pixels(
    forest: Forest, pixels: np.ndarray, level: int, born: int, joins: np.ndarray, gains: np.ndarray
) -> tuple[int, int]:
    """Add the pixels of a level to the mask; returns how many components were ever born and how many have changed."""
    near, labels, places, parents, nodes, live, changed = forest
    stride = places[7]
    changes = 0
    for pixel in pixels:
        y, x = pixel >> 16, pixel & 0xFFFF
        i = y * stride + x
        around = near[i - stride] | near[i] << 3 | near[i + stride] << 6
        near[i - 1] |= 4
        near[i] |= 2
        near[i + 1] |= 1
        groups = joins[around, 0]
        if groups == 0:
            born += 1
            node = born
            parents[node] = node
            nodes[node, AREA] = nodes[node, RANK] = nodes[node, LEVEL] = 0
            nodes[node, FIRST] = pixel
            nodes[node, LEFT] = nodes[node, RIGHT] = x
            nodes[node, TOP] = nodes[node, BOTTOM] = y
            live[0] += 1
        else:
            node = find(parents, labels[i + places[joins[around, 1]]])
            for group in range(2, groups + 1):
                other = find(parents, labels[i + places[joins[around, group]]])
                if other != node:
                    node = merge(forest, node, other)
            # as comparisons rather than minima: nearly always false, so nothing waits for memory
            if pixel < nodes[node, FIRST]:
                nodes[node, FIRST] = pixel
            if x < nodes[node, LEFT]:
                nodes[node, LEFT] = x
            if y < nodes[node, TOP]:
                nodes[node, TOP] = y
            if x > nodes[node, RIGHT]:
                nodes[node, RIGHT] = x
            if y > nodes[node, BOTTOM]:
                nodes[node, BOTTOM] = y
        nodes[node, AREA] += gains[around]
        labels[i] = node
        if nodes[node, LEVEL] != level:
            nodes[node, LEVEL] = level
            changed[changes] = node
            changes += 1
    return born, changes


@compiled
def largest_changed(forest: Forest, changes: int, best: int, tie: int) -> int:
    """The component of largest area among ``best`` and those that have changed.

    Of equal areas the one whose first pixel, row by row, comes first (``tie`` = -1) or last (1).
    """
    nodes = forest.nodes
    for node in forest.changed[:changes]:
        if forest.parents[node] == node:
            gain = nodes[node, AREA] - nodes[best, AREA]
            if gain > 0 or (gain == 0 and tie * nodes[node, FIRST] > tie * nodes[best, FIRST]):
                best = node
    return best


# -- Walking the tree ------------------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """What the components of a map are matched with."""

    boxes: np.ndarray  # (k, 4) float64 xyxy, continuous edges
    iou_thresholds: np.ndarray  # rising
    height: int
    width: int
    overhang: int  # right and lower edges lie so far past the last pixel, but not beyond the map


@compiled
def rank_of_box(node: np.ndarray, margin: int, truth: Truth) -> int:
    """How many of the IoU thresholds the box of a component, ``margin`` pixels wider on all sides, reaches."""
    left, top = node[LEFT] - 1 - margin, node[TOP] - 1 - margin
    right = min(node[RIGHT] - 1 + margin + truth.overhang, truth.width)
    bottom = min(node[BOTTOM] - 1 + margin + truth.overhang, truth.height)
    area = float((right - left) * (bottom - top))
    best = 0.0
    for k in range(len(truth.boxes)):
        x0, y0, x1, y1 = truth.boxes[k]
        overlap = max(min(right, x1) - max(left, x0), 0.0) * max(min(bottom, y1) - max(top, y0), 0.0)
        best = max(best, overlap / (area + (x1 - x0) * (y1 - y0) - overlap))
    rank = 0
    while rank < len(truth.iou_thresholds) and best >= truth.iou_thresholds[rank]:
        rank += 1
    return rank


@compiled
def rank_largest(
    forest: Forest, order: np.ndarray, ends: np.ndarray, truth: Truth, gains: np.ndarray, tie: int, ranks: np.ndarray
) -> None:
    """``ranks[l]`` of the largest 8-connected component in the mask of each level l >= 1."""
    nodes = forest.nodes
    clear(forest)
    born, best = 0, 0
    for level in range(len(ends) - 2, 0, -1):
        ranks[level] = ranks[level + 1]
        if ends[level] == ends[level + 1]:
            continue
        area, first = nodes[best, AREA], nodes[best, FIRST]
        born, changes = join_pixels(forest, order[ends[level + 1] : ends[level]], level, born, JOINS_8, gains)
        best = find(forest.parents, best)
        if nodes[best, AREA] == area and nodes[best, FIRST] != first:
            # a line has no polygon area: it may reach up without gain, and lose a tie to one that has not changed
            changes = born
            for node in range(born):
                forest.changed[node] = node + 1
        best = largest_changed(forest, changes, best, tie)
        ranks[level] = rank_of_box(nodes[best], 0, truth)


@compiled
def rank_all(forest: Forest, order: np.ndarray, ends: np.ndarray, truth: Truth, holes: bool, ranks: np.ndarray) -> None:
    """Raise ``ranks[l]`` to the best of all 8-connected components in the mask of each level l >= 1.

    With ``holes`` it is the best of the borders of all holes: 4-connected components of what is not in the mask, but
    for the one that the frame belongs to. They only grow when the level rises, so they are walked from the lowest pixel
    up; their borders run through the pixels around them.
    """
    nodes, live, born, joins = forest.nodes, forest.live, 0, JOINS_8
    clear(forest)
    if holes:
        set_frame(forest, truth.height, truth.width)
        born, joins = OUTSIDE, JOINS_4
    top = len(ends) - 2
    rank = 0
    for step in range(1, top + 1):
        level = step if holes else top + 1 - step
        start, stop = (ends[level], ends[level - 1]) if holes else (ends[level + 1], ends[level])
        born, changes = join_pixels(forest, order[start:stop], level, born, joins, PIXEL_GAINS)
        for node in forest.changed[:changes]:
            if forest.parents[node] == node and not (holes and node == OUTSIDE):
                live[nodes[node, RANK]] -= 1
                nodes[node, RANK] = rank_of_box(nodes[node], int(holes), truth)
                live[nodes[node, RANK]] += 1
        if changes:
            rank = len(truth.iou_thresholds)
            while rank > 0 and live[rank] == 0:
                rank -= 1
        ranks[level] = max(ranks[level], rank)


# -- Maps in, hits out -----------------------------------------------------------------------------------------------


@compiled
def levels_of_taus(score_map: np.ndarray, taus: np.ndarray, levels: np.ndarray) -> int:
    """Level of a pixel = how many of the evenly spaced taus from 0 to 1 its score reaches, in the map's precision.

    Returns the highest possible level, or -1 if a score is not in [0, 1].
    """
    last = len(taus) - 1
    for y in range(score_map.shape[0]):
        for x in range(score_map.shape[1]):
            score = score_map[y, x]
            if not 0 <= score <= 1:
                return -1
            index = int(score * last)  # one off at most, where the product was rounded
            while taus[index] > score:
                index -= 1
            while index < last and taus[index + 1] <= score:
                index += 1
            levels[y, x] = index + 1
    return last + 1


@compiled
def levels_of_bytes(score_map: np.ndarray, levels: np.ndarray) -> int:
    """Level of a pixel = its score x 255, truncated; returns the highest, or -1 if a score is not in [0, 1]."""
    highest = 0
    for y in range(score_map.shape[0]):
        for x in range(score_map.shape[1]):
            score = float(score_map[y, x])
            if not 0.0 <= score <= 1.0:
                return -1
            levels[y, x] = int(score * 255.0)
            highest = max(highest, levels[y, x])
    return highest


@compiled
def count_hits(
    score_maps: np.ndarray,
    boxes: np.ndarray,
    first_box: np.ndarray,
    taus: np.ndarray,
    iou_thresholds: np.ndarray,
    public: bool,
    every_component: bool,
    hits: np.ndarray,
) -> int:
    """Add to ``hits`` (IoU thresholds, taus) the maps that reach each rising IoU threshold at each tau.

    ``score_maps`` (N, H, W); map n has the true boxes ``boxes[first_box[n] : first_box[n + 1]]``, (K, 4) float64;
    ``public`` reads a map as the authors' code does rather than as the paper. Returns the first map with a score that
    is not in [0, 1], or -1.
    """
    number, height, width = score_maps.shape
    forest = new_forest(height, width, public and every_component, len(iou_thresholds))
    levels, order = np.empty((height, width), np.uint16), np.empty(height * width, np.int32)
    waiting, stack = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    most = max(len(taus), 255) + 2
    ends, ranks = np.empty(most, np.int64), np.empty(most, np.int64)
    own_taus = taus.astype(score_maps.dtype)
    gains, tie = (POLYGON_GAINS, 1) if public else (PIXEL_GAINS, -1)
    for n in range(number):
        score_map = score_maps[n]
        top = levels_of_bytes(score_map, levels) if public else levels_of_taus(score_map, own_taus, levels)
        if top < 0:
            return n
        truth = Truth(boxes[first_box[n] : first_box[n + 1]], iou_thresholds, height, width, 2 if public else 1)
        steps = ends[: top + 2]
        ranks[:] = 0
        if public and not every_component:
            sort_filled_pixels(levels, order, steps, waiting, stack, forest.near)
        else:
            sort_pixels(levels, order, steps)
        if every_component:
            for holes in range(2 if public else 1):
                rank_all(forest, order, steps, truth, holes == 1, ranks)
        else:
            rank_largest(forest, order, steps, truth, gains, tie, ranks)
        if public and top == 0:  # an empty mask: that code then takes the pixel at the origin, both ends counted
            forest.nodes[0] = 1
            ranks[1] = rank_of_box(forest.nodes[0], 0, Truth(truth.boxes, iou_thresholds, height, width, 1))
        for i in range(len(taus)):
            level = int(taus[i] * top) + 1 if public else i + 1
            for rank in range(ranks[level]):
                hits[rank, i] += 1
    return -1


@compiled
def largest_boxes(score_maps: np.ndarray, tau: float, boxes: np.ndarray) -> int:
    """Write the box (N, 4) of the largest 8-connected component of {s >= tau} in each map (N, H, W), if there is one.

    Returns the first map with a score that is not in [0, 1], or -1.
    """
    number, height, width = score_maps.shape
    forest = new_forest(height, width, False, 0)
    mask = np.empty(height * width, np.int32)
    for n in range(number):
        pixels = 0
        for y in range(height):
            for x in range(width):
                if not 0 <= score_maps[n, y, x] <= 1:
                    return n
                if score_maps[n, y, x] >= tau:
                    mask[pixels] = (y + 1) << 16 | x + 1
                    pixels += 1
        if pixels == 0:
            continue
        clear(forest)
        _, changes = join_pixels(forest, mask[:pixels], 1, 0, JOINS_8, PIXEL_GAINS)
        largest = forest.nodes[largest_changed(forest, changes, 0, -1)]
        boxes[n, 0], boxes[n, 1] = largest[LEFT] - 1, largest[TOP] - 1
        boxes[n, 2], boxes[n, 3] = largest[RIGHT], largest[BOTTOM]
    return -1
