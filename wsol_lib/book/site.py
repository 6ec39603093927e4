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
    # each word of each signature, 7,000 times in the interface
    (r'<span class="pre">([^<]*)</span>', r"\1"),
    # equations without the menu of their settings, which is a third of the script
    (r"/mathjax/tex-chtml\.js", "/mathjax/startup.js"),
)
#: Cards and tabs, which a page may use.
DESIGN = r"\s*<(?:link|script)[^>]*/(?:sphinx-design\.min\.css|design-tabs\.js)[^>]*>(?:</script>)?"
#: Sign, digits with thousands, decimals, unit; and the same with an interval behind it.
NUMBER = re.compile(r"([+\-−±]?)(\d[\d,]*)(\.\d+)?(\s?%|)")
INTERVAL = re.compile(r"([+\-−]?)(\d[\d,]*)(\.\d+)?(.*\(.* to .*\))")
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
    if not re.search(r'class="[^"]*\bsd-', page):
        page = re.sub(DESIGN, "", page)
    page = re.sub(r"<table\b.*?</table>", lambda found: aligned(found[0]), named(page), flags=re.DOTALL)
    if '<meta name="description"' not in page and (first := re.search(r"</h1>\s*<p>(.*?)</p>", page, re.DOTALL)):
        words = " ".join(html.unescape(re.sub(r"<[^>]+>", "", first[1])).split())
        page = page.replace("</title>", f'</title>\n    <meta name="description" content="{html.escape(words)}" />', 1)
    return page


def named(page: str) -> str:
    """A page of HTML whose tables without a caption have the name of their section, for those to whom it is read."""
    section = ""

    def name(found: re.Match) -> str:
        nonlocal section
        if found["heading"]:
            section = html.unescape(re.sub(r'<a class="headerlink".*?</a>|<[^>]+>', "", found["heading"])).strip()
        elif section and "aria-label" not in found["rest"]:
            return f'<table aria-label="{html.escape(section)}"{found["rest"]}'
        return found[0]

    pattern = r"<h[1-6]\b[^>]*>(?P<heading>.*?)</h[1-6]>|<table(?P<rest>[^>]*>)(?!\s*<caption)"
    return re.sub(pattern, name, page, flags=re.DOTALL)


# -- numbers under numbers ---------------------------------------------------------------------------------------------


def aligned(table: str) -> str:
    """A table in HTML whose numbers stand under each other: columns of the class ``number`` or ``interval``.

    Numbers end at the right, intervals begin at the left; where a cell has fewer digits than another one there, behind or
    before its point, an empty element takes their room. The style fills it with invisible digits, so that it is in no text
    that is copied. A column counts if every cell of the table's body that says something is of the kind; of numbers, all in
    one unit.
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
    for cells in columns.values():
        body = [cell for cell in cells if cell.name == "td" and cell.get_text(strip=True) not in BLANK]
        for kind, pattern in (("number", NUMBER), ("interval", INTERVAL)):
            found = [pattern.fullmatch(cell.get_text(strip=True)) for cell in body]
            if body and all(found) and (kind == "interval" or len({own[4] for own in found}) == 1):
                for cell in cells:
                    cell["class"] = [*dict.fromkeys([*cell.get("class", []), kind])]
                _leave_room(body, found, kind)
                break
    return str(soup) if soup.find(class_=["number", "interval"]) else table


def _leave_room(cells: list[Tag], found: list[re.Match], kind: str) -> None:
    group = 3 if kind == "number" else 2
    longest = max((own[group] or "" for own in found), key=len)
    for cell, own in zip(cells, found):
        sign, digits, decimals, rest = (part or "" for part in own.groups())
        texts = [text for text in cell.find_all(string=True) if text.strip()]
        if len(texts) != 1 or cell.find("span", class_="room"):
            continue
        room = BeautifulSoup("", "html.parser").new_tag("span", attrs={"class": "room"})
        if kind == "number":
            room["data-digits"] = longest[len(decimals) :]
            pieces = [sign + digits + decimals, room, rest]
        else:
            room["data-digits"] = longest[: len(longest) - len(digits)]
            pieces = [room, re.sub(r"-(?=\d)", "−", own[0])]  # as wide as a plus
        if room["data-digits"] or kind == "interval":
            texts[0].replace_with(*(piece for piece in pieces if piece is not room or room["data-digits"]))


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
