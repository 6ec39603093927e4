"""The metrics: what they count, that batches and processes may be cut anywhere, and what they refuse."""

import os
import warnings
from pathlib import Path

import killed
import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_lib.boxes import boxes_from_score_maps, normalize_score_maps
from wsol_lib.data import load_dataset
from wsol_lib.metrics import BoxAcc, CorLoc, LocalizationAccuracy, MaxBoxAcc, MaxBoxAccV2, PxAP

PROTOCOLS = ("paper", "wsolevaluation")
PIXEL = torch.tensor([[0.0, 0, 1, 1]])
devices = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def some_maps(number, side=12, seed=0):
    """Smooth maps in [0, 1] and one to three boxes each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1, 4, 4, generator=generator)
    maps = normalize_score_maps(torch.nn.functional.interpolate(coarse, size=side, mode="bicubic")[:, 0])
    boxes = []
    for count in (torch.arange(number) % 3 + 1).tolist():
        corners = torch.rand(count, 2, generator=generator) * side / 2
        boxes.append(torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * (side / 2 - 1)], 1))
    return maps, boxes


def fed(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric


# -- MaxBoxAcc -------------------------------------------------------------------------------------------------------


def test_one_tau_serves_the_whole_data_set():
    """Each image has a tau of its own that is right, but no tau is right for both."""
    maps = torch.tensor([[[1.0, 0.5, 0.0]], [[1.0, 0.5, 0.0]]])
    boxes = [torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 2, 1]])]
    assert fed(MaxBoxAcc(0.9), (maps, boxes)).compute() == 0.5


def test_the_curve_is_the_accuracy_of_the_boxes_at_each_tau():
    maps, boxes = some_maps(6)
    thresholds, accuracy = fed(MaxBoxAcc(), (maps, boxes)).curve()
    assert thresholds.tolist() == pytest.approx([i / 1000 for i in range(1001)])
    for i in range(0, 1001, 77):
        found = boxes_from_score_maps(maps, float(thresholds[i]))
        localization = LocalizationAccuracy()
        localization.update(found, torch.zeros(6, 1), boxes, torch.zeros(6, dtype=torch.long))
        assert accuracy[i] == localization.compute()["gt_known_loc"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_result_is_the_highest_point_of_the_curve_at_the_best_tau(protocol):
    metric = fed(MaxBoxAcc(0.3, protocol), some_maps(9))
    thresholds, accuracy = metric.curve()
    assert metric.compute() == accuracy.max() > 0
    assert metric.best_tau() == pytest.approx(float(thresholds[accuracy.argmax()]))
    assert len(thresholds) == len(accuracy) == (1001 if protocol == "paper" else 1000)


def test_the_largest_component_counts_in_v1_and_any_component_in_v2():
    maps = torch.tensor([[[1.0, 1.0, 0.0, 1.0]]])
    small = [torch.tensor([[3.0, 0, 4, 1]])]
    assert fed(MaxBoxAcc(), (maps, small)).compute() == 0
    assert fed(MaxBoxAccV2(), (maps, small)).compute() == 1


@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2, BoxAcc])
def test_any_of_several_true_boxes_is_enough(metric):
    maps = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    elsewhere = torch.tensor([[3.0, 0, 4, 1]])
    assert fed(metric(), (maps, [elsewhere])).compute() == 0
    assert fed(metric(), (maps, [torch.cat([elsewhere, PIXEL])])).compute() == 1


def test_v2_is_the_mean_over_iou_thresholds_each_at_its_own_best_tau():
    metric = fed(MaxBoxAccV2((0.7, 0.3, 0.5)), some_maps(9))
    _, accuracy = metric.curve()
    alone = [fed(MaxBoxAccV2((iou,)), some_maps(9)).curve()[1][0] for iou in (0.7, 0.3, 0.5)]
    assert torch.equal(accuracy, torch.stack(alone))
    assert metric.compute() == pytest.approx(float(accuracy.amax(1).mean()))
    assert metric.best_tau() == pytest.approx([row.argmax().item() / 1000 for row in accuracy])


def test_wsolevaluation_truncates_boxes_and_counts_both_ends():
    """Prediction columns 0 to 1, as its right edge 1 is counted; truth 0.9 to 3.9, as 0 to 3: two of four pixels."""
    maps = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0]] * 2])
    truth = [torch.tensor([[0.9, 0, 3.9, 1.9]])]
    assert fed(MaxBoxAcc(0.5, "wsolevaluation"), (maps, truth)).compute() == 1
    assert fed(MaxBoxAcc(0.51, "wsolevaluation"), (maps, truth)).compute() == 0


def test_wsolevaluation_clips_to_the_last_pixel_of_the_map():
    maps = torch.tensor([[[0.0, 0.0, 1.0]]])
    assert fed(MaxBoxAcc(1.0, "wsolevaluation"), (maps, [torch.tensor([[2.0, 0, 2.5, 0.5]])])).compute() == 1


def test_wsolevaluation_takes_the_origin_for_a_map_of_zeros():
    maps = torch.zeros(1, 3, 3)
    truth = [torch.tensor([[0.0, 0, 0.5, 0.5]])]
    assert fed(MaxBoxAcc(1.0, "wsolevaluation"), (maps, truth)).compute() == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_order_and_cuts_of_batches_do_not_matter(metric, protocol, data):
    maps, boxes = some_maps(8)
    order = data.draw(st.permutations(range(8)))
    cut = data.draw(st.integers(0, 8))
    parts = [part for part in (order[:cut], order[cut:]) if part]
    whole = fed(metric(protocol=protocol), (maps, boxes))
    apart = fed(metric(protocol=protocol), *((maps[part], [boxes[i] for i in part]) for part in parts))
    assert torch.equal(whole.curve()[1], apart.curve()[1])
    assert whole.compute() == apart.compute()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_do_not_change_the_result(protocol):
    threads = torch.get_num_threads()
    curves = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            curves.append(fed(MaxBoxAccV2(protocol=protocol), some_maps(10)).curve()[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*curves)


def test_states_do_not_grow_with_the_number_of_images():
    for metric in (MaxBoxAcc(), MaxBoxAccV2(), BoxAcc()):
        before = {name: state.shape for name, state in metric.metric_state.items()}
        fed(metric, some_maps(3), some_maps(5))
        assert {name: state.shape for name, state in metric.metric_state.items()} == before


@pytest.mark.parametrize("device", devices)
def test_maps_and_metric_may_be_on_any_device(device):
    maps, boxes = some_maps(4)
    expected = fed(MaxBoxAcc(), (maps, boxes)).compute()
    metric = fed(MaxBoxAcc().to(device), (maps.to(device), [own.to(device) for own in boxes]))
    assert metric.hits.device.type == device
    assert metric.compute().cpu() == expected
    masks = maps > 0.6
    on_device = fed(PxAP().to(device), (maps.to(device), masks.to(device)))
    assert on_device.compute().cpu() == fed(PxAP(), (maps, masks)).compute()


# -- The fixed rule --------------------------------------------------------------------------------------------------


def test_box_acc_thresholds_at_a_fifth_of_the_maximum():
    maps = torch.tensor([[[0.5, 0.1, 0.09, 0.0]]])
    assert fed(BoxAcc(iou_threshold=1.0), (maps, [torch.tensor([[0.0, 0, 2, 1]])])).compute() == 1
    assert fed(BoxAcc(tau=0.18, iou_threshold=1.0), (maps, [torch.tensor([[0.0, 0, 3, 1]])])).compute() == 1
    assert CorLoc is BoxAcc


# -- LocalizationAccuracy --------------------------------------------------------------------------------------------


def test_localization_accuracy_counts_box_and_class_alone_and_together():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0.0, 0, 2, 2], [5.0, 5, 6, 6], [0.0, 0, 2, 1]])
    truth = [torch.tensor([[0.0, 0, 2, 2]])] * 4
    logits = torch.eye(7)[[0, 0, 0, 0]] + torch.arange(7, 0, -1) / 10  # classes ranked 0, 1, 2 ... 6
    result = fed(LocalizationAccuracy(), (boxes, logits, truth, torch.tensor([0, 4, 0, 5]))).compute()
    assert {name: float(value) for name, value in result.items()} == {
        "gt_known_loc": 0.75,  # the last has IoU 0.5 exactly
        "top1_loc": 0.25,
        "top5_loc": 0.5,
        "top1_cls": 0.5,
        "top5_cls": 0.75,
    }


def test_of_equal_logits_the_lower_class_ranks_higher():
    truth, logits = [PIXEL], torch.zeros(1, 7)
    for label, expected in ((0, 1), (1, 0)):
        result = fed(LocalizationAccuracy(), (PIXEL, logits, truth, torch.tensor([label]))).compute()
        assert (result["top1_cls"], result["top5_cls"]) == (expected, 1)
    assert fed(LocalizationAccuracy(), (PIXEL, logits, truth, torch.tensor([5]))).compute()["top5_cls"] == 0


def test_a_predicted_box_without_area_is_a_miss():
    result = fed(LocalizationAccuracy(), (torch.zeros(1, 4), torch.zeros(1, 2), [PIXEL], torch.tensor([0]))).compute()
    assert (result["gt_known_loc"], result["top1_loc"], result["top1_cls"]) == (0, 0, 1)


# -- PxAP ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 10, 1000, 10**6]), st.booleans())
def test_pxap_is_sklearns_average_precision_of_scores_rounded_down_to_the_grid(seed, steps, ignoring):
    # here, for the processes below import this file
    from sklearn.metrics import average_precision_score, precision_recall_curve

    rng = np.random.default_rng(seed)
    scores = rng.integers(0, steps, (2, 6, 7), endpoint=True) / steps
    masks, ignore = rng.random((2, 2, 6, 7)) < np.array([0.4, 0.3 * ignoring])[:, None, None, None]
    masks[0, 0, 0], ignore[0, 0, 0] = True, False
    grid = np.arange(1001) / 1000
    rounded = grid[np.searchsorted(grid, scores, side="right") - 1]
    tensors = (torch.from_numpy(scores), torch.from_numpy(masks), torch.from_numpy(ignore) if ignoring else None)
    metric = fed(PxAP(), *(tuple(t if t is None else t[i : i + 1] for t in tensors) for i in range(2)))
    assert float(metric.compute()) == pytest.approx(average_precision_score(masks[~ignore], rounded[~ignore]), abs=1e-7)
    precision, recall, taus = precision_recall_curve(masks[~ignore], rounded[~ignore])
    at = np.searchsorted(grid, taus)
    np.testing.assert_allclose(metric.curve()[1].numpy()[at], precision[:-1], atol=1e-6)
    np.testing.assert_allclose(metric.curve()[2].numpy()[at], recall[:-1], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_next_to_the_grid_fall_on_the_right_side(dtype):
    """Products with 1000 are rounded: the histogram must not be."""
    taus = (torch.arange(1001, dtype=torch.float64) / 1000).to(dtype)
    for scores in (torch.nextafter(taus, taus.new_zeros(())), taus, torch.nextafter(taus, taus.new_ones(()))):
        _, _, recall = fed(PxAP(), (scores.view(1, 7, 143), torch.ones(1, 7, 143, dtype=torch.bool))).curve()
        expected = (scores[None] >= taus[:, None]).double().mean(1)
        torch.testing.assert_close(recall, expected.float())


def test_pxap_needs_foreground():
    metric = fed(PxAP(), (torch.rand(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="PxAP needs foreground"):
        metric.compute()


# -- Several processes -----------------------------------------------------------------------------------------------


def everything(maps, boxes):
    """All metrics fed with a share of the images, as one flat list of numbers."""
    masks, labels = maps.flip(1) > 0.6, (maps[:, 0, 0] > 0.5).long()
    metrics = [MaxBoxAcc(0.2), MaxBoxAccV2(protocol="wsolevaluation"), BoxAcc(0.5, 0.2)]
    for metric in metrics:
        metric.update(maps, boxes)
    metrics += [fed(PxAP(), (maps, masks))]
    localization = fed(LocalizationAccuracy(0.2), (boxes_from_score_maps(maps, 0.3), maps[:, 0, :3], boxes, labels))
    numbers = [metric.compute() for metric in metrics] + list(localization.compute().values())
    return torch.cat([torch.stack(numbers), metrics[0].curve()[1], metrics[3].curve()[1]])


def one_of_two(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    maps, boxes = some_maps(16)
    share = slice(0, 11) if rank == 0 else slice(11, 16)
    torch.save(everything(maps[share], boxes[share]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_result_of_one(tmp_path):
    both = [killed.start(one_of_two, rank, tmp_path) for rank in range(2)]
    assert [killed.ended(process) for process in both] == [0, 0]
    expected = everything(*some_maps(16))
    assert (expected[:8] > 0).all()
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), expected)


# -- Bad input -------------------------------------------------------------------------------------------------------


def boxes_of(*second):
    """True boxes of two images of 4 x 3 pixels, the second as given."""
    return [PIXEL, torch.tensor(second).view(-1, 4)]


BAD_BOXES = {
    "without boxes": ((), r"\(k, 4\) with k >= 1"),
    "no width": ((1.0, 1, 1, 2), "no area"),
    "turned round": ((2.0, 1, 1, 2), "no area"),
    "no height": ((1.0, 2, 2, 2), "no area"),
    "NaN": ((1.0, 1, float("nan"), 2), "NaN"),
    "left of the map": ((-0.5, 0, 1, 1), "not inside the map of 4 x 3"),
    "above the map": ((0.0, -0.5, 1, 1), "not inside the map"),
    "right of the map": ((0.0, 0, 4.5, 1), "not inside the map"),
    "below the map": ((0.0, 0, 1, 3.5), "not inside the map"),
}


@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2, BoxAcc])
@pytest.mark.parametrize("case", BAD_BOXES)
def test_bad_true_boxes_are_refused_and_nothing_is_counted(metric, case):
    second, rule = BAD_BOXES[case]
    metric = metric()
    with pytest.raises(ValueError, match=f"image 1 of the batch.*{rule}"):
        metric.update(torch.rand(2, 3, 4), boxes_of(*second))
    assert metric.total == 0


def test_a_box_may_end_where_the_map_ends_but_for_rounding():
    fed(MaxBoxAcc(), (torch.rand(2, 3, 4), boxes_of(0.0, 0, 4.00001, 3)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -0.001, 1.001])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bad_scores_are_refused_and_nothing_is_counted(protocol, bad):
    maps = torch.rand(2, 3, 4)
    maps[1, 2, 3] = bad
    masks = maps > 0.5
    for metric in (MaxBoxAcc(protocol=protocol), MaxBoxAccV2(protocol=protocol), BoxAcc(), PxAP()):
        with pytest.raises(ValueError, match=r"score map 1 of the batch .* outside \[0, 1\]"):
            metric.update(maps, masks if isinstance(metric, PxAP) else [PIXEL] * 2)
        assert all(not state.any() for state in metric.metric_state.values())


def test_wrong_shapes_are_refused():
    for metric in (MaxBoxAcc(), BoxAcc()):
        with pytest.raises(ValueError, match="score maps of shape"):
            metric.update(torch.rand(3, 4), [PIXEL])
        with pytest.raises(ValueError, match="true boxes of 2 images, found 1"):
            metric.update(torch.rand(2, 3, 4), [PIXEL])
        with pytest.raises(ValueError, match="image 0 of the batch"):
            metric.update(torch.rand(1, 3, 4), [PIXEL[0]])
    with pytest.raises(ValueError, match="masks bool"):
        PxAP().update(torch.rand(1, 3, 4), torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="ignore bool"):
        PxAP().update(torch.rand(1, 3, 4), torch.rand(1, 3, 4) > 0.5, torch.rand(3, 4) > 0.5)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"boxes": torch.zeros(2, 5)}, r"predicted boxes of shape \(N, 4\)"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [0, 0, torch.nan, 1]])}, "image 1 .* NaN"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [5, 5, 2, 2]])}, "image 1 .* not xyxy"),
        ({"logits": torch.zeros(1, 3)}, "logits"),
        ({"logits": torch.tensor([[0.0, 0], [0, torch.nan]])}, "image 1 .* logits have NaN"),
        ({"labels": torch.tensor([0, 3])}, r"image 1 .* not in 0 \.\.\. 2"),
        ({"target_boxes": [PIXEL, torch.zeros(0, 4)]}, "image 1 .* k >= 1"),
    ],
)
def test_bad_predictions_are_refused(change, rule):
    good = {"boxes": PIXEL.repeat(2, 1), "logits": torch.zeros(2, 3), "target_boxes": [PIXEL] * 2}
    metric = LocalizationAccuracy()
    with pytest.raises(ValueError, match=rule):
        metric.update(**{**good, "labels": torch.tensor([0, 1]), **change})
    assert metric.total == 0


@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2, BoxAcc, LocalizationAccuracy, PxAP])
def test_a_batch_without_images_changes_nothing(metric):
    """As the last one of a process that has fewer images than the others."""
    maps, boxes = some_maps(6)
    rest = {LocalizationAccuracy: (torch.zeros(6, 3), boxes, torch.zeros(6, dtype=torch.long)), PxAP: (maps > 0.3,)}
    first = boxes_from_score_maps(maps, 0.5) if metric is LocalizationAccuracy else maps
    batch = (first, *rest.get(metric, (boxes,)))
    empty = tuple(part[:0] for part in batch)
    alone, mixed = fed(metric(), batch), fed(metric(), empty, batch, empty)
    assert str(mixed.compute()) == str(alone.compute()) and mixed.total == 6


@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2, BoxAcc, LocalizationAccuracy, PxAP])
def test_compute_before_update_is_refused(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns, too
        with pytest.raises(ValueError, match="has seen no image"):
            metric().compute()
    if hasattr(metric, "curve"):
        with pytest.raises(ValueError, match="has seen no image"):
            metric().curve()


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="protocol"):
        MaxBoxAcc(protocol="Paper")
    for iou_threshold in (0, 1.5, 50):
        for metric in (MaxBoxAcc, BoxAcc, LocalizationAccuracy):
            with pytest.raises(ValueError, match="IoU thresholds in"):
                metric(iou_threshold=iou_threshold)
    with pytest.raises(ValueError, match="IoU thresholds in"):
        MaxBoxAccV2(())
    with pytest.raises(ValueError, match="tau in"):
        BoxAcc(tau=20)


# -- Published numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "v1", "v2"), [("cub", 59.6, 56.8), ("imagenet", 54.1, 53.4)])
def test_centre_gaussian_rows(name, v1, v2):
    """A map that knows nothing, against annotations alone: the paper's floor for every method (Table 2).

    It prints 59.7 for CUB and 52.5 for 10,000 of ImageNet's 50,000 images. One blob without holes has one component at
    every tau, so the curve of MaxBoxAcc is the row of MaxBoxAccV2 at IoU 0.5.
    """
    root = os.environ.get("WSOL_DATA")
    if not root or not (Path(root) / "wsolevaluation" / "metadata").is_dir():
        pytest.skip("needs the public annotations: WSOL_DATA with wsolevaluation/metadata")
    dataset = load_dataset(name, "test", root=root)
    side = 224
    profile = torch.exp(-(torch.linspace(-1, 1, side, dtype=torch.float64) ** 2) / 2)
    gaussian = normalize_score_maps((profile[:, None] * profile)[None])
    metric = MaxBoxAccV2(protocol="wsolevaluation")
    for start in range(0, len(dataset), 500):
        images = range(start, min(start + 500, len(dataset)))
        boxes = [dataset.boxes[i].double() * side / dataset.image_sizes[i].repeat(2) for i in images]
        metric.update(gaussian.expand(len(boxes), -1, -1), boxes)
    assert round(100 * float(metric.compute()), 1) == v2
    assert round(100 * float(metric.curve()[1][1].max()), 1) == v1
