"""Objects behind fsspec: one put replaces an object whole, one ranged request is one read.

The only file of the package that imports fsspec.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import IO, Any

import fsspec

from seta_stream.errors import ArgumentError
from seta_stream.store.objects import ObjectInfo, reading, short_read


class FsspecFile:
    """An object behind fsspec; each read is one ranged request."""

    __slots__ = ("_fs", "info", "url")

    def __init__(self, fs: Any, url: str, info: ObjectInfo) -> None:
        self._fs = fs
        self.url = url
        self.info = info

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order; many requests are in flight at once."""
        starts = [offset for offset, _ in spans]
        stops = [offset + length for offset, length in spans]
        with reading(self.url):
            parts = [bytes(part) for part in self._fs.cat_ranges([self.url] * len(spans), starts, stops)]
        for (offset, length), part in zip(spans, parts, strict=True):
            if len(part) != length:
                raise short_read(self.url, offset, length, len(part))
        return parts

    def check(self) -> None:
        """Each request stands alone; what changed shows at the next opening."""

    def advise_scattered(self) -> None:
        """Ranged requests read nothing ahead."""

    def close(self) -> None:
        """Nothing is held."""


class FsspecStore:
    """Objects of any protocol that fsspec knows."""

    def __init__(self, protocol: str, options: dict[str, Any]) -> None:
        try:
            self._fs = fsspec.filesystem(protocol, **options)
        except (ImportError, ValueError) as error:
            raise ArgumentError(
                f"URLs that begin with {protocol}:// cannot be read: {error}. Install the package that fsspec names, "
                "or check the spelling."
            ) from error

    def info(self, url: str) -> ObjectInfo:
        """Return size, and ETag or what the protocol has in its place."""
        with reading(url):
            facts = self._fs.info(url)
        named = (facts.get(name) for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created"))
        version = next((str(value) for value in named if value is not None), "")
        return ObjectInfo(size=int(facts["size"]), version=f"etag:{version}")

    def read(self, url: str) -> bytes:
        """Return the whole object."""
        with reading(url):
            return bytes(self._fs.cat_file(url))

    def write(self, url: str, data: bytes) -> None:
        """Replace the object by one put."""
        self._fs.makedirs(url.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(url, data)

    def exists(self, url: str) -> bool:
        """Say whether an object or prefix is there."""
        return bool(self._fs.exists(url))

    def names(self, url: str) -> list[str]:
        """Return the names directly under a prefix, sorted."""
        self._fs.invalidate_cache()
        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(url, detail=False))
        except FileNotFoundError:
            return []

    def glob(self, pattern: str) -> list[str]:
        """Return the URLs that match, sorted."""
        return sorted(self._fs.unstrip_protocol(path) for path in self._fs.glob(pattern))

    def remove(self, url: str) -> None:
        """Remove an object, or everything under a prefix."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(url, recursive=True)

    def open(self, url: str) -> FsspecFile:
        """Open for ranged reads."""
        return FsspecFile(self._fs, url, self.info(url))

    def open_stream(self, url: str) -> IO[bytes]:
        """Open for reading in sequence."""
        with reading(url):
            stream: IO[bytes] = self._fs.open(url, "rb")
        return stream
