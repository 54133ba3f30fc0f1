"""SQLite files of unknown trust: Energon's and ratarmount's indexes; and Energon's, written.

Takes a local path; gives Claims, or raises IndexFileError. Acts: reads and writes files.

A file is opened read-only, without its write-ahead log. Only fixed queries run: of the columns of one or two plain
tables, without functions, views, triggers, virtual tables or extensions, which an authoriser denies; values, statements
and steps are limited. What comes out is numbers and bytes, checked like those of every other index.

Source:
    NVIDIA/Megatron-Energon 7.4.1, flavors/webdataset/indexing.py (SqliteIndexWriter). mxmlnkn/ratarmount,
    ratarmountcore/create-index-tables.sql and SQLiteIndex.py (index version 0.7.0). https://sqlite.org/security.html
    for what to limit.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from seta_stream.corpus.header import BLOCK, text
from seta_stream.corpus.interop_claims import Claims, claimed_starts, listed, most_members, refusal
from seta_stream.corpus.interop_rows import Row
from seta_stream.errors import CorpusError, UnsupportedError

_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 64 << 10,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 64 << 10,
    sqlite3.SQLITE_LIMIT_COLUMN: 64,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 16,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 2,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 10_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 4,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 16,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_STEPS: Final = 100_000
_STEPS_PER_BYTE: Final = 4
"""A row takes some ten steps and at least as many bytes."""
_SMALL: Final = ("PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0")
_ROWS: Final = 1000
"""Rows that are fetched at once, before their length is looked at: 64 MiB at most for each column."""
_SLACK: Final = 1 << 20
_REGULAR: Final = 0x8000
_KIND: Final = 0xF000
_SCHEMA: Final = ("sqlite_master", "sqlite_schema")

_TABLES: Final = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER, content_byte_size INTEGER
)
"""
_INDEXES: Final = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size)
"""

Value = int | bytes | float | None


@contextlib.contextmanager
def _opened(path: Path, source: str, tables: tuple[str, ...]) -> Iterator[sqlite3.Connection]:
    """Open a file of unknown trust for reading some plain tables; whatever SQLite finds wrong is IndexFileError."""
    steps_left = max(1, path.stat().st_size * _STEPS_PER_BYTE // _STEPS) + 100

    def count() -> bool:
        nonlocal steps_left
        steps_left -= 1
        return steps_left < 0

    def allow(action: int, first: str | None, second: str | None, _: str | None, inside: str | None) -> int:
        is_read = action == sqlite3.SQLITE_READ and first in (*tables, *_SCHEMA) and second is not None
        allowed = inside is None and (action == sqlite3.SQLITE_SELECT or is_read)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, isolation_level=None)
    try:
        connection.text_factory = bytes
        for limit, most in _LIMITS.items():
            connection.setlimit(limit, most)
        for statement in _SMALL:
            connection.execute(statement)
        connection.set_progress_handler(count, _STEPS)
        connection.set_authorizer(allow)
        yield connection
    # Its messages may quote a damaged schema; a damaged length may be more than there is memory for.
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, MemoryError) as error:
        raise refusal(source, f"SQLite says: {error or 'it would take too much memory'}") from error
    finally:
        connection.close()


def _refuse_other_tables(connection: sqlite3.Connection, source: str, tables: tuple[str, ...]) -> None:
    """Refuse what is called like a table and is a view, a virtual table, or not there."""
    plain = {
        name
        for kind, name, statement in _rows(connection, source, "SELECT type, name, sql FROM sqlite_master", (), 100)
        if kind == b"table" and isinstance(statement, bytes) and statement.upper().startswith(b"CREATE TABLE")
    }
    missing = [table for table in tables if table.encode() not in plain]
    if missing:
        raise refusal(
            source,
            f"it has no plain table {missing[0]!r}, so it is no such index",
            expected=tables,
            found=sorted(text(name) for name in plain if isinstance(name, bytes))[:8],
        )


def _rows(
    connection: sqlite3.Connection, source: str, query: str, values: tuple[int, ...], most: int
) -> list[tuple[Value, ...]]:
    cursor = connection.execute(query, values)
    rows: list[tuple[Value, ...]] = []
    length = 0
    while more := cursor.fetchmany(_ROWS):
        rows += more
        length += sum(len(value) for row in more for value in row if isinstance(value, bytes))
        # Names stand in the shard's headers too, in 512 bytes or more for each member.
        if len(rows) > most or length > _SLACK + most * BLOCK:
            raise refusal(source, f"it has more than the {most} rows, or longer names, than a shard of this size has")
    return rows


def _numbers(rows: list[tuple[Value, ...]], column: int, source: str) -> list[int]:
    found = [row[column] for row in rows]
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in found):
        wrong = next(number for number in found if type(number) is not int or not 0 <= number < 1 << 62)
        raise refusal(source, f"it holds {str(wrong)[:40]!r} where an offset, a size or a number is expected")
    return found  # type: ignore[return-value]


def _names(rows: list[tuple[Value, ...]], column: int, source: str) -> list[bytes]:
    found = [row[column] for row in rows]
    if not all(type(name) is bytes and b"\0" not in name for name in found):
        raise refusal(source, "it holds something else where a name is expected")
    return found  # type: ignore[return-value]


def read_energon(path: Path, source: str, tar_file_id: int, shard_size: int) -> Claims:
    """Return what Energon's `index.sqlite` says of one shard.

    Args:
        path: the file.
        source: its URL, for messages.
        tar_file_id: number of the shard, by the order of `.info.json`.
        shard_size: bytes of the shard.

    Raises:
        IndexFileError: it is no such file, or what it says cannot be.
    """
    tables, room = ("samples", "sample_parts"), most_members(shard_size)
    with _opened(path, source, tables) as connection:
        _refuse_other_tables(connection, source, tables)
        samples = _rows(
            connection,
            source,
            "SELECT sample_index, byte_offset, byte_size, sample_key FROM samples WHERE tar_file_id = ?",
            (tar_file_id,),
            room,
        )
        parts = _rows(
            connection,
            source,
            "SELECT sample_index, content_byte_offset, content_byte_size, part_name FROM sample_parts "
            "WHERE tar_file_id = ?",
            (tar_file_id,),
            room,
        )
    numbers, offsets, sizes = (_numbers(samples, column, source) for column in range(3))
    keys = dict(zip(numbers, _names(samples, 3, source), strict=True))
    owners, data, size = (_numbers(parts, column, source) for column in range(3))
    if len(keys) != len(samples) or not set(owners) <= keys.keys():
        raise refusal(source, f"its samples of shard {tar_file_id} are numbered twice, or a part belongs to none")
    fields = _names(parts, 3, source)
    names = [keys[owner] + b"." + field for owner, field in zip(owners, fields, strict=True)]
    ends = [*sorted(offsets), max(map(sum, zip(offsets, sizes, strict=True)), default=0)]
    starts = claimed_starts(source, "energon", np.array(ends, np.int64), shard_size)
    members = listed(source, data=data, size=size, names=names, shard_size=shard_size)
    return Claims(source=source, kind="energon", starts=starts.starts, end=starts.end, members=members)


def read_ratarmount(path: Path, source: str, shard_size: int) -> Claims:
    """Return what ratarmount's index says; without its names, which it makes paths of.

    Raises:
        IndexFileError: it is no such file, or what it says cannot be.
    """
    with _opened(path, source, ("files",)) as connection:
        _refuse_other_tables(connection, source, ("files",))
        rows = _rows(
            connection,
            source,
            "SELECT mode, offset, size FROM files WHERE offsetheader IS NOT NULL",
            (),
            # It makes a row for each folder above a member, too.
            4 * most_members(shard_size),
        )
    modes, data, size = (_numbers(rows, column, source) for column in range(3))
    regular = [row for row, mode in enumerate(modes) if mode & _KIND == _REGULAR]
    members = listed(
        source,
        data=[data[row] for row in regular],
        size=[size[row] for row in regular],
        names=None,
        shard_size=shard_size,
    )
    return Claims(source=source, kind="ratarmount", members=members)


class EnergonWriter:
    """Writes an `index.sqlite` as `energon prepare` does.

    Args:
        path: a new file; it is complete once `close` was called.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "BEGIN", *_TABLES.split(";")):
            self._connection.execute(statement)

    def add(self, tar_file_id: int, rows: Iterable[Row], end: int, shard: str) -> None:
        """Add the samples of one shard.

        Args:
            tar_file_id: its number.
            rows: its samples, in order.
            end: where its members end.
            shard: its URL, for messages.

        Raises:
            CorpusError: a key was there before; Energon refuses that too.
            UnsupportedError: a name is no UTF-8, which SQLite's text cannot hold.
        """
        samples = list(rows)
        stops = [*(row.start for row in samples[1:]), end]
        for number, (row, stop) in enumerate(zip(samples, stops, strict=True)):
            key = _utf8(row.key, shard)
            try:
                self._connection.execute(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                    (tar_file_id, key, number, row.start, stop - row.start),
                )
            except sqlite3.IntegrityError as error:
                raise CorpusError(
                    f"Cannot index {shard} for Energon: the key {key!r} was there before, in this shard or another; "
                    "Energon wants every key once. `energon prepare --fix-duplicates` renames the members.",
                    shard=shard,
                    key=key,
                    offset=row.start,
                    expected="each key once",
                    found="twice",
                ) from error
            self._connection.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                [(tar_file_id, number, _utf8(part.field, shard), part.data, part.size) for part in row.parts],
            )

    def close(self) -> None:
        """Finish the file."""
        for statement in (*_INDEXES.split(";"), "COMMIT"):
            self._connection.execute(statement)
        self._connection.close()

    def give_up(self) -> None:
        """Close without finishing; harmless after `close`."""
        self._connection.close()


def _utf8(raw: bytes, shard: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UnsupportedError(
            f"Cannot index {shard} for Energon: the name {text(raw)!r} is no UTF-8, which its SQLite file cannot hold. "
            "Rename the member.",
            shard=shard,
            key=text(raw),
            expected="UTF-8",
            found=raw,
        ) from error
