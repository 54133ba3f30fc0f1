"""The page of a run in a real browser: what is there, what it asks for, how it fits, and how keys move through it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing
from PIL import Image
from test_page import NASTY, report_of, run_of

from seta_stream.report.html import page
from seta_stream.report.html_values import SampleCard
from seta_stream.report.sources import SourceRow

SECTIONS = ("losses", "kept", "sources", "coverage", "reading", "costs", "samples")
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(18, 24, 30)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one browser for all tests of this file."""
    with browsing() as found:
        yield found


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (160, 90), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=[1, 12, 200])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a page of so many epochs, with keys, texts and names that no page should trust."""
    cards = tuple(
        SampleCard(
            number, 1.5, 2, shard=f"s3://bucket/{NASTY}.tar", key=NASTY * 5, image=picture(), image_kind="png",
            image_size=(160, 90), texts=(("txt", "x" * 240), ("json", NASTY)),
        )
        for number in range(3)
    )  # fmt: skip
    sources = (SourceRow("y" * 300, 400, 390, 1.0, 0.9, 0.5, 0.5), SourceRow(NASTY, 10, 0, None, None, 0.0, None))
    report = report_of(
        *run_of(request.param), hardest=cards, easiest=cards, sources=sources, notes=(NASTY + "z" * 300,)
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(report), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_the_page_fits_and_asks_for_nothing(browser: Browser, url: str, width: int, dark: bool) -> None:
    """No complaint of the console, no request but for itself, no sideways scroll, the colours that were asked for."""
    found = browser.open(url, width=width, dark=dark)
    try:
        assert found.complaints == []
        assert [one for one in found.requests if not one.startswith("data:")] == [url]
        assert found.evaluate("document.documentElement.scrollWidth") == width
        assert found.evaluate("getComputedStyle(document.body).backgroundColor") == (DARK if dark else LIGHT)
        ink = found.evaluate("getComputedStyle(document.body).color")
        assert _contrast(ink, DARK if dark else LIGHT) > 10
        muted = found.evaluate("getComputedStyle(document.querySelector('.muted')).color")
        assert _contrast(muted, "rgb(27, 36, 44)" if dark else "rgb(244, 246, 248)") > 4.5
        fill = found.evaluate("getComputedStyle(document.querySelector('svg .kept')).fill")
        assert _contrast(fill, DARK if dark else LIGHT) > 3
    finally:
        found.close()


def _contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 counts it."""

    def light(color: str) -> float:
        parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_everything_is_there(browser: Browser, url: str) -> None:
    """Each section has its heading and something below; pictures are shown; shapes have a size."""
    found = browser.open(url, width=360)
    try:
        for name in SECTIONS:
            assert found.evaluate(f"document.querySelector('#{name}').closest('section').offsetHeight") > 100, name
        assert (
            found.evaluate("[...document.images].map(one => [one.naturalWidth, one.alt.length > 0])")
            == [[160, True]] * 6
        )
        assert found.evaluate(
            "[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().width > 100 &&"
            " one.getBoundingClientRect().height > 30 && one.children.length > 0)"
        )
        assert found.evaluate("document.scripts.length") == 1
        assert (
            found.evaluate("document.querySelectorAll('[onclick],[onload],[onerror],iframe,object,link,form').length")
            == 0
        )
        assert found.evaluate("document.querySelectorAll('details[open]').length") == 0
    finally:
        found.close()


def test_keys_move_through_the_page(browser: Browser, url: str) -> None:
    """The skip link first, then links, charts and folded numbers in the order of the page, each with a name."""
    found = browser.open(url)
    try:
        wanted = found.evaluate(
            "[...document.querySelectorAll('a, [tabindex=\"0\"], summary')].filter(one => one.matches('summary') ||"
            " !one.closest('details')).length"
        )
        seen = []
        for _ in range(wanted):
            found.press("Tab")
            seen.append(
                found.evaluate(
                    "(() => { const one = document.activeElement, style = getComputedStyle(one);"
                    " return [one.tagName, one.getAttribute('aria-label') || one.textContent,"
                    " one.getBoundingClientRect().top + scrollY, style.outlineStyle !== 'none', one.className]; })()"
                )
            )
        assert [seen[0][0], seen[0][1]] == ["A", "Skip to the report"]
        assert [one[0] for one in seen[1:8]] == ["A"] * 7
        assert all(one[1] and one[3] for one in seen)
        assert "BODY" not in {one[0] for one in seen}
        tops = [one[2] for one in seen[8:]]
        assert tops == sorted(tops)
        assert sum("chart" in one[4] for one in seen) == 6
    finally:
        found.close()


def test_the_skip_link_skips(browser: Browser, url: str) -> None:
    """Enter on it puts the focus into the report."""
    found = browser.open(url)
    try:
        found.press("Tab")
        found.evaluate("document.activeElement.click()")
        assert found.evaluate("document.activeElement.id") == "main"
    finally:
        found.close()


def test_arrows_and_pointer_read_a_chart(browser: Browser, tmp_path: Path) -> None:
    """Epoch by epoch, the numbers of the table in words; Escape and leaving end it."""
    path = tmp_path / "report.html"
    path.write_text(page(report_of(*run_of(12))), encoding="utf-8")
    found = browser.open(path.as_uri())
    try:
        chart = "document.querySelector('#kept-chart').closest('figure')"
        told = f"{chart}.querySelector('output').textContent.replaceAll('\\u00a0', ' ')"
        found.evaluate(f"{chart}.querySelector('.chart').focus()")
        found.press("ArrowLeft")
        assert found.evaluate(told).startswith("epoch 11, really kept 50.0 %, expected")
        found.press("Home")
        assert found.evaluate(told).startswith("epoch 0, really kept 100.0 %, expected –")
        found.press("ArrowRight")
        assert found.evaluate(told).startswith("epoch 1, ")
        found.press("Escape")
        assert found.evaluate(told) == ""
        found.evaluate(f"{chart}.scrollIntoView()")
        left, top, width, height = found.evaluate(
            f"(() => {{ const box = {chart}.querySelector('.plot').getBoundingClientRect();"
            " return [box.left, box.top, box.width, box.height]; })()"
        )
        found.point(left + width * 2.5 / 12, top + height / 2)
        assert found.evaluate(told).startswith("epoch 2, ")
        found.point(left + width / 2, top + height + 200)
        assert found.evaluate(told) == ""
        assert found.complaints == []
    finally:
        found.close()


def test_it_prints_whole(browser: Browser, url: str) -> None:
    """Folded numbers open for the printer, and close again; the paper is white in dark mode too."""
    found = browser.open(url, dark=True)
    try:
        found.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert found.evaluate("document.querySelectorAll('details:not([open])').length") == 0
        found.evaluate("dispatchEvent(new Event('afterprint'))")
        assert found.evaluate("document.querySelectorAll('details[open]').length") == 0
        found.ask("Emulation.setEmulatedMedia", media="print", features=[])
        assert found.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
        assert found.pdf().startswith(b"%PDF-")
    finally:
        found.close()


def test_a_script_that_came_in_would_not_run(browser: Browser, tmp_path: Path) -> None:
    """The page's own policy forbids it, and any request: the second lock behind the escaping."""
    text = page(report_of(*run_of(1)))
    bad = '<script>document.title="hit"</script><img src="http://127.0.0.1:9/x" onerror="document.title=\'hit\'">'
    path = tmp_path / "report.html"
    path.write_text(text.replace("<footer>", f"{bad}<footer>"), encoding="utf-8")
    found = browser.open(path.as_uri())
    try:
        assert found.evaluate("document.title").startswith("seta-stream report")
        assert any("Content Security Policy" in one for one in found.complaints)
        assert found.refused == ["http://127.0.0.1:9/x"]
        assert found.requests == [path.as_uri()]
    finally:
        found.close()
