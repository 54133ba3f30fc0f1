"""What every command has: help with examples that run, JSON as the page tells it, options of one kind by one name.

Walks the tree of commands, so that a new one which lacks any of this fails.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import commands_page
import pytest
from block_corpora import trained, write_pictures
from command_runs import CALLS, PRINTS_CODE, TREE, arguments_of, called, options_of, run

from seta_stream.cli import COMMANDS
from seta_stream.cli.command import Command
from seta_stream.cli.ending import CODES, FOUND
from seta_stream.cli.kinds import ByteCount, Decoder, LocalFile, Number, Place, PolicySpec
from seta_stream.demo.command import Arm, Results
from seta_stream.demo.train import Cost

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
NAMES = sorted(TREE)
ELSEWHERE = {
    "--samples 15000000 --epochs 90": "--samples 2000 --epochs 3",
    "{00000..00149}": "{00000..00003}",
    "{000..149}": "{00000..00003}",
    "s3://bucket/runs/": "runs/",
    "s3://bucket/": "data/",
    "/data/": "data/",
}
"""What examples name, and what they name in a test."""
NOT_RUN = {"demo": "trains for minutes: tests/demo runs it", "completion": "tests/cli/test_completion.py runs it"}

KINDS: dict[str, type | tuple[type, ...]] = {
    # By metavar, or by name where that is the same everywhere.
    "N": click.IntRange, "X": (Number, click.FloatRange), "S": Number, "BYTES": ByteCount, "STATE": Place,
    "URLS": Place, "POLICY": PolicySpec, "FILE": (LocalFile, click.Path), "FOLDER": (Place, click.Path),
    "--decode": Decoder, "--counts": Place,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples take for given: corpora, runs, a model, files."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        urls = write_pictures(Path("data"), samples=20)
        trained(urls, Path("runs/7"), epochs=13, of=13)
        (folder / "s3.json").write_text("{}")
        (folder / "my_project").mkdir()
        model = "def load():\n    return lambda batch: [float(image.width) for image in batch['jpg']]\n"
        (folder / "my_project" / "losses.py").write_text(model)
        for command in ("index data/*.tar --jobs 1", "export runs/7 --to losses.parquet --no-keys",
                        "export runs/7 --to losses.csv --no-keys"):  # fmt: skip
            assert run(*command.split()).exit_code == 0, command
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """The same, in the working folder, to be written to."""
    shutil.copytree(prepared, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")


def test_each_is_called_here():
    """A new command takes its place in the table of calls, and a docstring of its file says what it is."""
    assert sorted(CALLS) == NAMES == sorted(COMMANDS)
    for name, command in TREE.items():
        assert isinstance(command, Command)
        assert f"`seta-stream {name}" in (inspect.getmodule(command.callback).__doc__ or "")
        assert not COMMANDS[name].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_help(name):
    """It fits 80 columns, names every option in a sentence, and holds examples that parse."""
    for flag in ("-h", "--help"):
        done = run(name, flag)
        assert (done.exit_code, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= 80
    for option in options_of(TREE[name]):
        assert option.opts[-1] in done.stdout
        assert re.search(r"[.\]]$", option.help or ""), option.name
    found = commands_page.examples(TREE[name])
    assert "\n  Examples:\n" in done.stdout
    assert all(f"seta-stream {name}" in line for line in found)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_RUN])
def test_examples_run(name, here):
    """As they stand in the help, each after the other."""
    if name == "convert":  # the example reads what DALI's tool writes
        assert run("convert", "data/*.tar", "--to", "dali").exit_code == 0
    for line in commands_page.examples(TREE[name]):
        for told, found in ELSEWHERE.items():
            line = line.replace(told, found)  # noqa: PLW2901  (one text after the other)
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


@pytest.mark.parametrize("name", NAMES)
def test_options_are_of_one_kind(name):
    """What takes a place refuses an empty one, numbers are finite, and -o is where the result goes."""
    for param in TREE[name].params:
        if isinstance(param, click.Argument):
            kind = {"urls": Place, "state": Place}.get(param.name or "", (click.Path, click.Choice))
        else:
            assert isinstance(param, click.Option)
            if param.is_flag or isinstance(param.type, click.Choice):
                continue
            kind = KINDS.get(param.opts[-1]) or KINDS.get(param.metavar or "", click.types.StringParamType)
            assert param.metavar, f"{param.name} has no metavar"
        assert isinstance(param.type, kind), f"{name}: {param.name} is a {param.type}"
    outputs = {"--out", "--png"} & {option.opts[-1] for option in options_of(TREE[name])}
    short = [option.opts[-1] for option in options_of(TREE[name]) if "-o" in option.opts]
    assert set(short) >= outputs
    assert len(short) <= 1


def test_one_name_is_one_thing():
    """An option that several commands have takes the same values in each."""
    kinds: dict[str, set[str]] = {}
    for name, command in TREE.items():
        for option in options_of(command):
            told = f"{option.type.name} {option.multiple} {option.metavar}"
            if option.opts[-1] not in {
                "--out",
                "--to",
                "--by",
                "--samples",
                "--store",
                "--policy",
                "--epoch",
                "--index",
            }:
                kinds.setdefault(option.opts[-1], set()).add(told)
            assert option.opts[-1] != "--progress", name
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_the_page_is_what_the_commands_say():
    """docs/commands.md is up to date, and has a section for each command and a row for each exit code."""
    assert commands_page.page(PAGE) == PAGE, "run python tools/commands_page.py"
    parts = re.findall(r"^## (\w+)\n\n<!-- begin (\w+) -->$", PAGE, re.MULTILINE)
    assert sorted(parts) == [(name, name) for name in NAMES]
    for name in NAMES:
        section = section_of(name)
        for option in options_of(TREE[name]):
            assert f"`{option.opts[-1]}`" in section, f"{name}: {option.opts[-1]}"
        for argument in arguments_of(TREE[name]):
            assert (argument.name or "").upper() in section or name == "completion"
    for code, meaning in CODES.items():
        assert f"| {code} | {meaning} |" in PAGE


def test_a_page_that_is_not_is_told(tmp_path):
    """The tool writes what it checks."""
    stale = PAGE.replace("Scan shards again", "Scan shards anew")
    assert stale != PAGE
    assert commands_page.page(stale) == PAGE


def section_of(name: str) -> str:
    """Return what the page says of a command."""
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def told_keys(name: str) -> set[str]:
    """Return the keys that the page's table of a document names."""
    table = section_of(name).partition("| `--json` | |\n")[2].partition("\n\n")[0]
    return {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


JSON_CALLS = [
    (name, called(name, *(["data/*.tar"] if "urls" in {one.name for one in arguments_of(TREE[name])} else ["runs/7"])))
    for name in NAMES
    if name not in {*PRINTS_CODE, "demo"}
]
MORE_CALLS = [
    ("repack", ["repack", "data/*.tar", "--to", "new", "--state", "runs/7", "--dry-run"]),
    ("repack", ["export", "runs/7", "--shards", "new"]),
    ("export", ["export", "runs/7", "--to", "selection.json"]),
    ("verify", ["verify", "data/*.tar", "--state", "runs/7", "--repair", "--yes"]),
]


@pytest.mark.parametrize(("name", "arguments"), JSON_CALLS + MORE_CALLS)
def test_json_is_what_the_page_tells(name, arguments, here, monkeypatch):
    """One document on stdout and nothing on stderr; every key is told, and those of a whole call are all there."""
    Path("out").mkdir()
    Path("block_losses.py").write_text("def losses(batch):\n    return [1.0 for _ in batch['__key__']]\n")
    if arguments[-1] == "--yes":  # something to repair, and something that cannot be
        Path("data/train-00003.tar.seta-index").write_bytes(b"")
        Path("data/train-00002.tar").write_bytes(Path("data/train-00002.tar").read_bytes()[:700])
    done = run(*arguments, "--json")
    assert done.exit_code in {0, FOUND}, done.output
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    document = json.loads(done.stdout)
    assert set(document) <= told_keys(name)
    if (name, arguments) in JSON_CALLS:
        rest = {"repack": {"finished", "bytes_checked", "processes", "bytes_per_s"},
                "verify": {"repaired", "failed", "left"}}  # fmt: skip
        assert told_keys(name) - set(document) == rest.get(name, set())


def test_json_of_the_demo(tmp_path, monkeypatch):
    """The same figures as those that it leaves, and where they lie."""
    arm = Arm("all samples", 0.5, 0.5, Cost(1, 1, 1, 1, 1.0))
    (tmp_path / "results.json").write_text('{"options": {}, "full": {}, "seta": {}}')
    results = Results(arm, arm, tmp_path, tmp_path / "losses.png", tmp_path / "state")
    monkeypatch.setattr("seta_stream.cli.demo.run_demo", lambda *_: results)
    done = run("demo", "--json")
    assert (done.exit_code, set(json.loads(done.stdout))) == (0, told_keys("demo"))


def test_what_takes_no_json_prints_code():
    """A command without --json says what else its result is."""
    assert {name for name in NAMES if "--json" not in {one.opts[-1] for one in options_of(TREE[name])}} == PRINTS_CODE
