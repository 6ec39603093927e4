"""What is written in several places says the same in all of them, and what the README shows runs."""

import json
import re
from pathlib import Path

import pytest
import yaml

import wsol_lib

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it along
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
URL = PROJECT["urls"]["Source"]
REPOSITORY = URL.removeprefix("https://github.com/")  # owner/name
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
README = (ROOT / "README.md").read_text()
INDEX = ROOT / "book" / "index.ipynb"
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)


def code_cells(chapter):
    cells = json.loads(chapter.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_requirements_txt_lists_what_pyproject_lists():
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    extras = PROJECT["optional-dependencies"]
    assert sorted(line for line in lines if line and not line.startswith("#")) == sorted(
        PROJECT["dependencies"] + extras["book"] + extras["test"]
    )


def test_version_agrees_everywhere():
    assert PROJECT["version"] == wsol_lib.__version__
    assert CITATION["version"] == wsol_lib.__version__
    assert f"## [{wsol_lib.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_citation_has_the_fields_that_its_format_requires():
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    assert CITATION["authors"] == PROJECT["authors"]


def test_project_url_agrees_in_config_and_citation():
    assert CONFIG["repository"]["url"] == URL
    assert CITATION["repository-code"] == URL


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "book/index.ipynb"])
def test_project_url_agrees_in_the_texts(name):
    text = (ROOT / name).read_text()
    assert URL in text
    named = re.findall(rf"github(?:\.com)?/([\w.-]+/{REPOSITORY.split('/')[1]})", text)  # on Colab there is no .com
    assert set(named) == {REPOSITORY}


@each_chapter
def test_chapter_installs_the_library_from_the_project_url_on_colab_only(chapter):
    installing = [cell for cell in code_cells(chapter) if "pip install" in cell]
    assert len(installing) == 1
    assert re.search(r'git clone -q --depth 1 (\S+)"', installing[0])[1] == URL
    assert 'if "google.colab" in sys.modules' in installing[0]


@pytest.mark.parametrize("chapter", [c for c in CHAPTERS if c != INDEX], ids=lambda chapter: chapter.stem)
def test_chapter_is_in_the_index_and_the_readme(chapter):
    assert any(link in INDEX.read_text() for link in (f"]({chapter.stem})", f"{{doc}}`{chapter.stem}`"))
    branch = CONFIG["repository"]["branch"]
    assert f"/github/{REPOSITORY}/blob/{branch}/book/{chapter.name})" in README


def test_links_of_the_texts_lead_to_files():
    for name in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == []


def test_python_of_the_readme_runs(capsys):
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["boxes"].shape == (32, 4)
    assert "% of the images" in capsys.readouterr().out
