"""SQLite files of unknown trust give numbers and bytes, or IndexFileError; what is written is what Energon writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import golden_indexes as golden
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interop_fakes import MemoryFile, scanned
from test_index_file import same

from seta_stream.corpus import interop_sqlite
from seta_stream.corpus.interop_checking import check
from seta_stream.corpus.interop_claims import claims_of
from seta_stream.corpus.interop_rows import Part, Row, rows_of
from seta_stream.corpus.interop_sqlite import EnergonWriter, read_energon, read_ratarmount
from seta_stream.errors import CorpusError, IndexFileError, UnsupportedError

PAX = golden.gold("pax")
SIZE = len(PAX)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where Energon's golden file lies; its name needs quoting in a URI."""
    place = tmp_path / "a b?c%41.sqlite"
    place.write_bytes(golden.ENERGON_SQLITE)
    return place


@pytest.mark.parametrize("whole", [False, True])
def test_what_the_tools_wrote_is_read(path: Path, *, whole: bool) -> None:
    """Golden files of Energon and ratarmount give the index of a scan."""
    claims = read_energon(path, "e", 0, SIZE)
    assert claims.starts is not None
    assert (claims.starts.tolist(), claims.end) == ([0, 6144, 12800], 18944)
    assert same(check(MemoryFile(PAX), claims, whole=whole).index, scanned(PAX))
    path.write_bytes(golden.RATARMOUNT_SQLITE)
    assert same(check(MemoryFile(PAX), read_ratarmount(path, "r", SIZE), whole=whole).index, scanned(PAX))


def test_another_shard_of_the_data_set_has_no_rows(path: Path) -> None:
    """A number without rows is a shard without samples, which does not pass for one that has some."""
    claims = read_energon(path, "e", 1, SIZE)
    assert claims.starts is not None
    assert len(claims.starts) == 0
    with pytest.raises(IndexFileError, match=r"lists 0 samples|ends at byte 0"):
        check(MemoryFile(PAX), claims)


def rows(path: Path) -> list[object]:
    """Return the rows of Energon's tables and the names of what the file holds."""
    with sqlite3.connect(path) as base:
        found = [base.execute(f"SELECT * FROM {table}").fetchall() for table in ("samples", "sample_parts")]
        made = sorted(base.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall(), key=str)
    base.close()
    return [*found, made]


def test_what_is_written_is_what_energon_writes(path: Path, tmp_path: Path) -> None:
    """Rows, tables and indexes are those of `energon prepare`."""
    writer = EnergonWriter(tmp_path / "ours.sqlite")
    found = check(MemoryFile(PAX), claims_of(scanned(PAX), "o", "x"), whole=True)
    writer.add(0, rows_of(found.members), found.end, "x.tar")
    writer.close()
    writer.give_up()
    assert rows(tmp_path / "ours.sqlite") == rows(path)


def test_what_energon_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A key that comes twice, in one shard or two, and names that are no UTF-8."""
    writer = EnergonWriter(tmp_path / "x.sqlite")
    writer.add(0, [Row(b"a", 0, [])], 1024, "0.tar")
    with pytest.raises(
        CorpusError, match=r"Cannot index 1\.tar for Energon: the key 'a' was there before.*fix-duplicates"
    ):
        writer.add(1, [Row(b"a", 0, [])], 1024, "1.tar")
    for row in (Row(b"\xff", 0, []), Row(b"b", 0, [Part(b"b.\xff", b"\xff", 512, 1)])):
        with pytest.raises(UnsupportedError, match=r"the name '\\udcff' is no UTF-8.*Rename"):
            writer.add(1, [row], 1024, "1.tar")
    writer.give_up()


def hostile(path: Path, *statements: str) -> None:
    """Make a file by statements."""
    path.unlink()
    with sqlite3.connect(path) as base:
        for statement in ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = OFF", *statements):
            base.execute(statement)
    base.close()


SAMPLES = "CREATE TABLE samples (tar_file_id, sample_key, sample_index, byte_offset, byte_size)"
PARTS = "CREATE TABLE sample_parts (tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size)"
COUNT = (
    "WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < 999) SELECT 0, 'k' || n, n, 0, 0 FROM c"
)


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        ((), "no plain table 'samples'"),
        ((SAMPLES,), "no plain table 'sample_parts'"),
        ((PARTS, "CREATE VIEW samples AS SELECT 0 AS tar_file_id"), "no plain table 'samples'"),
        ((PARTS, "CREATE VIRTUAL TABLE samples USING fts5(tar_file_id)"), "no plain table 'samples'"),
        ((PARTS, "CREATE TABLE samples (tar_file_id)"), "SQLite says: no such column"),
        (
            (
                PARTS,
                SAMPLES.replace("byte_size)", "byte_size AS (length(hex(zeroblob(1000000)))))"),
                "INSERT INTO samples (tar_file_id, sample_key, sample_index, byte_offset) VALUES (0, 'a', 0, 0)",
            ),
            "SQLite says: (string or blob too big|not authorized)",
        ),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, 'text', 0)"), "holds .*text.* where an offset"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, 0.5, 0)"), "holds '0.5' where"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, NULL, 0)"), "holds 'None' where"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, -512, 0)"), "holds '-512' where"),
        ((PARTS, SAMPLES, f"INSERT INTO samples VALUES (0, 'a', 0, {(1 << 63) - 1}, 0)"), "holds '92233"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 7, 0, 0, 1024)"), "something else where a name"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, x'610062', 0, 0, 1024)"), "something else where a name"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, 0, 1 << 40)"), "points at byte 1099511627776"),
        ((PARTS, SAMPLES, "INSERT INTO samples VALUES (0, 'a', 0, 0, 512), (0, 'b', 0, 512, 512)"), "numbered twice"),
        (
            (SAMPLES, PARTS, "INSERT INTO sample_parts VALUES (0, 5, 'txt', 512, 1)"),
            "a part belongs to none",
        ),
        (
            (
                SAMPLES,
                PARTS,
                "INSERT INTO samples VALUES (0, 'a', 0, 0, 1024)",
                "INSERT INTO sample_parts VALUES (0, 0, 'txt', 512, 1), (0, 0, 'jpg', 512, 1)",
            ),
            "no room for a header",
        ),
        ((PARTS, SAMPLES, f"INSERT INTO samples {COUNT}"), "more than the 40 rows"),
        (
            (PARTS, SAMPLES, "INSERT INTO samples VALUES (0, printf('%.*c', 70000, 'x'), 0, 0, 0)"),
            "SQLite says: .*too big",
        ),
        ((*(f"CREATE TABLE t{n} (a)" for n in range(101)), PARTS, SAMPLES), "more than the 100 rows"),
    ],
)
def test_hostile_files_are_refused(path: Path, statements: tuple[str, ...], text: str) -> None:
    """Views, virtual tables, computed columns, foreign values and too many rows end in IndexFileError."""
    hostile(path, *statements)
    with pytest.raises(IndexFileError, match=text):
        read_energon(path, "X.sqlite", 0, SIZE)


def test_names_longer_than_the_shard_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is counted while it is fetched."""
    monkeypatch.setattr(interop_sqlite, "_SLACK", 0)
    hostile(path, PARTS, SAMPLES, "INSERT INTO samples VALUES (0, printf('%.*c', 60000, 'x'), 0, 0, 0)")
    with pytest.raises(IndexFileError, match="longer names"):
        read_energon(path, "X.sqlite", 0, SIZE)


def test_work_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that takes more steps than a file of its length needs is stopped."""
    monkeypatch.setattr(interop_sqlite, "_STEPS", 1)
    monkeypatch.setattr(interop_sqlite, "_STEPS_PER_BYTE", 0)
    hostile(path, PARTS, SAMPLES, f"INSERT INTO samples {COUNT.replace('SELECT 0, ', 'SELECT 5, ')}")
    with pytest.raises(IndexFileError, match="SQLite says: interrupted"):
        read_energon(path, "X.sqlite", 0, SIZE)


def test_triggers_and_unread_tables_do_nothing(path: Path) -> None:
    """What a file holds besides is not run; the file itself is left as it is, byte for byte, and nothing beside it."""
    with sqlite3.connect(path) as base:
        base.execute("CREATE TRIGGER t AFTER INSERT ON samples BEGIN DELETE FROM samples; END")
        base.execute("CREATE VIEW v AS SELECT load_extension('x')")
    base.close()
    before = path.read_bytes()
    assert read_energon(path, "e", 0, SIZE).end == 18944
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["ratarmount", "energon"])
def test_one_kind_is_not_taken_for_the_other(path: Path, kind: str) -> None:
    """Each reader names the table that it misses."""
    path.write_bytes(golden.ENERGON_SQLITE if kind == "ratarmount" else golden.RATARMOUNT_SQLITE)
    with pytest.raises(IndexFileError, match=r"no plain table '(files|samples)', so it is no such index"):
        read_ratarmount(path, "r", SIZE) if kind == "ratarmount" else read_energon(path, "e", 0, SIZE)


def test_members_of_nested_archives_are_refused(path: Path) -> None:
    """ratarmount can list what lies inside members; those are no members of the shard."""
    path.write_bytes(golden.RATARMOUNT_SQLITE)
    with sqlite3.connect(path) as base:
        row = base.execute("SELECT * FROM files WHERE name = 'b.jpg'").fetchone()
        base.execute(
            f"INSERT INTO files VALUES ({','.join('?' * len(row))})", ("/b.jpg", "in.txt", 7680, 7700, *row[4:])
        )
    base.close()
    with pytest.raises(IndexFileError, match=r"7700 is no multiple"):
        read_ratarmount(path, "r", SIZE)


READERS: list[Callable[[Path], object]] = [
    lambda path: check(MemoryFile(PAX), read_energon(path, "e", 0, SIZE)),
    lambda path: check(MemoryFile(PAX), read_ratarmount(path, "r", SIZE)),
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Flipped bytes, cut files and rubbish end in IndexFileError, or in the shard's own index."""
    kind = data.draw(st.integers(0, 1))
    raw = bytearray((golden.ENERGON_SQLITE, golden.RATARMOUNT_SQLITE)[kind])
    for _ in range(data.draw(st.integers(0, 12))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.sqlite"
    path.write_bytes(bytes(raw[: data.draw(st.sampled_from([len(raw), 5000, 100, 0]))]))
    try:
        found = READERS[kind](path)
    except IndexFileError:
        return
    assert found.index.digest == scanned(PAX).digest  # type: ignore[attr-defined]
