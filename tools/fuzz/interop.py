"""Other tools' indexes: Energon's, DALI's, webshart's, wids', SQLite files, and Energon's notes on a data set.

The first byte says which; the shard is one that all seeds describe rightly.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator

import numpy as np

from fuzz.folders import scratch
from fuzz.making import refusing, tar
from fuzz.tars import check, scan
from seta_stream.corpus import interop_dali, interop_energon, interop_lists, interop_sqlite
from seta_stream.corpus.interop_checking import check as check_claims
from seta_stream.corpus.interop_claims import Claims
from seta_stream.store import LateAnswer, ObjectInfo

SHARD = tar()
INFO = ObjectInfo(len(SHARD), "mtime:1")
_FOLDER = scratch("interop")
PLACE = _FOLDER / "index.sqlite"


class Held:
    """The shard as an open file that refuses what no open file would be asked for."""

    url, info, is_near = "/data/held.tar", INFO, True

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes inside the shard."""
        assert 0 <= offset <= len(SHARD), f"a read at {offset} of {len(SHARD)} bytes"
        assert 0 <= length <= len(SHARD) - offset, f"a read of {length} bytes at {offset} of {len(SHARD)}"
        return SHARD[offset : offset + length]

    def read_spans(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """Return bytes of each."""
        return [self.read(offset, length) for offset, length in spans]

    def ask(self, spans: list[tuple[int, int]]) -> list[LateAnswer]:
        """Return answers that are read when they are wanted."""
        return [LateAnswer(self.read, offset, length) for offset, length in spans]

    def check(self) -> None:
        """Nothing changes it."""

    def advise_scattered(self) -> None:
        """Nothing is read ahead."""


def seeds() -> Iterator[bytes]:
    """Give right indexes of the shard in each format."""
    members = scan(SHARD, 1 << 20).members()
    names = [name.decode() for name in members.names.split(b"\0")[:-1]]
    places = list(zip(names, members.data.tolist(), members.size.tolist(), strict=True))
    starts = [int(members.start[0]), int(members.start[2]), scan(SHARD, 1 << 20).offset]
    yield b"\0" + struct.pack("<3Q", *starts)
    rows = [" ".join(f"{name.partition('.')[2]} {data} {size} {name}" for name, data, size in places[at : at + 2])
            for at in (0, 2)]  # fmt: skip
    yield b"\1" + "\n".join(["v1.2 2", *rows, ""]).encode()
    files = {name: {"offset": data, "size": size, "sha256": "0" * 8} for name, data, size in places}
    yield b"\2" + json.dumps({"filesize": len(SHARD), "hash": None, "files": files}).encode()
    listed = [{"path": name, "offset": data, "length": size, "more": {"a": [1]}} for name, data, size in places]
    yield b"\2" + json.dumps({"files": listed}).encode()
    yield b"\3" + json.dumps({"wids_version": 1, "shardlist": [{"url": "a/x.tar", "nsamples": 2}]}).encode()
    yield b"\4" + json.dumps({"energon_version": "7", "shard_counts": {"a/x.tar": 2, "b.tar": 0}}).encode()
    yield b"\5energon_version: 7\nshard_counts:\n  'a/x.tar': 2\n  b.tar: 0\n"
    yield b"\6" + _sqlite(
        "CREATE TABLE samples (tar_file_id INTEGER, sample_key TEXT, sample_index INTEGER, byte_offset INTEGER, "
        "byte_size INTEGER)",
        "CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset "
        "INTEGER, content_byte_size INTEGER)",
        *(
            f"INSERT INTO samples VALUES (0, 'a/{at}', {at}, {starts[at]}, {starts[at + 1] - starts[at]})"
            for at in (0, 1)
        ),
        *(f"INSERT INTO sample_parts VALUES (0, {at // 2}, '{name.partition('.')[2]}', {data}, {size})"
          for at, (name, data, size) in enumerate(places)),
    )  # fmt: skip
    yield b"\7" + _sqlite(
        "CREATE TABLE files (path TEXT, name TEXT, offsetheader INTEGER, offset INTEGER, size INTEGER, mode INTEGER)",
        *(
            f"INSERT INTO files VALUES ('/a', '{name}', {data - 512}, {data}, {size}, 33188)"
            for name, data, size in places
        ),
    )  # fmt: skip


def _sqlite(*statements: str) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA page_size = 512")
    for statement in statements:
        connection.execute(statement)
    data = connection.serialize()
    connection.close()
    return data


def one(data: bytes) -> None:
    """Read one index, and compare what it claims with the shard."""
    which, data = data[0] % 8 if data else 0, data[1:]
    with refusing():
        if which in (3, 4, 5):
            read = (interop_lists.read_wids_counts, interop_lists.read_shard_counts, interop_energon.read_info_yaml)
            counts = read[which - 3](data, "a file")
            assert all(0 <= count < 1 << 62 for count in counts.values()), "a number of samples that cannot be"
            return
        for whole in (False, True):
            found = check_claims(Held(), _claims(which, data), whole=whole)
            check(found.index, len(SHARD))
            assert found.index.keys == ["a/0", "a/1"], "an index that says another thing than the shard"
            assert np.array_equal(found.index.member_size, [5, 1, 1200, 1]), "other sizes than the shard's"


def _claims(which: int, data: bytes) -> Claims:
    if which == 0:
        return interop_energon.read_idx(data, "a file", len(SHARD))
    if which == 1:
        return interop_dali.read_idx(data, "a file", len(SHARD))
    if which == 2:
        interop_lists.is_member_list(data)
        return interop_lists.read_member_list(data, "a file", len(SHARD))
    PLACE.write_bytes(data)
    if which == 6:
        return interop_sqlite.read_energon(PLACE, "a file", 0, len(SHARD))
    return interop_sqlite.read_ratarmount(PLACE, "a file", len(SHARD))
