"""The losses by source: the folders and names that shards come from, or groups of samples.

Takes losses, ages and URLs or group codes; gives a row per source. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.policies.groups import AnyRule
from seta_stream.policies.rule import Rule

MOST: Final = 200
"""Sources that are told one by one; the rest is one row."""

_CHUNK: Final = 1 << 20
"""Samples looked at at once."""
_NUMBER: Final = re.compile(r"[-_.]?\d+$")


@dataclass(frozen=True)
class SourceRow:
    """One source.

    Args:
        name: of it.
        samples: how many it holds.
        seen: of them, how many have a loss.
        mean, median: of these losses; None where there are none.
        read_last: share of its samples whose loss is of the newest epoch.
        next_keep: share of them that the next rule keeps, in expectation; None where the losses do not tell.
    """

    name: str
    samples: int
    seen: int
    mean: float | None
    median: float | None
    read_last: float
    next_keep: float | None


def source_names(urls: Sequence[str]) -> list[str]:
    """Return the source of each shard: its folder and its name without number and suffixes, less what all share.

    `web/train-000007.tar` and `web/train-000008.tar` are of one source, `web/train`.
    """
    bare = []
    for url in urls:
        folder, slash, name = url.partition("?")[0].rpartition("/")
        bare.append(f"{folder}{slash}{_NUMBER.sub('', name.partition('.')[0])}")
    paths = [name.split("/") for name in bare]
    if len({*bare}) == 1:
        return [path[-1] or "." for path in paths]
    start = 0
    while len({tuple(path[: start + 1]) for path in paths}) == 1:
        start += 1
    return ["/".join(path[start:]) or "." for path in paths]


def by_source(
    names: Sequence[str],
    codes: NDArray[Any],
    losses: NDArray[np.float32],
    ages: NDArray[np.uint8],
    rule: AnyRule | None,
) -> tuple[SourceRow, ...]:
    """Return a row per source, the largest first.

    Args:
        names: of the sources.
        codes: integers [samples], each sample's source.
        losses: float32 [samples], NaN where never seen.
        ages: uint8 [samples].
        rule: for the next epoch, on losses; None where there is none such.
    """
    counts = np.bincount(codes, minlength=len(names))
    largest = np.argsort(-counts, kind="stable")[:MOST]
    place = np.full(len(names), len(largest))
    place[largest] = np.arange(len(largest))
    told = [names[at] for at in largest.tolist()]
    if len(names) > MOST:
        told.append(f"{len(names) - MOST:,} smaller ones")
    # figures [samples, seen, sum of losses, read last, kept; rows]
    figures = np.zeros((5, len(told)))
    for part in _parts(len(losses)):
        group, own = place[codes[part]], losses[part]
        seen = ~np.isnan(own)
        weights = (None, seen, np.where(seen, own, 0), seen & (ages[part] == 0))
        for row, weight in enumerate(weights):
            figures[row] += np.bincount(group, weight, len(told))
        if isinstance(rule, Rule):
            figures[4] += np.bincount(group, _keeps(rule, own), len(told))
    medians = _medians(place, codes, losses, figures[1].astype(np.int64))
    return tuple(
        SourceRow(
            name=name,
            samples=int(samples),
            seen=int(there),
            mean=float(total / there) if there else None,
            median=medians[at],
            read_last=float(last / max(samples, 1)),
            next_keep=float(kept / max(samples, 1)) if isinstance(rule, Rule) else None,
        )
        for at, (name, samples, there, total, last, kept) in enumerate(zip(told, *figures, strict=True))
    )


def _parts(count: int) -> Iterator[slice]:
    for begin in range(0, count, _CHUNK):
        yield slice(begin, begin + _CHUNK)


def _keeps(rule: Rule, losses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability that each sample is kept: float64 [samples]."""
    keep: NDArray[np.float64] = rule.keep[np.searchsorted(rule.edges, losses, side="right").clip(0, rule.steps - 1)]
    return np.where(np.isnan(losses), rule.unseen_keep, keep)


def _medians(
    place: NDArray[Any], codes: NDArray[Any], losses: NDArray[np.float32], counts: NDArray[np.int64]
) -> list[float | None]:
    """Return the median of each row's losses; besides these, in the order of their rows, little memory is taken.

    Args:
        place: the row of each code.
        codes: of the samples.
        losses: of the samples.
        counts: of each row's losses that are known.
    """
    ends = np.cumsum(counts)
    gathered, free = np.empty(int(ends[-1]) if len(ends) else 0, np.float32), ends - counts
    for part in _parts(len(losses)):
        seen = ~np.isnan(losses[part])
        group, own = place[codes[part]][seen], losses[part][seen]
        # order [seen of this part], by row; begins [rows]: where each row begins in it
        order = np.argsort(group, kind="stable")
        there = np.bincount(group, minlength=len(counts))
        begins = np.cumsum(there) - there
        gathered[np.arange(len(own)) + (free - begins)[group[order]]] = own[order]
        free += there
    rows = np.split(gathered, ends[:-1])
    return [float(np.median(row.astype(np.float64))) if len(row) else None for row in rows[: len(counts)]]
