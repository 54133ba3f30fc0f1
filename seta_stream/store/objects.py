"""What a store is: objects by URL, and handles that are read by position."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from seta_stream.errors import ReadError

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What identifies one version of an object: its size in bytes, and its ETag or modification time."""

    size: int
    version: str


class ShardFile(Protocol):
    """An open object that is read by position."""

    @property
    def url(self) -> str:
        """Where the object lies."""
        ...

    @property
    def info(self) -> ObjectInfo:
        """Size and version as of the opening."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`; ReadError where the object ends before."""
        ...

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order."""
        ...

    def check(self) -> None:
        """Refuse an object that is known to have changed since the opening: ShardChangedError."""
        ...

    def advise_scattered(self) -> None:
        """Tell the store that small reads far apart follow, so that nothing is read ahead."""
        ...

    def close(self) -> None:
        """Give the handle back; closing twice is harmless."""
        ...


class Store(Protocol):
    """Objects of one protocol, by URL."""

    def info(self, url: str) -> ObjectInfo:
        """Return size and version; ReadError where there is no such object."""
        ...

    def read(self, url: str) -> bytes:
        """Return the whole object; ReadError where there is none."""
        ...

    def write(self, url: str, data: bytes) -> None:
        """Replace the object whole: a reader sees the old bytes or the new ones."""
        ...

    def exists(self, url: str) -> bool:
        """Say whether an object or folder is there."""
        ...

    def names(self, url: str) -> list[str]:
        """Return the names directly inside a folder, sorted; empty where there is no such folder."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """Return the URLs that match, sorted."""
        ...

    def remove(self, url: str) -> None:
        """Remove an object, or a folder with all in it; harmless where there is none."""
        ...

    def open(self, url: str) -> ShardFile:
        """Open for positional reads; ReadError where there is no such object."""
        ...

    def open_stream(self, url: str) -> IO[bytes]:
        """Open for reading in sequence; ReadError where there is no such object."""
        ...


def _failed(url: str, error: Exception) -> ReadError:
    if isinstance(error, FileNotFoundError):
        message = f"Cannot read {url}: there is no such file. Check the path or pattern."
    elif isinstance(error, PermissionError):
        message = f"Cannot read {url}: permission denied. Check the credentials or the file's mode."
    else:
        message = f"Cannot read {url}: {error}."
    return ReadError(message, shard=url)


def short_read(url: str, offset: int, length: int, found: int) -> ReadError:
    """Return the error of an object that ends before the bytes wanted."""
    return ReadError(
        f"Cannot read {url}: {length} bytes were wanted at offset {offset} and {found} are there. The shard is "
        "truncated or changed since it was indexed: restore it, or run `seta-stream index` again.",
        shard=url,
        offset=offset,
        expected=length,
        found=found,
    )


@contextlib.contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn whatever the operating system or a client raises while reading into a ReadError that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise _failed(url, error) from error
