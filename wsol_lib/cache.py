"""One place on disk for what is expensive to make: decoded images, features, trained weights.

Safe to delete at any time. Files appear whole or not at all: they are written beside their place and moved there. What
``cached`` keeps is found by its content: the function, its arguments and the library's own sources.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import inspect
import json
import os
import pickle
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import torch

import wsol_lib


def cache_dir() -> Path:
    """The folder named by the environment variable WSOL_CACHE, else ``wsol_lib`` in the user's cache folder."""
    return Path(os.environ.get("WSOL_CACHE") or pooch.os_cache("wsol_lib"))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; moved to ``path`` at the end, removed if anything fails before.

    Raises OSError, saying where, if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    temporary.touch(exist_ok=False)  # unlike tempfile's, its mode follows the umask
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"expected room for {path}, found the disk full: free some, or name another place in WSOL_CACHE"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def library_fingerprint() -> str:
    """Version and sources of this library in one hash: it changes when any line of the library does."""
    root = Path(wsol_lib.__file__).parent
    digest = hashlib.sha256(wsol_lib.__version__.encode())
    for source in sorted(root.rglob("*.py")):
        digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def cached(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, computed once and then read from ``cache_dir()``.

    Args:
        function: deterministic; returns tensors, numbers, strings, or lists, tuples and dicts of these
        args, kwargs: None, bool, int, float, str, and lists, tuples or dicts (keys: str) of these

    Raises:
        ValueError: an argument of another type, which could not be told from another one of its kind, or such a value
    """
    arguments = inspect.signature(function).bind(*args, **kwargs)
    arguments.apply_defaults()
    key = hashlib.sha256()
    for text in (function.__module__, function.__qualname__, inspect.getsource(function), library_fingerprint()):
        key.update(text.encode() + b"\0")
    key.update(json.dumps(_plain(dict(arguments.arguments)), sort_keys=True).encode())
    path = cache_dir() / "values" / f"{function.__name__}-{key.hexdigest()[:24]}.pt"
    if path.exists():
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            pass  # damaged: compute it again
    value = function(*args, **kwargs)
    with atomic_path(path) as temporary:
        torch.save(value, temporary)
        try:  # what cannot be read back would be taken for damage, and computed again for ever
            torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise ValueError(
                f"expected {function.__qualname__} to return tensors, numbers, strings, or lists, tuples and dicts of "
                f"these, found something else in its {type(value).__name__}: turn arrays and tv_tensors into plain "
                "tensors before they are returned"
            ) from None
    return value


def _plain(value: Any) -> Any:
    """A form of ``value`` that JSON writes the same way each time, and differently for different values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(_plain, value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(
        "expected arguments that are numbers, strings, None, or lists, tuples and dicts (keys: str) of these, "
        f"found {type(value).__name__}: pass a name and options, and build the object inside the cached function"
    )
