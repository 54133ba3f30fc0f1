"""A new shard while it is written: nobody sees it before `publish`, and nothing is left of it otherwise.

Takes bytes in sequence; gives the version of what was published. Acts: writes a hidden file beside the shard's place,
and renames it; or, for a bucket, a temporary file without a name, which is put whole and read back.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol, Self

from seta_stream.errors import ArgumentError, CorpusError, ReadError
from seta_stream.repack.holding import GROUP_BYTES, SPAN_BYTES, Costs, read_at
from seta_stream.store import ObjectInfo, Options, Store, is_local, local_path, store_for

_TEMPORARY: Final = re.compile(r"^\.(.+)\.[0-9a-f]{16}\.tmp$")
"""Names of hidden files: these here, and what the local store writes an index or a record to."""


class Draft(Protocol):
    """A new shard that is being written."""

    @property
    def fd(self) -> int:
        """The descriptor that what was written is read from."""
        ...

    def write(self, data: bytes) -> None:
        """Add bytes."""
        ...

    def publish(self, costs: Costs) -> ObjectInfo:
        """Make the shard be there, whole, in one step; return its version."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Remove what was not published."""
        ...


def draft_for(url: str, size: int, options: Options | None, *, is_there: bool) -> Draft:
    """Return a draft of a shard.

    Args:
        url: where it goes.
        size: its bytes in the end.
        options: of the file system.
        is_there: whether something of this name may be there.

    Raises:
        ArgumentError: something is there that an earlier start of this repack cannot have left.
        ReadError: the folder cannot be written.
    """
    store = store_for(url, options)
    if is_there and store.exists(url):
        found = store.info(url).size
        if found != size:
            raise ArgumentError(
                f"Cannot write {url}: a file of {found} bytes is there, and this repack writes {size}, so it is "
                "another's. Move it away, or repack into another folder.",
                shard=url,
                expected=size,
                found=found,
            )
    with writing(url):
        return LocalDraft(url) if is_local(url) else RemoteDraft(url, store)


class LocalDraft:
    """A hidden file in the shard's folder."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = local_path(url)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._path.with_name(f".{self._path.name[:80]}.{secrets.token_hex(8)}.tmp")
        self.fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        with writing(self._url):
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view) :]

    def publish(self, costs: Costs) -> ObjectInfo:  # noqa: ARG002  (what a bucket costs)
        """Flush to the disk and rename."""
        with writing(self._url):
            os.fsync(self.fd)
            self._temporary.replace(self._path)
        return store_for(self._url).info(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self._temporary.unlink(missing_ok=True)


class RemoteDraft:
    """A temporary file without a name on this machine, which is put whole."""

    def __init__(self, url: str, store: Store) -> None:
        self._url = url
        self._store = store
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by __exit__)
        self.fd = self._file.fileno()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add bytes."""
        with writing(self._url):
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view) :]
        self._size += len(data)

    def publish(self, costs: Costs) -> ObjectInfo:
        """Put the shard, and compare what the store then gives with what was put, byte by byte.

        Raises:
            CorpusError: the store gives something else; it is removed.
        """
        with writing(self._url):
            self._store.write(self._url, read_at(self.fd, 0, self._size))
        info = self._store.info(self._url)
        costs.requests += 2 + -(-self._size // SPAN_BYTES)
        costs.bytes += self._size
        if info.size != self._size or not self._is_same(info):
            self._store.remove(self._url)
            raise CorpusError(
                f"Cannot repack into {self._url}: the store gives other bytes than it was given, so the object was "
                "removed. Run the command again; if it happens again, the store or what lies before it is at fault.",
                shard=self._url,
                expected=self._size,
                found=info.size,
            )
        return info

    def _is_same(self, info: ObjectInfo) -> bool:
        file = self._store.open(self._url, info)
        try:
            for group in range(0, self._size, GROUP_BYTES):
                stop = min(group + GROUP_BYTES, self._size)
                spans = [(at, min(SPAN_BYTES, stop - at)) for at in range(group, stop, SPAN_BYTES)]
                for (at, length), part in zip(spans, file.read_spans(spans), strict=True):
                    if part != read_at(self.fd, at, length):
                        return False
            return True
        finally:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_file(url: str, data: bytes, options: Options | None) -> int:
    """Write a small file whole; return its bytes.

    Raises:
        ReadError: it cannot be written.
    """
    with writing(url):
        store_for(url, options).write(url, data)
    return len(data)


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Turn what the operating system or a client raises while writing into an error that says what to do.

    Raises:
        ReadError: in place of any OSError that is not one of the package's own.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"Cannot write {url}: {error}. What is finished stays: free space there, or give the rights to write, and "
            "run the same command again; it goes on with the next shard.",
            shard=url,
            expected="a place that can be written",
            found=str(error),
        ) from error


def remove_left_over(folder: str, names: frozenset[str]) -> None:
    """Remove the hidden files that a killed start left in a local folder.

    Args:
        folder: of the new shards or their records.
        names: of the files that a repack writes there; hidden files of other names stay.
    """
    begins = {name[:80] for name in names}
    for path in Path(local_path(folder)).glob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and match[1] in begins:
            path.unlink(missing_ok=True)
