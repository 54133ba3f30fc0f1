"""Ids ↔ places: the table of a corpus's shards, and its file format.

Takes what listing and indexing found; gives, for ids, shard and position. Pure. An id is the sample's number in corpus
order, int64. The format of the `corpus` file is described byte by byte in docs/formats/index.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.sealed import malformed, seal, unseal, value
from seta_stream.errors import ArgumentError

MAGIC: Final = b"\x89SETACO\n"
VERSION: Final = 1
_NUMBERS: Final = ("sizes", "samples", "extent_bytes")


class ShardFacts(Protocol):
    """What the table holds of a shard; see index.IndexHeader."""

    @property
    def shard_size(self) -> int: ...  # noqa: D102
    @property
    def shard_version(self) -> str: ...  # noqa: D102
    @property
    def seekable(self) -> bool: ...  # noqa: D102
    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def extent_bytes(self) -> int: ...  # noqa: D102
    @property
    def digest(self) -> bytes: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard of a table."""

    shard_size: int
    shard_version: str
    seekable: bool
    samples: int
    extent_bytes: int
    digest: bytes


@dataclass(frozen=True, eq=False)
class ShardTable:
    """The shards of a corpus, in order.

    Args:
        urls: normalised URLs.
        sizes: int64 [shards], bytes of each object.
        versions: ETag or modification time of each.
        samples: int64 [shards].
        extent_bytes: int64 [shards], sum of the extents of each shard's samples.
        digests: 16 bytes each, over keys, fields and sizes.
        seekable: bool [shards], false for compressed shards.
    """

    urls: tuple[str, ...]
    sizes: NDArray[np.int64]
    versions: tuple[str, ...]
    samples: NDArray[np.int64]
    extent_bytes: NDArray[np.int64]
    digests: tuple[bytes, ...]
    seekable: NDArray[np.bool_]

    @classmethod
    def of(cls, urls: Sequence[str], headers: Sequence[ShardFacts]) -> ShardTable:
        """Return the table of shards whose indexes have these headers."""
        return cls(
            urls=tuple(urls),
            sizes=np.array([header.shard_size for header in headers], np.int64),
            versions=tuple(header.shard_version for header in headers),
            samples=np.array([header.samples for header in headers], np.int64),
            extent_bytes=np.array([header.extent_bytes for header in headers], np.int64),
            digests=tuple(header.digest for header in headers),
            seekable=np.array([header.seekable for header in headers], np.bool_),
        )

    def rows(self) -> Iterator[ShardRow]:
        """Give each shard's row; `ShardTable.of` takes them again."""
        columns = (self.sizes.tolist(), self.versions, self.seekable.tolist(), self.samples.tolist())
        return map(ShardRow, *columns, self.extent_bytes.tolist(), self.digests)

    @cached_property
    def first_id(self) -> NDArray[np.int64]:
        """int64 [shards+1]: the ids of shard s are first_id[s] … first_id[s+1] − 1."""
        return np.concatenate([[0], np.cumsum(self.samples)]).astype(np.int64)

    @property
    def total(self) -> int:
        """Number of samples in the corpus."""
        return int(self.first_id[-1])

    @property
    def mean_bytes(self) -> float:
        """Mean extent of a sample; 0 where there is none."""
        return float(self.extent_bytes.sum()) / max(1, self.total)

    def __len__(self) -> int:
        return len(self.urls)

    def locate(self, ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shard and the position in it of each id: int64 [n], int64 [n].

        Raises:
            ArgumentError: an id is not in the corpus.
        """
        numbers = np.asarray(ids, np.int64)
        if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= self.total):
            worst = int(numbers.min()) if int(numbers.min()) < 0 else int(numbers.max())
            raise ArgumentError(
                f"Cannot locate id {worst}: the corpus has {self.total} samples, whose ids are 0 … {self.total - 1}. "
                "Pass ids as the stream gave them in `__index__`.",
                expected=f"0 … {self.total - 1}",
                found=worst,
            )
        # side="right" steps over empty shards, which begin where the next one does.
        shard = np.searchsorted(self.first_id, numbers, side="right") - 1
        return shard, numbers - self.first_id[shard]

    def fingerprint(self) -> bytes:
        """Return 16 bytes over the shards' digests in order: the same for a copy of the corpus at another place."""
        hasher = hashlib.blake2b(digest_size=16, person=b"seta-corpus-1")
        for digest in self.digests:
            hasher.update(digest)
        return hasher.digest()

    def to_bytes(self) -> bytes:
        """Return the table as a file."""
        header = {
            "shards": len(self),
            "urls": [url.encode("utf-8", "surrogateescape") for url in self.urls],
            "versions": [version.encode("utf-8", "surrogateescape") for version in self.versions],
        }
        numbers = [column.astype("<i8").tobytes() for column in (self.sizes, self.samples, self.extent_bytes)]
        payload = b"".join([*numbers, self.seekable.astype(np.uint8).tobytes(), *self.digests])
        return seal(MAGIC, VERSION, header, payload)

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "a shard table") -> ShardTable:
        """Return the table that a file holds.

        Args:
            data: the whole file.
            source: its URL, for messages.

        Raises:
            IndexFileError: the file is damaged, foreign, of another version, or its content cannot be.
        """
        header, payload = unseal(data, MAGIC, VERSION, source)
        shards = value(header, "shards", int, source)
        texts = [value(header, name, list, source) for name in ("urls", "versions")]
        if any(len(column) != shards or not all(type(text) is bytes for text in column) for column in texts):
            raise malformed("the list of URLs or versions", source)
        if len(payload) != shards * (8 * len(_NUMBERS) + 1 + 16):
            raise malformed("the length of the columns", source)
        urls, versions = (tuple(text.decode("utf-8", "surrogateescape") for text in column) for column in texts)
        sizes, samples, extent_bytes = np.frombuffer(payload, "<i8", 3 * shards).astype(np.int64).reshape(3, shards)
        flags = np.frombuffer(payload, np.uint8, shards, 24 * shards)
        if (min(sizes.min(initial=0), samples.min(initial=0), extent_bytes.min(initial=0)) < 0) or (flags > 1).any():
            raise malformed("a number in the columns", source)
        if float(samples.sum(dtype=np.float64)) > 1 << 60:
            raise malformed("the number of samples", source)
        digests = tuple(bytes(payload[at : at + 16]) for at in range(25 * shards, 41 * shards, 16))
        return cls(urls, sizes, versions, samples, extent_bytes, digests, flags.astype(np.bool_))
