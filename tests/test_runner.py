"""The runner: what is executed, what is reused, and what is said after a failure."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from wsol_lib.__main__ import main
from wsol_lib.book import runner

ROOT = Path(__file__).parents[1]
PARAMETERS = 'profile = "quick"\nseed = 0\ndata_root = ""'


def write_chapter(path, *sources):
    cells = [new_markdown_cell(f"# {path.stem}"), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of three chapters that note their runs in a file, as the folder we are in."""
    monkeypatch.chdir(tmp_path)
    for name in ("WSOL_CACHE", "WSOL_DATA", "WSOL_RECORDS", "WSOL_RESULTS", "JUPYTER_PATH"):
        monkeypatch.setenv(name, "")  # the runner sets them; monkeypatch puts them back
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("title: trial\nexecute:\n  execute_notebooks: 'off'\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n- glob: book/0*\n")
    (tmp_path / "book" / "index.md").write_text("# Trial\n")
    for number in ("01", "02", "03"):
        note = f"open('../runs', 'a').write('{number} ' + profile + str(seed) + ';')"
        write_chapter(tmp_path / "book" / f"{number}-trial.ipynb", note, "print(6 * 7)")
    return tmp_path


@pytest.fixture
def no_kernel(monkeypatch):
    """Cells are executed in this process, for tests of which chapters are run and not of how."""

    def execute(chapter, partial, parameters, *, cwd, **_):
        notebook = nbformat.read(chapter, as_version=4)
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            for cell in notebook.cells:
                if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                    exec(cell.source, dict(parameters))
        notebook.metadata["papermill"] = {}
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)


def runs(book):
    path = book / "runs"
    return path.read_text().split(";")[:-1] if path.exists() else []


def run(*arguments):
    return main(["book", "--no-html", *arguments])


def test_a_notebook_without_a_number_runs_last_and_by_its_name(book, no_kernel):
    write_chapter(book / "book" / "a-page.ipynb", "open('../runs', 'a').write('page;')")
    assert run() == 0
    assert runs(book) == ["01 quick0", "02 quick0", "03 quick0", "page"]
    assert run("--chapters", "a-page", "--force") == 0
    assert runs(book)[4:] == ["page"]


def test_chapters_run_in_reading_order_and_keep_their_outputs(book):
    assert run("--chapters", "02", "01") == 0
    assert runs(book) == ["01 quick0", "02 quick0"]
    executed = nbformat.read(book / "_build" / "quick" / "02-trial.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "42\n"
    assert str(book) not in json.dumps(executed), "the page offers it for download"
    source = nbformat.read(book / "book" / "02-trial.ipynb", as_version=4)
    assert source.cells[-1].outputs == []


def test_a_finished_chapter_is_not_run_again(book, no_kernel):
    run()
    run()
    assert len(runs(book)) == 3


@pytest.mark.parametrize("change", ["chapter", "library", "parameter", "force"])
def test_a_change_runs_it_again(book, no_kernel, monkeypatch, change):
    run("--chapters", "01")
    arguments = []
    if change == "chapter":
        write_chapter(book / "book" / "01-trial.ipynb", "open('../runs', 'a').write('01 changed;')")
    elif change == "library":
        monkeypatch.setattr(runner, "library_fingerprint", lambda: "another library")
    else:
        arguments = {"parameter": ["--seed", "1"], "force": ["--force"]}[change]
    run("--chapters", "01", *arguments)
    assert len(runs(book)) == 2


def test_a_chapter_whose_stamp_is_damaged_runs_again(book, no_kernel):
    run("--chapters", "01")
    stamp = book / "_build" / "quick" / "01-trial.json"
    whole = stamp.read_bytes()
    stamp.write_bytes(whole[:7])
    assert run("--chapters", "01") == 0
    assert len(runs(book)) == 2 and runner._finished(stamp)["key"] == json.loads(whole)["key"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "k"}', b'{"key": "k", "seconds": null}', b"\xff"])
def test_a_damaged_stamp_says_nothing(tmp_path, content):
    (tmp_path / "stamp").write_bytes(content)
    assert runner._finished(tmp_path / "stamp") == {}


def test_a_new_record_runs_the_chapters_again_that_show_records(book, no_kernel):
    write_chapter(book / "book" / "02-trial.ipynb", "open('../runs', 'a').write('02;')  # results.load(")
    write_chapter(book / "book" / "03-trial.ipynb", "open('../runs', 'a').write('03;')  # claims.recorded(")
    write_chapter(book / "book" / "04-trial.ipynb", "open('../runs', 'a').write('04;')  # records.load_record(")
    run()
    for folder in ("results", "_build/results"):
        (book / folder).mkdir(parents=True, exist_ok=True)
        (book / folder / "01-trial-quick.json").write_text("{}")
        run()
    assert runs(book)[4:] == ["02", "03", "04"], "what was recorded on this machine is on no page"


def test_a_run_that_was_cut_short_is_not_taken_for_finished(book, no_kernel, monkeypatch, capsys):
    chapter = book / "book" / "01-trial.ipynb"
    original = chapter.read_bytes()
    run("--chapters", "01")
    write_chapter(chapter, "print('another text')")

    def cut_short(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the executed copy and its stamp
        patch.setattr(runner, "_install_kernel", lambda root: "wsol-book")
        patch.setattr(runner, "atomic_path", cut_short)
        assert run("--chapters", "01") == 130
    assert "interrupted: what was finished is kept" in capsys.readouterr().err
    chapter.write_bytes(original)  # the text of the first stamp: the copy beside it is of another one
    run("--chapters", "01")
    assert len(runs(book)) == 2


def test_a_notebook_that_names_no_language_is_python(book):
    path = book / "book" / "01-trial.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.clear()
    nbformat.write(notebook, path)
    assert run("--chapters", "01") == 0


def test_after_a_failure_it_names_chapter_cell_and_error_and_keeps_the_others(book, capsys):
    write_chapter(book / "book" / "02-trial.ipynb", "answer = 6 * 7", "answer / 0\nprint(answer)")
    assert main(["book"]) == 1
    said = capsys.readouterr().err
    assert "1 of 3 chapters failed; the HTML was not built" in said
    assert "02-trial, cell 4 (`answer / 0`): ZeroDivisionError: division by zero" in said
    assert runs(book) == ["01 quick0", "03 quick0"]
    assert (book / "_build" / "quick" / "03-trial.ipynb").exists()
    assert not (book / "_build" / "quick" / "02-trial.ipynb").exists()
    assert not (book / "_build" / "html").exists()


def test_a_failure_leaves_the_last_good_copy(book):
    run("--chapters", "02")
    good = (book / "_build" / "quick" / "02-trial.ipynb").read_text()
    write_chapter(book / "book" / "02-trial.ipynb", "1 / 0")
    assert run("--chapters", "02") == 1
    assert (book / "_build" / "quick" / "02-trial.ipynb").read_text() == good


def test_chapters_are_chosen_by_number_or_name(book, no_kernel):
    assert run("--chapters", "03", "01-trial") == 0
    assert runs(book) == ["01 quick0", "03 quick0"]


def test_the_kernel_is_this_interpreter_and_keeps_to_the_books_folders(book, monkeypatch):
    monkeypatch.setenv("WSOL_CACHE", "cache")  # relative to where the reader stands, not to book/
    monkeypatch.setenv("WSOL_DATA", "data")
    folders = ("WSOL_CACHE", "WSOL_DATA", "WSOL_RESULTS", "WSOL_RECORDS", "IPYTHONDIR")
    write_chapter(
        book / "book" / "01-trial.ipynb",
        "import json, os, sys\n"
        f"names = {(*folders, 'MALLOC_TRIM_THRESHOLD_')}\n"
        "json.dump([sys.executable, *map(os.environ.get, names)], open('../seen', 'w'))",
    )
    run("--chapters", "01")
    expected = [str(book / name) for name in ("cache", "data", "_build/results", "results", "_build/ipython")]
    assert json.loads((book / "seen").read_text()) == [sys.executable, *expected, str(2**34)]


def test_figures_are_drawn_whatever_backend_the_reader_has_set(book, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    write_chapter(book / "book" / "01-trial.ipynb", "import matplotlib.pyplot as plt\nplt.plot([1, 2])")
    run("--chapters", "01")
    executed = nbformat.read(book / "_build" / "quick" / "01-trial.ipynb", as_version=4)
    assert any("image/png" in output.get("data", {}) for output in executed.cells[-1].outputs)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--profile", "fast"], "expected a profile out of quick, tiny, full, found 'fast'"),
        (["--chapters", "07"], "expected chapters out of 01-trial, 02-trial, 03-trial, found 07"),
        (["--profile", "tiny"], "expected the folder that holds tiny-imagenet as --data-root or in WSOL_DATA"),
        (["--profile", "tiny", "--data-root", "nowhere"], "expected a folder that holds tiny-imagenet at"),
    ],
)
def test_bad_arguments_are_one_sentence_before_anything_runs(book, capsys, monkeypatch, arguments, sentence):
    monkeypatch.delenv("WSOL_DATA", raising=False)
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and "Traceback" not in said
    assert runs(book) == []


def test_outside_the_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run() == 2
    assert "expected the book's repository" in capsys.readouterr().err


def test_html_has_the_outputs_needs_no_network_and_a_warning_is_an_error(book, capsys):
    shutil.copy(ROOT / "_config.yml", book)
    shutil.copy(ROOT / "book" / "references.bib", book / "book")
    shutil.copytree(ROOT / "book" / "_static", book / "book" / "_static")
    (book / "book" / "index.md").write_text("# Trial\n\n$x^2$\n")
    assert main(["book", "--chapters", "01", "02"]) == 0
    assert re.search(r"03-trial +not executed in the quick profile", capsys.readouterr().out)
    assert runner.changed_since_built(book) == ["book/03-trial.ipynb"]
    html = book / "_build" / "html"
    assert re.search(r">42\n", (html / "book" / "02-trial.html").read_text())
    pages = "".join(page.read_text() for page in html.rglob("*.html"))
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.(?:https?:)?//[^>]*>", pages) == []
    assert (html / "index.html").exists() and "MathJax" in pages
    (book / "book" / "index.md").write_text("# Trial\n\n{doc}`nowhere`\n")
    for attempt in ("first", "second"):
        assert main(["book", "--chapters", "01", "02"]) == 1, f"{attempt} attempt"
        said = capsys.readouterr().err
        assert "unknown document" in said and "the HTML has warnings, which count as errors" in said
        assert runner.changed_since_built(book) == ["book", "wsol_lib"]
    assert len(runs(book)) == 2, "rendering again does not execute again"


@pytest.mark.parametrize(
    "source, data, prompt",
    [
        ("draw()", {"image/svg+xml": "<svg/>"}, "the code of this figure"),
        ("plots.slider(draw)", {"text/html": '<figure id="slider-1">'}, "the code of this slider"),
        ("frame", {"text/html": "<table>"}, "the code of this table"),
        ("display(text)", {"text/markdown": "| a |\n|---|\n"}, "the code of this table"),
        ("display(text)", {"text/markdown": "a"}, "the code behind this"),
        ("import os\nif 'google.colab' in modules:\n    %pip install .", None, "the installation on Colab"),
        ("import torch\nseed = 0", None, "the imports"),
        ("if kept:\n    check('So it is.', True)", None, "what checks these sentences"),
        ("limit = 3\ndef side(box):\n    return box", None, "the code of side, limit"),
        ("print", None, "the code"),
        ("%cd ..", None, "the code"),
    ],
)
def test_a_toggle_says_what_it_hides(source, data, prompt):
    outputs = [new_output("display_data", data=data)] if data else []
    cell = new_code_cell(source, metadata={"tags": ["hide-input"]}, outputs=outputs)
    runner._prepare(cell)
    assert cell.metadata["mystnb"] == {"code_prompt_show": f"Show {prompt}", "code_prompt_hide": f"Hide {prompt}"}


def test_what_a_chapter_says_of_a_toggle_stays():
    words = {"code_prompt_show": "Show answer 1, run"}
    cell = new_code_cell("1", metadata={"tags": ["hide-cell"], "mystnb": words.copy()})
    runner._prepare(cell)
    assert cell.metadata["mystnb"] == {**words, "code_prompt_hide": "Hide answer 1, run"}


def test_a_listing_is_shown_without_the_call_that_makes_it():
    listing, other = new_code_cell("plots.show_source(lchp.momentum_update)"), new_code_cell("plots.use_style()")
    for cell in (listing, other):
        runner._prepare(cell)
    assert listing.metadata["tags"] == ["remove-input"] and "tags" not in other.metadata


@pytest.fixture
def built(book, no_kernel, monkeypatch):
    """The book with pages of three chapters, one of which shows records; rendering is left out."""
    write_chapter(book / "book" / "02-trial.ipynb", "1  # records.load_record(")
    (book / "_build" / ".doctrees").mkdir(parents=True)
    (book / "_build" / ".doctrees" / "clean").touch()
    with monkeypatch.context() as patch:
        patch.setattr(runner.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
        patch.setattr(runner.site, "mend", lambda folder: None)
        assert main(["book"]) == 0
    assert runner.changed_since_built(book) == []
    return book


def test_pages_say_which_text_or_library_they_are_older_than(built, monkeypatch):
    (built / "book" / "index.md").write_text("# Another\n")
    (built / "book" / "new.md").write_text("# New\n")
    (built / "_toc.yml").unlink()
    write_chapter(built / "book" / "01-trial.ipynb", "2")
    assert runner.changed_since_built(built) == ["_toc.yml", "book/01-trial.ipynb", "book/index.md", "book/new.md"]
    monkeypatch.setattr(runner, "library_fingerprint", lambda: "another library")
    assert {"wsol_lib", "book/02-trial.ipynb"} <= set(runner.changed_since_built(built))


def test_pages_with_an_older_run_or_other_records_are_older(built):
    (built / "results").mkdir()
    (built / "results" / "cam.json").write_text("{}")
    assert runner.changed_since_built(built) == ["book/02-trial.ipynb"]
    (built / "_build" / "quick" / "03-trial.json").write_text("{}")  # it was run with --force, and killed
    assert runner.changed_since_built(built) == ["book/02-trial.ipynb", "book/03-trial.ipynb"]


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"parameters": {}, "sources": {}}'])
def test_pages_without_word_of_what_they_were_made_of_are_older_than_all(built, content):
    (built / runner.MADE_OF).write_bytes(content) if content is not None else (built / runner.MADE_OF).unlink()
    assert runner.changed_since_built(built) == ["book", "wsol_lib"]


def test_only_what_changed_is_staged_again(book):
    source = book / "_build" / "source"
    runner._stage(book, source, "quick")
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()}
    (book / "book" / "index.md").write_text("# Another\n")
    os.remove(book / "book" / "03-trial.ipynb")
    runner._stage(book, source, "quick")
    changed = {path.name for path, mtime in before.items() if not path.exists() or path.stat().st_mtime_ns != mtime}
    assert changed == {"index.md", "03-trial.ipynb"}
