"""What a stream begins with: the order of samples, the cache, the groups, and the shard table beside the losses.

Takes the corpus and options; gives values. Effects: one process writes the table to the state folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from seta_stream.collective import Collective, from_each, from_first
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import Corpus
from seta_stream.corpus.labels import label_samples
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import PlanError, StateError
from seta_stream.losses.owners import Owners
from seta_stream.memory import Memory
from seta_stream.plan.epoch import Geometry
from seta_stream.plan.shuffle import block_length, line_block_length
from seta_stream.policies import Policy
from seta_stream.policies.deciding import grouping_of
from seta_stream.policies.groups import Labels
from seta_stream.read.cache import BlockCache
from seta_stream.read.decode import Staged
from seta_stream.read.options import Cache
from seta_stream.read.reader import Reader
from seta_stream.session import Session
from seta_stream.store import join, store_for

SEQUENTIAL_SHARDS_PER_LANE: Final = 4

Options = Mapping[str, Any]


def geometry_of(
    table: ShardTable,
    cut: tuple[int, int, int],
    groups: int,
    seed: int,
    *,
    shuffle: bool,
    drop_last: bool,
    is_free: bool,
) -> Geometry:
    """Return the geometry of a run that starts here.

    Args:
        table: the corpus.
        cut: (rows, lanes per row, samples per row of a step).
        groups: node groups.
        seed: of every draw.
        shuffle, drop_last: as the stream was given them.
        is_free: whether nobody chose the number of lanes.
    """
    rows, width, batch = cut
    order: Literal["corpus", "shards", "blocks"] = "blocks" if table.seekable.all() else "shards"
    if not shuffle:
        order, width = "corpus", 1
    elif order == "shards" and is_free:
        # A shard that is read in sequence should lie whole in one lane, so there are fewer lanes than shards.
        width = min(width, max(1, len(table.urls) // SEQUENTIAL_SHARDS_PER_LANE))
    length = line_block_length if order == "corpus" else block_length
    block = length(table.mean_bytes, width, batch)
    return Geometry(rows, width, batch, block, groups, seed, order, drop_last)


def session_of(reader: Reader, policy: Policy, geometry: Geometry, memory: Memory, epochs: int | None) -> Session:
    """Return the session of a reader; `epochs` is the length of the run, where it is known."""
    session = Session(
        reader.corpus.table,
        policy,
        geometry,
        memory,
        reader.board,
        epochs=epochs,
        is_staged=isinstance(reader.decode, Staged),
        is_far=reader.cache is None and not reader.corpus.is_local,
        rank=reader.rank,
        world=reader.world,
    )
    if memory.collective.world > 1:
        try:
            # Now, together: what one process asks later must not wait for the others.
            with suppress(PlanError):  # all meet it, and are told where they need the epoch
                session.begin()
        except BaseException:
            memory.close()
            raise
    return session


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
