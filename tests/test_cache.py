"""The cache: files whole or not at all, values found by what they were computed from."""

import errno
import linecache
import multiprocessing
import os
import random
import signal
import stat
import threading
from functools import partial

import numpy as np
import pytest
import torch

from wsol_lib import cache
from wsol_lib.cache import atomic_path, cache_dir, cached, one_at_a_time


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOL_CACHE", str(tmp_path))
    calls.clear()
    return tmp_path


calls = []


def squares(n, scale=1.0, options=None):
    calls.append((n, scale))
    return {"values": torch.arange(n) ** 2 * scale, "names": ["a", ("b", 2)]}


def sum_of(**options):
    calls.append(options)
    return sum(options["numbers"].values())


def array_of(n):
    return [np.arange(n)]


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_folder_is_wsol_cache_or_the_users_own(monkeypatch, folder):
    assert cache_dir() == folder
    monkeypatch.delenv("WSOL_CACHE")
    assert cache_dir().name == "wsol_lib"


def test_a_value_is_computed_once_and_read_back_the_same():
    first, second = cached(squares, 4), cached(squares, 4)
    assert calls == [(4, 1.0)]
    assert torch.equal(first["values"], second["values"]) and second["names"] == ["a", ("b", 2)]


def test_the_same_arguments_written_in_another_way_are_the_same():
    cached(squares, 4)
    cached(squares, n=4, scale=1.0)
    cached(squares, 4, options=None)
    assert len(calls) == 1


@pytest.mark.parametrize("options", [None, [2], (1,), [True], [1.0], ["1"], {"1": 1}, [[1]]])
def test_other_arguments_are_another_value(options):
    cached(squares, 4, options=[1])
    cached(squares, 4, options=options)
    cached(squares, 4, 2.0, options=options)
    assert len(calls) == 3


def test_order_of_dicts_does_not_matter():
    assert cached(sum_of, numbers={"a": 1, "b": 2}) == cached(sum_of, numbers={"b": 2, "a": 1}) == 3
    assert len(calls) == 1


@pytest.mark.parametrize("argument", [torch.ones(2), object(), {1: "one"}, [squares]])
def test_an_argument_that_has_no_text_of_its_own_is_refused(argument):
    with pytest.raises(ValueError, match="expected arguments that are numbers, strings"):
        cached(squares, 4, options=argument)
    assert not calls


def test_another_version_of_the_library_computes_anew(monkeypatch):
    cached(squares, 4)
    monkeypatch.setattr(cache, "library_fingerprint", lambda: "another")
    cached(squares, 4)
    assert len(calls) == 2


def test_the_fingerprint_changes_with_any_source(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.wsol_lib, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "module.py").write_text("x = 1\n")
    one = cache.library_fingerprint.__wrapped__()
    (tmp_path / "module.py").write_text("x = 2\n")
    assert cache.library_fingerprint.__wrapped__() != one


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[: len(content) // 2], lambda content: b"x" * 99]
)
def test_a_damaged_value_is_computed_again(folder, damage):
    cached(squares, 4)
    (path,) = files(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert cached(squares, 4)["values"].tolist() == [0, 1, 4, 9]
    assert cached(squares, 4)["values"].tolist() == [0, 1, 4, 9]
    assert len(calls) == 2


def test_no_flipped_byte_is_believed(folder):
    """1 to 8 bytes anywhere, in 300 copies: without the checksum some 4 in 100 gave another value and no error."""
    right = cached(squares, 4)
    (path,) = files(folder)
    content, draw = path.read_bytes(), random.Random(0)
    for copy in range(1, 301):
        flipped = bytearray(content)
        for place in draw.sample(range(len(content)), draw.randint(1, 8)):
            flipped[place] ^= draw.randint(1, 255)
        path.write_bytes(flipped)
        found = cached(squares, 4)
        assert torch.equal(found["values"], right["values"]) and found["names"] == right["names"]
        assert len(calls) == 1 + copy and path.read_bytes() == content, "it was not computed again"


def test_what_another_torch_wrote_is_computed_again(monkeypatch):
    cached(squares, 4)
    load, reads = torch.load, []

    def refusing_once(*args, **options):
        reads.append(1)
        if len(reads) == 1:
            raise RuntimeError("the checksum is right, yet it does not read")
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", refusing_once)
    assert cached(squares, 4)["values"].tolist() == [0, 1, 4, 9] and len(calls) == 2


def test_a_value_that_could_not_be_read_back_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"expected array_of to return tensors, numbers, .* found something else in its"
    ):
        cached(array_of, 4)
    assert not files(folder)


def test_a_function_that_fails_leaves_nothing(folder):
    with pytest.raises(KeyError):
        cached(sum_of, other=1)
    assert not files(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_what_was_there(folder, error):
    path = folder / "below" / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert files(folder) == [path] and path.read_text() == "old"


def test_a_full_disk_is_said_in_one_sentence(folder):
    with (
        pytest.raises(OSError, match=r"expected room for .*file, found the disk full: free some"),
        atomic_path(folder / "file"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not files(folder)


@pytest.mark.parametrize("place", ["file", "file/below", "/dev/null", "/proc/cache"])
def test_a_place_that_cannot_be_is_said_before_the_work(folder, monkeypatch, place):
    (folder / "file").touch()
    monkeypatch.setenv("WSOL_CACHE", str(folder / place))
    with pytest.raises(ValueError, match=r"expected a folder that can be written to at .*, found none .*WSOL_CACHE"):
        cached(squares, 4)
    assert not calls
    with (
        pytest.raises(ValueError, match=r"expected a folder at .*, found none that can be made .*WSOL_CACHE"),
        one_at_a_time(cache_dir()),
    ):
        pass


def stand_still(context, at_work):
    with context():
        at_work.set()
        signal.pause()


@pytest.fixture
def process():
    """Start a process that enters a context and stays there; it is killed at the end, if it was not before."""
    started, fork = [], multiprocessing.get_context("fork")

    def start(context):
        at_work = fork.Event()
        started.append(fork.Process(target=stand_still, args=(context, at_work)))
        started[-1].start()
        assert at_work.wait(30)
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.join()


def test_what_a_killed_writer_left_is_removed_and_what_a_live_one_writes_is_not(folder, process):
    killed, alive = (process(partial(atomic_path, folder / name)) for name in ("of the killed", "of the living"))
    theirs = {path.name.split(".")[1]: path for path in files(folder)}
    assert set(theirs) == {"of the killed", "of the living"}
    killed.kill()
    killed.join()
    (folder / ".mine.part").touch()  # not of this making
    with atomic_path(folder / "another") as temporary:
        assert set(files(folder)) == {temporary, theirs["of the living"], folder / ".mine.part"}
    alive.kill()
    alive.join()
    with atomic_path(folder / "another"):
        assert not theirs["of the living"].exists()


def test_a_write_leaves_no_file_open(folder):
    before = os.listdir("/dev/fd")
    for _ in range(3):
        with atomic_path(folder / "file"), one_at_a_time(folder):
            pass
    assert os.listdir("/dev/fd") == before


def test_one_process_after_the_other(folder, process):
    first = process(partial(one_at_a_time, folder))
    entered, waits = [], threading.Event()
    second = threading.Thread(target=lambda: entered.append(one_at_a_time(folder, waits.set).__enter__()), daemon=True)
    second.start()
    assert waits.wait(30), "nobody is told that it waits"
    second.join(0.3)
    assert not entered, "the first one is still at work"
    first.kill()
    second.join(30)
    assert entered, "the lock goes with its process"
    with one_at_a_time(folder / "another", lambda: pytest.fail("nobody is at work here")):
        pass


def test_writers_at_the_same_time_do_not_mix(folder):
    def write(letter):
        with atomic_path(folder / "file") as temporary, open(temporary, "w") as file:
            barrier.wait()
            for _ in range(1000):
                file.write(letter)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (folder / "file").read_text()
    assert text in [letter * 1000 for letter in "abcd"] and len(files(folder)) == 1


def functions_from(folder, *sources):
    """The function ``f`` of each source, as a module of the same name would hold it after an edit."""
    for i, source in enumerate(sources):
        path = folder / f"{i}.py"
        path.write_text(source)
        namespace = {"__name__": "edited"}
        exec(compile(source, path, "exec"), namespace)
        yield namespace["f"]


def test_an_edited_function_computes_anew(tmp_path):
    one, two = functions_from(tmp_path, "def f():\n    return 1\n", "def f():\n    return 2\n")
    assert [cached(one), cached(two), cached(one)] == [1, 2, 1]


def test_functions_of_the_same_text_in_two_modules_are_two(tmp_path):
    one, two = functions_from(tmp_path, *2 * ["def f():\n    return here\n"])
    one.__globals__["here"], two.__globals__["here"], two.__module__ = 1, 2, "another"
    assert [cached(one), cached(two)] == [1, 2]


def test_a_function_of_a_notebook_cell_works():
    source = "def in_a_cell(n):\n    return n + 1\n"
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")  # as IPython does
    namespace = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), namespace)
    assert cached(namespace["in_a_cell"], 1) == cached(namespace["in_a_cell"], 1) == 2


def power(exponent, extra=None):
    def raised(n):
        calls.append((n, exponent))
        return n**exponent if extra is None else n

    return raised


def test_functions_of_one_factory_are_told_apart_by_what_they_captured():
    assert [cached(power(2), 3), cached(power(3), 3), cached(power(2), 3)] == [9, 27, 9]
    assert calls == [(3, 2), (3, 3)]


def test_a_captured_value_that_has_no_text_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"captured values alike, found Tensor: pass a name"):
        cached(power(2, torch.ones(2)), 3)
    assert not calls


@pytest.mark.parametrize("function", [lambda n: n, partial(squares, scale=2.0), "text".center, len])
def test_what_holds_more_than_the_key_would_know_is_refused(function):
    with pytest.raises(ValueError, match=r"expected a function made with def, found .*: write one"):
        cached(function, 3)


def test_a_list_is_not_a_tuple():
    cached(squares, 4, options=[1])
    cached(squares, 4, options=(1,))
    assert len(calls) == 2


def test_the_fingerprint_changes_when_a_source_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.wsol_lib, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "module.py").write_text("x = 1\n")
    one = cache.library_fingerprint.__wrapped__()
    (tmp_path / "module.py").rename(tmp_path / "other.py")
    assert cache.library_fingerprint.__wrapped__() != one


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_files_are_readable_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
