"""Losses on their way: what a process recorded since the last exchange, of samples that others own.

Takes calls of record(); gives, once an epoch, each owner's part, and takes those apart again. Pure: arrays to bytes and
back; who sends them is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from seta_stream.losses.columns import (
    AGE,
    LOSS,
    MAX_AGE,
    OF_CALL,
    Column,
    check_fits,
    pack_columns,
    recorded_names,
    unpack_columns,
)
from seta_stream.losses.owners import Owners
from seta_stream.losses.recording import Recorded, check_recorded

_JOINED_AT: Final = 1 << 20
"""So many losses of single calls are joined: apart they take half as much again, and leave the heap in pieces."""


class Outbox:
    """Keeps what is recorded, 12 bytes per loss and what the policy's columns take, in the order of the calls.

    Args:
        total: samples of the corpus.
        columns: what the policy remembers.
        takes_means: one loss may be recorded for many ids.
    """

    def __init__(self, total: int, columns: Sequence[Column], *, takes_means: bool) -> None:
        self._total = total
        self._columns = tuple(columns)
        self._takes = recorded_names(columns)
        self._takes_means = takes_means
        self._calls: list[Recorded] = []  # joined
        self._newest: list[Recorded] = []
        self._newest_losses = 0
        self.recorded = 0
        """Losses that are kept here."""
        self.bad_losses = 0
        """NaN and infinite losses that were refused since `clear`."""

    def record(self, ids: object, losses: object, recorded: Mapping[str, object]) -> None:
        """Take what LossTable.record takes.

        Raises:
            LossError: as there.
        """
        taken = check_recorded(ids, losses, recorded, self._total, self._takes, takes_means=self._takes_means)
        new = {LOSS: taken.losses, **taken.others}
        made = {one.name + OF_CALL: one.given(new) for one in self._columns if one.of_call and one.source in new}
        self._check_fits(new | made, len(taken.ids))
        self.bad_losses += taken.bad_losses
        # Copies: the caller's arrays may be used again.
        others = {name: np.array(values) for name, values in (taken.others | made).items()}
        call = Recorded(taken.ids.astype(np.int64), taken.losses.copy(), others)
        if self._columns:
            last = _last_of_each(call.ids)
            self.recorded += len(call.ids) - len(last)
            call = _picked(call, last)
        self.add(call)

    def _check_fits(self, new: Mapping[str, NDArray[Any]], count: int) -> None:
        """Refuse now what the owner's whole-number columns cannot hold, by their updates of samples never seen."""
        whole = [one for one in self._columns if np.dtype(one.dtype).kind != "f" and one.source in new]
        if not whole or not count:
            return
        old: dict[str, NDArray[Any]] = {one.name: one.fresh(count) for one in self._columns}
        old |= {LOSS: np.full(count, np.nan, np.float32), AGE: np.full(count, MAX_AGE, np.uint8)}
        for column in whole:
            check_fits(column, np.asarray(column.update(old, column.given(new))))

    def add(self, call: Recorded) -> None:
        """Take a call as it was sent or kept."""
        if len(call.ids):
            self._newest.append(call)
            self._newest_losses += len(call.ids)
            self.recorded += len(call.ids)
            if self._newest_losses >= _JOINED_AT:
                self._join()

    def calls(self) -> list[Recorded]:
        """Return what is kept, in the order in which it came, calls of the same names joined into long ones."""
        self._join()
        return self._calls

    def parts(self, owners: Owners) -> list[bytes]:
        """Return what goes to each owner, by rank."""
        sent: list[list[Recorded]] = [[] for _ in range(owners.world)]
        for call in self.calls():
            # numpy sorts 16 bits by radix, ten times as fast as 64.
            owner = owners.of(call.ids).astype(np.min_scalar_type(owners.world))
            order = np.argsort(owner, kind="stable")  # a later loss of the same sample stays the later one
            ends = np.cumsum(np.bincount(owner, minlength=owners.world))
            for rank, (begin, end) in enumerate(pairwise([0, *ends.tolist()])):
                if end > begin:
                    sent[rank].append(_picked(call, order[begin:end]))
        sent.reverse()
        # Each rank's is forgotten as it is packed.
        return [pack_calls(_alike_joined(sent.pop())) for _ in range(owners.world)]

    def clear(self) -> None:
        """Forget everything: it was sent."""
        self._calls, self._newest, self._newest_losses = [], [], 0
        self.recorded = self.bad_losses = 0

    def _join(self) -> None:
        newest, self._newest, self._newest_losses = self._newest, [], 0
        self._calls += _alike_joined(newest)


def pack_calls(calls: Iterable[Recorded]) -> bytes:
    """Return calls as bytes; `unpack_calls` gives them back."""
    plain = []
    for call in calls:
        told, others = pack_columns(call.others)
        plain.append([call.ids.astype("<i8").tobytes(), call.losses.astype("<f4").tobytes(), told, others])
    return bytes(msgpack.packb(plain))


def unpack_calls(data: bytes) -> list[Recorded]:
    """Return the calls that `pack_calls` told.

    Raises:
        ValueError: the bytes are something else.
    """
    try:
        return [_unpacked(*call) for call in msgpack.unpackb(data, max_bin_len=len(data))]
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"its calls are malformed ({error})") from error


def _unpacked(ids: bytes, losses: bytes, told: Any, others: bytes) -> Recorded:
    id_array = np.frombuffer(ids, "<i8").astype(np.int64)
    loss_array = np.frombuffer(losses, "<f4").astype(np.float32)
    if id_array.shape != loss_array.shape:
        raise ValueError(f"{len(id_array)} ids came with {len(loss_array)} losses")
    return Recorded(id_array, loss_array, unpack_columns(told, others, len(id_array), of_any=True))


def in_turns(call: Recorded, total: int) -> Iterator[Recorded]:
    """Yield a call in parts in which no id comes twice, in order: a column is updated once for each time.

    Args:
        call: ids below `total`.
        total: samples of the table that they are of.
    """
    there = np.zeros(total, np.bool_)
    there[call.ids] = True
    if np.count_nonzero(there) == len(call.ids):
        yield call
        return
    left = np.arange(len(call.ids))
    while len(left):
        _, first = np.unique(call.ids[left], return_index=True)
        first.sort()
        yield _picked(call, left[first])
        left = np.delete(left, first)


def _alike_joined(calls: list[Recorded]) -> list[Recorded]:
    """Return the calls with neighbours of the same names joined."""
    return [_joined(list(alike)) for _, alike in groupby(calls, lambda call: tuple(call.others))]


def _joined(calls: list[Recorded]) -> Recorded:
    if len(calls) == 1:
        return calls[0]
    ids, losses = (np.concatenate([call[place] for call in calls]) for place in (0, 1))
    return Recorded(ids, losses, {name: np.concatenate([call.others[name] for call in calls]) for name in calls[0][2]})


def _last_of_each(ids: NDArray[np.int64]) -> NDArray[Any]:
    """Return where each id stands last, ascending: a column is updated once by a call, as LossTable does."""
    _, from_end = np.unique(ids[::-1], return_index=True)
    return np.sort(len(ids) - 1 - from_end)


def _picked(call: Recorded, where: NDArray[Any]) -> Recorded:
    return Recorded(call.ids[where], call.losses[where], {name: one[where] for name, one in call.others.items()})
