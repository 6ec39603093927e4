"""The built book as a browser shows it: nothing missing, cut off or unreachable, on a wide screen and on a phone.

`make book` builds the pages, any Chromium shows them; without the one or the other these tests skip. They skip too where the
pages are older than what they are made of; `.ci/run` (WSOL_BUILT) and GitHub (CI) have built them: there the first test fails.
"""

import functools
import itertools
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from wsol_lib.book.pdf import browser_path
from wsol_lib.book.runner import changed_since_built

HTML = Path(__file__).parents[1] / "_build" / "html"
if not (HTML / "index.html").exists():
    pytest.skip("no built book: make book", allow_module_level=True)
CHANGED = changed_since_built(HTML.parents[1])
OLDER = f"the pages in _build/html are older than {', '.join(CHANGED[:5])}{', ...' * (len(CHANGED) > 5)}: make book"
if CHANGED and not {"CI", "WSOL_BUILT"} & set(os.environ):
    pytest.skip(OLDER, allow_module_level=True)

BOOK = sorted(
    path.stem for path in (Path(__file__).parents[1] / "book").glob("*.*") if path.suffix in (".ipynb", ".md")
)
PAGES = [f"book/{stem}.html" for stem in BOOK] + ["genindex.html", "search.html"]
# module: all tests of a page come together, so that of several test processes one alone opens it
each_page = pytest.mark.parametrize("page", PAGES, scope="module")
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def test_the_pages_are_of_today():
    assert not CHANGED, OLDER


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make test installs it")
    with playwright.sync_playwright() as running:
        try:
            browser = running.chromium.launch(executable_path=browser_path(running), args=["--no-sandbox"])
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser):
    """A page, on a wide screen or a phone, with what it said and asked for, in the window of the page before it."""

    @functools.cache
    def window(phone, mode):  # to make one takes as long as to show a page
        touched = {"is_mobile": True, "has_touch": True} if phone else {}
        context = browser.new_context(viewport=PHONE if phone else WIDE, **touched)
        context.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        tab = context.new_page()
        tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.on("request", lambda request: tab.requests.append(request.url))
        return tab

    def show(page, phone=False, mode="light"):
        tab = window(phone, mode)
        tab.errors, tab.requests = [], []
        tab.goto((HTML / page).as_uri())
        tab.evaluate(READY)
        return tab

    return show


@pytest.fixture(scope="module")
def seen(opened):
    """page -> what a wide window in light and dark and a phone show of it."""

    @functools.cache
    def look(page):
        tab = opened(page)
        found = {"wide": tab.evaluate(FACTS), "light": tab.evaluate(CONTRAST)}
        found |= {"errors": tab.errors, "requests": tab.requests}
        found["dark"] = opened(page, mode="dark").evaluate(CONTRAST)
        found["phone"] = opened(page, phone=True).evaluate(SIDEWAYS)
        return found

    return look


# equations are set, pictures are there, and what is folded is open: hidden errors are errors
READY = """async () => {
  await window.MathJax?.startup?.promise;
  document.querySelectorAll("details").forEach(folded => { folded.open = true; });
  document.querySelectorAll(".admonition.dropdown").forEach(folded => folded.classList.remove("toggle-hidden"));
  await Promise.all([...document.images].map(image => { image.loading = "eager"; return image.decode().catch(() => 0); }));
}"""

FACTS = """() => {
  const article = document.querySelector("article") || document.querySelector("main");
  const all = (what, from = article) => [...from.querySelectorAll(what)];
  const text = element => element.innerText.trim();
  const captioned = element => {
    for (let figure = element.closest("figure"); figure; figure = figure.parentElement.closest("figure"))
      if (all("figcaption", figure).some(text)) return true;
    return false;
  };
  const point = cell => {  // where the decimal point of a cell stands; without one, where its digits end
    const words = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node; (node = words.nextNode());) {
      const digits = node.data.match(/[\\d,]+/);
      if (!digits) continue;
      const range = document.createRange();
      range.setStart(node, digits.index);
      range.setEnd(node, digits.index + digits[0].length);
      return range.getBoundingClientRect().right;
    }
  };
  return {
    headings: all("h1, h2, h3, h4, h5, h6").map(heading => [Number(heading.tagName[1]), text(heading)]),
    pictures: all("img, svg[role=img], iframe").filter(picture => !picture.closest("a, mjx-container, button")).map(
      picture => ({
        what: (picture.getAttribute("src") || picture.tagName).slice(0, 60),
        described: picture.alt || picture.title || picture.getAttribute("aria-label") || "",
        captioned: captioned(picture),
        vector: picture.tagName != "IMG" || /\\.svg$|^data:image\\/svg/.test(picture.src),
        dots: picture.naturalWidth / picture.getBoundingClientRect().width,
      })),
    cut: all("div.highlight pre").filter(code => code.scrollWidth > code.clientWidth + 1).map(code =>
      text(code).split("\\n").reduce((a, b) => a.length > b.length ? a : b)),
    scrolling: all("div.cell_output, .pst-scrollable-table-container, div.math").filter(
      element => element.scrollWidth > element.clientWidth + 1).map(element => text(element).slice(0, 80)),
    empty: all("details, .admonition.dropdown").filter(folded => {
      const title = folded.firstElementChild;
      return !title || !text(title) || (text(folded) == text(title) && !all("img, iframe", folded).length);
    }).map(folded => folded.outerHTML.slice(0, 200)),
    frames: all("figure[id^=slider-]").map(
      slider => all("input", slider).reduce((product, dial) => product * (Number(dial.max) + 1), 1)),
    columns: all("table").flatMap(table => {
      const columns = {};
      for (const cell of all("td.number, td.interval", table)) (columns[cell.cellIndex] ??= []).push(cell);
      return Object.values(columns).map(cells => ({
        cells: cells.map(text).join(" | "),
        points: cells.map(point).filter(x => x),
      }));
    }),
    scrolled: document.documentElement.scrollWidth,
  };
}"""

SIDEWAYS = """() => {
  const wide = [...document.querySelectorAll("article *")].filter(element => {
    const scrolls = element.parentElement.closest(
      "pre, div.cell_output, div.table-container, .pst-scrollable-table-container, div.math, mjx-container");
    return !scrolls && element.getBoundingClientRect().right > 391;
  });
  return {width: document.documentElement.scrollWidth, wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 150))};
}"""

# WCAG 2: (L1 + 0.05) / (L2 + 0.05) of a text and of what is painted behind it
CONTRAST = """() => {
  const parse = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = colour => colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] == 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const faint = {};
  const words = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let node; (node = words.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (element.closest(".headerlink, mjx-assistive-mml, script, style, [aria-hidden=true]")) continue;
    const ground = behind(element), ink = over(parse(getComputedStyle(element).color), ground);
    const [low, high] = [light(ground), light(ink)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint[`${element.tagName}.${element.className}`] ??= `${node.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`;
  }
  return faint;
}"""


@each_page
def test_no_error_on_the_console(seen, page):
    assert seen(page)["errors"] == []


@each_page
def test_nothing_is_fetched_from_elsewhere(seen, page):
    assert [url for url in seen(page)["requests"] if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


@each_page
def test_a_page_with_few_figures_weighs_under_3_mb(seen, page):
    files = {urlsplit(url).path for url in seen(page)["requests"] if url.startswith("file:")}
    wide = seen(page)["wide"]
    if len(wide["pictures"]) + sum(wide["frames"]) <= 8:
        assert sum(Path(unquote(file)).stat().st_size for file in files) < 3e6


@each_page
def test_headings_are_in_order(seen, page):
    levels = [level for level, _ in seen(page)["wide"]["headings"]]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), seen(page)["wide"]["headings"]


@each_page
def test_every_figure_has_a_caption_and_says_what_is_seen(seen, page):
    pictures = seen(page)["wide"]["pictures"]
    named = [p["what"] for p in pictures if re.search(r"^$|\.(png|svg|jpe?g|webp)$", p["described"])]
    assert named == [], "no alternative text, or a file's name"
    assert [p["what"] for p in pictures if not p["captioned"]] == [], "no caption"


@each_page
def test_every_figure_is_sharp(seen, page):
    """A vector graphic, or 200 dots an inch: an inch are 96 of a browser's pixels."""
    pictures = seen(page)["wide"]["pictures"]
    assert [p["what"] for p in pictures if not p["vector"] and p["dots"] < 200 / 96 - 0.02] == []


@each_page
def test_no_line_of_code_is_cut_off(seen, page):
    assert seen(page)["wide"]["cut"] == []


@each_page
def test_no_table_and_no_equation_is_cut_off(seen, page):
    assert seen(page)["wide"]["scrolling"] == []


@each_page
def test_what_is_folded_says_what_it_is_and_is_not_empty(seen, page):
    assert seen(page)["wide"]["empty"] == []


@each_page
def test_numbers_of_a_column_stand_point_under_point(seen, page):
    for column in seen(page)["wide"]["columns"]:
        assert max(column["points"]) - min(column["points"]) < 1.5, column["cells"]


@each_page
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_can_be_read(seen, page, mode):
    assert seen(page)[mode] == {}, "contrast below 4.5"


@each_page
def test_nothing_pushes_the_page_sideways(seen, page):
    assert seen(page)["wide"]["scrolled"] <= 1400
    assert seen(page)["phone"] == {"width": 390, "wide": []}


# -- sliders -----------------------------------------------------------------------------------------------------------

WITH_SLIDERS = [page for page in PAGES if (HTML / page).exists() and 'id="slider-' in (HTML / page).read_text()]


def moved(figure, move, *arguments):
    """Whether a move changes the picture, what is said of it, and the value that is shown."""
    state = "figure => [...figure.querySelectorAll('img, output')].map(e => e.src ? [e.src, e.alt] : e.value)"
    before = figure.evaluate(state)
    move(*arguments)
    after = figure.evaluate(state)
    values = [k for k, (old, new) in enumerate(zip(before, after)) if isinstance(old, str) and old != new]
    (old_src, old_alt), (new_src, new_alt) = (next(x for x in s if isinstance(x, list)) for s in (before, after))
    return old_src != new_src and old_alt != new_alt and len(values) == 1


def dials(tab):
    """Each dial of a page, at its first value and in sight, with its figure and the place of its last value."""
    for figure in tab.query_selector_all("figure[id^=slider-]"):
        for dial in figure.query_selector_all("input"):
            dial.evaluate("dial => { dial.value = 0; dial.dispatchEvent(new Event('input')); }")
            dial.scroll_into_view_if_needed()
            box = dial.bounding_box()
            yield figure, dial, (box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)


@pytest.mark.parametrize("page", WITH_SLIDERS)
def test_sliders_answer_to_mouse_and_keyboard(opened, page):
    tab = opened(page)
    for figure, dial, end in dials(tab):
        assert dial.evaluate("dial => dial.labels[0].innerText.trim() != ''"), "a dial without a name"
        assert moved(figure, tab.mouse.click, *end)
        dial.focus()
        assert moved(figure, tab.keyboard.press, "ArrowLeft")


@pytest.mark.parametrize("page", WITH_SLIDERS)
def test_sliders_answer_to_touch(opened, page):
    tab = opened(page, phone=True)
    for figure, _, end in dials(tab):
        assert moved(figure, tab.touchscreen.tap, *end)


# -- links: no browser needed ------------------------------------------------------------------------------------------


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]


@functools.cache
def links(path):
    return Links(path.read_text(encoding="utf-8"))


@each_page
def test_no_link_within_the_book_is_broken(page):
    assert [link for link in links(HTML / page).links if not leads_somewhere(link, HTML / page)] == []


def leads_somewhere(link, page):
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or link == "#":
        return True
    target = page.parent / unquote(parts.path) if parts.path else page
    if not target.exists():
        return False
    return not parts.fragment or target.suffix != ".html" or unquote(parts.fragment) in links(target.resolve()).ids


@pytest.mark.parametrize("page", [page for page in PAGES if (HTML / "_sources" / page).with_suffix(".ipynb").exists()])
def test_a_chapter_can_be_had_as_an_executed_notebook(page):
    download = (HTML / "_sources" / page).with_suffix(".ipynb")
    assert any(link.endswith(f"_sources/{page.removesuffix('.html')}.ipynb") for link in links(HTML / page).links)
    cells = [cell for cell in json.loads(download.read_text())["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells)


@each_page
def test_a_page_has_a_description_for_those_who_search(page):
    if page.startswith("book/"):
        assert re.search(r'<meta name="description" content=".{20,}"', (HTML / page).read_text())
