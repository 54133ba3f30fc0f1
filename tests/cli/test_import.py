"""`seta-stream import` begins a state with the losses of a file, and names rows that are of no sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_corpora import MakeCorpus

from seta_stream.cli import main
from seta_stream.losses.generations import Generations


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(2, 4)


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def file_of(tmp_path: Path, text: str) -> Path:
    (tmp_path / "l.csv").write_text(text)
    return tmp_path / "l.csv"


def test_an_import_and_its_summary(shards, tmp_path):
    """What was matched, and what was not: that on stderr."""
    rows = [f"{shards[0]},00000001,1.5", f"{shards[0]},00000002,", f"{shards[0]},00000001,2", "\x1b[31m.tar,x,1"]
    done = run(file_of(tmp_path, "\n".join(["url,key,loss", *rows])), *shards, "--state", tmp_path / "state")
    assert done.exit_code == 0, done.output
    assert "as of the end of epoch -1: 1 of 8 samples have a loss" in done.stdout
    assert "4 rows, 2 matched by key; 1 without a finite loss" in done.stdout
    assert "2 rows are of no sample: row 3 (key '00000001'" in done.stderr
    assert "\x1b" not in done.output
    assert len(Generations(str(tmp_path / "state")).kept()) == 1


def test_json(shards, tmp_path):
    """Every figure."""
    file = file_of(tmp_path, "id,loss,age\n1,2,0\n1,3,0\n")
    told = json.loads(run(file, *shards, "--state", tmp_path / "state", "--epoch", 3, "--json").stdout)
    assert told["generation"].startswith("gen-000003-")
    assert {name: told[name] for name in ("rows", "by", "matched", "repeated", "unmatched", "seen", "samples")} == {
        "rows": 2, "by": "id", "matched": 2, "repeated": 1, "unmatched": 0, "seen": 1, "samples": 8,
    }  # fmt: skip
    done = run(file, *shards, "--state", tmp_path / "state", "--merge")
    assert done.exit_code == 0, done.output
    assert "as of the end of epoch 3" in done.output
    assert "1 of samples that a later row names again" in done.output


@pytest.mark.parametrize(
    ("text", "arguments", "code", "told"),
    [
        ("id,loss\n1,1\n", ["--by", "key"], 1, "it has no column 'key'"),
        ("id,loss\n1,x\n", [], 1, "column 'loss' holds something else"),
        ("id,loss\n1,1\n", ["--epoch", "-2"], 2, "-2 is not in the range"),
        ("id,loss\n1,1\n", ["--merge"], 1, "it holds no losses"),
        ("id,loss\n99,1\n", [], 1, "none of its 1 rows"),
    ],
)
def test_mistakes(shards, tmp_path, text, arguments, code, told):
    """One message each, and no generation."""
    done = run(file_of(tmp_path, text), *shards, "--state", tmp_path / "state", *arguments)
    assert done.exit_code == code
    assert told in done.output
    assert "Traceback" not in done.output
    assert Generations(str(tmp_path / "state")).kept() == []


def test_out_and_in_again(shards, tmp_path):
    """The two commands go together, with an example each."""
    state = tmp_path / "state"
    run(file_of(tmp_path, "id,loss\n" + "".join(f"{at},{at / 7}\n" for at in range(8))), *shards, "--state", state)
    done = CliRunner().invoke(main, ["export", str(state), "--to", str(tmp_path / "l.parquet")])
    assert done.exit_code == 0, done.output
    done = run(tmp_path / "l.parquet", *shards, "--state", tmp_path / "again")
    assert "8 rows, 8 matched by key" in done.output
    assert "Examples:\n" in run("--help").output
