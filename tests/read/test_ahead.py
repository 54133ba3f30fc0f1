"""Reading ahead of a remote store gives what reading local files gives, in the same order, within its bounds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import Member, write_tar

from seta_stream import Full, SetaStream
from seta_stream.errors import PlanError
from seta_stream.plan.epoch import Selection
from seta_stream.policies import DynamicRandom
from seta_stream.read import ahead
from seta_stream.read.options import Reading
from seta_stream.read.spans import span_bytes_ahead

FIELDS = ("txt", "cls", "jpg", "meta.json")


@st.composite
def corpora(draw: st.DrawFn) -> list[list[Member]]:
    """Shards of samples whose fields and sizes vary; empty members and long keys among them."""
    shards = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    size = st.sampled_from([0, 1, 100, 511, 512, 513, 3000, 20_000])
    made, number = [], 0
    for samples in shards:
        members: list[Member] = []
        for _ in range(samples):
            key = f"{number:05d}" * draw(st.sampled_from([1, 1, 1, 30]))
            for field in draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True)):
                length = draw(size)
                members.append((f"{key}.{field}", (f"{key}{field}".encode() * (length // 5 + 1))[:length]))
            number += 1
        made.append(members)
    return made


def without_url(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in samples]


@given(
    made=corpora(),
    share=st.sampled_from([0.0, 0.3, 0.7]),
    fields=st.sampled_from([None, ("txt",), ("jpg", "cls"), ("nothing",)]),
    shuffle=st.booleans(),
    reading=st.builds(
        Reading,
        max_waste=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        max_span_bytes=st.sampled_from([4096, 8 << 20]),
        prefetch_bytes=st.sampled_from([4096, 1 << 20, 64 << 20]),
        in_flight=st.sampled_from([None, 1, 7]),
        decode_threads=st.sampled_from([0, 1]),
    ),
)
@settings(max_examples=60)
def test_remote_samples_are_the_local_ones(
    made: list[list[Member]], share: float, fields: tuple[str, ...] | None, shuffle: bool, reading: Reading
) -> None:
    """Any layout, selection, fields and settings: the same samples in the same order, from files and from a store."""
    memory = fsspec.filesystem("memory")
    policy = DynamicRandom(prune_ratio=share) if share else Full()
    with tempfile.TemporaryDirectory() as folder:
        paths, urls = [], []
        for number, members in enumerate(made):
            path = write_tar(Path(folder) / f"{number}.tar", members)
            memory.pipe_file(f"/ahead/{number}.tar", path.read_bytes())
            paths.append(str(path))
            urls.append(f"memory://ahead/{number}.tar")
        options: dict[str, Any] = {"policy": policy, "fields": fields, "shuffle": shuffle, "drop_last": False}
        try:
            here, there = SetaStream(paths, **options), SetaStream(urls, read=reading, **options)
            expected = without_url(list(here))
        except PlanError:  # the draw selected nothing
            with pytest.raises(PlanError):
                list(there)
            return
        assert without_url(list(there)) == expected
        stats = there.stats
        assert stats.samples == len(expected)
        if fields is None and reading.max_waste == 0 and stats.requests:
            # Only the gap of a header is merged without a budget, and whole samples have none between their members.
            assert stats.bytes_fetched <= stats.bytes_needed + ahead.HEADER_BYTES * stats.samples
        memory.rm("/ahead", recursive=True)


def test_what_waits_stays_within_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes asked for and not given back never exceed prefetch_bytes, though windows are asked for ahead."""
    memory = fsspec.filesystem("memory")
    members = [(f"{number:05d}.bin", bytes([number % 256]) * 20_000) for number in range(300)]
    memory.pipe_file("/bound/0.tar", write_tar(tmp_path / "0.tar", members).read_bytes())
    held: dict[int, ahead.Window] = {}
    most, windows = 0, 0
    ask = ahead.Window.ask

    def counting(self: ahead.Window) -> None:
        nonlocal most, windows
        held[id(self)] = self
        ask(self)
        windows += 1
        most = max(most, sum(one.held_bytes for one in held.values()))

    monkeypatch.setattr(ahead.Window, "ask", counting)
    bound = 2 << 20
    stream = SetaStream("memory://bound/0.tar", read=Reading(prefetch_bytes=bound, decode_threads=0))
    assert len(list(stream)) == 300
    assert windows >= 4
    assert bound / 4 < most <= bound
    assert all(one.held_bytes == 0 for one in held.values())


def test_a_wide_waste_budget_still_fits(tmp_path: Path) -> None:
    """max_waste=1 reads whole stretches, but never more of them than may be held."""
    memory = fsspec.filesystem("memory")
    members = [(f"{number:05d}.bin", bytes([number % 256]) * 5_000) for number in range(2000)]
    memory.pipe_file("/waste/0.tar", write_tar(tmp_path / "0.tar", members).read_bytes())
    read = Reading(prefetch_bytes=2 << 20, max_waste=1.0)
    stream = SetaStream("memory://waste/0.tar", policy=DynamicRandom(prune_ratio=0.5), read=read)
    assert len(list(stream)) == len(stream)
    assert stream.stats.bytes_fetched <= 2.2 * stream.stats.bytes_needed
    assert stream.stats.requests < len(stream)


def test_an_abandoned_epoch_gives_up_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that breaks off leaves nothing asked for."""
    memory = fsspec.filesystem("memory")
    members = [(f"{number:05d}.bin", bytes([number % 256]) * 20_000) for number in range(300)]
    memory.pipe_file("/abandoned/0.tar", write_tar(tmp_path / "0.tar", members).read_bytes())
    cancelled = []
    cancel = ahead.Window.cancel
    monkeypatch.setattr(ahead.Window, "cancel", lambda self: (cancelled.append(self), cancel(self))[1])
    stream = SetaStream("memory://abandoned/0.tar", read=Reading(prefetch_bytes=2 << 20, decode_threads=0))
    samples = iter(stream)
    next(samples)
    del samples
    assert cancelled


@given(st.lists(st.lists(st.booleans(), max_size=9), min_size=1, max_size=6))
def test_stretches_are_counted_as_a_loop_counts_them(shards: list[list[bool]]) -> None:
    """Neighbours that are selected make one stretch, but never across shards."""
    import numpy as np

    mask = np.array([bit for shard in shards for bit in shard], bool)
    first_id = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])]).astype(np.int64)
    expected = sum(bit and not (place and shard[place - 1]) for shard in shards for place, bit in enumerate(shard))
    assert Selection.of(mask, first_id).stretches == expected


def test_many_small_requests_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of scattered small samples names cache, runs and repack; a second epoch is silent."""
    from seta_stream.errors import SetaStreamWarning
    from seta_stream.read import advice

    monkeypatch.setattr(advice, "MANY_REQUESTS", 50)
    memory = fsspec.filesystem("memory")
    members = [(f"{number:05d}.txt", b"x") for number in range(1000)]
    memory.pipe_file("/small/0.tar", write_tar(tmp_path / "0.tar", members).read_bytes())
    stream = SetaStream("memory://small/0.tar", policy=DynamicRandom(prune_ratio=0.5))
    with pytest.warns(SetaStreamWarning, match=r"cache=.*run_bytes=.*repack.*docs/buckets.md"):
        stream.set_epoch(0)
    stream.set_epoch(1)
    quiet = SetaStream("memory://small/0.tar", policy=DynamicRandom(prune_ratio=0.5), cache=str(tmp_path / "cache"))
    quiet.set_epoch(0)


@pytest.mark.parametrize(
    ("held", "asked", "expected"), [(64 << 20, 8 << 20, 2 << 20), (8 << 20, 8 << 20, 1 << 20), (64 << 20, 4096, 4096)]
)
def test_spans_are_short_enough_to_hide_each_others_latency(held: int, asked: int, expected: int) -> None:
    """A 32nd of what may be held, 1 MiB at least, and never more than asked for."""
    assert span_bytes_ahead(asked, held) == expected
