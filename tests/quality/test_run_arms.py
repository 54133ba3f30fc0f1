"""The arms that decide for runs: they differ, save a half, and repacking moves samples with all that is known."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

TOOLS = Path(__file__).parents[2] / "tools" / "quality"
OWN = ("_common", "_arms", "mixture", "words")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules; gone afterwards, since other tools have a `_common` too."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(TOOLS))
    for name in OWN:
        sys.modules.pop(name, None)
    yield {name: importlib.import_module(name) for name in OWN}
    for name in OWN:
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)


def rows_of(module: ModuleType, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(module.main, [*arguments, "--out", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {row["arm"]: row for row in rows}


def test_every_arm_of_the_mixture_runs(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """They differ from each other in what they visit, save about a half, and tell what they do."""
    toy = ("--samples", "2000", "--epochs", "5", "--jobs", "1", "--study", "runs", "--seeds", "1")
    rows = rows_of(tools["mixture"], tmp_path, *toy, "--variants", "standard")
    assert set(rows) == set(tools["_arms"].RUNS)
    pruned = {arm: row for arm, row in rows.items() if "full" not in arm}
    assert len({tuple(row["shares"]) for row in pruned.values()}) == len(pruned)
    for arm, row in pruned.items():
        assert row["saved"] == pytest.approx(0.5, abs=0.12), arm
    assert rows["runs of 16 repacked once"]["policy"].endswith("5 epochs, runs of 16, repacked before 1")
    assert rows["runs of 16 repacked each fifth"]["policy"].endswith("repacked before 1, 2, 3, 4")
    assert rows["draws for 64"]["policy"].endswith("samples in runs of 64")


@pytest.mark.parametrize("length", [16, 64])
def test_repacking_moves_samples_with_their_losses(tools: dict[str, ModuleType], length: int) -> None:
    """Inside shards only; each place then holds the loss of the sample that lies there, as do later records."""
    mixture, arms = tools["mixture"], tools["_arms"].RUNS
    data = mixture.make_data(mixture.VARIANTS["standard"], 2_500, 0)
    trainer = mixture.Trainer(arms[f"runs of {length} repacked once"], data, 0, 5)
    random = np.random.default_rng(1)
    own = random.exponential(size=2_500).astype(np.float16).astype(np.float32)
    trainer.table.record(np.arange(2_000), own[:2_000])
    trainer._repack()
    trainer._repack()
    for begin, stop in zip((0, 1_000, 2_000), (1_000, 2_000, 2_500), strict=True):
        assert sorted(trainer.sample_of[begin:stop]) == list(range(begin, stop))
    assert np.array_equal(trainer.table.values[:2_000], own[trainer.sample_of[:2_000]])
    assert (np.diff(trainer.table.values[:1_000]) >= 0).all()
    assert np.array_equal(trainer.sample_of[2_000:], np.arange(2_000, 2_500))  # never seen: as they were
    trainer._refresh()
    losses = trainer.table.values.copy()
    other = mixture.Trainer(arms["seta-log"], data, 0, 5)  # the same weights, nothing moved
    other._refresh()
    assert np.array_equal(losses, other.table.values[trainer.sample_of])


def test_words_go_on_with_repacked_shards(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """The losses and the consumed samples come along: the epochs after the repack are pruned, and none is lost."""
    toy = ("--samples", "120", "--epochs", "4", "--batch-size", "10", "--seeds", "1", "--jobs", "1", "--device", "cpu")
    arms = "runs of 16,runs of 16 repacked once,runs of 16 repacked each fifth"
    rows = rows_of(tools["words"], tmp_path, *toy, "--study", "word-runs", "--arms", arms)
    for arm in arms.split(","):
        shares = rows[arm]["shares"]
        assert shares[0] == 1, arm
        assert len(shares) == 4
        assert all(0 < share < 0.8 for share in shares[1:])
    assert rows["runs of 16"]["requests"] > 0
