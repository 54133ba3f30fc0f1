"""Tables that `seta-stream import` reads: CSV and Parquet.

The first byte says which.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuzz.folders import scratch
from fuzz.making import refusing
from seta_stream.carry.rows import Chunk
from seta_stream.carry.tables import read_table, write_table

_FOLDER = scratch("tables")
PLACES = (_FOLDER / "x.csv", _FOLDER / "x.parquet")


def seeds() -> Iterator[bytes]:
    """Give both kinds as `seta-stream export` writes them."""
    losses = np.array([0.5, np.nan, 2.0], np.float32)
    columns = {"loss": losses, "age": np.array([0, 255, 3], np.uint8), "ema": losses, "flags": np.ones(3, np.uint16)}
    chunk = Chunk("s3://b/x.tar", ["a", "b", "=1+1"], np.arange(3), np.arange(3), columns)
    for number, place in enumerate(PLACES):
        write_table(place, [chunk])
        yield bytes([number]) + place.read_bytes()
    yield b"\0id,loss\n1,0.5\n2,\n"


def one(data: bytes) -> None:
    """Read one table whole."""
    which, data = data[0] % 2 if data else 0, data[1:]
    PLACES[which].write_bytes(data)
    with refusing():
        for rows in read_table(PLACES[which]):
            lengths = {len(column) for column in rows.values()}
            assert len(lengths) == 1, "columns of several lengths"
            assert np.asarray(rows["loss"]).dtype.kind == "f", "losses that are no numbers"
