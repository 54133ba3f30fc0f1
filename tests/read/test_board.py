"""The board: what an epoch selects, in shared arrays."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
import pytest

from seta_stream.errors import UnsupportedError
from seta_stream.plan.epoch import Geometry, Selection
from seta_stream.read.board import _ROOM, Board

FIRST_ID = np.array([0, 10, 10, 21])
SELECTION = Selection.of(np.arange(21) % 2 == 0, FIRST_ID)
GEOMETRY = Geometry(2, 3, 1, 4, 1, -7, "shards", True)


def test_what_is_published_is_read_back() -> None:
    """Epoch, geometry, selection and the weights of a stretch; a new epoch starts at step 0 with no counts."""
    board = Board(FIRST_ID, most_weights=GEOMETRY.most_in_part(21, 2))
    assert not board.is_set
    board.publish(4, GEOMETRY, SELECTION, np.array([1.5, 2.5], np.float32), begin=3)
    board.start = 2
    board.counters(1)[:] = 5
    assert board.is_set
    assert (board.epoch, board.start, board.geometry, board.selected) == (4, 2, GEOMETRY, 11)
    assert board.selection().bits.tolist() == SELECTION.bits.tolist()
    assert board.selection().counts.tolist() == [5, 0, 6]
    line = board.weights()
    assert line is not None
    assert (line.begin, line.values.tolist()) == (3, [1.5, 2.5])
    board.publish(5, GEOMETRY, SELECTION, None)
    assert board.weights() is None
    assert (board.epoch, board.start, board.sums()["samples"]) == (5, 0, 0)


def test_weights_take_the_room_of_a_part() -> None:
    """A rank of 64 holds a 64th of the corpus's weights; a checkpoint of fewer rows gets the room that it needs."""
    first_id = np.array([0, 64_000])
    geometry = Geometry(64, 1, 10, 10, 1, 0, "blocks", True)
    board = Board(first_id, most_weights=geometry.most_in_part(64_000, 64))
    assert len(board._weights) == 1000 + 639
    selection = Selection.of(np.ones(64_000, bool), first_id)
    fewer = Geometry(1, 1, 640, 640, 1, 0, "blocks", True)
    board.publish(0, fewer, selection, np.arange(64_000, dtype=np.float32))
    line = board.weights()
    assert line is not None
    assert line.values.tolist() == list(range(64_000))


def ask(board: Board, orders: Connection) -> None:
    """Answer each order with the weights that a worker sees, or with the error that it meets."""
    while orders.recv():
        try:
            line = board.weights()
            orders.send(None if line is None else (line.begin, line.values.tolist()))
        except UnsupportedError as error:
            orders.send(error.message)


# Python 3.12 warns of a fork beside other tests' threads; this child uses none of them.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_sees_later_epochs_but_no_larger_room(method: str) -> None:
    """What is published after its start it sees; where a checkpoint asked for more room, it says what to do."""
    board = Board(FIRST_ID, most_weights=4)
    board.publish(0, GEOMETRY, SELECTION, None)
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    worker = context.Process(target=ask, args=(board, there))
    worker.start()

    def answer() -> object:
        here.send(True)
        return here.recv()

    try:
        assert answer() is None
        board.publish(1, GEOMETRY, SELECTION, np.array([1, 2, 3, 4], np.float32), begin=6)
        assert answer() == (6, [1, 2, 3, 4])
        board.publish(2, GEOMETRY, SELECTION, np.ones(5, np.float32))
        told = "A worker was started before a checkpoint of another number of processes was loaded"
        assert str(answer()).startswith(told)
        board.publish(3, GEOMETRY, SELECTION, np.ones(2, np.float32))
        assert str(answer()).startswith(told), "the weights lie elsewhere, however few they are"
        board.publish(4, GEOMETRY, SELECTION, None)
        assert answer() is None
    finally:
        here.send(False)
        worker.join()


def test_a_reader_with_an_older_room_is_told_what_to_do() -> None:
    """As a worker is that was started before; simulated by the header alone."""
    board = Board(FIRST_ID)
    board.publish(0, GEOMETRY, SELECTION, np.ones(3, np.float32))
    board._header[_ROOM] += 1
    with pytest.raises(UnsupportedError, match=r"cannot see its weights: make a new DataLoader after load_state_dict"):
        board.weights()
