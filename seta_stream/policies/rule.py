"""The rule: the decision for one epoch, as steps over the loss axis, and its application to samples.

Takes scores and (seed, epoch, shard); gives masks and weights, the same on any machine and for any number of
processes. Pure, single-threaded numpy in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.draws import WordSource
from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram, bin_floors, codes
from seta_stream.policies.decider import Decider, step_cuts, step_table
from seta_stream.policies.runs import RunWords

DRAWS: Final = ("epoch", "fixed", "slice")

_PURPOSE: Final = "keep"
_CHUNK: Final = 1 << 16
_ADVICE: Final = "Correct the policy that made the rule."


@dataclass(frozen=True, eq=False, init=False)
class Rule:
    """Steps over the loss axis, each with a keep probability and a loss weight.

    Step i covers edges[i-1] <= score < edges[i]; the first is open below, the last above. Edges are snapped down to
    bins of the histogram, so that a histogram tells exactly how many samples each step holds.

    Args:
        edges: float32 [steps - 1], ascending and finite. Two equal ones leave an empty step between.
        keep: float64 [steps], probabilities.
        weight: float32 [steps], or one for all: what the loss of a kept sample is multiplied with.
        unseen_keep: keep probability of samples without a loss.
        unseen_weight: their loss weight.
        draw: which random number is compared: "epoch" (a new one each epoch), "fixed" (one for the whole run) or
            "slice" (turns: epoch e takes the samples whose fixed number lies in the e-th slice of length keep, so
            that 1/keep epochs take every sample once).

    Raises:
        PolicyError: what cannot be a rule.
    """

    edges: NDArray[np.float32]
    keep: NDArray[np.float64]
    weight: NDArray[np.float32]
    unseen_keep: float
    unseen_weight: float
    draw: str

    def __init__(
        self,
        edges: ArrayLike,
        keep: ArrayLike,
        weight: ArrayLike = 1.0,
        unseen_keep: float = 1.0,
        unseen_weight: float = 1.0,
        draw: str = "epoch",
    ) -> None:
        edge_array, keeps, weights = _numbers(edges, "edges"), _numbers(keep, "keep"), _numbers(weight, "weight")
        if len(weights) == 1:
            weights = np.repeat(weights, len(keeps))
        _check_lengths(edge_array, keeps, weights)
        _check_edges(edge_array)
        _check_chances(np.append(keeps, _numbers(unseen_keep, "unseen_keep")))
        _check_weights(np.append(weights, _numbers(unseen_weight, "unseen_weight")))
        if draw not in DRAWS:
            raise PolicyError(
                f"A rule cannot draw by {draw!r}: choose one of {', '.join(DRAWS)}. {_ADVICE}",
                expected=DRAWS,
                found=draw,
            )
        snapped = bin_floors(codes(edge_array)) if len(edge_array) else np.empty(0, np.float32)
        object.__setattr__(self, "edges", snapped)
        object.__setattr__(self, "keep", keeps)
        object.__setattr__(self, "weight", weights.astype(np.float32))
        object.__setattr__(self, "unseen_keep", float(unseen_keep))
        object.__setattr__(self, "unseen_weight", float(np.float32(unseen_weight)))
        object.__setattr__(self, "draw", draw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.edges.tobytes(), self.keep.tobytes(), self.unseen_keep, self.draw))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).from_plain, (self.to_plain(),)

    @property
    def steps(self) -> int:
        """How many steps there are, without the one of the unseen samples."""
        return len(self.keep)

    @property
    def is_loss_free(self) -> bool:
        """Whether all samples are treated alike, whatever their losses."""
        alike = self.unseen_keep == self.keep[0] and self.unseen_weight == self.weight[0]
        return self.steps == 1 and bool(alike)

    def to_plain(self) -> dict[str, Any]:
        """Return the rule as lists and numbers, exact through JSON and msgpack."""
        return {
            "edges": self.edges.tolist(),
            "keep": self.keep.tolist(),
            "weight": self.weight.tolist(),
            "unseen_keep": self.unseen_keep,
            "unseen_weight": self.unseen_weight,
            "draw": self.draw,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Rule:
        """Return the rule that `to_plain` told.

        Raises:
            PolicyError: a part is missing, unknown, or cannot be one of a rule.
        """
        try:
            return cls(**plain)
        except PolicyError:
            raise
        except (TypeError, ValueError) as error:  # a single number that is a list
            raise PolicyError(f"Cannot read a rule from {plain!r}: {error}.", found=plain) from error

    def apply(
        self, scores: ArrayLike, *, seed: int, epoch: int, shard: int, run_length: int = 1
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return which samples of one shard are kept, and their weights.

        Args:
            scores: float32 [samples] in shard order; NaN (or infinite) means unseen.
            seed: of the run.
            epoch: counted from 0.
            shard: the shard's number.
            run_length: so many neighbours share a random word.

        Returns:
            mask bool [samples], and weight float32 [samples], 0 where dropped.
        """
        flat = np.asarray(scores, np.float32).reshape(-1)
        decider = self.decider(epoch)
        words = self.words(seed, epoch, run_length).words(shard, len(flat)) if decider.draws else None
        steps = decider.steps(flat)
        mask = decider.mask(steps, words)
        return mask, np.where(mask, decider.weight[steps], np.float32(0))

    def masses(self, histogram: Histogram) -> NDArray[np.int64]:
        """Return how many seen samples of a histogram each step covers: int64 [steps]."""
        running = np.concatenate([[0], np.cumsum(histogram.weights())])
        return np.diff(running[np.searchsorted(histogram.bins, step_cuts(self.edges))])

    def expected_kept(self, histogram: Histogram) -> float:
        """Return how many of a histogram's samples the rule keeps, in expectation, unseen ones included."""
        return float(self.masses(histogram) @ self.keep) + histogram.unseen * self.unseen_keep

    def words(self, seed: int, epoch: int, run_length: int = 1) -> WordSource | RunWords:
        """Return the source of the random words that the rule compares in an epoch."""
        source = WordSource(seed, _PURPOSE, epoch if self.draw == "epoch" else -1)
        return source if run_length == 1 else RunWords(source, run_length)

    def decider(self, epoch: int) -> Decider:
        """Return the rule made ready for an epoch."""
        return Decider.of(
            self._step_of_bin,
            np.append(self.keep, self.unseen_keep),
            np.append(self.weight, np.float32(self.unseen_weight)),
            epoch if self.draw == "slice" else None,
        )

    @cached_property
    def _step_of_bin(self) -> NDArray[Any]:
        return step_table(self.edges)


def select(
    rule: Rule,
    values: NDArray[np.float32],
    first_id: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    run_length: int = 1,
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Return the selection of all shards at once, bit for bit what `rule.apply` gives shard by shard.

    Args:
        rule: of the epoch.
        values: float32 [total], the scores in corpus order; NaN means unseen.
        first_id: int64 [shards + 1].
        seed: of the run.
        epoch: counted from 0.
        run_length: so many neighbours in a shard share a random word.

    Returns:
        mask bool [total], and weight float32 [total], 0 where dropped; None in its place where every sample that
        can be kept has the weight 1.
    """
    decider = rule.decider(epoch)
    return sweep(decider, lambda part: decider.steps(values[part]), first_id, rule.words(seed, epoch, run_length))


def sweep(
    decider: Decider,
    steps_of: Callable[[slice], NDArray[Any]],
    first_id: NDArray[np.int64],
    source: WordSource | RunWords,
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Return mask bool [total] and weight float32 [total] (None where every kept sample has 1), in small pieces.

    Args:
        decider: of the epoch.
        steps_of: gives the steps of a slice of samples.
        first_id: int64 [shards + 1].
        source: of the words.
    """
    total = int(first_id[-1])
    mask = np.empty(total, np.bool_)
    weight = np.zeros(total, np.float32) if decider.weighted else None
    for begin, stop, words in _blocks(first_id, source if decider.draws else None):
        for start in range(begin, stop, _CHUNK):
            part = slice(start, min(start + _CHUNK, stop))
            steps = steps_of(part)
            mask[part] = decider.mask(steps, None if words is None else words[start - begin : part.stop - begin])
            if weight is not None:
                np.copyto(weight[part], decider.weight[steps], where=mask[part])
    return mask, weight


def _blocks(
    first_id: NDArray[np.int64], source: WordSource | RunWords | None
) -> Iterator[tuple[int, int, NDArray[np.uint32] | None]]:
    """Yield (first id, stop id, words) of some shards: small ones together, so that numpy has something to do."""
    shard, shards = 0, len(first_id) - 1
    while shard < shards:
        stop = max(shard + 1, int(np.searchsorted(first_id, first_id[shard] + _CHUNK, side="right")) - 1)
        words = None
        if source is not None:
            counts = np.diff(first_id[shard : stop + 1]).tolist()
            # Shards of other processes are empty here, and may be 100,000.
            parts = [source.words(one, count) for one, count in enumerate(counts, shard) if count]
            words = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint32), *parts])
        yield int(first_id[shard]), int(first_id[stop]), words
        shard = stop


def _numbers(given: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        return np.atleast_1d(np.asarray(given, np.float64)).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise PolicyError(f"A rule's {what} must be numbers, and {given!r} is not. {_ADVICE}", found=given) from error


def _check_lengths(edges: NDArray[Any], keep: NDArray[Any], weight: NDArray[Any]) -> None:
    if len(keep) != len(edges) + 1 or len(weight) != len(keep):
        raise PolicyError(
            f"A rule of {len(edges)} edges has {len(edges) + 1} steps, and {len(keep)} keep probabilities and "
            f"{len(weight)} weights were given: give one of each per step. {_ADVICE}",
            expected=len(edges) + 1,
            found=(len(keep), len(weight)),
        )


def _check_edges(edges: NDArray[np.float64]) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(edges.astype(np.float32))
    if not finite.all() or (np.diff(edges) < 0).any():
        raise PolicyError(
            f"A rule's edges must be finite and ascending, and {edges.tolist()} are not. {_ADVICE}",
            found=edges.tolist(),
        )


def _check_chances(keep: NDArray[np.float64]) -> None:
    if not ((keep >= 0) & (keep <= 1)).all():  # false for NaN too
        raise PolicyError(
            f"A rule's keep probabilities must lie in 0 … 1, and {keep.tolist()} (unseen last) do not. {_ADVICE}",
            found=keep.tolist(),
        )


def _check_weights(weight: NDArray[np.float64]) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(weight.astype(np.float32))
    if not (finite & (weight >= 0)).all():
        raise PolicyError(
            f"A rule's weights must be finite and at least 0, and {weight.tolist()} (unseen last) are not. {_ADVICE}",
            found=weight.tolist(),
        )
