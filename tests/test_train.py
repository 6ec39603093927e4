"""Training: it learns from what it is told alone, repeats on one seed, survives kills, and refuses what cannot work."""

import functools
import io
import itertools
import os
import pickle
import random
import zipfile
from types import SimpleNamespace

import killed
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from wsol_lib import train as training
from wsol_lib.adl import ADL
from wsol_lib.cam import CAM
from wsol_lib.cutmix import CutMix
from wsol_lib.data import Subset, load_dataset
from wsol_lib.data.transforms import random_crop
from wsol_lib.few_shot import foreground
from wsol_lib.has import HideAndSeek
from wsol_lib.models import Backbone, GapLinear, Network, create_backbone

BIRDS = dict(n_images=32, image_size=32, species_per_family=1, habitat_correlation=1.0)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", **BIRDS)


def train(dataset, seed=0, epochs=2, **options):
    torch.manual_seed(0)
    backbone = create_backbone("efficientnet_lite0", num_classes=4)
    return backbone, training.train(CAM(backbone), dataset, epochs=epochs, batch_size=16, seed=seed, **options)


def test_it_learns(birds):
    backbone, history = train(birds, epochs=6, learning_rate=0.02)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["accuracy"] > 0.8 > 0.5 > history[0]["accuracy"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert not backbone.training


def test_one_seed_repeats_and_another_differs(birds):
    (first, once), (second, again), (_, other) = train(birds), train(birds), train(birds, seed=1)
    assert once == again
    torch.testing.assert_close(first.head.weight, second.head.weight, rtol=0, atol=0)
    assert once != other


@pytest.mark.parametrize("method", [ADL, CutMix, lambda backbone: HideAndSeek(backbone, grid_size=8)])
def test_methods_that_draw_repeat_on_one_seed_too(birds, method):
    def history(seed):
        torch.manual_seed(0)
        model = method(create_backbone("efficientnet_lite0", num_classes=4))
        return training.train(model, birds, epochs=1, batch_size=16, seed=seed)

    assert history(0) == history(0) != history(1)


def test_boxes_and_masks_are_never_looked_at(birds):
    class LabelsOnly(torch.utils.data.Dataset):
        labels, class_names = birds.labels, birds.class_names

        def __len__(self):
            return len(birds)

        def __getitem__(self, i):
            return birds[i]._replace(boxes=None, mask=None)

    assert train(LabelsOnly(), epochs=1)[1] == train(birds, epochs=1)[1]


def test_the_head_learns_faster_than_the_trunk(birds):
    fresh = create_backbone("efficientnet_lite0", num_classes=4)
    frozen, _ = train(birds, learning_rate=1e-12, head_factor=1e10, weight_decay=0.0)
    torch.testing.assert_close(frozen.trunk[0].weight, fresh.trunk[0].weight, rtol=0, atol=1e-7)
    torch.manual_seed(0)
    assert (frozen.head.weight - create_backbone("efficientnet_lite0", num_classes=4).head.weight).abs().max() > 1e-3


def test_targets_are_what_the_method_sees(birds):
    samples = [birds[3], birds[5]]
    assert training.labels(samples).tolist() == birds.labels[[3, 5]].tolist()

    class Spy(CAM):
        def loss(self, inputs, targets):
            seen.append(targets)
            return super().loss(inputs, targets[0])

    seen = []
    spy = Spy(create_backbone("efficientnet_lite0", num_classes=4, pretrained=False))
    training.train(
        spy, birds, epochs=1, batch_size=16, targets=lambda samples: (training.labels(samples), foreground(samples))
    )
    assert [[tuple(part.shape) for part in pair] for pair in seen] == [[(16,), (16, 32, 32)]] * 2


def test_after_every_epoch_the_caller_may_look_at_the_model(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=4, pretrained=False)
    seen = []
    training.train(
        CAM(backbone), birds, epochs=2, batch_size=16, after_epoch=lambda epoch: seen.append((epoch, backbone.training))
    )
    assert seen == [(1, False), (2, False)]


def test_frozen_parameters_stay(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=4)
    backbone.trunk.requires_grad_(False)
    before = backbone.trunk[0].weight.clone()
    training.train(CAM(backbone), birds, epochs=1, batch_size=16, schedule="constant")
    torch.testing.assert_close(backbone.trunk[0].weight, before, rtol=0, atol=0)


def test_an_unknown_schedule(birds):
    with pytest.raises(ValueError, match="expected a schedule out of one-cycle, constant, step, found 'cosine'"):
        train(birds, schedule="cosine")


def test_labels_outside_the_classes_of_the_head(birds):
    backbone = create_backbone("efficientnet_lite0", num_classes=3, pretrained=False)
    with pytest.raises(ValueError, match=r"expected labels in 0 ... 2, .* found 0 ... 3: .* num_classes=4"):
        training.train(CAM(backbone), birds, epochs=1)


def test_a_loss_that_explodes_says_what_to_do(birds):
    with pytest.raises(ValueError, match=r"expected a finite training loss, found .* lower learning_rate"):
        train(birds, learning_rate=1e20)


# -- schedules and momentum ----------------------------------------------------------------------------------------------


class Slope(Network):
    """Its loss is the sum of a weight of the trunk and one of the head, so that without momentum each falls by its rate."""

    def __init__(self, dataset):
        super().__init__(backbone=Backbone(nn.Conv2d(3, 1, 1), GapLinear(1, 4), 1))
        self.values = [[], []]

    def weights(self):
        return self.backbone.trunk.bias, self.backbone.head.bias[:1]

    def loss(self, inputs, targets):
        for values, weight in zip(self.values, self.weights()):
            values.append(float(weight.detach()))
        return {"loss": sum(weight.double().sum() for weight in self.weights())}


def rates(dataset, **options):
    """What the trunk and the head have learned in every step."""
    slope = Slope(dataset)
    training.train(slope, dataset, batch_size=16, weight_decay=0.0, **options)
    values = [[*values, float(weight.detach())] for values, weight in zip(slope.values, slope.weights())]
    return [[before - after for before, after in itertools.pairwise(own)] for own in values]


def test_the_step_schedule_by_hand(birds):
    """Two steps an epoch, five epochs, a tenth of the rate after every second one."""
    trunk, head = rates(birds, epochs=5, learning_rate=0.5, momentum=0.0, schedule="step", step_epochs=2)
    expected = [0.5] * 4 + [0.05] * 4 + [0.005] * 2
    assert trunk == pytest.approx(expected, abs=1e-6)
    assert head == pytest.approx([10 * rate for rate in expected], abs=1e-5)


def test_the_step_schedule_may_divide_by_something_else(birds):
    trunk, _ = rates(birds, epochs=3, learning_rate=0.5, momentum=0.0, schedule="step", step_factor=0.5)
    assert trunk == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.125, 0.125], abs=1e-6)


def test_a_constant_rate_stays(birds):
    assert rates(birds, epochs=3, learning_rate=0.5, momentum=0.0, schedule="constant")[0] == pytest.approx([0.5] * 6)


def test_plain_momentum_by_hand(birds):
    """v = 0.9 v + 1, and Nesterov's looks 0.9 v ahead."""
    plain, _ = rates(birds, epochs=2, learning_rate=0.1, momentum=0.9, nesterov=False, schedule="constant")
    velocities = [1.0, 1.9, 2.71, 3.439]
    assert plain == pytest.approx([0.1 * v for v in velocities], abs=1e-6)
    nesterov, _ = rates(birds, epochs=2, learning_rate=0.1, momentum=0.9, schedule="constant")
    assert nesterov == pytest.approx([0.1 * (1 + 0.9 * v) for v in velocities], abs=1e-6)


@pytest.mark.parametrize("momentum, nesterov", [(0.9, True), (0.9, False), (0.5, True), (0.0, True)])
def test_one_cycle_is_torchs_round_the_momentum_that_is_asked_for(birds, momentum, nesterov):
    found, _ = rates(birds, epochs=4, learning_rate=0.5, momentum=momentum, nesterov=nesterov)
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=momentum, nesterov=nesterov and momentum > 0)
    ends = {"base_momentum": momentum - 0.05, "max_momentum": momentum + 0.05}
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=8, cycle_momentum=momentum > 0, **ends)
    expected = []
    for _ in range(8):
        optimizer.zero_grad()
        before = float(weight.detach())
        weight.backward()
        optimizer.step()
        cycle.step()
        expected.append(before - float(weight.detach()))
    assert found == pytest.approx(expected, abs=1e-5)


# -- which images when ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [None, v2.RandomHorizontalFlip(), random_crop(36, 32)])
def test_batches_read_at_once_are_those_of_samples_one_by_one(transform):
    class OneByOne(torch.utils.data.Dataset):
        def __len__(self):
            return 14

        def __getitem__(self, i):
            return data[i]

    data = load_dataset("synthbirds", "train-weaksup", **BIRDS | {"n_images": 14}, transform=transform)
    data._images = data._images.to(memory_format=torch.channels_last)  # as Tiny-ImageNet's
    process = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
    whole, single = (training._Batches(own, training.labels, 4, 2, 0, process) for own in (data, OneByOne()))
    for number in range(len(whole)):
        (images, classes), (expected, expected_classes) = whole[number], single[number]
        assert (
            torch.equal(images, expected) and images.stride() == expected.stride()
        )  # what comes next may depend on it
        assert torch.equal(classes, expected_classes) and classes.dtype == expected_classes.dtype


def test_images_that_are_mirrored_alone_are_not_made_into_samples(monkeypatch):
    data = load_dataset("synthbirds", "train-weaksup", **BIRDS, transform=v2.RandomHorizontalFlip())
    monkeypatch.setattr("wsol_lib.data.sample.make_sample", lambda *_: pytest.fail("a sample by itself"))
    training.train(CAM(killed.tiny_backbone()), data, epochs=1)


@pytest.mark.parametrize("number, batch_size, processes", [(10, 4, 1), (10, 4, 2), (11, 3, 3), (2, 4, 3), (12, 4, 3)])
def test_an_epoch_shows_every_image_to_some_process(number, batch_size, processes):
    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return number

        def __getitem__(self, i):
            return SimpleNamespace(image=torch.zeros(3, 1, 1), label=i)

    parts = [
        training._Batches(
            Numbers(),
            training.labels,
            batch_size,
            2,
            0,
            SimpleNamespace(process_index=p, num_processes=processes, device=torch.device("cpu")),
        )
        for p in range(processes)
    ]
    epochs = []
    for epoch in range(2):
        steps = [[part[epoch * part.steps + step][1].tolist() for part in parts] for step in range(parts[0].steps)]
        assert all(len({len(own) for own in step}) == 1 for step in steps)  # each waits for the same
        shown = [i for step in steps for own in step for i in own]
        assert set(shown) == set(range(number)) and len(shown) < number + processes
        epochs.append(shown)
    assert len(parts[0]) == 2 * parts[0].steps
    assert number < 5 or epochs[0] != epochs[1]


# -- after a kill --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops():
    """14 images in steps of 4, the last of which is smaller, under a transform that draws."""
    return load_dataset("synthbirds", "train-weaksup", **BIRDS | {"n_images": 14}, transform=random_crop(36, 32))


@pytest.fixture(scope="module")
def left_alone(crops, tmp_path_factory):
    """What a training that nobody kills gives."""
    folder = tmp_path_factory.mktemp("alone")
    assert killed.run(killed.train_tiny, crops, None, folder / "result.pt") == 0
    return torch.load(folder / "result.pt", weights_only=True)


def assert_same(result, expected):
    assert result["history"] == expected["history"]
    assert result["state"].keys() == expected["state"].keys()
    for name, value in expected["state"].items():
        assert torch.equal(result["state"][name], value), name


MOMENTS = [
    (("step", 3), 6),
    (("step", 5), 4),
    (("half", 1), 8),
    (("half", 3), 6),
    (("half", 4), 5),  # at the end of the epoch
    (("half", 8), 1),
    (("written", 2), 7),
    (("replaced", 4), 4),
    (("replaced", 8), 0),
    (("hook", 1), 5),
    (("hook", 2), 1),
]


@pytest.mark.parametrize(
    "fatal, left, num_workers",
    [(*moment, 0) for moment in MOMENTS] + [(("step", 3), 6, 2), (("half", 4), 5, 2), (("replaced", 4), 4, 2)],
)
def test_a_killed_training_ends_with_the_weights_of_one_left_alone(
    crops, left_alone, tmp_path, fatal, left, num_workers
):
    train = functools.partial(killed.train_tiny, num_workers=num_workers)
    files = crops, tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    assert killed.run(train, *files, fatal) == killed.KILLED
    assert not (tmp_path / "result.pt").exists()
    assert killed.run(train, *files) == 0
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    assert result["steps"] == left  # it did go on, and not anew
    assert_same(result, left_alone)
    if left:
        assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "result.pt"]


def test_a_training_killed_after_every_step_comes_to_its_end(crops, left_alone, tmp_path):
    files = crops, tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    codes = [killed.run(killed.train_tiny, *files, ("replaced", 1)) for _ in range(9)]
    assert codes == [killed.KILLED] * 8 + [0]
    assert_same(torch.load(tmp_path / "result.pt", weights_only=True), left_alone)


def test_a_training_killed_from_outside_at_any_time(crops, left_alone, tmp_path):
    files, codes, chance = (crops, tmp_path / "checkpoint.pt", tmp_path / "result.pt"), [], random.Random(0)
    while not codes or codes[-1] != 0:
        process = killed.start(killed.train_tiny, *files)
        if len(codes) < 4:
            process.join(chance.uniform(0.05, 0.5))
            process.kill()
        codes.append(killed.ended(process))
    assert set(codes) <= {killed.KILLED, 0}
    assert_same(torch.load(tmp_path / "result.pt", weights_only=True), left_alone)


def test_other_schedules_and_plain_momentum_go_on_too(crops, tmp_path):
    options = {"schedule": "step", "step_epochs": 1, "nesterov": False, "momentum": 0.8, "weight_decay": 0.01}
    train = functools.partial(killed.train_tiny, **options)
    assert killed.run(train, crops, None, tmp_path / "alone.pt") == 0
    files = crops, tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    assert killed.run(train, *files, ("step", 7)) == killed.KILLED
    assert killed.run(train, *files) == 0
    result, alone = (torch.load(tmp_path / name, weights_only=True) for name in ("result.pt", "alone.pt"))
    assert result["steps"] == 2
    assert_same(result, alone)


def test_a_finished_training_is_not_done_again(crops, left_alone, tmp_path):
    files = crops, tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    assert killed.run(functools.partial(killed.train_tiny, seconds=60.0), *files) == 0
    content = files[1].read_bytes()
    result = go_on(crops, files[1])
    assert result["steps"] == 0 and files[1].read_bytes() == content
    assert_same(result, left_alone)


def test_workers_load_the_same_images(crops, left_alone, tmp_path):
    assert killed.run(functools.partial(killed.train_tiny, num_workers=2), crops, None, tmp_path / "result.pt") == 0
    assert_same(torch.load(tmp_path / "result.pt", weights_only=True), left_alone)


# -- several processes ---------------------------------------------------------------------------------------------------


def in_two(crops, folder, name, fatal=(None, None), **options):
    """Exit codes and results of two processes that train one network together."""
    train = functools.partial(killed.train_tiny, **options)
    results = [folder / f"{name}-{rank}.pt" for rank in range(2)]
    started = killed.in_two_processes(train, lambda rank: (crops, folder / "two.pt", results[rank], fatal[rank]))
    first = started[0]
    if fatal[0] is not None:
        first.join(killed.TIMEOUT)
        started[1].kill()  # it would wait for the other for minutes
    codes = [killed.ended(process) for process in started]
    return codes, [torch.load(path, weights_only=True) for path in results if path.exists()]


def test_two_processes_train_one_network(crops, left_alone, tmp_path):
    """Batch norm's means, too: each process has seen other images."""
    codes, (first, second) = in_two(crops, tmp_path, "alone")
    assert codes == [0, 0] and first["steps"] == second["steps"] == 4
    assert_same(first, second)
    assert not torch.equal(first["state"]["backbone.trunk.0.weight"], left_alone["state"]["backbone.trunk.0.weight"])


def test_two_processes_go_on_after_a_kill(crops, tmp_path):
    """They write at the end of an epoch alone, however short the time between two checkpoints."""
    _, (alone, _) = in_two(crops, tmp_path, "alone")
    (tmp_path / "two.pt").unlink()
    codes, results = in_two(crops, tmp_path, "killed", fatal=(("step", 4), None))
    assert codes == [killed.KILLED] * 2 and not results
    codes, (first, second) = in_two(crops, tmp_path, "again")
    assert codes == [0, 0] and first["steps"] == 2
    assert_same(first, second)
    assert_same(first, alone)


def test_the_checkpoint_of_two_processes_is_not_gone_on_with_by_one(crops, tmp_path):
    in_two(crops, tmp_path, "two")
    with pytest.raises(ValueError, match=r"found one with other processes \(2 instead of 1\)"):
        go_on(crops, tmp_path / "two.pt")


# -- checkpoints that are none -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(crops, tmp_path_factory):
    """Of a training that was killed in its seventh step."""
    folder = tmp_path_factory.mktemp("killed")
    assert killed.run(killed.train_tiny, crops, folder / "c.pt", folder / "result.pt", ("step", 7)) == killed.KILLED
    return (folder / "c.pt").read_bytes()


def go_on(dataset, path, backbone=None, **options):
    """As ``killed.train_tiny``, in this process."""
    net = killed.Paced(backbone or killed.tiny_backbone(), lambda name: steps.append(name))
    steps = []
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1} | options
    history = training.train(net, dataset, checkpoint=path, after_epoch=net.slow_down, **settings)
    return {"state": net.state_dict(), "history": history, "steps": steps.count("step")}


def relabelled(dataset):
    other = Subset(dataset, range(len(dataset)))
    other.labels = other.labels.roll(1)
    return other


@pytest.mark.parametrize(
    "name, change",
    [
        ("epochs", {"epochs": 3}),
        ("learning_rate", {"learning_rate": 0.2}),
        ("head_factor", {"head_factor": 1.0}),
        ("batch_size", {"batch_size": 7}),
        ("weight_decay", {"weight_decay": 0.5}),
        ("momentum", {"momentum": 0.5}),
        ("nesterov", {"nesterov": False}),
        ("schedule", {"schedule": "constant"}),
        ("schedule", {"step_epochs": 3}),
        ("schedule", {"step_factor": 0.5}),
        ("input_size", {"input_size": 48}),
        ("seed", {"seed": 1}),
        ("images", {"dataset": lambda dataset: Subset(dataset, range(13))}),
        ("images", {"dataset": lambda dataset: Subset(dataset, [*range(12), 13, 12])}),
        ("images", {"dataset": relabelled}),
        ("model", {"backbone": lambda: killed.tiny_backbone(channels=9)}),
        ("model", {"backbone": lambda: killed.tiny_backbone().freeze(1)}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_the_checkpoint_of_another_training(crops, checkpoint, tmp_path, name, change):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(checkpoint)
    change = dict(change)
    dataset = change.pop("dataset", lambda dataset: dataset)(crops)
    backbone = change.pop("backbone", lambda: None)()
    with pytest.raises(
        ValueError, match=rf"expected the checkpoint of this training in .*, found one with other {name} "
    ):
        go_on(dataset, path, backbone, **change)
    assert path.read_bytes() == checkpoint and os.listdir(tmp_path) == ["checkpoint.pt"]


def test_several_differences_are_all_named(crops, checkpoint, tmp_path):
    (tmp_path / "c.pt").write_bytes(checkpoint)
    with pytest.raises(ValueError, match=r"found one with other epochs, momentum \(2 instead of 4\): correct them"):
        go_on(crops, tmp_path / "c.pt", epochs=4, momentum=0.1)


class Stranger:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def zipped(**files) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def read(content: bytes):
    return torch.load(io.BytesIO(content), weights_only=True)


NOT_CHECKPOINTS = {
    "empty": lambda whole, marker: b"",
    "text": lambda whole, marker: b"no checkpoint\n",
    "noise": lambda whole, marker: random.Random(0).randbytes(5000),
    "cut in half": lambda whole, marker: whole[: len(whole) // 2],
    "cut at its end": lambda whole, marker: whole[:-1],
    "without its beginning": lambda whole, marker: whole[100:],
    "another zip": lambda whole, marker: zipped(a=b"1"),
    "a pickle": lambda whole, marker: pickle.dumps({"facts": {}}),
    "a stranger's pickle": lambda whole, marker: pickle.dumps(Stranger(marker)),
    "a stranger's torch file": lambda whole, marker: saved(Stranger(marker)),
    "a stranger beside the facts": lambda whole, marker: saved(read(whole) | {"model": Stranger(marker)}),
    "weights": lambda whole, marker: saved(read(whole)["model"]),
    "a list": lambda whole, marker: saved([1, 2]),
    "facts that are none": lambda whole, marker: saved(read(whole) | {"facts": 3}),
    "facts alone": lambda whole, marker: saved({"facts": read(whole)["facts"]}),
    "without weights": lambda whole, marker: saved(read(whole) | {"model": {}}),
    "without an optimizer": lambda whole, marker: saved(read(whole) | {"optimizer": None}),
    "without sums": lambda whole, marker: saved({k: v for k, v in read(whole).items() if k != "totals"}),
}


@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint(crops, checkpoint, tmp_path, kind):
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "marker"
    content = NOT_CHECKPOINTS[kind](checkpoint, marker)
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of a training in .*: delete it to train from the start"
    ):
        go_on(crops, path)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_folder_is_no_checkpoint(crops, tmp_path):
    with pytest.raises(ValueError, match=r"expected a checkpoint of a training in .* \(IsADirectoryError\)"):
        go_on(crops, tmp_path)


def test_a_flipped_bit_is_found_or_does_not_matter(crops, checkpoint, left_alone, tmp_path):
    """Torch alone reads flipped weights as if they were right."""
    found, chance, path = 0, random.Random(0), tmp_path / "checkpoint.pt"
    for _ in range(30):
        content, place = bytearray(checkpoint), chance.randrange(len(checkpoint))
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            result = go_on(crops, path)
        except ValueError as error:
            assert "found another or a damaged file" in str(error)
            assert path.read_bytes() == content
            found += 1
        else:
            assert_same(result, left_alone)  # of the padding between the parts, say
    assert found > 5
    path.write_bytes(
        checkpoint.replace(
            weights := bytes(read(checkpoint)["model"]["backbone.head.weight"].numpy()),
            weights[:-1] + bytes([weights[-1] ^ 1]),
        )
    )
    with pytest.raises(ValueError, match="found another or a damaged file"):
        go_on(crops, path)


def test_a_checkpoint_where_nothing_can_be_written(crops, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="expected a folder that can be written to"):
        go_on(crops, tmp_path / "file" / "checkpoint.pt")
    assert (tmp_path / "file").read_text() == "mine"
