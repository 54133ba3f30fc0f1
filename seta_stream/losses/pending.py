"""Pending losses: those recorded since the last generation, as one file. Pure: arrays to bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import StateError
from seta_stream.losses.columns import pack_columns, unpack_columns
from seta_stream.losses.envelope import FileKind, pack_file, peek_header, unpack_file

PENDING: Final = FileKind(b"SETAPEND", 3, "pending losses", StateError)
HEADER_BYTES: Final = 512
"""The first bytes of a file hold its header."""


_PLAIN_VERSION: Final = 1
_COLUMNS_VERSION: Final = 2
_NONE: Final[Mapping[str, NDArray[Any]]] = MappingProxyType({})


class PendingLosses(NamedTuple):
    """What was remembered of the samples seen since a generation.

    Args:
        ids: int64 [n].
        losses: float32 [n].
        columns: what else the policy remembers: one array [n] per name.
        calls: what was recorded and has not reached its owner, as outbox.pack_calls tells it; empty in one process.
    """

    ids: NDArray[np.int64]
    losses: NDArray[np.float32]
    columns: dict[str, NDArray[Any]]
    calls: bytes = b""


def pack_pending(
    ids: ArrayLike,
    losses: ArrayLike,
    parent: str | None,
    columns: Mapping[str, NDArray[Any]] = _NONE,
    calls: bytes = b"",
) -> bytes:
    """Return the file of these losses.

    Args:
        ids: int64 [n].
        losses: float32 [n].
        parent: name of the generation that they were recorded on top of.
        columns: what else is remembered: one array [n] per name.
        calls: as in PendingLosses.
    """
    id_column, loss_column = np.ascontiguousarray(ids, "<i8"), np.ascontiguousarray(losses, "<f4")
    header: dict[str, Any] = {"losses": len(id_column), "parent": parent}
    body = [column.view(np.uint8).data for column in (id_column, loss_column)]
    if not columns and not calls:
        return pack_file(PENDING, header, *body, version=_PLAIN_VERSION)
    header["columns"], rest = pack_columns(columns)
    if not calls:
        return pack_file(PENDING, header, *body, rest, version=_COLUMNS_VERSION)
    return pack_file(PENDING, header | {"calls": len(calls)}, *body, rest, calls)


def unpack_pending(data: bytes, *, name: str) -> PendingLosses:
    """Return what a file of pending losses holds.

    Raises:
        StateError: the file is damaged, foreign or of a future version.
    """
    header, body = unpack_file(PENDING, data, name=name)
    count = header.get("losses")
    if type(count) is not int or count < 0 or len(body) < 12 * count:
        raise StateError(
            f"Cannot use the pending losses {name}: {count} losses do not take {len(body)} bytes. Use an older "
            "checkpoint.",
            expected=count,
            found=len(body),
        )
    calls = header.get("calls", 0)
    if type(calls) is not int or not 0 <= calls <= len(body) - 12 * count:
        raise StateError(
            f"Cannot use the pending losses {name}: {calls!r} bytes of calls do not fit into {len(body)}. Use an older "
            "checkpoint.",
            expected=calls,
            found=len(body),
        )
    try:
        stop = len(body) - calls
        columns = unpack_columns(header.get("columns", []), body[12 * count : stop], count)
    except (TypeError, ValueError) as error:
        raise StateError(f"Cannot use the pending losses {name}: {error}. Use an older checkpoint.") from error
    ids = np.frombuffer(body, "<i8", count).astype(np.int64)
    return PendingLosses(
        ids, np.frombuffer(body, "<f4", count, offset=8 * count).astype(np.float32), columns, body[stop:]
    )


def parent_of(first_bytes: bytes) -> str | None:
    """Return the parent that a file names, from its first bytes; the empty text where that cannot be told."""
    parent = peek_header(PENDING, first_bytes).get("parent", "")
    return parent if isinstance(parent, str | None) else ""
