"""Archives: what is not the published one is refused, and nothing is ever left half done."""

import errno
import fcntl
import hashlib
import http.server
import io
import itertools
import multiprocessing
import os
import shutil
import signal
import stat
import tarfile
import threading
import time
import zipfile
from functools import partial

import _archives as archives
import pytest
import requests
from _archives import fetch, new_folder, unpack, unpack_tars, verify

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()

# --- downloading


@pytest.fixture
def server(monkeypatch):
    """A web server for ``CONTENT``: set ``ranges``, and ``breaks``, after how many bytes it hangs up; see ``asked``."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(archives, "_CHUNK", 1000)  # what is lost when the connection breaks

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            self.server.asked.append(asked)
            if self.path != "/file":
                return self.send_error(404)
            start = int(asked[6:-1]) if asked and self.server.ranges else 0
            if start > len(CONTENT):
                return self.send_error(416)
            body = CONTENT[start:]
            self.send_response(206 if asked and self.server.ranges else 200)
            if asked and self.server.ranges:
                at = start + self.server.shift
                self.send_header("Content-Range", f"bytes {at}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: self.server.breaks.pop(0)] if self.server.breaks else body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        running.ranges, running.breaks, running.asked, running.shift = True, [], [], 0
        running.url = f"http://127.0.0.1:{running.server_address[1]}/file"
        thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_verified_and_kept(server, tmp_path):
    assert fetch(server.url, CHECKSUM, tmp_path / "file") == tmp_path / "file"
    assert (tmp_path / "file").read_bytes() == CONTENT and names(tmp_path) == ["file"]
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [None]


def test_a_download_with_another_checksum_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=r"expected md5:0+ of http.*/file, found another file .*: try again later"):
        fetch(server.url, "md5:" + 32 * "0", tmp_path / "file")
    assert names(tmp_path) == [] and len(server.asked) == 1 + archives.RETRIES


def test_a_file_without_a_published_checksum_is_taken_as_it_comes(server, tmp_path):
    fetch(server.url, None, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.breaks = [4000, 5000]
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [None, "bytes=4000-", "bytes=9000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT and names(tmp_path) == ["file"]


def test_a_connection_that_closes_without_an_error_counts_as_broken(server, tmp_path, monkeypatch):
    """As urllib3 1 lets it."""
    whole, calls = requests.Response.iter_content, []

    def early(self, size):
        calls.append(1)
        yield from itertools.islice(whole(self, size), 4 if len(calls) == 1 else None)

    monkeypatch.setattr(requests.Response, "iter_content", early)
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [None, "bytes=4000-"] and (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_sends_all_of_it_again(server, tmp_path):
    server.ranges, server.breaks = False, [4000]
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [None, "bytes=4000-"] and (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(("length", "shift"), [(20_000, 0), (10, 5)])
def test_a_rest_that_does_not_fit_is_not_appended(server, tmp_path, length, shift):
    (tmp_path / ".file.part").write_bytes(bytes(length))
    server.shift = shift
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [f"bytes={length}-", None] and (tmp_path / "file").read_bytes() == CONTENT


def test_a_connection_that_stays_broken_is_said_and_the_next_run_goes_on(server, tmp_path):
    server.breaks = [1000] * (1 + archives.RETRIES)
    with pytest.raises(OSError, match=r"expected to download http.* to .*file, found no way .*: try again"):
        fetch(server.url, CHECKSUM, tmp_path / "file")
    assert names(tmp_path) == [".file.part"]
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked[-1] == "bytes=4000-" and (tmp_path / "file").read_bytes() == CONTENT


def test_an_address_that_does_not_exist_is_said(server, tmp_path):
    with pytest.raises(OSError, match=r"expected to download .*404.*get the file by other means"):
        fetch(server.url + "s", CHECKSUM, tmp_path / "file")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(errno.ENOSPC, "full"), "expected room for .*file, found the disk full"), (KeyboardInterrupt(), None)],
)
def test_a_download_that_ends_in_the_middle_keeps_what_came(server, tmp_path, monkeypatch, error, message):
    with monkeypatch.context() as patched, pytest.raises(type(error), match=message):
        patched.setattr(archives, "open", partial(failing_open, 4000, error), raising=False)
        fetch(server.url, CHECKSUM, tmp_path / "file")
    assert names(tmp_path) == [".file.part"]
    fetch(server.url, CHECKSUM, tmp_path / "file")
    assert server.asked == [None, "bytes=4000-"] and (tmp_path / "file").read_bytes() == CONTENT


def failing_open(room, error, path, mode="r"):
    """A file that raises ``error`` when more than ``room`` bytes are written to it."""

    class Failing(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                raise error
            return super().write(data)

    return Failing(path, mode.replace("b", ""))


def test_checksums_of_either_kind(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    md5 = "md5:900150983cd24fb0d6963f7d28e17f72"
    verify(path, md5)
    verify(path, "md5:" + 32 * "0", md5)
    verify(path, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(ValueError, match=r"expected md5:0+ of .*file, found md5:900150.* \(3 bytes\)"):
        verify(path, "md5:" + 32 * "0")
    with pytest.raises(FileNotFoundError, match=r"expected an archive at .*none, found no such file"):
        verify(tmp_path / "none", md5)


# --- a folder that is whole or not there


def test_a_folder_appears_when_it_is_full(tmp_path):
    with new_folder(tmp_path / "below" / "new") as part:
        (part / "file").write_text("x")
        assert not (tmp_path / "below" / "new").exists()
    assert names(tmp_path / "below") == ["new"] and names(tmp_path / "below" / "new") == ["file"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full"), "expected room for .*new, found the disk full: free some and run again"),
        (OSError(errno.EIO, "broken"), "broken"),
        (ValueError("bad"), "bad"),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_folder_that_is_not_finished_is_removed(tmp_path, error, message):
    with pytest.raises(type(error), match=message), new_folder(tmp_path / "new") as part:
        (part / "file").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "old").write_text("old")
    with new_folder(tmp_path / "new") as part:
        assert names(part) == []
    assert names(tmp_path) == ["new"]


def fill_and_stand_still(target, at_work):
    with new_folder(target) as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("x")
        at_work.set()
        signal.pause()


def test_what_a_live_run_is_filling_is_left_alone_until_it_is_killed(tmp_path):
    fork = multiprocessing.get_context("fork")
    at_work = fork.Event()
    other = fork.Process(target=fill_and_stand_still, args=(tmp_path / "new", at_work))
    other.start()
    try:
        assert at_work.wait(30)
        with (
            pytest.raises(OSError, match=r"expected no other run at work on .*new, found one that fills .*\.new\.part"),
            new_folder(tmp_path / "new"),
        ):
            pass
        assert (tmp_path / ".new.part" / "deep" / "file").read_text() == "x"
    finally:
        other.kill()
        other.join()
    assert names(tmp_path) == [".new.part"]
    with new_folder(tmp_path / "new") as part:
        assert names(part) == []
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("then_another", [False, True])
def test_a_folder_that_another_run_finished_before_it_was_locked_is_not_taken(tmp_path, monkeypatch, then_another):
    flock, before = fcntl.flock, os.listdir("/dev/fd")

    def late(*arguments):
        (tmp_path / ".new.part").rename(tmp_path / "new")
        if then_another:
            (tmp_path / ".new.part").mkdir()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OSError, match=r"expected no other run at work on .*new"), new_folder(tmp_path / "new"):
        pass
    assert names(tmp_path) == [".new.part", "new"][not then_another :] and os.listdir("/dev/fd") == before


def test_a_folder_that_appeared_meanwhile_is_not_written_over(tmp_path):
    """The other run ended between the look at its folder and the lock on this one's."""
    (tmp_path / "new").mkdir()
    (tmp_path / ".new.part").mkdir()
    with pytest.raises(FileExistsError, match=r"expected nothing at .*new"), new_folder(tmp_path / "new"):
        pass
    assert names(tmp_path) == ["new"]


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError, match=r"expected nothing at .*new"), new_folder(tmp_path / "new"):
        pass
    assert names(tmp_path) == ["new"]


# --- unpacking

ZIP_KINDS = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR}
TAR_KINDS = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}


def make_zip(path, *members, kind=0):
    """A zip with top/fine.txt and these members, which hold 'target' and are of this kind."""
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("top/fine.txt", "fine")
        for member in members:
            info = zipfile.ZipInfo(member)
            info.external_attr = kind << 16
            opened.writestr(info, "target")
    return path


def make_tar(path, *members, kind=tarfile.REGTYPE, compression="", mode=0o644):
    with tarfile.open(path, f"w:{compression}") as opened:
        for name, content in [("top/fine.txt", b"fine"), *((member, b"target") for member in members)]:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if name in members:
                info.type, info.linkname = kind, "../../etc/passwd"
            info.size = len(content) if info.isreg() else 0
            opened.addfile(info, io.BytesIO(content))
    return path


MAKE = {"zip": make_zip, "tar": make_tar, "tgz": partial(make_tar, compression="gz")}
each_format = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def extract(path, target, max_bytes=1000, **options):
    with new_folder(target) as part:
        unpack(path, part, max_bytes, **options)


def refuse(path, message, max_bytes=1000, error=ValueError, **options):
    """Unpacking fails with this message; what lies beside is untouched and nothing else is there."""
    root = path.parent / "root"
    root.mkdir()
    (root / "kept").write_text("kept")
    with pytest.raises(error, match=message):
        extract(path, root / "top", max_bytes, **options)
    assert names(root) == ["kept"] and (root / "kept").read_text() == "kept"
    assert names(path.parent) == sorted([path.name, "root"])


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_tars_of_every_compression(tmp_path, compression):
    extract(make_tar(tmp_path / "a", "top/deep/er/x", compression=compression), tmp_path / "to", top="top")
    assert names(tmp_path / "to") == ["deep", "fine.txt"]
    assert (tmp_path / "to" / "deep" / "er" / "x").read_text() == "target"


@each_format
def test_all_one_or_the_only_top_folder(tmp_path, make):
    path = make(tmp_path / "a", "top/more")
    extract(path, tmp_path / "all")
    assert names(tmp_path / "all") == ["top"]
    for name, top in [("one", "top"), ("only", "*")]:
        extract(path, tmp_path / name, top=top)
        assert names(tmp_path / name) == ["fine.txt", "more"]


@each_format
def test_what_lies_beside_the_top_folder_is_left_out(tmp_path, make):
    """CUB's archive has a file there."""
    path = make(tmp_path / "a", "attributes.txt", "topping/x")
    extract(path, tmp_path / "to", top="top")
    assert names(tmp_path / "to") == ["fine.txt"] and names(tmp_path) == ["a", "to"]
    shutil.rmtree(tmp_path / "to")
    refuse(path, "expected one folder in .*, found attributes.txt, top, topping: it is another archive", top="*")


@pytest.mark.parametrize("name", ["./", "./top/"])
def test_names_that_begin_with_the_folder_they_are_in(tmp_path, name):
    with tarfile.open(tmp_path / "a", "w") as opened:
        folder = tarfile.TarInfo(name)
        folder.type = tarfile.DIRTYPE
        opened.addfile(folder)
        opened.addfile(tarfile.TarInfo("./top/x"), io.BytesIO())
    extract(tmp_path / "a", tmp_path / "to", top="top")
    assert names(tmp_path / "to") == ["x"]


@each_format
def test_members_get_other_names(tmp_path, make):
    extract(make(tmp_path / "a", "top/a1f"), tmp_path / "to", top="top", rename={"a1f": "0/0.jpeg"})
    assert names(tmp_path / "to") == ["0", "fine.txt"] and names(tmp_path / "to" / "0") == ["0.jpeg"]


@each_format
@pytest.mark.parametrize(
    "member",
    ["../evil", "top/../../evil", "/evil", "top/..\\..\\evil", "C:/evil", "top/./x", "top//x", "top/a:b"],
)
def test_a_member_that_leaves_its_folder_is_refused(tmp_path, make, member):
    refuse(make(tmp_path / "a", member), "expected only files and folders in .* nothing was unpacked", top="top")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_zip, kind | 0o777) for kind in ZIP_KINDS.values()] + [(make_tar, kind) for kind in TAR_KINDS.values()],
    ids=[f"zip {kind}" for kind in ZIP_KINDS] + [f"tar {kind}" for kind in TAR_KINDS],
)
def test_a_link_or_device_is_refused_wherever_it_lies(tmp_path, make, kind):
    refuse(make(tmp_path / "a", "beside", kind=kind), "found 'beside', which is a link, a device or leaves", top="top")


def test_a_file_behind_a_link_to_the_outside_is_never_written(tmp_path):
    with tarfile.open(tmp_path / "a", "w") as opened:
        link = tarfile.TarInfo("top/out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        opened.addfile(link)
        opened.addfile(tarfile.TarInfo("top/out/evil"), io.BytesIO())
    refuse(tmp_path / "a", "found 'top/out', which is a link")


@each_format
@pytest.mark.parametrize("name", [300 * "x", "/".join(["top", *30 * [200 * "x"]])], ids=["a name", "a path"])
def test_a_name_that_is_too_long_is_refused(tmp_path, make, name):
    refuse(make(tmp_path / "a", name), r"expected names that this file system can hold in .*, found one that is too lo")


def test_a_tar_with_a_zip_near_its_end_is_a_tar(tmp_path):
    make_zip(tmp_path / "small.zip", "top/evil")
    with tarfile.open(tmp_path / "a", "w") as opened:
        opened.addfile(tarfile.TarInfo("top/x"), io.BytesIO())
        opened.add(tmp_path / "small.zip", "top/small.zip")
    assert zipfile.is_zipfile(tmp_path / "a"), "or this test shows nothing"
    extract(tmp_path / "a", tmp_path / "to", top="top")
    assert names(tmp_path / "to") == ["small.zip", "x"]


@each_format
def test_too_many_bytes_are_refused_before_any_is_written(tmp_path, make):
    path = make(tmp_path / "a", "top/more")
    refuse(path, "expected at most 9 bytes in .*, found 10", max_bytes=9)
    extract(path, tmp_path / "fits", 10, top="top")
    assert (tmp_path / "fits" / "more").read_text() == "target"


@each_format
def test_too_little_room_is_said_before_any_byte_is_written(tmp_path, monkeypatch, make):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 6, 3))
    refuse(make(tmp_path / "a"), "expected 4 bytes of room in .*, found 3: free some", error=OSError)


@each_format
@pytest.mark.parametrize("keep", [0, 0.02, 0.05, 0.09])
def test_an_archive_that_ends_early_leaves_nothing(tmp_path, make, keep):
    path = make(tmp_path / "a", "top/more")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refuse(path, "expected a whole zip or tar at .* damaged or cut short, or another file")


@each_format
@pytest.mark.parametrize("members", [[], ["fine"]])
def test_an_archive_without_the_folder_is_refused(tmp_path, make, members):
    refuse(make(tmp_path / "a", *members), r"expected a folder bottom/ in .*, found .*top", top="bottom")


def test_a_file_where_another_member_needs_a_folder_is_refused(tmp_path):
    refuse(make_zip(tmp_path / "a", "top/fine.txt/below"), r"expected a whole zip or tar at .*")


def test_a_damaged_member_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "a")
    path.write_bytes(path.read_bytes().replace(b"fine", b"fire", 3).replace(b"top/fire", b"top/fine"))
    refuse(path, "expected a whole zip or tar at .*Bad CRC")


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected an archive at .*none.tar"):
        unpack(tmp_path / "none.tar", tmp_path, 1000)


@each_format
@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(errno.ENOSPC, "full"), "expected room for .*top, found the disk full"), (KeyboardInterrupt(), None)],
)
def test_an_end_in_the_middle_leaves_nothing(tmp_path, monkeypatch, make, error, message):
    monkeypatch.setattr(archives, "open", partial(failing_open, 5, error), raising=False)
    refuse(make(tmp_path / "a", "top/more"), message, error=type(error))


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_permissions_are_those_of_any_new_file(tmp_path):
    extract(make_tar(tmp_path / "a", mode=0o4777), tmp_path / "to", top="top")
    (tmp_path / "plain").write_text("")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "to" / "fine.txt", tmp_path / "plain")]
    assert modes[0] == modes[1]


# --- a tar of tars


def tar_of_tars(path, **inner):
    with tarfile.open(path, "w") as opened:
        for name, content in inner.items():
            info = tarfile.TarInfo(f"{name}.tar")
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def inner_tar(tmp_path, *members, **options):
    content = make_tar(tmp_path / "inner", *members, **options).read_bytes()
    (tmp_path / "inner").unlink()
    return content


def test_each_inner_tar_becomes_a_folder(tmp_path):
    tar_of_tars(tmp_path / "a", n1=inner_tar(tmp_path), n2=inner_tar(tmp_path, "more"))
    unpack_tars(tmp_path / "a", tmp_path / "to", 1000)
    assert sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*.*")) == [
        "n1/top/fine.txt",
        "n2/top/fine.txt",
    ]
    assert (tmp_path / "to" / "n2" / "more").read_text() == "target"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_whole_folders_stay_and_the_next_run_does_the_rest(tmp_path, monkeypatch, error):
    tar_of_tars(tmp_path / "a", n1=inner_tar(tmp_path), n2=inner_tar(tmp_path, "more"), n3=inner_tar(tmp_path))
    with monkeypatch.context() as patched, pytest.raises(type(error)):
        patched.setattr(archives, "open", partial(failing_open, 5, error), raising=False)
        unpack_tars(tmp_path / "a", tmp_path / "to", 1000)
    assert names(tmp_path / "to") == ["n1"]
    before = (tmp_path / "to" / "n1" / "top" / "fine.txt").stat()
    unpack_tars(tmp_path / "a", tmp_path / "to", 1000)
    assert names(tmp_path / "to") == ["n1", "n2", "n3"]
    assert (tmp_path / "to" / "n1" / "top" / "fine.txt").stat() == before


@pytest.mark.parametrize(
    ("members", "options", "max_bytes", "message"),
    [
        (["../evil"], {}, 1000, r"expected only files and folders in .*a/n2.tar, found '../evil'"),
        (["link"], {"kind": tarfile.SYMTYPE}, 1000, r"in .*a/n2.tar, found 'link', which is a link"),
        (["more"], {}, 9, r"expected at most 9 bytes in .*a/n2.tar, found 10"),
    ],
)
def test_an_inner_tar_that_is_not_allowed_is_named(tmp_path, members, options, max_bytes, message):
    tar_of_tars(tmp_path / "a", n1=inner_tar(tmp_path), n2=inner_tar(tmp_path, *members, **options))
    with pytest.raises(ValueError, match=message):
        unpack_tars(tmp_path / "a", tmp_path / "to", max_bytes)
    assert names(tmp_path / "to") == ["n1"] and names(tmp_path) == ["a", "to"]


def test_an_inner_tar_that_is_damaged_is_named(tmp_path):
    tar_of_tars(tmp_path / "a", n1=inner_tar(tmp_path), n2=inner_tar(tmp_path)[:513])
    with pytest.raises(ValueError, match=r"expected a whole zip or tar at .*a/n2.tar"):
        unpack_tars(tmp_path / "a", tmp_path / "to", 1000)
    assert names(tmp_path / "to") == ["n1"]


def test_too_little_room_for_the_rest_is_said_first(tmp_path, monkeypatch):
    tar_of_tars(tmp_path / "a", n1=inner_tar(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 6, 3))
    with pytest.raises(OSError, match=r"expected 10,240 bytes of room in .*, found 3"):
        unpack_tars(tmp_path / "a", tmp_path / "to", 1000)
    assert names(tmp_path / "to") == []
