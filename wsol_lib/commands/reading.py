"""Photographs of any sizes as squares for a network, decoded by a few threads ahead of it; what is damaged is said so."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsol_lib.data.images import read_square

THREADS = 8  # at most: decoding leaves Python's lock alone, so they share the cores with the network
BATCH = 64  # photographs that go through the network together
AHEAD = 3  # batches that are decoded before they are asked for


def in_batches(items: Sequence) -> list[Sequence]:
    """Slices of ``BATCH`` of them."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


class Square(NamedTuple):
    """A photograph: its pixels, uint8 (side, side, 3), its own width and height; or what is wrong with it."""

    pixels: np.ndarray | None
    size: tuple[int, int] | None
    error: str | None


def squares_ahead(batches: Iterable[Sequence[Path]], side: int) -> Iterator[list[Square]]:
    """The photographs of some batches, batch by batch.

    Args:
        batches: paths of image files
        side: in pixels, of the squares to which they are resized
    """
    waiting: deque[list[Future[Square]]] = deque()
    threads = ThreadPoolExecutor(min(THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    try:
        for batch in batches:
            waiting.append([threads.submit(_read, path, side) for path in batch])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        threads.shutdown(cancel_futures=True)


def _read(path: Path, side: int) -> Square:
    try:
        return Square(*read_square(path, side), None)
    except ValueError as error:
        return Square(None, None, str(error))
