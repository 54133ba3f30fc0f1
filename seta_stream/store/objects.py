"""What a store is: objects by URL, and handles that are read by position."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from seta_stream.errors import ReadError

if TYPE_CHECKING:
    from seta_stream.store.engine import Engine

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What identifies one version of an object: its size in bytes, and its ETag or modification time."""

    size: int
    version: str


Bytes = bytes | memoryview


class Answer(Protocol):
    """One byte range that was asked for."""

    def result(self) -> Bytes:
        """Wait, and return exactly the bytes asked for; ReadError or ShardChangedError where they cannot be had."""
        ...

    def cancel(self) -> Any:
        """Give it up; harmless where it has come already."""
        ...


class LateAnswer:
    """An answer that is read when it is wanted: of a file, or of what is read in sequence.

    Args:
        read: (offset, length) → bytes.
        offset, length: the range.
    """

    __slots__ = ("_length", "_offset", "_read")

    def __init__(self, read: Callable[[int, int], bytes], offset: int, length: int) -> None:
        self._read = read
        self._offset = offset
        self._length = length

    def result(self) -> bytes:
        """Read now."""
        return self._read(self._offset, self._length)

    def cancel(self) -> None:
        """Nothing is under way."""


class ShardFile(Protocol):
    """An open object that is read by position."""

    @property
    def url(self) -> str:
        """Where the object lies."""
        ...

    @property
    def is_near(self) -> bool:
        """Whether a read costs what a local one does, so that small gaps are merged and no waste is counted."""
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

    def ask(self, spans: Sequence[tuple[int, int]]) -> Sequence[Answer]:
        """Begin to read each (offset, length), the first ones first, and return at once."""
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

    def create(self, url: str, data: bytes) -> bool:
        """Write an object where there is none; return whether these bytes are there now."""
        ...

    def exists(self, url: str) -> bool:
        """Say whether an object or folder is there."""
        ...

    def infos(self, url: str) -> dict[str, ObjectInfo]:
        """Return size and version of every object directly in a folder, by name, as `info` does but in one listing.

        Empty where there is no such folder, and where the protocol does not list.
        """
        ...

    def accepts_ranges(self, url: str) -> bool:
        """Say whether parts of an object can be read; only web servers may not allow it."""
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

    def open(self, url: str, info: ObjectInfo | None = None, *, engine: Engine | None = None) -> ShardFile:
        """Open for positional reads; ReadError where there is no such object.

        Args:
            url: the object.
            info: the version wanted, where it is known: a remote store need not ask for it then, and reading another
                one is a ShardChangedError.
            engine: whose limits hold for a remote object; None for an engine that all of this process share.
        """
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
