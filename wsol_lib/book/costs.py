"""What an experiment costs: hours, memory and disk, from what can be counted and what was measured.

Counted, on torch's device "meta" and so without computing anything: multiplications in the convolutions and linear layers of
each network, and the bytes that its forward pass keeps for the backward pass. How often a localizer looks at an image, and
through which of its networks, is said in :func:`trainings` and :func:`looks`; a test counts it in a real fit. Measured, by
``benchmarks/rates.py``, into ``book/rates.yaml``: floating-point operations a second of each backbone, photographs that a core
reads and score maps of which it draws boxes in a second. For a GPU that nobody has measured the file has the printed peak and
the share of it that is assumed.

Trunks are taken as trained whole, which is what the papers publish. Not counted: start and imports, thresholds that boxed
images choose, waiting for a file system. Python's share of a step is in the measured rates.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from wsol_lib import localizers
from wsol_lib.book.definitions import Experiment, find
from wsol_lib.commands.reading import THREADS
from wsol_lib.ddt import DDTLocalizer
from wsol_lib.lchp import LCHPI, LCHPR, PseudoLabels
from wsol_lib.localizer import BATCH, Localizer
from wsol_lib.models import Backbone, eval_mode
from wsol_lib.psol import PSOL
from wsol_lib.slt import SLT, SLTMaps

FILE = "rates.yaml"
#: Images of train-weaksup and test
SIZES = {
    "cub": (5_994, 5_794),
    "imagenet": (1_281_167, 50_000),
    "openimages": (29_819, 5_000),
    "tiny-imagenet": (98_000, 10_000),
}
CLASSES = 1000  # of every network that is counted: what fewer save is little
FLOAT = 4  # bytes


# -- how often a localizer looks at an image ---------------------------------------------------------------------------


def trainings(
    method: type[Localizer], settings: Mapping[str, Any]
) -> list[tuple[float, dict[str, tuple[float, float]]]]:
    """The trainings of a fit, one after the other.

    Returns:
        for each its share of the epochs; and for each backbone, by its path in the network, how often a training image goes
        through it in an epoch: to learn, and to be looked at alone
    """
    if issubclass(method, LCHPI):
        regressor = "student.regressor.backbone"
        first = {"student.classifier": (2, 0), "student.generator": (0, 2), regressor: (1, 0)}
        if not issubclass(method, LCHPR):
            return [(1.0, first)]
        last = settings["refinement"]
        return [(1 - last, first), (last, {regressor: (1, 1), "student.classifier": (0, 1)})]
    views = 2 if settings.get("beta") and settings.get("stimuli") else 1
    if issubclass(method, SLT):
        student = {"student.localizer.backbone": (views, 0), "student.regressor.backbone": (1, 0)}
    elif issubclass(method, PSOL):
        student = {"student.backbone": (1, 0)}
    elif method.supervision == "nothing":
        return []
    else:
        return [(1.0, {"backbone": (views if issubclass(method, SLTMaps) else 1, 0)})]
    separate = settings["classifier"] == "separate"
    return [(1.0, student), *([(1.0, {"classifier.backbone": (1, 0)})] if separate else [])]


def looks(method: type[Localizer], settings: Mapping[str, Any]) -> dict[str, float]:
    """How often an image whose box is wanted goes through each backbone, by its path in the network."""
    if issubclass(method, LCHPI):
        found = {"student.regressor.backbone": 1, "student.classifier": 1}
        found |= {"student.generator": 2} if issubclass(method, PseudoLabels) else {}
    elif issubclass(method, PSOL):
        found = {"student.regressor.backbone" if issubclass(method, SLT) else "student.backbone": 1}
        if settings["classifier"] == "joint":  # its boxes are asked for, and then its classes
            found = {"student.backbone": 2}
        elif settings["classifier"] == "separate":
            found["classifier.backbone"] = 1
    else:
        found = {} if method.supervision == "nothing" and not issubclass(method, DDTLocalizer) else {"backbone": 1}
    return {path: number * (2 if settings["mirror"] else 1) for path, number in found.items()}


# -- what a look costs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """One image through one backbone: floating-point operations, bytes kept for the backward pass, bytes of the widest layer."""

    flops: float
    kept: int
    widest: int


@dataclass(frozen=True)
class Counts:
    """A localizer's network: its looks by path, all its parameters, and the side in pixels of what it sees."""

    looks: Mapping[str, Look]
    parameters: int
    side: int


def count(name: str, settings: Mapping[str, Any]) -> Counts:
    """The network of a localizer with these settings, built and run on the device "meta"."""
    return _counted(name, json.dumps({**settings, "epochs": 0, "batch_size": 1}, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _counted(name: str, settings: str) -> Counts:
    method = localizers.find(name)
    chosen = json.loads(settings) | {"pretrained": False, "seed": 0}
    localizer = method.__new__(method)  # its own __init__ would move the network to a real device
    localizer.name, localizer.class_names, localizer.wnids = name, tuple(map(str, range(CLASSES))), None
    localizer.settings, localizer.tau = chosen, chosen["tau"]
    with torch.device("meta"):
        network = localizer.network = localizer.build()
    paths = {*looks(method, chosen), *(path for _, parts in trainings(method, chosen) for path in parts)}
    side = localizer.input_size
    found = {path: look_of(attrgetter(path)(network), side) for path in paths}
    if paths == {"backbone"}:
        found["backbone"] = _with_branches(found["backbone"], network, side)
    return Counts(found, sum(parameter.numel() for parameter in network.parameters()), side)


_LOOKS: dict[tuple, Look] = {}  # by the layers that a backbone is made of, which of them learn, and the side


def look_of(backbone: Backbone, side: int) -> Look:
    """One image of this side in pixels through a backbone on the device "meta"; of the same layers it is counted once."""
    key = repr(backbone), tuple(parameter.requires_grad for parameter in backbone.parameters()), side
    if key not in _LOOKS:
        _LOOKS[key] = _look(backbone, side)
    return _LOOKS[key]


def _look(backbone: Backbone, side: int) -> Look:
    flops, widest, kept = [0.0], [0], {}

    def count_layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flops[0] += 2 * output[0].numel() * module.weight[0].numel()
        widest[0] = max(widest[0], FLOAT * (inputs[0].numel() + output.numel()))

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    own = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [module.register_forward_hook(count_layer) for module in layers]
    try:
        with eval_mode(backbone), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            backbone(backbone.mean.new_zeros(1, 3, side, side))
    finally:
        for handle in handles:
            handle.remove()
    return Look(flops[0], sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own), widest[0])


def _with_branches(look: Look, network: nn.Module, side: int) -> Look:
    """With the convolutions that stand on the trunk beside its head (ACoL's and SPG's), at the trunk's last resolution."""
    inside = {layer for module in network.modules() if isinstance(module, Backbone) for layer in module.modules()}
    outside = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer not in inside]
    if not outside:
        return look
    with torch.no_grad(), eval_mode(network):
        cells = network.backbone.features(network.backbone.mean.new_zeros(1, 3, side, side)).shape[-2:].numel()
    return Look(
        look.flops + 2 * cells * sum(layer.weight.numel() for layer in outside),
        look.kept + FLOAT * cells * sum(layer.in_channels + layer.out_channels for layer in outside),
        look.widest,
    )


# -- what was measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        name: the device's
        rates: backbone -> floating-point operations of forward passes a second, when it looks alone and when it learns
        reads: side in pixels -> photographs that one process reads in a second, as squares of that side
        boxes: score maps of 224 x 224 pixels that become boxes in a second
        measured: whether the rates are, or are a share of what is printed on the box
        memory: of the device, bytes
    """

    name: str
    rates: Mapping[str, tuple[float, float]]
    reads: Mapping[int, float]
    boxes: float
    measured: bool = True
    memory: float | None = None
    default: tuple[float, float] | None = None

    @property
    def is_cpu(self) -> bool:
        return self.name.startswith("cpu")

    def together(self, computing: float, reading: float) -> float:
        """Seconds of both: a GPU computes while processes read, on a CPU they share the core."""
        return computing + reading if self.is_cpu else max(computing, reading)

    def rate(self, backbone: str) -> tuple[float, float]:
        """The backbone's rates; of one that was not measured the median of the others."""
        if backbone in self.rates:
            return self.rates[backbone]
        return self.default or tuple(map(statistics.median, zip(*self.rates.values())))

    def reads_at(self, side: int) -> float:
        return self.reads[min(self.reads, key=lambda known: abs(known - side))]


def machines(path: str | Path | None = None) -> dict[str, Machine]:
    """Those of ``book/rates.yaml``, by name, the measured ones first; of the others what is printed times the assumed share.

    Raises:
        FileNotFoundError: the file is not at hand
        ValueError: it is not what ``benchmarks/rates.py`` writes
    """
    path = path or find(FILE)
    if path is None or not Path(path).exists():
        raise FileNotFoundError(f"expected measured rates in {path or 'book/' + FILE}, found none: go there first")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        found = {}
        for one in content["measured"]:
            rates = {name: (1e9 * float(look), 1e9 * float(learn)) for name, (look, learn) in one["gflops"].items()}
            found[one["device"]] = Machine(one["device"], rates, one["reads"], one["boxes"], memory=one.get("memory"))
        core = content["measured"][0]
        for one in content["assumed"]:
            rate = 1e12 * one["teraflops"] * one["share"]
            memory = 1e9 * one["gigabytes"]
            assumed = Machine(one["device"], {}, core["reads"], core["boxes"], False, memory, (rate, rate / 3))
            found.setdefault(one["device"], assumed)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"expected rates as benchmarks/rates.py writes them in {path}, found something else ({type(error).__name__}: "
            f"{' '.join(str(error).split())}): measure them again"
        ) from error
    return found


def planned(found: Mapping[str, Machine], device: str) -> Machine:
    """The machine that estimates are for: this device if it was measured and is a GPU, or the first GPU there is."""
    gpus = [one for one in found.values() if not one.is_cpu]
    return next((one for one in gpus if one.name == device), gpus[0])


# -- hours, memory, disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of one training with its predictions.

    Attributes:
        flops: a training image and epoch, forward passes alone
        fit, predict: seconds
        waits: whether the fit waits for images rather than for the device
        memory: bytes on the device
        disk: bytes of the checkpoints, which are removed at the end
    """

    flops: float
    fit: float
    predict: float
    waits: bool
    memory: float
    disk: float

    @property
    def seconds(self) -> float:
        return self.fit + self.predict


def of_experiment(experiment: Experiment, machine: Machine, root: str | Path | None = None) -> Cost | None:
    """What one seed of an experiment costs; None where it is not known how many images there are.

    A data set as it is has the images of ``SIZES``, whether it is at hand or not. None also of a localizer of one's own whose
    backbones are not where the library's have them.
    """
    train, test = SIZES.get(experiment.dataset, (None, None))
    if train is None or any(experiment.options.values()):
        train, test = (experiment.size(split, root) for split in ("train-weaksup", "test"))
    if train is None or test is None:
        return None
    try:
        return of_settings(experiment.localizer, experiment.dataset, experiment.settings, machine, train, test)
    except AttributeError:
        return None


def of_settings(
    name: str,
    dataset: str,
    settings: Mapping[str, Any],
    machine: Machine,
    train: int,
    test: int,
    processes: int = 1,
) -> Cost:
    """What a fit and the predictions of a test split cost.

    Args:
        name, dataset: of the localizer and the data
        settings: all of the localizer's
        machine: where
        train, test: images
        processes: of a training that several devices share, and what DDT looks at; predictions of the test stay with each
    """
    method = localizers.find(name)
    counts = count(name, settings)
    look_rate, learn_rate = machine.rate(settings["backbone"])
    reads = machine.reads_at(counts.side)
    epochs, batch = settings["epochs"], settings["batch_size"]
    readers = processes * max(1, settings["num_workers"])
    fit, memory, disk, flops, waits = 0.0, 0.0, 0.0, 0.0, False
    for share, parts in trainings(method, settings):
        learn = sum(often * counts.looks[path].flops for path, (often, _) in parts.items())
        alone = sum(often * counts.looks[path].flops for path, (_, often) in parts.items())
        kept = sum(often * counts.looks[path].kept for path, (often, _) in parts.items())
        drawing = 1 / machine.boxes if issubclass(method, SLT) else 0.0  # its teacher's boxes, in every step
        computing, reading = (learn / learn_rate + alone / look_rate + drawing) / processes, 1 / (readers * reads)
        fit += share * epochs * train * machine.together(computing, reading)
        waits |= reading > computing
        flops += share * (learn + alone)
        memory = max(memory, batch * kept + 3 * FLOAT * counts.parameters)  # weights, gradients, momentum
        disk += 2 * FLOAT * counts.parameters
    asked = looks(method, settings)
    one_look = _one_look(method, counts, asked, machine, look_rate) + 1 / reads
    if issubclass(method, DDTLocalizer):
        fit += train * one_look / processes
    if issubclass(method, PSOL) and not issubclass(method, SLT | LCHPI):
        teacher, its_settings = _teacher(method, dataset, settings, counts.side)
        taught = of_settings(teacher, dataset, its_settings, machine, train, train, processes)
        fit += taught.fit + taught.predict / processes
        memory, disk = max(memory, taught.memory), disk + taught.disk
    wide = max((counts.looks[path].widest for path in asked), default=0)
    memory = max(memory, BATCH * wide + FLOAT * counts.parameters)
    return Cost(flops, fit, test * one_look, waits, memory, disk)


def _teacher(method: type[PSOL], dataset: str, settings: Mapping[str, Any], side: int) -> tuple[str, dict[str, Any]]:
    """PSOL's teacher and its settings, as :meth:`wsol_lib.psol.PSOL.teach` asks for it."""
    name = settings["teacher"]
    own = {key: settings[key] for key in ("backbone", "pretrained", "precision", "num_workers")}
    own["input_size"] = side * (2 if name == "ddt" else 1)
    return name, localizers.find(name).settings_for(name, dataset, own | settings["teacher_settings"])


def _one_look(
    method: type[Localizer], counts: Counts, asked: Mapping[str, float], machine: Machine, rate: float
) -> float:
    """Seconds in which an image that was read gets its box."""
    computing = sum(often * counts.looks[path].flops for path, often in asked.items()) / rate
    return computing + (1 / machine.boxes if method.makes_maps else 0.0)


def of_photographs(name: str, settings: Mapping[str, Any], machine: Machine, number: int) -> float:
    """Seconds in which one process of ``predict`` gives boxes of photographs, decoded by its threads."""
    method, counts = localizers.find(name), count(name, settings)
    computing = _one_look(method, counts, looks(method, settings), machine, machine.rate(settings["backbone"])[0])
    return number * machine.together(
        computing, 1 / (machine.reads_at(counts.side) * (1 if machine.is_cpu else THREADS))
    )


# -- the tables of the page "On a cluster" -----------------------------------------------------------------------------

BACKBONE, READERS = "resnet50", 8  # of its tables, and processes that read images, for each GPU


def tables(found: Mapping[str, Machine]) -> dict[str, str]:
    """Name -> a table in Markdown, of machines as :func:`machines` gives them."""
    gpu = planned(found, "")
    cores = [one for one in found.values() if one.is_cpu][:1]
    head = ("GFLOP an image", "hours, one GPU", "hours, eight", "GB on the GPU", "GB of checkpoints")
    training = [("localizer", "epochs", *head)]
    million = [("localizer", "hours, one GPU", "hours, eight", *("hours, one core" for _ in cores))]
    for name in localizers.NAMES:
        method = localizers.find(name)
        settings = method.settings_for(name, "imagenet", {"backbone": BACKBONE, "num_workers": READERS})
        one, eight = (of_settings(name, "imagenet", settings, gpu, *SIZES["imagenet"], number) for number in (1, 8))
        hours = [_short(own.seconds / 3600) + " (waits for images)" * own.waits for own in (one, eight)]
        epochs = str(settings["epochs"]) if trainings(method, settings) else "-"
        memory, disk = _short(one.memory / 1e9), _short(one.disk / 1e9)
        training.append((name, epochs, _short(one.flops / 1e9), *hours, memory, disk))
        on_gpu, *on_core = (of_photographs(name, settings, machine, 1_000_000) / 3600 for machine in (gpu, *cores))
        million.append((name, _short(on_gpu), _short(on_gpu / 8), *map(_short, on_core)))
    names = list(dict.fromkeys(name for one in found.values() for name in one.rates))
    rates = [("gigaflops", *(f"{one.name}, {what}" for one in found.values() for what in ("looking", "learning")))]
    for name in names:
        rates.append((name, *(_short(rate / 1e9) for one in found.values() for rate in one.rate(name))))
    return {name: _markdown(rows) for name, rows in (("training", training), ("million", million), ("rates", rates))}


def _short(value: float) -> str:
    """
    >>> _short(0), _short(0.04), _short(3.21), _short(12345.6)
    ('-', '< 0.1', '3.2', '12,346')
    """
    if value == 0:
        return "-"
    return "< 0.1" if value < 0.05 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _markdown(rows: list[tuple[str, ...]]) -> str:
    head, *others = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *others]) + "\n"
