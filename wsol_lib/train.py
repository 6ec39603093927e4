"""Training: one loop for every method.

The recipe all methods of the book share unless a paper says otherwise: SGD with Nesterov momentum, a larger learning rate
for what is newly initialised (as in "Evaluating WSOL Methods Right" and in PSOL), and a one-cycle schedule, because the
budgets here are short. What is minimised is the method's own ``loss``; what it may see is decided here, by ``targets``.
Devices, precision and several processes are accelerate's business.

Chance has an address: the images of an epoch, the transforms of a batch and what the method draws in a step each have a seed
of their own, made of ``seed`` and of where they are. So a training that goes on from a checkpoint, or whose images are
loaded by more processes, gives the network of one left alone.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wsol_lib.cache import atomic_path
from wsol_lib.data import Sample
from wsol_lib.data.on_device import on_device
from wsol_lib.models import Backbone

SCHEDULES = ("one-cycle", "constant", "step")
#: Between two checkpoints inside an epoch; at its end there always is one. Several processes write at the end of epochs alone.
CHECKPOINT_SECONDS = 60.0
#: How far the one-cycle schedule moves the momentum to both sides, against the rate: torch's own 0.85 to 0.95 round 0.9
MOMENTUM_SWING = 0.05


class NotFinite(ValueError):
    """A training whose loss is no longer a finite number."""


def labels(samples: list[Sample]) -> Tensor:
    """What weak supervision is: the labels, int64 (N,)."""
    return torch.tensor([sample.label for sample in samples])


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    learning_rate: float = 0.01,
    head_factor: float = 10.0,
    batch_size: int = 32,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    nesterov: bool = True,
    schedule: str = "one-cycle",
    step_epochs: int = 1,
    step_factor: float = 0.1,
    targets: Callable[[list[Sample]], Any] = labels,
    input_size: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place; nothing of a sample but its image and its ``targets`` is looked at.

    Args:
        model: has a ``backbone`` and ``loss(inputs, targets)``, as :class:`wsol_lib.cam.CAM`; left in eval mode, on the
            device it was trained on
        dataset: its samples' images share one size; its transform does the augmentation
        epochs: passes over the data
        learning_rate, head_factor: peak rate of the trunks of its backbones, and how many times as large that of all else is
        batch_size: images a step and process; the last batch of an epoch may be smaller
        weight_decay, momentum, nesterov: of SGD; one-cycle moves the momentum by ``MOMENTUM_SWING`` to both sides, unless it
            is 0
        schedule: "one-cycle", "constant", or "step", which multiplies the rates by ``step_factor`` after every
            ``step_epochs`` epochs
        targets: the supervision of some samples, as a tensor or a tuple of tensors
        input_size: side in pixels the images are resized to; None keeps theirs
        num_workers: processes that load images; 0 loads in this one
        seed: of all that is random: the order of the images, transforms, the method
        checkpoint: a file, written now and then and at the end; where it is there, the training goes on from it
        after_epoch: called with the number of the epoch (from 1) when it is over, the model in eval mode, before the
            checkpoint is written. A training that goes on does not call it again for epochs that the checkpoint holds: what
            it changes for later epochs has to be in the model's state, as a buffer, say. After a kill between the call and
            the checkpoint it is called for the same epoch once more: what it does outside the model has to bear that

    Returns:
        one row an epoch: ``epoch`` (from 1) and the means of all that ``loss`` gave, over the training images as they
        were seen.

    Raises:
        ValueError: a label outside the classes of the head; a loss that is no longer finite; an unknown schedule; a
            checkpoint of another training, or a damaged one, which is left as it is
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"expected a schedule out of {', '.join(SCHEDULES)}, found {schedule!r}: choose one of these")
    if targets is labels:
        _check_labels(model, dataset)
    accelerator = Accelerator()
    batches = _Batches(dataset, targets, batch_size, epochs, seed, accelerator)
    optimizer = torch.optim.SGD(
        _parameter_groups(model, learning_rate, head_factor),
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
    )
    step, optimizer = accelerator.prepare(_Step(model), optimizer)
    scheduler = _scheduler(optimizer.optimizer, schedule, len(batches), batches.steps, step_epochs, step_factor)
    facts = {
        "model": _shape(model), "images": _names(dataset), "processes": accelerator.num_processes,
        "epochs": epochs, "learning_rate": learning_rate, "head_factor": head_factor,
        "batch_size": batch_size, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
        "schedule": [schedule, step_epochs, step_factor], "input_size": input_size, "seed": seed,
    }  # fmt: skip
    state = _State(checkpoint, facts, model, optimizer.optimizer, scheduler, accelerator)
    loader = batches.loader(state.step, num_workers)
    with tqdm(
        total=len(batches), initial=state.step, desc="training", unit="step", leave=None, disable=not accelerator.is_main_process
    ) as bar:  # fmt: skip
        step.train()
        for number, (images, supervision) in enumerate(loader, start=state.step + 1):
            set_seed(_seed(seed, 2, number, accelerator.process_index))
            images, supervision = send_to_device((images, supervision), accelerator.device, non_blocking=True)
            inputs = model.backbone.preprocess(images, input_size)
            with accelerator.autocast():
                values = step(inputs, supervision)
            accelerator.backward(values["loss"])
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            state.add(number, values, len(images))
            bar.update()
            epoch, inside = divmod(number, batches.steps)
            if inside:
                state.save_now_and_then()
                continue
            _share_buffers(model, accelerator)
            row = state.close_epoch(epoch)
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name != "epoch"})
            step.eval()
            if after_epoch is not None:
                after_epoch(epoch)
            state.save()
            step.train()
    step.eval()
    return state.history


class _Batches(Dataset):
    """The batches of a whole training by number, each the same whoever asks for it and whenever."""

    def __init__(
        self, dataset: Dataset, targets: Callable, batch_size: int, epochs: int, seed: int, accelerator: Accelerator
    ):
        self.dataset, self.targets, self.batch_size, self.seed = dataset, targets, batch_size, seed
        self.process, self.processes = accelerator.process_index, accelerator.num_processes
        self.on_device = on_device(dataset, accelerator.device) if targets is labels else None
        self.pin = accelerator.device.type == "cuda" and self.on_device is None
        self.steps = -(-len(dataset) // (batch_size * self.processes))  # an epoch
        self.epochs = epochs
        self._order: tuple[int, Tensor | None] = (-1, None)

    def __len__(self) -> int:
        return self.epochs * self.steps

    def __getitem__(self, number: int) -> tuple[Tensor, Any]:
        """Batch ``number`` (from 0): images (n, 3, H, W) and their targets."""
        epoch, inside = divmod(number, self.steps)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_seed(self.seed, 0, epoch))
            self._order = epoch, torch.randperm(len(self.dataset), generator=generator)
        indices = self._own(self._order[1], inside)
        set_seed(_seed(self.seed, 1, number, self.process))
        if self.on_device is not None:
            return self.on_device.batch(indices)
        if self.targets is labels and hasattr(self.dataset, "batch"):
            batch = self.dataset.batch(indices)
            return batch.images.contiguous(), batch.labels
        get = getattr(self.dataset, "__getitems__", None)
        samples = get(indices) if get else [self.dataset[i] for i in indices]
        return torch.stack([sample.image.as_subclass(Tensor) for sample in samples]), self.targets(samples)

    def _own(self, order: Tensor, inside: int) -> list[int]:
        """The places of this process's share of a step; where the epoch ends unevenly, it is filled from its beginning."""
        width = self.batch_size * self.processes
        shared = order[inside * width : (inside + 1) * width]
        if self.processes > 1 and len(shared) % self.processes:
            missing = -len(shared) % self.processes
            shared = torch.cat([shared, order.repeat(-(-missing // len(order)))[:missing]])
        return shared[self.process :: self.processes].tolist()

    def loader(self, start: int, num_workers: int) -> DataLoader:
        """Batches ``start`` and after."""
        workers = num_workers if self.on_device is None else 0
        return DataLoader(
            self, batch_size=None, sampler=range(start, len(self)), num_workers=workers, pin_memory=self.pin
        )


class _State:
    """Where a training is: steps done, sums of the epoch, history; and its file, if it has one.

    The file holds the weights, the optimizer's state, the schedule's, and the facts that make it this training.
    """

    def __init__(
        self,
        path: str | Path | None,
        facts: dict,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        accelerator: Accelerator,
    ):
        self.path = None if path is None else Path(path)
        self.facts = json.loads(json.dumps(facts))
        self.parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self.accelerator, self.step, self.saved = accelerator, 0, time.monotonic()
        self.history: list[dict[str, float]] = []
        self.totals: dict[str, Tensor] = {}  # of the epoch by name: sum and number of images
        if self.path is not None and self.path.exists():
            self._load()

    def add(self, step: int, values: dict[str, Tensor], images: int) -> None:
        """Count a finished step."""
        self.step = step
        for name, value in values.items():
            more = _weighted(value, images)
            self.totals[name] = self.totals[name].to(more) + more if name in self.totals else more

    def close_epoch(self, epoch: int) -> dict[str, float]:
        """The epoch's row of the history; its sums start anew."""
        row = {"epoch": epoch, **_means(self.accelerator, self.totals, epoch)}
        self.history.append(row)
        self.totals = {}
        return row

    def save_now_and_then(self) -> None:
        # clocks differ: one of several processes would wait for the others here, and they for it in the next step
        if self.accelerator.num_processes == 1 and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; of several processes the first one does."""
        if self.path is None:
            return
        if self.accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            own = {"facts": self.facts, "step": self.step, "history": self.history}
            with atomic_path(self.path) as temporary:
                torch.save(state | own | {"totals": self.totals}, temporary)
        self.accelerator.wait_for_everyone()
        self.saved = time.monotonic()

    def _load(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as file:
                if file.testzip() is not None:  # torch does not look at the checksums
                    raise zipfile.BadZipFile
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            facts = dict(state["facts"])
        except Exception as error:  # a damaged file can give any
            raise self._damaged(error) from error
        other = sorted(name for name in self.facts if facts.get(name) != self.facts[name])
        if other:
            raise ValueError(
                f"expected the checkpoint of this training in {self.path}, found one with other {', '.join(other)} "
                f"({facts.get(other[0])!r} instead of {self.facts[other[0]]!r}): correct them, or name another file"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.step, self.history, self.totals = state["step"], state["history"], state["totals"]
        except Exception as error:  # what else it holds may be anything, too
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"expected a checkpoint of a training in {self.path}, found another or a damaged file "
            f"({type(error).__name__}): delete it to train from the start"
        )


class _Step(nn.Module):
    """``model.loss`` as a forward pass, which is what several processes synchronise."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Any) -> dict[str, Tensor]:
        return self.model.loss(inputs, targets)


def _seed(*address: int) -> int:
    """A seed of its own for every address: seed, what for, which."""
    return int(np.random.SeedSequence(address).generate_state(1)[0])


def _names(dataset: Dataset) -> str:
    """Which images in which order and of which classes, in a few letters; their number where they have no names."""
    names, classes = getattr(dataset, "image_ids", [len(dataset)]), getattr(dataset, "labels", [])
    return _digest(*names, "", *torch.as_tensor(classes).tolist())


def _shape(model: nn.Module) -> str:
    """Which tensors make up the model and which of them learn, in a few letters."""
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return _digest(*((name, *value.shape) for name, value in model.state_dict().items()), "", *learning)


def _digest(*values: Any) -> str:
    return hashlib.sha256("\0".join(map(str, values)).encode()).hexdigest()[:16]


def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Of several processes each has seen other images: batch norm's running means of the first are those of all."""
    if accelerator.num_processes > 1:
        buffers = list(model.buffers())
        for own, first in zip(buffers, broadcast([buffer.clone() for buffer in buffers])):
            own.copy_(first)


def _weighted(value: Tensor, images: int) -> Tensor:
    value = value.detach().double() if value.device.type != "mps" else value.detach().float()
    return torch.stack([value * images, value.new_full((), images)])  # no copy for which a GPU would be waited for


def _parameter_groups(model: nn.Module, learning_rate: float, head_factor: float) -> list[dict]:
    """The trunks of all backbones in the model, and everything else; without what is frozen."""
    trunks = [module.trunk for module in model.modules() if isinstance(module, Backbone)]
    known = {id(parameter) for trunk in trunks for parameter in trunk.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if id(parameter) in known], "lr": learning_rate},
        {
            "params": [parameter for parameter in trained if id(parameter) not in known],
            "lr": learning_rate * head_factor,
        },
    ]
    return [group for group in groups if group["params"]]


def _scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, total: int, steps: int, step_epochs: int, step_factor: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """``total`` steps in all, ``steps`` an epoch."""
    if schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, step_epochs * steps, step_factor)
    peaks, momentum = [group["lr"] for group in optimizer.param_groups], optimizer.defaults["momentum"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        peaks,
        total_steps=max(total, 1),
        pct_start=0.3,
        cycle_momentum=momentum > 0,
        base_momentum=max(round(momentum - MOMENTUM_SWING, 9), 0.0),
        max_momentum=min(round(momentum + MOMENTUM_SWING, 9), 0.99),
    )


def _means(accelerator: Accelerator, totals: dict[str, Tensor], epoch: int) -> dict[str, float]:
    sums = accelerator.reduce(dict(totals), reduction="sum")
    means = {name: float(value / images) for name, (value, images) in sums.items()}
    if not np.isfinite(means["loss"]):
        raise NotFinite(
            f"expected a finite training loss, found {means['loss']} in epoch {epoch}: lower learning_rate and start again"
        )
    return means


def _check_labels(model: nn.Module, dataset: Dataset) -> None:
    linear = [module for module in model.backbone.head.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return
    num_classes = linear[-1].out_features
    if int(dataset.labels.max()) >= num_classes or int(dataset.labels.min()) < 0:
        raise ValueError(
            f"expected labels in 0 ... {num_classes - 1}, the classes of the backbone's head, found "
            f"{int(dataset.labels.min())} ... {int(dataset.labels.max())}: create the backbone with "
            f"num_classes={len(dataset.class_names)}"
        )
