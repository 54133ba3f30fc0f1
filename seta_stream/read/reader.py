"""The reader: a plan in, decoded samples out, in order. What a worker process carries.

Takes the board (what the epoch selects) and settings; gives samples. Effects: reads, decode threads, counters on the
board, and a warning for the first samples that cannot be decoded.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import DecodeError, SetaStreamWarning
from seta_stream.plan.epoch import EpochPlan
from seta_stream.plan.walk import Share, rounds
from seta_stream.read.board import COUNTERS, Board
from seta_stream.read.decode import Decode, decode_sample
from seta_stream.read.fetch import Late, Sample
from seta_stream.read.options import Reading
from seta_stream.read.window import Fetcher
from seta_stream.store import Options

if TYPE_CHECKING:
    from seta_stream.corpus.indexing import Corpus

NAMED_FAILURES: Final = 5
"""So many samples that cannot be decoded are named; the others are counted."""

FAILURES_AT_LEAST: Final = 64
FAILURES_SHARE: Final = 0.05
"""More failures than both: the corpus or the decoder is broken, not a sample."""

_CHUNK_BYTES: Final = 256 << 10
_CHUNK_SAMPLES: Final = 256
_WAIT, _SAMPLES, _DECODED, _SKIPPED = (COUNTERS.index(name) for name in ("wait_ns", "samples", "decoded", "skipped"))

Items = Sequence[Sample | Late]


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads the board's epoch.

    Args:
        corpus: the corpus.
        board: the selection, and where to count.
        reading: how to read.
        decode: (field, bytes) → value, or None for bytes.
        fields: the fields wanted; None for all.
        on_error: what to do with a sample that cannot be decoded.
        options: of the file system.
    """

    corpus: Corpus
    board: Board
    reading: Reading
    decode: Decode | None
    fields: tuple[str, ...] | None
    on_error: Literal["raise", "skip"]
    options: Options | None

    def plan(self) -> EpochPlan:
        """Return the plan of the epoch on the board."""
        return EpochPlan(self.board.selection(), self.board.geometry, self.board.epoch)

    def lists(self, plan: EpochPlan, share: Share, *, threads: int) -> Iterator[list[Sample]]:
        """Yield a share of the plan's samples in order, in lists of a few.

        Args:
            plan: of this reader's board.
            share: which rank and worker reads.
            threads: that decode; 0 decodes in this thread.
        """
        counters = self.board.counters(share.worker + 1 if share.workers > 1 else 0)
        fetcher = Fetcher(
            self.corpus,
            plan,
            self.reading,
            fields=self.fields,
            options=self.options,
            weights=self.board.weights(),
            counters=counters,
            window_bytes=max(self.reading.prefetch_bytes // (2 * share.workers), 1 << 20),
        )
        chunks = self._chunks(fetcher, plan, share)
        inline = threads == 0 or self.decode is None
        produced = (self._make(chunk) for chunk in chunks) if inline else self._make_in_threads(chunks, threads)
        substitutes = None if self.decode is None else _Substitutes(self.decode, fetcher, plan, share, counters)
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
            fetcher.close()

    def _chunks(self, fetcher: Fetcher, plan: EpochPlan, share: Share) -> Iterator[Items]:
        """Yield the epoch's items in pieces that are small enough to pass on quickly."""
        for _, ids in rounds(plan, share):
            for items in fetcher.windows(ids):
                size = self._chunk_samples(items)
                for start in range(0, len(items), size):
                    yield items[start : start + size]

    def _chunk_samples(self, items: Items) -> int:
        first = items[0]
        if isinstance(first, Late):
            return max(1, _CHUNK_BYTES // max(1, sum(size for _, size in first.spans)))
        if self.decode is None:
            return len(items)
        return _CHUNK_SAMPLES

    def _make(self, items: Items) -> list[Sample]:
        """Read what is late, and decode; a sample that fails stands as its error where errors are skipped."""
        samples = [item.sample() if isinstance(item, Late) else item for item in items]
        if self.decode is None:
            return samples
        if self.on_error == "raise":
            return [decode_sample(sample, self.decode) for sample in samples]
        return [_decode_or_mark(sample, self.decode) for sample in samples]

    def _make_in_threads(self, chunks: Iterable[Items], threads: int) -> Generator[list[Sample], None, None]:
        """Decode chunks in threads, and deliver them in order."""
        pending: deque[Future[list[Sample]]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="seta-decode")
        try:
            for chunk in chunks:
                pending.append(pool.submit(self._make, chunk))
                if len(pending) > 2 * threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_FAILED: Final = "__failed__"


def _decode_or_mark(sample: Sample, decode: Decode) -> Sample:
    try:
        return decode_sample(sample, decode)
    except DecodeError as error:
        return {_FAILED: error}


class _Substitutes:
    """Fills the places of samples that cannot be decoded, by a function of the place alone."""

    def __init__(
        self, decode: Decode, fetcher: Fetcher, plan: EpochPlan, share: Share, counters: NDArray[np.int64]
    ) -> None:
        self._decode = decode
        self._counters = counters
        self._fetcher = fetcher
        self._plan = plan
        self._share = share
        self._steps = share.steps(plan.lanes.steps)
        self._per_rank = plan.lanes.global_batch // share.world
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
        step = self._steps[number // self._per_rank]
        element = self._share.rank * self._per_rank + number % self._per_rank
        for other in self._plan.neighbours(step, element):
            sample = _decode_or_mark(self._fetcher.one(other), self._decode)
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
