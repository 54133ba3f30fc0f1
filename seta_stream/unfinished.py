"""The losses of an unfinished epoch: kept for a checkpoint, and taken up again, by as many processes or others.

Takes the table and the outbox of a run; effects: files under <state>/pending, one per process and checkpoint.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgpack
import numpy as np

from seta_stream.collective import Collective, from_each
from seta_stream.errors import CheckpointError, SetaStreamWarning, StateError
from seta_stream.losses.outbox import Outbox, in_turns, pack_calls, unpack_calls
from seta_stream.losses.pending import PendingLosses, pack_pending, unpack_pending
from seta_stream.losses.pending_folder import PendingFolder

if TYPE_CHECKING:
    from seta_stream.losses.owners import Owners
    from seta_stream.losses.recording import Recorded
    from seta_stream.losses.table import LossTable

KEPT: Final = 8
"""Checkpoints of one process whose losses are kept; an older one can no longer be loaded."""


def take_in(table: LossTable, calls: Iterable[Recorded], first_own: int) -> None:
    """Record what came from other processes, of samples that this one owns; ids are the corpus's."""
    for call in calls:
        own = call._replace(ids=call.ids - first_own)
        for part in in_turns(own, table.total) if table.columns else [own]:
            table.put(part)


class Unfinished:
    """The losses recorded since the last generation, in files that checkpoints name.

    Args:
        folder: of the pending losses.
        collective: of the run.
        owners: of the shards.
        token: tells runs apart; the same on every process.
    """

    def __init__(self, folder: PendingFolder, collective: Collective, owners: Owners, token: str) -> None:
        self._folder = folder
        self._collective = collective
        self._first_own = owners.ids_of(collective.rank).start
        self._owners = owners
        self._token = token
        self._written: list[str] = []

    def write(
        self, epoch: int, step: int, begun: int, table: LossTable, outbox: Outbox | None, parent: str | None
    ) -> str:
        """Keep what this process recorded; return the name, which is the same on every process that asks.

        Args:
            epoch, step: the position.
            begun: how many epochs this run has begun, so that one that is set again overwrites nothing.
            table: of this process.
            outbox: what has not reached its owner; None in one process.
            parent: the generation that the losses were recorded on top of.

        Raises:
            StateError: nothing could be written.
        """
        place = f"epoch-{epoch:06d}-step-{step:09d}"
        is_alone = self._collective.world == 1
        name = f"{place}-{secrets.token_hex(4)}" if is_alone else f"{place}-{self._token}-{begun}"
        own = name if is_alone else _part(name, self._collective.rank)
        ids = np.flatnonzero(table.all_ages == 0)
        columns = {column: values[ids] for column, values in table.columns.items()}
        calls = pack_calls(outbox.calls()) if outbox is not None and outbox.recorded else b""
        losses = table.values[ids]
        ids += self._first_own
        self._folder.write(own, ids, losses, columns, parent=parent, calls=calls)
        if own not in self._written and (len(ids) or calls):  # one without losses is small, and old ones need it
            self._written.append(own)
        while len(self._written) > KEPT:
            self._folder.remove(self._written.pop(0))
        return name

    def take_up(self, name: str, writers: int, table: LossTable, outbox: Outbox | None) -> None:
        """Record again what a checkpoint's processes kept.

        Args:
            name: as `write` gave it.
            writers: how many processes the run had then.
            table, outbox: as there, of this process now.

        Raises:
            CheckpointError: all of them are gone, or one is damaged. Where some are gone, a warning tells how many.
        """
        everyone = self._collective
        names = [name] if writers == 1 else [_part(name, writer) for writer in range(writers)]
        # Neighbours go to one process: of a sample that several recorded, the last one's loss stays the last.
        first, stop = (writers * rank // everyone.world for rank in (everyone.rank, everyone.rank + 1))
        held: list[PendingLosses] = []
        calls: list[Recorded] = []
        told = from_each(everyone, lambda: self._read(names[first:stop], held, calls))
        if gone := [one for part in told for one in part.decode().split("\n") if one]:
            self._tell_gone(gone, writers)
        for part in everyone.route(self._by_owner(held)):
            for data in msgpack.unpackb(part, max_bin_len=len(part)):
                kept = unpack_pending(data, name=name)
                table.restore(kept.ids - self._first_own, kept.losses, kept.columns)
        if outbox is None:
            take_in(table, calls, 0)
            return
        for call in calls:
            outbox.add(call)

    def _read(self, names: list[str], held: list[PendingLosses], calls: list[Recorded]) -> bytes:
        """Read some parts; return the names of those that are gone."""
        gone = [name for name in names if not self._folder.has(name)]
        total = int(self._owners.ids[-1])
        for name in names:
            if name in gone:
                continue
            try:
                held.append(self._folder.read(name))
                found = unpack_calls(held[-1].calls) if held[-1].calls else []
            except StateError as error:
                raise CheckpointError(f"The losses recorded before the checkpoint are gone. {error.message}") from error
            except ValueError as error:
                raise _unusable(name, str(error)) from error
            for ids in (held[-1].ids, *(call.ids for call in found)):
                if len(ids) and not 0 <= ids.min() <= ids.max() < total:
                    raise _unusable(name, f"they are of ids {ids.min()} … {ids.max()}, and the corpus has {total}")
            calls += found
        return "\n".join(gone).encode()

    def _tell_gone(self, gone: list[str], writers: int) -> None:
        if len(gone) == writers:
            raise CheckpointError(
                f"The losses recorded before the checkpoint are gone: {gone[0]} is not in {self._folder.url}. The "
                "checkpoint is older than the generations that are kept, or belongs to another state. Use a newer one.",
                expected=gone[0],
            )
        if self._collective.rank == 0:
            warnings.warn(
                f"{len(gone)} of the {writers} processes that trained before the checkpoint kept no losses for it, and "
                "what they recorded in that epoch is lost: those samples keep their older losses. Call state_dict() on "
                "every process, and save it on one.",
                SetaStreamWarning,
                stacklevel=2,
            )

    def _by_owner(self, held: list[PendingLosses]) -> list[bytes]:
        """Return what is remembered of each owner's samples, by rank."""
        sent: list[list[bytes]] = [[] for _ in range(self._owners.world)]
        for one in held:
            owner = self._owners.of(one.ids)
            for rank in np.unique(owner).tolist():
                own = owner == rank
                columns = {name: values[own] for name, values in one.columns.items()}
                sent[rank].append(pack_pending(one.ids[own], one.losses[own], None, columns))
        return [bytes(msgpack.packb(parts)) for parts in sent]


def _unusable(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"The losses recorded before the checkpoint are gone. Cannot use the pending losses {name}: {why}. Use an "
        "older checkpoint.",
        found=name,
    )


def _part(name: str, rank: int) -> str:
    """Return the name of one process's file."""
    return f"{name}.rank-{rank:05d}"
