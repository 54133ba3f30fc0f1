"""The lines of a history that lead to a generation, oldest first, and what each epoch kept. Pure.

Takes lines of history.jsonl, which may be of another release or foreign: what is no usable number counts as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

MOST: Final = 1e300
"""Numbers from here on are none."""
EPOCHS: Final = 1 << 31
"""Nor are epochs."""


def usable_lines(history: Sequence[Any], newest: str | None = None) -> list[dict[str, Any]]:
    """Return the lines that lead to a generation, oldest first, without those that are none of a history's.

    What should be a number and is none is None there.
    """
    good = [
        line
        for line in history
        if isinstance(line, Mapping)
        and isinstance(line.get("generation"), str)
        and isinstance(line.get("parent"), str | None)
        and type(line.get("epoch")) is int
        and -1 <= line["epoch"] < EPOCHS
        and isinstance(line.get("facts") or {}, Mapping)
    ]
    return [_cleaned(line) for line in lineage_lines(good, newest)]


def _cleaned(line: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        name: number(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in (line.get("facts") or {}).items()
    }
    facts |= {name: number(facts.get(name)) for name in ("selected", "total") if name in facts}
    counts = {name: int(count(line.get(name)) or 0) for name in ("samples", "seen", "unseen")}
    means = {name: number(line.get(name)) for name in ("mean", "expected_share")}
    told = line.get("groups")
    groups = {name: pair for name, pair in told.items() if _is_pair(pair)} if isinstance(told, Mapping) else None
    return {**line, **counts, **means, "facts": facts, "groups": groups}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(number(one) is not None for one in value)


def number(value: Any) -> float | None:
    """Return a value as a finite float; None where it is none, or no float can hold it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and abs(found) < MOST else None


def count(value: Any) -> float | None:
    """Return a value as a number that counts something; None where it is none."""
    found = number(value)
    return None if found is None or found < 0 else found


def lineage_lines(history: Sequence[Mapping[str, Any]], newest: str | None = None) -> list[Mapping[str, Any]]:
    """Return the lines that lead to a generation (default the last line's), oldest first.

    A run that was set back to an earlier epoch leaves lines of the way not taken; they are left out.
    """
    by_name = {line["generation"]: line for line in history}
    at = newest if newest is not None else (history[-1]["generation"] if history else None)
    found: list[Mapping[str, Any]] = []
    while at in by_name:
        line = by_name.pop(at)
        found.append(line)
        at = line.get("parent")
    return found[::-1]


def epoch_shares(lineage: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return the share of samples that each epoch kept: counted if its facts tell, else what its rule expected."""
    shares: list[float | None] = []
    expected: float | None = None
    for line in lineage:
        facts = line.get("facts") or {}
        selected, total = facts.get("selected"), facts.get("total") or line.get("samples")
        counted = selected / total if isinstance(selected, (int, float)) and total else None
        shares.append(counted if counted is not None else expected)
        expected = line.get("expected_share")
    return shares
