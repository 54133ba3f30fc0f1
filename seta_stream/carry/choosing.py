"""The selection of an epoch, as the stream that has this state makes it.

Takes a Source and an epoch; gives masks and weights. Acts: reads the state, and indexes where a policy groups by them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.opening import Source
from seta_stream.corpus.labels import label_samples
from seta_stream.errors import ArgumentError, PolicyError, SetaStreamWarning, StateError
from seta_stream.losses.columns import LOSS
from seta_stream.losses.table import LossTable
from seta_stream.policies.deciding import apply, columns_of, decide, grouping_of
from seta_stream.policies.full import Full
from seta_stream.policies.groups import AnyRule, Labels
from seta_stream.policies.names import policy_from
from seta_stream.policies.policy import Policy
from seta_stream.policies.rule import Rule
from seta_stream.policies.runs import EACH, Runs


@dataclass(frozen=True, eq=False)
class Selected:
    """The samples that an epoch keeps.

    Args:
        epoch: which.
        mask: bool [total].
        weight: float32 [total], 0 where dropped; None where every kept sample has the weight 1.
        seed: of the draws.
        policy: the name of what decided.
    """

    epoch: int
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32] | None
    seed: int
    policy: str

    @property
    def count(self) -> int:
        """How many are kept."""
        return int(np.count_nonzero(self.mask))


def choose(
    source: Source, *, epoch: int | None = None, seed: int | None = None, policy: str | Mapping[str, Any] | None = None
) -> tuple[Selected, LossTable]:
    """Return the selection of an epoch, bit for bit the stream's, and the losses that it was made from.

    Args:
        source: whose generation closes the epoch before.
        epoch: the one after the generation's by default.
        seed: the stream's `seed=`; None for the one that the run noted, or 0.
        policy: decides anew; the rule that the generation keeps by default.

    Raises:
        ArgumentError: the generation holds no rule for that epoch, and no policy was given.
        StateError: the rule is of a policy that is not known here, and needs it.
        PolicyError: the policy cannot be read.
    """
    generation = source.generation
    wanted = generation.epoch + 1 if epoch is None else epoch
    rule = generation.rule if wanted == generation.epoch + 1 and policy is None else None
    if rule is None and policy is None:
        raise ArgumentError(
            f"Cannot select epoch {wanted}: generation {generation.name} holds no rule for it"
            f"{'' if wanted == generation.epoch + 1 else f', but for epoch {generation.epoch + 1}'}. Name the policy "
            'that shall decide, as --policy "seta(num_epochs=90, target=0.5)".',
            expected=wanted,
            found=generation.epoch + 1,
        )
    deciding = _policy(source, rule) if policy is None else policy_from(policy)
    table = source.table(columns_of(deciding))
    table.advance(wanted - generation.epoch - 1)
    labels = _labels(source, deciding)
    runs = _runs(generation.facts)
    drawn = int(generation.facts.get("seed", 0)) if seed is None else seed
    first_id = table.first_id
    if rule is None:
        rule = decide(deciding, table.remembered(), wanted, labels, first_id=first_id, runs=runs).rule
    mask, weight = apply(
        deciding, rule, table.remembered(), first_id, seed=drawn, epoch=wanted, indexed=labels, runs=runs
    )
    if not mask.any():
        raise PolicyError(f"Epoch {wanted} selects no sample at all: nothing can be exported of it.", found=0)
    name = _name(generation.facts.get("policy")) if policy is None else type(deciding).__name__
    return Selected(wanted, mask, weight, drawn, name), table


def _policy(source: Source, rule: AnyRule | None) -> Policy:
    """Return the policy whose rule the generation keeps; one that goes by the loss where the user's own is not known.

    Raises:
        StateError: it is not known, and the rule alone does not tell how samples are judged.
    """
    described = source.generation.facts.get("policy")
    try:
        if isinstance(described, Mapping):
            return policy_from(described)
    except PolicyError:
        pass
    by_loss = source.generation.line.get("judged_by", LOSS) == LOSS
    if not (by_loss and isinstance(rule, Rule)):
        raise StateError(
            f"Cannot select by the rule of {source.generation.name}: it was made by {_name(described)}, which is not "
            "known here and judges samples by more than their loss. Name a policy by --policy.",
            found=described,
        )
    if described is not None:
        warnings.warn(
            f"{_name(described)} is not known here: its rule is applied to the losses, and weights of its own, if it "
            "has any, are left out.",
            SetaStreamWarning,
            stacklevel=3,
        )
    return Full()


def _labels(source: Source, policy: Policy) -> Labels | None:
    grouping = grouping_of(policy)
    if grouping is None or grouping.by is None:
        return None
    if source.corpus is None:
        raise ArgumentError("Cannot select without indexes: the policy groups samples by them. Leave --no-keys out.")
    return Labels(*label_samples(source.corpus, grouping.by))


def _runs(facts: Mapping[str, Any]) -> Runs:
    told = facts.get("runs")
    return Runs.from_plain(told) if isinstance(told, dict) else EACH


def _name(described: Any) -> str:
    return str(described.get("name")) if isinstance(described, Mapping) else "no policy"
