"""The files that `repack` keeps beside its shards: the manifest of the whole, and one record per new shard. Pure.

Takes values; gives bytes, and back, trusting nothing. docs/repack.md describes both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, StateError
from seta_stream.foreign import read_json
from seta_stream.losses.envelope import FileKind, pack_file, unpack_file

FOLDER: Final = "repack"
"""Name of the folder, in that of the new shards, that holds both."""
MANIFEST_NAME: Final = "repack.json"
RECORD_SUFFIX: Final = ".order"
RECORD: Final = FileKind(b"SETAORDR", 1, "record", StateError)

_FORMAT: Final = "seta_stream repack"
_VERSION: Final = 1
_COUNTS: Final = ("size", "samples", "members", "extent_bytes")


@dataclass(frozen=True, eq=False)
class Record:
    """A new shard that is finished.

    Args:
        fingerprint: 16 bytes over what decided its content.
        digest: of its index.
        size: its bytes.
        version: its ETag or modification time.
        samples: how many it holds.
        members: how many these have.
        extent_bytes: sum of their extents.
        pieces: (digest of the old shard, first position, position behind the last), in corpus order.
        order: int64 [samples]: the sample at new position p was number order[p] of the pieces' samples.
    """

    fingerprint: bytes
    digest: bytes
    size: int
    version: str
    samples: int
    members: int
    extent_bytes: int
    pieces: tuple[tuple[bytes, int, int], ...]
    order: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """Return the record as a file."""
        header = {
            "fingerprint": self.fingerprint,
            "digest": self.digest,
            "version": self.version.encode("utf-8", "surrogateescape"),
            "pieces": [list(piece) for piece in self.pieces],
            **{name: getattr(self, name) for name in _COUNTS},
        }
        return pack_file(RECORD, header, self.order.astype("<u4").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "") -> Record:
        """Return the record that a file holds.

        Args:
            data: the whole file.
            name: of the file, for messages.

        Raises:
            StateError: the file is damaged, foreign or of a future version, or its content cannot be.
        """
        header, body = unpack_file(RECORD, data, name=name)
        counts: list[Any] = [header.get(count) for count in _COUNTS]
        texts: list[Any] = [header.get(text) for text in ("fingerprint", "digest", "version")]
        pieces = header.get("pieces")
        whole = all(type(count) is int and count >= 0 for count in counts)
        whole = whole and all(type(text) is bytes for text in texts)
        if not whole or not isinstance(pieces, list) or not all(_is_piece(piece) for piece in pieces):
            raise _malformed(name, "its header")
        order = np.frombuffer(body[: len(body) // 4 * 4], "<u4").astype(np.int64)
        samples = sum(stop - start for _, start, stop in pieces)
        if len(body) != 4 * samples or header["samples"] != samples or (np.sort(order) != np.arange(samples)).any():
            raise _malformed(name, "its order")
        fingerprint, digest, version = texts
        return cls(
            fingerprint=fingerprint,
            digest=digest,
            version=version.decode("utf-8", "surrogateescape"),
            pieces=tuple((shard, start, stop) for shard, start, stop in pieces),
            order=order,
            **dict(zip(_COUNTS, counts, strict=True)),
        )


def pack_manifest(settings: Mapping[str, Any]) -> bytes:
    """Return the manifest of a repack: its settings as JSON."""
    told = {"format": _FORMAT, "version": _VERSION, **settings}
    return json.dumps(told, indent=1).encode()


def unpack_manifest(data: bytes, source: str) -> dict[str, Any]:
    """Return the settings that a manifest holds.

    Args:
        data: the whole file.
        source: its URL, for messages.

    Raises:
        StateError: it is none, or of a future version.
    """
    try:
        told = read_json(data)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.pop("format", None) != _FORMAT:
        raise StateError(
            f"Cannot use {source}: it is not the manifest of a repack. Repack into another folder, or remove the file "
            "if nothing in its folder is needed.",
            expected=_FORMAT,
            found=data[:32],
        )
    version = told.pop("version", None)
    if version != _VERSION:
        raise StateError(
            f"Cannot use {source}: it is of version {version}, and this release reads version {_VERSION}. Update "
            "seta_stream, or repack into another folder.",
            expected=_VERSION,
            found=version,
        )
    return told


def refuse_other(wanted: Mapping[str, Any], found: Mapping[str, Any], to: str) -> None:
    """Refuse to go on in a folder that another repack began.

    Args:
        wanted: the settings of this one.
        found: those of the manifest.
        to: the folder.

    Raises:
        ArgumentError: they differ; all that differs is told.
    """
    differing = [name for name in wanted if wanted[name] != found.get(name)]
    if differing:
        told = "; ".join(_told(name, wanted[name], found.get(name)) for name in differing)
        raise ArgumentError(
            f"Cannot repack into {to}: it holds another repack, and what differs is: {told}. Give the same corpus and "
            "settings to go on with it, or another folder.",
            expected={name: found.get(name) for name in differing},
            found={name: wanted[name] for name in differing},
        )


def _told(name: str, wanted: Any, found: Any) -> str:
    """Name one setting that differs; of lists, their lengths and the first place."""
    if not isinstance(wanted, list) or not isinstance(found, list):
        return f"{name} is {wanted!r} now and was {found!r}"
    pairs = enumerate(zip(wanted, found, strict=False))
    place = next((at for at, (new, old) in pairs if new != old), min(len(wanted), len(found)))
    if len(wanted) != len(found):
        return f"{name} are {len(wanted)} now and were {len(found)}"
    return f"{name}: number {place} is {wanted[place]!r} now and was {found[place]!r}"


def _is_piece(piece: Any) -> bool:
    match piece:
        case [bytes(), int(start), int(stop)] if 0 <= start <= stop < 1 << 32:
            return True
        case _:
            return False


def _malformed(name: str, what: str) -> StateError:
    return StateError(f"Cannot use the record {name}: {what} cannot be as it is.", found=what)
