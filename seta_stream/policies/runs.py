"""Runs: neighbouring samples of one shard that are decided together.

Takes scores, the shards' places and words; gives what all samples of a run share: a random word, or a mean score. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.draws import WordSource
from seta_stream.losses.histogram import round_losses

Unit = Literal["sample", "run"]

_MOST: Final = 1 << 60
_CHUNK: Final = 1 << 16
_SPARE: Final = 8
"""Places per sample up to which pairs that do not occur are counted too: sorting takes ten times as long."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How the samples of each shard fall into runs: positions r · length … r · length + length − 1, the last cut short.

    Args:
        unit: "sample": each sample is judged by its own score, and all of a run compare one random word with their
            keep probabilities. "run": each is judged by the mean score of its run besides.
        run_bytes: what a run was asked to hold of its shard; 0: nothing was asked for.
        length: samples per run.
    """

    unit: Unit = "sample"
    run_bytes: int = 0
    length: int = 1

    @classmethod
    def of(cls, unit: Unit, run_bytes: int, mean_bytes: float) -> Runs:
        """Return runs of about `run_bytes`, of samples of this mean size; of one sample each where that is 0."""
        length = max(1, round(run_bytes / max(mean_bytes, 1.0))) if run_bytes else 1
        return cls(unit, run_bytes, length)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Runs:
        """Return what `to_plain` told.

        Raises:
            TypeError, ValueError: it cannot be runs.
        """
        runs = cls(**plain)
        if runs.unit not in {"sample", "run"} or type(runs.length) is not int or type(runs.run_bytes) is not int:
            raise ValueError(f"its runs are {plain!r}")
        if not 1 <= runs.length < _MOST or not 0 <= runs.run_bytes < _MOST:
            raise ValueError(f"its runs are {plain!r}")
        return runs

    def to_plain(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"unit": self.unit, "run_bytes": self.run_bytes, "length": self.length}

    @property
    def judged_together(self) -> int:
        """How many samples' mean score judges each of them; 1: its own score."""
        return self.length if self.unit == "run" else 1

    def is_asked_as(self, other: Runs) -> bool:
        """Say whether both follow from the same settings, if perhaps for samples of another mean size."""
        return (self.unit, self.run_bytes) == (other.unit, other.run_bytes)


EACH: Final = Runs()
"""Every sample by itself."""


class RunWords:
    """Random words that the samples of each run share.

    Args:
        source: of one word per run.
        length: samples per run.
    """

    def __init__(self, source: WordSource, length: int) -> None:
        self._source = source
        self._length = length

    def words(self, shard: int, count: int) -> NDArray[np.uint32]:
        """Return the words of the first `count` samples of `shard`: uint32 [count]."""
        length = max(min(self._length, count), 1)  # a run may be longer than any shard
        return np.repeat(self._source.words(shard, -(-count // length)), length)[:count]


def run_scores(
    scores: NDArray[np.float32], first_id: NDArray[np.int64], length: int, groups: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Return, for each sample, the mean score of its run: float32 [total], rounded as losses are.

    The mean is over the seen samples of the run; the unseen ones of it are judged by that mean too, so that a run is
    in or out as a whole. NaN where the run has no seen sample. Where the samples of a run are of several groups, those
    of each group are a run of their own: no group is judged by another's losses.

    Args:
        scores: float32 [total]; what is not finite is unseen.
        first_id: int64 [shards + 1]; runs end with their shard.
        length: samples per run.
        groups: unsigned [total], the group of each sample; None where there are none.
    """
    found = np.empty(len(scores), np.float32)
    for part, sizes in _pieces(first_id, length):
        own, seen = scores[part], np.isfinite(scores[part])
        # axes: samples of the piece → the run, or the group's part of the run, that each is in
        place, places = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
        if groups is not None:
            place, places = _within_groups(place, groups[part])
        # bincount adds one sample after the other, so that no machine rounds otherwise.
        sums = np.bincount(place, np.where(seen, own, np.float32(0)), places)
        counts = np.bincount(place, seen, places)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a run that nobody saw
            means = round_losses((sums / counts).astype(np.float32))
        found[part] = means[place]
    return found


def _within_groups(place: NDArray[np.int64], groups: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Return a place for each (run, group) pair, and how many places there are."""
    width = int(groups.max()) + 1 if len(groups) else 1
    pairs = place * width + groups
    if (pairs[-1] if len(pairs) else 0) < _SPARE * len(pairs):
        return pairs, (int(place[-1]) + 1) * width
    occurring, inverse = np.unique(pairs, return_inverse=True)  # many groups: only those that occur
    return inverse, len(occurring)


def _pieces(first_id: NDArray[np.int64], length: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield (samples, sizes of the runs that they make up): small shards together, large ones in parts."""
    most = max(_CHUNK // length, 1) * length
    shard, shards = 0, len(first_id) - 1
    while shard < shards:
        stop = max(shard + 1, int(np.searchsorted(first_id, first_id[shard] + most, side="right")) - 1)
        begin, end = int(first_id[shard]), int(first_id[stop])
        if stop > shard + 1 or end - begin <= most:
            yield slice(begin, end), _run_sizes(np.diff(first_id[shard : stop + 1]), length)
        else:
            for start in range(begin, end, most):
                part = slice(start, min(start + most, end))
                yield part, _run_sizes(np.array([part.stop - start]), length)
        shard = stop


def _run_sizes(counts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return how many samples each run of some shards holds: all `length`, but the last of each shard."""
    runs = -(-counts // length)
    sizes = np.full(int(runs.sum()), length, np.int64)
    filled = runs > 0
    sizes[np.cumsum(runs)[filled] - 1] = (counts - (runs - 1) * length)[filled]
    return sizes
