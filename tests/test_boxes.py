"""Normalising, thresholding, boxes and their overlap."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsol_lib.boxes import box_iou, boxes_from_score_maps, localized, normalize_score_maps, scale_boxes

batches = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(0, 6).map(lambda k: float(np.float32(k / 6))))
)


def box_by_scipy(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if count == 0:
        return [0, 0, 0, 0]
    y, x = ndimage.find_objects(labels)[np.bincount(labels.ravel())[1:].argmax()]
    return [x.start, y.start, x.stop, y.stop]


@settings(deadline=None)
@given(batches, st.sampled_from([0.0, 1 / 6, 0.3, 0.5, 1.0]))
def test_boxes_are_those_of_scipys_largest_component(maps, threshold):
    maps = torch.from_numpy(maps)
    boxes = boxes_from_score_maps(maps, threshold)
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [box_by_scipy(score_map.numpy()) for score_map in maps >= threshold]


@settings(deadline=None)
@given(batches)
def test_min_max_spans_zero_to_one_and_leaves_constants_at_zero(maps):
    maps = torch.from_numpy(maps) * 7 - 3
    for score_map, normal in zip(maps, normalize_score_maps(maps)):
        extent = score_map.max() - score_map.min()
        assert normal.min() == 0
        assert normal.max() == (1 if extent > 0 else 0)
        torch.testing.assert_close(normal * extent + score_map.min(), score_map)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_range_wider_than_the_largest_number_is_normalised_too(dtype):
    most = torch.finfo(dtype).max
    tiny = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # the smallest number there is: halved it would be gone
    maps = torch.tensor([[[-most, 0, most / 2, most]], [[0, tiny, 2 * tiny, 4 * tiny]]], dtype=dtype)
    assert normalize_score_maps(maps).tolist() == [[[0, 0.5, 0.75, 1]], [[0, 0.25, 0.5, 1]]]


def test_max_normalisation_divides_by_the_maximum():
    maps = torch.tensor([[[0.5, 2.0]], [[0.0, 0.0]]])
    assert normalize_score_maps(maps, "max").tolist() == [[[0.25, 1.0]], [[0.0, 0.0]]]
    with pytest.raises(ValueError, match=r"score map 1 .* negative"):
        normalize_score_maps(maps - torch.tensor([0.0, 0.1])[:, None, None], "max")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_normalising_refuses_what_is_not_finite(bad):
    maps = torch.zeros(3, 2, 2)
    maps[2, 0, 1] = bad
    with pytest.raises(ValueError, match=r"score map 2 .* finite"):
        normalize_score_maps(maps)


def test_normalising_knows_two_methods():
    with pytest.raises(ValueError, match="'z-score'"):
        normalize_score_maps(torch.zeros(1, 2, 2), "z-score")


def test_pixels_that_touch_at_a_corner_are_one_component():
    assert boxes_from_score_maps(torch.eye(3)[None], 0.5).tolist() == [[0, 0, 3, 3]]


def test_of_equally_large_components_the_first_is_taken():
    assert boxes_from_score_maps(torch.tensor([[[1.0, 0, 1, 0, 1]]]), 0.5).tolist() == [[0, 0, 1, 1]]


def test_complex_maps_are_refused():
    for function in (normalize_score_maps, lambda maps: boxes_from_score_maps(maps, 0.5)):
        with pytest.raises(ValueError, match=r"expected score maps of real numbers, found torch.complex64"):
            function(torch.ones(1, 2, 2, dtype=torch.complex64))


def test_a_map_below_the_threshold_has_an_empty_box():
    maps = torch.tensor([[[0.2, 0.2]], [[0.2, 0.9]]])
    assert boxes_from_score_maps(maps, 0.5).tolist() == [[0, 0, 0, 0], [1, 0, 2, 1]]


def test_a_score_equal_to_the_threshold_is_in_the_mask_whatever_the_precision():
    for dtype in (torch.float16, torch.float32, torch.float64):
        maps = torch.tensor([[[0.75, 0.0]]], dtype=dtype)
        assert boxes_from_score_maps(maps, 0.75).tolist() == [[0, 0, 1, 1]]
    assert boxes_from_score_maps(torch.tensor([[[0.7, 0.0]]]), 0.7).tolist() == [[0, 0, 1, 1]]


def test_masks_are_maps_too():
    assert boxes_from_score_maps(torch.tensor([[[False, True, True]]]), 0.5).tolist() == [[1, 0, 3, 1]]


def test_no_maps_no_boxes():
    assert boxes_from_score_maps(torch.zeros(0, 4, 4), 0.5).shape == (0, 4)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_zero_to_one_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold in"):
        boxes_from_score_maps(torch.zeros(1, 2, 2), threshold)


@pytest.mark.parametrize("bad", [-0.1, 1.1, torch.nan, torch.inf])
def test_scores_outside_zero_to_one_are_refused(bad):
    maps = torch.zeros(3, 2, 2)
    maps[1, 0, 1] = bad
    with pytest.raises(ValueError, match=r"score map 1 .* outside \[0, 1\]"):
        boxes_from_score_maps(maps, 0.5)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 4, 4), (2, 0, 4)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected score maps of shape"):
        boxes_from_score_maps(torch.zeros(shape), 0.5)


@pytest.mark.parametrize("here", [7, 13, 26, 45, 49, 51, 52, 299])
def test_a_box_that_ends_with_its_frame_ends_with_the_next(here):
    """13 cells of 448 / 13 pixels are 448.00003 pixels in float32."""
    there = torch.arange(1, 600)
    sizes = torch.stack([there, there.flip(0)], dim=1)
    whole = torch.tensor([[0.0, 0, here, here]]).expand(len(there), 4)
    assert torch.equal(scale_boxes(whole, (here, here), sizes)[:, 2:], sizes.float())
    assert torch.equal(scale_boxes(torch.cat([0 * sizes, sizes], 1).float(), sizes, (here, here)), whole)


def test_a_scaled_box_is_cut_at_the_new_border_and_keeps_its_type():
    boxes = torch.tensor([[-1.0, 2, 3, 9], [1, 1, 2, 2]], dtype=torch.float64)
    scaled = scale_boxes(boxes, torch.tensor([4, 8]), torch.tensor([[8, 4], [12, 4]]))
    assert scaled.tolist() == [[0, 1, 6, 4], [3, 0.5, 6, 1]] and scaled.dtype == torch.float64
    assert scale_boxes(torch.zeros(0, 4), (4, 4), (8, 8)).shape == (0, 4)


corners = st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=4).map(
    lambda rows: torch.tensor([[x, y, x + w + 1, y + h + 1] for x, y, w, h in rows], dtype=torch.float32)
)


@settings(deadline=None)
@given(corners, corners)
def test_iou_is_torchvisions(a, b):
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b))


@pytest.mark.parametrize("shape", [(2, 3), (4,), (1, 2, 4), (0,)])
def test_overlap_of_what_are_no_boxes_is_refused(shape):
    one = torch.tensor([[0.0, 0, 1, 1]])
    for pair in ((torch.zeros(shape), one), (one, torch.zeros(shape))):
        with pytest.raises(ValueError, match=r"expected boxes of shape \(N, 4\), found"):
            box_iou(*pair)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_overlap_of_boxes_without_finite_edges_is_refused(bad):
    with pytest.raises(ValueError, match=r"expected boxes with finite edges, found \[0.0, 0.0, 1.0, .*\] in row 1"):
        box_iou(torch.zeros(1, 4), torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, bad]]))


def test_no_boxes_have_no_overlap():
    assert box_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert localized(torch.zeros(0, 4), []).shape == (0,) and localized(torch.zeros(0, 4), []).dtype == torch.bool
    assert localized(torch.zeros(2, 4), [torch.zeros(0, 4)] * 2).tolist() == [False, False]


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [
        (torch.zeros(2, 4), [torch.zeros(1, 4)]),
        (torch.zeros(1, 4), [torch.zeros(1, 4)] * 2),
        (torch.zeros(1, 3), [torch.zeros(1, 4)]),
        (torch.zeros(4), [torch.zeros(1, 4)] * 4),
        (torch.zeros(1, 4), [torch.zeros(2, 3)]),
        (torch.zeros(1, 4), [torch.zeros(4)]),
    ],
)
def test_predictions_and_truths_that_do_not_belong_together_are_refused(predicted, truth):
    with pytest.raises(
        ValueError, match=r"expected predicted boxes \(N, 4\) and as many tensors \(k, 4\) of true ones"
    ):
        localized(predicted, truth)


def test_a_box_without_area_overlaps_nothing_not_even_itself():
    point = torch.tensor([[1.0, 1, 1, 1]])
    assert box_iou(point, point).tolist() == [[0.0]]
    assert box_iou(torch.tensor([[3.0, 3, 1, 1]]), torch.tensor([[0.0, 0, 4, 4]])).tolist() == [[0.0]]
