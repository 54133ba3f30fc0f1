"""The cache's folder: how much it holds, who uses what, and what goes when it is full.

Takes names of shards; gives room. Effects: files in one folder of its own, and nothing outside it. No lock is ever
waited for and no file stands for one: a claim is a list of names, and whether its run lives is told by the flock on the
file's own descriptor, which ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from seta_stream.read.cache_format import NAME_BYTES

OWN_FOLDER: Final = "seta-cache-1"
SHARE_OF_FREE: Final = 0.5
"""Of the disk's free bytes and the cache's own, where no max_bytes is given."""
ROOM_SHARE: Final = 32
"""Clearing makes room for 1/32 of the cache at once, so that it is not done for every block."""
UNFINISHED_S: Final = 3600.0
CLAIM_ATTEMPTS: Final = 3
TAG: Final = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of seta_stream: it may be removed at any time.\n"
"""Tells backup programs to leave the folder out. Source: https://bford.info/cachedir/."""

_OBJECT: Final = re.compile(r"([0-9a-f]{32})\.blocks(\.[0-9a-f]{16}\.tmp)?")
_CLAIM: Final = re.compile(r"[0-9a-f]{32}\.claim")


class Held(NamedTuple):
    """One file of the cache."""

    used_at: float
    size: int
    name: bytes
    path: str
    is_unfinished: bool


class CacheFolder:
    """One process's view of the folder.

    Args:
        folder: where the cache's own folder lies or is made.
        max_bytes: on disk, over all processes that share the folder; None for half of what is free.
        block_bytes: of a block.
    """

    def __init__(self, folder: str, max_bytes: int | None, block_bytes: int) -> None:
        self.path = Path(folder).expanduser().absolute() / OWN_FOLDER
        self.objects, self._claims = self.path / "blocks", self.path / "claims"
        self._given_bytes = max_bytes
        self._block_bytes = block_bytes
        self._maker = os.getpid()
        self._claim: tuple[int, Path] | None = None
        self._ledger = -1
        self._counted: tuple[int, int] | None = None  # bytes on disk, and the ledger's length before they were counted
        self.limit = max_bytes or 0

    def make(self) -> None:
        """Make what is missing.

        Raises:
            OSError: it cannot be made.
        """
        for folder in (self.objects, self._claims):
            folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process made it, or somebody laid a link there
            fd = os.open(self.path / "CACHEDIR.TAG", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(fd, "wb") as file:
                file.write(TAG)

    def file_of(self, name: bytes) -> Path:
        """Return where the blocks of a shard lie."""
        return self.objects / f"{name.hex()}.blocks"

    # ---- how much it holds

    def reserve(self, blocks: int) -> bool:
        """Say whether so many more blocks fit; where they do, they count at once for every process.

        Each one adds a byte to a common file before the block is written: its length tells all processes how many were
        added since they counted, without a lock.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        if not self.has_room(blocks):
            return False
        os.write(self._ledger, bytes(blocks))
        return True

    def has_room(self, blocks: int) -> bool:
        """Say whether so many more blocks fit, after clearing away what no live run uses."""
        wanted = blocks * self._block_bytes
        if self._most_held() + wanted <= self.limit:
            return True
        # Blocks that were fetched twice count twice, and others may have cleared some: look again.
        excess = self.count() + wanted - self.limit
        return excess <= 0 or self.clear(excess) >= excess

    def _most_held(self) -> int:
        """Return the most that may be on disk: what was counted, and all that any process reserved since."""
        now = self._ledger_bytes()
        if self._counted is None:
            self.count()
            now = self._ledger_bytes()
        held, since = self._counted or (0, now)
        return held + (now - since) * self._block_bytes

    def _ledger_bytes(self) -> int:
        if self._ledger >= 0:
            status = os.fstat(self._ledger)
            if status.st_nlink:
                return status.st_size
            os.close(self._ledger)
            self._ledger = -1
        # A link there would have us write to another file of this user.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._ledger = os.open(self.path / "stored", flags, 0o666)
        self._counted = None
        return os.fstat(self._ledger).st_size

    def count(self) -> int:
        """Count the bytes on disk; other processes do not stop meanwhile."""
        since = self._ledger_bytes()
        held = sum(one.size for one in self._held())
        self._counted = held, since
        if self._given_bytes is None:
            free = os.statvfs(self.path)
            self.limit = int((free.f_bavail * free.f_frsize + held) * SHARE_OF_FREE)
        return held

    def _held(self) -> Iterator[Held]:
        with suppress(FileNotFoundError), os.scandir(self.objects) as entries:
            for entry in entries:
                named = _OBJECT.fullmatch(entry.name)
                if named is None:
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    name = bytes.fromhex(named[1])
                    size = status.st_blocks * 512
                    yield Held(status.st_mtime, size, name, entry.path, named[2] is not None)

    # ---- who uses what

    def claim(self, names: bytes) -> None:
        """Tell other runs which shards this process uses, until it ends: they are not cleared away.

        Args:
            names: of the shards, one after another.

        Raises:
            OSError: the folder cannot be written to.
        """
        for _ in range(CLAIM_ATTEMPTS):
            path = self._claims / f"{secrets.token_hex(16)}.claim"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._claim = fd, path
            # Where the file system has no locks, others see that too, and clear nothing that is claimed.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.write(fd, names)
            if os.fstat(fd).st_nlink:
                return
            self._give_up_claim()  # it was not locked yet when another process looked at it

    def _claimed(self) -> set[bytes]:
        """Return the names that live runs use; the claims of ended ones go."""
        names: set[bytes] = set()
        with suppress(FileNotFoundError), os.scandir(self._claims) as entries:
            for entry in entries:
                if _CLAIM.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        names |= _names_if_alive(Path(entry.path))
        return names

    def clear(self, wanted: int) -> int:
        """Remove what no live run uses, least recently used first; return the bytes that this gave back.

        Args:
            wanted: so many bytes at least, where there are.
        """
        claimed, young = self._claimed(), time.time() - UNFINISHED_S
        gone = [one for one in self._held() if (one.used_at < young if one.is_unfinished else one.name not in claimed)]
        freed, wanted = 0, max(wanted, self.limit // ROOM_SHARE)
        for one in sorted(gone):
            if freed >= wanted:
                break
            with suppress(FileNotFoundError):
                Path(one.path).unlink()
                freed += one.size
        if freed and self._counted is not None:
            self._counted = self._counted[0] - freed, self._counted[1]
        return freed

    def close(self) -> None:
        """Give the claim up and close what is open."""
        self._give_up_claim()
        if self._ledger >= 0:
            os.close(self._ledger)
            self._ledger = -1

    def _give_up_claim(self) -> None:
        """A forked child only closes its copy: the claim is its parent's."""
        if self._claim is not None:
            fd, path = self._claim
            self._claim = None
            os.close(fd)
            if os.getpid() == self._maker:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def __del__(self) -> None:
        self.close()


def _names_if_alive(path: Path) -> set[bytes]:
    """Return what a claim lists, or nothing where its process has ended."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A file system without locks refuses as well: there, all count as alive.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return set()
        data = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    return {data[at : at + NAME_BYTES] for at in range(0, len(data), NAME_BYTES)}
