"""The book as one page to print: chapters in order, links between them kept, names that do not collide."""

import re

import pytest

from wsol_lib.book import pdf

HEAD = """<link rel="stylesheet" type="text/css" href="../_static/custom.css" />
<script>window.MathJax = {}</script><script src="../_static/other.js"></script>"""


def write_page(folder, name, title, body):
    path = folder / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    heading = f'<h1><span>{title}</span><a class="headerlink" href="#a">#</a></h1>'
    article = f'<article class="bd-article"><section id="a">{heading}{body}</section><script>x()</script></article>'
    path.write_text(f"<html><head>{HEAD}</head><body><nav>bar</nav>{article}</body></html>")


@pytest.fixture
def site(tmp_path):
    links = '<a href="two.html#b">b</a><a href="api.html#c">c</a><a href="#a">a</a><a href="https://d.org/#e">d</a>'
    write_page(tmp_path, "book/one", "One", links + '<img src="../_images/e.svg">')
    write_page(tmp_path, "book/two", "Two", '<p id="b">b</p><a href="one.html">one</a>')
    return tmp_path


def test_pages_follow_the_table_of_contents_without_the_interface():
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": "book/one"}, {"file": "book/api"}]}]}
    assert pdf.chapters(toc) == ["book/index", "book/one"]


def test_links_between_pages_stay_within_the_one_page(site):
    page = pdf.joined(site, ["book/one", "book/two"], "A & B", "us")
    targets = re.findall(r'href="#([^"]+)"', page)
    assert targets == ["one--", "two--", "two--b", "one--a", "one--"]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids) and set(targets) <= set(ids)
    assert 'href="https://d.org/#e"' in page and "<a >c</a>" in page, "elsewhere; left out"
    assert 'src="../_images/e.svg"' in page and "x()" not in page and "bar" not in page
    assert page.index("<span>One</span>") < page.index("<span>Two</span>")


def test_the_page_has_styles_and_equations_once_and_no_other_script(site):
    page = pdf.joined(site, ["book/one", "book/two"], "A & B", "us")
    assert page.count("custom.css") == 1 and page.count("window.MathJax") == 1 and "other.js" not in page
    assert "<title>A &amp; B</title>" in page


def test_a_page_that_is_not_built_is_named(site):
    with pytest.raises(FileNotFoundError, match=r"expected the page .*three\.html, found none: build it first"):
        pdf.joined(site, ["book/three"], "t", "a")


class Running:
    class chromium:
        executable_path = "/nowhere/chromium"


def test_without_a_browser_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"expected a browser out of chromium, .* apt install chromium"):
        pdf.browser_path(Running)


def test_a_book_is_printed_and_its_pages_lead_to_it(site):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as running:
        try:
            pdf.browser_path(running)
        except FileNotFoundError as error:
            pytest.skip(str(error))
    root = site / "root"
    (root / "_build").mkdir(parents=True)
    (site / "book").rename(root / "_build" / "book")
    (root / "_build" / "html").mkdir()
    (root / "_build" / "book").rename(root / "_build" / "html" / "book")
    (root / "_config.yml").write_text("title: Trial\nauthor: us\n")
    (root / "_toc.yml").write_text("root: book/one\nparts: [{chapters: [{file: book/two}]}]\n")
    page = root / "_build" / "html" / "book" / "one.html"
    page.write_text(page.read_text().replace("<nav>", '<nav><button onclick="window.print()" title="Print to PDF">'))
    made = pdf.write(root)
    assert made.read_bytes().startswith(b"%PDF") and made.parent == root / "_build" / "html"
    assert """onclick="location.href='../wsol-book.pdf'" title="The book as a PDF">""" in page.read_text()
    assert sorted(path.name for path in page.parent.iterdir()) == ["one.html", "two.html"]
