"""Which sample each row of a file is of. Pure.

Takes URLs, keys and places as a file has them; gives shards and positions in this corpus.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.spelling import spelled

NO_SHARD: Final = -1


class ShardNames:
    """The shards of a corpus by the URLs of a file.

    A URL stands for the shard that has it; else, since a corpus may have moved, for the one whose file has its name,
    where no other has.

    Args:
        urls: of the corpus.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        names = [spelled(url) for url in urls]
        self._exact = {name: number for number, name in enumerate(names)}
        bases = [_base(name) for name in names]
        times = Counter(bases)
        self._by_base = {base: number for number, base in enumerate(bases) if times[base] == 1}

    def numbers(self, urls: Iterable[str]) -> NDArray[np.int64]:
        """Return the shard of each URL: int64 [n], NO_SHARD where there is none."""
        return np.array([self._number(url) for url in urls], np.int64)

    def _number(self, url: str) -> int:
        if url not in self._exact:
            return self._by_base.get(_base(url), NO_SHARD)
        return self._exact[url]


def hashes_of(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return 8 bytes of a hash of each key as files spell it: uint64 [n]."""
    raw = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys)
    return np.frombuffer(raw, "<u8").astype(np.uint64)


def positions(own: NDArray[np.uint64], keys: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position in a shard that each row is of: int64 [n], -1 where its key is not there.

    A place that holds the row's key is taken as it is. Else the first row of a key is of the first sample of that key,
    the second row of the second one, and so on.

    Args:
        own: of the shard's keys, in order.
        keys: of the rows' keys.
        places: the positions that the rows name; -1 for none.
    """
    found = np.full(len(keys), -1, np.int64)
    if not len(own):
        return found
    named = np.clip(places, 0, len(own) - 1)
    fits = (named == places) & (own[named] == keys)
    found[fits] = places[fits]
    rest = np.flatnonzero(~fits)
    if len(rest):
        order = np.argsort(own, kind="stable")
        first = np.searchsorted(own[order], keys[rest], side="left")
        stop = np.searchsorted(own[order], keys[rest], side="right")
        turn = first + _turns(keys[rest])
        there = turn < stop
        found[rest[there]] = order[turn[there]]
    return found


def _turns(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how many equal keys came before each: int64 [n]."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    turns = np.empty(len(keys), np.int64)
    turns[order] = np.arange(len(keys)) - np.repeat(begins, np.diff(np.append(begins, len(keys))))
    return turns


def _base(url: str) -> str:
    return url.rpartition("/")[2]
