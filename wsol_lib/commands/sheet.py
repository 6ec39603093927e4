"""A contact sheet: photographs with their boxes on one page of HTML that needs no other file, to look through by eye."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from wsol_lib.cache import atomic_path
from wsol_lib.data.images import decode_rgb

THUMBNAIL = 240  # longer side in pixels
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1em; align-items: end; }
figure { margin: 0; }
figure div { position: relative; display: inline-block; line-height: 0; }
figure i { position: absolute; box-sizing: border-box; border: 2px solid #D55E00; outline: 1px solid #fff; }
figcaption { overflow-wrap: anywhere; font-size: 12px; }
"""


class Entry(NamedTuple):
    """A photograph by its name, what is remembered of it (size, box, score), and the name of its box's class."""

    name: str
    line: dict[str, Any]
    category: str


def write(
    path: Path, title: str, entries: Sequence[Entry], total: int, damaged: Sequence[dict[str, str]], folder: Path
) -> None:
    """Write the page, whole or not at all; one that is there is replaced.

    Args:
        path: the file
        title: of the page
        entries: what is shown, in this order
        total: number of photographs, of which ``entries`` may be a part
        damaged: file_name and reason of what could not be read
        folder: where the photographs are
    """
    shown = f"All {total:,} photographs" if len(entries) == total else f"{len(entries):,} of {total:,} photographs"
    note = f"{shown}, lowest scores first. A score is how sure the localizer was; a wrong box may have a high one."
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n')
        file.write(f"<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n<p>{note}</p>\n<main>\n")
        with ThreadPoolExecutor() as threads:
            for entry, image in zip(entries, threads.map(lambda entry: _thumbnail(folder / entry.name), entries)):
                file.write(_figure(entry, image))
        file.write("</main>\n" + "".join(_list_of(damaged)) + "</html>\n")


def _figure(entry: Entry, image: str) -> str:
    name, box = html.escape(entry.name), ""
    words = f"{html.escape(entry.category)}, {entry.line['score']:.2f}"
    if entry.line["box"] is None:
        words = f"no box, {words}"
    else:
        x1, y1, x2, y2 = entry.line["box"]
        width, height = entry.line["size"]
        edges = {"left": x1 / width, "top": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
        box = f'<i style="{"; ".join(f"{edge}: {share:.2%}" for edge, share in edges.items())}"></i>'
    return (
        f'<figure><div><img src="{image}" alt="{name}">{box}</div><figcaption>{name}<br>{words}</figcaption></figure>\n'
    )


def _thumbnail(path: Path) -> str:
    """The photograph, small, as an address that holds it; an empty one if it is gone meanwhile."""
    try:
        image = Image.fromarray(decode_rgb(path.read_bytes(), str(path), least=THUMBNAIL))
    except (OSError, ValueError):
        return "data:,"
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _list_of(damaged: Sequence[dict[str, str]]) -> Iterator[str]:
    if damaged:
        yield "<h2>Damaged, left out</h2>\n<ul>\n"
        for row in damaged:
            yield f"<li>{html.escape(row['file_name'])}: {html.escape(row['reason'])}</li>\n"
        yield "</ul>\n"
