"""The built pages -> one PDF: chapters one after the other, printed by a browser, with links and a table of contents.

``make pdf`` runs it after ``make book``. Folded code stays out, answers to exercises are open, sliders show their first picture.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
from pathlib import Path

import yaml

NAME = "wsol-book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = ("book/api",)  # made from docstrings, for the screen
MARGINS = {"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"}
PAGE_NUMBER = '<div style="width: 100%; font-size: 8px; text-align: center"><span class="pageNumber"></span></div>'
STYLE = """
html { font-size: 13px; }
.bd-main, .bd-content, .bd-article, .bd-article h1 { display: block !important; }
.bd-main .bd-content .bd-article { max-width: none; padding: 0; break-before: page; overflow: visible; }
.contents { break-before: page; }
.cover { padding: 40% 0 0; text-align: center; }
.cover img { width: 40%; }
#main-content .bd-article :is(p, li, dd, figcaption) { max-width: none; }
#main-content .bd-article div.highlight pre { font-size: 10.5px; }
h1, h2, h3 { break-after: avoid; break-inside: avoid; }
"""


def browser_path(running: object) -> str:
    """The Chromium of this system, or the one that playwright has installed.

    Args:
        running: what ``sync_playwright()`` gives

    Raises:
        FileNotFoundError: there is none
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), running.chromium.executable_path)
    if not Path(path).exists():
        raise FileNotFoundError(
            f"expected a browser out of {', '.join(BROWSERS)}, found none: apt install chromium, or "
            "python -m playwright install chromium"
        )
    return path


def chapters(toc: dict) -> list[str]:
    """The pages of a ``_toc.yml`` in their order, as its entries name them, without those that no PDF needs."""
    names = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    return [name for name in names if name not in LEFT_OUT]


def joined(folder: Path, names: list[str], title: str, author: str) -> str:
    """The articles of several pages of one folder as one page of HTML, whose links between them stay within it.

    Args:
        folder: of the site
        names: of the pages, without ``.html``
        title, author: of the book

    Raises:
        FileNotFoundError: a page is not built
    """
    stems = [Path(name).name for name in names]
    articles, contents, head = [], [], ""
    for name, stem in zip(names, stems):
        path = folder / f"{name}.html"
        if not path.exists():
            raise FileNotFoundError(f"expected the page {path}, found none: build it first, make book")
        page = path.read_text(encoding="utf-8")
        article = re.search(r'<article class="bd-article">.*?</article>', page, flags=re.DOTALL)[0]
        heading = re.search(r"<h1>(.*?)<a class=\"headerlink\"", article, flags=re.DOTALL)
        contents.append(f'<li><a href="#{stem}--">{heading[1]}</a></li>')
        articles.append(_own_names(article, stem, stems).replace("<article ", f'<article id="{stem}--" ', 1))
        pieces = re.findall(
            r'<link[^>]*rel="stylesheet"[^>]*/>|<script[^>]*mathjax/.*?</script>|<script>window\.Ma.*?</script>', page
        )
        head = "\n".join(dict.fromkeys([*head.splitlines(), *pieces]))
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
{head}
<style>{STYLE}</style></head>
<body><main id="main-content" class="bd-main"><div class="bd-content">
<div class="cover"><img src="../_static/logo.svg" alt=""><p style="font-size: 2.6rem">{html.escape(title)}</p>
<p>{html.escape(author)}</p></div>
<div class="contents"><p style="font-size: 2rem">Contents</p><ul style="list-style: none">{"".join(contents)}</ul></div>
{"".join(articles)}
</div></main></body></html>"""


def _own_names(article: str, stem: str, stems: list[str]) -> str:
    """The article with names that no other page has, and its links to the other pages as links to theirs."""

    def link(found: re.Match) -> str:
        page, anchor = found[1], found[2] or ""
        if page and page.removesuffix(".html") not in stems:
            return ""  # a page that is left out: words, no link
        return f'href="#{page.removesuffix(".html") or stem}--{anchor.removeprefix("#")}"'

    article = re.sub(r'\bid="([^"]+)"', rf'id="{stem}--\1"', article)
    article = re.sub(r'\bhref="(?!\w+:|//|\.\.)([^"#]*)(#[^"]*)?"', link, article)
    return re.sub(r"<script\b.*?</script>|<a class=\"headerlink\".*?</a>", "", article, flags=re.DOTALL)


def write(root: Path) -> Path:
    """Print the built book of a repository to ``_build/html``, and let the pages' print button lead to it.

    Raises:
        FileNotFoundError: it is not built, or there is no browser
    """
    from playwright.sync_api import sync_playwright

    folder = root / "_build" / "html"
    config = yaml.safe_load((root / "_config.yml").read_text())
    names = chapters(yaml.safe_load((root / "_toc.yml").read_text()))
    page = folder / "book" / "print.html"  # where its links to pictures are right
    text = joined(folder, names, config["title"], config["author"])
    try:
        page.write_text(text, encoding="utf-8")
        with sync_playwright() as running:
            options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            browser = running.chromium.launch(executable_path=browser_path(running), args=options)
            tab = browser.new_page()
            tab.set_default_timeout(600_000)
            tab.goto(page.as_uri())
            tab.evaluate("async () => { await window.MathJax?.startup?.promise; }")
            tab.pdf(
                path=folder / NAME,
                format="A4",
                margin=MARGINS,
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=PAGE_NUMBER,
                outline=True,
                tagged=True,
            )
            browser.close()
    finally:
        page.unlink(missing_ok=True)
    for path in (folder / "book").glob("*.html"):
        whole = path.read_text(encoding="utf-8")
        button = whole.replace('<button onclick="window.print()"', f"<button onclick=\"location.href='../{NAME}'\"")
        if button != whole:
            path.write_text(button.replace('title="Print to PDF"', 'title="The book as a PDF"'), encoding="utf-8")
    return folder / NAME


if __name__ == "__main__":
    try:
        print(write(Path.cwd()))
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
