"""The losses by source: the folders and names that shards come from, or groups of samples.

Takes losses, ages and URLs or group codes; gives a row per source. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.policies.groups import AnyRule
from seta_stream.policies.rule import Rule

MOST: Final = 200
"""Sources that are told one by one; the rest is one row."""

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
    group = place[codes]
    told = [names[at] for at in largest.tolist()]
    if len(names) > MOST:
        told.append(f"{len(names) - MOST:,} smaller ones")
    seen = ~np.isnan(losses)
    total = np.bincount(group, minlength=len(told))
    there = np.bincount(group[seen], minlength=len(told))
    sums = np.bincount(group[seen], losses[seen], len(told))
    last = np.bincount(group, seen & (ages == 0), len(told))
    kept = None if not isinstance(rule, Rule) else np.bincount(group, _keeps(rule, losses), len(told))
    medians = _medians(group[seen], losses[seen], there)
    return tuple(
        SourceRow(
            name=name,
            samples=int(total[at]),
            seen=int(there[at]),
            mean=float(sums[at] / there[at]) if there[at] else None,
            median=medians[at],
            read_last=float(last[at] / max(total[at], 1)),
            next_keep=None if kept is None else float(kept[at] / max(total[at], 1)),
        )
        for at, name in enumerate(told)
    )


def _keeps(rule: Rule, losses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability that each sample is kept: float64 [samples]."""
    keep: NDArray[np.float64] = rule.keep[np.searchsorted(rule.edges, losses, side="right").clip(0, rule.steps - 1)]
    return np.where(np.isnan(losses), rule.unseen_keep, keep)


def _medians(group: NDArray[Any], losses: NDArray[np.float32], counts: NDArray[Any]) -> list[float | None]:
    # sorted by (group, loss): a group's median stands in the middle of its stretch
    order = np.lexsort((losses, group))
    ends = np.cumsum(counts)
    middles = (ends - counts + ends - 1) / 2
    found: list[float | None] = []
    for count, middle in zip(counts.tolist(), middles.tolist(), strict=True):
        low, high = int(np.floor(middle)), int(np.ceil(middle))
        found.append(float(losses[order[[low, high]]].astype(np.float64).mean()) if count else None)
    return found
