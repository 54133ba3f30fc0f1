"""A few requests tell what indexing will take, and never stand in its way."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_tars import tar_bytes
from servers import WebServer

from seta_stream.corpus import probing
from seta_stream.corpus.building import Task
from seta_stream.corpus.conditions import FIRST_BYTES, Plan, Step
from seta_stream.corpus.costs import SPAN_BYTES, Link, Team
from seta_stream.corpus.probing import foresee
from seta_stream.store import ObjectInfo, store_for

LARGE = tar_bytes(
    [(f"{n:03d}.{field}", b"x" * size) for n in range(40) for field, size in (("jpg", 150_000), ("cls", 1))]
)
SMALL = tar_bytes([(f"{n:05d}.txt", b"x" * 100) for n in range(6000)])


@pytest.fixture
def tasks(http_server: Callable[..., WebServer], tmp_path: Path) -> Callable[..., list[Task]]:
    """Serve shards of these bytes; returns their tasks."""

    def make(*contents: bytes, **options: Any) -> list[Task]:
        for number, data in enumerate(contents):
            (tmp_path / f"{number}.tar").write_bytes(data)
        urls = [f"{http_server(tmp_path, **options)}/{number}.tar" for number in range(len(contents))]
        return [
            Task(number, url, store_for(url).info(url), "", None, must_write=False) for number, url in enumerate(urls)
        ]

    return make


@pytest.fixture(autouse=True)
def _every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe corpora of any size, as only large ones are."""
    monkeypatch.setattr(probing, "SMALL_BYTES", 0)


def test_large_members_are_seen_by_hops(tasks: Callable[..., list[Task]]) -> None:
    """The number of hops and their size is foretold from a few members of some shards."""
    plan, estimate = foresee(tasks(*[LARGE] * 6, first_byte_ms=5), 9, way="hops")
    assert estimate is not None
    assert estimate.cost is not None
    assert (estimate.shards, estimate.of, estimate.shard_bytes) == (6, 9, 6 * len(LARGE))
    assert estimate.cost.requests == pytest.approx(6 * 40, rel=0.15)
    assert plan.first == Step("hops", 2048, 1)
    assert 0.004 < plan.link.first_byte_s < 0.5
    assert (plan.way, plan.processes) == ("hops", 1)


def test_a_team_divides_the_work(tasks: Callable[..., list[Task]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and bytes are those of all, the time that of a machine's part; each rank has its part of the CPUs."""
    monkeypatch.setattr(probing, "cpus", lambda: 8)
    monkeypatch.setattr(probing, "PROCESS_PAYS_S", 1e-9)
    link = Link(0.02, 1e6, 1e6)
    monkeypatch.setattr(probing, "Link", lambda *_, **__: link)
    made = tasks(*[LARGE] * 8)
    alone, told = foresee(made, 8, way="whole")
    shared, told_to_all = foresee(made, 8, way="whole", team=Team(world=4, ranks=2, machines=2))
    assert told is not None
    assert told_to_all is not None
    assert told.cost is not None
    assert told_to_all.cost is not None
    assert (alone.processes, alone.ranks, shared.processes, shared.ranks) == (8, 1, 2, 2)
    assert told_to_all.cost.fetched == told.cost.fetched == 8 * len(LARGE)
    assert told_to_all.cost.requests == told.cost.requests
    assert told_to_all.cost.seconds == pytest.approx(told.cost.seconds / 2)
    assert "shared by 4 processes on 2 machines: read whole" in str(told_to_all)


def test_small_members_are_read_whole(tasks: Callable[..., list[Task]]) -> None:
    """What is fetched is every byte, in spans."""
    plan, estimate = foresee(tasks(*[SMALL] * 5), 5, jobs=2)
    assert estimate is not None
    assert estimate.cost is not None
    assert (estimate.cost.way, estimate.cost.fetched) == ("whole", 5 * len(SMALL))
    assert (plan.first.way, plan.first.read_bytes, plan.processes) == ("whole", SPAN_BYTES, 2)


def test_the_rate_of_many_requests_is_measured(
    tasks: Callable[..., list[Task]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst tells what all connections give together; a shard too short for it, or gone, tells nothing."""
    monkeypatch.setattr(probing, "BURST_PAYS_BYTES", 0)
    monkeypatch.setattr(probing, "BODY_BYTES", 256 << 10)
    made = tasks(LARGE, SMALL)
    plan, _ = foresee(made, 2)
    assert plan.link.total_bytes_per_s > 1e6
    engine, link = object(), plan.link
    short = Task(0, made[0].url, ObjectInfo(1000, ""), "", None, must_write=False)
    assert probing._burst(short, engine, link) == probing.MOST_BYTES_PER_S  # type: ignore[arg-type]
    from seta_stream.store.engine import Engine

    stale = Task(0, made[0].url, ObjectInfo(len(LARGE), "etag:other"), "", None, must_write=False)
    assert probing._burst(stale, Engine(), link) == probing.MOST_BYTES_PER_S


def test_what_cannot_be_probed_is_estimated_by_its_bytes(tasks: Callable[..., list[Task]]) -> None:
    """Compressed, damaged, empty and headless shards, and a server without ranges, are left to the scan."""
    odd = [gzip.compress(SMALL), b"no tar" * 1000, b"", b"x" * 100, bytes(1024)]
    for made in (tasks(*odd), tasks(SMALL, LARGE, ranges=False)):
        plan, estimate = foresee(made, len(made))
        assert estimate is not None
        assert estimate.cost is not None
        assert estimate.cost.fetched == sum(task.size for task in made)
        assert plan.first.way == "whole"


def test_a_cut_shard_is_probed_as_far_as_it_goes(tasks: Callable[..., list[Task]]) -> None:
    """A shard that ends inside a body tells of the members before."""
    _, estimate = foresee(tasks(LARGE[: 3 * 150_528 + 5000]), 1, way="hops")
    assert estimate is not None
    assert estimate.cost is not None
    assert estimate.cost.way == "hops"


def test_little_is_not_probed(tasks: Callable[..., list[Task]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading everything takes a second nothing is asked ahead, and a forced way holds all the same."""
    monkeypatch.undo()
    made = tasks(SMALL, SMALL)
    monkeypatch.setattr(probing, "store_for", None)
    plan, estimate = foresee(made, 2)
    assert plan.first.way == "whole"
    assert estimate is not None
    assert estimate.cost is not None
    assert estimate.cost.requests == 2 * -(-len(SMALL) // SPAN_BYTES)
    assert foresee(made, 2, way="hops")[0] == Plan(first=Step("hops", FIRST_BYTES, 1), way="hops")


def test_local_shards_are_worth_a_word_where_they_are_many_bytes() -> None:
    """Small local corpora are indexed in silence."""
    few = [Task(0, "/data/a.tar", ObjectInfo(1 << 30, ""), "", None, must_write=False)]
    many = [Task(0, "/data/a.tar", ObjectInfo(1 << 36, ""), "", None, must_write=False)]
    assert foresee(few, 1) == (Plan(), None)
    assert foresee(few, 1, team=Team(8, 4, 2)) == (Plan(ranks=4), None)
    assert str(foresee(many, 1)[1]) == "Indexing 1 shard (68.7 GB) on /data. Interrupted, it goes on where it stopped."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host:8080/a/b.tar?X-Amz-Signature=secret", "https://host:8080/a"),
        ("s3://bucket/train/a.tar", "s3://bucket/train"),
        ("az://container/a.tar", "az://container"),
    ],
)
def test_the_place_is_told_without_secrets(url: str, shown: str) -> None:
    """User, password and query of a URL are left out."""
    assert probing._estimate([Task(0, url, ObjectInfo(1, ""), "", None, must_write=False)], 1, None).place == shown
