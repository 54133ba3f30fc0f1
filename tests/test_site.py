"""The documentation site: built as CI builds it, whole, offline, and with a place for every public name."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import browsing
from markdown_blocks import MARKDOWN, PAGES, ROOT, headings_of
from site_docstrings import apart
from site_pages import fitted, place_in_site, program_page

import seta_stream

pytestmark = pytest.mark.timeout(240)  # a build takes 5 s alone, and much longer on a busy machine

INNER = {"epochs", "jax_ahead", "jax_rows", "jax_wire", "torch_waiting", "torch_weights", "torch_workers"}
"""Modules of adapters/ that others are made of."""
PARTS = {"MPITransport", "GlooTransport", "GroupTransport", "check_trainer", "read_state", "Collator", "Positions"}
"""Classes and functions of adapters without an underscore that are parts of the public ones."""
ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        "a|article|aside|b|button|code|details|div|em|h1|h2|h3|h4|h5|h6|hr|img|li|nav|ol|p|path|pre|small|span|strong|"
        "summary|svg|table|tbody|td|th|thead|tr|ul",
    )
)
"""What the text of a page is made of."""
FOUND = """new Promise(done => {
    const look = () => {
        const count = document.querySelectorAll(".md-search-result__item").length;
        if (count) done(count); else setTimeout(look, 20);
    };
    look();
})"""
"""How many pages the search found, once it did."""
COUNTED = ("h1", "h2", "h3", "h4", "li", "table", "tr", "pre", "img")
"""Elements that a page must have as often in the site as on a forge."""


@dataclass
class Page(HTMLParser):
    """What a page of the site holds."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)
    """Of the text itself, without navigation."""

    def __post_init__(self) -> None:
        super().__init__()
        self._depth = 0
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.ids |= {told["id"]} if "id" in told else set()
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        elif tag == "link" and told.get("rel") not in ("canonical", "prev", "next"):
            self.resources.append(told["href"])
        elif "src" in told:
            self.resources.append(told["src"])
        if tag == "article":
            self._depth += 1
        elif self._depth:
            self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; the folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Read every page of the site."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def built(path: Path) -> str:
    """Return where a Markdown page of the repository lies in the site."""
    place = place_in_site(str(path.relative_to(ROOT)))
    assert place is not None, f"{path} has no place in the site"
    return place.removesuffix(".md") + ".html"


def test_every_page_is_there(site: Path) -> None:
    """Each Markdown page of the repository, and each example, is a page of the site."""
    for path in [*PAGES, *(ROOT / "examples").glob("*.py")]:
        assert (site / built(path)).exists(), path


def test_links_and_anchors_resolve(pages: dict[Path, Page], site: Path) -> None:
    """A link within the site leads to a page or file, and to a place on it."""
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("https:", "http:", "data:")):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if path.name == "404.html" and name.startswith("/"):
                target = site / name[1:]
            assert target.exists(), f"{path.relative_to(site)} links to {link}"
            if anchor and target in pages:
                assert anchor in pages[target].ids | {"__codelineno"}, f"{path.relative_to(site)} links to {link}"


def test_nothing_comes_from_outside(pages: dict[Path, Page], site: Path) -> None:
    """Scripts, styles, pictures and icons are files of the site; no style asks for another host's font."""
    for path, page in pages.items():
        for resource in page.resources:
            assert not resource.startswith(("http", "//")), f"{path.relative_to(site)} loads {resource}"
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(), style
        assert "fonts.g" not in style.read_text(), style


def test_no_text_is_taken_for_a_tag(pages: dict[Path, Page]) -> None:
    """What stands in angle brackets in docs and docstrings is shown: every element of a text is one of HTML's."""
    for path, page in pages.items():
        assert set(page.tags) <= ELEMENTS, f"{path.name}: {set(page.tags) - ELEMENTS}"


@pytest.mark.parametrize("path", [one for one in PAGES if "api" not in one.parts], ids=lambda one: one.name)
def test_a_page_reads_alike_on_a_forge(path: Path, site: Path, pages: dict[Path, Page]) -> None:
    """CommonMark and the site's Markdown see the same lists, tables, blocks and headings, under the same anchors."""
    page = pages[site / built(path)]
    tokens = MARKDOWN.parse(path.read_text())
    wanted = Counter(token.tag for token in tokens if token.nesting == 1)
    wanted["pre"] = sum(token.type in ("fence", "code_block") for token in tokens)
    wanted["img"] = sum(child.type == "image" for token in tokens for child in token.children or ())
    assert {tag: page.tags[tag] for tag in COUNTED} == {tag: wanted[tag] for tag in COUNTED}
    headings = headings_of(path.read_text())
    # A second heading of the same words is numbered in another way; strict builds refuse links to it.
    again = {anchor for anchor in headings if re.fullmatch(r"(.+)-\d+", anchor) and anchor[:-2] in headings}
    assert set(headings) - again <= page.ids


def public_names() -> set[str]:
    """Return every public name: of the package, of its adapters, of its errors."""
    adapters = (path for path in (ROOT / "seta_stream" / "adapters").glob("*.py") if path.stem not in INNER)
    listed = {*seta_stream.__all__}
    for path in (*adapters, ROOT / "seta_stream" / "errors.py"):
        made = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef))
        listed |= {node.name for node in made if not node.name.startswith("_")}
    return listed - PARTS


def test_every_public_name_has_its_place(pages: dict[Path, Page], site: Path) -> None:
    """On a page of the API, under an anchor of its own."""
    anchors = {anchor for path, page in pages.items() if path.parent == site / "api" for anchor in page.ids}
    placed = {anchor.rpartition(".")[2] for anchor in anchors if anchor.startswith("seta_stream.")}
    assert len(public_names()) > 55
    assert public_names() <= placed


def test_a_browser_needs_no_network(site: Path) -> None:
    """Opened as files, pages ask for files alone, complain of nothing, and the search finds a policy."""
    with browsing() as browser:
        for name, dark in (("index.html", False), ("api/policies.html", True), ("index.html?q=kakurenbo", False)):
            page = browser.open(f"file://{site}/{name}", dark=dark)
            if "?q" in name:
                assert page.evaluate(FOUND) > 2
            assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
            assert page.complaints == []
            scheme = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
            assert scheme == ("slate" if dark else "default")
            page.close()


@pytest.mark.parametrize(
    ("text", "source", "wanted"),
    [
        ("[a](docs/buckets.md)", "index.md", "[a](buckets.md)"),
        ("[a](docs/policies.md#rs2)", "index.md", "[a](policies.md#rs2)"),
        ("[a](docs/formats/)", "index.md", "[a](formats/index.md)"),
        ("[a](CONTRIBUTING.md) [b](examples/ddp.py)", "index.md", "[a](contributing.md) [b](examples/ddp.md)"),
        ("[a](../examples/ddp.py)", "frameworks.md", "[a](examples/ddp.md)"),
        ("[a](../../README.md#try-it)", "formats/state.md", "[a](../index.md#try-it)"),
        ("![a](images/ranks.png) [b](../buckets.md)", "formats/state.md", "![a](images/ranks.png) [b](../buckets.md)"),
        ("[a](https://x.org/docs/a.md) [b](#here)", "index.md", "[a](https://x.org/docs/a.md) [b](#here)"),
        ("[a](tools/bench/half.py)", "index.md", "[a](tools/bench/half.py)"),
    ],
)
def test_links_are_fitted(text: str, source: str, wanted: str) -> None:
    """A link that is relative in the repository is relative in the site; what it has not is the build's to refuse."""
    assert fitted(text, source) == wanted


def test_a_program_is_shown_under_its_docstring() -> None:
    """The docstring is the text, and the program stands whole below it."""
    assert program_page("a.py", '"""One.\n\nTwo."""\nx = 1\n') == (
        '# a.py\n\nOne.\n\nTwo.\n\n```python\n"""One.\n\nTwo."""\nx = 1\n```\n'
    )


def test_arguments_that_share_a_line_come_apart() -> None:
    """Each gets a row with the whole text; what only looks like it stays as it is."""
    told = "Args:\n    a: of\n        b, c: d\n    rank, world: of\n        all\n\n    z: last\n\nRaises:\n    A, B: x"
    assert apart(told) == told.replace(
        "    rank, world: of\n        all\n", "    rank: of\n        all\n    world: of\n        all\n"
    )
    assert apart("world, rank: x") == "world, rank: x"
