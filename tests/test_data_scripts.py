"""Scripts that fetch data: what is not the published archive is refused, and nothing is ever left half done."""

import errno
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pooch
import pytest
import requests
import standins

from wsol_lib.data import archives
from wsol_lib.data.archives import fetch, unpack, verify

SCRIPT = Path(__file__).parents[1] / "data_scripts" / "tiny_imagenet.py"


@pytest.fixture
def archive(tmp_path):
    """The stand-in as a zip in a folder of its own."""
    folder = standins.tiny_imagenet(tmp_path / "source")
    path = standins.zipped(folder)
    shutil.rmtree(folder)
    return path


@pytest.fixture
def script(archive, monkeypatch):
    """The script as a module that expects the stand-in."""
    spec = importlib.util.spec_from_file_location("script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CHECKSUM", f"md5:{pooch.file_hash(str(archive), alg='md5')}")
    monkeypatch.setattr(module, "COUNTS", {"classes": 3, "training images": 36, "validation images": 6})
    return module


def state(root):
    """Every file below ``root``, with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def test_an_archive_of_ones_own_is_unpacked_and_counted(script, archive, tmp_path, capsys):
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(archive)]) == 0
    assert "3 classes, 36 training images, 6 validation images, as published" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny-imagenet-200"]
    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            if not member.endswith("/"):
                assert (tmp_path / "data" / member).read_bytes() == opened.read(member)


def test_run_again_it_does_nothing(script, archive, tmp_path):
    arguments = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert script.main(arguments) == 0
    before = state(tmp_path / "data")
    archive.unlink()
    assert script.main(arguments) == 0
    assert state(tmp_path / "data") == before


def test_check_only_verifies(script, archive, tmp_path, capsys):
    root = tmp_path / "data"
    assert script.main(["--root", str(root), "--archive", str(archive), "--check"]) == 2
    assert capsys.readouterr().err.startswith("error: expected") and not root.exists()
    assert script.main(["--root", str(root), "--archive", str(archive)]) == 0
    assert script.main(["--root", str(root), "--check"]) == 0
    (root / "tiny-imagenet-200" / "val" / "images" / "val_3.JPEG").unlink()
    assert script.main(["--root", str(root), "--check"]) == 2
    assert "6 validation images in" in (error := capsys.readouterr().err) and "found 3 classes, 36" in error


def test_the_download_is_verified_kept_and_unpacked(script, archive, tmp_path, monkeypatch):
    served = tmp_path / "served"
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda self, url, file, _: shutil.copy(served, file))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    served.write_bytes(archive.read_bytes()[:-1])
    assert script.main(["--root", str(tmp_path / "data")]) == 2
    assert list((tmp_path / "data").iterdir()) == []
    served.write_bytes(archive.read_bytes())
    assert script.main(["--root", str(tmp_path / "data")]) == 0
    served.unlink()
    shutil.rmtree(tmp_path / "data" / "tiny-imagenet-200")
    assert script.main(["--root", str(tmp_path / "data")]) == 0


def test_a_broken_connection_is_tried_again_then_said(tmp_path, monkeypatch):
    tries = []

    def fail(self, url, file, _):
        tries.append(url)
        raise requests.ConnectionError("reset")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(OSError, match=r"expected to download http://x/y.zip to .*reset.*: try again"):
        fetch("http://x/y.zip", "md5:" + 32 * "0", tmp_path / "y.zip")
    assert len(tries) == 1 + archives.RETRIES and not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_an_archive_cut_short_is_refused_by_its_checksum(script, archive, tmp_path, capsys, keep):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(archive)]) == 2
    assert "it is cut short, damaged or another file" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_missing_archive_is_named(script, tmp_path, capsys):
    assert script.main(["--root", str(tmp_path / "data"), "--archive", str(tmp_path / "none.zip")]) == 2
    assert "none.zip, found no such file" in capsys.readouterr().err


def test_the_script_runs_from_a_clone_and_prints_one_sentence(archive, tmp_path):
    command = [sys.executable, str(SCRIPT), "--root", str(tmp_path / "data"), "--archive", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parents[1])
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: expected md5:90528d7ca1a48142e341f4ef8d21d0de of")
        and done.stderr.count("\n") == 1
    )


# --- unpacking


def make_zip(path, *members, attributes=0):
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("top/fine.txt", "fine")
        for member in members:
            info = zipfile.ZipInfo(member)
            info.external_attr = attributes << 16
            opened.writestr(info, "target")
    return path


def refuse(path, message, max_bytes=1000, error=ValueError):
    root = path.parent / "root"
    root.mkdir()
    (root / "kept").write_text("kept")
    with pytest.raises(error, match=message):
        unpack(path, root / "top", max_bytes)
    assert [p.name for p in root.iterdir()] == ["kept"]
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, "root"])


@pytest.mark.parametrize(
    "member",
    ["../evil", "top/../../evil", "/evil", "other/evil", "top/..\\..\\evil", "C:/evil", "top/./x", "top//x", "top/a:b"],
)
def test_a_member_that_leaves_its_folder_is_refused(tmp_path, member):
    refuse(make_zip(tmp_path / "a.zip", member), "expected only files and folders below top/ .* nothing was unpacked")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_refused(tmp_path, kind):
    refuse(make_zip(tmp_path / "a.zip", "top/link", attributes=kind | 0o777), "found 'top/link', which is a link")


def test_too_many_bytes_are_refused_before_any_is_written(tmp_path):
    path = make_zip(tmp_path / "a.zip", "top/more")
    refuse(path, "expected at most 9 bytes in .*, found 10", max_bytes=9)
    unpack(path, tmp_path / "fits" / "top", 10)
    assert (tmp_path / "fits" / "top" / "more").read_text() == "target"


def test_a_zip_that_ends_early_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-30])
    refuse(path, "expected a whole zip at")


@pytest.mark.parametrize("members", [[], ["top"]])
def test_a_zip_without_the_folder_is_refused(tmp_path, members):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for member in members:
            opened.writestr(member, "a file")
    refuse(path, r"expected a folder top/ in .*a.zip, found none")


def test_a_file_where_another_member_needs_a_folder_is_refused(tmp_path):
    refuse(make_zip(tmp_path / "a.zip", "top/fine.txt/below"), r"expected a whole zip at .*Not a directory")


def test_a_damaged_member_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace(b"fine", b"fire", 3).replace(b"top/fire", b"top/fine"))
    refuse(path, "expected a whole zip at .*Bad CRC")


def test_too_little_room_is_said_before_any_byte_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 6, 3))
    refuse(make_zip(tmp_path / "a.zip"), "expected 4 bytes of room in .*, found 3: free some", error=OSError)


@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(errno.ENOSPC, "full"), "expected room .* found the disk full"), (KeyboardInterrupt(), None)],
)
def test_an_end_in_the_middle_leaves_nothing(tmp_path, monkeypatch, error, message):
    whole = zipfile.ZipFile.extract

    def extract(self, member, path):
        if member.filename == "top/more":
            raise error
        return whole(self, member, path)

    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    refuse(make_zip(tmp_path / "a.zip", "top/more"), message, error=type(error))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_leaves_nothing_and_the_next_one_finishes(script, archive, tmp_path):
    """In a process of its own that stops in the middle and is then terminated."""
    root = tmp_path / "data"
    program = (
        "import runpy, sys, time, zipfile\n"
        "whole, n = zipfile.ZipFile.extract, []\n"
        "def extract(*a):\n"
        "    n.append(1)\n"
        "    if len(n) == 20: print('half', flush=True); time.sleep(60)\n"
        "    return whole(*a)\n"
        "zipfile.ZipFile.extract = extract\n"
        "import wsol_lib.data.archives as archives\n"
        "archives.verify = lambda *_: None\n"
        f"sys.argv = ['x', '--root', {str(root)!r}, '--archive', {str(archive)!r}]\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half\n"
    assert len(list(root.rglob("*.JPEG"))) > 0
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143 and list(root.iterdir()) == []
    assert script.main(["--root", str(root), "--archive", str(archive)]) == 0


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "top").mkdir()
    with pytest.raises(FileExistsError, match="expected nothing at"):
        unpack(make_zip(tmp_path / "a.zip"), tmp_path / "top", 1000)
    assert list((tmp_path / "top").iterdir()) == []


def test_checksums_of_either_kind(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    verify(path, "md5:900150983cd24fb0d6963f7d28e17f72")
    verify(path, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(ValueError, match=r"expected md5:0+ of .*file, found md5:900150.* \(3 bytes\)"):
        verify(path, "md5:" + 32 * "0")
