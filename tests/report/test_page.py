"""The page of a run: its numbers by hand, what is escaped, and runs of every length."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.losses.history import Judged, history_line
from seta_stream.losses.table import LossTable
from seta_stream.policies import InfoBatch, PerGroup, Rule, SeTa, describe
from seta_stream.policies.groups import GroupRules
from seta_stream.report import html_text, sources
from seta_stream.report.distributions import LossAxis, planned_epochs
from seta_stream.report.html import page
from seta_stream.report.html_values import RunReport, SampleCard
from seta_stream.report.plain import finite
from seta_stream.report.prices import STORES, Price
from seta_stream.report.progress import progress_of
from seta_stream.report.runfigures import Costs, drawable, figures_of, has_losses, number, spelled, usable_lines
from seta_stream.report.sources import MOST, by_source, source_names
from seta_stream.report.summary import summarise

NASTY = "\"><script>alert(1)</script>'&\u202egnp.\x00\x1b\udcff\u2028"
COSTS = Costs(Price(0.1, 0.001, "a test"), watts=3600.0, watts_source="a test", per_hour=3.6)


def losses_of(epoch: int, samples: int = 400) -> np.ndarray:
    return np.random.default_rng(epoch).gamma(2, 1, samples) * (0.5 + 0.5 * math.exp(-epoch / 5))


def run_of(epochs: int, policy=None, *, samples: int = 400, facts=None) -> tuple[LossTable, list[dict]]:
    """Return a table and a history of so many epochs, half of each kept but the first."""
    policy = policy or SeTa(max(epochs, 3), target=0.5)
    table, history, parent = LossTable([samples // 2, samples // 2]), [], None
    for epoch in range(epochs):
        table.record(np.arange(samples - 10), losses_of(epoch, samples)[: samples - 10])
        told = {
            "policy": describe(policy), "selected": samples if epoch == 0 else samples // 2, "total": samples,
            "bytes_total": 1 << 30, "bytes_needed": 1 << 28, "bytes_fetched": 1 << 29, "requests": 100, "retries": 1,
            "wait_s": 2.0, "seconds": 10.0, "cache_hits": 3, "cache_misses": 1, "cache_hit_bytes": 300,
            "cache_miss_bytes": 100, "bad_losses": 2, "skipped": 0,
        } | (facts or {})  # fmt: skip
        judged = Judged(table.histogram(), policy.rule(table.histogram(), epoch + 1))
        history.append(history_line(f"gen-{epoch}", epoch, parent, judged, told))
        parent = f"gen-{epoch}"
        table.advance()
    return table, history


def report_of(table: LossTable, history: list[dict], costs: Costs = COSTS, **more) -> RunReport:
    """Return the report of a history as it would come from a file."""
    lines = usable_lines(json.loads(json.dumps(history)))
    epoch = lines[-1]["epoch"] if lines else 0
    summary = summarise(table, lines, generation=f"gen-{epoch}", epoch=epoch, rule=None)
    return RunReport("runs/7", "today", "1.0", summary, figures_of(lines, costs), tuple(drawable(lines)), costs, **more)


VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Notes what a page holds, and that its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of {tag} comes twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in {"script", "style"}:
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


def test_numbers_by_hand():
    """Two epochs: totals, money, energy, and what everything would have taken."""
    run = figures_of(usable_lines(run_of(2)[1]), COSTS)
    assert [one.kept for one in run.epochs] == [1.0, 0.5]
    assert run.saved_share == 0.25
    assert run.total("bytes_fetched") == 1 << 30
    # an epoch: half a GB at $0.1, 100 requests at $0.001 a thousand, 10 s at $3.6 an hour
    assert run.epochs[0].money == pytest.approx(0.05 + 0.0001 + 0.01)
    assert run.epochs[0].kwh == pytest.approx(0.01)
    # everything: 10 s and 20 s; a GB each, in 128 requests of 8 MiB
    assert run.full_seconds == pytest.approx(30.0)
    assert run.full_kwh == pytest.approx(0.03)
    assert run.full_money == pytest.approx(2 * (0.1 + 0.000128) + 0.03)
    assert (run.planned, run.nominal_kept) == (3, 0.5)
    assert run.policy.startswith("SeTa(num_epochs=3, num_group=")


def test_numbers_of_a_history_that_says_little():
    """No facts, no rule: what is not known is None, and sums leave it out."""
    line = history_line("a", 0, None, Judged(LossTable([2]).histogram(), None), None)
    run = figures_of(usable_lines([line]), Costs(STORES["none"]))
    assert (run.saved_share, run.total("seconds"), run.full_money, run.full_kwh, run.policy) == (None,) * 5
    assert run.epochs[0].quantiles == ()
    assert run.to_plain()["totals"]["bytes_fetched"] is None


def test_what_is_not_known_was_not_left_out():
    """An epoch whose line does not say what it kept is a gap in the chart of shares, and none of its bars."""
    table, history = run_of(3)
    history[0]["facts"] = {}
    text = page(report_of(table, history))
    chart = text[text.index('id="kept-chart"') :]
    chart = chart[: chart.index("</figure>")]
    assert (chart.count('<rect class="kept"'), chart.count('<rect class="back"')) == (2, 2)


def test_losses_from_before_epoch_0_are_no_epoch():
    """They are drawn, and neither counted nor told as one."""
    table, history = run_of(2)
    warm = history_line("warm", -1, None, Judged(table.histogram(), Rule([], [0.5])), {})
    history[0]["parent"] = "warm"
    lines = usable_lines([warm, *history])
    assert [line["epoch"] for line in lines] == [-1, 0, 1]
    assert [one.epoch for one in figures_of(lines, COSTS).epochs] == [0, 1]
    # half of the 390 seen, and all of the 10 that were not
    assert figures_of(lines, COSTS).epochs[0].expected == 0.5125


@pytest.mark.parametrize("epochs", [1, 2, 40, 200])
def test_a_page_of_any_length(epochs):
    """Well-formed, small, with one row per epoch in its tables and headings in order."""
    text = page(report_of(*run_of(epochs)))
    found = Reader(text)
    assert len(text) < 700_000
    assert found.count("h1") == 1
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert found.count("figure") == 6
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {attributes["href"][1:] for tag, attributes in found.tags if tag == "a"}
    labelled = {attributes["aria-labelledby"] for _, attributes in found.tags if "aria-labelledby" in attributes}
    assert linked | labelled <= set(ids)
    assert f'<th scope="row">{epochs - 1}</th><td>{"100.0" if epochs == 1 else "50.0"}\u00a0%</td>' in text


def test_a_page_tells_the_numbers():
    """Every figure that the numbers hold stands in the words of the page."""
    found = Reader(page(report_of(*run_of(2)))).text
    for told in (
        "2 of 3 epochs", "400 samples in 2 shards", "25.0 %", "nominal 50.0 % of the run", "390 at least once",
        "1.0 GiB were asked for in 200 requests", "1.0 GiB (50.0 %) were saved", "waited 4 s for data",
        "75.0 % of the bytes that it was asked for", "$0.12", "20 Wh",
        "Power while an epoch runs: 3600 W. A test.", "$3.6 per hour", "last seen", "never",
    ):  # fmt: skip
        assert told in found, told


def test_a_run_without_losses_is_told():
    """An empty history gives a page that says so."""
    table = LossTable([3])
    text = page(report_of(table, []))
    found = Reader(text).text
    assert "The history holds no losses yet" in found
    assert "The history does not say what was read" in found
    assert "No epoch is told" in found


@pytest.mark.parametrize(
    "facts",
    [
        {"selected": float("nan"), "seconds": float("inf"), "bytes_fetched": -5, "requests": "many"},
        {"selected": 10**400, "total": 1e308, "bytes_total": 10**30, "wait_s": 1e25, "bytes_fetched": 1e40},
        {"selected": True, "total": None, "bytes_total": [1], "seconds": 0, "policy": {"name": NASTY, "x": {"y": 1}}},
        {"policy": "no mapping", "bytes_total": 0, "bytes_fetched": 0, "bytes_needed": 0, "seconds": 1e-12},
    ],
)
def test_odd_facts_make_a_page_all_the_same(facts):
    """NaN, infinities, texts and absurd sizes: no exception, no NaN, no infinity in shapes."""
    report = report_of(*run_of(3, facts=facts))
    text = page(report)
    Reader(text)
    shapes = "".join(re.findall(r'(?:d|x|y|height|width)="([^"]*)"', text))
    assert "nan" not in shapes
    assert "inf" not in shapes
    assert "<script>alert" not in text
    json.dumps(finite(report.to_plain()), allow_nan=False)


@pytest.mark.parametrize(
    "damage",
    [
        {"histogram": None},
        {"histogram": {"edges": [0.0, float("nan")], "counts": [1]}},
        {"histogram": {"edges": [0.0, 1.0], "counts": [1, 2]}},
        {"histogram": {"edges": [1.0, 0.0], "counts": [1]}},
        {"histogram": {"edges": [0.0, 1e300], "counts": [1]}},
        {"histogram": {"edges": [0.0, 1.0], "counts": [-1]}},
        {"histogram": {"edges": ["a", "b"], "counts": [1]}},
        {"rule": {"edges": [0.0], "keep": ["x"]}},
        {"rule": NASTY},
        {"rule": {"groups": {NASTY: 3}}},
        {"mean": NASTY, "samples": "x", "seen": None, "minimum": [], "expected_share": "all"},
    ],
)
def test_a_damaged_line_does_not_spoil_the_page(damage):
    """Its curve or its rule is left out; the others are drawn."""
    table, history = run_of(3)
    history[1] |= damage
    report = report_of(table, history)
    assert len(report.run.epochs) == 3
    text = page(report)
    Reader(text)
    assert "<script>alert" not in text


def test_lines_that_are_none_are_left_out():
    """Whatever else stands in the file."""
    _, history = run_of(2)
    odd = [1, None, [], {}, {"generation": 3}, {"generation": "x", "epoch": True, "parent": None},
           {"generation": "x", "epoch": 1.5}, {"generation": "x", "epoch": 1, "parent": 5}]  # fmt: skip
    assert [line["generation"] for line in usable_lines([*odd, *history])] == ["gen-0", "gen-1"]


def test_everything_foreign_is_escaped():
    """Keys, texts, URLs, groups, policies and notes: no markup, no control, no mark of direction gets through."""
    card = SampleCard(
        5, 1.5, 2, shard=f"s3://b/{NASTY}.tar", key=NASTY, image=b"\x89PNG", image_kind="png", image_size=(4, 3),
        texts=((NASTY, NASTY),), lacking=NASTY,
    )  # fmt: skip
    table, history = run_of(2, facts={"policy": {"name": NASTY, "by": NASTY}})
    history[-1]["groups"] = {NASTY: [200, 50.0], "b": [200, 1.0]}
    sources = by_source([NASTY], np.zeros(400, int), table.values, table.all_ages, None)
    price = dataclasses.replace(COSTS, watts_source=NASTY, price=Price(1, 1, NASTY))
    report = report_of(table, history, price, sources=sources, hardest=(card,), easiest=(card,), notes=(NASTY,))
    text = page(dataclasses.replace(report, state=NASTY, made=NASTY, version=NASTY, sources_by=NASTY))
    found = Reader(text)
    assert found.count("script") == 1
    assert text.count("<script") == 1
    assert found.count("img") == 2
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    body = text.replace("\n", "")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", body)
    assert text.encode("utf-8")
    assert r"\u202egnp.\x00\x1b\xff\u2028" in found.text
    for tag, attributes in found.tags:
        for name in ("src", "href", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), tag


@given(st.text(), st.integers(0, 300))
def test_no_text_breaks_out(text, most):
    """Whatever the text: it gives one element's words, printable, and no longer than asked, but for spelling."""
    inside = html_text.text(text, most)
    found = Reader(f'<p title="{html_text.attribute(text)}">{inside}</p>')
    assert [tag for tag, _ in found.tags] == ["p", "bdi"]
    shown = "".join(found.words)
    assert html_text.visible(text, most) == shown
    assert all(one.isprintable() or one in "\u00a0\u200c\u200d" or one.isspace() for one in shown)


@pytest.mark.parametrize(
    ("tell", "value", "told"),
    [
        (html_text.share, 0.5, "50.0 %"), (html_text.share, float("nan"), "–"), (html_text.percent, 0.456, "46 %"),
        (html_text.count, 1234.0, "1,234"), (html_text.count, 1e20, "1e+20"), (html_text.loss, 0.123456, "0.1235"),
        (html_text.size, 0, "0 B"), (html_text.size, 1536, "1.5 KiB"), (html_text.size, 2.0**60, "1,048,576.0 TiB"),
        (html_text.size, 1e30, "9.09e+17 TiB"), (html_text.money, -0.5, "−$0.50"),
        (html_text.money, 0.00012, "$0.00012"),
        (html_text.money, 0, "$0.00"), (html_text.money, 1e15, "$1e+15"), (html_text.energy, 0.0123, "12 Wh"),
        (html_text.energy, 1234.5, "1,234.5 kWh"), (html_text.energy, 1e20, "1e+20 kWh"),
        (html_text.duration, 0.0423, "0.042 s"), (html_text.duration, 59.4, "59 s"),
        (html_text.duration, 59.6, "1 min 00 s"), (html_text.duration, 754, "13 min"),
        (html_text.duration, -1, "–"),
        (html_text.duration, 3599, "1 h 00 min"), (html_text.duration, 3600 * 47.5, "47 h 30 min"),
        (html_text.duration, 3600 * 72, "3.0 days"), (html_text.duration, 1e20, "1.16e+15 days"),
        (html_text.duration, None, "–"), (html_text.money, float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_have_units(tell, value, told):
    """Rounded to what one reads, absurd ones in powers of ten, unknown ones as a dash."""
    assert tell(value).replace("\u00a0", " ") == told


def test_json_has_no_nan():
    """What JSON lacks becomes null."""
    assert finite({"a": [1.0, float("nan"), (float("inf"), "x")], "b": None}) == {
        "a": [1.0, None, [None, "x"]],
        "b": None,
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [(3, 3.0), (True, None), ("3", None), (float("nan"), None), (10**400, None), (None, None), (1e301, None)],
)
def test_what_counts_as_a_number(value, found):
    """Finite ones that a float can hold."""
    assert number(value) == found


def test_sources_are_told_by_folder_and_name():
    """Numbers, suffixes and what all share are left out; a query too, which may hold a secret."""
    assert source_names(["/d/web/train-000.tar", "/d/web/train-001.tar", "/d/books/a_1.tar.gz"]) == [
        "web/train", "web/train", "books/a",
    ]  # fmt: skip
    assert source_names(["s3://b/x/words-00.tar", "s3://b/x/words-01.tar"]) == ["words", "words"]
    assert source_names(["https://h/a.tar?sig=1", "https://h/b.tar?sig=2"]) == ["a", "b"]
    assert source_names(["/d/000.tar"]) == ["."]
    assert source_names([]) == []


def test_sources_by_hand():
    """Six samples of two sources: what was seen, read last, and what the next rule keeps."""
    losses = np.array([1, 3, np.nan, 2, 4, 6], np.float32)
    ages = np.array([0, 1, 255, 0, 0, 2], np.uint8)
    rule = Rule([2.5], [0.0, 0.5], unseen_keep=0.25)
    small, large = by_source(["a", "b"], np.array([0, 0, 1, 1, 1, 1]), losses, ages, rule)[::-1]
    assert (large.name, large.samples, large.seen, large.mean, large.median) == ("b", 4, 3, 4.0, 4.0)
    assert (large.read_last, large.next_keep) == (0.5, (0.25 + 0 + 0.5 + 0.5) / 4)
    assert (small.name, small.mean, small.median, small.read_last, small.next_keep) == ("a", 2.0, 2.0, 0.5, 0.25)
    unseen = by_source(["a", "none"], np.zeros(1, int), np.full(1, np.nan, np.float32), np.full(1, 255, np.uint8), None)
    assert [(one.samples, one.mean, one.median, one.next_keep) for one in unseen] == [
        (1, None, None, None),
        (0, None, None, None),
    ]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_sources_are_looked_at_part_by_part(monkeypatch, chunk):
    """Wherever a part ends, the figures are those of all samples at once."""
    rng = np.random.default_rng(3)
    codes, losses = rng.integers(0, 5, 200), rng.gamma(2, 1, 200).astype(np.float32)
    losses[rng.random(200) < 0.2] = np.nan
    losses[codes == 4] = np.nan
    ages = np.where(np.isnan(losses), 255, rng.integers(0, 3, 200)).astype(np.uint8)
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    rows = by_source(list("abcde"), codes, losses, ages, Rule([1.0], [0.25, 0.75], unseen_keep=0.5))
    for row in rows:
        own = losses[codes == "abcde".index(row.name)]
        seen = own[~np.isnan(own)]
        assert (row.samples, row.seen) == (len(own), len(seen))
        assert row.median == (float(np.median(seen.astype(np.float64))) if len(seen) else None)
        assert row.mean == (pytest.approx(float(seen.mean(dtype=np.float64))) if len(seen) else None)
        keep = np.where(np.isnan(own), 0.5, np.where(own < 1, 0.25, 0.75))
        assert row.next_keep == pytest.approx(float(keep.mean()))
        assert row.read_last == pytest.approx(float((ages[codes == "abcde".index(row.name)] == 0).mean()))
    assert [row.samples for row in rows] == sorted((row.samples for row in rows), reverse=True)


def test_many_sources_become_one_row():
    """The largest are told one by one, and nothing is lost."""
    names = [f"s{at}" for at in range(MOST + 50)]
    codes = np.concatenate([np.arange(MOST + 50), np.arange(MOST)])
    losses = np.ones(len(codes), np.float32)
    rows = by_source(names, codes, losses, np.zeros(len(codes), np.uint8), None)
    assert len(rows) == MOST + 1
    assert (rows[-1].name, rows[-1].samples, rows[-1].median) == ("50 smaller ones", 50, 1.0)
    assert sum(one.samples for one in rows) == len(codes)


def test_groups_of_a_policy_are_told():
    """A policy that decides within groups: their rows, and a sentence on the curves."""
    table, history = run_of(2, PerGroup(InfoBatch(5), by="shard").policy)
    history[-1]["rule"] = GroupRules({"a": Rule([], [0.5]), "b": Rule([], [1.0])}).to_plain()
    history[-1]["groups"], history[-1]["judged_by"] = {"a": [200, 100.0], "b": [200, 200.0]}, "score"
    found = Reader(page(report_of(table, history))).text
    assert "decides within groups of samples" in found
    assert "the score that the policy judges by" in found
    assert "By the groups that the policy decides within" in found


def test_planned_epochs_are_those_of_the_policy_within():
    """PerGroup has none of its own."""
    assert planned_epochs({"epoch": 0, "facts": {"policy": describe(PerGroup(InfoBatch(7), by="shard"))}}) == 7
    assert planned_epochs({"epoch": 0, "facts": {"policy": {"num_epochs": True}}}) is None
    assert planned_epochs({"epoch": 0, "facts": None}) is None
    assert spelled({"name": "A", "x": 1, "y": None, "z": {"name": "B"}}) == "A(x=1, z=B())"


@pytest.mark.parametrize("losses", [[0.5] * 9, [-5.0, -4.0, 3.0], [1e-6, 1e-3, 1, 10, 1000], [1, 2, 3, 4], [0.0, 1e30]])
def test_axes_have_round_ticks(losses):
    """Equal, negative, far apart and absurd losses: a few ticks, ascending, on the axis."""
    table = LossTable([len(losses)])
    table.record(range(len(losses)), losses)
    line = history_line("a", 0, None, Judged(table.histogram(), None), {})
    assert has_losses(line)
    ticks = LossAxis([line]).ticks()
    assert 2 <= len(ticks) <= 12
    places = [at for _, at in ticks]
    assert places == sorted(places)
    assert all(0 <= at <= 1 for at in places)
    assert all(float(f"{value:.3g}") == pytest.approx(value, rel=1e-9, abs=1e-12) for value, _ in ticks)


def test_progress_by_hand():
    """Two epochs behind, one planned: 10 s for half the samples is 20 s for all."""
    _, history = run_of(2)
    lines = usable_lines(history)
    told = progress_of(figures_of(lines, COSTS), lines)
    assert (told.done, told.planned, told.next_epoch, told.is_over) == (2, 3, 2, False)
    assert told.next_share == pytest.approx(0.25, abs=0.01)
    # 10 s per whole epoch and 20 s per whole epoch
    assert told.next_seconds == pytest.approx(15 * told.next_share)
    assert told.left_seconds == told.next_seconds
    _, history = run_of(3)
    over = progress_of(figures_of(usable_lines(history), COSTS), usable_lines(history))
    assert (over.is_over, over.left_seconds) == (True, 0.0)
    nothing = progress_of(figures_of([], COSTS), [])
    assert (nothing.next_epoch, nothing.next_seconds, nothing.left_seconds, nothing.is_over) == (0, None, None, False)
