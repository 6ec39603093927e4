"""DDT: the streaming PCA, its sign, boxes from indicator maps, and a whole data set with classes that go wrong."""

import math
import pickle
import re
from concurrent.futures import ProcessPoolExecutor

import killed
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from wsol_lib import localizers
from wsol_lib.boxes import boxes_from_score_maps
from wsol_lib.data import LocalizationDataset, Subset
from wsol_lib.ddt import DDT, boxes, feature_batches, pseudo_boxes
from wsol_lib.models import Backbone
from wsol_lib.pseudo_boxes import are_good


def features(n=12, channels=6, side=5, seed=0, dtype=torch.float64):
    """Correlated channels whose variances differ, as a network's."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64) * 0.6 ** torch.arange(channels)
    white = torch.randn(n, channels, side, side, generator=generator, dtype=torch.float64)
    return (torch.einsum("kc,nchw->nkhw", mix, white) + 2).to(dtype)


def rows(x):
    return x.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def assert_same(a, b):
    torch.testing.assert_close(a.mean_, b.mean_)
    torch.testing.assert_close(a.covariance_, b.covariance_)
    torch.testing.assert_close(a.components_, b.components_)
    assert a.n_positions == b.n_positions


# -- PCA --


def test_it_is_sklearns_pca():
    x = features()
    ddt, pca = DDT(n_components=3), PCA(3, svd_solver="full").fit(rows(x))
    for batch in x.split(5):
        ddt.partial_fit(batch)
    assert np.allclose(ddt.mean_, pca.mean_) and np.allclose(ddt.covariance_, np.cov(rows(x).T))
    assert np.allclose(ddt.explained_variance_ratio_, pca.explained_variance_ratio_)
    assert torch.equal(ddt.component_, ddt.components_[0])
    for i in range(3):
        sign = np.sign(ddt.components_[i].numpy() @ pca.components_[i])
        assert np.allclose(ddt.components_[i], sign * pca.components_[i])
        expected = sign * pca.transform(rows(x))[:, i].reshape(12, 5, 5)
        assert np.allclose(ddt.transform(x, i), expected)


def test_it_is_sklearns_pca_with_fewer_positions_than_channels_too():
    x = features(n=2, channels=64, side=3)
    ddt, pca = DDT(n_components=17).partial_fit(x[:1]).partial_fit(x[1:]), PCA(17, svd_solver="full").fit(rows(x))
    assert np.allclose(ddt.explained_variance_ratio_, pca.explained_variance_ratio_)
    sign = np.sign((ddt.components_.numpy() * pca.components_).sum(1, keepdims=True))
    assert np.allclose(ddt.components_, sign * pca.components_)
    assert np.allclose(ddt.transform(x), sign[0] * pca.transform(rows(x))[:, 0].reshape(2, 3, 3))


def test_batches_in_any_order_and_merged_halves_are_one_pass():
    x = features()
    whole = DDT().partial_fit(x)
    shuffled = DDT()
    for i in torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist():
        assert shuffled.partial_fit(x[i : i + 1]) is shuffled
    assert_same(shuffled, whole)
    half, other = DDT().partial_fit(x[:3]), DDT().partial_fit(x[3:])
    before = other.covariance_.clone()
    assert half.merge(other) is half
    assert_same(half, whole)
    assert torch.equal(other.covariance_, before)
    assert_same(DDT().merge(whole).merge(DDT()), whole)


def test_a_merged_copy_lives_its_own_life():
    first = DDT().partial_fit(features())
    copy = DDT().merge(first)
    mean, component = first.mean_.clone(), copy.component_
    copy.partial_fit(features(seed=1) + 5)
    assert torch.equal(first.mean_, mean)
    assert not torch.equal(copy.component_, component)


def test_two_processes_give_the_covariance_of_one():
    x = features()
    with ProcessPoolExecutor(1, killed.processes()) as pool:
        there = pool.submit(DDT().partial_fit, x[:7])
        here = DDT().partial_fit(x[7:])
        assert_same(here.merge(there.result()), DDT().partial_fit(x))


def test_its_file_is_small_and_can_be_continued(tmp_path):
    x = features(n=400)
    (tmp_path / "half.pkl").write_bytes(pickle.dumps(DDT().partial_fit(x[:200])))
    assert (tmp_path / "half.pkl").stat().st_size < 5000
    assert_same(pickle.loads((tmp_path / "half.pkl").read_bytes()).partial_fit(x[200:]), DDT().partial_fit(x))


def test_a_large_mean_costs_no_precision():
    exact = features()
    far = (exact * 2**10).round() / 2**10 + 4096  # float32 holds these exactly
    ddt = DDT()
    for batch in far.float().split(1):
        ddt.partial_fit(batch)
    expected = np.cov(rows(far).T)
    assert np.abs(ddt.covariance_.numpy() - expected).max() < 1e-12 * expected.max()
    maps = ddt.transform(far.float())
    assert maps.dtype == torch.float32
    assert np.allclose(maps, ddt.transform(far), atol=1e-6)


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**-40, 1.0, 2.0**40, 2.0**70])
@pytest.mark.parametrize("mean", [0.0, 2.0, 100.0])
def test_float32_features_give_what_float64_gives_to_a_millionth(scale, mean):
    x = ((features(n=100) - 2 + mean) * scale).float()
    single, double = DDT(), DDT().partial_fit(x.double())
    for batch in x.split(60):  # 1,500 positions, more than are summed at once
        single.partial_fit(batch)
    assert (single.covariance_ - double.covariance_).abs().max() < 1e-6 * double.covariance_.abs().max()
    assert (single.mean_ - double.mean_).abs().max() < 1e-6 * double.covariance_.max().sqrt()
    torch.testing.assert_close(single.component_, double.component_, rtol=0, atol=1e-5)
    torch.testing.assert_close(single.transform(x), double.transform(x), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_maps_are_float32_or_better(dtype):
    x = features(dtype=dtype)
    maps = DDT().partial_fit(x).transform(x)
    assert maps.shape == (12, 5, 5)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_map_is_high_where_the_descriptors_are_long(flip):
    x = flip * features()
    ddt = DDT(n_components=6).partial_fit(x[:5]).partial_fit(x[5:])
    length = x.square().sum(1)
    for i in range(6):
        assert (ddt.transform(x, i) * (length - length.mean())).sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_length_is_measured_from_zero_and_not_from_the_mean(sign, dtype):
    x = sign * torch.tensor([[[[1.0, 2, 4, 5]], [[0.0, 0, 0, 0]]]], dtype=dtype)
    assert DDT().partial_fit(x).transform(x).flatten().tolist() == pytest.approx([-2, -1, 1, 2])


def test_an_object_in_the_middle_is_positive():
    x = torch.rand(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    x[:, :3, 2:5, 1:4] += 5
    x[:, 3:5, 2:5, 1:4] -= 8  # as without a ReLU: the channels add up to less than around it
    maps = DDT().partial_fit(x).transform(x)
    assert boxes(maps, (6, 6), "threshold-first").tolist() == [[1, 2, 4, 5]] * 4


# -- what it refuses --


@pytest.mark.parametrize("number, channels", [(1, 6), (2, 30), (24, 30)])
def test_more_components_than_there_are(number, channels):
    """Of 25 positions an image; 2 images of one position each have one direction, 24 channels at most 24."""
    x = features(n=number, channels=channels, side=5 if number == 1 else 1)
    most = min(channels, x[:, 0].numel() - 1)
    assert DDT(n_components=most).partial_fit(x).components_.shape == (most, channels)
    with pytest.raises(ValueError, match=f"found {most + 1} of {x[:, 0].numel()} positions with {channels} channels"):
        _ = DDT(n_components=most + 1).partial_fit(x).components_


def test_one_position_has_no_direction_until_there_are_more():
    ddt = DDT().partial_fit(features(n=1, side=1))
    with pytest.raises(ValueError, match=r"found 1 of 1 positions with 6 channels: ask for fewer, or give more images"):
        _ = ddt.component_
    assert ddt.partial_fit(features(n=1, side=1, seed=1)).component_.shape == (6,)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e20])
def test_constant_features(value):
    with pytest.raises(ValueError, match="the same everywhere"):
        _ = DDT().partial_fit(torch.full((7, 3, 5, 5), value)).component_


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_leave_what_was_fitted(bad):
    x = features()
    ddt = DDT().partial_fit(x)
    spoiled = features(seed=1)
    spoiled[4, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"NaN or infinity in image 4 of the batch"):
        ddt.partial_fit(spoiled)
    assert_same(ddt, DDT().partial_fit(x))


@pytest.mark.parametrize("value", [1e200, -1e200, 1e120])
def test_features_too_large_to_be_squared_leave_what_was_fitted(value):
    x = features()
    ddt = DDT().partial_fit(x)
    large = features(seed=1).double()
    large[3, 2, 1, 0] = value
    said = re.escape(f"squares float64 can hold, found {abs(value):.0e} in image 3 of the batch")
    with pytest.raises(ValueError, match=said):
        ddt.partial_fit(large)
    assert_same(ddt, DDT().partial_fit(x))


def test_large_features_are_scaled_alike():
    """The squares of their squares are beyond float64, and not needed."""
    x = features().double()
    torch.testing.assert_close(DDT(2).partial_fit(x * 1e90).components_, DDT(2).partial_fit(x).components_)


@pytest.mark.parametrize("component", [-1, 2, 5])
def test_a_component_that_was_not_kept(component):
    with pytest.raises(ValueError, match=rf"expected a component in 0 \.\.\. 1, found {component}: fit a DDT of more"):
        DDT(n_components=2).partial_fit(features()).transform(features(), component=component)


@pytest.mark.parametrize("x", [torch.rand(6, 5, 5), torch.rand(0, 6, 5, 5), torch.ones(2, 6, 5, 5, dtype=torch.uint8)])
def test_what_is_no_feature_map(x):
    with pytest.raises(ValueError, match=r"expected float features \(N, C, h, w\)"):
        DDT().partial_fit(x)


def test_another_number_of_channels():
    ddt, other = DDT().partial_fit(features()), features(channels=5)
    for call in (ddt.partial_fit, ddt.transform):
        with pytest.raises(ValueError, match="6 channels as before, found 5"):
            call(other)
    with pytest.raises(ValueError, match="a DDT of 6 channels, found one of 5"):
        ddt.merge(DDT().partial_fit(other))


def test_nothing_seen_yet():
    for ask in (lambda: DDT().component_, lambda: DDT().covariance_, lambda: DDT().transform(features())):
        with pytest.raises(ValueError, match="call partial_fit first"):
            ask()
    with pytest.raises(ValueError, match="n_components=0"):
        DDT(n_components=0)


# -- boxes --


def test_both_orders_by_hand():
    # enlarged by 4, pixel centres at x = 0.5 ... 11.5; the line from 3 at x = 2 to -1 at x = 6 crosses zero at x = 5
    maps = torch.tensor([[[3.0, -1.0, -1.0]]])
    assert boxes(maps, (4, 12)).tolist() == [[0, 0, 5, 4]]
    assert boxes(maps, (4, 12), "threshold-first").tolist() == [[0, 0, 4, 4]]


def test_cells_of_the_small_map_scale_to_any_size():
    maps = torch.full((1, 3, 3), -1.0)
    maps[0, 1, 1] = 1
    torch.testing.assert_close(boxes(maps, (10, 20), "threshold-first"), torch.tensor([[20, 10, 40, 20]]) / 3)


@pytest.mark.parametrize("side", [224, 299, 448])
@pytest.mark.parametrize("cells", [13, 26, 45, 49, 51, 52])
def test_boxes_of_cells_never_leave_the_image(cells, side):
    """13 cells of 448 / 13 pixels would end at 448.00003."""
    maps = torch.ones(1, cells, cells)
    for order in ("resize-first", "threshold-first"):
        assert boxes(maps, (side, side), order).tolist() == [[0, 0, side, side]]


@pytest.mark.parametrize("order", ["resize-first", "threshold-first"])
def test_only_the_largest_component_and_zero_is_background(order):
    maps = torch.tensor([[[1.0, -1, 0, 0], [-1, -9, -9, 1], [-9, -9, 1, 1]]])
    assert boxes(maps, (3, 4), order).tolist() == [[2, 1, 4, 3]]


@pytest.mark.parametrize("order", ["resize-first", "threshold-first"])
def test_a_map_that_is_nowhere_positive_gets_the_whole_image(order):
    maps = torch.stack([torch.zeros(3, 3), -torch.ones(3, 3), torch.eye(3)])
    assert boxes(maps, (30, 60), order)[:2].tolist() == [[0, 0, 60, 30]] * 2


def test_orders_and_maps_it_does_not_know():
    with pytest.raises(ValueError, match="'resize'"):
        boxes(torch.zeros(1, 2, 2), (4, 4), "resize")
    with pytest.raises(ValueError, match="without NaN"):
        boxes(torch.full((1, 2, 2), math.nan), (4, 4))


# -- a data set --


class Squares(LocalizationDataset):
    """Red squares on blue in class 0, green ones in class 1; then a class of one image, and one of one colour."""

    def __init__(self, sizes=((32, 32),)):
        labels = torch.tensor([0, 1, 0, 1, 2, 3, 3, 0, 1])
        wide = torch.tensor([sizes[i % len(sizes)] for i in range(len(labels))])
        cells = [(1 + i % 2, 2) for i in range(len(labels))]  # a square of two cells of 8 x 8
        boxes = [torch.tensor([[x, y, x + 2, y + 2]]) / 4 * size.repeat(2) for (x, y), size in zip(cells, wide)]
        names = [f"image{i}" for i in range(len(labels))]
        super().__init__("squares", "test", ("red", "green", "lonely", "flat"), labels, boxes, wide, names)

    def _image(self, i):
        width, height = self.image_sizes[i].tolist()
        image = torch.tensor([0, 0, 200], dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        if self.labels[i] != 3:
            x1, y1, x2, y2 = self.boxes[i][0].int().tolist()
            image[:, y1:y2, x1:x2] = torch.tensor([[255, 0, 0], [0, 255, 0], [255, 255, 0]])[
                self.labels[i], :, None, None
            ]
        return image


@pytest.fixture
def backbone():
    """The mean colour of cells of 8 x 8 pixels, and then their negative."""
    trunk = nn.Sequential(nn.AvgPool2d(8), nn.Sequential(nn.Threshold(-99.0, 0.0, inplace=True), Negative()))
    return Backbone(trunk, nn.Identity(), 3, mean=(0.0,) * 3, std=(1.0,) * 3)


class Negative(nn.Module):
    def forward(self, x):
        return x.neg_()  # in place, as many a ReLU


@pytest.mark.parametrize("order", ["threshold-first", "resize-first"])
@pytest.mark.parametrize("sizes", [((32, 32),), ((64, 32), (40, 48))])
def test_good_classes_are_localized_and_the_bad_ones_named(backbone, sizes, order):
    dataset = Squares(sizes)
    found, failures = pseudo_boxes(backbone, dataset, layer="0", input_size=32, batch_size=2, order=order)
    assert set(failures) == {"lonely", "flat"}
    assert "two images or more" in failures["lonely"] and "the same everywhere" in failures["flat"]
    assert found[dataset.labels > 1].tolist() == [[0, 0, 0, 0]] * 3
    expected = torch.cat(dataset.boxes)
    for i in (dataset.labels < 2).nonzero()[:, 0].tolist():
        tolerance = 0.0 if order == "threshold-first" else dataset.image_sizes[i].max() / 8
        torch.testing.assert_close(found[i], expected[i], rtol=1e-5, atol=float(tolerance) + 1e-4)


def test_boxes_that_touch_the_border_can_be_learnt_at_any_size(backbone):
    """26 cells of 448 / 26 pixels would end at 448.00003, and in the image beyond its border."""
    dataset = Subset(Squares(((500, 333), (333, 500))), [0, 2, 1, 3])
    everywhere = nn.Sequential(nn.AdaptiveAvgPool2d(26), Stripes())
    found, _ = pseudo_boxes(Backbone(everywhere, nn.Identity(), 1), dataset, input_size=448, order="threshold-first")
    assert are_good(found, dataset.image_sizes).all() and torch.equal(found[:, 3], dataset.image_sizes[:, 1].float())


class Stripes(nn.Module):
    """One channel that is high in the right half, from top to bottom."""

    def forward(self, x):
        return (torch.arange(x.shape[-1]) >= x.shape[-1] / 2).float().expand(len(x), 1, *x.shape[-2:])


def test_without_classes_no_image_is_alone(backbone):
    dataset = Squares()
    found, failures = pseudo_boxes(
        backbone, dataset, class_wise=False, layer="0", input_size=32, order="threshold-first"
    )
    assert not failures
    torch.testing.assert_close(found[:5], torch.cat(dataset.boxes)[:5])


def test_components_of_one_data_set_boxes_of_another(backbone):
    class OneOfEach(Squares):
        def __init__(self):
            super().__init__()
            self.labels = torch.tensor([0, 1, 3])
            self.boxes, self.image_sizes = self.boxes[:3], self.image_sizes[:3]

    options = {"layer": "0", "input_size": 32, "order": "threshold-first"}
    found, failures = pseudo_boxes(backbone, OneOfEach(), fit_on=Squares(), **options)
    assert set(failures) == {"flat"}
    torch.testing.assert_close(found[:2], torch.cat(OneOfEach().boxes)[:2])


def test_an_image_with_nan_spoils_its_class_only(backbone):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where((x[:, 1] > 0.9).any((1, 2))[:, None, None, None], math.nan, x)  # anything green

    backbone.trunk = nn.Sequential(nn.AvgPool2d(8), Broken())
    found, failures = pseudo_boxes(backbone, Squares(), input_size=32, batch_size=2, order="threshold-first")
    assert "images image1 ... image3: " in failures["green"] and "NaN" in failures["green"]
    torch.testing.assert_close(found[[0, 2, 7]], torch.cat(Squares().boxes)[[0, 2, 7]])


def test_a_class_that_fails_half_way_has_no_boxes(backbone):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(torch.full((len(x), 1, 1, 1), len(x) == 1), math.nan, x)  # the last batch, of one image

    backbone.trunk = nn.Sequential(nn.AvgPool2d(8), Broken())
    fit_on = Subset(Squares(), [0, 2, 1, 3])
    found, failures = pseudo_boxes(
        backbone, Subset(Squares(), [0, 2, 7, 1, 3]), fit_on=fit_on, input_size=32, batch_size=2
    )
    assert list(failures) == ["red"]
    assert found.any(1).tolist() == [False, False, False, True, True]


def test_not_one_good_class_is_an_error(backbone):
    with pytest.raises(ValueError, match="found none: expected two images or more"):
        pseudo_boxes(backbone, Subset(Squares(), [4, 5, 6]), input_size=32)


def test_layers_by_name_even_if_the_next_works_in_place(backbone):
    backbone.train()
    (_, pooled), *_ = feature_batches(backbone, Squares(), [0, 2], layer="0", input_size=32)
    (indices, last), *_ = feature_batches(backbone, Squares(), [0, 2], input_size=32)
    assert indices == [0, 2] and backbone.training
    backbone.trunk[1].eval()  # as what is frozen
    next(iter(feature_batches(backbone, Squares(), [0], input_size=32)))
    assert backbone.training and not backbone.trunk[1].training
    assert pooled.shape == (2, 3, 4, 4) and pooled.max() == 1
    torch.testing.assert_close(pooled, -last)
    with pytest.raises(ValueError, match=r"found 'conv5_3': choose one of 0, 1, or one inside"):
        pseudo_boxes(backbone, Squares(), layer="conv5_3", input_size=32)
    with pytest.raises(ValueError, match="'largest'"):
        pseudo_boxes(backbone, Squares(), order="largest", input_size=32)


# -- by its name --


def fitted(dataset, boxed=None, **hyperparameters):
    options = {"layer": "1", "input_size": 128, "batch_size": 3} | hyperparameters
    return localizers.fit("ddt", dataset, boxed, **options)


@pytest.fixture(scope="module")
def squares():
    return Subset(Squares(((64, 64),)), [0, 1, 2, 3, 4, 7, 8])


def test_without_boxed_images_the_threshold_is_the_zero_of_each_classes_own_component(squares):
    own = fitted(squares)
    backbone = own.network.backbone
    found, failures = pseudo_boxes(backbone, squares, layer="1", input_size=128)
    assert set(failures) == {"lonely"} and own.tau is None
    images = squares.images(range(7))
    boxes_of, scores = own.boxes(images, squares.labels)
    several = squares.labels < 2
    torch.testing.assert_close(boxes_of[several], found[several], atol=1.0, rtol=0)  # maps at 64 and at 128 pixels
    assert own.score_maps(images).shape == (7, 64, 64) and ((scores >= 0) & (scores <= 1)).all()


def test_images_without_a_label_and_lonely_classes_get_the_component_of_all_images(squares):
    own, agnostic = fitted(squares), fitted(squares, class_wise=False)
    images = squares.images(range(7))
    assert torch.equal(own.boxes(images)[0], agnostic.boxes(images)[0])
    assert torch.equal(agnostic.boxes(images)[0], agnostic.boxes(images, squares.labels)[0])
    assert torch.equal(own.boxes(images, squares.labels)[0][4], agnostic.boxes(images)[0][4])  # the lonely one
    assert not torch.equal(own.score_maps(images, squares.labels), agnostic.score_maps(images))
    whole = DDT()
    for _, features in feature_batches(own.network.backbone, squares, layer="1", input_size=128):
        whole.partial_fit(features)
    torch.testing.assert_close(own.network.directions[-1].double(), whole.component_, rtol=0, atol=1e-6)


def test_boxed_images_choose_a_threshold_as_everybodys(squares):
    own = fitted(squares, squares)
    images = squares.images(range(7))
    assert 0 <= own.tau <= 1
    maps = own.score_maps(images, squares.labels)
    assert torch.equal(own.boxes(images, squares.labels)[0], boxes_from_score_maps(maps, own.tau))
    assert fitted(squares, squares, tau=0.4).tau == fitted(squares, tau=0.4).tau == 0.4


def test_the_mirror_image_is_looked_at_too(squares):
    images, own = squares.images(range(3)), fitted(squares, mirror=True)
    boxes_of, mirrored = (own.boxes(one, squares.labels[:3])[0] for one in (images, images.flip(-1)))
    torch.testing.assert_close(mirrored[:, [2, 0]], 64 - boxes_of[:, [0, 2]], atol=1.0, rtol=0)


def test_it_comes_back_from_its_folder(squares, tmp_path):
    own, images = fitted(squares), squares.images(range(7))
    own.save(tmp_path)
    again = localizers.load(tmp_path)
    assert again.tau is None and again.settings == own.settings
    assert torch.equal(again.boxes(images, squares.labels)[0], own.boxes(images, squares.labels)[0])


def test_one_image_has_nothing_in_common_with_others(squares):
    with pytest.raises(ValueError, match="expected two images or more to find what they share, found 1"):
        fitted(Subset(squares, [0]))
