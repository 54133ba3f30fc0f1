"""Decisions within groups of samples: classes, sources, or what a policy tells apart by a column.

Takes scores and each sample's group; gives a histogram and a rule per group, and masks. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import BINS, FIRST_FINITE, STOP_FINITE, Histogram, codes
from seta_stream.policies.decider import Decider
from seta_stream.policies.rule import Rule, sweep

BY: Final = ("folder", "shard", "fields", "recorded")
RECORDED: Final = "group"
"""The column, and the argument of record(), that `by="recorded"` reads."""
NO_GROUP: Final = 65535
"""Stands in that column for samples whose group was never recorded."""
WITHIN: Final = "\x1f"
"""Between the names of a group and of the group inside it."""

_BIN_BITS: Final = BINS.bit_length() - 1
_CHUNK: Final = 1 << 20

GroupOf = Callable[[str, str], str | int]


@dataclass(frozen=True)
class Grouping:
    """How samples fall into groups: by the index, or by a column of small integers.

    Args:
        by: "folder" (of the key), "shard", "fields" (which members a sample has), "recorded" (what
            `record(ids, losses, group=labels)` told), or a callable (url, key) -> name; None: by `column`.
        column: name of the column.
        within: how each group is divided further.

    Raises:
        PolicyError: none of these, or both.
    """

    by: str | GroupOf | None = None
    column: str | None = None
    within: Grouping | None = None

    def __post_init__(self) -> None:
        if self.by == "recorded" and self.column is None:
            object.__setattr__(self, "by", None)
            object.__setattr__(self, "column", RECORDED)
        if (self.by is None) == (self.column is None) or not (callable(self.by) or self.by in (None, *BY)):
            raise PolicyError(
                f"by={self.by!r} does not say how samples fall into groups: give one of {', '.join(map(repr, BY))}, or "
                "a callable (url, key) -> name.",
                expected=BY,
                found=self.by,
            )


@dataclass(frozen=True, eq=False)
class Labels:
    """The group of every sample.

    Args:
        names: of the groups, distinct.
        codes: unsigned [total], the place in `names`.
    """

    names: tuple[str, ...]
    codes: NDArray[Any]

    @classmethod
    def of_column(cls, column: NDArray[Any]) -> Labels:
        """Return the groups that a column of small integers tells apart; samples with NO_GROUP are one, named ""."""
        if column.dtype.itemsize > 2:
            present, places = np.unique(column, return_inverse=True)
        else:  # a table of all values: no sorting of millions
            present = np.flatnonzero(np.bincount(column))
            table = np.zeros(int(present[-1]) + 1 if len(present) else 1, np.min_scalar_type(max(len(present) - 1, 0)))
            table[present] = np.arange(len(present))
            places = table[column]
        wide = np.iinfo(column.dtype).max == NO_GROUP
        names = tuple("" if wide and value == NO_GROUP else str(value) for value in present.tolist())
        return cls(names, places.astype(np.min_scalar_type(max(len(names) - 1, 0)), copy=False))

    def within(self, other: Labels) -> Labels:
        """Return each of these groups divided by others."""
        joint = self.codes.astype(np.int64) * len(other.names) + other.codes
        present, places = np.unique(joint, return_inverse=True)
        names = tuple(
            self.names[value // len(other.names)] + WITHIN + other.names[value % len(other.names)]
            for value in present.tolist()
        )
        return Labels(names, places.astype(np.min_scalar_type(max(len(names) - 1, 0))))


class GroupHistograms(Mapping[str, Histogram]):
    """A histogram per group, kept sparse: a thousand groups take no more than their samples' bins.

    Two of them add up, as histograms do: groups by name.

    Args:
        names: of the groups.
        occupied: int64 [n], ascending: group · BINS + bin, of the bins that hold something.
        counts: int64 [n].
        unseen: int64 [groups].
        ranges: float32 [groups, 2]: the lowest and the highest score, NaN where none was seen.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        occupied: NDArray[np.int64],
        counts: NDArray[np.int64],
        unseen: NDArray[np.int64],
        ranges: NDArray[np.float32],
    ) -> None:
        self.names = names
        self._places = {name: place for place, name in enumerate(names)}
        self.occupied, self.counts, self.unseen, self.ranges = occupied, counts, unseen, ranges

    @classmethod
    def of(cls, scores: NDArray[np.float32], labels: Labels) -> GroupHistograms:
        """Return the histograms of scores [total], NaN being unseen; groups by name, as those of several processes."""
        groups = len(labels.names)
        order = sorted(range(groups), key=labels.names.__getitem__)
        place = np.empty(groups, labels.codes.dtype)
        place[order] = np.arange(groups)
        parts = []
        unseen = np.zeros(groups, np.int64)
        ranges = np.full((groups, 2), np.nan, np.float32)
        for start in range(0, len(scores), _CHUNK):
            part, group = scores[start : start + _CHUNK], place[labels.codes[start : start + _CHUNK]]
            bins = codes(part)
            seen = (bins >= FIRST_FINITE) & (bins < STOP_FINITE)
            unseen += np.bincount(group[~seen], minlength=groups)
            np.fmin.at(ranges[:, 0], group[seen], part[seen])
            np.fmax.at(ranges[:, 1], group[seen], part[seen])
            parts.append(np.unique((group[seen].astype(np.int64) << _BIN_BITS) + bins[seen], return_counts=True))
        return cls(tuple(labels.names[each] for each in order), *_merged(parts), unseen, ranges)

    def __add__(self, other: GroupHistograms) -> GroupHistograms:
        names = tuple(sorted({*self.names, *other.names}))
        unseen = np.zeros(len(names), np.int64)
        ranges = np.full((len(names), 2), np.nan, np.float32)
        parts = []
        for one in (self, other):
            order = {name: place for place, name in enumerate(names)}
            places = np.array([order[name] for name in one.names], np.int64)
            unseen[places] += one.unseen
            ranges[places, 0] = np.fmin(ranges[places, 0], one.ranges[:, 0])
            ranges[places, 1] = np.fmax(ranges[places, 1], one.ranges[:, 1])
            parts.append(((places[one.occupied >> _BIN_BITS] << _BIN_BITS) + (one.occupied & (BINS - 1)), one.counts))
        return GroupHistograms(names, *_merged(parts), unseen, ranges)

    def to_bytes(self) -> bytes:
        """Return the histograms as bytes; `from_bytes` gives them back."""
        columns = (self.occupied, self.counts, self.unseen, self.ranges)
        wire = [column.astype(column.dtype.newbyteorder("<")).tobytes() for column in columns]
        return bytes(msgpack.packb([list(self.names), *wire]))

    @classmethod
    def from_bytes(cls, data: bytes) -> GroupHistograms:
        """Return what `to_bytes` told."""
        names, *wire, ranges = msgpack.unpackb(data, max_bin_len=len(data))
        occupied, counts, unseen = (np.frombuffer(column, "<i8").astype(np.int64) for column in wire)
        return cls(
            tuple(names), occupied, counts, unseen, np.frombuffer(ranges, "<f4").astype(np.float32).reshape(-1, 2)
        )

    def __getitem__(self, name: str) -> Histogram:
        group = self._places[name]
        begin, stop = np.searchsorted(self.occupied, [group << _BIN_BITS, (group + 1) << _BIN_BITS])
        bins = self.occupied[begin:stop] & (BINS - 1)
        return Histogram.of_bins(bins, self.counts[begin:stop], int(self.unseen[group]), *self.ranges[group].tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _merged(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ascending keys and the sums of their counts."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    keys, places = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, np.concatenate([counts for _, counts in parts]))
    return keys, counts


@dataclass(frozen=True, eq=False)
class GroupRules:
    """A rule per group; samples of a group without one are kept.

    Args:
        rules: by the group's name.

    Raises:
        PolicyError: there is none, or they draw in different ways.
    """

    rules: Mapping[str, Rule]

    def __post_init__(self) -> None:
        if len({rule.draw for rule in self.rules.values()}) != 1:
            raise PolicyError(
                f"The rules of {len(self.rules)} groups draw by {sorted({rule.draw for rule in self.rules.values()})}: "
                "give at least one group, and all of them the same draw.",
                found=sorted(self.rules),
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupRules) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash(frozenset(self.rules.items()))

    @property
    def draw(self) -> str:
        """Which random number all of them compare."""
        return next(iter(self.rules.values())).draw

    @property
    def is_loss_free(self) -> bool:
        """Whether losses do not matter: never said of groups, which may be recorded."""
        return False

    def to_plain(self) -> dict[str, Any]:
        """Return the rules as dicts, lists and numbers."""
        return {"groups": {name: rule.to_plain() for name, rule in self.rules.items()}}

    def expected_kept(self, histograms: Mapping[str, Histogram]) -> float:
        """Return how many samples are kept, in expectation."""
        return sum(
            self.rules[name].expected_kept(histograms[name]) if name in self.rules else histograms[name].total
            for name in histograms
        )


AnyRule = Rule | GroupRules


def rule_from_plain(plain: Mapping[str, Any]) -> AnyRule:
    """Return what `to_plain` of a rule, or of the rules of groups, told.

    Raises:
        PolicyError: it cannot be one.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("groups", {}), Mapping):
        raise PolicyError(f"Cannot read a rule from {plain!r}: it is no map.", found=plain)
    if "groups" not in plain:
        return Rule.from_plain(plain)
    return GroupRules({name: Rule.from_plain(rule) for name, rule in plain["groups"].items()})


def select_groups(
    rules: GroupRules,
    scores: NDArray[np.float32],
    labels: Labels,
    first_id: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    run_length: int = 1,
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Return the selection of all shards at once: for each group what `select` gives with its rule.

    Args:
        rules: of the epoch.
        scores: float32 [total]; NaN means unseen.
        labels: the group of each.
        first_id: int64 [shards + 1].
        seed, epoch: of the draws.
        run_length: so many neighbours in a shard share a random word, of whatever groups they are.

    Returns:
        mask bool [total] and weight float32 [total], or None where every kept sample has the weight 1.
    """
    if not labels.names:  # a process may own no samples
        return np.empty(0, np.bool_), None
    everything = Rule([], [1.0], draw=rules.draw)
    each = [rules.rules.get(name, everything) for name in labels.names]
    # All groups' steps in one row; after each group's own steps comes its unseen one.
    chances = np.concatenate([np.append(rule.keep, rule.unseen_keep) for rule in each])
    weights = np.concatenate([np.append(rule.weight, np.float32(rule.unseen_weight)) for rule in each])
    unseen_step = np.cumsum([rule.steps + 1 for rule in each]) - 1
    cuts = np.concatenate([(group << _BIN_BITS) + _codes(rule.edges) for group, rule in enumerate(each)])
    decider = Decider.of(
        np.empty(0, np.uint8), chances, weights.astype(np.float32), epoch if rules.draw == "slice" else None
    )

    def steps(part: slice) -> NDArray[np.int64]:
        bins, group = codes(scores[part]), labels.codes[part].astype(np.int64)
        seen = (bins >= FIRST_FINITE) & (bins < STOP_FINITE)
        below = np.searchsorted(cuts, (group << _BIN_BITS) + bins, side="right") + 2 * group
        return np.where(seen, below, unseen_step[group])

    return sweep(decider, steps, first_id, each[0].words(seed, epoch, run_length))


def _codes(edges: NDArray[np.float32]) -> NDArray[np.int64]:
    return codes(edges).astype(np.int64) if len(edges) else np.empty(0, np.int64)
