"""Losses by which a corpus is repacked, and the same losses for the new shards.

Takes state folders and records; gives loss tables. Acts: reads generations, writes one.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.ids import ShardTable
from seta_stream.errors import GenerationError, ReadError, SetaStreamWarning, SidecarError, StateError
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.loading import LoadReport
from seta_stream.losses.sidecar import unpack
from seta_stream.losses.table import LossTable
from seta_stream.repack.plan import Pieces
from seta_stream.repack.record import Record
from seta_stream.store import Options, join, store_for

_ORIGIN: Final = "repacked_from"
_IDENTITY: Final = "repack"
_CARRIED: Final = "carried"


@dataclass(frozen=True, eq=False)
class Taken:
    """The losses of one generation, and all that its policy remembered beside them.

    Args:
        generation: as a run wrote it.
        table: of the old corpus.
    """

    generation: Generation
    table: LossTable

    @property
    def origin(self) -> str:
        """Name of the generation in the state of the run."""
        return str(self.generation.facts.get(_ORIGIN, self.generation.name))


@dataclass(frozen=True)
class _Digests:
    """As much of the new corpus's shard table as a generation asks for."""

    digests: tuple[bytes, ...]


def read_losses(state: str, name: str | None, shards: ShardTable, options: Options | None) -> Taken:
    """Return the losses that a state folder holds of a corpus.

    Args:
        state: its URL.
        name: of the generation; None for the newest.
        shards: the corpus.
        options: of the file system.

    Raises:
        StateError: there is no generation, or it is of another corpus.
        GenerationError: the one that is asked for is gone.
    """
    generations = Generations(state, options)
    kept = generations.kept()
    if not kept:
        raise StateError(
            f"Cannot take losses from {state}: it holds no generation. Name the folder that a stream was given as "
            "state=; it holds one after the first epoch.",
            expected="a generation",
            found=0,
        )
    generation = kept[-1] if name is None else generations.get(name)
    table = LossTable(shards.samples, _columns_of(state, generation, options))
    report = generations.load(generation, table, shards)
    if report.unseen_shards == len(shards):
        raise StateError(
            f"Cannot take losses from {state}: generation {generation.name} has none for any of the {len(shards)} "
            "shards, so it is of another corpus. Name the corpus and the state of one run.",
            expected="losses of this corpus",
            found=generation.name,
        )
    if report.unmatched:
        warnings.warn(
            f"Generation {generation.name} of {state} has no losses for {len(report.unmatched)} of {len(shards)} "
            f"shards (the first is {shards.urls[report.unmatched[0]]}); their samples count as unseen.",
            SetaStreamWarning,
            stacklevel=2,
        )
    _fill_columns(table, report)
    return Taken(generation, table)


def keep(home: Generations, taken: Taken, shards: ShardTable) -> str:
    """Write the losses as they are into the folder of the repack; return their name there.

    A repack that takes days goes on by the losses it began with, though the run's own state has dropped them.
    """
    facts = {**_consumed(taken), _ORIGIN: taken.origin}
    return home.commit(taken.generation.epoch, taken.table, shards, None, None, facts)


def reread(
    home: Generations, folder: str, manifest: Mapping[str, Any], shards: ShardTable, options: Options | None
) -> Taken:
    """Return the losses that `keep` wrote when the repack began.

    Args:
        home: the folder's generations.
        folder: URL of the repack's own folder.
        manifest: of the repack.
        shards: the corpus.
        options: of the file system.

    Raises:
        StateError: they are gone or damaged.
    """
    try:
        generation = home.get(str(manifest.get("kept")))
        table = LossTable(shards.samples, _columns_of(folder, generation, options))
        whole = not home.load(generation, table, shards).unseen_shards
    except GenerationError:
        whole = False
    if not whole:
        raise StateError(
            f"Cannot go on with the repack in {folder}: the losses that it began with are gone or damaged. Remove the "
            "folder of the new shards, and run the command again.",
            expected=manifest.get("kept"),
        )
    return Taken(generation, table)


def carry(
    taken: Taken,
    shards: ShardTable,
    news: Sequence[Pieces],
    records: Sequence[Record],
    state_out: str,
    options: Options | None,
) -> str:
    """Write a generation for the new shards, of the same epoch; return its name, the old one's where it is there.

    It holds no rule: who trains on decides anew, by these losses.

    Args:
        taken: losses of the old corpus.
        shards: the old corpus.
        news: what each new shard holds.
        records: of the new shards.
        state_out: URL of a state folder without other losses.
        options: of its file system.

    Raises:
        StateError: it holds other losses, or cannot be written.
    """
    digests = tuple(record.digest for record in records)
    identity = hashlib.blake2b(b"".join(digests) + taken.origin.encode(), digest_size=16).hexdigest()
    generations = Generations(state_out, options)
    kept = generations.kept()
    mine = [one.name for one in kept if one.facts.get(_IDENTITY) == identity]
    if mine:
        return mine[0]
    if kept:
        raise StateError(
            f"Cannot carry losses over to {state_out}: it holds {kept[-1].name} (epoch {kept[-1].epoch}) already. The "
            "new shards are finished; run the command again with another --state-out.",
            expected="a folder without losses",
            found=kept[-1].name,
        )
    table = _moved(taken.table, shards, news, records)
    facts = {**_consumed(taken), _ORIGIN: taken.origin, _IDENTITY: identity}
    try:
        return generations.commit(taken.generation.epoch, table, _Digests(digests), None, None, facts)
    finally:
        generations.close()


def losses_of(table: LossTable, shards: ShardTable, pieces: Pieces) -> NDArray[np.float32]:
    """Return the losses of the samples of pieces, in corpus order: float32 [samples], NaN where never seen."""
    return table.values[_ids(shards, pieces)]


def _ids(shards: ShardTable, pieces: Pieces) -> NDArray[np.int64]:
    first_id = shards.first_id
    return np.concatenate([first_id[piece.shard] + np.arange(piece.start, piece.stop) for piece in pieces])


def _moved(old: LossTable, shards: ShardTable, news: Sequence[Pieces], records: Sequence[Record]) -> LossTable:
    """Return the table of the new corpus."""
    # ids [samples]: the old id of each new one
    ids = np.concatenate([_ids(shards, pieces)[record.order] for pieces, record in zip(news, records, strict=True)])
    new = LossTable([record.samples for record in records])
    new.values[:] = old.values[ids]
    new.all_ages[:] = old.all_ages[ids]
    new.columns = {name: column[ids] for name, column in old.columns.items()}
    return new


def _columns_of(state: str, generation: Generation, options: Options | None) -> list[Column]:
    """Return what the generation's sidecars hold beside losses and ages, by the first that can be read."""
    store = store_for(state, options)
    for entry in generation.sidecars:
        try:
            url = join(state, "losses", generation.name, entry.file)
            held = unpack(store.read(url), entry.digest, name=entry.file)
        except (ReadError, SidecarError):
            continue
        return [Column(name, str(values.dtype), 0, latest, source=_CARRIED) for name, values in held.columns.items()]
    return []


def _fill_columns(table: LossTable, report: LoadReport) -> None:
    """Give samples of shards without a sidecar what unseen samples have; a column that does not tell it is left out."""
    missing = np.zeros(table.total, np.bool_)
    for shard in (*report.unmatched, *(shard for shard, _ in report.damaged)):
        missing[table.first_id[shard] : table.first_id[shard + 1]] = True
    if not missing.any() or not table.columns:
        return
    examples = np.flatnonzero(np.isnan(table.values) & ~missing)
    if len(examples):
        for column in table.columns.values():
            column[missing] = column[examples[0]]
        return
    warnings.warn(
        f"{', '.join(sorted(table.columns))} are not carried over: some shards have no losses, and nothing tells with "
        "what their samples begin. The next run starts these from the last losses.",
        SetaStreamWarning,
        stacklevel=3,
    )
    table.columns.clear()


def _consumed(taken: Taken) -> dict[str, Any]:
    """Return how far the run had come, which schedules of the next one go by."""
    facts = taken.generation.facts
    return {"consumed": facts["consumed"]} if "consumed" in facts else {}
