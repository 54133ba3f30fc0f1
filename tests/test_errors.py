"""Errors carry facts, survive pickling, and the collective of one process."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

from seta_stream import errors
from seta_stream.collective import OneProcess

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SetaStreamError)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[errors.SetaStreamError]) -> None:
    """A DataLoader worker's error reaches the main process with its text and facts."""
    error = kind("what to do", shard="a.tar", key="k", offset=512, expected=3, found=4)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what to do"
    assert vars(copy) == vars(error)


def test_one_process_exchanges_with_itself() -> None:
    """Every exchange of the one-process collective returns what was given."""
    alone = OneProcess()
    assert (alone.rank, alone.world) == (0, 1)
    assert alone.sum(np.array([1, 2])).tolist() == [1, 2]
    assert alone.route([b"a"]) == alone.gather(b"a") == [b"a"]
    assert alone.broadcast(b"b") == b"b"
