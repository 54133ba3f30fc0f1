"""The outbox: what many calls of record() leave for each owner."""

from __future__ import annotations

import numpy as np
import pytest

from seta_stream.losses import outbox
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.outbox import Outbox, pack_calls, unpack_calls
from seta_stream.losses.owners import Owners

OWNERS = Owners(np.arange(0, 1001, 10), 7)
FLAGS = (Column("flags", "uint8", 0, latest, source="flags"),)


def outbox_of(columns: tuple[Column, ...] = ()) -> Outbox:
    return Outbox(1000, columns, takes_means=False)


@pytest.mark.parametrize("joined_at", [1, 50, 1 << 20])
def test_calls_one_by_one_leave_what_one_call_leaves(joined_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls bring the losses and however they are joined meanwhile, each owner gets the same bytes."""
    monkeypatch.setattr(outbox, "_JOINED_AT", joined_at)
    rng = np.random.default_rng(0)
    ids, losses = rng.integers(0, 1000, 700), rng.exponential(size=700)
    one_by_one, at_once = outbox_of(), outbox_of()
    for start in range(0, 700, 16):
        one_by_one.record(ids[start : start + 16], losses[start : start + 16], {})
    at_once.record(ids, losses, {})
    parts = one_by_one.parts(OWNERS)
    assert parts == at_once.parts(OWNERS)
    assert one_by_one.parts(OWNERS) == parts, "what was not cleared is still there"
    assert one_by_one.recorded == 700
    one_by_one.clear()
    assert one_by_one.recorded == 0
    assert one_by_one.parts(OWNERS) == [pack_calls([])] * 7


def test_each_owner_gets_its_own_in_the_order_of_the_calls() -> None:
    """A loss goes to the owner of its id, behind the earlier ones of the same id."""
    box = outbox_of()
    box.record([5, 999, 5], [1.0, 2.0, 3.0], {})
    box.record([6, 5], [4.0, 5.0], {})
    first, *middle, last = map(unpack_calls, box.parts(OWNERS))
    assert [(call.ids.tolist(), call.losses.tolist()) for call in first] == [([5, 5, 6, 5], [1.0, 3.0, 4.0, 5.0])]
    assert [(call.ids.tolist(), call.losses.tolist()) for call in last] == [([999], [2.0])]
    assert middle == [[]] * 5


def test_calls_of_other_names_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with and without flags keep their order, and only neighbours of the same names are joined."""
    monkeypatch.setattr(outbox, "_JOINED_AT", 1)
    box = outbox_of(FLAGS)
    for number in range(4):
        box.record([number], [float(number)], {"flags": [number]} if number in {1, 2} else {})
    first = unpack_calls(box.parts(OWNERS)[0])
    assert [(call.ids.tolist(), sorted(call.others)) for call in first] == [([0], []), ([1, 2], ["flags"]), ([3], [])]


def test_more_owners_than_a_byte_counts() -> None:
    """With 300 owners, most of them of nothing, every loss arrives."""
    owners = Owners(np.arange(0, 1001, 10), 300)
    box = outbox_of()
    box.record(np.arange(1000), np.ones(1000), {})
    parts = list(map(unpack_calls, box.parts(owners)))
    for rank, calls in enumerate(parts):
        assert [call.ids.tolist() for call in calls] == ([list(owners.ids_of(rank))] if owners.ids_of(rank) else [])
    assert sum(len(call.ids) for calls in parts for call in calls) == 1000
