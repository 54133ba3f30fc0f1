"""Plain values out of bytes of unknown trust: JSON and msgpack whose only failure is a ValueError.

Takes bytes; gives values. Pure. Both readers make plain values alone and run nothing. What they raise besides
ValueError (nesting that ends the interpreter's stack, lists as keys) becomes one here. Memory stays within some 70
times the bytes.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgpack

HEADER_BYTES: Final = 256 << 20
"""No header of a file is read that is longer; that of a table of a million shards takes about 150 MB."""


def read_json(data: bytes | str) -> Any:
    """Return the value that a JSON text tells.

    Raises:
        ValueError: it is none, or nested too deep.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_msgpack(data: bytes, *, any_keys: bool = False) -> Any:
    """Return the value that msgpack bytes tell.

    Args:
        data: the whole value.
        any_keys: whether keys of maps may be other than texts and bytes.

    Raises:
        ValueError: they are none, tell more than one value, are nested too deep, or too long for a header.
    """
    if len(data) > HEADER_BYTES:
        raise ValueError(f"it has {len(data)} bytes, and {HEADER_BYTES} at most are read")
    try:
        return msgpack.unpackb(data, strict_map_key=not any_keys)
    except (TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(str(error)) from error
