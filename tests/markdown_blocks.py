"""The code blocks of README and docs, as CommonMark sees them. Pure but for reading the page.

Takes a page; gives its fenced blocks in order, with the section that each stands in and, where a block says that it is
not run, why.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOT_RUN: Final = re.compile(r"^<!-- not run: (.+) -->\s*$")
MARKDOWN: Final = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        page: path in the repository.
        line: of its first line of code, from 1.
        language: what follows the fence; "" where nothing does.
        code: its lines.
        section: text of the heading that it stands under.
        reason: why it is not run, or None.
    """

    page: str
    line: int
    language: str
    code: str
    section: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    tokens = MARKDOWN.parse(path.read_text())
    found, section = [], ""
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            section = tokens[number + 1].content
        elif token.type == "fence":
            assert token.map is not None
            before = tokens[number - 1]
            told = NOT_RUN.match(before.content) if before.type == "html_block" else None
            language = token.info.split(" ")[0]
            page = str(path.relative_to(ROOT))
            block = Block(page, token.map[0] + 2, language, token.content, section, told and told[1])
            found.append(block)
    return found


def every_block() -> dict[str, list[Block]]:
    """Return the blocks of all pages that have some, by page."""
    pages = {str(path.relative_to(ROOT)): blocks_of(path) for path in PAGES}
    return {page: blocks for page, blocks in pages.items() if blocks}


def headings_of(text: str) -> list[str]:
    """Return the anchors of a page's headings, as forges make them: its words in lower case, joined by hyphens."""
    tokens, seen = MARKDOWN.parse(text), Counter[str]()
    anchors = []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            words = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
            anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def links_of(text: str) -> list[str]:
    """Return the targets of a page's links and pictures, code left aside."""
    inlines = (child for token in MARKDOWN.parse(text) for child in token.children or ())
    return [
        str(child.attrs.get("href") or child.attrs.get("src"))
        for child in inlines
        if child.type in ("link_open", "image")
    ]
