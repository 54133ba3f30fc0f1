"""Lists of shards, patterns and tables made to do harm: counted and parsed, never followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from limits import MIB, within

from seta_stream.carry.tables import read_table
from seta_stream.corpus.braces import MOST_SHARDS, count_names, expand_braces
from seta_stream.corpus.listing import expand
from seta_stream.errors import (
    ArgumentError,
    CorpusError,
    ReadError,
    SetaStreamError,
)


@pytest.mark.parametrize(
    "pattern",
    [
        "/x/{0..999999999999}.tar",
        "/x/{1..9999}{1..9999}{1..9999}.tar",
        "/x/{a,{{1..99999}{1..99999},b}}.tar",
        "/x/{0.." + "9" * 5000 + "}.tar",
        "/x/" + "{a,b}" * 64 + ".tar",
    ],
)
def test_a_pattern_of_more_names_than_there_are_is_counted_first(pattern: str) -> None:
    """A line of a list that somebody else wrote may stand for any number of shards."""
    with within(16 * MIB), pytest.raises(ArgumentError, match=r"stands for more than 4,194,304 shards"):
        expand(pattern)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", 1), ("{0..9}", 10), ("{01..10..3}x{a..c}", 12), ("{a,b{1..3},}", 5), ("{x}", 1), ("{{1..2}{3..4},x}", 5),
        ("\\{1..9}", None), ("a{2..-1}b", 4), ("{1..2}{3..4}", 4), ("{{1..3}}", 3),
    ],
)  # fmt: skip
def test_names_are_counted_as_they_are_made(pattern: str, names: int | None) -> None:
    """At least as many as bash's rules make, and exactly where there are only numbers and alternatives."""
    if names is None:
        with pytest.raises(ArgumentError, match="a brace is not closed"):
            expand_braces(pattern)
        return
    assert len(expand_braces(pattern)) <= count_names(pattern) <= MOST_SHARDS
    if "a..c" not in pattern:
        assert count_names(pattern) == names


def test_braces_in_braces_in_braces(tmp_path: Path) -> None:
    """Neither the stack ends, nor the file system's patience."""
    with pytest.raises(ArgumentError, match="nested too deep"):
        expand("/x/" + "{a," * 900 + "}" * 900 + ".tar")
    with pytest.raises(SetaStreamError):
        expand("/x/" + "{a," * 1500 + ".tar")


@pytest.mark.parametrize("line", [b"a\0b.tar", b"*\0.tar", b"{a,b\0}.tar"])
def test_a_name_with_a_nul_is_no_name(line: bytes, tmp_path: Path) -> None:
    """In a list or as an argument, it is told which."""
    (tmp_path / "list.txt").write_bytes(b"# shards\n" + line + b"\n")
    with pytest.raises(CorpusError, match=r"no file's name holds a NUL"):
        expand(tmp_path / "list.txt")


@pytest.mark.parametrize("line", ["file://[x/a.tar", "https://[x/a.tar?b", "s3://]a/b.tar", "https://a]b/c.tar"])
def test_a_url_that_is_none_is_told(line: str, tmp_path: Path) -> None:
    """Brackets in the wrong place, in a list of somebody else's."""
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(ArgumentError, match="it is no URL"):
        expand(tmp_path / "list.txt")


def test_an_escaped_nul_is_one() -> None:
    """A file URL may spell it."""
    with pytest.raises(ArgumentError, match="no file's name holds a NUL"):
        expand("file:///a%00b.tar")


def test_a_home_of_nobody_is_a_name(tmp_path: Path) -> None:
    """A list may say ~nobody-here/x.tar on a machine without such a user."""
    (tmp_path / "list.txt").write_text("~no-such-user-here/x.tar\n")
    assert expand(tmp_path / "list.txt")[0].endswith("~no-such-user-here/x.tar")


def test_lists_lead_to_no_other_list_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list cannot make another be read, and all its lines together have a limit."""
    (tmp_path / "list.txt").write_text("other.txt\n")
    with pytest.raises(CorpusError, match="may not name another list"):
        expand(tmp_path / "list.txt")
    monkeypatch.setattr("seta_stream.corpus.braces.MOST_SHARDS", 50)
    (tmp_path / "many.txt").write_text("a-{0..39}.tar\nb-{0..39}.tar\n")
    with pytest.raises(ArgumentError, match="more than 50 shards"):
        expand(tmp_path / "many.txt")


# ---- tables

CSVS = {
    "a cell without an end": b"id,loss\n1," + b"9" * 200_000 + b"\n",
    "a quote without an end": b'id,loss\n1,"' + b"x" * 200_000,
    "no text": b"id,loss\n\xff\xfe,1\n",
    "a NUL": b"id,loss\n\0,1\n",
    "an id of 400 digits": b"id,loss\n" + b"9" * 400 + b",1\n",
    "a negative age": b"id,age,loss\n1,-7,1\n",
    "cells that are missing": b"id,loss\n1\n",
    "a text for a loss": b"id,loss\n1,__import__('os')\n",
    "no column": b"\n\n",
    "the same column twice": b"id,id,loss\n1,2,3\n",
}


@pytest.mark.parametrize("name", CSVS)
def test_a_malicious_table_is_refused(name: str, tmp_path: Path) -> None:
    """With the row or column that is wrong."""
    place = tmp_path / "x.csv"
    place.write_bytes(CSVS[name])
    with within(32 * MIB), pytest.raises((ReadError, ArgumentError), match=r"Cannot (read|import) .*x\.csv"):
        list(read_table(place))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    """A wrong footer, a length that lies."""
    place = tmp_path / "x.parquet"
    for data in (b"PAR1", b"PAR1" + b"\xff" * 40 + b"\xff\xff\xff\x7fPAR1", b""):
        place.write_bytes(data)
        with within(32 * MIB), pytest.raises(ReadError, match=r"Cannot read .*x\.parquet"):
            list(read_table(place))
