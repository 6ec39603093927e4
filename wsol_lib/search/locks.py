"""Locks that go with their process, however that ends: what a killed one had claimed is free again at once.

A lock is on one byte of a file that holds no data. Several machines can share it where their file system has locks, as NFS
does.
"""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path


class Locks:
    """The locks of this process on the bytes of one file; to be used in a ``with`` statement, which gives them back.

    They belong to a process, not to a thread, and opening the file a second time in one process and closing it drops them
    all: open it once.

    Args:
        path: of the file; made if it is not there

    Raises:
        OSError: the file cannot be written
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = open(path, "ab")  # noqa: SIM115, the locks live as long as it is open

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all locks back."""
        self._file.close()

    def take(self, byte: int) -> bool:
        """Whether the byte is locked by this process now; False if another one has it.

        Raises:
            ValueError: a file system without locks
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise ValueError(
                f"expected a file system with locks at {self.path}, found {error.strerror}: name another place"
            ) from None
        return True

    def give_back(self, byte: int) -> None:
        """Unlock the byte."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
