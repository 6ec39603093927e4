"""Archives of data sets, fetched and unpacked into a folder that is whole or not there at all.

An archive is checked against its published checksum before anything is unpacked, and is unpacked beside its place, so
that a run that is interrupted, refused or out of room leaves what was there before. Two runs of one machine do not get into
each other's way: what one is filling is locked, and a lock goes with its process. A download that breaks off goes on where
it stopped if the server can do that. Of an archive only the bytes of plain files are taken: no links, no owners,
no permissions.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import pooch
import requests
from tqdm import tqdm

RETRIES = 3
_CHUNK = 1 << 20
_SECONDS = 30  # of silence after which a connection counts as broken
# what a damaged archive shows itself by; the last three: one member is a file where another needs a folder
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError),
    *(NotADirectoryError, IsADirectoryError, FileExistsError),
)


def fetch(url: str, checksum: str | None, target: Path) -> Path:
    """Download ``url`` to ``target``, unless a file with this checksum is there already.

    What has come so far is kept in ``.NAME.part`` beside ``target``; the next try, or the next run, asks for the rest.

    Args:
        url: what to download; tried again when the connection breaks
        checksum: ``md5:`` or ``sha256:`` and the hexadecimal digits; None if none is published and the caller checks
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
        source.fetch(target.name, downloader=partial(_download, part=target.with_name(f".{target.name}.part")))
    except OSError as error:  # requests' errors are of this family too
        if error.errno == errno.ENOSPC:
            raise OSError(
                f"expected room for {target}, found the disk full: free some and run again, it goes on where it stopped"
            ) from error
        raise OSError(
            f"expected to download {url} to {target}, found no way ({error}): try again, or get the file by other "
            "means and put it there"
        ) from error
    except ValueError as error:
        raise ValueError(f"expected {checksum} of {url}, found another file ({error}): try again later") from error
    return target


def _download(url: str, output: str, _: pooch.Pooch, *, part: Path) -> None:
    """A downloader for pooch that goes on where ``part`` ends; pooch checks ``output`` and tries again."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and response.status_code in (206, 416) and not resumed:  # it has no such rest
            part.unlink()
            raise requests.ConnectionError(f"{url} does not go on from byte {done:,}, begin again")
        response.raise_for_status()
        if response.status_code != 206:
            done = 0  # the server sends the whole file
        total = done + int(response.headers.get("Content-Length", 0))
        with (
            open(part, "ab" if done else "wb") as file,
            tqdm(desc=part.name[1:-5], initial=done, total=total or None, unit="B", unit_scale=True) as bar,
        ):
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if (came := part.stat().st_size) < total:
        raise requests.ConnectionError(f"{url} broke off after {came:,} of {total:,} bytes")
    os.replace(part, output)


def verify(archive: Path, *checksums: str) -> None:
    """Raise FileNotFoundError if ``archive`` is not there, ValueError if it has none of the checksums.

    Args:
        archive: a file of any size; a large one shows how far it is
        checksums: ``md5:`` or ``sha256:`` and the hexadecimal digits, all of one kind
    """
    _raise_if_missing(archive)
    kind, size = checksums[0].split(":")[0], archive.stat().st_size
    digest = hashlib.new(kind)
    with (
        open(archive, "rb") as file,
        tqdm(desc=f"checking {archive.name}", total=size, unit="B", unit_scale=True, disable=size < 1e9) as bar,
    ):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if (found := f"{kind}:{digest.hexdigest()}") not in checksums:
        raise ValueError(
            f"expected {' or '.join(checksums)} of {archive}, found {found} ({size:,} bytes): it is cut short, damaged "
            "or another file, fetch it again"
        )


@contextmanager
def one_run(root: Path, waits: Callable[[], None]) -> Iterator[None]:
    """One run at a time in this folder, which is made; ``waits`` is called if another one is at work and is waited for."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise ValueError(
            f"expected a data root that can be read and written at {root}, found none ({error.strerror}): name another"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill beside ``target``; becomes ``target`` at the end, is removed if anything fails before.

    Raises:
        FileExistsError: ``target`` is there
        OSError: another run is filling it; the disk is full
    """
    part = target.with_name(f".{target.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    with _locked(part, target):
        try:
            if target.exists():
                raise FileExistsError(f"expected nothing at {target}, found something there: move it away first")
            for entry in os.scandir(part):  # of a run that was killed
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
            yield part
            os.replace(part, target)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)  # while it is locked: afterwards it may be another run's
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(f"expected room for {target}, found the disk full: free some and run again") from error
            raise


@contextmanager
def _locked(part: Path, target: Path) -> Iterator[None]:
    handle, mine = None, False
    try:
        try:
            handle = os.open(part, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.stat(part), os.fstat(handle))
        except (BlockingIOError, FileNotFoundError):
            pass  # another run has it, or had it until a moment ago
        if not mine:
            raise OSError(
                f"expected no other run at work on {target}, found one that fills {part}: wait until it has ended, and "
                "run again"
            )
        yield
    finally:
        if handle is not None:
            os.close(handle)


def unpack(
    archive: Path, folder: Path, max_bytes: int, top: str | None = None, rename: Mapping[str, str] | None = None
) -> None:
    """Unpack a zip or tar (plain or compressed) into ``folder``, usually a ``new_folder``; nothing is written elsewhere.

    Args:
        archive: of files and folders; one that holds a link, a device or a path that leaves it is refused as a whole
        folder: is there
        max_bytes: of all files together, unpacked
        top: the archive's folder whose content is wanted, what lies beside it is left out; "*" takes the only one
            there is, whatever its name; None takes everything
        rename: path in the archive (below ``top``) -> path in ``folder``; other paths stay

    Raises:
        FileNotFoundError: ``archive`` is not there
        ValueError: a damaged archive, a member that is not allowed, or more than ``max_bytes``
        OSError: not enough room
    """
    _raise_if_missing(archive)
    with _whole(archive), _open(archive) as members:
        wanted = _wanted(members, archive, max_bytes, top)
        _raise_if_no_room(wanted, archive, folder)
        _write(tqdm(wanted, f"unpacking {archive.name}", unit="files", unit_scale=True), folder, rename or {})


def unpack_tars(archive: Path, folder: Path, max_bytes: int) -> None:
    """Unpack a tar of tars: one new folder in ``folder`` for each inner tar, with its name without ``.tar``.

    Folders that are there are not touched, and each appears whole or not at all: run again it does the rest.

    Args:
        archive: an uncompressed tar of uncompressed tars; read in place, nothing is copied
        folder: is made
        max_bytes: of all files of one inner tar together

    Raises:
        as :func:`unpack`, for the inner tar that is at fault; those before it stay
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _whole(archive), tarfile.open(archive, "r:") as opened:
        inner = _wanted((_of_tar(opened, member) for member in opened), archive, archive.stat().st_size, None)
        inner = [member for member in inner if member.is_file and member.name.endswith(".tar")]
        rest = [member for member in inner if not (folder / member.name.removesuffix(".tar")).exists()]
        _raise_if_no_room(rest, archive, folder)
        for member in tqdm(rest, f"unpacking {archive.name}", total=len(inner), initial=len(inner) - len(rest)):
            place = Path(f"{archive}/{member.name}")
            with (
                new_folder(folder / member.name.removesuffix(".tar")) as part,
                member.open() as file,
                _whole(place),
                tarfile.open(fileobj=file, mode="r:") as tar,
            ):
                _write(_wanted((_of_tar(tar, m) for m in tar), place, max_bytes, None), part, {})


def _raise_if_missing(archive: Path) -> None:
    if not archive.is_file():
        raise FileNotFoundError(f"expected an archive at {archive}, found no such file: correct the path")


class _Member(NamedTuple):
    """What zip and tar have in common."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def _open(archive: Path) -> Iterator[Iterator[_Member]]:
    with open(archive, "rb") as file:
        # not zipfile's own answer: it looks near the end, where a tar may hold a zip
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(archive) as opened:
            yield (_of_zip(opened, member) for member in opened.infolist())
    else:
        with tarfile.open(archive) as opened:
            yield (_of_tar(opened, member) for member in opened)


def _of_zip(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(member.external_attr >> 16)
    is_file = kind in (0, stat.S_IFREG) and not member.is_dir()
    is_folder = kind in (0, stat.S_IFDIR) and member.is_dir()
    return _Member(member.filename, member.file_size, is_file, is_folder, partial(opened.open, member))


def _of_tar(opened: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    return _Member(member.name, member.size, member.isreg(), member.isdir(), partial(opened.extractfile, member))


def _wanted(members: Iterator[_Member], archive: Path, max_bytes: int, top: str | None) -> list[_Member]:
    """The members below ``top``, named from there; ValueError if any member is not allowed."""
    every, size = [], 0
    for member in members:
        size += member.size
        if size > max_bytes:
            raise ValueError(
                f"expected at most {max_bytes:,} bytes in {archive}, found {size:,} or more: nothing was unpacked, do "
                "not use this archive"
            )
        name = member.name.removeprefix("./").removesuffix("/")
        if name not in ("", "."):
            _raise_if_unsafe(member, name, archive)
            every.append(member._replace(name=name))
    if top is None:
        return every
    tops = {member.name.split("/")[0] for member in every}
    if top == "*" and len(tops) == 1:
        (top,) = tops
    wanted = [m._replace(name=m.name[len(top) + 1 :]) for m in every if m.name.startswith(f"{top}/")]
    if not wanted:
        raise ValueError(
            f"expected {'one folder' if top == '*' else f'a folder {top}/'} in {archive}, found "
            f"{', '.join(sorted(tops)[:3]) or 'nothing'}: it is another archive, fetch it again"
        )
    return wanted


def _raise_if_unsafe(member: _Member, name: str, archive: Path) -> None:
    """A member may be a file or a folder below the archive's root, whatever system reads its name; no link, no device."""
    outside = not {"", ".", ".."}.isdisjoint(name.split("/")) or any(c in name for c in "\\:\0")
    if outside or not (member.is_file or member.is_folder):
        raise ValueError(
            f"expected only files and folders in {archive}, found {member.name!r}, which is a link, a device or leaves "
            "it: nothing was unpacked, do not use this archive"
        )


def _raise_if_no_room(members: list[_Member], archive: Path, folder: Path) -> None:
    size, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if size > free:
        raise OSError(f"expected {size:,} bytes of room in {folder} for {archive.name}, found {free:,}: free some")


def _write(members: Iterator[_Member] | list[_Member], folder: Path, rename: Mapping[str, str]) -> None:
    for member in members:
        path = folder / rename.get(member.name, member.name)
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)


@contextmanager
def _whole(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one sentence."""
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(
            f"expected a whole zip or tar at {archive}, found one that is damaged or cut short, or another file "
            f"({error}): fetch it again"
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ValueError(
            f"expected names that this file system can hold in {archive}, found one that is too long, "
            f"{Path(error.filename).name[:40]}...: do not use this archive"
        ) from error
