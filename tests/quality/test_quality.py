"""The accuracy experiments run from end to end at toy size, go on where they stopped, and count in pairs."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

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


def call(module: ModuleType, *arguments: str | Path | int) -> Result:
    result = CliRunner().invoke(module.main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


TOY = ("--samples", "300", "--epochs", "5", "--jobs", "1")


def test_every_arm_of_the_mixture_runs(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """Each policy trains, its row tells what was saved, and table and plot are there."""
    call(tools["mixture"], *TOY, "--seeds", 1, "--variants", "standard", "--out", tmp_path)
    rows = {row["arm"]: row for row in rows_of(tmp_path)}
    assert set(rows) == set(tools["_arms"].POLICIES)
    for row in rows.values():
        assert 5 < row["accuracy"] <= 100
        assert row["bytes"] == round((1 - row["saved"]) * 5 * 300) * 3_000
    assert rows["full"]["saved"] == 0
    assert rows["full-compressed"]["shares"] == [1, 1, 1]
    # Draws are per sample: 1,500 visits, four standard deviations.
    for arm in ("dynamic", "static", "ucb", "orderdp", "infobatch-quantile", "seta-log", "seta-rank", "seta-loss"):
        assert rows[arm]["saved"] == pytest.approx(0.5, abs=0.06 if arm != "static" else 0.12), arm
    assert "| seta-log | 1 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_study_of_seta_runs(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """Fresh losses, smoothing and a rate by epochs are ways of their own: none gives the plain arm's result."""
    arms = "loss,loss fresh,loss smooth,nominal,nominal by epoch"
    call(
        tools["mixture"], *TOY, "--study", "seta", "--arms", arms, "--seeds", 1, "--variants", "hard", "--out", tmp_path
    )
    rows = {row["arm"]: row for row in rows_of(tmp_path)}
    assert set(rows) == {"full", "full-compressed", *arms.split(",")}
    assert len({tuple(rows[arm]["shares"]) for arm in ("loss", "loss fresh", "loss smooth")}) == 3
    assert rows["loss"]["wrong_ratio"] is None
    assert rows["nominal"]["accuracy"] != rows["nominal by epoch"]["accuracy"]


def test_a_stopped_run_goes_on(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """Rows that are there are not run again; a half-written last line is run again, and gives the same."""
    arguments = (*TOY, "--arms", "dynamic", "--variants", "standard", "--out", tmp_path)
    call(tools["mixture"], *arguments, "--seeds", 1)
    before = rows_of(tmp_path)
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    call(tools["mixture"], *arguments, "--seeds", 1)
    again = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines() if line.endswith("}")]
    assert again[:-1] == before[:-1]
    assert {**again[-1], "seconds": 0} == {**before[-1], "seconds": 0}


def test_what_differs_is_told(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """Results of other settings, an unknown arm and an unknown variant are refused with what is possible."""
    run = CliRunner().invoke
    main = tools["mixture"].main
    call(tools["mixture"], *TOY, "--arms", "static", "--seeds", 1, "--variants", "standard", "--out", tmp_path)
    other = run(main, ["--samples", "400", "--out", str(tmp_path)])
    assert "holds runs with other settings (samples 300 → 400, epochs 5 → 20)" in other.output.replace("\n", " ")
    arm = run(main, ["--arms", "best", "--out", str(tmp_path)])
    assert "The study policies has no arm best" in arm.output
    variant = run(main, ["--variants", "easy", "--out", str(tmp_path)])
    assert "There is no variant ['easy']" in variant.output


def test_arms_of_a_seed_share_everything_but_the_policy(tools: dict[str, ModuleType]) -> None:
    """Same data and same initial weights; another seed has others."""
    mixture, arms = tools["mixture"], tools["_arms"].POLICIES
    data = [mixture.make_data(mixture.VARIANTS["standard"], 400, seed) for seed in (0, 0, 1)]
    assert (data[0].inputs == data[1].inputs).all()
    assert (data[0].inputs != data[2].inputs).any()
    first, second = (mixture.Trainer(arms[name], data[0], 0, 5) for name in ("full", "seta-log"))
    assert all((a == b).all() for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


def test_the_data_are_as_told(tools: dict[str, ModuleType]) -> None:
    """Half near-duplicates, each within a fraction of a component's width of its copies; a tenth of wrong labels."""
    mixture = tools["mixture"]
    data = mixture.make_data(mixture.VARIANTS["standard"], 2_000, 3)
    assert data.is_duplicate.sum() == 1_000
    assert data.is_wrong.mean() == pytest.approx(0.1, abs=0.03)
    inputs = data.inputs.numpy()
    apart = np.sqrt(((inputs[:, None, :] - inputs[None, data.is_duplicate, :]) ** 2).sum(axis=2))
    apart[data.is_duplicate, np.arange(1_000)] = np.inf
    nearest = apart.min(axis=1)
    assert np.quantile(nearest[data.is_duplicate], 0.9) < 2 < np.quantile(nearest[~data.is_duplicate], 0.1)


def test_words_run(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """The recogniser is trained from shards under every arm, tested twice, and a second call runs nothing."""
    toy = ("--samples", 120, "--epochs", 4, "--batch-size", 10, "--seeds", 1, "--jobs", 1, "--device", "cpu")
    call(tools["words"], *toy, "--out", tmp_path)
    rows = {row["arm"]: row for row in rows_of(tmp_path)}
    assert set(rows) == set(tools["_arms"].WORDS)
    assert rows["full"]["saved"] == 0
    assert rows["full"]["bytes"] == 2 * rows["full-compressed"]["bytes"] > 0
    assert rows["seta-log"]["shares"][0] == 1
    assert {"words", "fonts"} <= set(rows["full"])
    call(tools["words"], *toy, "--out", tmp_path)
    assert len(rows_of(tmp_path)) == len(rows)


def test_differences_are_paired(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    """By hand: 1, 2 and 3 points over three shared seeds are 2 ± 4.303 / √3; the seed of one arm alone is left out."""
    common = tools["_common"]
    scores = {("full-compressed", 0): 50, ("full-compressed", 1): 60, ("full-compressed", 2): 70, ("a", 0): 51}
    scores |= {("a", 1): 62, ("a", 2): 73, ("a", 3): 0, ("b", 0): 50.5, ("b", 1): 59, ("b", 2): 70.5}
    rows = [
        {"arm": arm, "seed": seed, "accuracy": value, "saved": 0.5, "bytes": 2e9}
        for (arm, seed), value in scores.items()
    ]
    found = common.differences(rows, "accuracy", "a", "full-compressed")
    assert (found.mean, found.pairs) == (2, 3)
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)
    assert common.differences(rows, "accuracy", "a", "full") is None
    assert common.said(common.Difference(-0.3, 0.2, 5)) == "−0.30 ± 0.20 *"
    assert common.said(common.Difference(0.1, 0.2, 5)) == "+0.10 ± 0.20"
    lines = common.table_rows(rows, "accuracy", ["full", "full-compressed", "b"])
    assert lines == [
        ["full-compressed", "3", "60.00", "", "", "50.0 %", "2.00"],
        ["b", "3", "60.00", "+0.00 ± 2.15", "", "50.0 %", "2.00"],
    ]
    common.report(tmp_path, {"toy": rows}, "accuracy", ["full-compressed", "a", "b"], Console(quiet=True))
    assert "| b | 3 | 60.00 | +0.00 ± 2.15 |  | 50.0 % | 2.00 |" in (tmp_path / "table.md").read_text()
