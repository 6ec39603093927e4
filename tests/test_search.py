"""The search: what is drawn, what each split is for, which trainings count, and a search that can be left and taken up."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn
from torchvision.io import write_png

from wsol_lib import localizers, models, search
from wsol_lib.__main__ import main
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM
from wsol_lib.data import load_dataset
from wsol_lib.data.openimages import OpenImages
from wsol_lib.localizer import Localizer, Predictions
from wsol_lib.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP
from wsol_lib.models import Backbone, GapLinear
from wsol_lib.search import Settings, random_search, trial

OPTIONS = {"image_size": 32, "n_images": 8, "species_per_family": 1, "train-weaksup.n_images": 16}
SEARCHED = [name for name in localizers.NAMES if name not in ("centre", "ddt")]


class Dots(Localizer):
    """One convolution is the trunk: a localizer of somebody's own, trained in no time."""

    def create_backbone(self, *args, **options):
        return Backbone(nn.Conv2d(3, 4, 2, stride=2), GapLinear(4, len(self.class_names)), 4, input_size=32)

    @classmethod
    def drawn(cls, settings):
        return {"learning_rate": (1e-5, 1.0, "log")}


class Oracle(Dots):
    """Its map is where the image is bright."""

    def look(self, images, classes):
        maps = normalize_score_maps(images[:, 0].float())
        return Predictions(torch.zeros(len(images), 4), torch.ones(len(images)), maps)


class Boxes(Dots):
    """It makes no maps: all it says of an image is its left half."""

    makes_maps = False

    def look(self, images, classes):
        height, width = images.shape[-2:]
        boxes = torch.tensor([[0.0, 0, width / 2, height]]).repeat(len(images), 1)
        return Predictions(boxes, torch.ones(len(images)))


class Unsearched(Dots):
    """Its range has no end, and nobody says what is drawn for it."""

    @classmethod
    def hyperparameters(cls):
        return {"weight": 1.0}

    @classmethod
    def drawn(cls, settings):
        return {"weight": (0.0, math.inf)}


def settings(method="test_search:Dots", **changes):
    given = {"options": OPTIONS, "epochs": 1, "batch_size": 8, "input_size": 32, "pretrained": False} | changes
    return Settings(method, given.pop("backbone", "efficientnet_lite0"), given.pop("dataset", "synthbirds"), **given)


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "cam.journal"


@pytest.fixture
def instant(monkeypatch):
    """Trials without training: the loss is 100 times the learning rate, the score 1 minus it. Gives the values they had."""
    ran = []

    def run_trial(settings, values, sets, *rest):
        ran.append(values)
        rate = values["learning_rate"]
        return {"score": 1 - rate, "epoch": 1, "loss": 100 * rate, "seconds": 0.0}, None

    monkeypatch.setattr(random_search, "run_trial", run_trial)
    return ran


@pytest.fixture
def opened(monkeypatch):
    """The splits that are opened."""
    splits = []

    def load(name, split, *args, **options):
        splits.append(split)
        return load_dataset(name, split, *args, **options)

    monkeypatch.setattr(trial, "load_dataset", load)
    return splits


def test_every_name_of_the_search_is_behind_its_door():
    assert all(getattr(search, name).__name__ == name for name in search.__all__ if name.islower())
    assert {"Settings", "search", "results", "look_at_test", "Study"} <= set(search.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'protocol'"):
        search.protocol  # noqa: B018


def test_a_study_alone_needs_no_torch():
    code = "import sys, wsol_lib.search.study; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_the_learning_rate_is_log_uniform_and_hyperparameters_have_their_feasible_ranges():
    cam = search.search_space(settings("cam"))
    assert cam["learning_rate"] == FloatDistribution(1e-5, 1.0, log=True)
    adl = search.search_space(settings("adl"))
    assert adl["drop_rate"] == adl["threshold"] == FloatDistribution(0.0, 1.0)


@pytest.mark.parametrize("backbone", ["resnet50", "inception_v3", "vgg_gap", "efficientnet_lite0"])
def test_the_resolution_of_maps_is_drawn_from_that_of_the_paper(backbone):
    """28 or 14 cells at 224 pixels, where the backbone can have both; boxes of a regressor have no resolution."""
    drawn = search.search_space(settings("cam", backbone=backbone))
    assert drawn["output_stride"] == CategoricalDistribution([16, 8])
    assert {point["output_stride"] for point in search.draw_points(settings("cam", backbone=backbone), 9)} == {8, 16}
    assert "output_stride" not in search.search_space(settings("cam", backbone="densenet161"))
    assert "output_stride" not in search.search_space(settings("psol", backbone=backbone))


def test_where_a_surgery_leaves_one_resolution_none_is_drawn():
    drawn = {
        name: search.search_space(settings("wsol_lib.slt:SLTMaps", backbone=name))
        for name in ("inception_v3", "resnet50")
    }
    assert "output_stride" not in drawn["inception_v3"] and "output_stride" in drawn["resnet50"]


def test_the_resolution_that_is_drawn_is_that_of_the_maps(storage):
    stride = settings("cam", fixed={"output_stride": 8})
    sets = search.load_sets(stride)
    localizer = search.create_localizer(stride, {"output_stride": 8}, sets.training)
    assert localizer.network.backbone.features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (4, 4)


def test_without_a_search_the_recipes_of_the_evaluation_paper_have_14_cells_where_the_backbone_can():
    def stride(backbone, dataset, **fixed):
        return settings("cam", backbone=backbone, dataset=dataset, fixed=fixed).of_localizer()["output_stride"]

    assert [stride(name, "cub") for name in ("resnet50", "inception_v3", "vgg_gap")] == [16, 16, 16]
    assert stride("densenet161", "imagenet") is None  # its own
    assert stride("resnet50", "synthbirds") is None
    assert stride("resnet50", "cub", output_stride=32) == 32


def test_what_has_no_end_is_drawn_from_two_decades_to_either_side_of_the_paper():
    assert search.search_space(settings("slt"))["beta"] == FloatDistribution(0.1, 1000.0, log=True)
    assert search.search_space(settings("lchp-i"))["alpha"] == FloatDistribution(0.2, 2000.0, log=True)
    with pytest.raises(ValueError, match=r"expected a range of weight with two ends, found 0.0 to inf"):
        search.search_space(settings("test_search:Unsearched"))


def test_a_hidden_patch_is_a_whole_number_of_pixels_and_not_larger_than_the_input():
    assert search.search_space(settings("has"))["grid_size"] == IntDistribution(1, 32)
    assert search.search_space(settings("has", input_size=448))["grid_size"] == IntDistribution(1, 224)


def test_points_go_by_the_seed_and_the_first_of_more_are_the_same():
    ten, three, other = (search.draw_points(settings(seed=seed), n) for seed, n in ((0, 10), (0, 3), (1, 3)))
    assert ten[:3] == three != other
    assert len({point["learning_rate"] for point in ten}) == 10


@pytest.mark.parametrize("method", SEARCHED)
def test_every_method_takes_what_is_drawn_for_it(method):
    """The ranges that the localizer itself checks, without building it."""
    chosen = settings(method)
    for point in search.draw_points(chosen, 20):
        values = search.hyperparameters(chosen, point)
        assert chosen.of_localizer(**values).items() >= values.items()


def test_the_size_prior_of_cutmix_is_one_over_u_minus_one_half():
    for drawn, prior in ((0.0, 0.0), (1.0, 0.5), (1.5, 1.5), (math.nextafter(2, 0), 2.0**52 - 0.5)):
        values = search.hyperparameters(settings("cutmix"), {"size_prior": drawn, "mix_rate": 0.25})
        assert values == {"size_prior": prior, "mix_rate": 0.25}
    assert search.search_space(settings("cutmix"))["size_prior"] == FloatDistribution(0.0, 2.0)
    fixed = settings("cutmix", fixed={"size_prior": 2.0})
    assert search.hyperparameters(fixed, {"mix_rate": 0.25}) == {"size_prior": 2.0, "mix_rate": 0.25}


def test_of_a_pair_of_thresholds_the_smaller_is_the_low_one():
    point = {"learning_rate": 0.1, "low_b1": 0.9, "low_c": 0.2, "high_b1": 0.3, "high_c": 0.4}
    values = search.hyperparameters(settings("spg"), point)
    assert values == {"learning_rate": 0.1, "low_b1": 0.3, "high_b1": 0.9, "low_c": 0.2, "high_c": 0.4}


@pytest.mark.parametrize("drawn, found", [(0.7, 0.7), (0.2, 0.5)])
def test_beside_a_fixed_threshold_the_other_one_of_the_pair_stays_on_its_side(drawn, found):
    values = search.hyperparameters(settings("spg", fixed={"low_c": 0.5}), {"high_c": drawn})
    assert values == {"low_c": 0.5, "high_c": found}


def test_what_is_fixed_is_not_drawn():
    acol = settings("acol", fixed={"learning_rate": 0.5, "channels": 8, "output_stride": 32})
    assert set(search.search_space(acol)) == {"threshold"}
    values = search.hyperparameters(acol, {"threshold": 0.5})
    assert values == {"learning_rate": 0.5, "channels": 8, "output_stride": 32, "threshold": 0.5}
    assert search.create_localizer(acol, values, search.load_sets(acol).training).network.branch_b[0].out_channels == 8


# -- what is trained on, what is scored on -----------------------------------------------------------------------------


def test_trained_on_weaksup_and_scored_on_fullsup_whose_boxes_choose(opened):
    sets = search.load_sets(settings())
    assert (sets.training.split, len(sets.training), sets.scored.split) == ("train-weaksup", 16, "train-fullsup")
    assert sets.boxed is sets.scored and len(sets.scored) == 8
    assert set(opened) == {"train-weaksup", "train-fullsup"}


def test_a_proxy_has_its_share_of_every_class_and_the_last_training_everything():
    half = settings(proxy=0.5)
    assert search.load_sets(half).training.images_per_class.tolist() == [2, 2, 2, 2]
    assert search.load_sets(settings(proxy=0.01)).training.images_per_class.tolist() == [1, 1, 1, 1]
    assert search.load_sets(half).training.image_ids == search.load_sets(half).training.image_ids
    assert search.load_sets(half).training.image_ids != search.load_sets(replace(half, seed=1)).training.image_ids
    assert len(search.load_sets(half, final=True).training) == 16


def test_a_share_is_rounded_down_and_not_by_the_computer():
    birds = load_dataset("synthbirds", "test", image_size=32, n_images=100, n_families=1, species_per_family=1)
    assert len(search.share_per_class(birds, 0.29)) == 29  # 0.29 * 100 is 28.999999999999996


class Learner(Dots):
    """It learns from boxes."""

    supervision = "boxes"


@pytest.mark.parametrize("method", ["few-shot", "test_search:Learner"])
def test_what_learns_boxes_has_four_fifths_of_fullsup_and_is_scored_on_the_rest(method):
    few = settings(method, options={**OPTIONS, "train-fullsup.n_images": 20})
    sets = search.load_sets(few)
    assert sets.boxed.images_per_class.tolist() == [4, 4, 4, 4]
    assert sets.scored.images_per_class.tolist() == [1, 1, 1, 1]
    assert not set(sets.boxed.image_ids) & set(sets.scored.image_ids)
    assert len(sets.training) == 16  # how many images it may see, in its own
    final = search.load_sets(few, final=True)
    assert [len(own) for own in final] == [16, 20, 20]


def test_one_image_a_class_leaves_the_few_shot_baseline_nothing_to_choose_on():
    with pytest.raises(ValueError, match="expected two images or more"):
        search.load_sets(settings("few-shot", options={**OPTIONS, "train-fullsup.limit_per_class": 1}))


@pytest.fixture
def only_masks(monkeypatch):
    """SynthBirds without boxes, as OpenImages is."""

    def load(name, split, *args, **options):
        birds = load_dataset(name, split, *args, **options)
        birds.boxes = [torch.zeros(0, 4)] * len(birds)
        return birds

    monkeypatch.setattr(trial, "load_dataset", load)


def test_masks_alone_choose_no_threshold_and_cannot_score_boxes(only_masks):
    assert OpenImages.boxed_splits == ()
    assert search.load_sets(settings()).boxed is None
    assert search.load_sets(settings("few-shot")).boxed is not None
    with pytest.raises(ValueError, match="expected boxes in synthbirds train-fullsup, found none: masks cannot score"):
        search.load_sets(settings("test_search:Boxes"))


@pytest.mark.parametrize("method", ["test_search:Dots", "few-shot"])
@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_a_trial_on_masks(only_masks, method, checkpoint):
    chosen = settings(method, checkpoint=checkpoint)
    outcome, _ = search.run_trial(chosen, {"learning_rate": 0.1}, search.load_sets(chosen))
    assert 0 < outcome["score"] < 1


# -- one trial ---------------------------------------------------------------------------------------------------------


def unfitted(method):
    return search.create_localizer(settings(method), {}, search.load_sets(settings()).training)


@pytest.fixture
def bright_birds():
    """Images that are white on the bird and black elsewhere."""
    birds = load_dataset("synthbirds", "train-fullsup", image_size=32, n_images=8, species_per_family=1)
    birds._images = (birds._content > 0)[:, None].expand(-1, 3, -1, -1) * torch.tensor(255, dtype=torch.uint8)
    return birds


def test_the_score_is_that_of_the_metric_and_of_masks_where_there_are_no_boxes(bright_birds):
    oracle = unfitted("test_search:Oracle")
    maps = torch.stack([sample.mask for sample in bright_birds]).float()
    for name, metric in (("MaxBoxAcc", MaxBoxAcc()), ("MaxBoxAccV2", MaxBoxAccV2())):
        metric.update(maps, bright_birds.boxes)
        assert search.score(oracle, bright_birds, name) == metric.compute() > 0.9
    bright_birds.boxes = [torch.zeros(0, 4)] * 8
    assert search.score(oracle, bright_birds) == pytest.approx(1.0)
    bright_birds._content = 1 - bright_birds._content.clamp(max=1)  # what is bright is not the bird
    pixels = PxAP()
    pixels.update(maps, maps == 0)
    assert search.score(oracle, bright_birds) == pytest.approx(float(pixels.compute()))


def test_without_maps_the_score_is_that_of_the_boxes_at_the_thresholds_of_the_metric():
    birds = load_dataset("synthbirds", "train-fullsup", image_size=32, n_images=4, species_per_family=1)
    wide = (32.0, 24.0, 16.0, 8.0)  # of boxes with the height of the image: IoU 1/2, 2/3, 1, 1/2 with its left half
    birds.boxes = [torch.tensor([[0.0, 0, width, 32]]) for width in wide]
    boxes = unfitted("test_search:Boxes")
    assert search.score(boxes, birds, "MaxBoxAcc") == 1.0
    assert search.score(boxes, birds, "MaxBoxAccV2") == pytest.approx((1 + 1 + 1 / 4) / 3)


def test_the_example_of_a_localizer_of_your_own_can_be_searched(storage, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    mine = settings("my_localizer:MyLocalizer", fixed={"output_stride": 32})
    (row,) = search.search(mine, storage, trials=1).to_dict("records")
    assert 0 <= row["prior"] <= 1 and 0 <= row["score"] <= 1 and row["learning_rate"] > 0


@pytest.mark.parametrize("method", SEARCHED)
def test_one_trial_of_everything_that_can_be_searched(method, storage):
    lean = {"acol": "channels", "spg": "channels", "lchp-i": "attention_maps", "lchp-r": "attention_maps"}
    fixed = {lean[method]: 4} if method in lean else {}
    options = {**OPTIONS, "train-weaksup.n_images": 8, "species_per_family": 1}
    with tiny.registered():
        one = settings(method, backbone="tiny", fixed=fixed, options=options)
        (row,) = search.search(one, storage, trials=1).to_dict("records")
        assert 0 <= row["score"] <= 1 and row["epoch"] >= 1 and row["loss"] > 0
        assert set(search.search_space(one)) <= set(row)


class Blinking(Dots):
    """A network whose weight is the number of the epoch; what it learns is nothing."""

    def learn(self, dataset, boxed, stage):
        for epoch in (1, 2, 3):
            nn.init.constant_(self.network.backbone.head.bias, epoch)
            self.history.append({"epoch": epoch, "loss": 1.5})
            if self.after_epoch is not None:
                self.after_epoch(epoch)

    def choose(self, boxed):
        self.tau = self.network.backbone.head.bias[0].item() / 10


@pytest.mark.parametrize("checkpoint, score, epoch", [("last", 0.4, 3), ("best", 0.6, 2)])
def test_the_last_checkpoint_counts_or_the_best_with_its_threshold(checkpoint, score, epoch, monkeypatch):
    scores = {1: 0.3, 2: 0.6, 3: 0.4}
    monkeypatch.setattr(trial, "score", lambda fitted, *_: scores[int(fitted.network.backbone.head.bias[0])])
    chosen = settings("test_search:Blinking", epochs=3, checkpoint=checkpoint)
    outcome, fitted = search.run_trial(chosen, {"learning_rate": 0.1}, search.load_sets(chosen))
    assert (outcome["score"], outcome["epoch"], outcome["loss"]) == (score, epoch, 1.5)
    assert fitted.network.backbone.head.bias[0] == epoch and fitted.tau == epoch / 10


@pytest.mark.parametrize("rate", [0.1, 1e20], ids=["trained", "exploded"])
def test_the_seconds_of_a_trial_are_those_that_went_by(monkeypatch, rate):
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=iter([100.0, 103.5]).__next__))
    outcome, _ = search.run_trial(settings(), {"learning_rate": rate}, search.load_sets(settings()))
    assert outcome["seconds"] == 3.5


def test_all_epochs_of_a_training_are_looked_at(monkeypatch):
    looks = []
    monkeypatch.setattr(trial, "score", lambda fitted, *_: looks.append(fitted.network.training) or len(looks) / 10)
    chosen = settings(epochs=2, checkpoint="best")
    outcome, fitted = search.run_trial(chosen, {"learning_rate": 0.1}, search.load_sets(chosen))
    assert looks == [False, False] and outcome["epoch"] == len(fitted.history) == 2
    assert fitted.after_epoch is None


def test_a_training_that_explodes_is_a_trial_that_did_not_converge(storage):
    frame = search.search(settings(fixed={"learning_rate": 1e20}), storage, trials=1)
    assert frame["score"].tolist() == [0.0]
    assert frame["loss"].isna().all() and not frame["converged"].any()
    with pytest.raises(ValueError, match="expected a network that stays finite of trial 0, the best"):
        search.look_at_test(settings(fixed={"learning_rate": 1e20}), storage)


class Taught(Dots):
    """It asks another network first, whose training explodes; its own weights are those that it started with."""

    def learn(self, dataset, boxed, stage):
        localizers.fit("test_search:Dots", dataset, input_size=32, batch_size=8, epochs=1, learning_rate=1e20)


def test_a_teacher_that_explodes_is_one_too(storage):
    frame = search.search(settings("test_search:Taught"), storage, trials=1)
    assert frame["score"].tolist() == [0.0] and not frame["converged"].any()


def test_another_error_of_the_training_is_none(storage, monkeypatch):
    def damaged(*args, **options):
        raise ValueError("expected an image, found a damaged file")

    monkeypatch.setattr(Dots, "learn", damaged)
    with pytest.raises(ValueError, match="damaged file"):
        search.search(settings(), storage, trials=1)
    with pytest.raises(ValueError, match=r"expected a finished trial in .* run the search first"):
        search.look_at_test(settings(), storage)
    with pytest.raises(ValueError, match=r"expected a finished trial in .* run the search first"):
        search.train_best(settings(), storage)


# -- the search --------------------------------------------------------------------------------------------------------


def test_a_search_that_is_taken_up_again_is_that_of_one_run(storage, tmp_path):
    torch.manual_seed(1)
    search.search(settings(), storage, trials=1)
    taken_up = search.search(settings(), storage, trials=3)
    at_once = search.search(settings(), tmp_path / "other.journal", trials=3)
    pd.testing.assert_frame_equal(taken_up.drop(columns="seconds"), at_once.drop(columns="seconds"))
    assert list(at_once) == ["number", "learning_rate", "loss", "converged", "score", "epoch", "seconds"]
    assert at_once["number"].tolist() == [0, 1, 2] and at_once["score"].between(0, 1).all()
    assert at_once["learning_rate"].tolist() == [point["learning_rate"] for point in search.draw_points(settings(), 3)]


def test_a_training_that_was_killed_goes_on(storage, tmp_path, monkeypatch):
    """A trial, and the last training before the look: two steps an epoch, killed in the third of three epochs."""
    loss, steps = CAM.loss, []

    def dies_once(self, *arguments):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return loss(self, *arguments)

    chosen = settings(epochs=3)
    alone = search.search(chosen, tmp_path / "alone.journal", trials=1)
    seen = search.look_at_test(chosen, tmp_path / "alone.journal")
    monkeypatch.setattr(CAM, "loss", dies_once)
    with pytest.raises(KeyboardInterrupt):
        search.search(chosen, storage, trials=1)
    frame = search.search(chosen, storage, trials=1)
    pd.testing.assert_frame_equal(frame.drop(columns="seconds"), alone.drop(columns="seconds"))
    assert len(steps) == 7, "four, the one that was cut off, and two"

    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        search.look_at_test(chosen, storage)
    assert search.look_at_test(chosen, storage) == seen and len(steps) == 7
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "checkpoints that nobody needs"


def test_what_is_finished_is_not_run_again(storage, instant):
    first = search.search(settings(), storage, trials=4)
    assert len(instant) == 4
    pd.testing.assert_frame_equal(search.search(settings(), storage, trials=4), first)
    pd.testing.assert_frame_equal(search.results(storage), first)
    assert len(instant) == 4


def test_the_study_names_all_that_is_not_drawn_the_schedule_among_it(storage, instant):
    search.search(settings(fixed={"schedule": "constant"}), storage, trials=1)
    known = search.read_study(storage).user_attrs["settings"]
    assert known["schedule"] == "constant" and known["weight_decay"] == 5e-4 and known["augment"] == "crop"
    assert "learning_rate" not in known and known["range of learning_rate"] == [1e-5, 1.0, True]
    with pytest.raises(ValueError, match="schedule constant, found schedule one-cycle: repeat these"):
        search.search(settings(), storage, trials=1)
    published = settings("cam", dataset="cub", backbone="resnet50", epochs=None, batch_size=None).facts()
    assert (published["epochs"], published["schedule"], published["step_epochs"]) == (50, "step", 15)


def test_a_study_of_other_resolutions_is_another(storage):
    space = {"output_stride": CategoricalDistribution([16, 8])}
    with search.Study(storage, {}, space) as study:
        study.add(0, {"output_stride": 8}, 0.5)
    with pytest.raises(ValueError, match=r"range of output_stride \[16, 8\], found range of output_stride \[16\]"):
        search.Study(storage, {}, {"output_stride": CategoricalDistribution([16])})


def test_what_trains_nothing_has_always_converged(storage, monkeypatch):
    monkeypatch.setattr(Dots, "learn", lambda *args: None)
    (row,) = search.search(settings(), storage, trials=1).to_dict("records")
    assert row["converged"] and (row["loss"], row["epoch"]) == (0.0, 0)


def test_above_a_loss_of_two_a_training_did_not_converge(storage, instant):
    with search.Study(storage, {}, {}) as study:
        for number, loss in enumerate((1.99, 2.0, 2.01, None)):
            study.add(number, {}, 0.5, values={}, loss=loss, epoch=1, seconds=0.0)
    assert search.results(storage)["converged"].tolist() == [True, True, False, False]


def test_a_trial_of_another_process_is_waited_for(storage, instant, monkeypatch):
    claims = iter([None, 0, None])
    monkeypatch.setattr(search.Study, "claim", lambda self, trials: next(claims))
    slept = []
    monkeypatch.setattr(random_search.time, "sleep", slept.append)
    assert len(search.search(settings(), storage, trials=1)) == 1
    assert slept == [1]


def test_of_several_processes_only_the_first_touches_the_storage(storage, instant, monkeypatch):
    class SecondProcess:
        is_main_process = False

    search.search(settings(), storage, trials=1)
    told = iter([[(1, False)], [(None, True)]])
    monkeypatch.setattr(random_search, "Accelerator", SecondProcess)
    monkeypatch.setattr(random_search, "broadcast_object_list", lambda message: next(told))
    monkeypatch.setattr(random_search, "Study", None)
    assert len(search.search(settings(), storage, trials=2)) == 1
    assert instant[1] == search.hyperparameters(settings(), search.draw_points(settings(), 2)[1])


def test_the_test_split_is_looked_at_once(storage, instant, opened, monkeypatch):
    monkeypatch.setattr(random_search, "score", lambda model, dataset, metric: 0.25)
    frame = search.search(settings(proxy=0.5), storage, trials=3)
    assert "test" not in opened

    looks = search.look_at_test(settings(proxy=0.5), storage)
    best = frame.loc[frame["learning_rate"].idxmin()]
    assert instant[-1] == {"learning_rate": best["learning_rate"]}
    assert looks[0].items() >= {"score": 0.25, "images": 8, "number": int(best["number"]), "trials": 3}.items()
    assert opened.count("test") == 1

    assert search.look_at_test(settings(proxy=0.5), storage) == looks
    assert opened.count("test") == 1 and len(instant) == 4

    assert len(search.look_at_test(settings(proxy=0.5), storage, again=True)) == 2
    assert len(search.look_at_test(settings(proxy=0.5), storage)) == 2
    assert opened.count("test") == 2


def test_the_look_is_at_a_model_of_all_training_images(storage, instant, monkeypatch):
    search.search(settings(proxy=0.5), storage, trials=1)
    seen = []
    monkeypatch.setattr(
        random_search, "run_trial", lambda _, values, sets, *rest: seen.extend(sets) or ({"epoch": 1}, None)
    )
    monkeypatch.setattr(random_search, "score", lambda model, dataset, metric: seen.append(dataset) or 0.5)
    search.look_at_test(settings(proxy=0.5), storage)
    assert [(data.split, len(data)) for data in seen] == [
        ("train-weaksup", 16),
        ("train-fullsup", 8),
        ("train-fullsup", 8),
        ("test", 8),
    ]


def test_the_winner_is_trained_once_more_its_threshold_chosen_and_can_be_saved(storage, tmp_path, opened):
    frame = search.search(settings(), storage, trials=2)
    best = search.train_best(settings(), storage)
    assert best.settings["learning_rate"] == frame.loc[frame["score"].idxmax(), "learning_rate"]
    assert best.tau is not None and "test" not in opened

    (look,) = search.look_at_test(settings(), storage, out=tmp_path / "best")
    kept = localizers.load(tmp_path / "best")
    test = load_dataset("synthbirds", "test", image_size=32, n_images=8, species_per_family=1)
    assert search.score(kept, test) == pytest.approx(look["score"])
    assert kept.tau == best.tau and kept.settings == best.settings
    assert torch.equal(kept.network.backbone.trunk.weight, best.network.backbone.trunk.weight)

    (tmp_path / "best" / "localizer.json").rename(tmp_path / "best" / "notes.txt")
    assert search.look_at_test(settings(), storage) == [look]
    with pytest.raises(ValueError, match="expected a new or empty folder, or one of a localizer"):
        search.look_at_test(settings(), storage, out=tmp_path / "best")
    search.look_at_test(settings(), storage, out=tmp_path / "another")
    assert localizers.load(tmp_path / "another").tau == best.tau and opened.count("test") == 1


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "camm"}, "expected a localizer out of centre, cam, .*, found 'camm'"),
        ({"method": "test_search:settings"}, "expected a class derived from .*Localizer at test_search:settings"),
        ({"method": "centre"}, "expected a method with something to search, found centre, which has nothing: fit it"),
        ({"method": "ddt"}, "expected a method with something to search, found ddt"),
        ({"checkpoint": "first"}, "expected a checkpoint out of last, best, found 'first'"),
        ({"metric": "CorLoc"}, "expected a metric out of MaxBoxAcc, MaxBoxAccV2, found 'CorLoc'"),
        ({"proxy": 0.0}, r"expected proxy.* in \(0, 1\], found 0.0"),
        ({"epochs": 0}, "expected epochs from 1 up, found 0"),
        ({"epochs": -1}, "expected epochs as a whole number from 0 up, found -1"),
        ({"batch_size": 0}, "expected batch_size as a whole number from 1 up, found 0"),
        ({"input_size": 0}, "expected input_size as a whole number from 1 up, found 0"),
        ({"fixed": {"drop_rate": 0.5}}, "expected settings of test_search:Dots out of .*, found drop_rate"),
        ({"fixed": {"epochs": 3, "num_workers": 1}}, "not a setting of the search itself, found epochs, num_workers"),
        ({"fixed": {"learning_rate": "abc"}}, "expected learning_rate as a number, found 'abc'"),
        ({"fixed": {"learning_rate": -0.1}}, "expected learning_rate from 0 up, found -0.1"),
        ({"fixed": {"learning_rate": math.nan}}, "expected learning_rate from 0 up, found nan"),
        ({"fixed": {"schedule": "cosine"}}, "expected a schedule out of one-cycle, constant, step, found 'cosine'"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone": "resnet5", "method": "cam"}, "expected a backbone out of .*, found 'resnet5'"),
        ({"method": "cam", "fixed": {"output_stride": 7}}, "expected output_stride 32 or 16 or 8 of .*, found 7"),
        ({"method": "test_search:Unsearched"}, "expected a range of weight with two ends"),
        ({"dataset": "birds"}, "expected a data set out of .*, found 'birds'"),
        ({"options": {"colour": 1}}, "expected options of synthbirds out of .*, found colour"),
        (
            {"fixed": {"learning_rate": 0.1, "threshold": 2}, "method": "acol"},
            r"expected threshold in \[0, 1\], found 2",
        ),
    ],
)
def test_a_search_that_cannot_be_leaves_no_study(changes, message, storage):
    with pytest.raises(ValueError, match=message):
        search.search(settings(**changes), storage, trials=1)
    assert not storage.exists()
    with pytest.raises(ValueError, match="expected at least one trial, found 0"):
        search.search(settings(), storage, trials=0)


def test_a_method_that_the_backbone_cannot_do(storage, monkeypatch):
    flat = Backbone(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), 4)
    monkeypatch.setitem(models.BACKBONES, "vgg16", lambda *args: flat)
    with pytest.raises(ValueError, match="CAM is not defined for it"):
        search.search(settings("cam", backbone="vgg16"), storage, trials=1)
    assert not storage.exists()


def test_a_folder_without_boxes_has_nothing_to_choose_on(storage, tmp_path):
    image = load_dataset("synthbirds", "test", image_size=32, n_images=1)[0].image
    (tmp_path / "birds" / "duck").mkdir(parents=True)
    write_png(image, str(tmp_path / "birds" / "duck" / "1.png"))
    with pytest.raises(FileNotFoundError, match="expected images with boxes for train-fullsup"):
        search.search(settings(dataset="folder", options={}), storage, trials=1, root=tmp_path / "birds")
    assert not storage.exists()


# -- the command -------------------------------------------------------------------------------------------------------

COMMAND = ["search", "--method", "cam", "--backbone", "efficientnet_lite0", "--dataset", "synthbirds", "--trials", "2"]
COMMAND += ["--option", "image_size=32", "n_images=8", "train-weaksup.n_images=16", "object_size=[0.5,0.6]"]
COMMAND += [
    "--input-size",
    "32",
    "--epochs",
    "1",
    "--batch-size",
    "8",
    "--fix",
    "learning_rate=0.03",
    "output_stride=32",
]


def test_the_command_prints_the_trials_and_the_best(storage, instant, monkeypatch, capsys):
    monkeypatch.setattr(random_search, "score", lambda model, dataset, metric: 0.25)
    assert main([*COMMAND, "--storage", str(storage), "--fix", "learning_rate=0.03"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "number",
        "learning_rate",
        "output_stride",
        "loss",
        "converged",
        "score",
        "epoch",
        "seconds",
    ]
    assert lines[1].split() == ["0", "0.03", "32", "3", "False", "0.97", "1", "0"]
    assert lines[-3:] == [
        "best: trial 0, 97.00% on train-fullsup",
        "trained with: epochs 1, batch_size 8, input_size 32, output_stride 32, learning_rate 0.03, schedule one-cycle",
        "not converged: 2 of 2 trials (last loss above 2.0)",
    ]
    known = search.read_study(storage).user_attrs["settings"]
    assert known["options"]["object_size"] == [0.5, 0.6] and known["epochs"] == 1

    assert main([*COMMAND, "--storage", str(storage), "--test"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("25.00% of 8 images, with trial 0, the best of 2")
    assert main([*COMMAND, "--storage", str(storage), "--again"]) == 0
    assert "look 2 at test" in capsys.readouterr().out
    assert sorted(path.name for path in storage.parent.iterdir()) == ["cam.journal", "cam.journal.running"]


def test_the_command_says_what_is_wrong(storage, instant, capsys):
    assert main([*COMMAND, "--storage", str(storage), "--option", "image_size"]) == 2
    assert "error: expected NAME=VALUE, found 'image_size'" in capsys.readouterr().err
    storage.write_text("notes\n")
    assert main([*COMMAND, "--storage", str(storage)]) == 2
    assert "error: expected an Optuna journal in" in capsys.readouterr().err
    assert storage.read_text() == "notes\n"


def test_a_fixed_value_of_the_wrong_kind_leaves_no_study(storage, capsys):
    assert main([*COMMAND, "--storage", str(storage), "--fix", "momentum=0.5", "--fix", "learning_rate=abc"]) == 2
    assert "error: expected learning_rate as a number, found 'abc'" in capsys.readouterr().err
    assert not storage.exists()


def test_the_command_saves_the_winner_of_somebodys_own_method(storage, tmp_path, capsys):
    mine = [*COMMAND[:2], "test_search:Dots", *COMMAND[3:], "--storage", str(storage)]
    assert main([*mine, "--out", str(tmp_path / "dots")]) == 0
    assert localizers.load(tmp_path / "dots").name == "test_search:Dots"
    assert "look" not in capsys.readouterr().out
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    assert main([*mine, "--trials", "5", "--out", str(tmp_path / "notes")]) == 2
    assert "error: expected a new or empty folder" in capsys.readouterr().err
    assert len(search.results(storage)) == 2  # it says so before it searches
