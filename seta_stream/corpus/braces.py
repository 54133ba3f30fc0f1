"""Brace patterns → names, a bounded number of them. Pure.

Takes a pattern as bash knows it, `train-{00000..00149}.tar`; gives names. A pattern may come from a list of shards that
somebody else wrote, and a few characters can stand for more names than a machine holds: they are counted first.
"""

from __future__ import annotations

import math
import re
from typing import Final

from seta_stream.errors import ArgumentError

MOST_SHARDS: Final = 1 << 22
"""No pattern or list names more."""

_ESCAPED: Final = re.compile(r"\\.|\0", re.DOTALL)
_INNERMOST: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS: Final = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")
_COUNT: Final = re.compile(r"\0(\d+)\0")
_LONGEST: Final = 18
"""Digits of a number that is looked at; a longer one is too large."""


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern stands for, in its order.

    Raises:
        ArgumentError: a brace is not closed, or it stands for more than MOST_SHARDS names.
    """
    from braceexpand import braceexpand  # noqa: PLC0415  (keeps the import of seta_stream short)

    refuse_many(count_names(pattern), pattern)
    try:
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"Cannot expand {pattern[:200]!r}: a brace is not closed, or they are nested too deep. Write ranges as "
            "train-{00000..00149}.tar.",
            expected="balanced braces",
            found=pattern,
        ) from error


def refuse_many(count: int, pattern: str) -> None:
    """Refuse more names than a corpus may have shards.

    Raises:
        ArgumentError: there are.
    """
    if count > MOST_SHARDS:
        raise ArgumentError(
            f"Cannot expand {pattern[:200]!r}: it stands for more than {MOST_SHARDS:,} shards. Check its ranges, or "
            "write fewer and larger shards.",
            expected=f"at most {MOST_SHARDS}",
            found=count,
        )


def count_names(pattern: str) -> int:
    """Return how many names a pattern stands for; what is above MOST_SHARDS is cut there."""
    left = _ESCAPED.sub("", pattern)
    found = 1
    while found:  # from the inside out: each group becomes its number between two NULs
        left, found = _INNERMOST.subn(lambda match: f"\0{_group(match[1])}\0", left)
    return _product(left)


def _group(inside: str) -> int:
    numbers = _RANGE.fullmatch(inside)
    if numbers is not None:
        start, stop, step = (one or "1" for one in numbers.groups())
        if max(map(len, (start, stop, step))) > _LONGEST:
            return MOST_SHARDS + 1
        return min(abs(int(stop) - int(start)) // (int(step) or 1) + 1, MOST_SHARDS + 1)
    if _LETTERS.fullmatch(inside):
        return 52
    return min(sum(map(_product, inside.split(","))), MOST_SHARDS + 1)


def _product(text: str) -> int:
    return min(math.prod(min(int(count), MOST_SHARDS + 1) for count in _COUNT.findall(text)), MOST_SHARDS + 1)
