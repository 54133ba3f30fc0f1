"""The page of a run, whatever its texts and numbers are: nothing of theirs may become markup.

An input is cut into texts, which stand in every place of the page where something foreign can.
"""

from __future__ import annotations

import html.parser
import json
from collections.abc import Iterator

from fuzz.making import refusing
from seta_stream.losses.columns import LOSS
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.report.html import page
from seta_stream.report.html_values import RunReport, SampleCard
from seta_stream.report.runfigures import Costs, drawable, figures_of, usable_lines
from seta_stream.report.sources import by_source
from seta_stream.report.summary import summarise

TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "h1",
        "p",
        "nav",
        "ul",
        "li",
        "main",
        "section",
        "h2",
        "h3",
        "figure",
        "figcaption",
        "svg",
        "path",
        "rect",
        "span",
        "i",
        "div",
        "output",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
        "small",
        "strong",
        "q",
        "ol",
        "img",
        "footer",
        "script",
        "bdi",
    ]
)
ATTRIBUTES = frozenset(
    [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "href",
        "id",
        "tabindex",
        "aria-labelledby",
        "aria-label",
        "aria-hidden",
        "aria-live",
        "role",
        "scope",
        "style",
        "viewbox",
        "preserveaspectratio",
        "focusable",
        "d",
        "x",
        "y",
        "width",
        "height",
        "src",
        "alt",
        "fill-opacity",
        "data-points",
        "data-slots",
    ]
)
COST = 40
CORPUS = LossTable([4, 4])
CORPUS.record([0, 1, 2, 5], [0.5, 1.0, 2.0, 4.0])


class Reader(html.parser.HTMLParser):
    """Refuses what our own words do not hold."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        assert tag in TAGS, f"an element {tag!r} that is not ours"
        for name, value in attrs:
            assert name in ATTRIBUTES, f"an attribute {name!r} that is not ours"
            is_link = name in {"href", "src"}
            assert not is_link or (value or "").startswith(("#", "data:image/png;base64,")), f"a link to {value!r}"

    def handle_decl(self, decl: str) -> None:
        """Only the first line is one."""
        assert decl == "DOCTYPE html", f"a declaration {decl!r}"

    def handle_comment(self, data: str) -> None:
        """There are none."""
        raise AssertionError(f"a comment {data!r}")

    def handle_pi(self, data: str) -> None:
        """There are none."""
        raise AssertionError(f"an instruction {data!r}")


def seeds() -> Iterator[bytes]:
    """Give texts that would like to be more."""
    yield b"\0".join([b"<script>alert(1)</script>", b"\"'><img src=x onerror=alert(1)>", b"]]><!--", b"&lt;&#x3c;"])
    yield "\u202ereversed\0\x1b[31mred\0javascript:alert(1)\0</title><svg/onload=alert(1)>".encode()
    yield b'{"epoch": 1, "generation": "gen-00001-a", "parent": null, "facts": {"policy": {"name": "<b>"}}}'


def one(data: bytes) -> None:
    """Make a page with these texts in it, and read it as a browser does."""
    texts = data.decode("utf-8", "surrogateescape").split("\0")
    with refusing():
        told = page(report(texts)).encode().decode()  # a page that cannot be encoded is none
    reader = Reader()
    reader.feed(told)
    reader.close()
    assert (told.count("<script>"), told.count("</script>")) == (1, 1), "a script that is not ours"


def report(texts: list[str]) -> RunReport:
    """Return a run in which these texts stand wherever one can."""

    def at(number: int) -> str:
        return texts[number % len(texts)]

    lines = usable_lines([_line(epoch, texts) for epoch in range(3)])
    summary = summarise(CORPUS, lines, generation=at(0), epoch=2, rule=None, group=None, unmatched_shards=0)
    card = SampleCard(1, 2.5, 1, key=at(1), shard=at(2), texts=((at(3), at(4)),), image=b"x", image_kind="png",
                      image_size=(3, 4), lacking=at(5))  # fmt: skip
    names = tuple(dict.fromkeys(texts))
    return RunReport(
        state=at(0), made=at(1), version=at(2), summary=summary, run=figures_of(lines, Costs(price(at(3)))),
        lines=tuple(drawable(lines)), costs=Costs(price(at(3)), watts_source=at(4)), sources=by_source(
            names, [number % len(names) for number in range(8)], CORPUS.values, CORPUS.all_ages, None),
        sources_by=at(5), hardest=(card,), easiest=(card,), notes=tuple(texts),
    )  # fmt: skip


def price(source: str) -> object:
    """Return a price that is from somewhere."""
    from seta_stream.report.prices import Price

    return Price(0.1, 0.1, source)


def _line(epoch: int, texts: list[str]) -> dict[str, object]:
    merged = Histogram.of(CORPUS.values).merged(8)
    line = {
        "epoch": epoch, "generation": f"gen-{epoch}", "parent": f"gen-{epoch - 1}" if epoch else None, "samples": 8,
        "seen": 4, "unseen": 4, "mean": 1.0, "expected_share": 0.5, "judged_by": texts[0] or LOSS,
        "rule": {"groups": {texts[-1]: {"edges": [], "keep": [1.0]}}},
        "groups": {text: [4, 2.0] for text in texts},
        "facts": {"policy": {"name": texts[0], "by": texts[-1]}, "seconds": 1},
        "histogram": {"edges": merged.edges.tolist(), "counts": merged.counts.tolist()},
    }  # fmt: skip
    try:
        more = json.loads(texts[-1])
    except (ValueError, RecursionError):
        more = None
    return {**line, **more} if isinstance(more, dict) else line
