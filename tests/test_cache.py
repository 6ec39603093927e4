"""The cache: files whole or not at all, values found by what they were computed from."""

import errno
import linecache
import os
import stat
import threading

import numpy as np
import pytest
import torch

from wsol_lib import cache
from wsol_lib.cache import atomic_path, cache_dir, cached


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
