"""Texts and numbers as HTML shows them: escaped, cut, with units. Pure.

Everything that comes from a corpus or a state goes through `text` or `attribute`; nothing else of theirs enters a page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeGuard

from seta_stream.visible import visible

NOTHING: Final = "–"

_GAP: Final = "\u00a0"
"""Between a number and its unit, which stay on one line."""


def text(value: object, most: int | None = None) -> str:
    """Return a text for the inside of an element: escaped, and apart from the direction of what stands around it."""
    return f"<bdi>{attribute(value, most)}</bdi>"


def attribute(value: object, most: int | None = None) -> str:
    """Return a text for the inside of an attribute's double quotes, or of an element of our own words."""
    return html.escape(visible(value, most), quote=True)


def share(value: float | None) -> str:
    """Return a share as per cent."""
    return percent(value, 1)


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share as per cent with so many digits behind the point."""
    return NOTHING if not _is_finite(value) else f"{100 * value:.{digits}f}{_GAP}%"


def count(value: float | None) -> str:
    """Return how many; what is above 10^15 in powers of ten."""
    if not _is_finite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3g}"


def loss(value: float | None) -> str:
    """Return a loss with four digits."""
    return NOTHING if not _is_finite(value) else f"{value:.4g}"


def size(value: float | None) -> str:
    """Return a number of bytes with its unit."""
    if not _is_finite(value):
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f}{_GAP}{unit}" if unit == "B" else f"{value:.1f}{_GAP}{unit}"
        value /= 1024
    return f"{value:,.1f}{_GAP}TiB" if abs(value) < 1e9 else f"{value:.3g}{_GAP}TiB"


def money(value: float | None) -> str:
    """Return dollars, small ones with the digits that tell something."""
    if not _is_finite(value):
        return NOTHING
    sign, amount = "−" if value < 0 else "", abs(value)
    if amount >= 1e12:
        return f"{sign}${amount:.3g}"
    return f"{sign}${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{sign}${amount:.2g}"


def energy(value: float | None) -> str:
    """Return kilowatt hours, or watt hours where they are few."""
    if not _is_finite(value):
        return NOTHING
    if abs(value) < 0.1:
        return f"{1000 * value:.2g}{_GAP}Wh"
    return f"{value:,.1f}{_GAP}kWh" if abs(value) < 1e12 else f"{value:.3g}{_GAP}kWh"


def duration(value: float | None) -> str:
    """Return seconds, 0 or more, in the units that people use."""
    if not _is_finite(value) or value < 0:
        return NOTHING
    if value < 59.5:
        return f"{value:.0f}{_GAP}s" if value >= 9.95 else f"{value:.2g}{_GAP}s"
    seconds = round(value)
    if seconds < 600:
        return f"{seconds // 60}{_GAP}min {seconds % 60:02d}{_GAP}s"
    minutes = round(value / 60)
    if minutes < 60:
        return f"{minutes}{_GAP}min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{_GAP}h {minutes:02d}{_GAP}min"
    return f"{hours / 24:,.1f}{_GAP}days" if hours < 24e6 else f"{hours / 24:.3g}{_GAP}days"


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str) -> str:
    """Return a table that scrolls by itself where it is wide.

    Args:
        heads: our own words; the first column names the rows.
        rows: cells of finished HTML.
        label: what it is, for who cannot see it.
    """
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{attribute(label)}"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, inside: str) -> str:
    """Return what is folded until it is asked for."""
    return f"<details><summary>{summary}</summary>{inside}</details>"
