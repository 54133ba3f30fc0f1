"""`seta-stream simulate`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from seta_stream import Rule, SeTa, SetaStream
from seta_stream.cli import main, pricing, simulate
from seta_stream.cli.numbers import told_bytes, told_money
from seta_stream.corpus.ids import ShardTable
from seta_stream.losses.generations import Generations
from seta_stream.losses.history import Judged
from seta_stream.losses.table import LossTable
from seta_stream.policies import InfoBatch, PerGroup, describe
from seta_stream.report.losscurves import SHAPES
from seta_stream.report.prices import STORES

EPOCHS = 5
SMALL = ("--synthetic", "exponential", "--samples", 4000, "--samples-per-shard", 500, "--epochs", 4)


def run(*arguments):
    return CliRunner().invoke(main, ["simulate", *(str(one) for one in arguments)])


def found_by(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def train(urls, state, policy, noise=0.0, epochs=EPOCHS):
    """Really run a stream; each sample has a difficulty of its own. Return the stats of the epochs."""
    rng = np.random.default_rng(0)
    stats = []
    with SetaStream(urls, policy=policy, state=str(state), batch_size=16) as stream:
        difficulty = rng.standard_normal(stream.stats.total)
        for epoch in range(epochs):
            stream.set_epoch(epoch)
            ids = np.array([sample["__index__"] for sample in stream])
            places = np.sqrt(1 - noise**2) * difficulty[ids] + noise * rng.standard_normal(len(ids))
            stream.record(ids, np.exp(places) * 0.95**epoch)
            stats.append(stream.stats)
    return stats


@pytest.fixture
def corpus(make_corpus):
    return make_corpus(8, 500, length=2000)


def test_a_real_run_is_replayed(corpus, tmp_path):
    """Kept shares within sampling error of what the run counted, its bytes within 2 %, its requests within 5 %.

    The run's own draws decide in the replay too, and losses that only fall keep their order: what is left to chance is
    who stands at which rank.
    """
    stats = train(corpus, tmp_path / "state", SeTa(EPOCHS, prune_ratio=0.1))
    found = found_by(tmp_path / "state")
    own = found["policies"][0]
    assert own["label"] == found["own"] == "the run's own SeTa"
    assert [one["share"] for one in found["recorded"]] == [one.share_kept for one in stats]
    for one, real in zip(own["epochs"], stats, strict=True):
        share = real.share_kept
        # Four deviations of the draws, twice: those of the run and those of the replay; and of the groups' edges.
        assert one["share"] == pytest.approx(share, abs=4 * np.sqrt(2 * share * (1 - share) / 4000) + 0.005)
    assert own["totals"]["bytes"] == pytest.approx(sum(one.bytes_fetched for one in stats), rel=0.03)
    assert own["totals"]["requests"] == pytest.approx(sum(one.requests for one in stats), rel=0.06)
    assert found["correlation"] > 0.97


def test_a_noisy_run_is_replayed(corpus, tmp_path):
    """The correlation is told by the sidecars within 0.06, and shares come out within two points."""
    stats = train(corpus, tmp_path / "state", InfoBatch(EPOCHS), noise=0.3)
    found = found_by(tmp_path / "state")
    expected = 6 / np.pi * np.arcsin((1 - 0.3**2) / 2)
    assert found["correlation"] == pytest.approx(expected, abs=0.06)
    for one, real in zip(found["policies"][0]["epochs"], stats, strict=True):
        assert one["share"] == pytest.approx(real.share_kept, abs=0.02)
    assert any("samples seen in epoch 4" in line for line in found["assumptions"])


def test_everything_that_is_assumed_is_printed(corpus, tmp_path):
    """Tables of totals and epochs, the run itself beside its replay, and each assumption."""
    train(corpus, tmp_path / "state", SeTa(EPOCHS, target=0.5))
    result = run(tmp_path / "state", "--epochs", 8, "-o", tmp_path / "it.png")
    assert result.exit_code == 0
    told = re.sub(r"\s+", " ", result.stdout)
    for text in (
        "5 recorded epochs; 8 epochs of 4,000 samples in 8 shards",
        "the run's own SeTa",
        "StaticRandom(prune_ratio=0.5)",
        "Epochs 5 to 7 have the losses of epoch 4, the last recorded.",
        "Read as from local files",
        "in shuffled batches of 16",
        "no price",
        f"Picture: {tmp_path / 'it.png'}",
    ):
        assert text in told
    shares = re.search(r"The run itself, over 5 epochs: kept ([\d.]+)% \(replayed ([\d.]+)%\)", told)
    assert shares is not None
    assert [float(share) for share in shares.groups()] == pytest.approx([50.0, 50.0], abs=1.5)
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    assert "Traceback" not in result.output


def test_a_synthetic_history_needs_no_run():
    """The default policies, and what is assumed in place of a record."""
    found = found_by(*SMALL)
    assert [one["label"] for one in found["policies"]] == [
        "StaticRandom(prune_ratio=0.5)", "DynamicRandom(prune_ratio=0.5)", "InfoBatch", "SeTa(target=0.5)",
    ]  # fmt: skip
    assert (found["samples"], found["shards"], found["epochs"], found["recorded"], found["own"]) == (
        4000,
        8,
        4,
        None,
        None,
    )
    assert found["correlation"] == 0.9
    assert any("0.9, assumed" in line for line in found["assumptions"])
    assert found["policies"][2]["settings"]["num_epochs"] == 4
    assert found["policies"][3]["totals"]["saved"] == pytest.approx(0.5, abs=0.02)


def test_two_epochs_have_no_target_by_default():
    """Half of the visits cannot be saved there, and nobody asked for it."""
    labels = [one["label"] for one in found_by(*SMALL[:-1], 2)["policies"]]
    assert labels == ["StaticRandom(prune_ratio=0.5)", "DynamicRandom(prune_ratio=0.5)", "InfoBatch"]


def test_policies_and_settings_are_obeyed():
    """Names with settings, the correlation, and the number of epochs where a policy wants one."""
    found = found_by(*SMALL, "--policy", "full", "--policy", "seta(target=0.3)", "--correlation", 0.5, "--seed", 3)
    assert [one["totals"]["saved"] for one in found["policies"]] == [0.0, pytest.approx(0.3, abs=0.02)]
    assert found["correlation"] == 0.5
    assert any("0.5, given" in line for line in found["assumptions"])


def test_prices_are_those_of_the_store_or_as_given():
    """Money by hand from bytes and requests; the source is named, and a given price replaces the listed one."""
    listed = found_by(*SMALL, "--store", "s3", "--policy", "full")
    totals = listed["policies"][0]["totals"]
    assert totals["money"] == pytest.approx(totals["bytes"] / 2**30 * 0.09 + totals["requests"] / 1000 * 0.0004)
    assert any("Amazon S3" in line and "2026" in line for line in listed["assumptions"])
    given = found_by(*SMALL, "--store", "s3", "--price-per-gb", 0, "--policy", "full")
    totals = given["policies"][0]["totals"]
    assert totals["money"] == pytest.approx(totals["requests"] / 1000 * 0.0004)
    assert any("as given, $0 per GB and $0.0004 per 1,000 requests" in line for line in given["assumptions"])
    printed = run(*SMALL, "--price-per-gb", 2, "--policy", "dynamicrandom(prune_ratio=0.5)").stdout
    assert "cost" in printed
    assert "$" in printed


def test_a_price_means_a_bucket(corpus, tmp_path):
    """Local shards are reckoned as if they lay there; --reading has the last word."""
    train(corpus, tmp_path / "state", SeTa(EPOCHS, target=0.5), epochs=2)
    for options, where in (
        ((), "local files"),
        (("--store", "gcs"), "a bucket"),
        (("--store", "gcs", "--reading", "local"), "local files"),
        (("--reading", "bucket"), "a bucket"),
    ):
        found = found_by(tmp_path / "state", "--policy", "full", *options)
        assert any(line.startswith(f"Read as from {where}") for line in found["assumptions"])


def test_large_samples_are_counted_as_the_run_read_them(make_corpus, tmp_path):
    """Members of photos one by one; requests per sample and bytes come from what was measured."""
    stats = train(make_corpus(4, 50, length=50_000), tmp_path / "state", SeTa(3, target=0.5), epochs=3)
    found = found_by(tmp_path / "state", "--policy", "full")
    full = found["policies"][0]["totals"]
    assert full["requests"] == pytest.approx(3 * 200 * 2)
    mean = sum(one.bytes_fetched for one in stats) / sum(one.samples for one in stats)
    assert full["bytes"] == pytest.approx(3 * 200 * mean, rel=1e-3)
    assert any("each member by itself, 2 per sample" in line for line in found["assumptions"])


class Corpus:
    digests = (b"a" * 16, b"b" * 16)


def write_state(url, *, policy=None, epochs=3, corpus=True, judged_by="loss"):
    """Write a state of two shards by hand; the corpus file, where there is one, says 1,000 bytes per sample."""
    generations, table, parent = Generations(str(url)), LossTable([600, 400]), None
    for epoch in range(epochs):
        table.record(np.arange(1000), np.random.default_rng(epoch).gamma(2, 1, 1000))
        facts = {"policy": policy} if policy else {}
        parent = generations.commit(
            epoch, table, Corpus, None, parent, facts, judged=Judged(table.histogram(), None, judged_by=judged_by)
        )
        table.advance()
    generations.close()
    if corpus:
        import fsspec

        columns = (np.array([700_000, 500_000]), ("", ""), np.array([600, 400]), np.array([600_000, 400_000]))
        data = ShardTable(("s3://b/0.tar", "s3://b/1.tar"), *columns, Corpus.digests, np.ones(2, np.bool_)).to_bytes()
        with fsspec.open(f"{url}/corpus", "wb") as file:
            file.write(data)


def test_a_state_in_a_bucket_is_replayed():
    """Any fsspec URL; its shards lie in a bucket, so they are reckoned as such."""
    write_state("memory://simulate/state")
    found = found_by("memory://simulate/state", "--policy", "full")
    assert found["policies"][0]["totals"]["bytes"] == pytest.approx(3 * 1_000_000)
    assert any(line.startswith("Read as from a bucket") for line in found["assumptions"])
    assert found["correlation"] == pytest.approx(0.0, abs=0.1)  # each epoch's losses were drawn anew


def test_a_state_without_a_shard_table_is_replayed(tmp_path):
    """The sidecars tell the samples, or else the last line does; a mean size is assumed."""
    write_state(tmp_path / "state", corpus=False)
    found = found_by(tmp_path / "state", "--policy", "full")
    assert (found["samples"], found["shards"]) == (1000, 2)
    for generation in (tmp_path / "state" / "losses").iterdir():
        (generation / "manifest").unlink()
    found = found_by(tmp_path / "state", "--policy", "full")
    assert (found["samples"], found["shards"], found["correlation"]) == (1000, 1, 0.9)


def test_a_policy_that_cannot_be_rebuilt_is_told(tmp_path):
    """A callable of the user's, or groups by key: the others are simulated."""
    write_state(tmp_path / "one", policy={"name": "my_rule"})
    write_state(tmp_path / "two", policy=describe(PerGroup(InfoBatch(3), by="folder")))
    for state, why in (("one", "There is no policy called 'my_rule'"), ("two", "a history knows no keys")):
        found = found_by(tmp_path / state)
        assert found["own"] is None
        assert len(found["policies"]) == 4
        assert any("own policy" in line and why in line for line in found["assumptions"])


def test_scores_that_are_no_losses_are_told(tmp_path):
    """A policy's own scores stand in the history; they are taken as losses, and that is said."""
    write_state(tmp_path / "state", judged_by="score")
    assert any("are taken as losses" in line for line in found_by(tmp_path / "state")["assumptions"])


def test_what_is_not_recorded_is_told():
    """Kakurenbo hides by flags where there are any."""
    found = found_by(*SMALL, "--policy", "kakurenbo")
    assert "kakurenbo: no flags is recorded, as in a run that passes none." in found["assumptions"]


def test_a_policy_that_stops_is_told(monkeypatch):
    """With the epoch and the reason; the command goes on."""
    monkeypatch.setattr(InfoBatch, "rule", lambda *_: Rule([], [0.0], unseen_keep=0.0))
    result = run(*SMALL, "--policy", "infobatch", "--policy", "full")
    assert result.exit_code == 0
    assert "infobatch stopped at epoch 0: selects nothing" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "Give the state folder of a run, or --synthetic"),
        (("somewhere", "--synthetic", "late"), 2, "one of them"),
        (("somewhere", "--samples", 5), 2, "--samples is of a synthetic corpus; the state tells its own"),
        (("--synthetic", "weibull"), 2, "'weibull' is not one of"),
        (("--synthetic", "late", "--correlation", 2), 2, "2.0 is not in the range"),
        (("nowhere/at/all",), 1, "There is no history to replay in nowhere/at/all"),
        ((*SMALL, "--policy", "setta"), 1, "did you mean SeTa?"),
        ((*SMALL, "--policy", "seta(target=0.9)", "--epochs", 2), 1, "cannot be saved in 2 epochs"),
        ((*SMALL, "--policy", "staticrandom"), 1, "StaticRandom needs prune_ratio"),
        ((*SMALL, "-o", "nowhere/at/all.png"), 2, "there is no folder 'nowhere/at'"),
        ((*SMALL, "-o", "it.doc"), 2, "'it.doc' ends in none of .png, .svg"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, arguments, code, told):
    """In a sentence, with an exit code that says so, and without a traceback."""
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_history_that_is_none_is_told(tmp_path):
    """Lines of another program, with their number; torn ones are passed over with a warning."""
    write_state(tmp_path / "state")
    history = tmp_path / "state" / "history.jsonl"
    lines = history.read_text().splitlines()
    history.write_text("\n".join([*lines, "{torn", ""]))
    result = run(tmp_path / "state", "--policy", "full", "--json")
    assert (result.exit_code, json.loads(result.stdout)["epochs"]) == (0, 3)
    assert json.loads(result.stderr)["warning"].startswith("Lines [4] of")
    history.write_text("\n".join([lines[0], '{"step": 1}', ""]))
    result = run(tmp_path / "state")
    assert result.exit_code == 1
    assert "its line 2 tells no epoch and generation" in re.sub(r"\s+", " ", result.output)


def test_losses_from_before_epoch_0_are_replayed(tmp_path):
    """A table that was scored ahead: epoch 0 decides by it, and has its own losses where they are recorded."""
    generations, table = Generations(str(tmp_path / "state")), LossTable([600, 400])
    table.record(np.arange(1000), np.random.default_rng(0).gamma(2, 1, 1000))
    generations.commit(-1, table, Corpus, None, None, {})
    generations.close()
    found = found_by(tmp_path / "state", "--policy", "seta(target=0.5, warm=True)", "--epochs", 3)
    shares = [one["share"] for one in found["policies"][0]["epochs"]]
    assert shares == [pytest.approx(0.5, abs=0.07)] * 3
    assert found["source"].endswith("1 recorded epoch")


def test_choices_are_those_that_there_are():
    """The command names shapes and stores by itself, so that --help need not wait for numpy."""
    assert simulate.SHAPES == SHAPES
    assert tuple(STORES) == pricing.STORES


def test_help_shows_examples():
    """And the command is among those of seta-stream."""
    result = run("--help")
    assert result.exit_code == 0
    assert "\n      seta-stream simulate runs/7 -o saved.png\n" in result.output
    assert "simulate" in CliRunner().invoke(main, ["--help"]).output


def test_amounts_are_readable():
    """Units by size; small money with the digits that tell something."""
    assert [told_bytes(value) for value in (512, 2048, 5 << 20, 3 << 30, 1 << 50)] == [
        "512 B", "2.0 KiB", "5.0 MiB", "3.0 GiB", "1,024.0 TiB",
    ]  # fmt: skip
    assert [told_money(value) for value in (0, 0.0123, 1234.5, -2.5)] == ["$0.00", "$0.0123", "$1,234.50", "−$2.50"]
