"""Component tree: every threshold of a score map in one pass over its pixels ("Evaluating WSOL Right", Section 4.1).

Thresholding a map at falling tau only ever adds pixels, so the connected components of all its masks form one tree, the
max-tree. The functions here walk that tree from the highest pixel down: a union-find keeps area, first pixel and tight
box of every living component. A map comes in as whole-number levels (pixel p is in the mask of level l where
``levels[p] >= l``); what goes out is one small number a level: the rank of its box or boxes, that is how many of the
IoU thresholds the best match with the ground truth reaches.

Everything is compiled by numba, releases the GIL, and works in memory that grows with one map only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch


def compiled(function: Callable) -> Callable:
    """Compile with numba; keep the machine code on disk where there is a writable place for it."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # package folder and home are both read-only: compile again in every process
        return numba.njit(nogil=True)(function)


def over_threads(work: Callable[[slice], int], number: int) -> int:
    """Share ``number`` maps out over ``torch.get_num_threads()`` threads, each ``work(part)`` on a slice of them.

    ``work`` returns the first bad map of its part or -1, and so does this function for the whole.
    """
    workers = max(1, min(torch.get_num_threads(), number))
    starts = [number * worker // workers for worker in range(workers + 1)]
    parts = [slice(start, stop) for start, stop in zip(starts, starts[1:])]
    if workers == 1:
        found = [work(parts[0])]
    else:
        with ThreadPoolExecutor(workers) as threads:
            found = list(threads.map(work, parts))
    return next((part.start + bad for part, bad in zip(parts, found) if bad >= 0), -1)


# -- What a pixel finds around it when it joins a mask: eight neighbours, 256 cases, one table each ------------------

# (row, column) steps clockwise from above: even places share an edge with the pixel, odd ones a corner
_STEPS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _groups_around(code: int, connectivity: int) -> list[int]:
    """One neighbour of each group of set neighbours that the pixel joins; within a group they are joined already."""
    reach = 2 if connectivity == 8 else 1  # largest squared distance of two connected pixels
    groups: list[set[int]] = []
    for place in (place for place in range(8) if code >> place & 1):
        near = {
            other for other in range(8) if sum((a - b) ** 2 for a, b in zip(_STEPS[place], _STEPS[other])) <= reach
        }
        joined = [group for group in groups if group & near]
        groups = [group for group in groups if group not in joined] + [{place}.union(*joined)]
    if connectivity == 4:
        groups = [{place for place in group if place % 2 == 0} for group in groups]
    return [min(group) for group in groups if group]


def _joins(connectivity: int) -> np.ndarray:
    """(256, 5): how many groups of neighbours a new pixel joins, then the place of one neighbour of each."""
    table = np.zeros((256, 5), np.int64)
    for code in range(256):
        groups = _groups_around(code, connectivity)
        table[code, : len(groups) + 1] = [len(groups), *groups]
    return table


def _polygon_gains() -> np.ndarray:
    """(256,): growth of the polygon through a component's border pixels, in half pixels, when a pixel is added.

    The polygon covers a 2 x 2 quad of pixel centres wholly if all four are set and half if three are: in each of its
    four quads a new pixel adds one half if at least two of the other three are there.
    """
    quads = ((0, 1, 2), (2, 3, 4), (4, 5, 6), (6, 7, 0))
    return np.array([sum(sum(code >> p & 1 for p in quad) >= 2 for quad in quads) for code in range(256)], np.int64)


STEPS = np.array(_STEPS)
JOINS_8, JOINS_4 = _joins(8), _joins(4)
PIXEL_GAINS, POLYGON_GAINS = np.ones(256, np.int64), _polygon_gains()

# Columns of the node table: one row for each component ever born.
AREA, FIRST, LEFT, TOP, RIGHT, BOTTOM, RANK, LEVEL = range(8)
OUTSIDE = 1  # the node of the frame around the map, where holes are sought
ENDLESS = 1 << 30


# -- The order in which pixels join: row << 16 | column, highest level first -----------------------------------------


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
    """Counting sort: ``order[:ends[l]]`` are the pixels of level l and above, each level row by row."""
    height, width = levels.shape
    count_pixels(levels, ends)
    cursors = ends[1:].copy()
    for y in range(height):
        for x in range(width):
            level = levels[y, x]
            order[cursors[level]] = y << 16 | x
            cursors[level] += 1


@compiled
def sort_filled_pixels(
    levels: np.ndarray, order: np.ndarray, ends: np.ndarray, waiting: np.ndarray, stack: np.ndarray, seen: np.ndarray
) -> None:
    """As :func:`sort_pixels` for the map with its holes filled, the levels themselves untouched.

    A pixel is outside a filled mask if a path of edge neighbours leads from it to the frame below the mask's level. So
    its filled level is the lowest maximum over such paths: a flood from the frame, lowest level first, meets the pixels
    in the order of their filled levels.
    """
    height, width = levels.shape
    count_pixels(levels, ends)
    tops = len(ends)
    cursors, stops = np.empty(tops, np.int64), np.empty(tops, np.int64)
    for level in range(tops - 1):  # room for the pixels of each level that wait for the flood to rise
        cursors[level] = stops[level] = ends[level + 1]
    seen[:] = 0
    for y in range(height):
        for x in range(0, width, 1 if y in (0, height - 1) else max(width - 1, 1)):
            seen[y * width + x] = 1
            waiting[stops[levels[y, x]]] = y << 16 | x
            stops[levels[y, x]] += 1
    position = height * width
    for level in range(tops - 1):
        ends[level] = position
        for waiter in range(cursors[level], stops[level]):
            stack[0] = waiting[waiter]
            depth = 1
            while depth:
                depth -= 1
                pixel = stack[depth]
                position -= 1
                order[position] = pixel
                y, x = pixel >> 16, pixel & 0xFFFF
                for step in range(4):
                    v, u = y + (step == 2) - (step == 0), x + (step == 1) - (step == 3)
                    if v < 0 or u < 0 or v >= height or u >= width or seen[v * width + u]:
                        continue
                    seen[v * width + u] = 1
                    above = levels[v, u]
                    if above <= level:
                        stack[depth] = v << 16 | u
                        depth += 1
                    else:
                        waiting[stops[above]] = v << 16 | u
                        stops[above] += 1
    ends[tops - 1] = 0


# -- Union-find ------------------------------------------------------------------------------------------------------


@compiled
def most_births(height: int, width: int, four_connected: bool) -> int:
    """The largest number of components ever born in one map: pixels no two of which are neighbours."""
    if four_connected:
        return (height * width + 1) // 2
    return ((height + 1) // 2) * ((width + 1) // 2)


@compiled
def find(parents: np.ndarray, node: int) -> int:
    """The living component that a node has become part of."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def merge(parents: np.ndarray, nodes: np.ndarray, live: np.ndarray, one: int, other: int) -> int:
    """Make two different living components one: the larger takes in the smaller."""
    if nodes[one, AREA] < nodes[other, AREA]:
        one, other = other, one
    parents[other] = one
    live[nodes[other, RANK]] -= 1
    nodes[one, AREA] += nodes[other, AREA]
    nodes[one, FIRST] = min(nodes[one, FIRST], nodes[other, FIRST])
    nodes[one, LEFT] = min(nodes[one, LEFT], nodes[other, LEFT])
    nodes[one, TOP] = min(nodes[one, TOP], nodes[other, TOP])
    nodes[one, RIGHT] = max(nodes[one, RIGHT], nodes[other, RIGHT])
    nodes[one, BOTTOM] = max(nodes[one, BOTTOM], nodes[other, BOTTOM])
    return one


@compiled
def join_pixel(
    pixel: int,
    labels: np.ndarray,
    parents: np.ndarray,
    nodes: np.ndarray,
    live: np.ndarray,
    newborn: int,
    joins: np.ndarray,
    gains: np.ndarray,
) -> int:
    """Add a pixel to the mask; returns its component, which is ``newborn`` if no neighbour is in the mask yet.

    ``labels`` (H + 2, W + 2) holds the node that each pixel of the mask was given, 0 outside the mask.
    """
    y, x = (pixel >> 16) + 1, (pixel & 0xFFFF) + 1
    around = (
        (labels[y - 1, x] != 0)
        | (labels[y - 1, x + 1] != 0) << 1
        | (labels[y, x + 1] != 0) << 2
        | (labels[y + 1, x + 1] != 0) << 3
        | (labels[y + 1, x] != 0) << 4
        | (labels[y + 1, x - 1] != 0) << 5
        | (labels[y, x - 1] != 0) << 6
        | (labels[y - 1, x - 1] != 0) << 7
    )
    groups = joins[around, 0]
    if groups == 0:
        node = newborn
        parents[node] = node
        nodes[node, AREA] = nodes[node, RANK] = nodes[node, LEVEL] = 0
        nodes[node, FIRST] = pixel
        nodes[node, LEFT] = nodes[node, RIGHT] = x - 1
        nodes[node, TOP] = nodes[node, BOTTOM] = y - 1
        live[0] += 1
    else:
        place = joins[around, 1]
        node = find(parents, labels[y + STEPS[place, 0], x + STEPS[place, 1]])
        for group in range(2, groups + 1):
            place = joins[around, group]
            other = find(parents, labels[y + STEPS[place, 0], x + STEPS[place, 1]])
            if other != node:
                node = merge(parents, nodes, live, node, other)
        nodes[node, FIRST] = min(nodes[node, FIRST], pixel)
        nodes[node, LEFT] = min(nodes[node, LEFT], x - 1)
        nodes[node, TOP] = min(nodes[node, TOP], y - 1)
        nodes[node, RIGHT] = max(nodes[node, RIGHT], x - 1)
        nodes[node, BOTTOM] = max(nodes[node, BOTTOM], y - 1)
    nodes[node, AREA] += gains[around]
    labels[y, x] = node
    return node


# -- Walking the tree ------------------------------------------------------------------------------------------------


@compiled
def rank_of_box(
    node: np.ndarray, margin: int, overhang: int, shape: tuple[int, int], targets: np.ndarray, iou_thresholds: np.ndarray
) -> int:
    """How many of the rising IoU thresholds the best match of a component's box with the (k, 4) targets reaches.

    ``margin`` widens the box on all sides (the border of a hole runs through the pixels around it); its right and lower
    edge then lie ``overhang`` past the last pixel, but not beyond the map.
    """
    left, top = node[LEFT] - margin, node[TOP] - margin
    right = min(node[RIGHT] + margin + overhang, shape[1])
    bottom = min(node[BOTTOM] + margin + overhang, shape[0])
    area = float((right - left) * (bottom - top))
    best = 0.0
    for k in range(len(targets)):
        x0, y0, x1, y1 = targets[k]
        overlap = max(min(right, x1) - max(left, x0), 0.0) * max(min(bottom, y1) - max(top, y0), 0.0)
        best = max(best, overlap / (area + (x1 - x0) * (y1 - y0) - overlap))
    rank = 0
    while rank < len(iou_thresholds) and best >= iou_thresholds[rank]:
        rank += 1
    return rank


@compiled
def largest_component_ranks(
    order: np.ndarray,
    ends: np.ndarray,
    labels: np.ndarray,
    parents: np.ndarray,
    nodes: np.ndarray,
    gains: np.ndarray,
    tie: int,
    overhang: int,
    targets: np.ndarray,
    iou_thresholds: np.ndarray,
    ranks: np.ndarray,
) -> None:
    """``ranks[l]`` for the 8-connected component of largest area in the mask of each level l >= 1.

    Of equally large components the one whose first pixel, row by row, comes first (``tie`` = -1) or last (1) is taken.
    """
    shape = (labels.shape[0] - 2, labels.shape[1] - 2)
    live = np.zeros(1, np.int64)
    labels[:] = 0
    born, best, best_area, best_first = 0, 0, -1, 0
    for level in range(len(ends) - 2, 0, -1):
        ranks[level] = ranks[level + 1]
        if ends[level] == ends[level + 1]:
            continue
        for position in range(ends[level + 1], ends[level]):
            node = join_pixel(order[position], labels, parents, nodes, live, born + 1, JOINS_8, gains)
            born = max(born, node)
            area, first = nodes[node, AREA], nodes[node, FIRST]
            if area > best_area or (area == best_area and tie * first > tie * best_first):
                best, best_area, best_first = node, area, first
        best = find(parents, best)
        if nodes[best, FIRST] != best_first:  # it grew upwards without gaining area: another may have won the tie
            for node in range(1, born + 1):
                if parents[node] == node and nodes[node, AREA] == best_area:
                    if tie * nodes[node, FIRST] > tie * nodes[best, FIRST]:
                        best = node
            best_first = nodes[best, FIRST]
        ranks[level] = rank_of_box(nodes[best], 0, overhang, shape, targets, iou_thresholds)


@compiled
def best_component_ranks(
    order: np.ndarray,
    ends: np.ndarray,
    labels: np.ndarray,
    parents: np.ndarray,
    nodes: np.ndarray,
    changed: np.ndarray,
    holes: bool,
    overhang: int,
    targets: np.ndarray,
    iou_thresholds: np.ndarray,
    ranks: np.ndarray,
) -> None:
    """Raise ``ranks[l]`` to the best of all 8-connected components in the mask of each level l >= 1.

    With ``holes`` it is the best of all borders of holes: 4-connected components outside the mask that don't reach the
    frame. They are found the other way round, from the lowest pixel up.
    """
    shape = (labels.shape[0] - 2, labels.shape[1] - 2)
    live = np.zeros(len(iou_thresholds) + 1, np.int64)  # living components by rank
    labels[:] = 0
    born = 0
    if holes:
        labels[0], labels[-1], labels[:, 0], labels[:, -1] = OUTSIDE, OUTSIDE, OUTSIDE, OUTSIDE
        parents[OUTSIDE], nodes[OUTSIDE, AREA], nodes[OUTSIDE, RANK] = OUTSIDE, ENDLESS, 0
        born = OUTSIDE
    top = len(ends) - 2
    rank = 0
    for step in range(1, top + 1):
        level = step if holes else top + 1 - step
        start, stop = (ends[level], ends[level - 1]) if holes else (ends[level + 1], ends[level])
        changes = 0
        for position in range(start, stop):
            node = join_pixel(
                order[position], labels, parents, nodes, live, born + 1, JOINS_4 if holes else JOINS_8, PIXEL_GAINS
            )
            born = max(born, node)
            if nodes[node, LEVEL] != level:
                nodes[node, LEVEL] = level
                changed[changes] = node
                changes += 1
        for change in range(changes):
            node = changed[change]
            if parents[node] == node and not (holes and node == OUTSIDE):
                live[nodes[node, RANK]] -= 1
                nodes[node, RANK] = rank_of_box(nodes[node], int(holes), overhang, shape, targets, iou_thresholds)
                live[nodes[node, RANK]] += 1
        rank = len(iou_thresholds)
        while rank > 0 and live[rank] == 0:
            rank -= 1
        ranks[level] = max(ranks[level], rank)


# -- Maps in, hits out -----------------------------------------------------------------------------------------------


@compiled
def levels_of_taus(score_map: np.ndarray, taus: np.ndarray, levels: np.ndarray) -> bool:
    """Level of a pixel = number of the evenly spaced, rising taus from 0 to 1 that are <= its score; False if a score
    is not in [0, 1]. Scores and taus are compared in the map's own precision."""
    last = len(taus) - 1
    for y in range(score_map.shape[0]):
        for x in range(score_map.shape[1]):
            score = score_map[y, x]
            if not 0 <= score <= 1:
                return False
            index = int(score * last)
            while taus[index] > score:
                index -= 1
            while index < last and taus[index + 1] <= score:
                index += 1
            levels[y, x] = index + 1
    return True


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
    targets: np.ndarray,
    first_target: np.ndarray,
    taus: np.ndarray,
    iou_thresholds: np.ndarray,
    public: bool,
    every_component: bool,
    hits: np.ndarray,
) -> int:
    """Add to ``hits`` (IoU thresholds, taus) the maps that reach each rising IoU threshold at each tau.

    ``score_maps`` (N, H, W); the boxes of map n are ``targets[first_target[n]:first_target[n + 1]]``; ``public`` chooses
    the authors' code's reading of a map rather than the paper's. Returns the first map with a score that is not in
    [0, 1], or -1.
    """
    number, height, width = score_maps.shape
    shape, size = (height, width), height * width
    births = most_births(height, width, public and every_component) + 2
    levels, labels = np.empty(shape, np.uint16), np.empty((height + 2, width + 2), np.int32)
    order, waiting, stack = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    seen = np.empty(size, np.uint8)
    parents, changed, nodes = np.empty(births, np.int32), np.empty(births, np.int32), np.empty((births, 8), np.int32)
    grid = taus.astype(score_maps.dtype)
    ends, ranks = np.empty(max(len(taus), 256) + 2, np.int64), np.empty(max(len(taus), 256) + 2, np.int64)
    overhang, gains, tie = (2, POLYGON_GAINS, 1) if public else (1, PIXEL_GAINS, -1)
    top = len(taus)
    for n in range(number):
        if public:
            top = levels_of_bytes(score_maps[n], levels)
        elif not levels_of_taus(score_maps[n], grid, levels):
            top = -1
        if top < 0:
            return n
        boxes = targets[first_target[n] : first_target[n + 1]]
        ranks[: top + 2] = 0
        steps = ends[: top + 2]
        if every_component:
            sort_pixels(levels, order, steps)
            best_component_ranks(order, steps, labels, parents, nodes, changed, False, overhang, boxes, iou_thresholds, ranks)
            if public:
                best_component_ranks(order, steps, labels, parents, nodes, changed, True, overhang, boxes, iou_thresholds, ranks)
        else:
            if public:
                sort_filled_pixels(levels, order, steps, waiting, stack, seen)
            else:
                sort_pixels(levels, order, steps)
            largest_component_ranks(order, steps, labels, parents, nodes, gains, tie, overhang, boxes, iou_thresholds, ranks)
        if public and top == 0:  # an empty mask, for which that code takes the pixel in the corner
            nodes[0] = 0
            ranks[1] = rank_of_box(nodes[0], 0, 1, shape, boxes, iou_thresholds)
        for i in range(len(taus)):
            level = int(taus[i] * top) + 1 if public else i + 1
            for rank in range(ranks[level]):
                hits[rank, i] += 1
    return -1
