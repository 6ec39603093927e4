"""Training a classifier: a backbone and a dataset go in, a trained backbone and its history come out.

The recipe all localizers of the book share unless a paper says otherwise: cross entropy on image labels, SGD with Nesterov
momentum, a larger learning rate for the newly initialised head (as in "Evaluating WSOL Methods Right" and in PSOL), and a
one-cycle schedule, because the budgets here are short. Devices, precision and several processes are accelerate's business.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wsol_lib.data import Sample
from wsol_lib.models import Backbone


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Samples of one image size -> images uint8 (N, 3, H, W), labels int64 (N,)."""
    images = torch.stack([sample.image.as_subclass(Tensor) for sample in samples])
    return images, torch.tensor([sample.label for sample in samples])


def train_classifier(
    backbone: Backbone,
    dataset: Dataset,
    *,
    epochs: int,
    learning_rate: float = 0.01,
    head_factor: float = 10.0,
    batch_size: int = 32,
    weight_decay: float = 1e-4,
    input_size: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Fine-tune ``backbone`` in place on the image labels of ``dataset``; boxes and masks are never looked at.

    Args:
        backbone: left in eval mode, on the device it was trained on
        dataset: its samples' images share one size; its transform does the augmentation
        epochs: passes over the data
        learning_rate, head_factor: peak rate of the trunk, and how many times as large the head's is
        batch_size: images a step and process
        weight_decay: of SGD
        input_size: side in pixels the images are resized to; None keeps theirs
        num_workers: processes that load images; 0 loads in this one
        seed: of the shuffling and of random transforms

    Returns:
        one row an epoch: ``epoch`` (from 1), ``loss`` (mean cross entropy) and ``accuracy`` in [0, 1], both of the training
        images as they were seen.

    Raises:
        ValueError: a label outside the classes of the head; a loss that is no longer finite
    """
    _check_labels(backbone, dataset)
    set_seed(seed)
    accelerator = Accelerator()
    loader = DataLoader(dataset, batch_size, shuffle=True, collate_fn=collate, num_workers=num_workers)
    groups = [
        {"params": backbone.trunk.parameters(), "lr": learning_rate},
        {"params": backbone.head.parameters(), "lr": learning_rate * head_factor},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    model, optimizer, loader = accelerator.prepare(backbone, optimizer, loader)
    peaks = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer.optimizer, peaks, total_steps=epochs * len(loader), pct_start=0.3
    )
    history = []
    with tqdm(total=epochs * len(loader), desc="training", unit="step", disable=not accelerator.is_main_process) as bar:
        for epoch in range(1, epochs + 1):
            model.train()
            totals = torch.zeros(3, device=accelerator.device)  # loss, correct, seen
            for images, labels in loader:
                logits, loss = _step(accelerator, model, optimizer, backbone.preprocess(images, input_size), labels)
                schedule.step()
                correct = (logits.argmax(dim=1) == labels).sum()
                totals += torch.stack([loss * len(labels), correct, torch.full_like(loss, len(labels))])
                bar.update()
            loss, accuracy = _epoch_means(accelerator, totals, epoch)
            history.append({"epoch": epoch, "loss": loss, "accuracy": accuracy})
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")
    backbone.eval()
    return history


def _step(accelerator, model, optimizer, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One update of the weights; returns the detached logits and loss."""
    with accelerator.autocast():
        logits = model(inputs)
        loss = F.cross_entropy(logits, labels)
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    return logits.detach(), loss.detach()


def _epoch_means(accelerator, totals: Tensor, epoch: int) -> tuple[float, float]:
    loss, correct, seen = accelerator.reduce(totals, reduction="sum").tolist()
    if not torch.isfinite(torch.tensor(loss)):
        raise ValueError(
            f"expected a finite training loss, found {loss / seen} in epoch {epoch}: lower learning_rate and start again"
        )
    return loss / seen, correct / seen


def _check_labels(backbone: Backbone, dataset: Dataset) -> None:
    num_classes = [module for module in backbone.head.modules() if isinstance(module, torch.nn.Linear)][-1].out_features
    if int(dataset.labels.max()) >= num_classes or int(dataset.labels.min()) < 0:
        raise ValueError(
            f"expected labels in 0 ... {num_classes - 1}, the classes of the backbone's head, found "
            f"{int(dataset.labels.min())} ... {int(dataset.labels.max())}: create the backbone with "
            f"num_classes={len(dataset.class_names)}"
        )
