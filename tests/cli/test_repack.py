"""`seta-stream repack` says what it did or would do, and names mistakes without a traceback."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from seta_stream.cli import main
from seta_stream.corpus.indexing import open_corpus
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Return a pattern of two shards of three samples, whose losses fall, with the run's state beside."""
    (tmp_path / "old").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "old" / f"t-{shard}.tar", "w") as tar:
            for name in ("a.txt", "b.txt", "c.txt"):
                info = tarfile.TarInfo(f"{shard}{name}")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"abc"))
    pattern = str(tmp_path / "old" / "t-{0..1}.tar")
    shards = open_corpus(pattern).table
    table = LossTable(shards.samples)
    table.record(np.arange(6), np.arange(6, 0, -1))
    Generations(str(tmp_path / "state")).commit(2, table, shards, None, None, {})
    return pattern


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["repack", *map(str, arguments)])


def test_a_repack_and_its_summary(corpus: str, tmp_path: Path) -> None:
    """The summary has every count, and a hint where losses were not carried over; with --state-out they are."""
    done = run(corpus, "--to", tmp_path / "new", "--state", tmp_path / "state", "--jobs", 1)
    assert done.exit_code == 0, done.output
    for text in (
        "2 from 2; 2 written now", "6, with 6 members: all of the corpus, each verified", "20.0 KiB", "of gen-000002-",
        "run this again with --state-out",
    ):  # fmt: skip
        assert text in done.stdout
    with tarfile.open(tmp_path / "new" / "t-1.tar") as tar:
        assert tar.getnames() == ["1c.txt", "1b.txt", "1a.txt"]
    again = run(corpus, "--to", tmp_path / "new", "--state", tmp_path / "state", "--state-out", tmp_path / "state2")
    assert again.exit_code == 0, again.output
    assert "2 from 2; 0 written now" in again.stdout
    assert "as gen-000002-" in again.stdout
    assert "--state-out" not in again.stdout


def test_json(corpus: str, tmp_path: Path) -> None:
    """--json prints one object with every figure."""
    done = run(corpus, "--to", tmp_path / "new", "--order", "corpus", "--shard-samples", 4, "--prefix", "p", "--json")
    facts = json.loads(done.stdout)
    assert {name: facts[name] for name in ("shards_before", "shards", "written", "samples", "members")} == {
        "shards_before": 2, "shards": 2, "written": 2, "samples": 6, "members": 6,
    }  # fmt: skip
    assert (facts["bytes_read"], facts["requests"], facts["generation"], facts["carried"]) == (20480, 0, None, None)
    assert sorted(path.name for path in (tmp_path / "new").glob("*.tar")) == ["p-000000.tar", "p-000001.tar"]


def test_a_dry_run_writes_nothing(corpus: str, tmp_path: Path) -> None:
    """It tells the bytes that a run then takes, and makes no folder; after a run it has nothing left to do."""
    arguments = (corpus, "--to", tmp_path / "new", "--state", tmp_path / "state")
    told = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    assert not (tmp_path / "new").exists()
    done = json.loads(run(*arguments, "--json").stdout)
    assert told["bytes_read"] == done["bytes_read"] == 20480
    assert told["bytes_written"] == 20480 < done["bytes_written"]
    assert (told["shards"], told["finished"], told["samples"], told["requests"]) == (2, 0, 6, 0)
    assert told["seconds"] >= 0 < told["bytes_per_s"]
    after = run(*arguments, "--dry-run")
    assert "2 from 2; 2 are finished" in after.stdout
    assert "Nothing was written to" in after.stdout


@pytest.mark.parametrize(
    ("size", "shards"), [("1536", 6), ("2kB", 6), ("2KiB", 3), ("0.003MB", 3), ("3kiB", 2), ("1GB", 1), (" 1 TiB ", 1)]
)
def test_sizes(corpus: str, tmp_path: Path, size: str, shards: int) -> None:
    """Bytes are written as people write them: a sample here has 1,024."""
    done = run(corpus, "--to", tmp_path / "new", "--order", "key", "--shard-bytes", size, "--json")
    assert json.loads(done.stdout)["shards"] == shards


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--to", "new"], 1, "the order by loss needs --state"),
        (["--to", "new", "--order", "size"], 2, "'size' is not one of"),
        ([], 2, "Missing option '-o' / '--to'"),
        (["--to", "new", "--order", "key", "--shard-bytes", "5 parsecs"], 2, "'5 parsecs' is no number of bytes"),
        (["--to", "new", "--order", "key", "--option", "secret"], 2, "write KEY=VALUE"),
        (["--to", "new", "--order", "key", "--to-option", "=secret"], 2, "write KEY=VALUE"),
        (["--to", "old", "--order", "key"], 1, "the shards of the corpus lie there"),
        (["--to", "new", "--state", "none"], 1, "it holds no generation"),
    ],
)
def test_mistakes_are_one_line(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, text: str
) -> None:
    """A user's mistake ends with its exit code and a message; what may be a secret is not repeated."""
    monkeypatch.chdir(tmp_path)
    done = run(corpus, *arguments)
    assert done.exit_code == code
    assert text in done.stderr
    assert "Traceback" not in done.output
    assert "=secret" not in done.stderr
    assert not (tmp_path / "new" / "t-0.tar").exists()


def test_options_are_written_nowhere(corpus: str, tmp_path: Path) -> None:
    """Local files take no options, and nothing of them is left in what is written."""
    done = run(corpus, "--to", tmp_path / "new", "--order", "key", "--option", "secret=hunter2", "--json")
    assert done.exit_code == 0, done.output
    for path in (tmp_path / "new").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_warnings_go_to_stderr(corpus: str, tmp_path: Path) -> None:
    """A shard that the run did not know is warned about in one line, and the summary stays on stdout."""
    with tarfile.open(tmp_path / "old" / "t-2.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("z.txt"))
    done = run(corpus.replace("0..1", "0..2"), "--to", tmp_path / "new", "--state", tmp_path / "state", "--json")
    assert json.loads(done.stderr)["warning"].startswith("Generation gen-000002-")
    assert json.loads(done.stdout)["samples"] == 7
