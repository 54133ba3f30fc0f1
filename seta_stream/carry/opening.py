"""What a state holds, with the corpus that it is of.

Takes a state's URL; gives a Source: shard table, generation, and loss tables on demand. Acts: reads the state, and
indexes where keys are asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.listing import options_at
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import GenerationError, SetaStreamWarning, StateError
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.sidecar import unpack
from seta_stream.losses.table import LossTable
from seta_stream.store import Options, join, protocol_of, store_for


@dataclass(frozen=True, eq=False)
class Source:
    """A generation of a state, and the corpus that its losses are of.

    Args:
        state: URL.
        shards: the corpus.
        corpus: the same with its indexes; None where no keys are wanted.
        generations: of the state.
        generation: the one that is exported.
        options: of the shards' file system; may hold credentials.
        state_options: of the state's.
    """

    state: str
    shards: ShardTable
    corpus: Corpus | None
    generations: Generations
    generation: Generation
    options: Options | None = field(repr=False)
    state_options: Options | None = field(repr=False)

    def table(self, columns: Sequence[Column]) -> LossTable:
        """Return the losses of the generation, with these columns.

        Raises:
            StateError: it has none for any of the shards.
        """
        table = LossTable(self.shards.samples, columns)
        report = self.generations.load(self.generation, table, self.shards)
        if report.unseen_shards == len(self.shards):
            raise StateError(
                f"Cannot use the losses of {self.state}: generation {self.generation.name} has none for any of the "
                f"{len(self.shards)} shards, so it is of another corpus. Name its own shards.",
                expected="losses of this corpus",
                found=self.generation.name,
            )
        if report.unseen_shards:
            warnings.warn(
                f"Generation {self.generation.name} of {self.state} has no usable losses for {report.unseen_shards} of "
                f"{len(self.shards)} shards; their samples count as unseen.",
                SetaStreamWarning,
                stacklevel=2,
            )
        return table


def open_source(
    state: str,
    *,
    urls: Sequence[str] | None = None,
    generation: str | None = None,
    epoch: int | None = None,
    index: str | None = None,
    with_keys: bool = True,
    storage_options: Options | None = None,
    state_options: Options | None = None,
) -> Source:
    """Return what a state holds.

    Args:
        state: a local folder or URL.
        urls: the corpus, where it is no longer where the state says, or the state does not say.
        generation: name of one; the newest by default.
        epoch: whose end the losses are of; excludes `generation`.
        index: folder of the shards' indexes.
        with_keys: whether indexes are needed.
        storage_options: of the shards' file system.
        state_options: of the state's; `storage_options` where these are not given, and, with `urls`, where the
            protocol is the same.

    Raises:
        StateError: the state holds no losses, or does not say which corpus they are of.
        GenerationError: the generation that is asked for is gone.
    """
    table = None
    if urls is None:
        given = storage_options if state_options is None else state_options
        table = shard_table(state, given)
        urls = table.urls
        if state_options is None and len(table) and protocol_of(urls[0]) != protocol_of(state):
            storage_options = None  # what was given for the state says nothing to another file system
    else:
        given = options_at(state, urls, storage_options, state_options)
    generations = Generations(state, given)
    found = _generation(generations, state, generation, epoch)
    corpus = None
    if with_keys or table is None:
        corpus = open_corpus(urls, index=index, state=state, storage_options=storage_options, state_options=given)
        table = corpus.table
    return Source(state, table, corpus, generations, found, storage_options, given)


def shard_table(state: str, options: Options | None) -> ShardTable:
    """Return the corpus as the state's last stream opened it.

    Raises:
        StateError: the state has no shard table.
        IndexFileError: it is damaged.
    """
    url = join(state, CORPUS_FILE)
    store = store_for(url, options)
    if not store.exists(url):
        raise StateError(
            f"Cannot tell which corpus the losses in {state} are of: there is no {url}. Name the folder that was "
            "passed as state=, or its shards by --urls.",
            expected=url,
        )
    return ShardTable.from_bytes(store.read(url), url)


def _generation(generations: Generations, state: str, name: str | None, epoch: int | None) -> Generation:
    kept = generations.kept()
    if not kept:
        raise StateError(
            f"There are no losses in {state}: no generation is kept there. Give the folder that was passed as state=, "
            "after an epoch with recorded losses."
        )
    if name is not None:
        return generations.get(name)
    if epoch is None:
        return kept[-1]
    found = [one for one in kept if one.epoch == epoch]
    if not found:
        raise GenerationError(
            f"Cannot export the losses of the end of epoch {epoch} from {state}: kept are "
            f"{', '.join(f'{one.name} (epoch {one.epoch})' for one in kept)}. Name one of their epochs.",
            expected=epoch,
            found=[one.epoch for one in kept],
        )
    return found[-1]


def columns_in(source: Source) -> list[Column]:
    """Return what a generation's sidecars hold beside losses and ages, told by the first that can be read."""
    store = store_for(source.state, source.state_options)
    for entry in source.generation.sidecars:
        url = join(source.state, "losses", source.generation.name, entry.file)
        try:
            held = unpack(store.read(url), entry.digest, name=entry.file)
        except (OSError, StateError):
            continue
        return [Column(name, str(values.dtype), 0, latest, source="exported") for name, values in held.columns.items()]
    return []
