"""The component tree against masks that are labelled one threshold at a time, with scipy and with OpenCV's contours."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsol_lib.component_tree import (
    JOINS_4,
    JOINS_8,
    PIXEL_GAINS,
    POLYGON_GAINS,
    clear,
    count_hits,
    join_pixels,
    largest_boxes,
    largest_changed,
    levels_of_taus,
    new_forest,
    over_threads,
    set_frame,
    sort_filled_pixels,
    sort_pixels,
)

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
levels = sizes.flatmap(lambda size: arrays(np.uint16, size, elements=st.integers(0, 5)))
masks = sizes.flatmap(lambda size: arrays(bool, size))
EIGHT = np.ones((3, 3))
unhurried = settings(deadline=None)  # the first call compiles


def sorted_by(sort, levels, *memory):
    order, ends = np.empty(levels.size, np.int32), np.empty(levels.max() + 2, np.int64)
    sort(levels, order, ends, *memory)
    return order, ends


def grown(mask, gains=PIXEL_GAINS, joins=JOINS_8, frame=False):
    """Forest after the pixels of a mask have joined one by one, its living nodes, and how many were touched."""
    forest = new_forest(*mask.shape, joins is JOINS_4, 0)
    clear(forest)
    if frame:
        set_frame(forest, *mask.shape)
    y, x = np.nonzero(mask)
    born, changes = join_pixels(forest, ((y + 1) << 16 | x + 1).astype(np.int32), 1, int(frame), joins, gains)
    alive = [node for node in range(1 + frame, born + 1) if forest.parents[node] == node]
    return forest, forest.nodes[alive], changes


def boxes_of(nodes):
    return sorted((left - 1, top - 1, right, bottom) for left, top, right, bottom in nodes[:, 2:6].tolist())


def boxes_of_labels(labels):
    return sorted((x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels))


@unhurried
@given(levels)
def test_pixels_are_sorted_by_level(levels):
    order, ends = sorted_by(sort_pixels, levels)
    in_order = levels[(order >> 16) - 1, (order & 0xFFFF) - 1]
    assert (np.diff(in_order.astype(int)) <= 0).all()
    assert len(set(order.tolist())) == levels.size
    assert ends.tolist() == [(levels >= level).sum() for level in range(levels.max() + 2)]


@unhurried
@given(levels)
def test_filling_holes_of_all_masks_at_once_is_filling_each(levels):
    size = levels.size
    memory = (np.empty(size, np.int32), np.empty(size, np.int32), np.empty(np.prod(np.add(levels.shape, 2)), np.uint8))
    order, ends = sorted_by(sort_filled_pixels, levels, *memory)
    for level in range(1, levels.max() + 1):
        filled = np.zeros_like(levels, bool)
        pixels = order[: ends[level]]
        filled[(pixels >> 16) - 1, (pixels & 0xFFFF) - 1] = True
        assert (filled == ndimage.binary_fill_holes(levels >= level)).all()


@unhurried
@given(masks)
def test_components_are_those_of_scipy(mask):
    labels, count = ndimage.label(mask, EIGHT)
    _, nodes, _ = grown(mask)
    assert boxes_of(nodes) == boxes_of_labels(labels)
    assert sorted(nodes[:, 0]) == sorted(np.bincount(labels.ravel(), minlength=count + 1)[1:])


@unhurried
@given(masks)
def test_holes_are_four_connected_and_do_not_touch_the_frame(mask):
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    inner = np.where(labels == labels[0, 0], 0, labels)[1:-1, 1:-1]
    _, nodes, _ = grown(~mask, joins=JOINS_4, frame=True)
    assert boxes_of(nodes) == sorted(boxes_of_labels(ndimage.label(inner > 0)[0]))


@unhurried
@given(masks)
def test_polygon_area_grows_to_that_of_the_outer_contour(mask):
    mask = ndimage.binary_fill_holes(mask)
    contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    _, nodes, _ = grown(mask, gains=POLYGON_GAINS)
    assert sorted(nodes[:, 0] / 2) == sorted(cv2.contourArea(contour) for contour in contours)


@pytest.mark.parametrize(("tie", "column"), [(-1, 1), (1, 5)])
def test_the_first_or_the_last_of_equally_large_components_is_chosen(tie, column):
    forest, _, changes = grown(np.array([[0, 1, 0, 1, 0, 1, 0]], bool))
    assert forest.nodes[largest_changed(forest, changes, 0, tie)][2] - 1 == column


def box_by_box(mask):
    """Boxes that the public reading takes: of the largest contour, and of all; whole pixels, both ends counted."""
    height, width = mask.shape
    contours = cv2.findContours(mask.astype(np.uint8) * 255, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [(0, 0, 0, 0)], [(0, 0, 0, 0)]
    edges = []
    for x, y, w, h in map(cv2.boundingRect, contours):
        edges.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
    areas = [cv2.contourArea(contour) for contour in contours]
    return [edges[areas.index(max(areas))]], edges


def boxes_by_labels(mask):
    """Boxes that the paper's reading takes: of the largest component, and of all; continuous edges."""
    labels, count = ndimage.label(mask, EIGHT)
    if not count:
        return [], []
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    return [boxes[np.bincount(labels.ravel())[1:].argmax()]], boxes


def iou(a, b, extra):
    area = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)]
    overlap = max(min(a[2], b[2]) - max(a[0], b[0]) + extra, 0) * max(min(a[3], b[3]) - max(a[1], b[1]) + extra, 0)
    return overlap / (sum(area) - overlap)


IOUS = np.array([0.3, 0.5, 0.7])


def hits_one_threshold_at_a_time(score_map, boxes, taus, public, every):
    hits = np.zeros((len(IOUS), len(taus)), np.int64)
    if public:
        grey = (score_map * 255).astype(np.uint8)
        boxes = np.trunc(boxes)
    best = {}  # mask -> IoU; many thresholds give the same one
    for i, tau in enumerate(taus):
        mask = grey > int(tau * grey.max()) if public else score_map >= tau
        if (key := mask.tobytes()) not in best:
            found = (box_by_box if public else boxes_by_labels)(mask)[every]
            best[key] = max((iou(box, true, int(public)) for box in found for true in boxes.tolist()), default=0)
        hits[:, i] = best[key] >= IOUS
    return hits


def count_at_once(score_maps, boxes, taus, public, every):
    hits = np.zeros((len(IOUS), len(taus)), np.int64)
    if public:
        boxes = [np.trunc(own) + np.array([0, 0, 1, 1]) for own in boxes]
    first = np.cumsum([0] + [len(own) for own in boxes])
    assert count_hits(score_maps, np.concatenate(boxes), first, taus, IOUS, public, every, hits) == -1
    return hits


@st.composite
def score_maps(draw):
    """Noise, plateaus, constants, single pixels, one row, holes, smooth maps: whatever a map may look like."""
    height, width = draw(sizes)
    values = draw(st.sampled_from([2, 3, 6, 256, 10**6]))
    scores = draw(arrays(np.float64, (height, width), elements=st.integers(0, values).map(lambda k: k / values)))
    if draw(st.booleans()):
        scores = ndimage.gaussian_filter(scores, 1.0)
    if draw(st.booleans()) and np.ptp(scores) > 0:
        scores = (scores - scores.min()) / np.ptp(scores)
    return scores.clip(0, 1)


@st.composite
def maps_with_boxes(draw):
    scores = draw(score_maps())
    height, width = scores.shape
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        edges = []
        for side in (width, height):
            start = draw(st.floats(0, side - 0.5))
            edges.append((start, draw(st.floats(start + 0.25, side))))
        boxes.append((edges[0][0], edges[1][0], edges[0][1], edges[1][1]))
    return scores, np.array(boxes)


RING = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], float)
WHOLE = np.array([[0.0, 0, 3, 3]])


@pytest.mark.parametrize("every", [False, True])
@given(maps_with_boxes())
@example((RING, WHOLE))  # its outer and inner contour are the same polygon
@example((np.zeros((3, 3)), np.array([[0.0, 0, 1, 1]])))  # no mask at all
@example((np.eye(3), WHOLE))  # a polygon without area
@settings(max_examples=150, deadline=None)
def test_paper_reading_is_that_of_every_mask_by_itself(every, case):
    scores, boxes = case
    taus = np.arange(101) / 100
    expected = hits_one_threshold_at_a_time(scores, boxes, taus, public=False, every=every)
    assert (count_at_once(scores[None], [boxes], taus, False, every) == expected).all()


@pytest.mark.parametrize("every", [False, True])
@given(maps_with_boxes())
@example((RING, WHOLE))
@example((np.zeros((3, 3)), np.array([[0.0, 0, 1, 1]])))
@example((np.eye(3), WHOLE))
@settings(max_examples=150, deadline=None)
def test_public_reading_is_that_of_opencv_on_every_mask(every, case):
    scores, boxes = case
    taus = np.arange(0, 1, 0.01)
    expected = hits_one_threshold_at_a_time(scores, boxes, taus, public=True, every=every)
    assert (count_at_once(scores[None], [boxes], taus, True, every) == expected).all()


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", ["smooth", "noise", "steps"])
def test_public_reading_on_larger_maps(kind, every):
    """Enough pixels for nested holes, components in holes and many equally large ones."""
    rng = np.random.default_rng(0)
    scores = rng.random((4, 40, 50))
    if kind == "smooth":
        scores = np.stack([ndimage.zoom(s[:5, :6], (8, 50 / 6)).clip(0, 1) for s in scores])
    elif kind == "steps":
        scores = np.floor(scores * 3) / 2
    corners = rng.integers(0, 20, (4, 2, 2))
    boxes = [np.concatenate([own, own + rng.integers(1, 20, (2, 2))], 1).astype(float) for own in corners]
    taus = np.arange(0, 1, 0.001)
    expected = sum(hits_one_threshold_at_a_time(s, own, taus, True, every) for s, own in zip(scores, boxes))
    assert (count_at_once(scores, boxes, taus, True, every) == expected).all()


def test_a_tie_is_decided_anew_when_the_winner_grows_without_gaining_area():
    # two lines have no polygon area: the last one wins, until its upper end passes the other
    scores = np.zeros((7, 5))
    scores[3, 0:2] = 1.0
    scores[4:6, 4] = 1.0
    scores[2:4, 4] = 0.5
    boxes = np.array([[0.0, 3, 2, 3.9]])
    taus = np.array([0.2, 0.8])
    expected = hits_one_threshold_at_a_time(scores, boxes, taus, public=True, every=False)
    assert expected[0].tolist() == [1, 0]
    assert (count_at_once(scores[None], [boxes], taus, True, False) == expected).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_and_taus_are_compared_in_the_precision_of_the_map(dtype):
    """Scores on a tau and as near to it as can be: their products with 1000 are rounded to either side."""
    taus = (np.arange(1001) / 1000).astype(dtype)
    scores = np.stack([np.nextafter(taus, dtype(0)), taus, np.nextafter(taus, dtype(1))])
    levels = np.zeros(scores.shape, np.uint16)
    assert levels_of_taus(scores, taus, levels) == 1001
    assert (levels == np.searchsorted(taus, scores, side="right")).all()
    # 0.7 is a little less in float32 than in float64, on either side of >=
    hits = count_at_once(np.full((1, 1, 1), 0.7, dtype), [np.array([[0.0, 0, 1, 1]])], np.arange(11) / 10, False, False)
    assert hits[0].sum() == 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("public", [False, True])
def test_the_first_bad_map_is_named(bad, public):
    scores, hits = np.full((3, 2, 2), 0.5), np.zeros((3, 11), np.int64)
    scores[1:, 1, 1] = bad
    boxes, first = np.array([[0.0, 0, 1, 1]] * 3), np.arange(4)
    assert count_hits(scores, boxes, first, np.arange(11) / 10, IOUS, public, False, hits) == 1
    assert largest_boxes(scores, 0.5, np.zeros((3, 4), np.float32)) == 1


def test_threads_share_the_maps_and_name_the_first_bad_one():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        assert over_threads(lambda part: seen.append(part) or -1, 7) == -1
        assert sorted(i for part in seen for i in range(7)[part]) == list(range(7))
        assert len(seen) == 3
        assert over_threads(lambda part: 1 if part.start else -1, 7) == 3
    finally:
        torch.set_num_threads(threads)
