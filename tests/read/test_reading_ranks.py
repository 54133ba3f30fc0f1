"""Readers of several ranks: their samples, weights, stand-ins and places, and what they share of their machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from small_corpora import text_members, write_tar

from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.errors import SetaStreamWarning
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.walk import Share, rounds
from seta_stream.plan.weights import weights_received, weights_to_send
from seta_stream.read import reader as reading_room
from seta_stream.read.board import Board
from seta_stream.read.cache import BlockCache
from seta_stream.read.options import Cache, Reading
from seta_stream.read.places import Places
from seta_stream.read.reader import Reader
from seta_stream.store import engine as engines

COUNTS = [31, 0, 24, 1, 40, 17]
EPOCH = 2
# (rows, batch per row, ranks): as the run began, fewer ranks, more of them, and rows that ranks share.
WORLDS = [(4, 3, 4), (4, 3, 2), (2, 6, 4), (1, 12, 3), (3, 4, 2)]


@pytest.fixture
def corpora(tmp_path: Any) -> Callable[[str], Corpus]:
    """Write the same samples to disk and to memory; a text is its sample's id."""

    def make(place: str) -> Corpus:
        first, urls = 0, []
        for number, count in enumerate(COUNTS):
            path = write_tar(tmp_path / f"{number}.tar", text_members(first, count))
            url = str(path)
            if place == "bucket":
                url = f"memory://{tmp_path.name}/{number}.tar"
                fsspec.filesystem("memory").pipe_file(url, path.read_bytes())
            urls.append(url)
            first += count
        return open_corpus(urls, progress=False)

    return make


class Run:
    """The ranks of one epoch over a corpus: every weight is its id's half and one."""

    def __init__(self, corpus: Corpus, rows: int, batch: int, world: int, *, is_weighted: bool = True) -> None:
        first_id = corpus.table.first_id
        geometry = Geometry(rows, 2, batch, 2 * batch, 1, 3, "blocks", True)
        mask = np.random.default_rng(1).random(int(first_id[-1])) < 0.8
        self.corpus, self.world = corpus, world
        self.plan = EpochPlan(Selection.of(mask, first_id), geometry, EPOCH)
        self.weights = np.where(mask, np.arange(len(mask)) / 2 + 1, 0).astype(np.float32)
        self.is_weighted = is_weighted

    def reader(self, rank: int, **settings: Any) -> Reader:
        """Return a rank's reader, its board published."""
        plan, shards = self.plan, len(COUNTS)
        board = Board(plan.selection.first_id, most_weights=plan.geometry.most_in_part(plan.total, self.world))
        sent = weights_to_send(plan, self.weights, (0, shards), self.world)
        line = weights_received(plan, rank, self.world, np.array([0, shards]), [sent[rank]])
        board.publish(
            EPOCH, plan.geometry, plan.selection, line if self.is_weighted else None, plan.part(rank, self.world)[0]
        )
        fixed = {
            "decode": decode,
            "fields": None,
            "on_error": "raise",
            "options": None,
            "reading": Reading(),
        } | settings
        return Reader(self.corpus, board, rank=rank, world=self.world, **fixed)

    def steps(self) -> list[NDArray[np.int64]]:
        """Return the global batches of the plan."""
        return [step for _, ids in rounds(self.plan, Share()) for step in ids.reshape(-1, self.plan.lanes.global_batch)]


def decode(field: str, data: bytes) -> int:
    return int(data)


def bad_decode(field: str, data: bytes) -> int:
    if field == "txt" and int(data) % 7 == 3:
        raise ValueError("not a good sample")
    return int(data)


def samples_of(reader: Reader, workers: int, origin: int = 0) -> list[list[dict[str, Any]]]:
    """Return a rank's batches in the order in which a loader asks its workers for them."""
    per_step = reader.board.geometry.per_rank(reader.world)
    own = []
    for worker in range(workers):
        share = reader.share(worker, workers, origin=origin, begin=origin)
        samples = [sample for some in reader.lists(reader.plan(), share, threads=0) for sample in some]
        own.append([samples[begin : begin + per_step] for begin in range(0, len(samples), per_step)])
    return [own[turn % workers][turn // workers] for turn in range(sum(map(len, own)))]


@pytest.mark.parametrize("place", ["disk", "bucket"])
@pytest.mark.parametrize(("rows", "batch", "world"), WORLDS)
@pytest.mark.parametrize(("workers", "origin"), [(1, 0), (3, 1)])
def test_ranks_read_their_samples_with_the_owners_weights(
    corpora: Callable[[str], Corpus], place: str, rows: int, batch: int, world: int, workers: int, origin: int
) -> None:
    """Every sample of every global batch, in order, each with its own text and weight."""
    run = Run(corpora(place), rows, batch, world)
    ranks = [samples_of(run.reader(rank), workers, origin) for rank in range(world)]
    steps = run.steps()[origin:]
    assert [len(batches) for batches in ranks] == [len(steps)] * world
    for step, parts in zip(steps, zip(*ranks, strict=True), strict=True):
        samples = [sample for part in parts for sample in part]
        assert [sample["__index__"] for sample in samples] == step.tolist()
        assert [sample["txt"] for sample in samples] == step.tolist()
        assert [sample["__weight__"] for sample in samples] == run.weights[step].tolist()


@pytest.mark.parametrize("place", ["disk", "bucket"])
@pytest.mark.parametrize(("rows", "batch", "world"), WORLDS)
def test_stand_ins_do_not_depend_on_the_ranks(
    corpora: Callable[[str], Corpus], place: str, rows: int, batch: int, world: int
) -> None:
    """A sample that cannot be decoded is replaced in its place by the same neighbour, however many ranks read."""
    corpus = corpora(place)
    settings = {"decode": bad_decode, "on_error": "skip"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)
        alone = samples_of(Run(corpus, rows, batch, 1).reader(0, **settings), 1)
        run = Run(corpus, rows, batch, world)
        readers = [run.reader(rank, **settings) for rank in range(world)]
        ranks = [samples_of(reader, 2) for reader in readers]
    together = [[sample for part in parts for sample in part] for parts in zip(*ranks, strict=True)]
    assert together == alone
    replaced = sum(sample["__index__"] == -1 for step in alone for sample in step)
    assert replaced == sum(reader.board.sums()["skipped"] for reader in readers) > 0


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize(("rows", "batch", "world"), WORLDS)
def test_a_rank_goes_on_from_any_place(
    corpora: Callable[[str], Corpus], rows: int, batch: int, world: int, batches: bool
) -> None:
    """A worker's place in the middle of a step, too, for every rank."""
    run = Run(corpora("disk"), rows, batch, world)
    per_rank = run.plan.geometry.per_rank(world)
    for rank in range(world):
        reader = run.reader(rank)
        reader.board.start = 1
        start = partial(Places, reader, per_rank, 1, 2, batches=batches)
        whole = [_ids(value) for value in start()]
        expected = [step[rank * per_rank : (rank + 1) * per_rank].tolist() for step in run.steps()[2::2]]
        assert [number for ids in whole for number in ids] == [number for ids in expected for number in ids]
        for taken in range(0, len(whole) + 1, 1 if batches else 4):
            places, later = start(), start()
            assert [_ids(next(places)) for _ in range(taken)] == whole[:taken]
            later.load_state_dict(places.state_dict())
            assert [_ids(value) for value in later] == whole[taken:]


def _ids(value: dict[str, Any]) -> list[int]:
    return np.atleast_1d(value["__index__"]).tolist()


@pytest.mark.parametrize(("ranks_here", "workers", "expected"), [(1, 1, 64 << 20), (4, 1, 16 << 20), (4, 2, 8 << 20)])
def test_ranks_of_a_machine_share_its_memory_and_requests(
    corpora: Callable[[str], Corpus],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    ranks_here: int,
    workers: int,
    expected: int,
) -> None:
    """What is read ahead, kept for the cache and under way at once is divided by ranks × workers of this machine."""
    corpus = corpora("bucket")
    asked: dict[str, Any] = {}
    fetcher, engine_for, open_cache = reading_room.Fetcher, engines.engine_for, BlockCache.open

    def make(*args: Any, **named: Any) -> Any:
        asked["held"] = named["held_bytes"]
        return fetcher(*args, **named)

    def engine(in_flight: int | None = None, *, processes: int = 1, **named: Any) -> Any:
        asked["processes"] = processes
        return engine_for(in_flight, processes=processes, **named)

    def opened(self: BlockCache, *, ahead_bytes: int, span_bytes: int) -> Any:
        asked["ahead"] = ahead_bytes
        return open_cache(self, ahead_bytes=ahead_bytes, span_bytes=span_bytes)

    monkeypatch.setattr(reading_room, "Fetcher", make)
    monkeypatch.setattr(engines, "engine_for", engine)
    monkeypatch.setattr(BlockCache, "open", opened)
    table = corpus.table
    cache = BlockCache(Cache(str(tmp_path / "cache")), table.urls, table.sizes.tolist(), table.versions)
    run = Run(corpus, 4, 3, 4)
    reader = run.reader(1, ranks_here=ranks_here, cache=cache)
    assert len(samples_of(reader, workers)) == run.plan.lanes.steps
    assert asked == {"held": expected, "ahead": expected, "processes": ranks_here * workers}


def test_epochs_without_weights_have_one_everywhere(corpora: Callable[[str], Corpus]) -> None:
    """Ranks need nothing from owners then."""
    run = Run(corpora("disk"), 4, 3, 4, is_weighted=False)
    assert {sample["__weight__"] for step in samples_of(run.reader(3), 1) for sample in step} == {1.0}
