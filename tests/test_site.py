"""The pages after the theme: what is taken out, what is put right, numbers under numbers."""

import re
import shutil
from pathlib import Path

import pydata_sphinx_theme
import pytest
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont

from wsol_lib.book import site

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"

PAGE = """<html><head><title>A page</title>
  <link rel="stylesheet" type="text/css" href="../_static/sphinx-thebe.css?v=4f" />
  <!-- So that users can add custom icons -->
  <script defer src="../_static/scripts/fontawesome.js?digest=55"></script>
  <script>const THEBE_JS_URL = "https://unpkg.com/thebe"; const thebe_selector = ".cell"</script>
  <script async="async" src="../_static/sphinx-thebe.js?v=c1"></script>
  <script>localStorage.getItem("mode") || "";</script>
  <script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>
</head><body data-default-mode=""><h1>A title</h1>
<p>Where is the <em>bird</em> &amp;
what is "it"?</p><i class="fa-solid fa-bars"></i>
<code><span class="pre">a</span> <span class="pre">b</span></code>
<details><summary aria-label="Toggle hidden content"><p>Show</p></summary></details>
<script type="text/x-thebe-config">{}</script><script>kernelName = 'python3'</script><script>kept()</script>
</body></html>"""


def test_a_page_is_without_a_kernel_and_icon_scripts_and_names_its_mode():
    page = site.mended(PAGE)
    assert not re.search("thebe|fontawesome|kernelName|tex-chtml", page)
    assert re.findall(r"<script.*?</script>", page) == [
        '<script>localStorage.getItem("mode") || "auto";</script>',
        '<script defer="defer" src="../_static/mathjax/startup.js"></script>',
        "<script>kept()</script>",
    ]
    assert '<body data-default-mode="auto">' in page and "<summary><p>Show</p>" in page
    assert "<code>a b</code>" in page


def test_styles_of_cards_and_tabs_are_for_pages_that_have_some():
    style = '<link rel="stylesheet" href="_static/sphinx-design.min.css?v=6" />'
    script = '<script data-x="y" src="_static/design-tabs.js?v=f"></script>'
    assert site.mended(f"a{style}{script}b") == "ab"
    page = f'a{style}{script}<div class="docutils sd-card">b</div>'
    assert site.mended(page) == page


def test_its_first_paragraph_describes_it():
    assert '<meta name="description" content="Where is the bird &amp; what is &quot;it&quot;?" />' in site.mended(PAGE)


def test_a_table_without_a_caption_is_called_as_its_section():
    heading = '<h2><span>4.1. </span>One &amp; "two"<a class="headerlink" href="#x" title="Link">#</a></h2>'
    page = f"<table><tr></tr></table>{heading}<table><caption>own</caption></table><table class='t'><tr></tr></table>"
    soup = BeautifulSoup(site.named(site.named(page)), "html.parser")
    assert [own.get("aria-label") for own in soup.find_all("table")] == [None, None, '4.1. One & "two"']
    assert site.named(site.named(page)) == site.named(page) and "class='t'" in site.named(page)


def test_what_is_mended_stays():
    assert site.mended(site.mended(PAGE)) == site.mended(PAGE)


MARKS = {"number": "^", "interval": "~"}


def rows(table):
    """The cells of a table as ``site`` leaves them, with the digits that room is left for; ^ numbers, ~ intervals."""
    soup = BeautifulSoup(site.aligned(table), "html.parser")
    for room in soup.find_all("span", class_="room"):
        room.replace_with(f"[{room['data-digits']}]")
    return [
        [
            cell.get_text(strip=True) + MARKS.get((cell.get("class") or [""])[-1], "")
            for cell in row.find_all(["td", "th"])
        ]
        for row in soup.find_all("tr")
    ]


def table(*lines, head="th"):
    first, *others = ("".join(f"<{head}>{cell}</{head}>" for cell in line) for line in lines)
    return (
        f"<table><tr>{first}</tr>" + "".join(f"<tr>{line}</tr>" for line in others).replace("th>", "td>") + "</table>"
    )


def test_a_column_of_numbers_leaves_room_for_decimals():
    made = rows(
        table(["", "GT-known Loc", "n"], ["CAM", "61.25%", "10,000"], ["floor", "7%", "–"], ["x", "-0.5%", "3"])
    )
    assert made == [
        ["", "GT-known Loc^", "n^"],
        ["CAM", "61.25%^", "10,000^"],
        ["floor", "7[.25]%^", "–^"],
        ["x", "-0.5[5]%^", "3^"],
    ]


def test_intervals_begin_point_under_point():
    made = rows(table(["minus CAM"], ["-0.5 points (-1.0 to +0.1)"], ["+12.5 points (+9.0 to +14.0)"], [""]))
    assert made == [["minus CAM~"], ["[1]−0.5 points (−1.0 to +0.1)~"], ["+12.5 points (+9.0 to +14.0)~"], ["~"]]


@pytest.mark.parametrize("column", [["1", "one"], ["1%", "1"], ["–", ""], ["+1.0 (+0.2 to +1.8)", "2"]])
def test_a_column_of_anything_else_is_left_alone(column):
    made = table(["name"], *([cell] for cell in column))
    assert site.aligned(made) == made


def test_a_number_in_bold_keeps_it_and_is_padded_once():
    once = site.aligned(table(["a"], ["<strong>1.5</strong>"], ["<strong>2</strong>"]))
    assert '<strong>2<span class="room" data-digits=".5"></span></strong>' in once
    assert site.aligned(once) == once


def test_cells_that_span_rows_and_columns_are_counted():
    made = rows(
        '<table><tr><th colspan="2">who</th><th>n</th></tr>'
        '<tr><th rowspan="2">birds</th><th>CAM</th><td>1</td></tr><tr><th>DDT</th><td>20</td></tr></table>'
    )
    assert made == [["who", "n^"], ["birds", "CAM", "1^"], ["DDT", "20^"]]


@pytest.fixture
def built(tmp_path):
    """A site of one page with what the theme brings for icons."""
    for name in ("styles/pydata-sphinx-theme.css", "vendor/fontawesome", "scripts/pydata-sphinx-theme.js"):
        source, target = THEME / name, tmp_path / "_static" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text(PAGE)
    (tmp_path / "_static" / "custom.css").write_text('a::after { content: "\\f35d" }')
    return tmp_path


def test_icons_are_cut_down_to_those_that_are_named(built):
    style = built / "_static" / "styles" / "pydata-sphinx-theme.css"
    before = style.stat().st_size
    site.mend(built)
    rules, fonts = style.read_text(), built / "_static" / "vendor" / "fontawesome" / "webfonts"
    assert style.stat().st_size < before - 50_000 and ".fa-bars" in rules and ".fa-car-side" not in rules
    assert "woff2" not in rules and ".ttf" not in rules
    assert set(re.findall(r"webfonts/(fa-[a-z0-9-]+\.woff)\)", rules)) == {path.name for path in fonts.glob("*.woff")}
    drawn = TTFont(fonts / "fa-solid-900.woff").getBestCmap()
    assert {0xF0C9, 0xF00D, 0xF35D} <= set(drawn), "of a page, of the theme's script, of a style"
    assert 0xF5E4 not in drawn and (fonts / "fa-solid-900.woff").stat().st_size < 20_000


def test_a_site_is_mended_once(built):
    site.mend(built)
    after = {path: path.read_bytes() for path in built.rglob("*") if path.is_file() and path.suffix != ".woff"}
    site.mend(built)
    assert {path: path.read_bytes() for path in after} == after
