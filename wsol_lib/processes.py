"""Several processes that share one work, as torchrun and ``accelerate launch`` start them: each takes whole batches.

What a batch gives does not hang on who computes it, so two processes find what one finds. All of them have to come to
:func:`gathered`; one alone passes through.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object


def begin() -> PartialState:
    """Which of the processes this one is, said at the start of a command; without a GPU they talk over gloo."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # without it each would work alone
    Accelerator()
    return PartialState()


def share(count: int, batch: int) -> list[int]:
    """This process's places of 0 ... count - 1: every n-th batch, all whole but the last of all.

    >>> share(5, 2)
    [0, 1, 2, 3, 4]
    """
    state = PartialState()
    starts = range(state.process_index * batch, count, state.num_processes * batch)
    return [i for start in starts for i in range(start, min(start + batch, count))]


def gathered(part: Any) -> list[Any]:
    """What each process has to say, plain values or tensors on the CPU, in the order of the processes."""
    return gather_object([part])
