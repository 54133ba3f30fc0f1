"""The order of shards, and of samples inside a lane.

Takes seeds and counts; gives permutations. Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.draws import WordSource

Int64s = NDArray[np.int64]

BLOCK_BYTES: Final = 32 << 20
BLOCK_SAMPLES: Final = 4096
SMALLEST_BLOCK: Final = 256
LINE_BYTES: Final = 8 << 20
BORDER_SHARE: Final = 16
"""One shard in so many stands at each end of a node group, one at least, and keeps its place."""


def shard_order(seed: int, epoch: int, samples: Int64s, groups: int = 1) -> Int64s:
    """Return the shards in the order of one epoch: int64 [shards].

    Shards are dealt to `groups` node groups once per seed, so that the caches of different machines hold different
    shards; an epoch permutes inside each group only. Machines read equal parts of the line, and groups are not exactly
    equal, so a machine reads the ends of its neighbours' groups too: the shards there keep their places, or each epoch
    would bring it others. What is left to fetch after the first epoch is how far selections move the cuts.

    Args:
        seed, epoch: of the draw.
        samples: int64 [shards], of the corpus, whatever an epoch selects.
        groups: node groups.
    """
    dealt = WordSource(seed, "deal", -1).permutation(0, len(samples))
    source = WordSource(seed, "shards", epoch)
    # The group in whose equal part of all samples a shard's middle lies.
    ends = np.cumsum(samples[dealt])
    middles = 2 * ends - samples[dealt]
    bounds = np.searchsorted(middles * groups // max(2 * int(samples.sum()), 1), np.arange(groups + 1))
    bounds[-1] = len(samples)
    parts = []
    for group in range(groups):
        part = dealt[bounds[group] : bounds[group + 1]]
        border = min(max(1, len(part) // BORDER_SHARE), len(part) // 4)
        first, last = (border if group else 0), len(part) - (border if group < groups - 1 else 0)
        inner = part[first:last]
        parts += [part[:first], inner[source.permutation(group, len(inner))], part[last:]]
    return np.concatenate(parts)


def block_length(mean_bytes: float, width: int, batch: int) -> int:
    """Return the samples per shuffle block of one lane: whole steps, at least 256 samples.

    All lanes of a row together hold max(32 MiB, 4,096 samples).
    """
    samples = max(BLOCK_BYTES / max(mean_bytes, 1.0), BLOCK_SAMPLES) / width
    steps = max(-(-SMALLEST_BLOCK // batch), round(samples / batch))
    return steps * batch


def line_block_length(mean_bytes: float, width: int, batch: int) -> int:
    """Return the samples per round where nothing is shuffled: about 8 MiB, planned at once."""
    return max(1, round(LINE_BYTES / max(mean_bytes, 1.0) / width / batch)) * batch


class BlockShuffle:
    """Permutations of lane blocks for one epoch."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._source = WordSource(seed, "order", epoch)

    def permutation(self, lane: int, block: int, count: int) -> Int64s:
        """Return the order inside one block of one lane: int64 [count]."""
        return self._source.permutation((lane << 32) | block, count)
