"""What a stream begins with: the order of samples, the cache, the groups, and the shard table beside the losses.

Takes the corpus and options; gives values. Effects: one process writes the table to the state folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from seta_stream.collective import Collective, from_each, from_first
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import Corpus
from seta_stream.corpus.labels import label_samples
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import StateError
from seta_stream.losses.owners import Owners
from seta_stream.policies import Policy
from seta_stream.policies.deciding import grouping_of
from seta_stream.policies.groups import Labels
from seta_stream.read.cache import BlockCache
from seta_stream.read.options import Cache
from seta_stream.store import join, store_for

SEQUENTIAL_SHARDS_PER_LANE: Final = 4

Options = Mapping[str, Any]


def order_of(
    table: ShardTable, *, shuffle: bool, width: int, is_chosen: bool
) -> tuple[Literal["corpus", "shards", "blocks"], int]:
    """Return the order of samples that a corpus allows, and the lanes per row."""
    if not shuffle:
        return "corpus", 1
    if table.seekable.all():
        return "blocks", width
    # A shard that is read in sequence should lie whole in one lane, so there are fewer lanes than shards.
    few = max(1, len(table.urls) // SEQUENTIAL_SHARDS_PER_LANE)
    return "shards", width if is_chosen else min(width, few)


def cache_of(cache: str | Cache | None, corpus: Corpus, options: Options | None) -> BlockCache | None:
    """Return the cache of a run; None where none is wanted, or every shard is a file of this machine."""
    settings = Cache.of(cache)
    if settings is None or corpus.is_local:
        return None
    table = corpus.table
    return BlockCache(settings, table.urls, table.sizes.tolist(), table.versions, options=options)


def labels_of(corpus: Corpus, policy: Policy, everyone: Collective) -> Labels | None:
    """Return the groups that the index tells of this process's own samples, where the policy asks for them.

    Raises:
        CorpusError: they cannot be told, on some process.
    """
    grouping = grouping_of(policy)
    if grouping is None or grouping.by is None:
        return None
    by, own, found = grouping.by, Owners(corpus.table.first_id, everyone.world).shards_of(everyone.rank), []

    def label() -> bytes:
        found.append(Labels(*label_samples(corpus, by, own)))
        return b""

    from_each(everyone, label)
    return found[0]


def write_corpus(folder: str, table: ShardTable, options: Options | None, everyone: Collective) -> None:
    """Keep the shard table beside the losses, so that they can be read without the corpus; process 0 does."""
    from_first(everyone, lambda: _write_table(folder, table, options))


def _write_table(folder: str, table: ShardTable, options: Options | None) -> bytes:
    place, data = join(folder, CORPUS_FILE), table.to_bytes()
    store = store_for(place, options)
    try:
        if not store.exists(place) or store.read(place) != data:
            store.write(place, data)
    except OSError as error:
        raise StateError(f"Cannot write {place}: {error}. Free space there, or give another state=.") from error
    return b""
