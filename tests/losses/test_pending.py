"""Pending losses of several processes: the file, byte for byte, and the calls inside it."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seta_stream.errors import LossError, StateError
from seta_stream.losses.columns import DTYPES, OF_CALL, Column, latest
from seta_stream.losses.envelope import pack_file
from seta_stream.losses.outbox import Outbox, in_turns, pack_calls, unpack_calls
from seta_stream.losses.owners import Owners
from seta_stream.losses.pending import PENDING, pack_pending, parent_of, unpack_pending
from seta_stream.losses.recording import Recorded
from seta_stream.losses.table import LossTable
from seta_stream.policies.groups import GroupHistograms, Labels

CALLS = [Recorded(np.array([5, 2]), np.array([1, -0.5], np.float32), {"flags": np.array([True, False])})]
GOLDEN_CALLS = bytes.fromhex(
    "91"  # one call: ids, losses, columns, their bytes
    "94"
    "c410" "0500000000000000" "0200000000000000"
    "c408" "0000803f" "000000bf"
    "9192a5666c616773a4626f6f6c"  # [["flags", "bool"]]
    "c402" "0100"
)  # fmt: skip
GOLDEN = bytes.fromhex(
    "5345544150454e44"  # SETAPEND
    "0300000031000000"  # version 3, zero, 49 bytes of header
    "84a66c6f7373657301a6706172656e74a367656e"  # {losses: 1, parent: "gen",
    "a7636f6c756d6e739192a5666c616773a575696e7438"  # columns: [["flags", "uint8"]],
    "a563616c6c732f"  # calls: 47}
    "0400000000000000" "00004040" "07"  # id 4, loss 3, flags 7
) + GOLDEN_CALLS + bytes.fromhex("6cbc6ee4")  # fmt: skip


def test_golden_bytes_of_several_processes() -> None:
    """The format of docs/formats/state.md: calls follow the columns, and the version is 3."""
    assert pack_calls(CALLS) == GOLDEN_CALLS
    assert pack_pending([4], [3.0], "gen", {"flags": np.array([7], np.uint8)}, GOLDEN_CALLS) == GOLDEN
    held = unpack_pending(GOLDEN, name="x")
    assert (held.ids.tolist(), held.losses.tolist(), held.columns["flags"].tolist()) == ([4], [3.0], [7])
    assert same(unpack_calls(held.calls), CALLS)
    assert parent_of(GOLDEN[:512]) == "gen"
    assert pack_pending([4], [3.0], "gen", {}, GOLDEN_CALLS)[8] == 3


def same(some: list[Recorded], others: list[Recorded]) -> bool:
    """Say whether calls are equal, dtypes included."""
    for one, other in zip(some, others, strict=True):
        assert one.others.keys() == other.others.keys()
        for a, b in [
            (one.ids, other.ids),
            (one.losses, other.losses),
            *((one.others[n], other.others[n]) for n in one.others),
        ]:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    return True


@st.composite
def calls_of_any_kind(draw: st.DrawFn) -> Recorded:
    count = draw(st.integers(0, 9))
    dtypes = st.sampled_from([*DTYPES, "bool", "int64", "float64", "uint64", "float16", "int8"])
    others = draw(st.dictionaries(st.sampled_from(["flags", "group", "ema" + OF_CALL]), dtypes))
    ids = draw(hnp.arrays(np.int64, count, elements=st.integers(0, 2**62)))
    losses = draw(hnp.arrays(np.float32, count))
    return Recorded(ids, losses, {name: draw(hnp.arrays(dtype, count)) for name, dtype in others.items()})


@given(st.lists(calls_of_any_kind(), max_size=4), st.data())
@settings(max_examples=50)
def test_what_is_packed_comes_back(calls: list[Recorded], data: st.DataObject) -> None:
    """Any calls, alone and in a file with columns of its own."""
    assert same(unpack_calls(pack_calls(calls)), calls)
    count = data.draw(st.integers(0, 5))
    ids, losses = np.arange(count), data.draw(hnp.arrays(np.float32, count))
    columns = {name: data.draw(hnp.arrays(name, count)) for name in data.draw(st.sets(st.sampled_from(DTYPES)))}
    held = unpack_pending(pack_pending(ids, losses, None, columns, pack_calls(calls)), name="x")
    assert held.ids.tolist() == ids.tolist()
    np.testing.assert_array_equal(held.losses, losses)
    assert held.columns.keys() == columns.keys()
    for name, values in columns.items():
        np.testing.assert_array_equal(held.columns[name], values)
    assert same(unpack_calls(held.calls), calls)


@given(st.integers(0, len(GOLDEN) - 1), st.integers(1, 255))
@settings(max_examples=100)
def test_any_flipped_byte_is_noticed(place: int, flip: int) -> None:
    """Wherever it is."""
    data = bytearray(GOLDEN)
    data[place] ^= flip
    with pytest.raises(StateError, match="Cannot use the pending losses x"):
        unpack_pending(bytes(data), name="x")


@pytest.mark.parametrize("length", range(len(GOLDEN)))
def test_any_truncation_is_noticed(length: int) -> None:
    """Also an empty file."""
    with pytest.raises(StateError, match="Cannot use the pending losses x"):
        unpack_pending(GOLDEN[:length], name="x")


@pytest.mark.parametrize("calls", [-1, 13, 10**12, "4", True, None, 1.0])
def test_calls_that_do_not_fit_the_file_are_refused(calls: object) -> None:
    """Whatever the header says."""
    data = pack_file(PENDING, {"losses": 1, "parent": None, "columns": [], "calls": calls}, bytes(24))
    with pytest.raises(StateError, match=r"pending losses x: .* bytes of calls do not fit into 24. Use an older check"):
        unpack_pending(data, name="x")


@pytest.mark.parametrize("losses", [-1, 3, True, "1", None])
def test_losses_that_do_not_fit_the_file_are_refused(losses: object) -> None:
    """Whatever the header says."""
    data = pack_file(PENDING, {"losses": losses, "parent": None, "columns": [], "calls": 0}, bytes(24))
    with pytest.raises(StateError, match=r"pending losses x: .* losses do not take 24 bytes. Use an older checkpoint"):
        unpack_pending(data, name="x")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "incomplete input"),
        (b"\xc1", "malformed"),
        (msgpack.packb(7), "its calls are malformed"),
        (msgpack.packb([7]), "its calls are malformed"),
        (msgpack.packb([[b"", b"", []]]), "its calls are malformed"),
        (msgpack.packb([[7, b"", [], b""]]), "its calls are malformed"),
        (msgpack.packb([[bytes(7), b"", [], b""]]), "buffer size must be a multiple"),
        (msgpack.packb([[bytes(8), bytes(8), [], b""]]), "1 ids came with 2 losses"),
        (msgpack.packb([[bytes(8), bytes(4), [["a", "object"]], b""]]), "its columns are malformed"),
        (
            msgpack.packb([[bytes(8), bytes(4), [["a", "int64"]], b""]]),
            "its 1 columns of 1 samples need 8 bytes, not 0",
        ),
        (pack_calls(CALLS) + b"\0", "unpack"),
    ],
)
def test_bytes_that_are_no_calls_are_told(data: bytes, told: str) -> None:
    """As one kind of error, which who reads the file names it by."""
    with pytest.raises(ValueError, match=told):
        unpack_calls(data)


def average(old: dict, new: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(old["loss"]), new, old["ema"] + np.float32(0.5) * (new - old["ema"])).astype(np.float32)


COLUMNS = (Column("ema", "float32", 0, average), Column("flags", "uint8", 9, latest, source="flags"))


@given(st.lists(st.lists(st.tuples(st.integers(-1, 9), st.integers(0, 99)), max_size=6), max_size=6), st.integers(1, 4))
@settings(max_examples=60)
def test_owners_remember_what_one_table_would(calls: list[list[tuple[int, int]]], world: int) -> None:
    """Ids again and again, in one call and in several: sent to their owners, every column is the same."""
    first_id = np.array([0, 4, 4, 7, 10])
    whole, owners = LossTable(np.diff(first_id), COLUMNS), Owners(first_id, world)
    outbox = Outbox(10, COLUMNS, takes_means=False)
    for number, call in enumerate(calls):
        ids, losses = np.array([one for one, _ in call], np.int64), np.array([loss / 8 for _, loss in call])
        recorded = {"flags": ids % 2} if number % 3 else {}
        whole.record(ids, losses, **recorded)
        outbox.record(ids, losses, recorded)
    assert outbox.recorded == whole.recorded
    for rank, part in enumerate(outbox.parts(owners)):
        own = owners.ids_of(rank)
        table = LossTable(np.diff(owners.first_id_of(rank)), COLUMNS)
        for call in unpack_calls(part):
            for turn in in_turns(call._replace(ids=call.ids - own.start), table.total):
                table.put(turn)
        for name, values in table.remembered().items():
            np.testing.assert_array_equal(values, whole.remembered()[name][own.start : own.stop])


def test_an_outbox_refuses_what_a_column_cannot_hold() -> None:
    """As a table does, and nothing of the call is kept."""
    outbox = Outbox(10, COLUMNS, takes_means=False)
    with pytest.raises(LossError, match="Cannot record flags=: column flags holds whole numbers from 0 to 255"):
        outbox.record([1], [1.0], {"flags": [300]})
    assert (outbox.recorded, outbox.calls()) == (0, [])


@given(
    st.lists(st.tuples(st.floats(0, 9, width=32) | st.just(float("nan")), st.integers(0, 3)), max_size=40), st.data()
)
@settings(max_examples=50)
def test_histograms_of_groups_come_back_and_add_up(samples: list[tuple[float, int]], data: st.DataObject) -> None:
    """As bytes, and cut anywhere among processes: the same groups in the same order, with the same counts."""
    scores = np.array([score for score, _ in samples], np.float32)
    labels = Labels(("b", "a", "ü", ""), np.array([group for _, group in samples], np.uint8))
    whole = GroupHistograms.of(scores, labels)
    cut = data.draw(st.integers(0, len(samples)))
    parts = [
        GroupHistograms.of(scores[part], Labels(labels.names, labels.codes[part]))
        for part in (slice(0, cut), slice(cut, None))
    ]
    again = GroupHistograms.from_bytes(whole.to_bytes())
    for other in (again, sum(parts[1:], parts[0])):
        assert other.names == whole.names == ("", "a", "b", "ü")
        for name in ("occupied", "counts", "unseen", "ranges"):
            found, expected = getattr(other, name), getattr(whole, name)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
