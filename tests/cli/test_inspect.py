"""`seta-stream inspect`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from seta_stream.cli import main
from seta_stream.cli.inspect import command
from seta_stream.corpus.ids import ShardTable
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.policies import SeTa, describe
from seta_stream.store import store_for

SAMPLES = (600, 400)
DIGESTS = (b"a" * 16, b"b" * 16)


class Corpus:
    digests = DIGESTS


@pytest.fixture
def state(tmp_path):
    """A state of three epochs, without a shard table."""
    folder = tmp_path / "state"
    policy, table, parent = SeTa(6, target=0.5, num_group=4), LossTable(SAMPLES), None
    with_losses = np.arange(900)
    generations = Generations(str(folder))
    for epoch in range(3):
        table.record(with_losses, np.random.default_rng(epoch).gamma(2, 1, 900) / (1 + epoch))
        rule = policy.rule(table.histogram(), epoch + 1)
        facts = {"policy": describe(policy), "selected": 1000 if epoch == 0 else 400, "total": 1000}
        parent = generations.commit(epoch, table, Corpus, rule, parent, facts)
        table.advance()
    generations.close()
    return folder


def corpus_file(samples, digests):
    count = len(samples)
    return ShardTable(
        urls=tuple(f"/data/{at}.tar" for at in range(count)),
        sizes=np.full(count, 10_000, np.int64),
        versions=("mtime:1",) * count,
        samples=np.array(samples, np.int64),
        extent_bytes=np.full(count, 9_000, np.int64),
        digests=tuple(digests),
        seekable=np.ones(count, np.bool_),
    ).to_bytes()


def run(*arguments):
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_a_state_is_shown(state):
    """Samples, seen share, quantiles, groups with the next window, and what each epoch kept."""
    result = run(state)
    assert result.exit_code == 0
    for told in ("1,000", "900 (90.0%)", "median loss", "seen in this epoch", "unseen", "epoch 3 keeps 40.0%"):
        assert told in result.output
    assert "40.0% of all visits saved so far" in result.output
    assert len([line for line in result.output.splitlines() if line.strip()[:1] in "0123" and "%" in line]) >= 7


def test_json_holds_the_same_numbers(state):
    """One object, for scripts."""
    found = json.loads(run(state, "--json").output)
    assert (found["samples"], found["seen"], found["next_epoch"], len(found["groups"])) == (1000, 900, 3, 4)
    assert [one["share"] for one in found["epochs"]] == [1.0, 0.4, 0.4]
    assert found["next_share"] == pytest.approx(0.4)
    assert sum(group["samples"] for group in found["groups"]) == 900


def test_a_picture_is_drawn(state, tmp_path):
    """And its place told."""
    result = run(state, "--png", tmp_path / "run.png")
    assert f"Picture: {tmp_path / 'run.png'}" in result.output
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_the_corpus_as_last_opened_counts(state):
    """A shard that was appended since is unseen, and told."""
    (state / "corpus").write_bytes(corpus_file((600, 400, 50), (*DIGESTS, b"c" * 16)))
    found = json.loads(run(state, "--json").output)
    assert (found["samples"], found["seen"], found["shards"], found["unmatched_shards"]) == (1050, 900, 3, 1)
    assert "shards without losses" in run(state).output


def test_a_state_in_a_bucket_is_shown():
    """Any fsspec URL."""
    generations = Generations("memory://inspect/state")
    table = LossTable(SAMPLES)
    table.record([1, 2], [0.5, 0.25])
    generations.commit(0, table, Corpus, None, None, {})
    found = json.loads(run("memory://inspect/state", "--json").output)
    assert (found["seen"], found["next_share"]) == (2, None)
    assert run("memory://inspect/state").exit_code == 0


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda _: None, "There are no losses in"),
        (lambda folder: (folder.mkdir(), (folder / "x").touch()), "no generation is kept there"),
    ],
)
def test_a_folder_without_losses_is_told(tmp_path, damage, told):
    """With what to give in its place."""
    damage(tmp_path / "nothing")
    result = run(tmp_path / "nothing")
    assert result.exit_code == 1
    assert told in result.output
    assert "Give the folder that was passed as state=" in result.output


def test_a_state_in_a_bucket(state, s3_bucket, s3_server, tmp_path):
    """Shown as a local one is, with the options of the bucket, which are not told."""
    store = store_for(s3_bucket, s3_server.options)
    for path in (path for path in state.rglob("*") if path.is_file()):
        store.write(f"{s3_bucket}/run/{path.relative_to(state)}", path.read_bytes())
    (tmp_path / "s3.json").write_text(json.dumps(s3_server.options))
    found = run(f"{s3_bucket}/run", "--options-file", tmp_path / "s3.json")
    assert found.exit_code == 0, found.output
    assert found.output == run(state).output
    replayed = CliRunner().invoke(
        main, ["simulate", f"{s3_bucket}/run", "--options-file", str(tmp_path / "s3.json"), "--policy", "full"]
    )
    assert replayed.exit_code == 0, replayed.output
    assert "3 recorded epochs" in replayed.output
    assert s3_server.options["secret"] not in found.output + replayed.output
