"""`seta-stream export` writes losses, selections and shards, and names mistakes without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_corpora import MakeCorpus

from seta_stream import InfoBatch, SetaStream
from seta_stream.carry import read_selection
from seta_stream.cli import main


@pytest.fixture
def state(make_corpus: MakeCorpus, tmp_path: Path) -> Path:
    """A run of two epochs over two shards of twenty samples."""
    policy = InfoBatch(num_epochs=8)
    with SetaStream(make_corpus(2, 20), policy=policy, state=str(tmp_path / "state"), batch_size=2) as stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in stream.batches(2):
                stream.record(batch["__index__"], np.asarray(batch["__index__"]) % 7 + 1.0)
    return tmp_path / "state"


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_losses(state, tmp_path):
    """A summary in words and as JSON, and the file."""
    done = run(state, "--to", tmp_path / "l.csv")
    assert done.exit_code == 0, done.output
    assert "losses of the end of epoch 1 (gen-000001-" in done.output
    assert "40 of 40 samples" in done.output
    assert f"40 rows written to {tmp_path / 'l.csv'}" in done.output
    told = json.loads(run(state, "--to", tmp_path / "l.parquet", "--epoch", 0, "--no-keys", "--json").stdout)
    assert (told["epoch"], told["rows"], told["seen"], told["selected"]) == (0, 40, 40, None)


def test_a_selection(state, tmp_path):
    """Of the next epoch, or of one whose rule is kept; rows or a list of shards."""
    done = run(state, "--selection", "--to", tmp_path / "s.csv")
    assert done.exit_code == 0, done.output
    assert "selection of epoch 2 (gen-000001-" in done.output
    told = json.loads(run(state, "--to", tmp_path / "s.json", "--epoch", 1, "--seed", 3, "--json").stdout)
    assert (told["epoch"], told["rows"], told["samples"]) == (1, 2, 40)
    listed = read_selection((tmp_path / "s.json").read_bytes())
    assert (listed.facts["seed"], listed.facts["policy"]) == (3, "InfoBatch")
    assert sum(shard.mask.sum() for shard in listed.shards) == told["selected"] < 40
    done = run(state, "--to", tmp_path / "s.txt", "--policy", "ucb")
    assert done.exit_code == 0, done.output
    assert "# seta_stream selection 1" in (tmp_path / "s.txt").read_text()


def test_new_shards(state, tmp_path):
    """With a warning where weights are lost; the second time nothing is written."""
    done = run(state, "--shards", tmp_path / "new", "--shard-samples", 10, "--prefix", "p")
    assert done.exit_code == 0, done.output
    assert "Warning: InfoBatch weights the losses of the samples it keeps" in done.stderr
    assert (tmp_path / "new" / "p-000000.tar").exists()
    told = json.loads(run(state, "--shards", tmp_path / "new", "--shard-samples", 10, "--prefix", "p", "--json").stdout)
    assert told["written"] == 0
    assert told["samples"] < 40
    assert f"{told['samples']} samples in {told['shards']} shards" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "Name what to write: --to FILE, or --shards FOLDER."),
        (["--to", "l.csv", "--shards", "x"], 2, "Name what to write"),
        (["--to", "l.csv", "--prefix", "p"], 2, "name their folder by --shards"),
        (["--to", "l.csv", "--seed", "1"], 2, "add --selection"),
        (["--to", "s3://bucket/l.csv"], 2, "this is a file of this machine"),
        (["--to", "l.xls"], 1, "its ending tells no kind of table"),
        (["--to", "s.json", "--epoch", "9"], 1, "kept are"),
        (["--to", "s.json", "--policy", "none"], 1, "There is no policy called"),
        (["--to", "l.csv", "--urls", "/nowhere/*.tar"], 1, "nothing matches"),
    ],
)
def test_mistakes(state, tmp_path, monkeypatch, arguments, code, told):
    """One message each."""
    monkeypatch.chdir(tmp_path)
    done = run(state, *arguments)
    assert done.exit_code == code
    assert told in done.output
    assert "Traceback" not in done.output


def test_a_folder_that_is_no_state(tmp_path):
    """What to give in its place."""
    done = run(tmp_path, "--to", tmp_path / "l.csv")
    assert done.exit_code == 1
    assert "Name the folder that was passed as state=" in done.output


def test_help_has_examples():
    """Of each kind."""
    done = run("--help")
    assert "Examples:\n" in done.output
    assert "seta-stream export runs/7 --to losses.parquet" in done.output
