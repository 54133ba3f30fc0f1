"""Remote shards are scanned right whatever their members' sizes and the way, and with few requests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import Any

import pytest
from corpus_tars import index_of, tar_bytes
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.corpus import conditions as conditions_module
from seta_stream.corpus.conditions import Conditions, Plan, Step
from seta_stream.corpus.costs import HOPS_AT_ONCE, MOST_BYTES_PER_S, SPANS_AT_ONCE, Link, Spacing
from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.remote_scan import scan_remote
from seta_stream.corpus.tar import TarScanner
from seta_stream.errors import ShardChangedError, TarError
from seta_stream.store import ObjectInfo

URL = "s3://bucket/a.tar"


class Wanted:
    """An answer that knows whether it was waited for or given up."""

    def __init__(self, file: FakeFile, offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.is_cancelled = file, offset, length, False

    def result(self) -> bytes:
        if self.is_cancelled:
            raise CancelledError
        if self.file.fault is not None and len(self.file.read) >= self.file.good:
            raise self.file.fault
        self.file.read.append((self.offset, self.length))
        return self.file.data[self.offset : self.offset + self.length]

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeFile:
    """An object in memory that writes down what it is asked for."""

    is_near = False

    def __init__(self, data: bytes, *, fault: Exception | None = None, good: int = 0) -> None:
        self.data, self.url, self.info = data, URL, ObjectInfo(len(data), "etag:1")
        self.fault, self.good = fault, good
        self.asked: list[Wanted] = []
        self.read: list[tuple[int, int]] = []
        self.closed = 0

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[Wanted]:
        assert all(length > 0 and offset + length <= len(self.data) for offset, length in spans)
        answers = [Wanted(self, offset, length) for offset, length in spans]
        self.asked += answers
        return answers


def scan(file: Any, conditions: Conditions | None = None) -> TarScanner:
    """Scan a plain tar."""
    found = scan_remote(URL, file, conditions or Conditions(), lambda _: None)
    assert isinstance(found, TarScanner)
    return found


def index(scanner: TarScanner, data: bytes) -> ShardIndex:
    """Return the index of what was scanned, as that of a local file of these bytes."""
    return ShardIndex.of(group(scanner.members(), URL), shard_size=len(data), shard_version="mtime:1")


def step(way: str, read_bytes: int, spans: int) -> Step:
    """Return a step of either way."""
    return Step(way, read_bytes, spans)  # type: ignore[arg-type]


SIZES = st.one_of(st.integers(0, 700), st.integers(3000, 9000), st.integers(60_000, 70_000), st.just(300_000))
RUNS = st.lists(st.tuples(SIZES, st.integers(1, 40)), min_size=1, max_size=6)


@given(
    RUNS,
    st.sampled_from([None, "hops", "whole"]),
    st.sampled_from(
        [step("hops", 1024, 1), step("hops", 65_536, 1), step("whole", 4096, 3), step("whole", 1 << 20, 2)]
    ),
    st.sampled_from([Link(), Link(1e-4, 1e9), Link(0.5, 1e6, 2e6)]),
    st.booleans(),
)
def test_any_sizes_give_the_index_of_a_local_scan(
    runs: list[tuple[int, int]], way: Any, first: Step, link: Link, pax: bool
) -> None:
    """Whatever the members' sizes, in whatever order, by whichever way: the index is byte for byte the local one."""
    sizes = [size for size, count in runs for _ in range(count)]
    extra = {"pax_headers": {"comment": "x" * 600}} if pax else {}
    members = [(f"{number:05d}.bin", b"x" * size) for number, size in enumerate(sizes)]
    data = tar_bytes(members, format=2 if pax else 0, **extra)
    file = FakeFile(data)
    scanner = scan(file, Conditions(Plan(link=link, first=first, way=way)))
    assert index(scanner, data).to_bytes() == index_of(data).to_bytes()
    assert all(answer.is_cancelled or (answer.offset, answer.length) in file.read for answer in file.asked)


def photos(samples: int, *, label: int = 3, image: int = 80_000) -> bytes:
    """Return a shard of images, each with a small label behind it."""
    return tar_bytes(
        [pair for n in range(samples) for pair in ((f"{n:04d}.jpg", b"x" * image), (f"{n:04d}.json", b"y" * label))]
    )


@pytest.mark.parametrize("label", [3, 5000])
def test_a_hop_takes_a_small_neighbour_with_it(label: int) -> None:
    """An image with a label of 3 bytes or of 5 KB costs one read a sample, and little more than the label's bytes."""
    data = photos(200, label=label)
    file = FakeFile(data)
    # 128 such shards on a narrow link: hops pay.
    conditions = Conditions(Plan(link=Link(0.02, 50e6, 20e6), first=step("hops", 1024, 1)))
    with with_many(conditions):
        scan(file, conditions)
    assert len(file.read) <= 200 + 30
    assert sum(length for _, length in file.read) < 200 * (label + 6000)


def with_many(conditions: Conditions, shards: int = 100) -> ExitStack:
    """Let other shards be under way while what is returned lives."""
    stack = ExitStack()
    for _ in range(shards):
        stack.enter_context(conditions.live(Wanted(FakeFile(b""), 0, 0)))
    return stack


def test_a_shard_that_turns_small_is_read_on_in_spans() -> None:
    """Behind large members a hundred thousand bytes of small ones do not cost a hop each."""
    members = [(f"a{n:04d}.bin", b"x" * 300_000) for n in range(40)]
    members += [(f"b{n:05d}.txt", b"y" * 100) for n in range(8000)]
    data = tar_bytes(members)
    file = FakeFile(data)
    conditions = Conditions(Plan(link=Link(0.02, 50e6, 20e6), first=step("hops", 1024, 1)))
    with with_many(conditions):
        assert scan(file, conditions).count == 8040
    small = [length for offset, length in file.read if offset > 40 * 300_544]
    assert len(small) < 60
    assert sum(length for offset, length in file.read if offset < 39 * 300_544) < 200_000


def test_a_shard_that_turns_large_is_hopped_through() -> None:
    """Behind small members large bodies are no longer fetched, and what was asked for inside them is given up."""
    members = [(f"b{n:05d}.txt", b"y" * 100) for n in range(4000)]
    members += [(f"c{n:04d}.bin", b"x" * 3_000_000) for n in range(60)]
    data = tar_bytes(members)
    file = FakeFile(data)
    conditions = Conditions(Plan(link=Link(0.02, 50e6, 20e6), first=step("whole", 1 << 20, 2)))
    with with_many(conditions):
        assert scan(file, conditions).count == 4060
    assert sum(length for _, length in file.read) < len(data) / 4
    assert any(answer.is_cancelled for answer in file.asked)


def test_a_shard_read_whole_has_several_spans_under_way() -> None:
    """While one span is scanned the next ones come: they are asked for before the first is waited for again."""
    file = FakeFile(tar_bytes([(f"{n:05d}.txt", b"y" * 100) for n in range(10_000)]))
    conditions = Conditions(Plan(first=step("whole", 1 << 20, 3), way="whole"))
    scan(file, conditions)
    firsts = [answer.offset for answer in file.asked[:3]]
    assert firsts == [0, 1 << 20, 2 << 20]
    assert len(file.asked) == len(file.read)


def test_what_is_no_tar_is_handed_back() -> None:
    """The first bytes are looked at before anything else is asked for; what the look says is returned."""
    file = FakeFile(b"\x1f\x8b" + bytes(9 << 20))
    found = scan_remote(URL, file, Conditions(), lambda head: "gzip" if head[:2] == b"\x1f\x8b" else None)
    assert found == "gzip"
    assert len(file.read) == 1


@pytest.mark.parametrize("way", ["hops", "whole"])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty: 0 bytes"),
        (photos(3)[:-200_000], "ends inside the body of"),
        (photos(3)[: 80_384 * 2 + 700], "ends inside a header|ends inside the body"),
        (b"no tar at all" * 100, "the block at byte 0"),
    ],
)
def test_damage_is_named_as_in_a_local_shard(data: bytes, text: str, way: Any) -> None:
    """Empty, truncated and garbled shards are the same errors by both ways."""
    with pytest.raises(TarError, match=text):
        scan(FakeFile(data), Conditions(Plan(way=way)))


def test_an_error_gives_up_what_is_under_way() -> None:
    """A shard that changed while it was scanned is refused, and no request of it stays."""
    file = FakeFile(photos(400), fault=ShardChangedError("changed"), good=2)
    with pytest.raises(ShardChangedError, match="changed"):
        scan(file, Conditions(Plan(first=step("whole", 1 << 20, 4), way="whole")))
    assert all(answer.is_cancelled for answer in file.asked[2:])


def test_stopped_conditions_end_a_scan() -> None:
    """After stop no request begins, and those under way are given up."""
    conditions = Conditions()
    conditions.stop()
    file = FakeFile(photos(4))
    with pytest.raises(CancelledError):
        scan(file, conditions)
    assert all(answer.is_cancelled for answer in file.asked)
    other = Conditions()
    waiting = Wanted(FakeFile(b""), 0, 0)
    with other.live(waiting):
        other.stop()
    assert waiting.is_cancelled


def test_places_for_whole_shards_are_shared() -> None:
    """One shard alone may have all spans under way, many have two each; processes divide them."""
    conditions = Conditions()
    with conditions.seat():
        assert conditions.spans == SPANS_AT_ONCE
        with conditions.seat():
            assert conditions.spans == SPANS_AT_ONCE // 2
    assert Conditions(Plan(processes=8)).spans == SPANS_AT_ONCE // 8
    assert Conditions(Plan(processes=8)).engine.concurrency.most == HOPS_AT_ONCE // 8
    # The processes of a run on this machine share them too, each with processes of its own.
    shared = Conditions(Plan(processes=2, ranks=4))
    assert (shared.spans, shared.engine.concurrency.most) == (SPANS_AT_ONCE // 8, HOPS_AT_ONCE // 8)


def test_the_link_is_measured_while_scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow hops, as of a store that throttles, raise the time to the first byte; full spans tell the rate of all."""
    conditions = Conditions(Plan(link=Link(0.02, 50e6)))
    for _ in range(100):
        conditions.hopped(0.2, 1000)
    assert conditions.link.first_byte_s == pytest.approx(0.2, rel=0.05)
    now = [0.0]
    monkeypatch.setattr(conditions_module.time, "monotonic", lambda: now[0])
    conditions.came(1 << 20)
    assert conditions.link.total_bytes_per_s == MOST_BYTES_PER_S
    seats = [conditions.seat() for _ in range(SPANS_AT_ONCE // 4)]
    for seat in seats:
        seat.__enter__()
    for _ in range(30):
        now[0] += 0.05
        conditions.came(2_000_000)
    assert conditions.link.total_bytes_per_s == pytest.approx(40e6, rel=0.06)
    # Hops that wait behind large spans tell nothing of the store.
    conditions.hopped(9.0, 1000)
    assert conditions.link.first_byte_s == pytest.approx(0.2, rel=0.05)
    for seat in seats:
        seat.__exit__(None, None, None)


def test_a_narrow_link_changes_the_way() -> None:
    """Photos that would be read whole on a wide link are hopped through once the link turns out narrow."""
    spacing = Spacing([80_384, 1024] * 8, [512] * 16)
    for rate, way in [(MOST_BYTES_PER_S, "whole"), (40e6, "hops")]:
        conditions = Conditions(Plan(link=Link(0.02, 50e6, rate)))
        with with_many(conditions):
            assert conditions.step(spacing, 40 << 20).way == way


def test_a_shard_stays_on_its_way_for_a_small_gain() -> None:
    """Between the two ways lies a link on which a shard stays on either; far from it none does."""
    spacing = Spacing([80_384, 1024] * 8, [512] * 16)
    ways: list[tuple[str, str]] = []
    for rate in (400e6, 220e6, 100e6):
        conditions = Conditions(Plan(link=Link(0.02, 50e6, rate)))
        with with_many(conditions):
            ways.append(tuple(conditions.step(spacing, 40 << 20, now).way for now in ("hops", "whole")))  # type: ignore[arg-type]
    assert ways == [("whole", "whole"), ("hops", "whole"), ("hops", "hops")]
