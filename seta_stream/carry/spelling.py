"""How files of text name columns and keys. Pure."""

from __future__ import annotations

from typing import Final

RESERVED: Final = ("url", "key", "index", "id", "loss", "age", "selected", "weight")
"""Names of columns that are not a policy's."""


def spelled(key: str) -> str:
    r"""Return a key or URL as files of text can hold it: bytes that are no UTF-8 are written as \xff."""
    if key.isascii():
        return key
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
