"""What a simulation found: figures per epoch and per policy, and their totals. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seta_stream.report.prices import Price


@dataclass(frozen=True)
class EpochFigures:
    """What one epoch read, scaled up to the corpus.

    Args:
        epoch: counted from 0.
        share: of the samples, selected.
        unique_share: of the samples, selected at least once so far.
        staleness: mean epochs since they were last selected, of the samples selected at least once; 0: in this epoch.
        oldest: the longest of them.
        bytes: that were asked for.
        requests: that asked for them.
        money: what both cost.
    """

    epoch: int
    share: float
    unique_share: float
    staleness: float
    oldest: int
    bytes: float
    requests: float
    money: float


@dataclass(frozen=True)
class PolicyFigures:
    """What one policy would have read.

    Args:
        label: its name here.
        settings: its name and settings.
        nominal_saved: the share of sample visits that its settings promise to save; None where they promise none.
        epochs: one by one.
        stopped: why it could not go on; None where it came to the end.
    """

    label: str
    settings: Mapping[str, Any]
    nominal_saved: float | None
    epochs: tuple[EpochFigures, ...]
    stopped: str | None = None

    @property
    def saved(self) -> float:
        """Share of the sample visits that was saved."""
        return 1.0 - sum(one.share for one in self.epochs) / max(len(self.epochs), 1)

    @property
    def unique_share(self) -> float:
        """Share of the samples that was selected at least once."""
        return self.epochs[-1].unique_share if self.epochs else 0.0

    @property
    def staleness(self) -> float:
        """Mean over the epochs of the mean staleness."""
        return sum(one.staleness for one in self.epochs) / max(len(self.epochs), 1)

    @property
    def oldest(self) -> int:
        """The longest that a sample waited for its next turn, of those that had one."""
        return max((one.oldest for one in self.epochs), default=0)

    def total(self, name: str) -> float:
        """Return the sum of "bytes", "requests" or "money" over the epochs."""
        return float(sum(getattr(one, name) for one in self.epochs))


@dataclass(frozen=True)
class Simulation:
    """What all policies would have read.

    Args:
        samples: of the corpus.
        simulated: of them.
        shards: of the corpus.
        simulated_shards: of them.
        epochs: simulated.
        price: of the store.
        full: what reading everything costs.
        policies: in the order given.
    """

    samples: int
    simulated: int
    shards: int
    simulated_shards: int
    epochs: int
    price: Price
    full: PolicyFigures
    policies: tuple[PolicyFigures, ...]

    def saved_of(self, policy: PolicyFigures, name: str) -> float:
        """Return the share of "bytes", "requests" or "money" that a policy saves against reading everything."""
        whole = self.whole_of(policy, name)
        return 1.0 - policy.total(name) / whole if whole else 0.0

    def whole_of(self, policy: PolicyFigures, name: str) -> float:
        """Return the "bytes", "requests" or "money" of reading everything in the epochs that a policy came through."""
        return float(sum(getattr(one, name) for one in self.full.epochs[: len(policy.epochs)]))

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers, for JSON."""
        return {
            "samples": self.samples,
            "simulated": self.simulated,
            "shards": self.shards,
            "simulated_shards": self.simulated_shards,
            "epochs": self.epochs,
            "price": asdict(self.price),
            "full": self._plain(self.full),
            "policies": [self._plain(one) for one in self.policies],
        }

    def _plain(self, one: PolicyFigures) -> dict[str, Any]:
        totals: dict[str, Any] = {"saved": one.saved, "unique_share": one.unique_share, "staleness": one.staleness}
        totals["oldest"] = one.oldest
        for name in ("bytes", "requests", "money"):
            totals |= {name: one.total(name), f"{name}_saved": self.saved_of(one, name)}
        return {
            "label": one.label,
            "settings": dict(one.settings),
            "nominal_saved": one.nominal_saved,
            "stopped": one.stopped,
            "totals": totals,
            "epochs": [asdict(epoch) for epoch in one.epochs],
        }
