"""Files of this machine: atomic renames and positional reads, by the operating system alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.store.objects import LateAnswer, ObjectInfo, reading, short_read
from seta_stream.store.urls import local_path

if TYPE_CHECKING:
    from seta_stream.store.engine import Engine

READS_PER_CHECK: Final = 16
"""Single reads between two looks at whether the file was written to; a look costs a tenth of a photo's read."""


class LocalFile:
    """A local object; reads are positional, so threads may share one."""

    __slots__ = ("_time", "_unchecked", "fd", "info", "url")

    is_near = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.fd = -1
        with reading(url):
            self.fd = os.open(local_path(url), os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self.fd)
        self.info, self._time = _info_of(status), status.st_mtime_ns
        self._unchecked = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        return self.read_spans([(offset, length)])[0]

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[LateAnswer]:
        """Return answers that are read when they are wanted."""
        return [LateAnswer(self.read, offset, length) for offset, length in spans]

    def check(self) -> None:
        """Refuse an object that was written to since it was opened; asked for every few reads, and once all is read.

        Raises:
            ShardChangedError: its size or time is another.
        """
        self._unchecked = 0
        status = os.fstat(self.fd)
        if status.st_mtime_ns != self._time or status.st_size < self.info.size:
            raise ShardChangedError(
                f"{self.url} is truncated or changed since it was opened: its size or time is another. Restore it, or "
                "run `seta-stream index` again and start the epoch anew.",
                shard=self.url,
                expected=self.info,
                found=_info_of(status),
            )

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order."""
        fd, pread = self.fd, os.pread
        try:
            parts = [pread(fd, length, offset) for offset, length in spans]
        except MemoryError as error:
            raise self._too_large(spans) from error
        if sum(map(len, parts)) != sum([length for _, length in spans]):
            self.check()
            pairs = zip(spans, parts, strict=True)
            return [self._read_rest(offset, length, part) for (offset, length), part in pairs]
        self._unchecked += len(parts)
        if self._unchecked >= READS_PER_CHECK:
            self.check()
        return parts

    def _too_large(self, spans: Sequence[tuple[int, int]]) -> ReadError:
        offset, length = max(spans, key=lambda span: span[1])
        return ReadError(
            f"Cannot read {length:,} bytes at byte {offset} of {self.url}: there is not so much memory. Leave the "
            "member out with fields=, or the shard out of the corpus.",
            shard=self.url,
            offset=offset,
            found=length,
        )

    def _read_rest(self, offset: int, length: int, data: bytes) -> bytes:
        """One call returns at most 2 GiB, and fewer bytes only where the file ends."""
        parts = [data]
        found = len(data)
        while found < length and parts[-1]:
            parts.append(os.pread(self.fd, length - found, offset + found))
            found += len(parts[-1])
        if found < length:
            raise short_read(self.url, offset, length, found)
        return b"".join(parts)

    def advise_scattered(self) -> None:
        """Switch the kernel's read-ahead off for this handle."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _info_of(status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(size=status.st_size, version=f"mtime:{status.st_mtime_ns}")


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """Write a file under a temporary name in the folder of `path`, down to the disk; it goes unless it is renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


class LocalStore:
    """Files of this machine."""

    def info(self, url: str) -> ObjectInfo:
        """Return size and modification time."""
        with reading(url):
            return _info_of(os.stat(local_path(url)))

    def read(self, url: str) -> bytes:
        """Return the whole file."""
        with reading(url):
            return local_path(url).read_bytes()

    def write(self, url: str, data: bytes) -> None:
        """Write under a temporary name in the same folder, flush to the disk, and rename."""
        path = local_path(url)
        with _written_beside(path, data) as temporary:
            temporary.replace(path)

    def create(self, url: str, data: bytes) -> bool:
        """Write an object where there is none; return whether these bytes are there now."""
        path = local_path(url)
        with _written_beside(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return path.read_bytes() == data
        return True

    def exists(self, url: str) -> bool:
        """Say whether a file or folder is there."""
        return local_path(url).exists()

    def infos(self, url: str) -> dict[str, ObjectInfo]:
        """Return size and version of the files directly in a folder, by name; empty where there is no such folder."""
        try:
            with os.scandir(local_path(url)) as entries:
                return {entry.name: _info_of(entry.stat()) for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def accepts_ranges(self, url: str) -> bool:  # noqa: ARG002  (of any file)
        """Say that parts of a file can be read."""
        return True

    def names(self, url: str) -> list[str]:
        """Return the names directly inside a folder, sorted."""
        try:
            return sorted(os.listdir(local_path(url)))  # noqa: PTH208  (names, not paths)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def glob(self, pattern: str) -> list[str]:
        """Return the paths that match, sorted."""
        from glob import glob  # noqa: PLC0415  (rarely needed)

        return sorted(glob(str(local_path(pattern)), recursive=True))  # noqa: PTH207  (patterns are absolute)

    def remove(self, url: str) -> None:
        """Remove a file, or a folder with all in it."""
        path = local_path(url)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def open(
        self,
        url: str,
        info: ObjectInfo | None = None,  # noqa: ARG002  (looking costs nothing here)
        *,
        engine: Engine | None = None,  # noqa: ARG002  (files need none)
    ) -> LocalFile:
        """Open for positional reads."""
        return LocalFile(url)

    def open_stream(self, url: str) -> IO[bytes]:
        """Open for reading in sequence."""
        with reading(url):
            return local_path(url).open("rb")
