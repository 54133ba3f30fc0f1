"""`seta-stream verify` tells what it found in words, JSON and its exit code, and repairs after asking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_corpora import MakeCorpus, write_tar

from seta_stream.cli import main
from seta_stream.cli.index import index_shards


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    """Two shards with their indexes."""
    paths = make_corpus(2, 4)
    index_shards(paths, out=None, jobs=1, force=False)
    return paths


def run(*arguments: object, answer: str | None = None) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], input=answer)


def test_nothing_wrong(shards):
    """Exit code 0, and the figures."""
    done = run(*shards)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "2 shards, 8 samples, 20.0 KiB, in " in done.output
    assert "Nothing is wrong." in done.output
    told = json.loads(run(*shards, "--json", "--decode", "basic", "--jobs", 1).stdout)
    assert (told["shards"], told["samples"], told["members"], told["findings"]) == (2, 8, 16, [])
    assert told["counts"] == {"error": 0, "warning": 0, "hint": 0}
    assert told["generations"] is None


def test_something_wrong(shards):
    """Exit code 3; a table of what, where and what to do, and the same as JSON."""
    Path(shards[0]).write_bytes(Path(shards[0]).read_bytes()[:1000])
    done = run(*shards)
    assert done.exit_code == 3
    words = " ".join(done.output.split())
    for text in ("error", "warning*", "byte 0", "Restore the shard", "1 error, 1 warning", "--repair mends those"):
        assert text in words
    told = json.loads(run(*shards, "--json").stdout)
    assert [(one["severity"], one["kind"], one["mendable"]) for one in told["findings"]] == [
        ("error", "shard-damaged", False), ("warning", "index-stale", True),
    ]  # fmt: skip
    assert told["findings"][0]["shard"] == shards[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/nowhere/*.tar"], "nothing matches"),
        (["a.tar", "--decode", "jpg"], "is no decoder"),
        (["a.tar", "--state", "/nowhere/state"], "nothing lies there"),
    ],
)
def test_what_cannot_be_verified(arguments, told):
    """Exit code 1, one message, no traceback."""
    done = run(*arguments)
    assert done.exit_code == 1
    assert told in done.output
    assert "Traceback" not in done.output


def test_a_repair_is_asked_for(shards):
    """No leaves everything; yes mends it, and the second run finds nothing."""
    Path(shards[0] + ".seta-index").unlink()
    os.utime(shards[1], ns=(1, 1))
    done = run(*shards, "--repair", answer="n\n")
    assert done.exit_code == 3
    assert "Repair 2 of 2 findings?" in done.stderr
    assert not Path(shards[0] + ".seta-index").exists()
    done = run(*shards, "--repair", answer="y\n")
    assert done.exit_code == 0, done.output
    assert f"Repaired: wrote the index {shards[0]}.seta-index" in done.output
    assert run(*shards, "--repair").exit_code == 0
    assert run(*shards).exit_code == 0


def test_a_repair_for_scripts(shards):
    """--yes asks nothing; what is left keeps the exit code at 3."""
    Path(shards[0] + ".seta-index").unlink()
    Path(shards[1]).write_bytes(b"")
    done = run(*shards, "--repair", "--yes", "--json")
    assert done.exit_code == 3
    told = json.loads(done.stdout)
    assert told["repaired"] == [f"wrote the index {shards[0]}.seta-index"]
    assert told["failed"] == []
    assert [one["kind"] for one in told["left"]] == ["shard-damaged", "index-stale"]
    done = run(*shards, "--repair", "--yes")
    assert "2 findings are left; no repair is known for them." in done.output


def test_json_with_a_repair_asks_nobody(shards):
    """A question would be in the way of the JSON: a usage error."""
    done = run(*shards, "--repair", "--json")
    assert done.exit_code == 2
    assert "--repair with --json asks nobody: add --yes." in done.output


def test_hints_count_only_if_asked_for(shards, tmp_path):
    """A shard that the state does not know may be meant."""
    from seta_stream import SetaStream

    with SetaStream(shards, state=str(tmp_path / "state"), batch_size=4) as stream:
        for batch in stream.batches(4):
            stream.record(batch["__index__"], [1.0] * 4)
    assert run(*shards, "--state", tmp_path / "state").exit_code == 0
    done = run(shards[0], "--state", tmp_path / "state")
    assert done.exit_code == 0, done.output
    assert "2 hints" in done.output
    assert run(shards[0], "--state", tmp_path / "state", "--strict").exit_code == 3


def test_names_cannot_steer_the_terminal(tmp_path):
    """Keys come from tars of anybody."""
    path = write_tar(tmp_path / "a.tar", [("\x1b[31mred\x07.txt", b""), ("[bold].txt", b"")])
    done = run(path)
    assert done.exit_code == 3
    assert "\x1b" not in done.output
    assert "\x07" not in done.output
    assert "x1b[31m" in done.output


def test_many_findings_are_cut_short(tmp_path):
    """The table has a hundred, --json has all."""
    paths = [write_tar(tmp_path / f"{number:03d}.tar", [(f"{number}.txt", b"1")]) for number in range(103)]
    done = run(*paths, "--jobs", 1)
    assert "and 3 more: --json tells all" in done.output
    assert len(json.loads(run(*paths, "--json", "--jobs", 1).stdout)["findings"]) == 103


def test_help_has_an_example():
    """And comes without what draws tables."""
    code = (
        "import sys; from seta_stream.cli import main\n"
        "try: main(['verify', '--help'])\n"
        "except SystemExit: print([name for name in ('rich', 'joblib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "Examples:\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
