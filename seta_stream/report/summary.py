"""What a state holds, as numbers.

Takes the loss table, the history and the next rule; gives plain values, for the terminal, JSON and pictures. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from seta_stream.losses.columns import LOSS
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.policies.groups import WITHIN, AnyRule
from seta_stream.policies.kmeans import Groups, kmeans
from seta_stream.policies.rule import Rule
from seta_stream.report.lineage import epoch_shares, lineage_lines, usable_lines

__all__ = ["EpochSummary", "GroupSummary", "PartSummary", "Summary", "epoch_shares", "lineage_lines", "summarise"]

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DEFAULT_GROUPS: Final = 5


@dataclass(frozen=True)
class GroupSummary:
    """One group of losses.

    Args:
        centre: its mean loss.
        lowest: where it begins; None for the first.
        samples: how many it holds.
        share: of all samples.
        next_keep: the share of it that the next epoch keeps; None where no rule is known.
    """

    centre: float
    lowest: float | None
    samples: int
    share: float
    next_keep: float | None


@dataclass(frozen=True)
class EpochSummary:
    """What one epoch kept.

    Args:
        epoch: counted from 0.
        generation: name of the losses at its end.
        share: of the samples that it kept: as counted, or else as its rule expected; None where neither is known.
        mean_loss: at its end, over all seen samples.
        seen_share: of the samples, at its end.
    """

    epoch: int
    generation: str
    share: float | None
    mean_loss: float | None
    seen_share: float


@dataclass(frozen=True)
class PartSummary:
    """One group of samples, as a class or a source, that the policy decides within.

    Args:
        name: of the group.
        samples: how many it holds.
        next_keep: the share of it that the next epoch keeps.
    """

    name: str
    samples: int
    next_keep: float


@dataclass(frozen=True)
class Summary:
    """What a state holds.

    Args:
        samples: in the corpus.
        shards: in the corpus.
        seen: samples that have a loss.
        unmatched_shards: shards without usable losses.
        generation: the newest.
        epoch: that it closes.
        quantiles: (share, loss) pairs of the seen samples.
        mean_loss: of the seen samples.
        ages: (epochs since last seen, samples), ascending; never seen apart.
        groups: of the seen losses, easy to hard.
        parts: groups of samples that the policy decides within, largest first.
        next_epoch: the epoch that the rule is for.
        next_share: of the samples that it keeps, in expectation; None where no rule is known.
        unseen_keep: share of unseen samples that it keeps.
        epochs: what each epoch so far kept.
        saved_share: of all sample visits so far.
    """

    samples: int
    shards: int
    seen: int
    unmatched_shards: int
    generation: str
    epoch: int
    quantiles: tuple[tuple[float, float], ...]
    mean_loss: float | None
    ages: tuple[tuple[int, int], ...]
    groups: tuple[GroupSummary, ...]
    parts: tuple[PartSummary, ...]
    next_epoch: int
    next_share: float | None
    unseen_keep: float | None
    epochs: tuple[EpochSummary, ...]
    saved_share: float | None

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers, for JSON."""
        return asdict(self)


def summarise(
    table: LossTable,
    history: Sequence[Mapping[str, Any]],
    *,
    generation: str,
    epoch: int,
    rule: AnyRule | None,
    num_group: int = DEFAULT_GROUPS,
    group: Callable[[Histogram], Groups] | None = None,
    unmatched_shards: int = 0,
) -> Summary:
    """Return what a state holds.

    Args:
        table: the losses of the newest generation.
        history: the lines of history.jsonl.
        generation, epoch: the newest, and the epoch that it closes.
        rule: for the next epoch.
        num_group: into how many groups the losses are put, by k-means;
        group: or how the policy groups them.
        unmatched_shards: shards without usable losses.
    """
    histogram = table.histogram()
    lineage = usable_lines(history, generation)
    newest = lineage[-1] if lineage else {}
    plain = rule if isinstance(rule, Rule) and newest.get("judged_by", LOSS) == LOSS else None
    shares = epoch_shares(lineage)
    return Summary(
        samples=table.total,
        shards=table.shards,
        seen=histogram.seen,
        unmatched_shards=unmatched_shards,
        generation=generation,
        epoch=epoch,
        quantiles=_quantiles(histogram),
        mean_loss=histogram.mean if histogram.seen else None,
        ages=_ages(table),
        groups=_groups(histogram, plain, kmeans(histogram, num_group) if group is None else group(histogram)),
        parts=_parts(newest),
        next_epoch=epoch + 1,
        next_share=_next_share(histogram, plain, newest),
        unseen_keep=rule.unseen_keep if isinstance(rule, Rule) else None,
        epochs=tuple(_epoch(line, share) for line, share in zip(lineage, shares, strict=True)),
        saved_share=_saved(shares),
    )


def _next_share(histogram: Histogram, rule: Rule | None, newest: Mapping[str, Any]) -> float | None:
    """Return what a rule on losses keeps of the samples, or else what the history says of the next epoch."""
    if rule is not None:
        return rule.expected_kept(histogram) / max(histogram.total, 1)
    share: float | None = newest.get("expected_share")
    return share


def _parts(newest: Mapping[str, Any]) -> tuple[PartSummary, ...]:
    told = (newest.get("groups") or {}).items()
    parts = [PartSummary(_readable(name), samples, kept / max(samples, 1)) for name, (samples, kept) in told]
    return tuple(sorted(parts, key=lambda part: (-part.samples, part.name)))


def _readable(name: str) -> str:
    return name.replace(WITHIN, " · ") or "not recorded"


def _saved(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return 1.0 - sum(known) / len(known) if known else None


def _ages(table: LossTable) -> tuple[tuple[int, int], ...]:
    ages, counts = np.unique(table.all_ages[~np.isnan(table.values)], return_counts=True)
    return tuple(zip(ages.tolist(), counts.tolist(), strict=True))


def _quantiles(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    levels = histogram.quantiles(QUANTILES).tolist() if histogram.seen else []
    return tuple(zip(QUANTILES, levels, strict=False))


def _groups(histogram: Histogram, rule: Rule | None, groups: Groups) -> tuple[GroupSummary, ...]:
    lowest = [None, *groups.edges.tolist()]
    kept = [None] * len(groups) if rule is None else _kept_shares(histogram, rule, groups.edges.tolist())
    total = max(histogram.total, 1)
    return tuple(
        GroupSummary(centre, low, count, count / total, keep)
        for centre, low, count, keep in zip(groups.centres.tolist(), lowest, groups.counts.tolist(), kept, strict=False)
    )


def _kept_shares(histogram: Histogram, rule: Rule, edges: list[float]) -> list[float]:
    """Return the share that a rule keeps of each interval between edges."""
    values, weights = histogram.values(), histogram.weights()
    keep = rule.keep[np.searchsorted(rule.edges, values.astype(np.float32), side="right")]
    group = np.searchsorted(np.asarray(edges, np.float32), values.astype(np.float32), side="right")
    kept, there = np.bincount(group, weights * keep, len(edges) + 1), np.bincount(group, weights, len(edges) + 1)
    shares: list[float] = (kept / np.maximum(there, 1)).tolist()
    return shares


def _epoch(line: Mapping[str, Any], share: float | None) -> EpochSummary:
    return EpochSummary(
        epoch=line["epoch"],
        generation=line["generation"],
        share=share,
        mean_loss=line.get("mean"),
        seen_share=line["seen"] / max(line["samples"], 1),
    )
