"""A file of losses into a state: a generation that a run starts from.

Takes a .parquet or .csv file and a corpus; gives what was imported. Acts: reads the file and indexes, writes the state
as its one writer. What the rows become is filling.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from seta_stream.carry.filling import By, Filling
from seta_stream.carry.opening import Source
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.listing import Urls, options_at
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import ArgumentError, StateError
from seta_stream.losses.generations import Generation, Generations
from seta_stream.store import Options, join, store_for

_KEPT_FACTS: Final = ("consumed", "policy", "runs", "seed")
"""What later epochs go by, and a generation laid over another keeps."""


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Args:
        generation: the new one.
        epoch: whose end its losses stand for.
        rows: of the file.
        by: what they were matched by.
        matched: rows that are of a sample of the corpus.
        repeated: of these, rows of a sample that a later row is of too.
        unmatched: rows that are of none.
        examples: some of these, as the file names them.
        empty: matched rows without a loss, or with one that is not finite.
        samples: of the corpus.
        seen: samples with a loss, now.
        columns: of the policy, that were imported.
    """

    generation: str
    epoch: int
    rows: int
    by: By
    matched: int
    repeated: int
    unmatched: int
    examples: tuple[str, ...]
    empty: int
    samples: int
    seen: int
    columns: tuple[str, ...]


def import_losses(
    path: Path,
    urls: Urls,
    state: str,
    *,
    by: By | None = None,
    epoch: int | None = None,
    merge: bool = False,
    index: str | None = None,
    storage_options: Options | None = None,
    state_options: Options | None = None,
    told: Callable[[int], None] | None = None,
) -> Imported:
    """Write a generation with the losses of a file, as `export_losses` writes it, or of your own.

    Args:
        path: of the file: columns loss, and key (with url) or id; index, age and a policy's columns if they are there.
        urls: the corpus.
        state: folder of the run that shall start from them; holds no losses, unless `merge`.
        by: what rows are matched by; the key where the file has keys, else the id.
        epoch: whose end they stand for; by default -1, or with `merge` that of the newest generation.
        merge: lay the rows over the newest generation, whose other samples stay as they are.
        index: folder of the shards' indexes.
        storage_options: of the shards' file system.
        state_options: of the state's; those of the shards where the protocol is the same.
        told: is told of rows as they are read.

    Raises:
        ArgumentError: the file lacks a column, or an option does not fit.
        StateError: the state holds losses, or no row is of this corpus; nothing is written.
        StateLockedError: a run writes the state.
        MissingExtraError: pyarrow is not installed.
        ReadError: the file or an index cannot be read.
    """
    corpus = open_corpus(urls, index=index, state=state, storage_options=storage_options, state_options=state_options)
    given = options_at(state, urls, storage_options, state_options)
    with closing(Generations(state, given)) as generations:
        generations.lock()
        base = _base(generations, state, merge=merge)
        ends = _epoch(epoch, base)
        source = (
            None if base is None else Source(state, corpus.table, corpus, generations, base, storage_options, given)
        )
        filling = Filling(path, corpus, source, by, told, ends=ends)
        facts = {name: base.facts[name] for name in _KEPT_FACTS if name in base.facts} if base is not None else {}
        facts["imported_from"] = path.name
        # Before the losses: whoever is killed between the two imports again, and finds nothing in the way.
        store_for(state, given).write(join(state, CORPUS_FILE), corpus.table.to_bytes())
        name = generations.commit(ends, filling.table, corpus.table, None, None if base is None else base.name, facts)
    return Imported(
        generation=name,
        epoch=ends,
        rows=filling.rows,
        by=filling.by,
        matched=filling.matched,
        repeated=filling.repeated,
        unmatched=filling.unmatched,
        examples=tuple(filling.examples()),
        empty=filling.empty,
        samples=filling.table.total,
        seen=filling.table.total - int(np.isnan(filling.table.values).sum()),
        columns=filling.columns,
    )


def _base(generations: Generations, state: str, *, merge: bool) -> Generation | None:
    kept = generations.kept()
    if merge and not kept:
        raise StateError(f"Cannot merge into {state}: it holds no losses. Leave --merge out.", found=0)
    if kept and not merge:
        raise StateError(
            f"Cannot import into {state}: it holds losses already, {kept[-1].name} (epoch {kept[-1].epoch}). Name an "
            "empty folder, or give --merge (merge=True) to lay the rows over these.",
            expected="a folder without losses",
            found=kept[-1].name,
        )
    return kept[-1] if merge else None


def _epoch(epoch: int | None, base: Generation | None) -> int:
    least = -1 if base is None else base.epoch
    if epoch is not None and epoch < least:
        raise ArgumentError(
            f"Cannot import losses of the end of epoch {epoch}: "
            + ("the least is -1, before epoch 0." if base is None else f"they are laid over those of epoch {least}."),
            expected=least,
            found=epoch,
        )
    return least if epoch is None else epoch
