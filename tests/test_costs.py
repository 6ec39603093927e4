"""Hours and memory: how often a localizer looks is counted in a real fit, the rest by hand."""

import re
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from wsol_lib import localizers
from wsol_lib.book import costs
from wsol_lib.book.costs import Counts, Look, Machine
from wsol_lib.book.definitions import Experiment
from wsol_lib.data import load_dataset
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone, GapLinear, count_flops, create_backbone

BIRDS = {"image_size": tiny.SIZE, "habitat_correlation": 0.0}
PATHS = [(name, {}) for name in localizers.NAMES if name != "centre"]
PATHS += [("psol", {"classifier": "separate"}), ("psol", {"classifier": "joint"}), ("slt", {"classifier": "separate"})]
PATHS += [("wsol_lib.slt:SLTMaps", {}), ("wsol_lib.slt:SLTMaps", {"beta": 0.0}), ("wsol_lib.lchp:PseudoLabels", {})]


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=8, **BIRDS)


# -- how often a localizer looks at an image ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, own", PATHS, ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value
)
def test_looks_are_those_of_a_real_fit(name, own, birds, monkeypatch):
    """Images through any backbone, with gradients and without, of the trainings and of predictions."""
    seen, training = Counter(), []
    features, train = Backbone.features, Localizer.train

    def count(self, x):
        seen["predict" if not training else "learn" if torch.is_grad_enabled() else "look"] += len(x)
        return features(self, x)

    def noted(self, *arguments, **changed):
        if self.name != name:  # PSOL's teacher has costs of its own
            return train(self, *arguments, **changed)
        training.append(True)
        try:
            return train(self, *arguments, **changed)
        finally:
            training.pop()

    monkeypatch.setattr(Localizer, "train", noted)
    plain = {"lchp-i": "lchp-i", "wsol_lib.lchp:PseudoLabels": "lchp-i", "wsol_lib.slt:SLTMaps": "cam"}.get(name, name)
    given = tiny.settings(plain, **own)
    monkeypatch.setattr(Backbone, "features", count)
    boxed = load_dataset("synthbirds", "train-fullsup", n_images=8, **BIRDS) if name == "few-shot" else None
    fitted = localizers.fit(name, birds, boxed, **given)
    method, epochs = localizers.find(name), fitted.settings["epochs"]
    expected = Counter()
    for share, parts in costs.trainings(method, fitted.settings):
        for learn, look in parts.values():
            expected.update(learn=round(share * epochs * learn * 8), look=round(share * epochs * look * 8))
    assert (seen["learn"], seen["look"]) == (expected["learn"], expected["look"])
    seen.clear()
    fitted.predict(birds.images(range(8)), birds.labels)
    assert seen["predict"] == 8 * sum(costs.looks(method, fitted.settings).values())


# -- what a look costs -------------------------------------------------------------------------------------------------


def test_a_look_by_hand():
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU())
    backbone = Backbone(trunk, GapLinear(8, 5), 8).to("meta")
    look = costs.look_of(backbone, 32)
    assert look.flops == 2 * (16 * 16 * 8 * 27 + 8 * 5)
    image, features, pooled = 3 * 32 * 32, 8 * 16 * 16, 8
    assert look.kept == 4 * (image + features + pooled)  # ReLU keeps what it gives, the linear layer what it takes
    assert look.widest == 4 * (image + features)


def test_operations_are_twice_the_multiplications_of_psol_s_table_2():
    counts = costs.count("cam", localizers.find("cam").settings_for("cam", "cub", {"backbone": "vgg_gap"}))
    with torch.device("meta"):
        multiplications = count_flops(create_backbone("vgg_gap", pretrained=False), 224)
    assert counts.looks["backbone"].flops == 2 * (multiplications + 1024 * costs.CLASSES)
    assert 15e9 < multiplications < 17e9  # printed: 15.35, without the sixth convolution


def test_branches_beside_the_trunk_are_counted():
    plain, branched = (
        costs.count(name, localizers.find(name).settings_for(name, "cub", {"backbone": "vgg_gap"}))
        for name in ("cam", "acol")
    )
    each = 2 * 9 * 1024 * 1024 * 14 * 14  # two convolutions, 3 x 3, 1024 channels, in each of two branches
    more = branched.looks["backbone"].flops - plain.looks["backbone"].flops
    assert more == 2 * 2 * each


# -- hours, memory, disk -----------------------------------------------------------------------------------------------

GPU = Machine("a gpu", {"tiny": (100.0, 10.0)}, {224: 4.0, 448: 1.0}, boxes=2.0, memory=1e9)
CPU = Machine("cpu (1 threads)", {"tiny": (100.0, 10.0)}, {224: 4.0}, boxes=2.0)


@pytest.fixture
def counted(monkeypatch):
    """A look of 20 operations, 7 bytes kept and 3 bytes wide through any backbone; 11 parameters."""
    look = {path: Look(20.0, 7, 3) for path in ("backbone", "student.backbone")}
    monkeypatch.setattr(costs, "count", lambda name, settings: Counts(look, 11, 200))


def settings(name, **given):
    return localizers.find(name).settings_for(name, "cub", {"backbone": "tiny", "epochs": 3, "batch_size": 5, **given})


def test_hours_of_a_training_by_hand(counted):
    cost = costs.of_settings("cam", "cub", settings("cam", num_workers=2), GPU, train=10, test=6)
    assert cost.fit == 3 * 10 * 2.0 and not cost.waits  # 20 operations at 10 a second; 2 x 4 images are read meanwhile
    assert cost.predict == pytest.approx(6 * (20 / 100 + 1 / 4 + 1 / 2))  # look, read, draw a box
    assert cost.memory == max(5 * 7 + 3 * 4 * 11, 64 * 3 + 4 * 11)
    assert (cost.disk, cost.flops) == (2 * 4 * 11, 20)
    shared = costs.of_settings("cam", "cub", settings("cam", num_workers=2), GPU, 10, 6, processes=4)
    assert shared.fit == cost.fit / 4 and shared.predict == cost.predict


def test_a_gpu_waits_for_images_and_a_cpu_shares_its_core(counted):
    slow = Machine("a gpu", GPU.rates, {224: 0.1}, boxes=2.0)
    cost = costs.of_settings("cam", "cub", settings("cam"), slow, 10, 6)
    assert cost.waits and cost.fit == pytest.approx(3 * 10 / 0.1)
    cost = costs.of_settings("cam", "cub", settings("cam"), CPU, 10, 6)
    assert cost.fit == pytest.approx(3 * 10 * (2.0 + 1 / 4))


def test_psol_pays_for_its_teacher(counted):
    alone = costs.of_settings("ddt", "cub", settings("ddt"), GPU, train=10, test=10)
    assert alone.fit == pytest.approx(10 * (20 / 100 + 1 / 4 + 1 / 2))  # it looks at every image once
    cost = costs.of_settings("psol", "cub", settings("psol"), GPU, train=10, test=6)
    assert cost.fit == pytest.approx(3 * 10 * 2.0 + alone.fit + alone.predict)
    assert cost.predict == pytest.approx(6 * (20 / 100 + 1 / 4))  # no map
    shared = costs.of_settings("psol", "cub", settings("psol"), GPU, train=10, test=6, processes=5)
    assert (shared.fit, shared.predict) == (pytest.approx(cost.fit / 5), cost.predict)


def test_photographs_of_predict(counted):
    assert costs.of_photographs("cam", settings("cam"), GPU, 10) == pytest.approx(10 * (20 / 100 + 1 / 2))
    assert costs.of_photographs("cam", settings("cam"), CPU, 10) == pytest.approx(10 * (20 / 100 + 1 / 2 + 1 / 4))


def test_images_of_an_experiment(counted):
    whole = Experiment(name="a", group="", profile="full", localizer="cam", dataset="cub", backbone="tiny", epochs=1)
    assert costs.of_experiment(whole, GPU).fit == 5994 * 2.0
    options = {split: {"n_images": 4} for split in ("train-weaksup", "test")}
    birds = Experiment("a", "", "full", "cam", "synthbirds", options, backbone="tiny", epochs=1)
    assert costs.of_experiment(birds, GPU).fit == 4 * 2.0
    limited = Experiment("a", "", "full", "cam", "cub", {"test": {"limit_per_class": 1}}, backbone="tiny")
    assert costs.of_experiment(limited, GPU, "nowhere") is None


def test_a_localizer_whose_backbones_are_elsewhere_has_no_estimate():
    assert costs.of_experiment(Experiment("a", "", "full", "fake_localizer:Fake", "cub"), GPU) is None


def test_sizes_are_those_of_the_page_on_data():
    page = Path("book/getting-the-data.md").read_text()
    for name, (train, test) in costs.SIZES.items():
        row = re.search(rf"^\| `{name}` \| ([\d,]+) / [\d,]+ / ([\d,]+) \|", page, re.MULTILINE)
        assert (f"{train:,}", f"{test:,}") == row.groups()


# -- what was measured -------------------------------------------------------------------------------------------------

RATES = {
    "measured": [{"device": "cpu (1 threads)", "reads": {224: 100.0}, "boxes": 50.0, "gflops": {"resnet50": [80, 20]}}],
    "assumed": [{"device": "a gpu", "teraflops": 100, "share": 0.2, "gigabytes": 40}],
}


def test_a_gpu_that_nobody_measured_has_a_share_of_what_is_printed(tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump(RATES))
    cpu, gpu = costs.machines(path).values()
    assert cpu.measured and cpu.rate("resnet50") == (80e9, 20e9) == cpu.rate("vgg16")
    assert not gpu.measured and gpu.rate("resnet50") == pytest.approx((20e12, 20e12 / 3))
    assert (gpu.memory, gpu.reads, gpu.boxes) == (40e9, {224: 100.0}, 50.0)
    assert costs.planned(costs.machines(path), "another") == gpu
    measured = {"device": "a gpu", "reads": {224: 200.0}, "boxes": 60.0, "gflops": {"resnet50": [9000, 2000]}}
    path.write_text(yaml.safe_dump(RATES | {"measured": [*RATES["measured"], measured]}))
    assert costs.planned(costs.machines(path), "a gpu").rate("resnet50") == (9000e9, 2000e9)


@pytest.mark.parametrize(
    "text", ["a: [", "[]", "measured: []\nassumed: []", "measured: 1", "measured: [{device: cpu}]"]
)
def test_rates_that_are_none(tmp_path, text):
    (tmp_path / "rates.yaml").write_text(text)
    with pytest.raises(
        ValueError, match=r"expected rates as benchmarks/rates.py writes them in .*, found something else"
    ):
        costs.machines(tmp_path / "rates.yaml")
    with pytest.raises(FileNotFoundError, match=r"expected measured rates in .*none.yaml, found none"):
        costs.machines(tmp_path / "none.yaml")


def test_the_tables_have_a_row_for_every_localizer_and_backbone():
    made = costs.tables(costs.machines())
    first = {name: [line.split("|")[1].strip() for line in text.splitlines()] for name, text in made.items()}
    rates = ["gigaflops", "---", *costs.machines()["cpu (1 threads)"].rates]
    head = ["localizer", "---", *localizers.NAMES]
    assert first == {"training": head, "million": head, "rates": rates}
    epochs = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in made["training"].splitlines()}
    assert (epochs["centre"], epochs["ddt"], epochs["cam"]) == ("-", "-", "10")
