"""<state>/scoring: the shards that are scored, until all are and a generation holds them.

Takes and gives ShardLosses. Acts: reads and writes the folder. A shard is there once its sidecar is, whole or not at
all; its failures, where it has some, are written before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from seta_stream.corpus.ids import ShardTable
from seta_stream.errors import ReadError, SidecarError, StateError
from seta_stream.losses.sidecar import pack, unpack
from seta_stream.scoring.shard import CAUSES, Failure, ShardLosses
from seta_stream.store import Options, join, store_for

FOLDER: Final = "scoring"
_MANIFEST: Final = "wanted.json"
_IN_FLIGHT: Final = 16


class Folder:
    """What is scored so far, for one state.

    Args:
        state: folder or URL.
        options: of its file system.

    Raises:
        StateError: from all of its methods, where the folder cannot be written.
    """

    def __init__(self, state: str, options: Options | None) -> None:
        self.url = join(state, FOLDER)
        self._store = store_for(state, options)

    def begin(self, wanted: Mapping[str, Any], *, restart: bool) -> None:
        """Go on with what is there, or begin.

        Args:
            wanted: what the losses depend on, as plain values.
            restart: whether what is there is thrown away.

        Raises:
            StateError: what is there was made with something else.
        """
        names = self.names()
        if restart:
            self.remove()
        elif _MANIFEST in names and len(names) > 1:
            self._check(wanted, self._store.read(join(self.url, _MANIFEST)))
            return
        self._write(_MANIFEST, json.dumps(wanted).encode())

    def _check(self, wanted: Mapping[str, Any], data: bytes) -> None:
        try:
            found = dict(json.loads(data))
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

    def names(self) -> frozenset[str]:
        """Return the names of the files that are there, in one listing."""
        return frozenset(self._store.names(self.url))

    def finished(self, table: ShardTable) -> Iterator[ShardLosses]:
        """Give what is kept of the shards of a corpus and fits them."""
        names = self.names()
        there = [shard for shard in range(len(table)) if _losses(shard) in names]
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for done in pool.map(
                lambda one: self._read(one, table.digests[one], int(table.samples[one]), names), there
            ):
                if done is not None:
                    yield done

    def _read(self, shard: int, digest: bytes, samples: int, names: frozenset[str]) -> ShardLosses | None:
        try:
            held = unpack(self._store.read(join(self.url, _losses(shard))), digest, name=_losses(shard))
            told: dict[str, Any] = {"failed": {}, "failures": []}
            if _failures(shard) in names:
                told = json.loads(self._store.read(join(self.url, _failures(shard))))
            counts = dict(told["failed"])
            failed = {cause: int(counts.get(cause, 0)) for cause in CAUSES}
            failures = tuple(Failure(**one) for one in told["failures"])
        except (SidecarError, ReadError, ValueError, TypeError, KeyError):
            return None  # damaged: it is scored again
        return ShardLosses(shard, held.losses, failed, failures) if len(held.losses) == samples else None

    def keep(self, done: ShardLosses, digest: bytes) -> None:
        """Write a shard that is done."""
        if any(done.failed.values()):
            told = {"failed": dict(done.failed), "failures": [asdict(one) for one in done.failures]}
            self._write(_failures(done.shard), json.dumps(told).encode())
        self._write(_losses(done.shard), pack(done.losses, np.zeros(len(done.losses), np.uint8), digest))

    def remove(self) -> None:
        """Remove all of it: the manifest at last, so that what a crash leaves still has one."""
        names = sorted(self.names() - {_MANIFEST})
        for name in names:
            self._store.remove(join(self.url, name))
        self._store.remove(self.url)

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._store.write(join(self.url, name), data)
        except OSError as error:
            raise StateError(
                f"Cannot write {join(self.url, name)}: {error}. Shards that are done are kept: free space there, or "
                "give the rights to write, and run the same command again."
            ) from error


def _losses(shard: int) -> str:
    return f"{shard:06d}.losses"


def _failures(shard: int) -> str:
    return f"{shard:06d}.failures.json"
