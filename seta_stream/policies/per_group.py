"""PerGroup: any policy, applied within classes or sources. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.columns import Column, Values
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.deciding import columns_of, scores_of, takes_means
from seta_stream.policies.groups import WITHIN, Grouping, GroupOf, GroupRules
from seta_stream.policies.policy import Policy, as_policy, expected_share_of, rule_of
from seta_stream.policies.rule import Rule


@dataclass(frozen=True)
class PerGroup:
    """Applies a policy within each group of samples, as if each were a corpus of its own.

    Frequent classes have low losses, and one source of data may be harder than another: a window over all losses
    then takes classes, not samples. Within groups every class keeps its own easy and hard samples.

    Args:
        policy: what decides in each group.
        by: "folder" (of the key), "shard", "fields" (which members a sample has), "recorded" (integers that
            `record(ids, losses, group=labels)` tells), or a callable (url, key) -> name.
        floor: the least share of each group that is kept, in expectation. Where the policy keeps less, every sample
            it drops gets the same chance to stay.

    Raises:
        PolicyError: `by` or `floor` cannot be one.
    """

    policy: Policy
    by: str | GroupOf
    floor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", as_policy(self.policy))
        if isinstance(self.policy, PerGroup):
            raise PolicyError("PerGroup(PerGroup(…)) divides twice: give one by=, a callable that tells both apart.")
        _ = self.group
        if isinstance(self.floor, bool) or not isinstance(self.floor, (int, float)) or not 0 <= self.floor <= 1:
            raise PolicyError(
                f"floor={self.floor!r}: give the least share of each group to keep, in [0, 1], as floor=0.1.",
                expected="[0, 1]",
                found=self.floor,
            )

    @property
    def group(self) -> Grouping:
        """How samples fall into groups."""
        return Grouping(self.by, within=getattr(self.policy, "group", None))

    @property
    def num_epochs(self) -> int | None:
        """The length of the run, where the policy knows it."""
        return getattr(self.policy, "num_epochs", None)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The policy's columns."""
        return columns_of(self.policy)

    @property
    def needs_losses(self) -> bool:
        """Whether the policy looks at losses."""
        return bool(getattr(self.policy, "needs_losses", True))

    @property
    def takes_means(self) -> bool:
        """Whether the policy does with the mean loss of a batch."""
        return takes_means(self.policy)

    def score(self, values: Values) -> NDArray[np.float32]:
        """Return the policy's scores."""
        return scores_of(self.policy, values)

    @property
    def weight(self) -> Callable[[Values, int], NDArray[np.float32]] | None:
        """The policy's own weights of samples, where it has them."""
        return getattr(self.policy, "weight", None)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return the rule as if all samples were one group: an estimate, for schedules."""
        return _raised(rule_of(self.policy, histogram, epoch), histogram, self.floor)

    def rules(self, histograms: Mapping[str, Histogram], epoch: int) -> GroupRules:
        """Return the rule of each group."""
        inner: Any = self.policy
        own: dict[str, Rule] = {}
        if not hasattr(inner, "rules"):
            for name, histogram in histograms.items():
                own[name] = _raised(rule_of(self.policy, histogram, epoch), histogram, self.floor)
        else:
            for outer in dict.fromkeys(name.partition(WITHIN)[0] for name in histograms):
                parts = {name.partition(WITHIN)[2]: name for name in histograms if name.partition(WITHIN)[0] == outer}
                found = inner.rules({part: histograms[name] for part, name in parts.items()}, epoch).rules
                for part, rule in found.items():
                    own[parts[part]] = _raised(rule, histograms[parts[part]], self.floor)
        return GroupRules(own)

    def expected_share(self, epoch: int) -> float | None:
        """Return the policy's share; None where a floor may raise it."""
        share = expected_share_of(self.policy, epoch)
        return share if share is None or share >= self.floor else None


def _raised(rule: Rule, histogram: Histogram, floor: float) -> Rule:
    """Return the rule with every keep moved towards 1, so far that the floor is kept."""
    share = rule.expected_kept(histogram) / histogram.total if floor and histogram.total else 1.0
    if share >= floor:
        return rule
    part = min((floor - share) / (1 - share), 1.0)
    before = np.append(rule.keep, rule.unseen_keep)
    keep = before + (1 - before) * part
    weight = np.append(rule.weight, rule.unseen_weight).astype(np.float64)
    # A step whose weight made up for its keep goes on doing so.
    weight = np.where(np.isclose(before * weight, 1.0), 1 / keep, weight)
    return Rule(rule.edges, keep[:-1], weight[:-1], float(keep[-1]), float(weight[-1]), rule.draw)
