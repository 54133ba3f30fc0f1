"""Rows of a corpus, one per sample, in chunks of bounded size.

Takes a shard table, indexes where keys are wanted, and columns over all ids; gives chunks. Acts: reads indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.spelling import spelled
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import Corpus

CHUNK: Final = 1 << 16
"""Rows made at once."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Neighbouring rows of one shard.

    Args:
        url: of the shard.
        keys: of the samples; None where no keys are wanted.
        index: int64 [n], positions in the shard.
        ids: int64 [n].
        columns: one array [n] per name.
    """

    url: str
    keys: list[str] | None
    index: NDArray[np.int64]
    ids: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)


def chunks(shards: ShardTable, corpus: Corpus | None, columns: Mapping[str, NDArray[Any]]) -> Iterator[Chunk]:
    """Give the rows of a corpus in order.

    Args:
        shards: the corpus.
        corpus: with its indexes; None leaves keys out.
        columns: one array [total] per name.
    """
    for shard, url in enumerate(shards.urls):
        first, stop = int(shards.first_id[shard]), int(shards.first_id[shard + 1])
        keys = None if corpus is None else corpus.index(shard).keys
        for begin in range(first, stop, CHUNK):
            end = min(begin + CHUNK, stop)
            yield Chunk(
                url=spelled(url),
                keys=None if keys is None else list(map(spelled, keys[begin - first : end - first])),
                index=np.arange(begin - first, end - first),
                ids=np.arange(begin, end),
                columns={name: column[begin:end] for name, column in columns.items()},
            )
