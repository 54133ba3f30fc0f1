"""What the processes of a run tell each other once an epoch: histograms, the rule, masks, weights.

Takes each process's own part and the collective; gives the whole, the same on every process. Nothing else happens here.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from seta_stream.collective import Collective, from_each, from_first
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.owners import Owners
from seta_stream.plan.epoch import EpochPlan, Selection
from seta_stream.plan.weights import weights_received, weights_to_send
from seta_stream.policies.deciding import Judgement
from seta_stream.policies.groups import AnyRule, GroupHistograms, rule_from_plain


class Ruled(NamedTuple):
    """A rule, and how many samples of each group there are and are kept in expectation; None for all at once."""

    rule: AnyRule
    groups: dict[str, tuple[int, float]] | None


def judged(collective: Collective, judge: Callable[[], Judgement]) -> tuple[Judgement, Histogram]:
    """Return how this process's samples are judged, and the histogram of everybody's scores.

    Raises:
        SetaStreamError: judging failed on some process.
    """
    own: list[Judgement] = []

    def ranges() -> bytes:
        own.append(judge())
        histogram = own[0].histogram
        return np.array([histogram.minimum, histogram.maximum], "<f4").tobytes()

    told = from_each(collective, ranges)
    return own[0], summed(collective, own[0].histogram, told)


def summed(collective: Collective, histogram: Histogram, ranges: list[bytes] | None = None) -> Histogram:
    """Return the sum of all processes' histograms.

    Args:
        collective: of the run.
        histogram: of this process.
        ranges: lowest and highest score of each process, float32 [2], where they are known.
    """
    if collective.world == 1:
        return histogram
    if ranges is None:
        ranges = collective.gather(np.array([histogram.minimum, histogram.maximum], "<f4").tobytes())
    # axes: process × (lowest, highest); NaN where it has seen nothing
    limits = np.frombuffer(b"".join(ranges), "<f4").reshape(-1, 2)
    counts = collective.sum(np.append(histogram.counts, histogram.unseen))
    lowest, highest = np.fmin.reduce(limits[:, 0]), np.fmax.reduce(limits[:, 1])
    return Histogram(counts[:-1], int(counts[-1]), float(lowest), float(highest))


def summed_groups(collective: Collective, histograms: GroupHistograms) -> GroupHistograms:
    """Return the sums of all processes' histograms, by the names of the groups."""
    if collective.world == 1:
        return histograms
    parts = collective.gather(histograms.to_bytes())
    return functools.reduce(operator.add, map(GroupHistograms.from_bytes, parts))


def ruled(collective: Collective, make: Callable[[], Ruled]) -> Ruled:
    """Return the rule that process 0 makes, on every process: k-means is run once.

    Raises:
        PolicyError: it cannot be made.
    """
    if collective.world == 1:
        return make()

    def told() -> bytes:
        made = make()
        return bytes(msgpack.packb([made.rule.to_plain(), made.groups]))

    rule, groups = msgpack.unpackb(from_first(collective, told))
    kept = None if groups is None else {name: (there, share) for name, (there, share) in groups.items()}
    return Ruled(rule_from_plain(rule), kept)


def joined(
    collective: Collective,
    owners: Owners,
    choose: Callable[[], tuple[NDArray[np.bool_], NDArray[np.float32] | None]],
) -> tuple[Selection, NDArray[np.float32] | None]:
    """Return the selection of all samples, and the weights of this process's own.

    Args:
        collective: of the run.
        owners: of the shards.
        choose: gives the mask of this process's samples, and their weights; None where all are 1.

    Returns:
        the selection, and float32 [own samples], 0 where dropped; None where every process's weights are 1.

    Raises:
        SetaStreamError: choosing failed on some process.
    """
    own: list[tuple[NDArray[np.bool_], NDArray[np.float32] | None]] = []

    def told() -> bytes:
        own.append(choose())
        mask, weights = own[0]
        return bytes([weights is not None]) + np.packbits(mask).tobytes()

    parts = from_each(collective, told)
    mask, weights = own[0]
    if collective.world == 1:
        return Selection.of(mask, owners.first_id), weights
    selection = Selection.joined([memoryview(part)[1:] for part in parts], owners.shards, owners.first_id)
    if weights is None and any(part[0] for part in parts):
        weights = mask.astype(np.float32)
    return selection, weights


def line_weights(
    collective: Collective, owners: Owners, plan: EpochPlan, own: NDArray[np.float32], rank: int, world: int
) -> NDArray[np.float32]:
    """Return the weights of the part of the line that a rank reads: float32 [stop − begin] of `plan.part`.

    Args:
        collective: of the run; of one process where others read without exchanging anything.
        owners: of the shards.
        plan: of the epoch.
        own: float32 [own samples], as `joined` gave them.
        rank, world: who reads.
    """
    mine = owners.shards_of(collective.rank)
    sent = weights_to_send(plan, own, (mine.start, mine.stop), world)
    # Where nothing is exchanged, this process owns everything and keeps its own part.
    parts = collective.route(sent) if collective.world == world else [sent[rank]]
    return weights_received(plan, rank, world, owners.shards, parts)
