"""Trainings in processes of their own, killed with SIGKILL at a chosen moment: what the tests of resumption need.

The processes are forked from a server that has imported the library, so that each starts in a fraction of a second.
"""

import functools
import io
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from wsol_lib import cache, localizers
from wsol_lib import train as training
from wsol_lib.has import HideAndSeek
from wsol_lib.models import Backbone, GapLinear

KILLED = -signal.SIGKILL
TIMEOUT = 120  # seconds; nothing here takes more than a few


@functools.cache
def processes():
    """The context whose processes are forked from the server; where that begins it finds the modules of the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wsol_lib.localizers", "wsol_lib.book.experiments", "pytest", "warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def start(target, *arguments, **environment):
    """A process that calls ``target(*arguments)``, with these environment variables."""
    process = processes().Process(target=_call, args=(target, arguments, environment))
    process.start()
    return process


def run(target, *arguments, **environment) -> int:
    """The exit code of such a process, once it has ended."""
    return ended(start(target, *arguments, **environment))


def ended(process) -> int:
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"expected a process that ends in {TIMEOUT} seconds, found one at work still")
    return process.exitcode


def until(condition) -> None:
    """Wait for what other processes do."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"expected what others do within {TIMEOUT} seconds, found it undone"
        time.sleep(0.01)


def in_two_processes(target, arguments_of, **environment):
    """Two processes that know of each other as torchrun would tell them, over gloo; ``arguments_of(rank)``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"ACCELERATE_USE_CPU": "true", **environment}
    if sys.platform == "linux":
        shared["GLOO_SOCKET_IFNAME"] = "lo"
    return [start(target, *arguments_of(rank), RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]


def _call(target, arguments, environment):
    os.environ |= environment
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # the loader's workers, or each would import all anew
    with tiny.registered():
        target(*arguments)


class Moments:
    """Kills this process at one moment: ("step", 3) is the beginning of the third step that it does.

    "half" is a file half written, "written" a whole one that is not in its place yet, "replaced" one that is; of the first
    two those count that are written by torch.save or by Path.
    """

    def __init__(self, fatal: tuple[str, int] | None):
        self.fatal, self.seen = fatal, Counter()
        self.save, self.replace, self.write = torch.save, os.replace, Path.write_bytes
        torch.save, cache.os.replace = self._save, self._replace
        Path.write_bytes = lambda path, content: self._write(path, bytes(content))
        Path.write_text = lambda path, text: self._write(path, text.encode())

    def __call__(self, name: str) -> None:
        self.seen[name] += 1
        if (name, self.seen[name]) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def _save(self, value, file, **options):
        if not isinstance(file, str | Path):
            return self.save(value, file, **options)
        content = io.BytesIO()
        self.save(value, content, **options)
        return self._write(Path(file), content.getvalue())

    def _write(self, path: Path, content: bytes) -> None:
        if self.fatal and self.fatal[0] == "half":
            self.write(path, content[: len(content) // 2])
        self("half")
        self.write(path, content)
        self("written")

    def _replace(self, source, target):
        self.replace(source, target)
        self("replaced")


def tiny_backbone(channels: int = 8, num_classes: int = 4) -> Backbone:
    """A network of two layers with batch norm, which learns a step in milliseconds."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, channels, 3, stride=2), nn.BatchNorm2d(channels), nn.ReLU())
    return Backbone(trunk, GapLinear(channels, num_classes), channels)


class Paced(HideAndSeek):
    """Draws in every step, and after every epoch learns half as fast; its pace is part of its state."""

    def __init__(self, backbone: Backbone, moments: Moments):
        super().__init__(backbone, grid_size=8)
        self.moments = moments
        self.register_buffer("pace", torch.ones(()))

    def loss(self, inputs, targets):
        self.moments("step")
        values = super().loss(inputs, targets)
        return values | {"loss": self.pace * values["loss"]}

    def slow_down(self, epoch: int) -> None:
        self.pace.mul_(0.5)
        self.moments("hook")


def train_tiny(dataset, checkpoint, result, fatal=None, seconds=0.0, **options) -> None:
    """Train a ``Paced`` net, with a checkpoint every ``seconds``; what came out goes to the file ``result``."""
    training.CHECKPOINT_SECONDS = seconds
    moments = Moments(fatal)
    net = Paced(tiny_backbone(), moments)
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1} | options
    history = training.train(net, dataset, checkpoint=checkpoint, after_epoch=net.slow_down, **settings)
    moments.save({"state": net.state_dict(), "history": history, "steps": moments.seen["step"]}, result)


def fit_tiny(name, dataset, boxed, checkpoint, out, fatal=None, **changed) -> None:
    """Fit a localizer as ``tiny.settings`` say, with a checkpoint after every step, and save it in the folder ``out``."""
    training.CHECKPOINT_SECONDS = 0.0
    moments = Moments(fatal)
    fitted = localizers.fit(name, dataset, boxed, checkpoint=checkpoint, **tiny.settings(name, **changed))
    moments.fatal = None
    fitted.save(out)


def save_again(old, new, fatal=None) -> None:
    """Save the localizer of the folder ``old`` in the folder ``new``."""
    fitted = localizers.load(old)
    Moments(fatal)
    fitted.save(new)


def ask(folder, images, labels, result) -> None:
    """What a saved localizer says goes to the file ``result``."""
    torch.save(list(localizers.load(folder).predict(images, labels)), result)
