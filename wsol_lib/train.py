"""Training: a localizer and a dataset go in, the trained localizer and the history of its training come out.

The recipe all methods of the book share unless a paper says otherwise: SGD with Nesterov momentum, a larger learning rate
for what is newly initialised (as in "Evaluating WSOL Methods Right" and in PSOL), and a one-cycle schedule, because the
budgets here are short. What is minimised is the method's own ``loss``; what it may see is decided here, by ``targets``.
Devices, precision and several processes are accelerate's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wsol_lib.data import Sample
from wsol_lib.models import Backbone

SCHEDULES = ("one-cycle", "constant")


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
    schedule: str = "one-cycle",
    targets: Callable[[list[Sample]], Any] = labels,
    input_size: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
    after_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place; nothing of a sample but its image and its ``targets`` is looked at.

    Args:
        model: has a ``backbone`` and ``loss(inputs, targets)``, as :class:`wsol_lib.cam.CAM`; left in eval mode, on the
            device it was trained on
        dataset: its samples' images share one size; its transform does the augmentation
        epochs: passes over the data
        learning_rate, head_factor: peak rate of the trunks of its backbones, and how many times as large that of all else is
        batch_size: images a step and process
        weight_decay: of SGD
        schedule: "one-cycle" or "constant"
        targets: the supervision of some samples, as a tensor or a tuple of tensors
        input_size: side in pixels the images are resized to; None keeps theirs
        num_workers: processes that load images; 0 loads in this one
        seed: of the shuffling and of all that is random in transforms and in the method
        after_epoch: called with the number of the epoch (from 1) when it is over, the model in eval mode

    Returns:
        one row an epoch: ``epoch`` (from 1) and the means of all that ``loss`` gave, over the training images as they
        were seen.

    Raises:
        ValueError: a label outside the classes of the head; a loss that is no longer finite; an unknown schedule
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"expected a schedule out of {', '.join(SCHEDULES)}, found {schedule!r}: choose one of these")
    if targets is labels:
        _check_labels(model, dataset)
    set_seed(seed)
    accelerator = Accelerator()

    def collate(samples: list[Sample]) -> tuple[Tensor, Any]:
        return torch.stack([sample.image.as_subclass(Tensor) for sample in samples]), targets(samples)

    loader = DataLoader(dataset, batch_size, shuffle=True, collate_fn=collate, num_workers=num_workers)
    optimizer = torch.optim.SGD(
        _parameter_groups(model, learning_rate, head_factor), momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    step, optimizer, loader = accelerator.prepare(_Step(model), optimizer, loader)
    steps = epochs * len(loader)
    scheduler = _scheduler(optimizer.optimizer, schedule, steps)
    history = []
    with tqdm(total=steps, desc="training", unit="step", leave=None, disable=not accelerator.is_main_process) as bar:
        for epoch in range(1, epochs + 1):
            step.train()
            totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, device=accelerator.device))  # sum, images
            for images, supervision in loader:
                inputs = model.backbone.preprocess(images, input_size)
                with accelerator.autocast():
                    values = step(inputs, supervision)
                accelerator.backward(values["loss"])
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                for name, value in values.items():
                    totals[name] += torch.stack([value.detach().float() * len(images), value.new_tensor(len(images))])
                bar.update()
            history.append({"epoch": epoch, **_means(accelerator, totals, epoch)})
            bar.set_postfix({name: f"{value:.3f}" for name, value in history[-1].items() if name != "epoch"})
            step.eval()
            if after_epoch is not None:
                after_epoch(epoch)
    return history


class _Step(nn.Module):
    """``model.loss`` as a forward pass, which is what several processes synchronise."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Any) -> dict[str, Tensor]:
        return self.model.loss(inputs, targets)


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


def _scheduler(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    peaks = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=0.3)


def _means(accelerator: Accelerator, totals: dict[str, Tensor], epoch: int) -> dict[str, float]:
    sums = accelerator.reduce(dict(totals), reduction="sum")
    means = {name: float(value / images) for name, (value, images) in sums.items()}
    if not torch.isfinite(torch.tensor(means["loss"])):
        raise ValueError(
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
