"""Recorded measurements: what is kept, and where it is found again."""

import json
import multiprocessing
import subprocess
from pathlib import Path

import pytest

from wsol_lib.book import results
from wsol_lib.book.results import printed, printed_tables

FACTS = dict(chapter="02-cam", profile="tiny", dataset="tiny-imagenet", n=10_000, seed=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("WSOL_RECORDS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_a_measurement_is_found_again_with_its_circumstances(folder):
    results.record("cam/max-box-acc", 0.62, **FACTS, tau=0.24)
    found = results.load("02-cam", "tiny")["cam/max-box-acc"]
    assert (found["value"], found["n"], found["dataset"], found["tau"]) == (0.62, 10_000, "tiny-imagenet", 0.24)
    assert {"device", "versions", "commit", "date", "seed"} <= set(found)


def test_the_last_measurement_of_a_name_counts_and_the_others_stay(folder):
    for name, value in [("a", 0.1), ("b", 0.2), ("a", 0.3)]:
        results.record(name, value, **FACTS)
    found = results.load("02-cam", "tiny")
    assert {name: entry["value"] for name, entry in found.items()} == {"a": 0.3, "b": 0.2}


def test_one_file_a_chapter_and_profile_and_nothing_else(folder):
    results.record("a", 1, **FACTS)
    results.record("a", 1, **{**FACTS, "profile": "full"})
    assert sorted(path.name for path in folder.iterdir()) == ["02-cam-full.json", "02-cam-tiny.json"]


def test_what_cannot_be_written_leaves_the_file_as_it_was(folder):
    results.record("a", 1, **FACTS)
    with pytest.raises(TypeError):
        results.record("b", 2, **FACTS, tau=object())
    assert list(json.loads((folder / "02-cam-tiny.json").read_text())) == ["a"]


def record_many(begin, prefix):
    begin.wait()
    for i in range(40):
        results.record(f"{prefix} {i}", i, **FACTS)


def test_two_processes_lose_none_of_each_others_measurements(folder, monkeypatch):
    monkeypatch.setattr(results, "_commit", lambda: None)  # asks git, which takes longer than all the rest
    fork = multiprocessing.get_context("fork")
    begin = fork.Barrier(2)
    both = [fork.Process(target=record_many, args=(begin, prefix)) for prefix in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert set(results.load("02-cam", "tiny")) == {f"{prefix} {i}" for prefix in "ab" for i in range(40)}
    assert [path.name for path in folder.iterdir()] == ["02-cam-tiny.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000])
def test_damaged_records_are_named_and_left_as_they_are(folder, content):
    path = folder / "02-cam-tiny.json"
    folder.mkdir()
    path.write_bytes(content)
    for ask in (lambda: results.load("02-cam", "tiny"), lambda: results.record("a", 1, **FACTS)):
        with pytest.raises(
            ValueError, match=r"expected the records of a chapter, JSON, in .*json, found a damaged file"
        ):
            ask()
    assert path.read_bytes() == content and list(folder.iterdir()) == [path]


def test_nothing_recorded_is_an_empty_answer(folder):
    assert results.load("02-cam", "full") == {}


def test_the_commit_is_the_librarys_own_and_a_plus_says_that_its_sources_differ(folder, tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def commit():
        results.record("a", 1, **FACTS)
        return results.load("02-cam", "tiny")["a"]["commit"]

    monkeypatch.chdir(tmp_path)
    library = tmp_path / "wsol_lib" / "__init__.py"
    monkeypatch.setattr(results.wsol_lib, "__file__", str(library))
    library.parent.mkdir()
    library.write_text("")
    git("init")
    git("add", "wsol_lib")
    git("commit", "-m", "first")
    assert commit() == git("rev-parse", "--short=12", "HEAD"), "the records themselves are no difference"
    library.write_text("changed = True")
    assert commit() == git("rev-parse", "--short=12", "HEAD") + "+"
    installed = tmp_path / ".venv" / "wsol_lib" / "__init__.py"  # below a repository that is not the library's
    monkeypatch.setattr(results.wsol_lib, "__file__", str(installed))
    assert commit() is None


def test_a_table_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(ValueError, match=r"expected one of the tables psol table 1, .* found 'psol' 'table 9'"):
        printed("psol", "table 9")
    monkeypatch.chdir(tmp_path)
    assert printed("psol", "table 2") == printed_tables() == {}
    Path("paper_tables.yaml").write_text("psol: {table 1: {columns: [a, b], rows: {x: [1]}}}")
    with pytest.raises(ValueError, match="expected 2 numbers in row x of psol table 1"):
        printed("psol", "table 1")
    assert printed_tables() == {"psol": ["table 1"]}
