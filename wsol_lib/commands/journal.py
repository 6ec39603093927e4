"""What was predicted so far, a line of JSON for each photograph: a killed call goes on behind the last whole line.

The first line says what makes the predictions; others are not mixed with them. A line is good as long as its checksum is right
and its photograph has the size and the date that it had: what was damaged, or mended, in the meantime is looked at again.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAME = "wsol_lib predict"
MARK = json.dumps({NAME: {}}).encode()[:-2]  # the first bytes of every journal


class Journal:
    """The journal of one call, and of those before it that were killed.

    Args:
        path: the file; made if it is not there
        header: what makes the predictions, as plain values
        photographs: all of them, by the names that lines have
        folder: where these names are relative to
        force: give up what is there with another header

    Attributes:
        is_new: it was begun by this call

    Raises:
        ValueError: another header, unless ``force``; a file that is no journal; another process that writes to it
    """

    def __init__(
        self, path: Path, header: dict[str, Any], photographs: Sequence[str], folder: Path, force: bool = False
    ):
        self.path, self.photographs, self.folder, self.is_new = path, photographs, folder, True
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._file.fileno()).st_nlink:
                raise OSError("it has just ended, and removed its journal")
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"expected to write {path} alone, found another process at it: wait for that, or name another --out"
            ) from error
        # where the line of each photograph begins; -1: it has none
        self._places = np.full(len(photographs), -1, dtype=np.int64)
        try:
            self._start(header, force)
            self._find_lines()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(self, first: int, lines: Sequence[dict[str, Any]]) -> None:
        """Write lines for ``photographs[first]`` and those after it.

        Args:
            first: place of the first one
            lines: for each what is to be remembered, as plain values
        """
        place = self._file.seek(0, os.SEEK_END)
        written = []
        for i, line in enumerate(lines, start=first):
            written.append(_written({"file": self.photographs[i], "stat": self._stat(i)} | line))
            self._places[i], place = place, place + len(written[-1])
        self._file.write(b"".join(written))
        self._file.flush()

    def has(self, first: int, last: int) -> bool:
        """Whether ``photographs[first:last]`` all have a line that is still good."""
        return bool((self._places[first:last] >= 0).all()) and all(
            self._line(i)["stat"] == self._stat(i) for i in range(first, last)
        )

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Place and line of each photograph, in their order."""
        for i in np.flatnonzero(self._places >= 0).tolist():
            yield i, self._line(i)

    def remove(self) -> None:
        """The predictions are kept elsewhere."""
        self.path.unlink()

    def _start(self, header: dict[str, Any], force: bool) -> None:
        """Write the header, or compare it with the one that is there; cut off a line that was not finished."""
        content = self._file.readline()
        if not MARK.startswith(content[: len(MARK)]):
            raise ValueError(f"expected {self.path} to be a journal of predict, found something else: move it away")
        if content.endswith(b"\n"):  # else it is new, or was killed with its first line
            there = (_read(content) or {NAME: {}})[NAME]
            if there == header:
                self.is_new = False
                self._cut()
                return
            if not force:
                raise ValueError(
                    f"expected to go on with {self.path}, found it of other {_first_difference(there, header)}: repeat the "
                    "call as it was, name another --out, or start anew with --force"
                )
        self._file.seek(0)
        self._file.truncate()
        self._file.write(_written({NAME: header}))
        self._file.flush()

    def _cut(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, end - (1 << 20)))
        rest = self._file.read()
        self._file.truncate(end - (len(rest) - rest.rfind(b"\n") - 1))

    def _find_lines(self) -> None:
        self._file.seek(0)
        place = len(self._file.readline())
        numbers: dict[str, int] = {}
        for line in iter(self._file.readline, b""):
            numbers = numbers or {name: i for i, name in enumerate(self.photographs)}
            i = numbers.get((_read(line) or {}).get("file"))
            if i is not None:  # else it was taken out of the folder, or the line is damaged
                self._places[i] = place
            place += len(line)

    def _line(self, i: int) -> dict[str, Any]:
        self._file.seek(int(self._places[i]))
        return json.loads(self._file.readline().rpartition(b"\t")[0])

    def _stat(self, i: int) -> list[int]:
        """Date and size of the file; zeros for one that is gone."""
        try:
            found = (self.folder / self.photographs[i]).stat()
        except OSError:
            return [0, 0]
        return [found.st_mtime_ns, found.st_size]


def _written(line: dict[str, Any]) -> bytes:
    content = json.dumps(line, allow_nan=False).encode()
    return content + b"\t%08x\n" % zlib.crc32(content)


def _read(written: bytes) -> dict[str, Any] | None:
    """A line, or None if it is damaged."""
    content, _, checksum = written.rpartition(b"\t")
    return json.loads(content) if checksum == b"%08x\n" % zlib.crc32(content) else None


def _first_difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """In words: which value differs, and how."""
    for name in here:
        one, other = there.get(name), here[name]
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                return _first_difference(one, other)
            return f"{name} ({one!r} instead of {other!r})"
    return "making"
