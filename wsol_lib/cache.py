"""One place on disk for what is expensive to make: decoded images, features, trained weights.

Safe to delete at any time. Files appear whole or not at all: they are written beside their place and moved there; what a
killed writer left there, the next one removes. What ``cached`` keeps is found by its content: the function, its arguments
and the library's own sources; and it is believed only if its checksum is right.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import inspect
import json
import os
import pickle
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pooch
import torch

import wsol_lib

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")  # what atomic_path writes to
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 1 << 20


def cache_dir() -> Path:
    """The folder named by the environment variable WSOL_CACHE, else ``wsol_lib`` in the user's cache folder."""
    return Path(os.environ.get("WSOL_CACHE") or pooch.os_cache("wsol_lib"))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; moved to ``path`` at the end, removed if anything fails before.

    What is being written is locked, and a lock goes with its process: temporary files of killed writers are removed here,
    those of others that are at work are not. Write to the file that is there; another one in its place has no lock.

    Raises:
        ValueError: the folder cannot be made or written to
        OSError: the disk is full
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        temporary, lock = _new_part(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(path) from error
        raise ValueError(
            f"expected a folder that can be written to at {path.parent}, found none ({error.strerror}): name another "
            "place, in WSOL_CACHE if it is the cache"
        ) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _no_room(path) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


def _no_room(path: Path) -> OSError:
    return OSError(f"expected room for {path}, found the disk full: free some, or name another place in WSOL_CACHE")


def _new_part(path: Path) -> tuple[Path, int]:
    """A new empty file beside ``path``, and the handle that holds its lock."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        handle = os.open(
            part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666
        )  # unlike tempfile's, its mode follows the umask
        with suppress(OSError):  # a file system without locks: nothing is removed there, either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return part, handle
        os.close(handle)  # before it was locked, another process took it for an abandoned one


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers are gone."""
    for part in folder.glob(".*.part"):
        if _PART.fullmatch(part.name):
            with suppress(OSError):  # gone meanwhile, or somebody else's; or locked, so its writer is at work
                handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
                finally:
                    os.close(handle)


@contextmanager
def one_at_a_time(folder: Path, waits: Callable[[], None] | None = None) -> Iterator[None]:
    """One process of this machine after the other; the lock on the folder goes with its process and leaves no file.

    ``waits`` is called if another process is at work and is waited for. Raises ValueError if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ValueError(
            f"expected a folder at {folder}, found none that can be made ({error.strerror}): name another place, in "
            "WSOL_CACHE if it is the cache"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waits is not None:
                waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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

    What is damaged there, a single flipped bit or half of a file, is computed again. Global variables that the function
    reads are no part of the key: hand them over as arguments.

    Args:
        function: deterministic, made with ``def``; returns tensors, numbers, strings, or lists, tuples and dicts of these
        args, kwargs: None, bool, int, float, str, and lists, tuples or dicts (keys: str) of these; so is what the function
            captures of a function around it

    Raises:
        ValueError: an argument or a captured value of another type, which could not be told from another one of its kind,
            or such a value; something else than a function made with ``def``; no place to write to
    """
    path = cache_dir() / "values" / f"{_name(function)}-{_key(function, args, kwargs)}.pt"
    # of what does not read although its checksum is right: another torch wrote it, or somebody else owns it
    with suppress(OSError, RuntimeError, EOFError, pickle.UnpicklingError), open(path, "rb") as file:
        if file.read(_DIGEST) == _digest(file):
            return _load(file)
    with atomic_path(path) as temporary:  # before the work: no place to write to is said at once
        value = function(*args, **kwargs)
        with open(temporary, "r+b") as file:
            _save(value, file, function)
    return value


def _save(value: Any, file: IO[bytes], function: Callable) -> None:
    file.write(bytes(_DIGEST))
    torch.save(value, file)
    file.seek(_DIGEST)
    digest = _digest(file)
    try:  # what cannot be read back would be taken for damage, and computed again for ever
        _load(file)
    except pickle.UnpicklingError:
        raise ValueError(
            f"expected {function.__qualname__} to return tensors, numbers, strings, or lists, tuples and dicts of "
            f"these, found something else in its {type(value).__name__}: turn arrays and tv_tensors into plain "
            "tensors before they are returned"
        ) from None
    file.seek(0)
    file.write(digest)


def _name(function: Callable) -> str:
    # A method's object would be no part of the key, nor would what a partial holds; and two lambdas may share a line.
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise ValueError(
            f"expected a function made with def, found {function!r}: write one that takes all it needs as arguments"
        )
    return function.__name__


def _key(function: Callable, args: tuple, kwargs: dict[str, Any]) -> str:
    arguments = inspect.signature(function).bind(*args, **kwargs)
    arguments.apply_defaults()
    captured = inspect.getclosurevars(function).nonlocals
    key = hashlib.sha256()
    for text in (function.__module__, function.__qualname__, inspect.getsource(function), library_fingerprint()):
        key.update(text.encode() + b"\0")
    key.update(json.dumps([_plain(dict(arguments.arguments)), _plain(captured)], sort_keys=True).encode())
    return key.hexdigest()[:24]


def _digest(file: IO[bytes]) -> bytes:
    """Checksum of all that follows in ``file``, which stays where it is."""
    start, digest = file.tell(), hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    file.seek(start)
    return digest.digest()


def _load(file: IO[bytes]) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _plain(value: Any) -> Any:
    """A form of ``value`` that JSON writes the same way each time, and differently for different values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(_plain, value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(
        "expected arguments that are numbers, strings, None, or lists, tuples and dicts (keys: str) of these, and captured "
        f"values alike, found {type(value).__name__}: pass a name and options, and build the object inside the function"
    )
