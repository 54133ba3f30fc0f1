"""Corpora and stores for the tests of generations."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np

from seta_stream.losses.table import LossTable
from seta_stream.policies import Rule

RULE = Rule([0.5, 1.5], [0.0, 0.75, 1.0], unseen_keep=0.9)


@dataclass(frozen=True)
class Corpus:
    """As much of a shard table as generations ask for."""

    digests: tuple[bytes, ...]
    samples: tuple[int, ...]

    def table(self) -> LossTable:
        return LossTable(self.samples)


def digest(number: int) -> bytes:
    return bytes([number]) * 16


CORPUS = Corpus((digest(1), digest(2), digest(3)), (4, 1, 6))


def filled(corpus: Corpus, seed: int) -> LossTable:
    """A table of random losses, a few of them unseen and some older."""
    rng = np.random.default_rng(abs(seed))
    table = corpus.table()
    table.record(rng.permutation(table.total)[: table.total * 2 // 3], rng.exponential(size=table.total * 2 // 3))
    table.advance(2)
    table.record([0], [float(seed)])
    return table


class FullStore:
    """A store whose disk has room for a number of writes."""

    def __init__(self, store, room):
        self._store = store
        self.room = room

    def write(self, url, data):
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._store.write(url, data)

    def __getattr__(self, name):
        return getattr(self._store, name)
