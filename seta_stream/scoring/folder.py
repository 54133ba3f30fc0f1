"""<state>/scoring: the shards that are scored, until all are and a generation holds them.

Takes and gives ShardLosses. Acts: reads and writes the folder. A shard is there once its sidecar is, whole or not at
all; its failures, where it has some, are written before. They lie in a folder named by what they depend on: in a
bucket, which has no locks, another model may be at work in the same state, and its losses must never pass for these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from seta_stream.corpus.ids import ShardTable
from seta_stream.errors import ReadError, StateError
from seta_stream.foreign import read_json
from seta_stream.losses.sidecar import pack, unpack
from seta_stream.scoring.shard import CAUSES, Cause, Failure, ShardLosses
from seta_stream.store import Options, join, store_for

FOLDER: Final = "scoring"
_MANIFEST: Final = "wanted.json"
_IN_FLIGHT: Final = 16


class Folder:
    """What is scored so far, for one state.

    Args:
        state: folder or URL.
        options: of its file system.
        wanted: what the losses depend on, as plain values.

    Raises:
        StateError: from all of its methods, where the folder cannot be written.
    """

    def __init__(self, state: str, options: Options | None, wanted: Mapping[str, Any]) -> None:
        self.url = join(state, FOLDER)
        self._store = store_for(state, options)
        self._wanted = wanted
        self._own = hashlib.blake2b(json.dumps(wanted, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def is_begun(self) -> bool:
        """Whether a shard of these losses is there."""
        return bool(self._store.names(join(self.url, self._own)))

    def begin(self, *, restart: bool) -> None:
        """Go on with what is there, or begin.

        Args:
            restart: whether what is there is thrown away.

        Raises:
            StateError: what is there was made with something else.
        """
        names = self._store.names(self.url)
        if restart:
            self.remove()
        elif _MANIFEST in names and any(self._store.names(join(self.url, name)) for name in {*names} - {_MANIFEST}):
            self._check(self._store.read(join(self.url, _MANIFEST)))
            return
        self._write(json.dumps(self._wanted).encode(), _MANIFEST)

    def _check(self, data: bytes) -> None:
        wanted = self._wanted
        try:
            found = dict(read_json(data))
        except (ValueError, TypeError):
            found = {}
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            told = "; ".join(f"{name} {found.get(name)!r}, and now {wanted[name]!r}" for name in differing)
            raise StateError(
                f"Cannot go on with the losses in {self.url}: they were begun with {told}. Give what it began with, or "
                "--restart to throw them away.",
                expected={name: found.get(name) for name in differing},
                found={name: wanted[name] for name in differing},
            )

    def finished(self, table: ShardTable) -> Iterator[ShardLosses]:
        """Give what is kept of the shards of a corpus and fits them."""
        names = frozenset(self._store.names(join(self.url, self._own)))
        there = [shard for shard in range(len(table)) if _losses(shard) in names]
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for done in pool.map(
                lambda one: self._read(one, table.digests[one], int(table.samples[one]), names), there
            ):
                if done is not None:
                    yield done

    def _read(self, shard: int, digest: bytes, samples: int, names: frozenset[str]) -> ShardLosses | None:
        try:
            held = unpack(self._store.read(join(self.url, self._own, _losses(shard))), digest, name=_losses(shard))
            told = b'{"failed": {}, "failures": []}'
            if _failures(shard) in names:
                told = self._store.read(join(self.url, self._own, _failures(shard)))
            failed, failures = parse_failures(told)
        except (StateError, ReadError):
            return None  # damaged: it is scored again
        return ShardLosses(shard, held.losses, failed, failures) if len(held.losses) == samples else None

    def keep(self, done: ShardLosses, digest: bytes) -> None:
        """Write a shard that is done."""
        if any(done.failed.values()):
            told = {"failed": dict(done.failed), "failures": [asdict(one) for one in done.failures]}
            self._write(json.dumps(told).encode(), self._own, _failures(done.shard))
        data = pack(done.losses, np.zeros(len(done.losses), np.uint8), digest)
        self._write(data, self._own, _losses(done.shard))

    def remove(self) -> None:
        """Remove all of it: the manifest at last, so that what a crash leaves still has one."""
        for name in {*self._store.names(self.url)} - {_MANIFEST}:
            self._store.remove(join(self.url, name))
        self._store.remove(self.url)

    def _write(self, data: bytes, *names: str) -> None:
        url = join(self.url, *names)
        try:
            self._store.write(url, data)
        except OSError as error:
            raise StateError(
                f"Cannot write {url}: {error}. Shards that are done are kept: free space there, or "
                "give the rights to write, and run the same command again."
            ) from error


def parse_failures(data: bytes) -> tuple[dict[Cause, int], tuple[Failure, ...]]:
    """Return how many samples of a shard have no loss, by cause, and those that are named.

    Raises:
        StateError: the file holds something else.
    """
    try:
        told = read_json(data)
        counts, named = dict(told["failed"]), [Failure(**one) for one in told["failures"]]
        failed = {cause: counts.get(cause, 0) for cause in CAUSES}
        whole = all(type(count) is int and 0 <= count < 1 << 60 for count in failed.values())
        whole = whole and all(type(text) is str for one in named for text in asdict(one).values())
        if not whole or not all(one.cause in CAUSES for one in named):
            raise ValueError("a count or a text is none")  # noqa: TRY301  (one place to tell it)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"Cannot use the failures of a shard: they are malformed ({error}).") from error
    return failed, tuple(named)


def _losses(shard: int) -> str:
    return f"{shard:06d}.losses"


def _failures(shard: int) -> str:
    return f"{shard:06d}.failures.json"
