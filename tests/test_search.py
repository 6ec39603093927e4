"""The search: what is drawn, what each split is for, which trainings count, and a search that can be left and taken up."""

import math
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import nn
from torchvision.io import write_png

from wsol_lib import search
from wsol_lib.__main__ import main
from wsol_lib.cam import CAM
from wsol_lib.data import load_dataset
from wsol_lib.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP
from wsol_lib.models import Backbone, create_backbone
from wsol_lib.search import METHODS, Settings, random_search, trial

OPTIONS = {"image_size": 32, "n_images": 8, "species_per_family": 1, "train-weaksup.n_images": 16}
CAM_ON_BIRDS = Settings(
    "cam", "efficientnet_lite0", "synthbirds", OPTIONS, epochs=1, batch_size=8, input_size=32, pretrained=False
)


def settings(**changes):
    return replace(CAM_ON_BIRDS, **changes)


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "cam.journal"


@pytest.fixture
def instant(monkeypatch):
    """Trials without training: the loss is 100 times the learning rate, the score 1 minus it. Gives the values they had."""
    ran = []

    def run_trial(settings, values, training, scored, num_workers=0):
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
    assert search.search_space(settings()) == {"learning_rate": FloatDistribution(1e-5, 1.0, log=True)}
    adl = search.search_space(settings(method="adl"))
    assert adl["drop_rate"] == adl["threshold"] == FloatDistribution(0.0, 1.0)
    assert search.search_space(settings(method="slt"))["beta"] == FloatDistribution(0.1, 1000.0, log=True)


def test_a_hidden_patch_is_a_whole_number_of_pixels_and_not_larger_than_the_input():
    assert search.search_space(settings(method="has"))["grid_size"] == IntDistribution(1, 32)
    assert search.search_space(settings(method="has", input_size=448))["grid_size"] == IntDistribution(1, 224)


def test_points_go_by_the_seed_and_the_first_of_more_are_the_same():
    ten, three, other = (search.draw_points(settings(seed=seed), n) for seed, n in ((0, 10), (0, 3), (1, 3)))
    assert ten[:3] == three != other
    assert len({point["learning_rate"] for point in ten}) == 10


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_what_is_drawn_for_it(method):
    for point in search.draw_points(settings(method=method), 3):
        values = search.hyperparameters(settings(method=method), point)
        assert isinstance(search.create_model(settings(method=method), values, 4), METHODS[method])


def test_the_size_prior_of_cutmix_is_one_over_u_minus_one_half():
    for drawn, prior in ((0.0, 0.0), (1.0, 0.5), (1.5, 1.5), (math.nextafter(2, 0), 2.0**52 - 0.5)):
        values = search.hyperparameters(settings(method="cutmix"), {"size_prior": drawn, "mix_rate": 0.25})
        assert values == {"size_prior": prior, "mix_rate": 0.25}


def test_of_a_pair_of_thresholds_the_smaller_is_the_low_one():
    point = {"learning_rate": 0.1, "low_b1": 0.9, "low_c": 0.2, "high_b1": 0.3, "high_c": 0.4}
    values = search.hyperparameters(settings(method="spg"), point)
    assert values == {"learning_rate": 0.1, "low_b1": 0.3, "high_b1": 0.9, "low_c": 0.2, "high_c": 0.4}


def test_what_is_fixed_is_not_drawn():
    acol = settings(method="acol", fixed={"learning_rate": 0.5, "channels": 8})
    assert set(search.search_space(acol)) == {"threshold"}
    values = search.hyperparameters(acol, {"threshold": 0.5})
    assert values == {"learning_rate": 0.5, "channels": 8, "threshold": 0.5}
    assert search.create_model(acol, values, 4).branch_b[0].out_channels == 8


# -- what is trained on, what is scored on -----------------------------------------------------------------------------


def test_trained_on_weaksup_and_scored_on_fullsup(opened):
    training, scored = search.load_sets(settings())
    assert (training.split, len(training), scored.split, len(scored)) == ("train-weaksup", 16, "train-fullsup", 8)
    assert set(opened) == {"train-weaksup", "train-fullsup"}


def test_trained_on_crops_and_scored_on_whole_images():
    training, scored = search.load_sets(settings(input_size=28))
    assert training[0].image.shape == scored[0].image.shape == (3, 28, 28)
    assert not torch.equal(training[0].image, training[0].image)
    assert torch.equal(scored[0].image, scored[0].image)


def test_a_proxy_has_its_share_of_every_class_and_the_last_training_everything():
    half = settings(proxy=0.5)
    assert search.load_sets(half)[0].images_per_class.tolist() == [2, 2, 2, 2]
    assert search.load_sets(settings(proxy=0.01))[0].images_per_class.tolist() == [1, 1, 1, 1]
    assert search.load_sets(half)[0].image_ids == search.load_sets(half)[0].image_ids
    assert search.load_sets(half)[0].image_ids != search.load_sets(replace(half, seed=1))[0].image_ids
    assert len(search.load_sets(half, final=True)[0]) == 16


def test_a_share_is_rounded_down_and_not_by_the_computer():
    birds = load_dataset("synthbirds", "test", image_size=32, n_images=100, n_families=1, species_per_family=1)
    assert len(search.share_per_class(birds, 0.29)) == 29  # 0.29 * 100 is 28.999999999999996


def test_the_few_shot_baseline_learns_four_fifths_of_fullsup_and_is_chosen_on_the_rest(opened):
    few = settings(method="few-shot", options={**OPTIONS, "train-fullsup.n_images": 20})
    training, scored = search.load_sets(few)
    assert training.images_per_class.tolist() == [4, 4, 4, 4]
    assert scored.images_per_class.tolist() == [1, 1, 1, 1]
    assert not set(training.image_ids) & set(scored.image_ids)
    assert training[0].image.shape == (3, 32, 32) and not torch.equal(training[0].image, training[0].image)
    assert [len(own) for own in search.load_sets(few, final=True)] == [20, 20]
    assert set(opened) == {"train-fullsup"}


def test_one_image_a_class_leaves_the_few_shot_baseline_nothing_to_choose_on():
    with pytest.raises(ValueError, match="expected two images or more"):
        search.load_sets(settings(method="few-shot", options={**OPTIONS, "train-fullsup.limit_per_class": 1}))


# -- one trial ---------------------------------------------------------------------------------------------------------


class Oracle(CAM):
    """Its map is where the input is bright."""

    def score_maps(self, inputs, classes=None):
        return inputs[:, 0], inputs.new_zeros(len(inputs), 4)


@pytest.fixture
def bright_birds():
    """Images that are white on the bird and black elsewhere."""
    birds = load_dataset("synthbirds", "train-fullsup", image_size=32, n_images=8)
    birds._images = (birds._content > 0)[:, None].expand(-1, 3, -1, -1) * torch.tensor(255, dtype=torch.uint8)
    return birds


def test_the_score_is_that_of_the_metric_and_of_masks_where_there_are_no_boxes(bright_birds):
    oracle = Oracle(create_backbone("efficientnet_lite0", 4, pretrained=False))
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


@pytest.mark.parametrize("checkpoint, score, epoch", [("last", 0.4, 3), ("best", 0.6, 2)])
def test_the_last_checkpoint_counts_or_the_best(checkpoint, score, epoch, monkeypatch):
    scores = {1: 0.3, 2: 0.6, 3: 0.4}

    def train(model, dataset, *, after_epoch, **options):
        for number in scores:
            nn.init.constant_(model.backbone.head.bias, number)
            after_epoch(number)
        return [{"loss": 1.5}]

    def found(model, dataset, metric):
        return scores[int(model.backbone.head.bias[0])]

    monkeypatch.setattr(trial, "train", train)
    monkeypatch.setattr(trial, "score", found)
    chosen = settings(epochs=3, checkpoint=checkpoint)
    outcome, model = search.run_trial(chosen, {"learning_rate": 0.1}, *search.load_sets(chosen))
    assert (outcome["score"], outcome["epoch"], outcome["loss"]) == (score, epoch, 1.5)
    assert model.backbone.head.bias[0] == epoch


def test_a_training_that_explodes_is_a_trial_that_did_not_converge(storage):
    frame = search.search(settings(fixed={"learning_rate": 1e20}), storage, trials=1)
    assert frame["score"].tolist() == [0.0]
    assert frame["loss"].isna().all() and not frame["converged"].any()


def test_another_error_of_the_training_is_none(storage, monkeypatch):
    def damaged(*args, **options):
        raise ValueError("expected an image, found a damaged file")

    monkeypatch.setattr(trial, "train", damaged)
    with pytest.raises(ValueError, match="damaged file"):
        search.search(settings(), storage, trials=1)
    with pytest.raises(ValueError, match=r"expected a finished trial in .* run the search first"):
        search.look_at_test(settings(), storage)


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


def test_what_is_finished_is_not_run_again(storage, instant):
    first = search.search(settings(), storage, trials=4)
    assert len(instant) == 4
    pd.testing.assert_frame_equal(search.search(settings(), storage, trials=4), first)
    pd.testing.assert_frame_equal(search.results(storage), first)
    assert len(instant) == 4


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
        random_search, "run_trial", lambda _, values, training, *rest: seen.append(training) or ({}, None)
    )
    monkeypatch.setattr(random_search, "score", lambda model, dataset, metric: seen.append(dataset) or 0.5)
    search.look_at_test(settings(proxy=0.5), storage)
    assert [(data.split, len(data)) for data in seen] == [("train-weaksup", 16), ("test", 8)]


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "ddt"}, "expected a method out of cam, has, .*, found 'ddt'"),
        ({"checkpoint": "first"}, "expected a checkpoint out of last, best, found 'first'"),
        ({"metric": "CorLoc"}, "expected a metric out of MaxBoxAcc, MaxBoxAccV2, found 'CorLoc'"),
        ({"proxy": 0.0}, r"expected proxy.* in \(0, 1\], found 0.0"),
        ({"epochs": 0}, "expected epochs, batch_size and input_size from 1 up, found 0, 8 and 32"),
        ({"fixed": {"drop_rate": 0.5}}, "expected fixed values of cam out of learning_rate, found drop_rate"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone": "resnet5"}, "expected a backbone out of .*, found 'resnet5'"),
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
    monkeypatch.setattr(trial, "create_backbone", lambda *args: flat)
    with pytest.raises(ValueError, match="CAM is not defined for it"):
        search.search(settings(backbone="vgg16"), storage, trials=1)
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
COMMAND += ["--input-size", "32", "--epochs", "1", "--batch-size", "8", "--fix", "learning_rate=0.03"]


def test_the_command_prints_the_trials_and_the_best(storage, instant, monkeypatch, capsys):
    monkeypatch.setattr(random_search, "score", lambda model, dataset, metric: 0.25)
    assert main([*COMMAND, "--storage", str(storage)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["number", "learning_rate", "loss", "converged", "score", "epoch", "seconds"]
    assert lines[1].split() == ["0", "0.03", "3", "False", "0.97", "1", "0"]
    assert lines[-2:] == [
        "best: trial 0, 97.00% on train-fullsup",
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
