"""The page "Interface": made from docstrings, but which modules it shows is typed in, and none may be forgotten."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "api.md").read_text()
LISTED = re.findall(r"^\.\. automodule:: (\S+)$", PAGE, flags=re.MULTILINE)
# module -> where a reader meets what is in it
ELSEWHERE = {
    "wsol_lib": "every module below it",
    "wsol_lib.__main__": "python -m wsol_lib",
    "wsol_lib.book": "its modules",
    "wsol_lib.book.listing": "wsol_lib.book.plots",
    "wsol_lib.book.pdf": "make pdf",
    "wsol_lib.book.site": "wsol_lib.book.runner",
    "wsol_lib.commands": "its modules",
    "wsol_lib.commands.arguments": "the commands' --help",
    "wsol_lib.commands.journal": "wsol_lib.commands.predict",
    "wsol_lib.commands.plan": "wsol_lib.commands.predict",
    "wsol_lib.commands.reading": "wsol_lib.commands.predict",
    "wsol_lib.commands.sheet": "wsol_lib.commands.predict",
    "wsol_lib.data.birds": "wsol_lib.data.synthbirds",
    "wsol_lib.data.birds.drawing": "wsol_lib.data.synthbirds",
    "wsol_lib.data.birds.habitats": "wsol_lib.data.synthbirds",
    "wsol_lib.data.birds.plans": "wsol_lib.data.synthbirds",
    "wsol_lib.data.images": "the readers of wsol_lib.data",
    "wsol_lib.data.sample": "wsol_lib.data",
}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(map(module_name, (ROOT / "wsol_lib").rglob("*.py")))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_listed_or_met_elsewhere(module):
    assert (module in LISTED) != (module in ELSEWHERE), (
        f"list {module} in book/api.md, or say in ELSEWHERE where it is met"
    )


def test_what_is_listed_is_there_and_comes_once():
    assert set(LISTED) | set(ELSEWHERE) <= set(MODULES)
    assert len(set(LISTED)) == len(LISTED)
