"""Listings: the library's own source on a page of the book, so that the text cannot drift from it."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Sequence

from IPython.display import Markdown

#: Characters in a line of a listing, and what a longer line may be broken before.
LINE = 88
BREAK_BEFORE = ("for", "if", "else", "and", "or", "+", "-", "*", "/", "@", "|", "==", "<", ">", "<=", ">=")


def show_source(function: Callable) -> Markdown:
    """The source of a library function as a code block of the page.

    Left out are its docstring and the checks of its arguments, with what is computed for them alone; lines are broken at
    ``LINE`` characters.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    body = definition.body[ast.get_docstring(definition) is not None :]
    kept = [node for node in body if not _is_check(node)]
    used = {node.id for own in kept for node in ast.walk(own) if _is_read(node)}
    for node in reversed(definition.body):
        only_for_checks = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id not in used for target in node.targets
        )
        if node not in kept or only_for_checks:
            del lines[node.lineno - 1 : node.end_lineno]
    return Markdown(f"```python\n# {function.__module__}\n" + "\n".join(_broken(lines)) + "\n```")


def _is_read(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _is_check(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.body[-1], ast.Raise) and not node.orelse
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("_check")


def _broken(lines: Sequence[str]) -> list[str]:
    """Lines of code, those over ``LINE`` characters broken in a bracket, as far out as possible."""
    places = {row: [] for row in range(1, len(lines) + 1)}  # row -> (depth, column) of where a line may end
    depth, in_targets = 0, False
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        row, column = token.start
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        in_targets = token.string == "for" or (in_targets and token.string != "in")
        spaced = token.line[column - 1 : token.end[1] + 1] == f" {token.string} "  # no sign, no star of an argument
        if depth and token.string == "," and not in_targets:
            places[row].append((depth, column + 1))
        elif depth and spaced and token.string in BREAK_BEFORE:
            places[row].append((depth, column))
    broken = []
    for row, line in enumerate(lines, 1):
        indent = " " * (len(line) - len(line.lstrip()) + (8 if line.lstrip().startswith("def ") else 4))
        start = 0
        while len(rest := (indent if start else "") + line[start:].lstrip() if start else line) > LINE:
            room = LINE - len(rest) + len(line)
            fitting = [(-level, column) for level, column in places[row] if start < column <= room]
            if not fitting:
                break
            end = max(fitting)[1]
            broken.append(rest[: len(rest) - len(line[end:])].rstrip())
            start = end
        broken.append(rest)
    return broken
