"""The three corpus tools make what they say, print the brace pattern, and show what is wrong as a message."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def run() -> Callable[..., Result]:
    def run(tool: str, *arguments: str | Path) -> Result:
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        main: click.Command = module.main
        return CliRunner().invoke(main, ["--jobs", "1", "--no-progress", *map(str, arguments)])

    return run


@pytest.mark.parametrize(
    ("tool", "name", "fields"),
    [
        ("make_words", "words", {"jpg", "txt"}),
        ("make_captions", "captions", {"txt", "json"}),
        ("make_photos", "photos", {"jpg", "cls"}),
    ],
)
def test_tools_make_shards_and_print_their_pattern(
    run: Callable[..., Result], tmp_path: Path, tool: str, name: str, fields: set[str]
) -> None:
    """Seven samples in shards of three are three shards, whose pattern is the one line on stdout."""
    result = run(tool, "--samples", 7, "--shard-samples", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / name}-{{000000..000002}}.tar\n"
    assert "7 samples in 3 shards" in result.stderr
    members = []
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as shard:
            members += shard.getnames()
    assert sorted(members) == sorted(f"{number:09d}.{field}" for number in range(7) for field in fields)


def test_words_take_options(run: Callable[..., Result], tmp_path: Path) -> None:
    """A list of words and --meta decide labels and members."""
    (tmp_path / "list.txt").write_text("apple\norange\nbanana\ncherry\n")
    result = run(
        "make_words", "--samples", 5, "--out", tmp_path, "--words", tmp_path / "list.txt", "--meta", "--wrong", 0
    )
    assert result.exit_code == 0, result.output
    with tarfile.open(tmp_path / "words-000000.tar") as shard:
        assert [Path(name).suffix for name in shard.getnames()[:3]] == [".jpg", ".txt", ".json"]
        label = shard.extractfile("000000000.txt")
        assert label is not None
        assert label.read().decode() in {"apple", "orange", "banana", "cherry"}


def test_errors_are_messages(run: Callable[..., Result], tmp_path: Path) -> None:
    """What goes wrong on purpose is one line without a traceback."""
    assert run("make_captions", "--samples", 3, "--out", tmp_path).exit_code == 0
    result = run("make_captions", "--samples", 4, "--out", tmp_path)
    assert result.exit_code == 1
    assert "made with other settings (samples 3 → 4)" in result.stderr
    assert "Traceback" not in result.output
