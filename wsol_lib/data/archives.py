"""Archives of data sets: an address or a file goes in, a folder that is whole or not there at all comes out.

An archive is checked against its published checksum before anything is unpacked, and is unpacked beside its place, so
that a run that is interrupted, refused or out of room leaves what was there before.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path

import pooch
from tqdm import tqdm

RETRIES = 3


def fetch(url: str, checksum: str, target: Path) -> Path:
    """Download ``url`` to ``target``, unless a file with this checksum is there already.

    Args:
        url: what to download; tried again when the connection breaks
        checksum: ``md5:`` or ``sha256:`` and the hexadecimal digits
        target: where to; only ever holds a whole file

    Raises:
        OSError: the download did not succeed, or the disk is full
        ValueError: what came does not have the checksum
    """
    source = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: checksum},
        urls={target.name: url},
        retry_if_failed=RETRIES,
    )
    try:
        source.fetch(target.name, progressbar=True)
    except OSError as error:  # requests' errors are of this family too
        raise OSError(
            f"expected to download {url} to {target}, found no way ({error}): try again, or get the file by other "
            "means and "
            "put it there"
        ) from error
    except ValueError as error:
        raise ValueError(f"expected {checksum} of {url}, found another file ({error}): try again later") from error
    return target


def verify(archive: Path, checksum: str) -> None:
    """Raise FileNotFoundError if ``archive`` is not there, ValueError if its checksum (``md5:...``) is another one."""
    if not archive.is_file():
        raise FileNotFoundError(f"expected an archive at {archive}, found no such file: correct the path")
    kind, digits = checksum.split(":")
    found = pooch.file_hash(str(archive), alg=kind)
    if found != digits:
        raise ValueError(
            f"expected {checksum} of {archive}, found {kind}:{found} ({archive.stat().st_size:,} bytes): it is cut "
            "short, damaged "
            "or another file, fetch it again"
        )


def unpack(archive: Path, target: Path, max_bytes: int) -> None:
    """Unpack a zip whose one top folder has the name of ``target`` to there; nothing is written anywhere else.

    Args:
        archive: a zip of files and folders; one that holds a link or a path out of its top folder is refused as a whole
        target: must not exist; appears when everything is unpacked
        max_bytes: of all files together, unpacked

    Raises:
        ValueError: a damaged archive, a member that is not allowed, or more than ``max_bytes``
        FileExistsError: ``target`` is there
        OSError: not enough room
    """
    if target.exists():
        raise FileExistsError(f"expected nothing at {target}, found something there: move it away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".part") as temporary,
        ):
            members = opened.infolist()
            for member in members:
                _raise_if_unsafe(member, target.name, archive)
            _raise_if_too_large(sum(member.file_size for member in members), max_bytes, archive, target.parent)
            for member in tqdm(members, f"unpacking {archive.name}", unit="files", unit_scale=True):
                opened.extract(member, temporary)
            if not (Path(temporary) / target.name).is_dir():
                raise ValueError(
                    f"expected a folder {target.name}/ in {archive}, found none: it is another archive, fetch it again"
                )
            os.replace(Path(temporary) / target.name, target)
    # the last two: one member is a file where another needs a folder
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(
            f"expected a whole zip at {archive}, found one that is damaged or cut short ({error}): fetch it again"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                f"expected room for {archive.name} in {target.parent}, found the disk full: free some"
            ) from error
        raise


def _raise_if_unsafe(member: zipfile.ZipInfo, top: str, archive: Path) -> None:
    """A member may be a file or a folder below the top folder, whatever system reads its name; no link, no device."""
    parts = member.filename.removesuffix("/").split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    outside = parts[0] != top or not {"", ".", ".."}.isdisjoint(parts) or any(c in member.filename for c in "\\:")
    if outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(
            f"expected only files and folders below {top}/ in {archive}, found {member.filename!r}, which is a link or "
            "leaves "
            "it: nothing was unpacked, do not use this archive"
        )


def _raise_if_too_large(size: int, max_bytes: int, archive: Path, folder: Path) -> None:
    if size > max_bytes:
        raise ValueError(
            f"expected at most {max_bytes:,} bytes in {archive}, found {size:,}: nothing was unpacked, do not use this "
            "archive"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(f"expected {size:,} bytes of room in {folder} for {archive.name}, found {free:,}: free some")
