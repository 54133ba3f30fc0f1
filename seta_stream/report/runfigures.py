"""A run as numbers: what each epoch kept, read, waited for and cost.

Takes lines of history.jsonl and assumptions of prices and power; gives plain values. Pure. A state may be foreign: what
is no usable number there counts as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from seta_stream.errors import PolicyError
from seta_stream.policies import policy_from
from seta_stream.policies.groups import GroupRules, rule_from_plain
from seta_stream.policies.rule import Rule
from seta_stream.report.distributions import planned_epochs
from seta_stream.report.lineage import MOST, count, epoch_shares, number, usable_lines
from seta_stream.report.prices import Price
from seta_stream.report.simulation import nominal_saved

__all__ = [
    "Costs", "EpochRow", "RunFigures", "drawable", "figures_of", "has_losses", "number", "quantiles_of", "spelled",
    "usable_lines",
]  # fmt: skip

LEVELS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
WATTS: Final = 400.0
WATTS_SOURCE: Final = (
    "assumed: the board limit of one NVIDIA A100 SXM by its data sheet (nvidia.com/a100), at full load all the time, "
    " without its host; --watts sets that of your machines together"
)
FULL_SPAN_BYTES: Final = 8 << 20
"""A reader that wants everything asks for so much at once: Reading's max_span_bytes."""
JOULES_PER_KWH: Final = 3.6e6

_HIGHEST_LOSS: Final = 3.5e38
"""Above every float32."""


@dataclass(frozen=True)
class Costs:
    """What reading and computing are reckoned with.

    Args:
        price: of the store.
        watts: of all machines of the run together, while an epoch runs.
        watts_source: where that number is from.
        per_hour: dollars for an hour of all machines together; 0 for no such price.
    """

    price: Price
    watts: float = WATTS
    watts_source: str = WATTS_SOURCE
    per_hour: float = 0.0


@dataclass(frozen=True)
class EpochRow:
    """One epoch; None where the history does not say.

    Args:
        epoch: counted from 0; −1 for losses from before it.
        generation: name of the losses at its end.
        samples: of the corpus.
        seen: samples with a loss at its end.
        selected: samples that were chosen, as counted.
        kept: their share, as counted, or else as expected.
        expected: the share that its rule kept in expectation.
        mean: of the losses at its end.
        quantiles: of them, at LEVELS; empty where there are none.
        bytes_total, bytes_needed, bytes_fetched: of all shards; of the samples read; asked for.
        requests, retries: that asked for them; tried again.
        cache_hits, cache_misses, cache_hit_bytes, cache_miss_bytes: spans that the local cache held or lacked.
        wait_s: seconds spent reading while training waited, summed over workers and processes.
        seconds: from its beginning to its end.
        bad_losses, skipped: losses refused; samples that could not be decoded.
        money: what its reading and computing cost, in dollars.
        kwh: what it took.
    """

    epoch: int
    generation: str
    samples: int
    seen: int
    selected: float | None
    kept: float | None
    expected: float | None
    mean: float | None
    quantiles: tuple[float, ...]
    bytes_total: float | None
    bytes_needed: float | None
    bytes_fetched: float | None
    requests: float | None
    retries: float | None
    cache_hits: float | None
    cache_misses: float | None
    cache_hit_bytes: float | None
    cache_miss_bytes: float | None
    wait_s: float | None
    seconds: float | None
    bad_losses: float | None
    skipped: float | None
    money: float | None
    kwh: float | None


@dataclass(frozen=True)
class RunFigures:
    """A run.

    Args:
        policy: name and settings, as one text; None where the history does not say.
        planned: epochs that the policy plans; None where it does not say.
        nominal_kept: the share of all visits that its settings promise to keep; None where they promise none.
        epochs: one by one.
        full_money: dollars that reading everything in each of these epochs would have cost.
        full_seconds: how long that would have taken, at each epoch's own time per sample.
        full_kwh: and the energy of it.
    """

    policy: str | None
    planned: int | None
    nominal_kept: float | None
    epochs: tuple[EpochRow, ...]
    full_money: float | None
    full_seconds: float | None
    full_kwh: float | None

    def total(self, name: str) -> float | None:
        """Return the sum of a column over the epochs that tell it; None where none does."""
        known = [value for value in (getattr(one, name) for one in self.epochs) if value is not None]
        return float(sum(known)) if known else None

    @property
    def saved_share(self) -> float | None:
        """Share of all sample visits that was left out."""
        known = [one.kept for one in self.epochs if one.kept is not None]
        return 1.0 - sum(known) / len(known) if known else None

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers, for JSON."""
        names = ("bytes_total", "bytes_needed", "bytes_fetched", "requests", "wait_s", "seconds", "money", "kwh")
        totals = {name: self.total(name) for name in names}
        return {**asdict(self), "epochs": [asdict(one) for one in self.epochs], "totals": totals} | {
            "saved_share": self.saved_share
        }


def figures_of(lines: Sequence[Mapping[str, Any]], costs: Costs) -> RunFigures:
    """Return the numbers of a run.

    Args:
        lines: of its history, from `usable_lines`.
        costs: prices and power.
    """
    expected: float | None = None
    rows = []
    for line, kept in zip(lines, epoch_shares(lines), strict=True):
        rows.append(_row(line, kept, expected, costs))
        expected = line["expected_share"]
    described = next((told for told in (_policy(line) for line in reversed(lines)) if told), None)
    planned = next((told for told in (planned_epochs(line) for line in reversed(lines)) if told), None)
    run = [row for row in rows if row.epoch >= 0]
    seconds = [_full_seconds(row) for row in run]
    full_seconds = sum(one for one in seconds if one is not None) if any(one is not None for one in seconds) else None
    fetching = _full_fetching(run, costs.price)
    computing = None if full_seconds is None else full_seconds / 3600 * costs.per_hour
    return RunFigures(
        policy=None if described is None else spelled(described),
        planned=planned,
        nominal_kept=_nominal(described, planned or len(run)),
        epochs=tuple(run),
        full_money=_sum(fetching, computing) if costs.price or costs.per_hour else None,
        full_seconds=full_seconds,
        full_kwh=None if full_seconds is None else full_seconds * costs.watts / JOULES_PER_KWH,
    )


def _row(line: Mapping[str, Any], kept: float | None, expected: float | None, costs: Costs) -> EpochRow:
    facts = line.get("facts") or {}
    told = {name: count(facts.get(name)) for name in _COUNTED}
    seconds = told["seconds"]
    reading = None if told["bytes_fetched"] is None else costs.price.of(told["bytes_fetched"], told["requests"] or 0.0)
    computing = None if seconds is None else seconds / 3600 * costs.per_hour
    return EpochRow(
        epoch=line["epoch"],
        generation=line["generation"],
        samples=line["samples"],
        seen=line["seen"],
        kept=None if kept is None else min(max(kept, 0.0), 1.0),
        expected=None if expected is None else min(max(expected, 0.0), 1.0),
        mean=line["mean"],
        quantiles=quantiles_of(line),
        money=_sum(reading, computing) if costs.price or costs.per_hour else None,
        kwh=None if seconds is None else seconds * costs.watts / JOULES_PER_KWH,
        **told,
    )


_COUNTED: Final = (
    "selected", "bytes_total", "bytes_needed", "bytes_fetched", "requests", "retries", "cache_hits", "cache_misses",
    "cache_hit_bytes", "cache_miss_bytes", "wait_s", "seconds", "bad_losses", "skipped",
)  # fmt: skip


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def has_losses(line: Mapping[str, Any]) -> bool:
    """Say whether a line's histogram can be drawn: finite edges that ascend, and counts between them."""
    told = line.get("histogram")
    try:
        edges = np.asarray(told["edges"], np.float64)  # type: ignore[index]  # a TypeError tells
        counts = np.asarray(told["counts"], np.float64)  # type: ignore[index]  # likewise
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return (
        edges.ndim == counts.ndim == 1
        and len(edges) == len(counts) + 1 > 1
        and bool(np.isfinite(edges).all() and np.isfinite(counts).all())
        and bool((np.diff(edges) >= 0).all() and (counts >= 0).all() and (np.abs(edges) < _HIGHEST_LOSS).all())
        and 0 < float(counts.sum()) < MOST
    )


def drawable(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines that hold losses; a rule that is none is taken out of its line.

    Beside it stands, as `kept_share`, what the epoch that followed really kept, where that is known.
    """
    shares = [*epoch_shares(lines)[1:], None]
    return [
        {**line, "rule": line.get("rule") if _has_rule(line) else None, "kept_share": share}
        for line, share in zip(lines, shares, strict=False)  # of no lines, there is a share of nothing
        if has_losses(line)
    ]


def _has_rule(line: Mapping[str, Any]) -> bool:
    try:
        return isinstance(rule_from_plain(line["rule"]), Rule | GroupRules)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, PolicyError):
        return False


def quantiles_of(line: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the losses at LEVELS, by the line's merged bins; empty where it holds none."""
    if not has_losses(line):
        return ()
    edges = np.asarray(line["histogram"]["edges"], np.float64)
    counts = np.asarray(line["histogram"]["counts"], np.float64)
    reached = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    found: list[float] = np.interp(LEVELS, reached, edges).tolist()
    return tuple(found)


def _full_seconds(row: EpochRow) -> float | None:
    """Return how long an epoch would have taken with all samples, at its own time per sample."""
    return row.seconds / row.kept if row.seconds is not None and row.kept else None


def _full_fetching(rows: Sequence[EpochRow], price: Price) -> float | None:
    """Return what reading all bytes in each epoch would have cost."""
    totals = [row.bytes_total for row in rows if row.bytes_total is not None]
    return sum(price.of(total, math.ceil(total / FULL_SPAN_BYTES)) for total in totals) if totals else None


def _policy(line: Mapping[str, Any]) -> Mapping[str, Any] | None:
    policy = (line.get("facts") or {}).get("policy")
    return policy if isinstance(policy, Mapping) else None


def _nominal(described: Mapping[str, Any] | None, epochs: int) -> float | None:
    try:
        saved = None if described is None else nominal_saved(policy_from(described), max(epochs, 1))
    except (PolicyError, TypeError, ValueError):  # of the user's own, or of another release
        return None
    told = number(saved)
    return None if told is None else 1.0 - told


def spelled(policy: Mapping[str, Any]) -> str:
    """Return a policy's name and settings as a call; what is None is left out."""
    settings = ", ".join(
        f"{name}={spelled(value) if isinstance(value, Mapping) else value}"
        for name, value in policy.items()
        if name != "name" and value is not None and value is not False
    )
    return f"{policy.get('name', '?')}({settings})"
