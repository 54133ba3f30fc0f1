"""history.jsonl: one line per committed epoch.

Takes plain dicts; effects: the file is read and appended to. A line that a crash tore off is passed over when reading
and cut away by the next append.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seta_stream.errors import SetaStreamWarning
from seta_stream.foreign import read_json
from seta_stream.losses.columns import LOSS
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.groups import AnyRule
from seta_stream.policies.rule import Rule
from seta_stream.store import Store, is_local, local_path


@dataclass(frozen=True)
class Judged:
    """How the samples stand at an epoch's end.

    Args:
        histogram: of their scores.
        rule: for the next epoch, made from it; None where there is none.
        groups: where the rule is one per group of samples: (samples, those kept in expectation) of each.
        judged_by: "loss", or "score" where the policy makes another number of what is remembered.
    """

    histogram: Histogram
    rule: AnyRule | None
    groups: Mapping[str, tuple[int, float]] | None = None
    judged_by: str = LOSS

    @property
    def expected_share(self) -> float | None:
        """The share of the samples that the rule keeps; None where that is unknown."""
        if isinstance(self.rule, Rule):
            return self.rule.expected_kept(self.histogram) / max(self.histogram.total, 1)
        groups = (self.groups or {}).values()
        return sum(kept for _, kept in groups) / max(sum(there for there, _ in groups), 1) if groups else None


def history_line(generation: str, epoch: int, parent: str | None, judged: Judged, facts: object) -> dict[str, Any]:
    """Return what the history keeps of an epoch, as plain values."""
    histogram, rule = judged.histogram, judged.rule
    merged = histogram.merged(512)
    seen = histogram.seen > 0
    return {
        "epoch": epoch,
        "generation": generation,
        "parent": parent,
        "samples": histogram.total,
        "seen": histogram.seen,
        "unseen": histogram.unseen,
        "minimum": histogram.minimum if seen else None,
        "maximum": histogram.maximum if seen else None,
        "mean": histogram.mean if seen else None,
        "rule": None if rule is None else rule.to_plain(),
        "expected_share": judged.expected_share,
        "judged_by": judged.judged_by,
        "groups": None if judged.groups is None else {name: list(told) for name, told in judged.groups.items()},
        "histogram": {"edges": merged.edges.tolist(), "counts": merged.counts.tolist()},
        "facts": facts,
    }


def read_history(store: Store, url: str) -> list[dict[str, Any]]:
    """Return the lines, oldest first; empty where there is no file."""
    if not store.exists(url):
        return []
    found, damaged = parse_history(store.read(url))
    if damaged:
        warnings.warn(
            f"Lines {damaged[:5]} of {url} are damaged and passed over; {len(found)} others were read.",
            SetaStreamWarning,
            stacklevel=3,
        )
    return found


def parse_history(data: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the lines of a history, and the numbers of those that are none, from 1.

    Only that they are objects is looked at, and that their names of generations are such; what follows the last line
    end is torn, or nothing.
    """
    found: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line = read_json(raw)
        except ValueError:
            line = None
        is_line = isinstance(line, dict) and all(
            isinstance(line.get(name, ""), str | None) for name in ("generation", "parent")
        )
        if is_line:
            found.append(line)
        else:
            damaged.append(number)
    return found, damaged


def append_history(store: Store, url: str, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines; what the last crash left of a line is cut away."""
    data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    if is_local(url):
        _append_local(url, data)
        return
    old = store.read(url) if store.exists(url) else b""
    store.write(url, old[: old.rfind(b"\n") + 1] + data)


def _append_local(url: str, data: bytes) -> None:
    path = local_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("r+b") as file:
        old = file.read()
        whole = old.rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(whole)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
