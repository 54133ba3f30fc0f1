"""Numbers as people read them. Takes numbers; gives texts. Pure."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "–"


def told_share(share: float | None) -> str:
    """Return a share in percent."""
    return UNKNOWN if share is None else f"{share:.1%}"


def told_bytes(count: float | None) -> str:
    """Return a number of bytes with its unit."""
    if count is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def told_count(number: int, what: str) -> str:
    """Return "1 shard", "2 shards"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def told_money(dollars: float) -> str:
    """Return an amount of money, small ones with the digits that tell something."""
    sign = "−" if dollars < 0 else ""
    amount = abs(dollars)
    return f"{sign}${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{sign}${amount:.3g}"
