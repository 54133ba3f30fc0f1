"""The harnesses of tools/fuzz: they run, hold what they look for, and would find what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import FAMILIES
from fuzz.editing import VALUES, edited
from fuzz.making import is_hidden, refusing, tar, with_checksums, with_crc

from seta_stream.errors import CorpusError
from seta_stream.visible import visible

ROOT = Path(__file__).parents[2]
RUNS = 2000


def fuzzed(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run harnesses as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "fuzz.run", *map(str, arguments), "--corpus", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110, check=False, cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"},
    )  # fmt: skip


def test_every_family_holds(tmp_path: Path) -> None:
    """Some thousand runs each, from one seed, so that this test gives the same answer every time."""
    done = fuzzed("all", "--runs", RUNS, folder=tmp_path / "corpus")
    assert f"{len(FAMILIES)} families held; failed: none" in done.stdout, done.stdout[-4000:]
    assert done.returncode == 0
    assert len(re.findall(r"^Done \d+ in", done.stdout, re.MULTILINE)) == len(FAMILIES), done.stdout[-2000:]
    assert "Instrumenting seta_stream.corpus.tar" in done.stdout


def test_a_planted_mistake_is_found(tmp_path: Path) -> None:
    """Behind four comparisons: coverage leads there from a right record, and the input that shows it is kept."""
    done = fuzzed("toy", "--runs", 400_000, "--seed", 3, folder=tmp_path / "corpus")
    assert done.returncode == 1
    assert "IndexError: index out of range" in done.stdout
    assert "failed: toy" in done.stdout
    (crash,) = (tmp_path / "corpus").glob("toy-crash-*")
    assert crash.read_bytes()[:4] == b"TOY2"


def test_memory_that_is_taken_is_found(tmp_path: Path) -> None:
    """An input that makes a parser ask for 4 GiB is a finding, whatever the machine has."""
    (tmp_path / "corpus" / "toy").mkdir(parents=True)
    (tmp_path / "corpus" / "toy" / "large").write_bytes(b"TOY2\x03#Mx")
    done = fuzzed("toy", "--runs", 10, folder=tmp_path / "corpus")
    assert done.returncode == 1
    assert "MemoryError" in done.stdout


def test_an_answer_is_an_error_of_the_package_that_can_be_shown() -> None:
    """Other exceptions, and errors that tell nothing, are findings."""
    with refusing():
        raise CorpusError("Cannot do it.")
    with pytest.raises(ValueError, match="another"), refusing():
        raise ValueError("another")
    error = CorpusError("x")
    with pytest.raises(AssertionError, match="tells nothing"), refusing():
        raise error
    error = CorpusError("long enough to tell")
    error.args = ("long enough \x1b[31m to tell",)
    with pytest.raises(AssertionError, match="cannot be shown"), refusing():
        raise error
    assert is_hidden("\u202e")
    assert not is_hidden("a")
    assert visible("\u202e") == "\\u202e"


def test_checksums_are_mended() -> None:
    """Else every changed input would be refused for that alone."""
    data = tar()
    assert with_checksums(data) == data
    broken = data[:148] + b"0" * 8 + data[156:]
    assert with_checksums(broken) == data
    assert with_crc(b"abcd\0\0\0\0")[4:] == (0xED82CD11).to_bytes(4, "little")


def test_changes_change() -> None:
    """Each act does what it says, and the value that was given stays."""
    value = {"a": [1, 2], "b": "x"}
    assert edited(value, b"") == value
    assert edited(value, bytes([1, 0, 0])) == {"b": "x"}
    assert edited(value, bytes([3, 1, 138])) == {"a": [11, 2], "b": "x"}
    assert edited(value, bytes([3, 2, 3])) == {"a": [1, 2, 1, 1, 1], "b": "x"}
    assert edited(value, bytes([2, 3, 1])) == {"a": [1, 2], "b": VALUES[1]}
    assert value == {"a": [1, 2], "b": "x"}
