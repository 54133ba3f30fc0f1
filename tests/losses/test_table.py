"""The loss table."""

from __future__ import annotations

import numpy as np
import pytest

from seta_stream.errors import LossError
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable

NAN = float("nan")


def table_of(*shards):
    return LossTable(shards or (3, 0, 4))


def test_a_table_begins_unseen():
    """NaN losses and the age 255, split by shard."""
    table = table_of()
    assert (table.total, table.shards) == (7, 3)
    assert np.isnan(table.losses(0)).all()
    assert table.ages(2).tolist() == [255] * 4
    assert len(table.losses(1)) == 0
    assert table.histogram().unseen == 7
    assert table.values.nbytes + table.all_ages.nbytes <= 6 * table.total


def tensors():
    torch = pytest.importorskip("torch")
    return {
        "torch": (torch.tensor([0, 5]), torch.tensor([0.5, 2.0])),
        "torch int32 with grad": (
            torch.tensor([0, 5], dtype=torch.int32),
            torch.tensor([0.5, 2.0], requires_grad=True),
        ),
        "torch bfloat16": (torch.tensor([0, 5]), torch.tensor([0.5, 2.0]).bfloat16()),
        "lists of tensors": ([torch.tensor(0), torch.tensor(5)], [torch.tensor(0.5), torch.tensor(2.0)]),
    }


INPUTS = {
    "lists": ([0, 5], [0.5, 2.0]),
    "tuples": ((0, 5), (0.5, 2)),
    "int64 and float64": (np.array([0, 5]), np.array([0.5, 2.0])),
    "uint8 and float16": (np.array([0, 5], np.uint8), np.array([0.5, 2.0], np.float16)),
    "big-endian": (np.array([0, 5], ">i8"), np.array([0.5, 2.0], ">f4")),
    "strided": (np.array([0, 9, 5, 9])[::2], np.array([0.5, 9, 2.0, 9], np.float32)[::2]),
    "-1 ignored": (np.array([-1, 0, -1, 5]), np.array([NAN, 0.5, 7.0, 2.0])),
    "uint64": (np.array([0, 5], np.uint64), np.array([0.5, 2.0])),
}


@pytest.mark.parametrize("kind", [*INPUTS, "torch", "torch int32 with grad", "torch bfloat16", "lists of tensors"])
def test_any_array_is_recorded(kind):
    """The same two losses arrive from every kind of input."""
    ids, losses = INPUTS[kind] if kind in INPUTS else tensors()[kind]
    table = table_of()
    table.record(ids, losses)
    assert table.values[[0, 5]].tolist() == [0.5, 2.0]
    assert np.isnan(table.values[[1, 2, 3, 4, 6]]).all()
    assert table.all_ages.tolist() == [0, 255, 255, 255, 255, 0, 255]
    assert (table.recorded, table.bad_losses) == (2, 0)


class ForeignArray:
    """An array of another library (as JAX's) whose values are of a dtype that numpy only knows by extension."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


def test_an_array_of_another_library_is_recorded():
    """What has __array__ is enough."""
    table = table_of()
    table.record(ForeignArray([1, 2]), ForeignArray(np.array([0.25, 4.0], np.float32)))
    assert table.values[1:3].tolist() == [0.25, 4.0]


def test_losses_are_rounded_once():
    """The table holds what round_losses gives, negative and huge losses too."""
    losses = np.array([0.1, -3.3333, 1e6 + 1, 1e-7, 0.0, -0.0, 123.456], np.float32)
    table = table_of()
    table.record(np.arange(7), losses)
    assert np.array_equal(table.values, round_losses(losses))


def test_the_last_of_equal_ids_stays():
    """Also where ids repeat within one call, and where the last one is bad."""
    table = table_of()
    table.record([2, 2, 2], [1.0, 2.0, 3.0])
    assert table.values[2] == 3.0
    table.record([2, 2], [5.0, NAN])
    assert table.values[2] == 5.0


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf"), 1e300, 3.4028235e38])
def test_a_bad_loss_never_enters(bad):
    """The old value and age stay, and it is counted; 1e300 overflows float32, the last one the rounding."""
    table = table_of()
    table.record([1], [4.0])
    table.advance()
    table.record([1, 2], [bad, 1.0])
    assert table.values[1:3].tolist() == [4.0, 1.0]
    assert table.all_ages[1:3].tolist() == [1, 0]
    assert (table.bad_losses, table.recorded) == (1, 1)
    table.advance()
    assert (table.bad_losses, table.recorded) == (0, 0)


def test_nothing_is_recorded_from_nothing():
    """Empty input, and only ids of no sample."""
    table = table_of()
    table.record([], [])
    table.record(np.array([-1]), np.array([NAN]))
    assert (table.recorded, table.bad_losses) == (0, 0)


@pytest.mark.parametrize(
    ("ids", "losses", "told"),
    [
        ([0.0, 1.0], [1.0, 2.0], "ids are float64, and only integers"),
        (np.array([True, False]), [1.0, 2.0], "ids are bool"),
        (np.array([0], np.int8), [1.0], "ids are int8, which cannot count"),
        ([300], [1.0], "id 300 is none of the corpus, whose ids run from 0 to 299"),
        ([-2], [1.0], "id -2 is none of the corpus"),
        (np.array([2**64 - 1], np.uint64), [1.0], "id 18446744073709551615 is none"),
        ([0, 1], [1.0], "2 ids came with 1 losses"),
        ([0, 1], 0.5, 'reduction="none"'),
        ([0, 1], [[1.0], [2.0]], "2 ids came with 2 x 1 losses"),
        ([0], [True], "they are bool, not numbers"),
        ([0], ["1"], "not numbers"),
        ([0], [1j], "they are complex128"),
        ([[0, 1], [2]], [1.0], "ids are a list that does not convert"),
    ],
)
def test_wrong_input_is_refused_with_the_reason(ids, losses, told):
    """Each row tells what was wrong, and the table stays as it was."""
    table = table_of(300)
    with pytest.raises(LossError, match=told):
        table.record(ids, losses)
    assert np.isnan(table.values).all()


def test_ages_grow_and_saturate():
    """255 epochs is as old as it gets; unseen samples stay there."""
    table = table_of(2)
    table.record([0], [1.0])
    table.advance(3)
    assert table.ages(0).tolist() == [3, 255]
    table.advance(251)
    assert table.ages(0).tolist() == [254, 255]
    table.advance(10_000)
    assert table.ages(0).tolist() == [255, 255]


def test_a_shard_is_loaded():
    """Losses are rounded, and what is not finite is unseen."""
    table = table_of()
    table.load(2, [0.1, NAN, np.inf, 2.0], [3, 4, 5, 6])
    assert np.array_equal(table.losses(2), round_losses([0.1, NAN, NAN, 2.0]), equal_nan=True)
    assert table.ages(2).tolist() == [3, 255, 255, 6]
    with pytest.raises(LossError, match="shard 0: it has 3 samples, and 4 losses"):
        table.load(0, [1.0] * 4, [0] * 4)
