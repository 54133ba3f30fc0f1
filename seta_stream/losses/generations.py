"""Generations in a state folder: committed whole or not at all, found by lineage, loaded by digest.

Takes tables and rules; effects: files under <state>/losses, <state>/pending and <state>/history.jsonl, and a lock on
a local state folder, a record <state>/writer elsewhere. docs/formats/state.md tells the files.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from seta_stream.collective import Collective, OneProcess, from_each, from_first
from seta_stream.errors import GenerationError, SetaStreamWarning, StateError, StateLockedError
from seta_stream.losses.committing import Committer
from seta_stream.losses.drafts import MANIFEST_NAME, clean_local, clean_store
from seta_stream.losses.history import Judged, append_history, history_line, read_history
from seta_stream.losses.loading import LoadReport, Shards, load_losses
from seta_stream.losses.lock import StateLock
from seta_stream.losses.manifest import (
    Generation,
    generation_name,
    is_generation_name,
    lineage_of,
    pack_manifest,
    plain,
    surplus,
    unpack_manifest,
)
from seta_stream.losses.pending_folder import PendingFolder
from seta_stream.losses.table import LossTable
from seta_stream.losses.writer import WRITER_NAME, WriterRecord
from seta_stream.policies.groups import AnyRule
from seta_stream.store import Options, Store, is_local, join, local_path, store_for

__all__ = ["Generation", "Generations", "LoadReport", "Shards"]


class Generations:
    """The losses of a state folder.

    Args:
        state_url: a local folder or any fsspec URL.
        options: of its file system.
        collective: the processes that train together; process 0 looks, locks and commits, the others write sidecars.
        store: what serves the URL; chosen by its protocol unless given.
        first_own: the first id that this process owns.
    """

    def __init__(
        self,
        state_url: str,
        options: Options | None = None,
        collective: Collective | None = None,
        *,
        store: Store | None = None,
        first_own: int = 0,
    ) -> None:
        self._first_own = first_own
        self._store = store_for(state_url, options) if store is None else store
        self._collective: Collective = OneProcess() if collective is None else collective
        self._state = state_url
        self._folder = join(state_url, "losses")
        self.pending = PendingFolder(self._store, join(state_url, "pending"))
        """The losses that belong to no generation yet."""
        self._history = join(state_url, "history.jsonl")
        self._is_local = is_local(state_url)
        self._lock: StateLock | WriterRecord = (
            StateLock(local_path(state_url))
            if self._is_local
            else WriterRecord(self._store, join(state_url, WRITER_NAME))
        )
        self._manifests: dict[str, Generation] = {}
        self._unusable: set[str] = set()
        self._committer = Committer(self._store, self._folder)
        self._begun: Generation | None = None  # what process 0 is writing
        self._told: Generation | None = None  # what all processes were told of last

    def lock(self) -> None:
        """Become the one writer of the state; process 0 alone does.

        Raises:
            StateLockedError: another stream writes it; in a bucket, another one became its writer since.
        """
        self._lock.acquire()

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def shared(self, find: Callable[[], Generation | None]) -> Generation | None:
        """Return, on every process, the generation that `find` gives on process 0: one alone looks into the folder.

        Raises:
            GenerationError: as `find` does, on every process.
        """
        if self._collective.world == 1:
            return find()
        before, own = self._told, []

        def found() -> bytes:
            one = find()
            own.append(one)
            if one is None:
                return b""
            # The manifest of 100,000 shards takes 4 MB and half a second; an epoch asks twice for the same.
            is_told = before is not None and before.name == one.name
            return bytes(msgpack.packb([one.name, b"" if is_told else pack_manifest(one)]))

        told = from_first(self._collective, found)
        if not told:
            return None
        name, manifest = msgpack.unpackb(told)
        if manifest:
            self._told = own[0] if own else unpack_manifest(manifest, name=name)
        assert self._told is not None and self._told.name == name  # noqa: S101, PT018  (all were told it before)
        return self._told

    def kept(self) -> list[Generation]:
        """Return the generations that are there, whole, in the order of their commits."""
        return sorted(self._by_name().values(), key=lambda one: (one.sequence, one.epoch, one.name))

    def get(self, name: str) -> Generation:
        """Return a generation by name.

        Raises:
            GenerationError: it is gone, or its manifest cannot be used.
        """
        found = self._by_name().get(name)
        if found is None:
            raise GenerationError(
                f"Generation {name} is not in {self._folder}: {self._told_kept()}.",
                expected=name,
                found=[one.name for one in self.kept()],
            )
        return found

    def ancestor(self, below_epoch: int, lineage: str | None) -> Generation | None:
        """Return the newest generation of a lineage that closes an epoch below `below_epoch`; None where none did.

        Args:
            below_epoch: the epoch that is to start.
            lineage: name of the run's newest generation; None for the one that was committed last.

        Raises:
            GenerationError: there was one, and it is no longer kept.
        """
        kept = self.kept()
        if lineage is None and not kept:
            return None
        newest = kept[-1] if lineage is None else self.get(lineage)
        oldest = newest
        for oldest in lineage_of(newest, self._by_name()):
            if oldest.epoch < below_epoch:
                return oldest
        if oldest.root >= below_epoch or oldest.parent is None:
            return None
        raise GenerationError(
            f"Cannot start epoch {below_epoch} from its own losses: they lie before generation {oldest.name}, and the "
            f'older ones are gone: {self._told_kept()}. Set a later epoch, or pass losses="latest" to start from the '
            "newest.",
            expected=below_epoch,
            found=[one.name for one in kept],
        )

    def commit(
        self,
        epoch: int,
        table: LossTable,
        shards: Shards,
        rule: AnyRule | None,
        parent: str | None,
        facts: Mapping[str, Any],
        *,
        judged: Judged | None = None,
        own: range | None = None,
    ) -> str:
        """Write a generation whole, or leave everything as it was; return its name.

        The last 3 of the lineage stay, others are untouched. Every process calls this and writes the sidecars of its
        own shards; process 0 does the rest, and its manifest makes them a generation.

        Args:
            epoch: the one that ends.
            table: all losses that this process owns, ages as of that epoch.
            shards: the corpus: one digest per shard.
            rule: for the next epoch.
            parent: name of the generation that this epoch started from; None for none.
            facts: plain values for the history, as bytes and seconds.
            judged: how the samples stand, with the rule; by the table's losses unless given.
            own: the shards that this process owns; None for all.

        Raises:
            StateError: nothing could be written, as on a full disk.
            StateLockedError: another stream writes this state; the losses are kept as pending ones.
        """
        everyone = self._collective
        judgement = judged or Judged(table.histogram(), rule)
        try:
            begun = from_first(everyone, lambda: self._begin(epoch, judgement, parent, facts))
            name, place = msgpack.unpackb(begun)
            written = from_each(everyone, lambda: self._committer.write_part(place, name, table, shards, own))
            from_first(everyone, lambda: self._publish(written))
        except BaseException as error:
            self._committer.discard()
            if isinstance(error, StateLockedError):
                raise self._refused(error, epoch, table, parent) from error
            raise
        return str(name)

    def _begin(self, epoch: int, judged: Judged, parent: str | None, facts: Mapping[str, Any]) -> bytes:
        """Begin a generation; return its name and where its sidecars go."""
        self.lock()
        if self._is_local:
            clean_local(local_path(self._folder))
        else:
            clean_store(self._store, self._folder, self._unusable | set(self._by_name()))
        self._begun = self._compose(epoch, judged, parent, facts)
        return bytes(msgpack.packb([self._begun.name, self._committer.begin(self._begun.name)]))

    def _publish(self, written: Sequence[bytes]) -> bytes:
        """Make what all processes wrote a generation."""
        assert self._begun is not None  # noqa: S101  (begun before)
        if not self._is_local:
            self._lock.acquire()  # the sidecars took a while
        generation = self._committer.publish(self._begun, written)
        self._manifests[generation.name] = generation
        self._tell_history(generation.name)
        self._remove_surplus(generation.name)
        return b""

    def _refused(self, error: StateLockedError, epoch: int, table: LossTable, parent: str | None) -> StateLockedError:
        """Keep the losses that could not be committed, once per run and epoch; tell where."""
        if not isinstance(self._lock, WriterRecord) or not (self._lock.token or self._collective.rank):
            return error
        whose = self._lock.token[:8] or f"{secrets.token_hex(4)}-rank-{self._collective.rank}"
        name = f"epoch-{epoch:06d}-refused-{whose}"
        ids = np.flatnonzero(table.all_ages == 0)
        columns = {column: values[ids] for column, values in table.columns.items()}
        try:
            self.pending.write(name, ids + self._first_own, table.values[ids], columns, parent=parent)
        except StateError:  # the refusal tells more
            return error
        told = f"{error.message} The losses of epoch {epoch} are kept in {join(self.pending.url, name)}."
        return StateLockedError(told, expected=error.expected, found=error.found)

    def load(self, generation: Generation, table: LossTable, shards: Shards, own: range | None = None) -> LoadReport:
        """Fill a table from a generation; ages are as of the end of its epoch.

        A sidecar is found by its shard's digest. What cannot be used is named in a warning and left where it is, and
        its samples are unseen.

        Args:
            generation: from `ancestor`, `get` or `kept`.
            table: is overwritten.
            shards: the corpus.
            own: the shards that this process owns; None for all.

        Raises:
            ReadError: the store fails in another way than that a file is not there.
        """
        return load_losses(self._store, self._folder, generation, table, shards, own)

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of history.jsonl, oldest first."""
        return read_history(self._store, self._history)

    def _compose(self, epoch: int, judged: Judged, parent: str | None, facts: Mapping[str, Any]) -> Generation:
        name, kept_facts = generation_name(epoch, secrets.token_hex(4)), plain(facts)
        return Generation(
            name=name,
            epoch=epoch,
            parent=parent,
            rule=judged.rule,
            facts=kept_facts,
            sequence=max((one.sequence for one in self.kept()), default=0) + 1,
            root=epoch if parent is None else self.get(parent).root,
            line=history_line(name, epoch, parent, judged, kept_facts),
        )

    def _by_name(self) -> dict[str, Generation]:
        """Return the generations that are there; manifests are never rewritten, so each is read once."""
        names = [name for name in self._store.names(self._folder) if is_generation_name(name)]
        found = {name: self._manifests.get(name) or self._read_manifest(name) for name in names}
        self._manifests = {name: one for name, one in found.items() if one is not None}
        return self._manifests

    def _read_manifest(self, name: str) -> Generation | None:
        url = join(self._folder, name, MANIFEST_NAME)
        if name in self._unusable or not self._store.exists(url):
            return None
        try:
            return unpack_manifest(self._store.read(url), name=name)
        except GenerationError as error:
            self._unusable.add(name)
            warnings.warn(f"{error.message} The generation is left aside.", SetaStreamWarning, stacklevel=4)
            return None

    def _tell_history(self, name: str) -> None:
        """Append the generation's line, and those of its ancestors that a crash kept from being written."""
        try:
            told = {line.get("generation") for line in self.history()}
            missing = [one for one in lineage_of(self.get(name), self._by_name()) if one.name not in told]
            append_history(self._store, self._history, [dict(one.line) for one in reversed(missing)])
        except OSError as error:
            warnings.warn(
                f"Generation {name} is committed, but its line could not be added to {self._history} ({error}). The "
                "next commit adds it.",
                SetaStreamWarning,
                stacklevel=4,
            )

    def _remove_surplus(self, name: str) -> None:
        gone = surplus(self.get(name), self._by_name())
        for one in gone:
            # Without its manifest it is no generation any more, however far the removal comes.
            self._store.remove(join(self._folder, one.name, MANIFEST_NAME))
            self._store.remove(join(self._folder, one.name))
        parents = {one.name for one in gone} | {None for one in gone if one.parent is None}
        self.pending.remove_of(parents)

    def _told_kept(self) -> str:
        kept = [f"{one.name} (epoch {one.epoch})" for one in self.kept()]
        return f"kept are {', '.join(kept)}" if kept else "none is kept"
