"""Columns: what a policy wants remembered beside the loss, in the table and in files."""

from __future__ import annotations

import numpy as np
import pytest

from seta_stream.errors import LossError, PolicyError, SidecarError, StateError
from seta_stream.losses.columns import Column, latest, pack_columns, unpack_columns
from seta_stream.losses.pending import pack_pending, unpack_pending
from seta_stream.losses.sidecar import pack, unpack
from seta_stream.losses.table import LossTable

NAN = np.nan
DIGEST = bytes(range(16))


def count(old, new):
    return old["visits"] + 1


def spread(old, new):
    return np.where(np.isnan(old["loss"]), 0, new - old["loss"])


VISITS = Column("visits", "uint16", 0, count)
SPREAD = Column("spread", "float32", -1, spread)
FLAGS = Column("flags", "uint8", 9, latest, source="flags")


def test_columns_follow_the_losses_and_what_is_recorded():
    """An update sees the old loss; a column that is not told of stays; what is refused changes nothing."""
    table = LossTable([2, 2], (VISITS, SPREAD, FLAGS))
    assert table.takes == ("flags",)
    table.record([0, 1, -1], [1.0, 2.0, 7.0], flags=[1, 0, 1])
    table.record([1, 2], [5.0, NAN])
    assert table.columns["visits"].tolist() == [1, 2, 0, 0]
    assert table.columns["spread"].tolist() == [0, 3, -1, -1]
    assert table.columns["flags"].tolist() == [1, 0, 9, 9]
    assert table.bad_losses == 1
    assert {name: values.dtype.name for name, values in table.remembered([1]).items()} == {
        "loss": "float32", "age": "uint8", "visits": "uint16", "spread": "float32", "flags": "uint8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ({"flag": [1]}, "Cannot record flag=: the policy asks for flags beside the losses"),
        ({"flags": [1, 2]}, "Cannot record flags=: 2 values came with 1 ids"),
        ({"flags": [300]}, "column flags holds whole numbers from 0 to 255, and int64 values up to 300 came"),
        ({"flags": [0.5]}, "column flags holds whole numbers from 0 to 255, and float64"),
    ],
)
def test_what_does_not_fit_a_column_is_refused(recorded, told):
    """Naming the argument."""
    with pytest.raises(LossError, match=told):
        LossTable([2], (FLAGS,)).record([0], [1.0], **recorded)


def test_without_columns_nothing_else_is_recorded():
    """A misspelt argument does not vanish."""
    with pytest.raises(LossError, match="the policy asks for nothing beside the losses"):
        LossTable([2]).record([0], [1.0], flags=[1])


def test_one_loss_for_a_batch_is_taken_only_where_means_are():
    """A forgotten reduction="none" stays an error for all other policies."""
    means = LossTable([3], takes_means=True)
    means.record([0, 2], np.float32(4))
    assert means.values.tolist()[::2] == [4.0, 4.0]
    with pytest.raises(LossError, match='reduction="none"'):
        LossTable([3]).record([0, 2], np.float32(4))


def test_a_column_that_was_not_kept_starts_from_the_last_losses():
    """As if each had been recorded once; what only the caller knows starts fresh."""
    table = LossTable([3], (VISITS, SPREAD, FLAGS))
    table.load(0, [1.0, NAN, 3.0], [0, 255, 2])
    assert table.columns["visits"].tolist() == [1, 0, 1]
    assert table.columns["spread"].tolist() == [0, -1, 0]
    assert table.columns["flags"].tolist() == [9, 9, 9]
    table.load(0, [1.0, NAN, 3.0], [0, 255, 2], {"visits": np.array([4, 0, 5], np.uint16), "other": np.zeros(3)})
    assert table.columns["visits"].tolist() == [4, 0, 5]


def test_restoring_updates_no_column():
    """What was remembered comes back as it was, and counts as recorded."""
    table = LossTable([3], (VISITS, FLAGS))
    table.restore(np.array([2]), [1.5], {"visits": np.array([7], np.uint16), "gone": np.array([1])})
    assert (table.values[2], table.all_ages[2], table.columns["visits"][2], table.recorded) == (1.5, 0, 7, 1)
    with pytest.raises(LossError, match="id 3 is none of the corpus"):
        table.restore(np.array([3]), [1.5], {})


@pytest.mark.parametrize("name", ["loss", "age", "Ema", "", "a b"])
def test_a_column_has_a_name_of_its_own(name):
    """Lower-case, and none that is taken."""
    with pytest.raises(PolicyError, match="A column cannot be called"):
        Column(name, "uint8", 0, latest)


def test_a_column_is_of_a_known_dtype():
    """Those that files can hold."""
    with pytest.raises(PolicyError, match="Column a cannot be of 'float64': choose one of float32"):
        Column("a", "float64", 0, latest)


COLUMNS = {"ema": np.array([0.5, NAN, -3], np.float32), "flags": np.array([0, 1, 255], np.uint8)}
GOLDEN = bytes.fromhex(
    "534554414c4f5353"  # SETALOSS
    "0200000055000000"  # version 2, zero, 85 bytes of header
    "84a773616d706c657303a6646967657374c410000102030405060708090a0b0c0d0e0fa66c6f73736573a7666c6f61743136"
    "a7636f6c756d6e739292a3656d61a7666c6f6174333292a5666c616773a575696e7438"
    "003c007e0042"  # losses: 1, never seen, 3
    "00ff02"  # ages
    "0000003f0000c07f000040c0"  # ema
    "0001ff"  # flags
)


def test_golden_bytes_with_columns():
    """The format of docs/formats/state.md: columns follow the ages, and the version is 2."""
    data = pack(np.array([1, NAN, 3], np.float32), np.array([0, 9, 2], np.uint8), DIGEST, COLUMNS)
    assert data[:-4] == GOLDEN
    held = unpack(data, DIGEST)
    assert held.losses.tolist()[::2] == [1.0, 3.0]
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(held.columns[name], values)
        assert held.columns[name].dtype == values.dtype


def test_pending_losses_keep_their_columns():
    """And are of version 1 where there are none."""
    data = pack_pending([4, 2, 9], [1.0, 2.0, 3.0], "gen", COLUMNS)
    held = unpack_pending(data, name="x")
    assert (held.ids.tolist(), held.losses.tolist()) == ([4, 2, 9], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(held.columns["ema"], COLUMNS["ema"])
    assert pack_pending([1], [1.0], None)[8] == 1


@pytest.mark.parametrize(
    ("told", "size", "why"),
    [
        ("x", 0, "its columns are malformed"),
        ([["a"]], 0, "its columns are malformed"),
        ([["a", "float64"]], 24, "its columns are malformed"),
        ([["a", "uint8"]], 4, "its 1 columns of 3 samples need 3 bytes, not 4"),
    ],
)
def test_malformed_columns_are_refused(told, size, why, monkeypatch):
    """Whatever the header says, by both files."""
    with pytest.raises(ValueError, match=why):
        unpack_columns(told, bytes(size), 3)
    for module, make, read, error in [
        ("sidecar", lambda: pack(np.ones(3, np.float32), np.zeros(3, np.uint8), DIGEST, COLUMNS), unpack, SidecarError),
        ("pending", lambda: pack_pending([0, 1, 2], [1, 1, 1], None, COLUMNS), unpack_pending, StateError),
    ]:
        monkeypatch.setattr(f"seta_stream.losses.{module}.pack_columns", lambda columns: (told, bytes(size)))
        with pytest.raises(error, match=why):
            read(make(), name="x")


def test_columns_are_little_endian_one_after_another():
    """In the order given."""
    told, data = pack_columns({"b": np.array([1, 258], ">u2").astype(np.uint16), "a": np.array([-2], np.int32)})
    assert told == [["b", "uint16"], ["a", "int32"]]
    assert data.hex() == "01000201" + "feffffff"
