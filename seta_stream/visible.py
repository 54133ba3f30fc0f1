"""Texts of strangers as a terminal, a log or a page may show them: without what cannot be seen.

Takes any text; gives one of visible characters. Pure. Keys, names and URLs come from whoever made a corpus: a control
character among them could rewrite what stands on a terminal, a mark of direction what a line seems to say, and half a
character could end the program that prints it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

LONGEST: Final = 16_384
"""Characters of a message: what it quotes may be as long as whoever wrote it liked."""

_CUT: Final = "…"
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories without a shape of their own: controls, marks of direction, halves of characters, what is not assigned."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian and many emoji need them."""


def visible(value: object, most: int | None = None) -> str:
    r"""Return a text without what cannot be seen: controls, marks of direction and surrogates are spelled as \u202e.

    Args:
        value: any text, or what str makes of it.
        most: characters to keep; what is longer is cut.
    """
    told = str(value)
    if most is not None and len(told) > most:
        told = told[:most].rstrip() + _CUT
    if told.isascii() and told.isprintable():
        return told
    return "".join(map(_shown, told))


def visible_lines(value: object) -> str:
    """Return a text of several lines likewise; what divides them stays, and what is beyond LONGEST goes."""
    told = str(value)
    if len(told) > LONGEST:
        told = told[: LONGEST - 1] + _CUT
    return told if told.isascii() and told.isprintable() else "\n".join(map(visible, told.split("\n")))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that is no UTF-8, as Python reads it
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
