"""Counter-based random numbers: the same on every machine, for any number of processes.

Takes (seed, purpose, epoch, shard); gives raw 32-bit words and permutations. Pure: the global generators of numpy and
random are never touched. numpy promises the raw stream of Philox across versions, but not what is derived from it,
so words are compared as integers and permutations are stable argsorts of words.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

WORD_RANGE: Final = 1 << 32
"""Words are uniform on [0, WORD_RANGE)."""


class WordSource:
    """Words for many shards of one (seed, purpose, epoch); cheaper than one generator per shard.

    Args:
        seed: any int that fits in 64 bits.
        purpose: what the words decide, as "keep" or "order"; two purposes never share words.
        epoch: the epoch, or -1 where the draw holds for the whole run.
    """

    def __init__(self, seed: int, purpose: str, epoch: int) -> None:
        self._prefix = struct.pack("<qq", seed, epoch) + purpose.encode() + b"\0"
        self._philox = np.random.Philox(key=0)
        self._fresh = self._philox.state

    def words(self, shard: int, count: int) -> NDArray[np.uint32]:
        """Return the first `count` words of `shard`: uint32 [count]."""
        digest = hashlib.blake2b(self._prefix + struct.pack("<q", shard), digest_size=16).digest()
        self._fresh["state"]["key"] = np.frombuffer(digest, "<u8").astype(np.uint64)
        self._philox.state = self._fresh
        raw = self._philox.random_raw((count + 1) // 2)
        return raw.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False)

    def permutation(self, shard: int, count: int) -> NDArray[np.int64]:
        """Return a permutation of range(count): int64 [count]."""
        return np.argsort(self.words(shard, count), kind="stable")
