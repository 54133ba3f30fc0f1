"""The index of one shard: where every member and every sample lies; and its file format.

Takes the samples that grouping.py formed; gives arrays for planning and reading, and bytes for the disk. Pure.
The format is described byte by byte in docs/formats/index.md.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus import sealed
from seta_stream.corpus.columns import pack, unpack
from seta_stream.corpus.grouping import Samples
from seta_stream.corpus.header import BLOCK
from seta_stream.corpus.layout import members_of, most_unpacked, padded, places_of, shapes_of
from seta_stream.corpus.sealed import malformed, seal, unseal, value

MAGIC: Final = b"\x89SETAIX\n"
VERSION: Final = 1
SUFFIX: Final = ".seta-index"
MEMBERS_FREE: Final = 1 << 22
MEMBERS_PER_BYTE: Final = 16
"""An index may tell of so many members in any case, and of so many for each of its bytes: constant columns take none,
so a few bytes could claim any number, and each member takes 60 bytes of memory. Real ones take half a byte or more."""
_MOST_FIELDS: Final = 1 << 16
_FEW_FIELDS: Final = 16
_KEY_LEVEL: Final = 2
"""zlib's effort for keys: more is slower by far and saves little on counters."""


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What a shard table needs of an index; read without building its columns.

    Args:
        shard_size: bytes of the shard object.
        shard_version: its ETag or modification time, as store.ObjectInfo gives it.
        tar_size: bytes of the tar stream: the shard's size, or more where the shard is compressed.
        seekable: whether offsets are offsets in the object; false for compressed shards.
        samples: number of samples.
        members: number of members.
        extent_bytes: sum of the samples' extents.
        digest: 16 bytes over keys, fields and sizes.
    """

    shard_size: int
    shard_version: str
    tar_size: int
    seekable: bool
    samples: int
    members: int
    extent_bytes: int
    digest: bytes


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the samples and members of one shard lie.

    Args:
        shard_size: bytes of the shard object that was scanned.
        shard_version: its ETag or modification time.
        tar_size: bytes of the tar stream, which all offsets lie in.
        seekable: whether offsets are offsets in the object; false for compressed shards.
        fields: distinct field names.
        first_member: int64 [samples+1]; the members of sample i are first_member[i] … first_member[i+1] − 1.
        member_field: uint16 [members], number in `fields`.
        member_offset: int64 [members], of the body.
        member_size: int64 [members], bytes of body.
        extent_start: int64 [samples], first header of the first member, extension headers included.
        extent_stop: int64 [samples], padded end of the last member.
        digest: 16 bytes over keys, fields and sizes; the same for a copy of the shard.
        packed_keys: the keys, each ended by a NUL, compressed by zlib.
        key_bytes: their length before compression.
    """

    shard_size: int
    shard_version: str
    tar_size: int
    seekable: bool
    fields: tuple[str, ...]
    first_member: NDArray[np.int64]
    member_field: NDArray[np.uint16]
    member_offset: NDArray[np.int64]
    member_size: NDArray[np.int64]
    extent_start: NDArray[np.int64]
    extent_stop: NDArray[np.int64]
    digest: bytes
    packed_keys: bytes
    key_bytes: int

    @classmethod
    def of(
        cls,
        samples: Samples,
        *,
        shard_size: int,
        shard_version: str,
        tar_size: int | None = None,
        seekable: bool = True,
    ) -> ShardIndex:
        """Return the index of a shard from its samples; `tar_size` is the shard's own size where it is not given."""
        return cls(
            shard_size=shard_size,
            shard_version=shard_version,
            tar_size=shard_size if tar_size is None else tar_size,
            seekable=seekable,
            fields=samples.fields,
            first_member=samples.first_member,
            member_field=samples.member_field,
            member_offset=samples.member_offset,
            member_size=samples.member_size,
            extent_start=samples.extent_start,
            extent_stop=samples.extent_stop,
            digest=_digest(samples),
            packed_keys=zlib.compress(samples.keys, _KEY_LEVEL),
            key_bytes=len(samples.keys),
        )

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.extent_start)

    @property
    def members(self) -> int:
        """Number of members that belong to a sample."""
        return len(self.member_offset)

    @property
    def extent_bytes(self) -> int:
        """Sum of the samples' extents."""
        return int((self.extent_stop - self.extent_start).sum())

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys, decompressed at first use.

        Raises:
            IndexFileError: the keys do not decompress to one per sample.
        """
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(self.packed_keys, self.key_bytes + 1)
        except zlib.error as error:
            raise malformed("the keys", "an index") from error
        keys = raw.decode("utf-8", "surrogateescape").split("\0")
        if len(raw) != self.key_bytes or not inflater.eof or len(keys) != self.samples + 1 or keys.pop():
            raise malformed("the keys", "an index")
        return keys

    def to_bytes(self) -> bytes:
        """Return the index as a file."""
        shapes, shape = shapes_of(self.first_member, self.member_field)
        # Everything in a tar lies on whole blocks. lead [samples]: blocks between two extents.
        lead = self.extent_start - np.concatenate([[0], self.extent_stop[:-1]])[: self.samples]
        # gap [members]: blocks of headers (and of what is skipped) between a member's body and what lies before it.
        before = np.concatenate([[0], self.member_offset[:-1] + padded(self.member_size[:-1])])[: self.members]
        before[self.first_member[:-1]] = self.extent_start
        columns = [shape, lead // BLOCK, (self.member_offset - before) // BLOCK]
        columns += [self.member_size[self.member_field == field] for field in range(len(self.fields))]
        packed = [pack(column) for column in columns]
        header = {
            "shard_size": self.shard_size,
            "shard_version": self.shard_version.encode("utf-8", "surrogateescape"),
            "tar_size": self.tar_size,
            "seekable": self.seekable,
            "samples": self.samples,
            "members": self.members,
            "extent_bytes": self.extent_bytes,
            "digest": self.digest,
            "fields": [field.encode("utf-8", "surrogateescape") for field in self.fields],
            "shapes": shapes,
            "columns": [plain for plain, _ in packed],
            "keys": [len(self.packed_keys), self.key_bytes],
        }
        return seal(MAGIC, VERSION, header, b"".join([*(data for _, data in packed), self.packed_keys]))

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "an index") -> ShardIndex:
        """Return the index that a file holds.

        Args:
            data: the whole file.
            source: its URL, for messages.

        Raises:
            IndexFileError: the file is damaged, foreign, of another version, or its content cannot be: no flipped bit
                and no crafted file gives offsets outside the shard, or more members than fit in it.
        """
        header, payload = unseal(data, MAGIC, VERSION, source)
        return _build(header, payload, source)


def read_header(data: bytes, source: str = "an index") -> IndexHeader:
    """Return the header of an index file, its checksum verified, without building columns or keys.

    Raises:
        IndexFileError: as for ShardIndex.from_bytes.
    """
    header, _ = unseal(data, MAGIC, VERSION, source)
    return _facts(header, source)


def head_bytes(data: bytes, source: str = "an index") -> int:
    """Return how many first bytes of an index file hold its header; the first 16 tell.

    Raises:
        IndexFileError: foreign, of another version, or cut short.
    """
    return sealed.head_bytes(data, MAGIC, VERSION, source)


def peek_header(data: bytes, source: str = "an index") -> IndexHeader:
    """Return the header of an index file from its first `head_bytes`, without the checksum of the whole file.

    Whoever uses it compares the samples and the digest once the whole file is read (indexing.Corpus does).

    Raises:
        IndexFileError: the header is malformed.
    """
    return _facts(sealed.peek(data, source), source)


def _facts(header: dict[str, Any], source: str) -> IndexHeader:
    numbers = {
        name: value(header, name, int, source)
        for name in ("shard_size", "tar_size", "samples", "members", "extent_bytes")
    }
    facts = IndexHeader(
        **numbers,
        shard_version=_text(value(header, "shard_version", bytes, source)),
        seekable=value(header, "seekable", bool, source),
        digest=value(header, "digest", bytes, source),
    )
    blocks = facts.tar_size // BLOCK
    if facts.members > blocks or facts.samples > facts.members or facts.extent_bytes > blocks * BLOCK:
        raise malformed("the number of samples, members or bytes", source)
    most = facts.shard_size if facts.seekable else most_unpacked(facts.shard_size)
    if len(facts.digest) != 16 or (facts.seekable and facts.tar_size != most) or facts.tar_size > most:
        raise malformed("the digest or size", source)
    return facts


def _build(header: dict[str, Any], payload: memoryview, source: str) -> ShardIndex:
    facts = _facts(header, source)
    fields = value(header, "fields", list, source)
    described = value(header, "columns", list, source)
    if not all(type(field) is bytes for field in fields) or len(described) != len(fields) + 3:
        raise malformed("the fields or columns in the header", source)
    if len(fields) > _MOST_FIELDS or facts.members > MEMBERS_FREE + MEMBERS_PER_BYTE * len(payload):
        raise malformed("the number of fields, or of members for so few bytes,", source)
    packed_keys, key_bytes = _key_lengths(header, facts.samples, len(payload), source)
    column, rest = _column_reader(described, payload, source)
    shape = column(0, facts.samples)
    lead = column(1, facts.samples)
    gap = column(2, facts.members)
    shapes = value(header, "shapes", list, source)
    first_member, member_field = members_of(shapes, shape, facts.members, len(fields), source)
    member_size = np.zeros(facts.members, np.int64)
    for field, mine in _members_by_field(member_field, len(fields)):
        member_size[mine] = column(3 + field, len(mine))
    offset, start, stop = places_of(first_member, lead, gap, member_size, facts.tar_size, source)
    if int((stop - start).sum()) != facts.extent_bytes:
        raise malformed("the sum of extents", source)
    if packed_keys != len(rest()):
        raise malformed("the length of the keys", source)
    return ShardIndex(
        shard_size=facts.shard_size,
        shard_version=facts.shard_version,
        tar_size=facts.tar_size,
        seekable=facts.seekable,
        fields=tuple(_text(field) for field in fields),
        first_member=first_member,
        member_field=member_field,
        member_offset=offset,
        member_size=member_size,
        extent_start=start,
        extent_stop=stop,
        digest=facts.digest,
        packed_keys=bytes(rest()),
        key_bytes=key_bytes,
    )


def _members_by_field(member_field: NDArray[np.uint16], fields: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Give each field's number and its members: int64 [n], ascending."""
    if fields <= _FEW_FIELDS:
        for field in range(fields):
            yield field, np.flatnonzero(member_field == field)
        return
    # Sorted once: to look for each of 65,536 fields among as many members would take seconds.
    order = np.argsort(member_field, kind="stable")
    stops = np.cumsum(np.bincount(member_field, minlength=fields))
    for field, (begin, stop) in enumerate(pairwise([0, *stops.tolist()])):
        yield field, order[begin:stop]


def _column_reader(
    described: list[Any], payload: memoryview, source: str
) -> tuple[Callable[[int, int], NDArray[np.int64]], Callable[[], memoryview]]:
    """Return what reads the next column (its number, its count), and what gives the bytes behind those read."""
    taken = 0

    def column(number: int, count: int) -> NDArray[np.int64]:
        nonlocal taken
        numbers, used = unpack(described[number], count, payload[taken:], source)
        taken += used
        return numbers

    return column, lambda: payload[taken:]


def _key_lengths(header: dict[str, Any], samples: int, available: int, source: str) -> tuple[int, int]:
    """Return the keys' length packed and unpacked; zlib never packs better than 1:1032, and a key has a byte."""
    match value(header, "keys", list, source):
        case [int(packed), int(unpacked)] if 0 <= packed <= available and 2 * samples <= unpacked <= 1032 * packed:
            return packed, unpacked
        case _:
            raise malformed("the length of the keys", source)


def _digest(samples: Samples) -> bytes:
    """Return 16 bytes over keys, fields and sizes; offsets are left out, so that a repacked copy matches."""
    hasher = hashlib.blake2b(digest_size=16, person=b"seta-index-1")
    fields = "\0".join(samples.fields).encode("utf-8", "surrogateescape")
    parts = (
        samples.keys,
        fields,
        np.diff(samples.first_member).astype("<u4").tobytes(),
        samples.member_field.astype("<u2").tobytes(),
        samples.member_size.astype("<u8").tobytes(),
    )
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
