"""The chapters as they are committed: stripped, parametrised, runnable on Colab, listed in the table of contents."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    notebook = nbformat.read(request.param, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_chapter_is_in_the_table_of_contents_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    notebooks = [f"book/{path.stem}" for path in CHAPTERS if f"book/{path.stem}" != toc["root"]]
    assert sorted(name for name in listed if name in notebooks) == notebooks
    numbered = [entry["file"] for entry in toc["parts"][0]["chapters"]]
    assert numbered == [name for name in notebooks if re.match(r"book/\d\d-", name)]


def test_no_outputs_are_committed(chapter):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(chapter))


def test_the_parameters_of_the_runner(chapter):
    (parameters,) = [cell.source for cell in code_cells(chapter) if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    exec(parameters, values)
    assert (values["profile"], values["seed"], values["data_root"]) == ("quick", 0, "")


def test_all_chapters_begin_with_the_same_installation_on_colab():
    """What it does is tested in test_colab.py."""
    cells = {code_cells(nbformat.read(path, as_version=4))[0].source for path in CHAPTERS}
    assert len(cells) == 1
    assert cells.pop().splitlines()[3].startswith('if "google.colab" in sys.modules and ')


def test_every_cell_parses(chapter):
    for cell in code_cells(chapter):
        compile(TransformerManager().transform_cell(cell.source), "cell", "exec")


def test_its_language_is_named_so_that_it_renders_before_it_is_run(chapter):
    assert chapter.metadata.language_info.name == "python"


def test_no_path_of_somebodys_machine(chapter):
    for cell in code_cells(chapter):
        assert not re.search(r"""["'](/|~/|[A-Z]:\\)\w""", cell.source), cell.source


def test_a_chapter_opens_with_its_title(chapter):
    assert chapter.cells[0].cell_type == "markdown" and chapter.cells[0].source.startswith("# ")
