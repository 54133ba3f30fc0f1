"""Caches of several machines, simulated over the real plan."""

from __future__ import annotations

import numpy as np
import pytest
from bench.bucket_machines import SELECTIONS, Simulated, hit_rates


@pytest.mark.parametrize("machines", [2, 8])
@pytest.mark.parametrize("shards", [100, 150])
@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("selection", ["full", "half at random", "windows"])
def test_machines_find_what_they_read_before(machines: int, shards: int, spread: float, selection: str) -> None:
    """From epoch 1 on, 98 % of the bytes lie in the machine's own cache, whatever is selected."""
    corpus = Simulated.of(shards, 1000, 2500, spread=spread)
    first, *later = (rate for rate, _ in hit_rates(corpus, machines, SELECTIONS[selection], epochs=5))
    assert first == 0
    assert min(later) >= 0.98
    assert selection != "full" or later[-1] >= 0.9999


def test_hit_rates_by_hand() -> None:
    """Two machines, two shards of four blocks: a full epoch fetches all, the next one of the same halves nothing."""
    corpus = Simulated(np.array([0, 4, 8]), np.array([0, 1024, 2048, 3072] * 2), np.full(8, 1024))
    assert list(hit_rates(corpus, 2, SELECTIONS["full"], epochs=2, block_bytes=1024, batch=1)) == [
        (0.0, 0.0),
        (1.0, 1.0),
    ]
    # A machine that reads one sample of a block has the other one too.
    rates = list(hit_rates(corpus, 2, lambda _c, e, _s: np.arange(8) % 2 == e, epochs=2, block_bytes=2048, batch=1))
    assert rates == [(0.0, 0.0), (1.0, 1.0)]
