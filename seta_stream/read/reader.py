"""The reader: a plan in, decoded samples out, in order. What a worker process carries.

Takes the board (what the epoch selects) and settings; gives samples. Effects: reads, decode threads, counters on the
board, and a warning for the first samples that cannot be decoded.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import DecodeError, SetaStreamWarning
from seta_stream.plan.epoch import EpochPlan
from seta_stream.plan.walk import Share, rounds
from seta_stream.read.board import COUNTERS, Board
from seta_stream.read.decode import Decode, FieldDecode, Seeded, decode_sample
from seta_stream.read.fetch import Late, Sample
from seta_stream.read.options import Reading
from seta_stream.read.stages import StepDecoders
from seta_stream.read.window import SMALLEST_WINDOW, Fetcher
from seta_stream.store import Options
from seta_stream.store.retrying import Patience

if TYPE_CHECKING:
    from seta_stream.corpus.indexing import Corpus
    from seta_stream.read.cache import BlockCache
    from seta_stream.store.engine import Engine

NAMED_FAILURES: Final = 5
"""So many samples that cannot be decoded are named; the others are counted."""

FAILURES_AT_LEAST: Final = 64
FAILURES_SHARE: Final = 0.05
"""More failures than both: the corpus or the decoder is broken, not a sample."""

_CHUNK_BYTES: Final = 256 << 10
_CHUNK_SAMPLES: Final = 256
_PENDING_BYTES: Final = 2 << 20
"""Samples that wait to be decoded hold no more than this per piece, or there are as many pieces as threads."""
_WAIT, _SAMPLES, _DECODED, _SKIPPED = (COUNTERS.index(name) for name in ("wait_ns", "samples", "decoded", "skipped"))

Items = Sequence[Sample | Late]
_Pending = deque[tuple[int, Future[list[Sample]]]]
"""Pieces in order: about how many bytes each takes, and what makes it."""


class _Job(NamedTuple):
    """Items of one decoder, small enough to pass on quickly."""

    items: Items
    decode: FieldDecode | Seeded | None
    seed: int
    epoch: int


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads the board's epoch.

    Args:
        corpus: the corpus.
        board: the selection, and where to count.
        reading: how to read.
        decode: what `decode.decoder` gave; None for bytes.
        fields: the fields wanted; None for all.
        on_error: what to do with a sample that cannot be decoded.
        options: of the file system.
        cache: keeps what is fetched of remote shards; None for none.
        rank, world: which part of every step is read.
        ranks_here: how many of the ranks run on this machine, this one included: they share what is held in memory and
            the requests under way.
    """

    corpus: Corpus
    board: Board
    reading: Reading
    decode: Decode | None
    fields: tuple[str, ...] | None
    on_error: Literal["raise", "skip"]
    options: Options | None = field(repr=False)  # credentials
    cache: BlockCache | None = None
    rank: int = 0
    world: int = 1
    ranks_here: int = 1

    def share(self, worker: int = 0, workers: int = 1, *, origin: int, begin: int) -> Share:
        """Return the share of one of this rank's workers; see `plan.walk.Share`."""
        return Share(self.rank, self.world, worker, workers, origin, begin)

    def plan(self) -> EpochPlan:
        """Return the plan of the epoch on the board, for this rank."""
        return self.board.plan(self.rank, self.world)

    def lists(self, plan: EpochPlan, share: Share, *, threads: int) -> Iterator[list[Sample]]:
        """Yield a share of the plan's samples in order, in lists of a few.

        Args:
            plan: of this reader's board.
            share: which rank and worker reads.
            threads: that decode; 0 decodes in this thread.
        """
        counters = self.board.counters(share.worker + 1 if share.workers > 1 else 0)
        processes = share.workers * self.ranks_here
        held_bytes = max(self.reading.prefetch_bytes // processes, SMALLEST_WINDOW)
        cache = None
        if self.cache is not None:
            cache = self.cache.open(ahead_bytes=held_bytes, span_bytes=self.reading.max_span_bytes)
        fetcher = Fetcher(
            self.corpus,
            plan,
            self.reading,
            fields=self.fields,
            options=self.options,
            weights=self.board.weights(),
            counters=counters,
            held_bytes=held_bytes,
            engine=self._engine(processes),
            cache=cache,
        )
        decoders = StepDecoders(self.decode, self.board.course, plan, share)
        jobs = self._jobs(fetcher, decoders)
        in_threads, pending = threads > 0 and self.decode is not None, _Pending()
        produced = self._make_in_threads(jobs, threads, pending) if in_threads else self._make_here(jobs)
        substitutes = None if self.decode is None else _Substitutes(decoders, fetcher, counters)
        try:
            while True:
                begin = time.perf_counter_ns()
                samples = next(produced, None)
                counters[_WAIT] += time.perf_counter_ns() - begin
                if samples is None:
                    fetcher.check()
                    return
                if substitutes is not None:
                    samples = substitutes.fill(samples)
                    counters[_DECODED] += len(samples)
                counters[_SAMPLES] += len(samples)
                yield samples
        finally:
            produced.close()
            _after([made for _, made in pending], fetcher.close)

    def _engine(self, processes: int) -> Engine | None:
        """Return what keeps requests under way; None where every shard is a file of this machine."""
        if self.corpus.is_local:
            return None
        from seta_stream.store.engine import engine_for  # noqa: PLC0415  (brings fsspec, which takes 70 ms)

        patience = Patience(self.reading.patience_s)
        return engine_for(self.reading.in_flight, processes=processes, patience=patience)

    def _jobs(self, fetcher: Fetcher, decoders: StepDecoders) -> Iterator[_Job]:
        """Yield the epoch's items in pieces, each of one decoder."""
        plan, done = decoders.plan, 0
        seed, epoch = plan.geometry.seed, plan.epoch
        chunks = self._chunks(fetcher, plan, decoders.share)
        if not decoders.is_staged:
            decode = decoders.of_step(0)
            yield from (_Job(chunk, decode, seed, epoch) for chunk in chunks)
            return
        for chunk in chunks:
            begin = 0
            for decode, count in decoders.stretches(done, len(chunk)):
                yield _Job(chunk[begin : begin + count], decode, seed, epoch)
                begin += count
            done += len(chunk)

    def _chunks(self, fetcher: Fetcher, plan: EpochPlan, share: Share) -> Iterator[Items]:
        """Yield the epoch's items in pieces that are small enough to pass on quickly."""
        for items in fetcher.items(ids for _, ids in rounds(plan, share)):
            size = self._chunk_samples(items)
            for start in range(0, len(items), size):
                yield items[start : start + size]

    def _chunk_samples(self, items: Items) -> int:
        if isinstance(items[0], Late):
            return max(1, _CHUNK_BYTES // max(1, _bytes_of(items[:1])))
        if self.decode is None:
            return len(items)
        return _CHUNK_SAMPLES

    def _make(self, job: _Job) -> list[Sample]:
        """Read what is late, and decode; a sample that fails stands as its error where errors are skipped."""
        items, decode, seed, epoch = job
        samples = [item.sample() if isinstance(item, Late) else item for item in items]
        if decode is None:
            return samples
        make = decode_sample if self.on_error == "raise" else _decode_or_mark
        if isinstance(decode, Seeded):
            return [make(sample, decode.for_sample(seed, epoch, sample["__index__"])) for sample in samples]
        return [make(sample, decode) for sample in samples]

    def _make_here(self, jobs: Iterable[_Job]) -> Generator[list[Sample], None, None]:
        """Decode pieces in this thread."""
        for job in jobs:
            yield self._make(job)

    def _make_in_threads(
        self, jobs: Iterable[_Job], threads: int, pending: _Pending | None = None
    ) -> Generator[list[Sample], None, None]:
        """Decode pieces in threads, and deliver them in order; `pending` holds those that are not delivered yet."""
        pending = deque() if pending is None else pending
        most, held = 2 * threads + 1, 0
        pool = ThreadPoolExecutor(threads, thread_name_prefix="seta-decode")
        try:
            for job in jobs:
                size = _bytes_of(job.items)
                pending.append((size, pool.submit(self._make, job)))
                held += size
                while len(pending) > most or (len(pending) > threads and held > most * _PENDING_BYTES):
                    size, made = pending.popleft()
                    held -= size
                    yield made.result()
            while pending:
                yield pending.popleft()[1].result()
        finally:
            # Not waiting: an abandoned iteration is collected in whatever thread the collector runs, also in one that
            # is just being started and holds the lock that joining another takes.
            pool.shutdown(wait=False, cancel_futures=True)


def _after(pieces: list[Future[list[Sample]]], act: Callable[[], None]) -> None:
    """Act once all pieces are made or given up, in the thread of the last; now, where all are."""
    if pieces:
        pieces[0].add_done_callback(lambda _: _after(pieces[1:], act))
    else:
        act()


_FAILED: Final = "__failed__"


def _bytes_of(items: Items) -> int:
    """Return about how many bytes items hold, or will once they are read: all as many as the first."""
    first = items[0]
    if isinstance(first, Late):
        return sum(size for _, size in first.spans) * len(items)
    return sum(len(value) for value in first.values() if isinstance(value, bytes)) * len(items)


def _decode_or_mark(sample: Sample, decode: FieldDecode) -> Sample:
    try:
        return decode_sample(sample, decode)
    except DecodeError as error:
        return {_FAILED: error}


class _Substitutes:
    """Fills the places of samples that cannot be decoded, by a function of the place alone."""

    def __init__(self, decoders: StepDecoders, fetcher: Fetcher, counters: NDArray[np.int64]) -> None:
        self._decoders = decoders
        self._fetcher = fetcher
        self._counters = counters
        self._seen = 0
        self._failures = 0

    def fill(self, samples: list[Sample]) -> list[Sample]:
        """Return the samples with every failed one replaced."""
        for place, sample in enumerate(samples):
            if _FAILED in sample:
                samples[place] = self._instead(self._seen + place, sample[_FAILED])
        self._seen += len(samples)
        return samples

    def _instead(self, number: int, error: DecodeError) -> Sample:
        self._count(error)
        step, element = self._decoders.place(number)
        decode = self._decoders.of_step(step)
        assert decode is not None  # noqa: S101  (bytes do not fail)
        plan = self._decoders.plan
        for other in plan.neighbours(step, element):
            own = decode.for_sample(plan.geometry.seed, plan.epoch, other) if isinstance(decode, Seeded) else decode
            sample = _decode_or_mark(self._fetcher.one(other), own)
            if _FAILED not in sample:
                return {**sample, "__index__": -1, "__weight__": 0.0}
        raise DecodeError(
            f"No sample near step {step} can be decoded, so nothing can stand in for it. {error.message}",
            shard=error.shard,
            key=error.key,
        ) from error

    def _count(self, error: DecodeError) -> None:
        self._failures += 1
        self._counters[_SKIPPED] += 1
        if self._failures <= NAMED_FAILURES:
            more = " Further ones are counted in stats.skipped." if self._failures == NAMED_FAILURES else ""
            warnings.warn(f"Skipped a sample. {error.message}{more}", SetaStreamWarning, stacklevel=2)
        if self._failures > max(FAILURES_AT_LEAST, FAILURES_SHARE * self._seen):
            raise DecodeError(
                f"Gave up after {self._failures} samples that cannot be decoded among about {self._seen}: the decoder "
                f"or the corpus is broken. The last one: {error.message}",
                shard=error.shard,
                key=error.key,
                found=self._failures,
            ) from error
