"""What a policy asks for and decides, with the parts that it leaves out filled in.

Takes a policy and what is remembered of the samples; gives scores, rules and selections. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.columns import LOSS, Column, Values, latest
from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.policies.groups import (
    NO_GROUP,
    RECORDED,
    AnyRule,
    GroupHistograms,
    Grouping,
    GroupRules,
    Labels,
    select_groups,
)
from seta_stream.policies.policy import Policy, rule_of
from seta_stream.policies.rule import Rule, select
from seta_stream.policies.runs import EACH, Runs, run_scores
from seta_stream.policies.smoothing import smoothed

_CHUNK: Final = 1 << 20


def columns_of(policy: Policy) -> tuple[Column, ...]:
    """Return what the policy wants remembered beside the loss.

    Raises:
        PolicyError: two columns of one name.
    """
    smooth = getattr(policy, "smooth", None)
    columns = (*getattr(policy, "columns", ()), *(() if smooth is None else (smooth.column,)))
    if _asks_for_groups(grouping_of(policy)) and RECORDED not in {column.name for column in columns}:
        columns = (*columns, Column(RECORDED, "uint16", NO_GROUP, latest, source=RECORDED))
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise PolicyError(f"{policy!r} has columns of one name among {names}: rename one.", found=names)
    return columns


def takes_means(policy: Policy) -> bool:
    """Say whether one loss for a whole batch may be recorded."""
    return bool(getattr(policy, "takes_means", getattr(policy, "smooth", None) is not None))


def scores_of(policy: Policy, values: Values) -> NDArray[np.float32]:
    """Return the number by which each sample is judged: float32 [n], NaN where unseen.

    Args:
        policy: its `score`, else the loss; smoothed where it says so.
        values: from `LossTable.remembered`.
    """
    smooth, score = getattr(policy, "smooth", None), getattr(policy, "score", None)
    losses: NDArray[np.float32] = values[LOSS]
    if smooth is None and score is None:
        return losses
    scores = np.empty(len(losses), np.float32)
    for part in _parts(len(losses)):
        some = {name: column[part] for name, column in values.items()}
        judged = some if smooth is None else smoothed(some)
        found = judged[LOSS] if score is None else np.asarray(score(judged), np.float32)
        if found.shape != some[LOSS].shape:
            raise PolicyError(
                f"{type(policy).__name__}.score gave {found.shape} scores for {some[LOSS].shape} samples: return one "
                "float32 per sample.",
                expected=some[LOSS].shape,
                found=found.shape,
            )
        # Rounded as losses are, so that a histogram holds the very numbers that are compared.
        scores[part] = np.where(np.isnan(some[LOSS]), np.float32(np.nan), round_losses(found))
    return scores


def weights_of(policy: Policy, values: Values, epoch: int) -> NDArray[np.float32] | None:
    """Return each sample's own loss weight, to multiply the rule's with: float32 [n]; None where there is none."""
    weight = getattr(policy, "weight", None)
    if weight is None:
        return None
    weights = np.empty(len(values[LOSS]), np.float32)
    for part in _parts(len(weights)):
        own = weight({name: column[part] for name, column in values.items()}, epoch)
        if own is None:
            return None
        found = np.asarray(own, np.float32)
        if found.shape != weights[part].shape or not (np.isfinite(found) & (found >= 0)).all():
            raise PolicyError(
                f"{type(policy).__name__}.weight must give one finite weight of at least 0 per sample for epoch "
                f"{epoch}, and gave {found.shape} for {weights[part].shape} samples.",
                expected=weights[part].shape,
                found=found.shape,
            )
        weights[part] = found
    return weights


def _parts(count: int) -> list[slice]:
    """Return slices of all samples, so that a policy's own arithmetic needs little memory at a time."""
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]


def _asks_for_groups(grouping: Grouping | None) -> bool:
    return grouping is not None and (grouping.column == RECORDED or _asks_for_groups(grouping.within))


def grouping_of(policy: Policy) -> Grouping | None:
    """Return how samples fall into the groups that the policy decides within; None where it decides for all at once."""
    return getattr(policy, "group", None)


def labels_of(grouping: Grouping, values: Values, indexed: Labels | None) -> Labels:
    """Return the group of every sample.

    Args:
        grouping: of the policy.
        values: from `LossTable.remembered`.
        indexed: the groups that the index tells, where the grouping asks for them.
    """
    if grouping.column is not None:
        labels = Labels.of_column(values[grouping.column])
    else:
        assert indexed is not None  # noqa: S101  (who asks by the index brings its labels)
        labels = indexed
    return labels if grouping.within is None else labels.within(labels_of(grouping.within, values, None))


def judged_scores(
    policy: Policy, values: Values, runs: Runs, first_id: NDArray[np.int64], labels: Labels | None
) -> NDArray[np.float32]:
    """Return the number that each sample is judged by in the end: its own score, or that of its run: float32 [total].

    Args:
        policy: as for `scores_of`.
        values: likewise, of all samples.
        runs: how they are decided.
        first_id: int64 [shards + 1].
        labels: the group of each; None where the policy decides for all at once.
    """
    scores = scores_of(policy, values)
    if runs.judged_together == 1:
        return scores
    return run_scores(scores, first_id, runs.judged_together, None if labels is None else labels.codes)


def all_labels(policy: Policy, values: Values, indexed: Labels | None) -> Labels | None:
    """Return the group of every sample; None where the policy decides for all at once."""
    grouping = grouping_of(policy)
    return None if grouping is None else labels_of(grouping, values, indexed)


@dataclass(frozen=True, eq=False)
class Judgement:
    """How some samples are judged: all of a corpus, or those that one process owns.

    Args:
        scores: float32 [samples], of the samples or of the runs that they are in.
        labels: the group of each sample; None where the policy decides for all at once.
        histogram: of the scores.
        is_by_loss: whether the scores are the losses of the samples themselves.
    """

    scores: NDArray[np.float32]
    labels: Labels | None
    histogram: Histogram
    is_by_loss: bool

    def groups(self) -> GroupHistograms | None:
        """Return a histogram per group; None where the policy decides for all at once."""
        return None if self.labels is None else GroupHistograms.of(self.scores, self.labels)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a policy makes of what is remembered.

    Args:
        judgement: of the samples that this process owns.
        histogram: of all scores.
        rule: for the epoch.
        groups: (samples, those that the rule keeps in expectation) of each group; None for all at once.
    """

    judgement: Judgement
    histogram: Histogram
    rule: AnyRule
    groups: dict[str, tuple[int, float]] | None


def judge(policy: Policy, values: Values, indexed: Labels | None, first_id: NDArray[np.int64], runs: Runs) -> Judgement:
    """Return how samples are judged; the arguments are those of `decide`."""
    labels = all_labels(policy, values, indexed)
    scores = judged_scores(policy, values, runs, first_id, labels)
    return Judgement(scores, labels, Histogram.of(scores), scores is values[LOSS])


def rule_from(
    policy: Policy, histogram: Histogram, groups: GroupHistograms | None, epoch: int
) -> tuple[AnyRule, dict[str, tuple[int, float]] | None]:
    """Return the rule for an epoch, and of each group the samples and those kept in expectation.

    Args:
        policy: decides.
        histogram: of all scores.
        groups: one per group of samples, where the policy decides within them.
        epoch: counted from 0.

    Raises:
        PolicyError: the policy gave something else than a rule.
    """
    if groups is None:
        return rule_of(policy, histogram, epoch), None
    grouped: Any = policy
    rules: GroupRules = grouped.rules(groups, epoch)
    return rules, {name: (one.total, rules.expected_kept({name: one})) for name, one in groups.items()}


def decide(
    policy: Policy,
    values: Values,
    epoch: int,
    indexed: Labels | None = None,
    *,
    first_id: NDArray[np.int64] | None = None,
    runs: Runs = EACH,
) -> Decision:
    """Return the rule for an epoch, and what it was made from.

    Args:
        policy: decides.
        values: from `LossTable.remembered`.
        epoch: counted from 0.
        indexed: see `labels_of`.
        first_id: int64 [shards + 1]; None: all samples lie in one shard.
        runs: how samples are decided together.

    Raises:
        PolicyError: the policy gave something else than a rule.
    """
    bounds = np.array([0, len(values[LOSS])]) if first_id is None else first_id
    judgement = judge(policy, values, indexed, bounds, runs)
    return Decision(judgement, judgement.histogram, *rule_from(policy, judgement.histogram, judgement.groups(), epoch))


def apply(
    policy: Policy,
    rule: AnyRule,
    values: Values,
    first_id: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    indexed: Labels | None = None,
    runs: Runs = EACH,
    scores: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Return which samples an epoch keeps, and their weights.

    Args:
        policy: that the rule is of.
        rule: of the epoch.
        values: from `LossTable.remembered`, the ones that the rule was made from.
        first_id: int64 [shards + 1].
        seed, epoch: of the draws.
        indexed: see `labels_of`.
        runs: how samples are decided together, as when the rule was made.
        scores: `judged_scores`, where they are at hand.

    Returns:
        mask bool [total]; weight float32 [total], 0 where dropped, or None where every kept sample has the weight 1.
    """
    labels = None if isinstance(rule, Rule) and scores is not None else all_labels(policy, values, indexed)
    if scores is None:
        scores = judged_scores(policy, values, runs, first_id, labels)
    length = runs.length
    if isinstance(rule, Rule):
        mask, weight = select(rule, scores, first_id, seed=seed, epoch=epoch, run_length=length)
    else:
        labels = Labels(("",), np.zeros(len(scores), np.uint8)) if labels is None else labels
        mask, weight = select_groups(rule, scores, labels, first_id, seed=seed, epoch=epoch, run_length=length)
    own = weights_of(policy, values, epoch)
    if own is None:
        return mask, weight
    return mask, own * (mask if weight is None else weight)
