"""From what is remembered to the selection of an epoch: each process judges its own samples, one makes the rule.

Takes what is remembered of a process's samples; gives rules and selections of all. Effects: through the collective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seta_stream import exchange
from seta_stream.collective import Collective
from seta_stream.exchange import Ruled
from seta_stream.losses.columns import Values
from seta_stream.losses.owners import Owners
from seta_stream.plan.epoch import Selection
from seta_stream.policies.deciding import Decision, Judgement, apply, judge, rule_from
from seta_stream.policies.groups import AnyRule, Labels
from seta_stream.policies.runs import Runs

if TYPE_CHECKING:
    from seta_stream.policies.policy import Policy


@dataclass(frozen=True)
class Selector:
    """Decides for the samples of one corpus.

    Args:
        policy: makes each epoch's rule.
        seed: of the draws.
        collective: the processes that decide together.
        owners: which of them owns which shards.
        labels: the groups that the index tells of this process's own samples, where the policy asks for them.
    """

    policy: Policy
    seed: int
    collective: Collective
    owners: Owners
    labels: Labels | None

    def judge(self, remembered: Values, runs: Runs) -> Judgement:
        """Return how this process's samples are judged; nothing is exchanged.

        Args:
            remembered: of this process's samples, from `LossTable.remembered`; as below.
            runs: how samples are decided together.
        """
        return judge(self.policy, remembered, self.labels, self.owners.first_id_of(self.collective.rank), runs)

    def decide(self, remembered: Values, runs: Runs, epoch: int) -> Decision:
        """Return the rule for an epoch, made by one process from everybody's histograms."""
        judgement, histogram = exchange.judged(self.collective, lambda: self.judge(remembered, runs))
        own = judgement.groups()
        groups = None if own is None else exchange.summed_groups(self.collective, own)
        ruled = exchange.ruled(self.collective, lambda: Ruled(*rule_from(self.policy, histogram, groups, epoch)))
        return Decision(judgement, histogram, *ruled)

    def select(
        self, rule: AnyRule, remembered: Values, runs: Runs, epoch: int, decision: Decision | None = None
    ) -> tuple[Selection, NDArray[np.float32] | None]:
        """Return the selection of all samples, and the weights of this process's own; None where all are 1.

        Args:
            rule: of the epoch.
            remembered, runs, epoch: what it was made from, and for.
            decision: what it was made with, where that was now.
        """

        def choose() -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
            return apply(
                self.policy,
                rule,
                remembered,
                self.owners.first_id_of(self.collective.rank),
                seed=self.seed,
                epoch=epoch,
                indexed=self.labels,
                runs=runs,
                scores=decision.judgement.scores if decision else None,
            )

        return exchange.joined(self.collective, self.owners, choose)
