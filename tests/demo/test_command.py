"""The demo runs from end to end on a small corpus, and says what is wrong before it renders anything."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from seta_stream.cli import main
from seta_stream.demo.command import Arm, DemoOptions, Results, corpus_folder, run_demo, table_of
from seta_stream.demo.train import PEAK_RATE, Cost, learning_rate
from seta_stream.errors import ArgumentError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["demo", "--jobs", "1", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return out, run("--samples", 200, "--epochs", 4, "--out", out)


def figures(out: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((out / "run-001" / "results.json").read_text())
    return figures


def test_table_names_every_figure(finished: tuple[Path, Result]) -> None:
    """The table compares accuracy, samples, images, bytes and seconds, and the lines below say where things lie."""
    out, result = finished
    assert result.exit_code == 0, result.output
    for text in (
        "held-out words",
        "held-out fonts",
        "samples trained",
        "images decoded",
        "bytes read",
        "wall",
        "ratio",
    ):
        assert text in result.stdout
    assert str(out / "run-001" / "losses.png") in result.stdout.replace("\n", "")


def test_half_of_the_visits_are_saved(finished: tuple[Path, Result]) -> None:
    """SeTa trains on about half of the samples, and decodes and reads no more than it trains on."""
    out, _ = finished
    full, seta = figures(out)["full"]["cost"], figures(out)["seta"]["cost"]
    assert full["samples"] == 200 // 12 * 12 * 4
    assert 0.4 <= seta["samples"] / full["samples"] <= 0.56
    assert (full["decoded"], seta["decoded"]) == (full["samples"], seta["samples"])
    assert seta["bytes_read"] < 0.6 * full["bytes_read"]


def test_picture_is_a_png_and_the_history_has_every_epoch(finished: tuple[Path, Result]) -> None:
    """The picture of the losses lies beside the state, whose history has a line per epoch."""
    out, _ = finished
    assert (out / "run-001" / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "run-001" / "state" / "history.jsonl").read_text().splitlines()) == 4


def test_second_run_takes_the_corpus_that_is_there(finished: tuple[Path, Result]) -> None:
    """Run again, the demo renders nothing, writes to a new folder, and finds the same accuracy and counts."""
    out, _ = finished
    shards = {path: path.stat().st_mtime_ns for path in out.glob("corpus/*/*.tar")}
    assert run("--samples", 200, "--epochs", 4, "--out", out).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("corpus/*/*.tar")} == shards
    again = json.loads((out / "run-002" / "results.json").read_text())
    assert again["seta"]["cost"]["samples"] == figures(out)["seta"]["cost"]["samples"]


def test_run_says_what_is_taken_and_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it trains, a run names its corpus and whether it was there, and its own new folder."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seta_stream.demo.train.train", stop)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = (run("--samples", 100, "--epochs", 4, "--out", tmp_path / "out").stderr for _ in range(2))
    corpus = tmp_path / "out" / "corpus" / "100-samples-seed-0"
    assert f"corpus: {corpus}/words-*.tar (rendered now, " in first
    assert f"this run: {tmp_path / 'out' / 'run-001'} (new: losses of earlier runs are neither read nor" in first
    assert f"corpus: {corpus}/words-*.tar (rendered earlier, taken as it is, " in second
    assert f"this run: {tmp_path / 'out' / 'run-002'} (new" in second


def test_interrupt_is_a_sentence_and_leaves_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the demo with the shell's own code, and says what stays."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seta_stream.cli.demo.run_demo", stop)
    result = run("--out", tmp_path)
    assert result.exit_code == 130
    assert "Interrupted: shards that are finished stay for the next run" in result.stderr


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in the way of --out is a message with its path."""
    (tmp_path / "file").write_text("")
    result = run("--out", tmp_path / "file" / "out", "--samples", 100)
    assert result.exit_code == 1
    assert re.search(r"Not a directory: .*file/out.*\. Name a folder: a file has this name", result.output)


def test_corpora_of_other_fonts_live_apart(tmp_path: Path) -> None:
    """A run with --fonts takes a folder of its own, so that it neither meets nor mixes with the other's shards."""
    options = DemoOptions(out=tmp_path, samples=100)
    plain = corpus_folder(options, ("a.ttf", "b.ttf"))
    own = [corpus_folder(replace(options, fonts="mine"), fonts) for fonts in (("a.ttf", "b.ttf"), ("a.ttf", "c.ttf"))]
    assert len({plain, *own}) == 3
    assert plain == tmp_path / "corpus" / "100-samples-seed-0"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--samples", "50"), 2, r"50 is not in the range x>=100"),
        (("--epochs", "2"), 1, r"target"),
    ],
)
def test_impossible_sizes_are_refused_before_rendering(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """Too few samples, or epochs that cannot reach the target, are a message and no files."""
    result = run("--out", tmp_path, *arguments)
    assert result.exit_code == code
    assert re.search(message, result.output)
    assert list(tmp_path.iterdir()) == []


def test_too_few_samples_are_refused_by_whoever_runs_it(tmp_path: Path) -> None:
    """As the command does."""
    with pytest.raises(ArgumentError, match="--samples 50 is too few to train on: give at least 100"):
        run_demo(DemoOptions(out=tmp_path, samples=50), Console())


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch the demo says which command installs it."""
    monkeypatch.setattr("seta_stream.demo.extras.find_spec", lambda name: None if name == "torch" else importlib.util)
    result = run("--out", tmp_path)
    assert result.exit_code == 1
    assert "`seta-stream demo` needs torch" in result.output
    assert "pip install 'seta-stream[demo]'" in result.output


def test_learning_rate_rises_and_comes_down_to_zero() -> None:
    """The rate starts low, peaks after the warm-up, and is zero at the end and beyond."""
    rates = [learning_rate(step / 100) for step in range(120)]
    assert rates[0] < 0.1 * PEAK_RATE
    assert max(rates) == pytest.approx(PEAK_RATE)
    assert rates.index(max(rates)) == 15
    assert all(rate == pytest.approx(0) for rate in rates[100:])


def test_table_divides_both_runs(tmp_path: Path) -> None:
    """Each row holds both figures and SeTa's by the full run's; nothing is divided by zero."""
    full = Arm("all samples", 0.8, 0.0, Cost(1000, 1000, 2_000_000, 10, 10.0))
    seta = Arm("SeTa", 0.6, 0.1, Cost(500, 500, 1_000_000, 10, 6.0))
    table = table_of(Results(full, seta, tmp_path, tmp_path / "a.png", tmp_path / "state"), DemoOptions())
    ratios = list(table.columns[3].cells)
    assert ratios == ["0.750", "–", "0.500", "0.500", "0.500", "0.600"]
    assert list(table.columns[1].cells)[4] == "2.0 MB"
    assert table.title == "The same recogniser, trained twice\n20,000 word images, 8 epochs, seed 0"
