"""One random generator per sample number: what a sample looks like depends on its number alone.

Takes (seed, purpose, number); gives numpy generators. Pure. A shard may then be made by any process, in any order.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np


class NumberedRandom:
    """Generators by number; moving to another number costs microseconds, a fresh generator ten times as much.

    Args:
        seed: the corpus's seed: any int that fits in 64 bits.
        purpose: what is drawn; two purposes never share numbers.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._prefix = struct.pack("<q", seed) + purpose.encode() + b"\0"
        self._bits = np.random.Philox(key=0)
        self._fresh = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, number: int) -> np.random.Generator:
        """Return the generator of `number`, at its start; it holds until the next call."""
        digest = hashlib.blake2b(self._prefix + struct.pack("<q", number), digest_size=16).digest()
        self._fresh["state"]["key"] = np.frombuffer(digest, "<u8").astype(np.uint64)
        self._bits.state = self._fresh
        return self._generator
