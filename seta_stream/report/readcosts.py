"""What reading a selection costs: bytes and requests, by the real plan and the real spans, without reading.

Takes the sizes of shards and masks; gives means per sample read. Pure.

The plan of an epoch and the spans of its windows are made for a probe: pieces of a few shards, small enough to plan in
a moment, long enough to hold whole blocks. Where the corpus is no larger, the probe is the corpus. A sample counts the
mean size of its shard, since the shard table knows no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import ArgumentError
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.shuffle import block_length
from seta_stream.plan.walk import Share, rounds
from seta_stream.read.spans import plan_spans

WIDTH: Final = 8
"""Lanes per row, as a stream has where none are given."""

PROBE_SAMPLES: Final = 32_768
EVERYTHING_SAMPLES: Final = 200_000
HEADER_BYTES: Final = 768
"""Of a member: its header, and half a block of padding in the mean."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CorpusShape:
    """What a simulation knows of a corpus.

    Args:
        samples: int64 [shards].
        extent_bytes: int64 [shards], of all samples of each.
        sizes: int64 [shards], bytes of each object.
        seekable: bool [shards], false for compressed ones, of which every byte is read.
    """

    samples: Int64s
    extent_bytes: Int64s
    sizes: Int64s
    seekable: NDArray[np.bool_]

    @classmethod
    def even(cls, samples: ArrayLike, sample_bytes: float) -> CorpusShape:
        """Return a corpus of shards of so many samples, all of one size."""
        counts = np.asarray(samples, np.int64)
        extents = np.round(counts * sample_bytes).astype(np.int64)
        return cls(counts, extents, extents, np.ones(len(counts), np.bool_))

    @classmethod
    def synthetic(cls, samples: int, samples_per_shard: int, sample_bytes: float) -> CorpusShape:
        """Return a corpus that never was; the last shard holds the rest."""
        whole, rest = divmod(samples, samples_per_shard)
        return cls.even([samples_per_shard] * whole + [rest] * (rest > 0), sample_bytes)

    @property
    def total(self) -> int:
        """Samples of the corpus."""
        return int(self.samples.sum())

    @property
    def mean_bytes(self) -> float:
        """Mean extent of a sample."""
        return float(self.extent_bytes.sum()) / max(self.total, 1)

    def sketch(self, limit: int) -> Sketch:
        """Return at most about `limit` samples that stand for the corpus: pieces of shards, evenly chosen.

        At least as many shards as there are lanes, where the corpus has them: lanes lie apart in a real epoch too.

        Raises:
            ArgumentError: the corpus has no samples.
        """
        filled = np.flatnonzero(self.samples)
        if not len(filled):
            raise ArgumentError("There is nothing to simulate: the corpus has no samples.", found=0)
        wanted = min(len(filled), max(WIDTH, int(limit / self.samples[filled].mean())))
        chosen = filled[np.linspace(0, len(filled) - 1, wanted).round().astype(np.int64)]
        counts = self.samples[chosen]
        if counts.sum() > limit:
            counts = np.minimum(counts, max(limit // wanted, 1))
        return Sketch(chosen, counts)


@dataclass(frozen=True, eq=False)
class Sketch:
    """The first samples of some shards.

    Args:
        shards: int64 [pieces], their numbers.
        samples: int64 [pieces], how many of each.
    """

    shards: Int64s
    samples: Int64s

    @cached_property
    def first_id(self) -> Int64s:
        """int64 [pieces + 1]."""
        return np.concatenate([[0], np.cumsum(self.samples)])

    @property
    def total(self) -> int:
        """Samples in all pieces."""
        return int(self.first_id[-1])


@dataclass(frozen=True)
class ReadModel:
    """How bytes are asked for.

    Args:
        max_waste, max_span_bytes: as in Reading.
        max_gap_bytes: larger gaps are never merged; None for no bound.
        window_bytes: of samples that are planned together.
        batch: samples per step.
        late_bytes: from this mean size on, each member is read by itself; None: never.
        late_members: members per sample, where that is so.
        late_share: share of a sample's extent that its members hold; None: all but headers and padding.
    """

    max_waste: float
    max_span_bytes: int
    max_gap_bytes: int | None
    window_bytes: int
    batch: int
    late_bytes: int | None = None
    late_members: float = 2.0
    late_share: float | None = None


@dataclass(frozen=True)
class Cost:
    """Bytes and requests."""

    bytes: float
    requests: float


class ReadCosts:
    """Prices the selections of one sketch.

    Args:
        corpus: the whole.
        sketch: the samples that masks are of.
        model: how bytes are asked for.
        seed: of the order.
        probe_samples: how many samples are planned, where not all are read; PROBE_SAMPLES by default.
    """

    def __init__(
        self,
        corpus: CorpusShape,
        sketch: Sketch,
        model: ReadModel,
        seed: int,
        *,
        probe_samples: int | None = None,
    ) -> None:
        self._corpus = corpus
        self._sketch = sketch
        self._model = model
        seekable = corpus.seekable & (corpus.samples > 0)
        self._ranged_samples = int(corpus.samples[seekable].sum())
        self._ranged_bytes = float(corpus.extent_bytes[seekable].sum()) / max(self._ranged_samples, 1)
        whole = ~corpus.seekable & (corpus.samples > 0)
        self._sequential = Cost(float(corpus.sizes[whole].sum()), float(np.count_nonzero(whole)))
        self._probe = _Probe.of(corpus, sketch, PROBE_SAMPLES if probe_samples is None else probe_samples)
        block = block_length(corpus.mean_bytes, WIDTH, model.batch)
        self._geometry = Geometry(1, WIDTH, model.batch, block, 1, seed, "blocks", drop_last=False)
        self._late = model.late_bytes is not None and self._ranged_bytes >= model.late_bytes

    def of(self, mask: NDArray[np.bool_], epoch: int) -> Cost:
        """Return what the whole corpus costs in an epoch that selects as this mask of the sketch does.

        Args:
            mask: bool [sketch.total], something of it selected.
            epoch: its number, for the order of shards and samples.
        """
        share = float(mask.mean())
        per_sample = self._per_sample(mask, epoch)
        read = share * self._ranged_samples
        return Cost(
            read * per_sample.bytes + self._sequential.bytes, read * per_sample.requests + self._sequential.requests
        )

    def _per_sample(self, mask: NDArray[np.bool_], epoch: int) -> Cost:
        """Return the cost of one sample that is read by range."""
        if self._late:
            lost = self._model.late_members * HEADER_BYTES
            part = self._model.late_share
            held = self._ranged_bytes - lost if part is None else part * self._ranged_bytes
            return Cost(held, self._model.late_members)
        if mask.all():
            return self._everything
        probe = self._probe
        chosen = np.zeros(0, np.bool_) if probe is None else mask[probe.places]
        if probe is None or not chosen.any():
            return Cost(self._ranged_bytes, 1.0)
        return self._planned(probe, chosen, epoch)

    @cached_property
    def _everything(self) -> Cost:
        """The cost of one sample where all are read: the same in every epoch, and few requests, so by more samples."""
        probe = _Probe.of(self._corpus, self._sketch, EVERYTHING_SAMPLES)
        if probe is None:
            return Cost(self._ranged_bytes, 1.0)
        return self._planned(probe, np.ones(len(probe.places), np.bool_), 0)

    def _planned(self, probe: _Probe, chosen: NDArray[np.bool_], epoch: int) -> Cost:
        fetched, requests = 0, 0
        plan = EpochPlan(Selection.of(chosen, probe.first_id), self._geometry, epoch)
        for _, ids in rounds(plan, Share()):
            for window in self._windows(probe, ids):
                for starts, stops in probe.extents(window):
                    spans = plan_spans(
                        starts,
                        stops,
                        max_waste=self._model.max_waste,
                        max_span_bytes=self._model.max_span_bytes,
                        max_gap_bytes=self._model.max_gap_bytes,
                    )
                    fetched, requests = fetched + spans.bytes_fetched, requests + len(spans)
        read = int(np.count_nonzero(chosen))
        # The probe's shards may be larger or smaller than the mean one.
        return Cost(fetched / read * self._ranged_bytes / probe.mean_bytes, requests / read)

    def _windows(self, probe: _Probe, ids: Int64s) -> Iterator[Int64s]:
        """Yield the ids that are asked for together: in the order of the plan, up to window_bytes."""
        ends = np.cumsum(probe.sample_bytes[np.searchsorted(probe.first_id, ids, side="right") - 1])
        start = 0
        while start < len(ids):
            reached = ends[start - 1] if start else 0.0
            stop = max(start + 1, int(np.searchsorted(ends, reached + self._model.window_bytes, side="right")))
            yield ids[start:stop]
            start = stop


@dataclass(frozen=True, eq=False)
class _Probe:
    """The pieces of a sketch that are planned.

    Args:
        places: int64 [total], where its samples stand in the sketch.
        first_id: int64 [pieces + 1], of the probe's own ids.
        sample_bytes: float64 [pieces], mean extent of a sample of each.
    """

    places: Int64s
    first_id: Int64s
    sample_bytes: NDArray[np.float64]

    @classmethod
    def of(cls, corpus: CorpusShape, sketch: Sketch, limit: int) -> _Probe | None:
        """Return a probe of about `limit` samples; None where no shard of the sketch can be read by range."""
        pieces = np.flatnonzero(corpus.seekable[sketch.shards])
        if not len(pieces):
            return None
        counts = sketch.samples[pieces]
        if counts.sum() > limit:
            wanted = min(len(pieces), max(WIDTH, int(limit / counts.mean())))
            pieces = pieces[np.linspace(0, len(pieces) - 1, wanted).round().astype(np.int64)]
            counts = np.minimum(sketch.samples[pieces], max(limit // wanted, 1))
        places = [np.arange(first, first + n) for first, n in zip(sketch.first_id[pieces], counts, strict=True)]
        shards = sketch.shards[pieces]
        sizes = corpus.extent_bytes[shards] / corpus.samples[shards]
        return cls(np.concatenate(places), np.concatenate([[0], np.cumsum(counts)]), sizes)

    @property
    def mean_bytes(self) -> float:
        """Mean extent of its samples."""
        return max(float(self.sample_bytes @ np.diff(self.first_id)) / int(self.first_id[-1]), 1.0)

    def extents(self, ids: Int64s) -> Iterator[tuple[Int64s, Int64s]]:
        """Yield the extents (starts, stops) of some samples, shard by shard."""
        ascending = np.sort(ids)
        bounds = np.searchsorted(ascending, self.first_id)
        for piece in np.flatnonzero(np.diff(bounds)).tolist():
            positions = ascending[bounds[piece] : bounds[piece + 1]] - self.first_id[piece]
            size = self.sample_bytes[piece]
            yield np.round(positions * size).astype(np.int64), np.round((positions + 1) * size).astype(np.int64)
