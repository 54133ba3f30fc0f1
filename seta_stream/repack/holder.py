"""All that one task holds of the corpus at a time, within one bound of memory.

Takes shards and the bytes wanted of them; gives handles. Acts: through holding.py, which reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Self

from seta_stream.errors import SetaStreamError
from seta_stream.repack.holding import Costs, Held, Shard, hold


class Holder:
    """Holds parts of shards until one new shard is written, and whole ones that are read in sequence until all are.

    Args:
        memory_bytes: what is held in memory at most, of all together.
        last: for each shard of the corpus, by number, the number of the last new shard that it goes into.
    """

    def __init__(self, memory_bytes: int, last: Mapping[int, int]) -> None:
        self._memory_bytes = memory_bytes
        self._last = last
        self._parts: list[Held] = []
        self._whole: dict[int, Held] = {}

    def part(self, shard: Shard, begin: int, end: int, costs: Costs) -> Held:
        """Hold some bytes of a shard until `release`."""
        held = hold(shard, begin, end, self._room(), costs)
        self._parts.append(held)
        return held

    def whole(self, number: int, shard: Shard, costs: Costs) -> Held:
        """Hold a shard that is read in sequence, which is read once however many new shards it goes into."""
        if number not in self._whole:
            self._whole[number] = hold(shard, 0, shard.tar_size, self._room(), costs)
        return self._whole[number]

    def release(self, new: int) -> None:
        """Give back what a new shard was made of, but for what a later one needs.

        Raises:
            ShardChangedError: a shard that was read where it lies has changed.
        """
        parts, self._parts = self._parts, []
        done = [number for number in self._whole if self._last[number] <= new]
        with ExitStack() as stack:  # one that raises keeps none of the others open
            for held in [*parts, *(self._whole.pop(number) for number in done)]:
                stack.callback(held.close)

    def _room(self) -> int:
        return self._memory_bytes - sum(held.memory_bytes for held in [*self._parts, *self._whole.values()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in [*self._parts, *self._whole.values()]:
            with suppress(SetaStreamError):  # the error that is on its way tells more
                held.close()
