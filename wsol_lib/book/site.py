"""The pages as jupyter-book wrote them -> the pages that are read: lighter, without its errors, numbers under numbers.

jupyter-book's theme loads all of Font Awesome twice and a kernel that no page uses; it says so on every page's console. What
is mended here holds for any chapter, whatever is in it.
"""

from __future__ import annotations

import html
import io
import re
from itertools import product
from pathlib import Path

from bs4 import BeautifulSoup, Tag

#: What the theme puts into each page and no page needs, or needs in another way.
REPLACED = (
    (r"\s*<!-- So that users can add custom icons -->\s*<script[^>]*/fontawesome\.js[^>]*></script>", ""),
    (r"\s*<script>const THEBE_JS_URL.*?</script>", ""),
    (r"\s*<script[^>]*/sphinx-thebe\.js[^>]*></script>", ""),
    (r"\s*<link[^>]*/sphinx-thebe\.css[^>]*/>", ""),
    (r'\s*<script type="text/x-thebe-config">.*?</script>', ""),
    (r"\s*<script>kernelName = .*?</script>", ""),
    # the theme's default, which the page has to name
    (r'(localStorage\.getItem\("(?:mode|theme)"\) \|\| )""', r'\1"auto"'),
    (r'<body data-default-mode="">', '<body data-default-mode="auto">'),
    # a toggle is called what is written on it
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # equations without the menu of their settings, which is a third of the script
    (r"/mathjax/tex-chtml\.js", "/mathjax/startup.js"),
)
#: Signs, digits with thousands, decimals, unit.
NUMBER = re.compile(r"([+\-−±]?\d[\d,]*)(\.\d+)?(\s?%|)")
BLANK = ("", "-", "–", "—")


def mend(folder: str | Path) -> None:
    """Mend all pages of a site, and leave those that are mended already as they are.

    Args:
        folder: of the site, as ``jupyter-book build`` leaves it
    """
    folder = Path(folder)
    texts = []
    for path in sorted(folder.rglob("*.html")):
        if "_static" not in path.relative_to(folder).parts:
            text = path.read_text(encoding="utf-8")
            texts.append(mended(text))
            if texts[-1] != text:
                path.write_text(texts[-1], encoding="utf-8")
    _subset_icons(folder / "_static", texts)


def mended(page: str) -> str:
    """A page of HTML, mended."""
    for pattern, new in REPLACED:
        page = re.sub(pattern, new, page, flags=re.DOTALL)
    page = re.sub(r"<table\b.*?</table>", lambda found: aligned(found[0]), page, flags=re.DOTALL)
    if '<meta name="description"' not in page and (first := re.search(r"</h1>\s*<p>(.*?)</p>", page, re.DOTALL)):
        words = " ".join(html.unescape(re.sub(r"<[^>]+>", "", first[1])).split())
        page = page.replace("</title>", f'</title>\n    <meta name="description" content="{html.escape(words)}" />', 1)
    return page


# -- numbers under numbers ---------------------------------------------------------------------------------------------


def aligned(table: str) -> str:
    """A table in HTML whose columns of numbers are of the class ``number``, with room for the decimals that a cell lacks.

    The room is an empty element that the style fills with invisible digits, so that it is in no text that is copied. A column
    counts if every cell of the table's body that says something is a number, all in one unit.
    """
    soup = BeautifulSoup(table, "html.parser")
    columns: dict[int, list[Tag]] = {}
    taken: set[tuple[int, int]] = set()
    for row, line in enumerate(soup.find_all("tr")):
        column = 0
        for cell in line.find_all(["td", "th"], recursive=False):
            while (row, column) in taken:
                column += 1
            height, width = (int(cell.get(name, 1)) for name in ("rowspan", "colspan"))
            taken |= set(product(range(row, row + height), range(column, column + width)))
            if width == 1:
                columns.setdefault(column, []).append(cell)
    changed = False
    for cells in columns.values():
        body = [cell for cell in cells if cell.name == "td" and cell.get_text(strip=True) not in BLANK]
        numbers = [NUMBER.fullmatch(cell.get_text(strip=True)) for cell in body]
        if not body or not all(numbers) or len({number[3] for number in numbers}) > 1:
            continue
        longest = max((number[2] or "" for number in numbers), key=len)
        for cell in cells:
            cell["class"] = [*dict.fromkeys([*cell.get("class", []), "number"])]
        for cell, number in zip(body, numbers):
            _pad(cell, number, longest)
        changed = True
    return str(soup) if changed else table


def _pad(cell: Tag, number: re.Match, longest: str) -> None:
    missing = longest[len(number[2] or "") :]
    texts = [text for text in cell.find_all(string=True) if text.strip()]
    if not missing or len(texts) != 1 or cell.find("span", class_="room"):
        return
    soup = BeautifulSoup("", "html.parser")
    texts[0].replace_with(f"{number[1]}{number[2] or ''}", room := soup.new_tag("span"), number[3])
    room["class"], room["data-digits"] = ["room"], missing


# -- icons -------------------------------------------------------------------------------------------------------------


def _subset_icons(static: Path, pages: list[str]) -> None:
    """Cut the theme's icons down to those that pages, scripts and styles name."""
    style = static / "styles" / "pydata-sphinx-theme.css"
    rules = style.read_text(encoding="utf-8")
    scripts = [path.read_text(encoding="utf-8") for path in (static / "scripts").glob("*-theme.js")]
    named = set(re.findall(r"\bfa-[a-z0-9-]+", "".join([*pages, *scripts])))

    def kept(rule: re.Match) -> str:
        return rule[0] if named & set(re.findall(r"fa-[a-z0-9-]+", rule[0])) else ""

    rules = re.sub(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"[^"]*"\}', kept, rules)
    styles = [path.read_text(encoding="utf-8") for path in static.rglob("*.css") if path != style]
    drawn = {int(code, 16) for code in re.findall(r"\\([ef][0-9a-f]{3})\b", "".join([rules, *styles]))}
    for font in (static / "vendor" / "fontawesome" / "webfonts").glob("*.ttf"):
        font.with_suffix(".woff").write_bytes(_subset(font, drawn))
        rules = rules.replace(
            f'{font.stem}.woff2) format("woff2"),url(../vendor/fontawesome/webfonts/{font.name}) format("truetype")',
            f'{font.stem}.woff) format("woff")',
        )
    style.write_text(rules, encoding="utf-8")


def _subset(font: Path, codes: set[int]) -> bytes:
    """A font with no more than these characters, as WOFF."""
    from fontTools import subset  # comes with matplotlib
    from fontTools.ttLib import TTFont

    with TTFont(font) as whole:
        cutter = subset.Subsetter(subset.Options(layout_features=[]))
        cutter.populate(unicodes=codes)
        cutter.subset(whole)
        whole.flavor = "woff"
        file = io.BytesIO()
        whole.save(file)
    return file.getvalue()
