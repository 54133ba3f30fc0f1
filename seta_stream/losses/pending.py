"""Pending losses: those recorded since the last generation, as one file. Pure: arrays to bytes and back."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import StateError
from seta_stream.losses.envelope import FileKind, pack_file, peek_header, unpack_file

PENDING: Final = FileKind(b"SETAPEND", 1, "pending losses", StateError)
HEADER_BYTES: Final = 512
"""The first bytes of a file hold its header."""


def pack_pending(ids: ArrayLike, losses: ArrayLike, parent: str | None) -> bytes:
    """Return the file of these losses.

    Args:
        ids: int64 [n].
        losses: float32 [n].
        parent: name of the generation that they were recorded on top of.
    """
    id_column, loss_column = np.asarray(ids, "<i8"), np.asarray(losses, "<f4")
    header = {"losses": len(id_column), "parent": parent}
    return pack_file(PENDING, header, id_column.tobytes() + loss_column.tobytes())


def unpack_pending(data: bytes, *, name: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids int64 [n] and losses float32 [n].

    Raises:
        StateError: the file is damaged, foreign or of a future version.
    """
    header, body = unpack_file(PENDING, data, name=name)
    count = header.get("losses")
    if not isinstance(count, int) or len(body) != 12 * count:
        raise StateError(
            f"Cannot use the pending losses {name}: {count} losses do not take {len(body)} bytes. Use an older "
            "checkpoint.",
            expected=count,
            found=len(body),
        )
    ids = np.frombuffer(body, "<i8", count).astype(np.int64)
    return ids, np.frombuffer(body, "<f4", count, offset=8 * count).astype(np.float32)


def parent_of(first_bytes: bytes) -> Any:
    """Return the parent that a file names, from its first bytes; the empty text where that cannot be told."""
    return peek_header(PENDING, first_bytes).get("parent", "")
