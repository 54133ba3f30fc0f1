"""The page of a run whose corpus is hostile: what a browser makes of it is what we wrote, and nothing runs."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing
from click.testing import CliRunner
from fuzz.making import tar
from fuzz.pages import Reader
from hostile_corpora import hidden
from test_hostile_fields import picture

from seta_stream import SeTa, SetaStream
from seta_stream.cli import main

HARM = "window.harmed=1"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{HARM}"><script>{HARM}</script></svg>'.encode()
HTML = f"<html><script>{HARM}</script><img src=x onerror={HARM}></html>".encode()


def commented(data: bytes) -> bytes:
    """Return a PNG with a comment that would like to be markup, behind its header."""
    text = b"Comment\0<script>" + HARM.encode() + b"</script>"
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    return data[:33] + chunk + data[33:]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a run over such samples."""
    folder = tmp_path_factory.mktemp("page")
    place = folder / f"x'\"><script>{HARM.replace('=', '')}<.tar".replace("/", "")
    place.write_bytes(
        tar(
            [
                ("a'><img src=x onerror=harm>/0.svg", SVG),
                ("a'><img src=x onerror=harm>/0.txt", b"\xe2\x80\xae" + HTML),
                ("1.html", HTML),
                ("1.json", b'{"a": "</script><script>window.harmed=1</script>"}'),
                ("2.jpg", SVG),
                ("2.<b onmouseover=x>", b"text"),
                ("3.png", commented(picture("PNG", (300, 200)))),
                ("4.gif", b"GIF89a" + HTML),
                ("5.jpg", commented(picture("JPEG")[:20]) + HTML),
            ]
        )
    )
    state = folder / "st'\"<i>ate"
    policy = SeTa(num_epochs=4, prune_ratio=0.1, num_group=2, window_scale=1.0)
    with SetaStream(str(place), policy=policy, state=str(state), batch_size=2) as stream:
        for batch in stream.batches(2):
            stream.record(batch["__index__"], [float(one) for one in batch["__index__"]])
    page = folder / "page.html"
    done = CliRunner().invoke(main, ["report", str(state), "-o", str(page), "--samples", "6", "--by", "folder"])
    assert done.exit_code == 0, done.output
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one browser."""
    with browsing() as found:
        yield found


def test_nothing_of_the_corpus_is_markup(told: Path) -> None:
    """Elements, attributes and links are ours alone; what was text is text, and visible."""
    text = told.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert text.count("<script") == 1
    assert HARM not in re.sub("&[^;]+;", "", text.partition("<script>")[2].partition("</script>")[0])
    assert not hidden(text)
    assert "&lt;script&gt;" in text, "the texts are not shown at all"


def test_only_pictures_that_were_made_here_are_embedded(told: Path) -> None:
    """An SVG, which may hold script, is none whatever it is called; of a PNG its pixels come through, no comments."""
    text = told.read_text(encoding="utf-8")
    found = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', text)
    assert [kind for kind, _ in found] == ["png"] * len(found) or {kind for kind, _ in found} == {"jpeg"}
    assert found, "no picture is shown at all"
    assert "svg+xml" not in text
    for _, data in found:
        assert b"script" not in base64.b64decode(data)
        assert len(base64.b64decode(data)) < 1 << 16


def test_the_page_forbids_everything_else(told: Path) -> None:
    """Should something get through after all, the policy stops it: no script but ours, no address at all."""
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', told.read_text(encoding="utf-8"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#x27;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["script-src"])
    assert rules["img-src"] == "data:"
    assert (rules["base-uri"], rules["form-action"]) == ("'none'", "'none'")


def test_a_browser_runs_nothing_of_it(told: Path, browser: Browser) -> None:
    """In a real one: no harm was done, nothing was asked for, and the console is silent."""
    found = browser.open(told.as_uri())
    try:
        assert found.evaluate("typeof window.harmed") == "undefined"
        assert found.complaints == []
        assert [one for one in found.requests if not one.startswith("data:")] == [told.as_uri()]
        assert found.evaluate("document.querySelectorAll('script').length") == 1
    finally:
        found.close()
