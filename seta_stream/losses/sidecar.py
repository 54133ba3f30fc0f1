"""The sidecar: one shard's losses and ages, and what else its policy remembers, as a file.

Takes arrays or bytes; gives the other. Pure. The format is told byte by byte in docs/formats/state.md, and a test
holds its golden bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import SidecarError
from seta_stream.losses.columns import MAX_AGE, pack_columns, unpack_columns
from seta_stream.losses.envelope import FileKind, pack_file, unpack_file
from seta_stream.losses.histogram import bin_values, codes, round_losses

SIDECAR: Final = FileKind(b"SETALOSS", 2, "sidecar", SidecarError)

_HALF: Final = "float16"
_CODES: Final = "code20"
_UNSEEN_HALF: Final = 0x7E00
_UNSEEN_CODE: Final = 0xFFFFF
_DAMAGED: Final = "Its samples count as unseen until they are recorded again."


_PLAIN_VERSION: Final = 1
"""Of a sidecar without further columns, which every release reads."""

Columns = Mapping[str, NDArray[Any]]
_NONE: Final[Columns] = MappingProxyType({})


class Remembered(NamedTuple):
    """What a sidecar holds.

    Args:
        losses: float32 [samples], NaN where never seen.
        ages: uint8 [samples].
        columns: what the policy remembered beside them: one array [samples] per name.
    """

    losses: NDArray[np.float32]
    ages: NDArray[np.uint8]
    columns: dict[str, NDArray[Any]]


def pack(losses: NDArray[np.float32], ages: NDArray[np.uint8], digest: bytes, columns: Columns = _NONE) -> bytes:
    """Return the sidecar of one shard.

    Two bytes per loss where every one is a float16, else two and a half; one byte per age; columns as wide as they are.

    Args:
        losses: float32 [samples]; rounded here, which changes nothing for those of a table. Not finite: never seen.
        ages: uint8 [samples].
        digest: the 16 bytes of the shard's index, which the file must match to be used.
        columns: what else is remembered: one array [samples] per name.
    """
    rounded = round_losses(losses) if len(losses) else np.empty(0, np.float32)
    seen = np.isfinite(rounded)
    with np.errstate(over="ignore", invalid="ignore"):
        half = rounded.astype(np.float16)
    fits = bool((half.astype(np.float32) == rounded)[seen].all())
    column = np.where(seen, half.view(np.uint16), np.uint16(_UNSEEN_HALF)).astype("<u2").tobytes()
    if not fits:
        column = _pack_codes(np.where(seen, codes(rounded), _UNSEEN_CODE))
    header = {"samples": len(rounded), "digest": digest, "losses": _HALF if fits else _CODES}
    age_column = np.where(seen, ages, np.uint8(MAX_AGE)).astype(np.uint8).tobytes()
    if not columns:
        return pack_file(SIDECAR, header, column + age_column, version=_PLAIN_VERSION)
    header["columns"], rest = pack_columns(columns)
    return pack_file(SIDECAR, header, column + age_column + rest)


def unpack(data: bytes, digest: bytes | None = None, *, name: str = "") -> Remembered:
    """Return what a sidecar holds.

    Args:
        data: the whole file.
        digest: what the file must belong to; None takes any.
        name: of the file, for messages.

    Raises:
        SidecarError: the file is damaged, foreign, of a future version, or another shard's.
    """
    header, body = unpack_file(SIDECAR, data, name=name)
    samples, kind = header.get("samples"), header.get("losses")
    if type(samples) is not int or samples < 0 or (kind != _HALF and kind != _CODES):  # noqa: PLR1714  (may be no key)
        raise _broken(name, "its header does not say how its losses are stored", header)
    if digest is not None and header.get("digest") != digest:
        raise SidecarError(
            f"Cannot use the sidecar {name}: it belongs to another shard (digest {_hex(header.get('digest'))}, "
            f"expected {digest.hex()}). {_DAMAGED}",
            expected=digest.hex(),
            found=_hex(header.get("digest")),
        )
    width = samples * 2 if kind == _HALF else (samples + 1) // 2 * 5
    if len(body) < width + samples:
        raise _broken(name, f"{samples} samples need {width + samples} bytes and {len(body)} are there", header)
    try:
        columns = unpack_columns(header.get("columns", []), body[width + samples :], samples)
    except ValueError as error:
        raise _broken(name, str(error), header) from error
    if kind == _HALF:
        losses = np.frombuffer(body, "<f2", samples).astype(np.float32)
    else:
        losses = _unpack_codes(body[:width], samples)
    if np.isinf(losses).any():
        raise _broken(name, "it holds infinite losses", header)
    return Remembered(losses, np.frombuffer(body, np.uint8, samples, offset=width).copy(), columns)


def _pack_codes(bins: NDArray[np.int32]) -> bytes:
    # pairs [n/2, 2] of 20-bit codes → 40 bits, little-endian, the first code lowest; a last single one has a 0 beside
    pairs = np.zeros((len(bins) + 1) // 2 * 2, np.uint64)
    pairs[: len(bins)] = bins
    words = pairs[0::2] | (pairs[1::2] << np.uint64(20))
    return words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :5].tobytes()


def _unpack_codes(column: bytes, samples: int) -> NDArray[np.float32]:
    # bytes [n/2, 5] → 40-bit words [n/2] → codes [n]
    padded = np.zeros((len(column) // 5, 8), np.uint8)
    padded[:, :5] = np.frombuffer(column, np.uint8).reshape(-1, 5)
    words = padded.view("<u8").reshape(-1).astype(np.uint64)
    pairs = np.stack([words & np.uint64(0xFFFFF), words >> np.uint64(20)], axis=1).reshape(-1)
    bins = pairs[:samples].astype(np.int32)
    return np.where(bins == _UNSEEN_CODE, np.float32(np.nan), bin_values(bins)) if samples else np.empty(0, np.float32)


def _hex(digest: Any) -> str:
    return digest.hex() if isinstance(digest, bytes) else repr(digest)


def _broken(name: str, why: str, header: object) -> SidecarError:
    return SidecarError(f"Cannot use the sidecar {name}: {why}. {_DAMAGED}", found=header)
