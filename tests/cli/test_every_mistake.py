"""What users do wrong, for every command that it can be done to: one message, an exit code, and no traceback.

The table of mistakes is walked for each command that the tree of commands holds.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import joblib  # noqa: F401  (it asks for shared memory when it is first imported, which a full disk refuses)
import pytest
from command_runs import CALLS, PRINTS_CODE, TREE, about, arguments_of, called, error_of, options_of, prepare, run

from seta_stream.cli.ending import FAILED, FOUND, MISUSED, told
from seta_stream.cli.kinds import ByteCount, Place
from seta_stream.losses.generations import Generations

WRITE_STATES = {"import": "--state", "repack": "--state-out", "score": "--state"}
"""Commands that write a state, and by which option."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, a run on them, a table of losses, a model, and things that are none of these."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    for name, data in {"text.tar": b"no tar at all, but a text " * 40, "empty.tar": b"", "file": b"x"}.items():
        (folder / name).write_bytes(data)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x01\n")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """The same, in the working folder, with a folder to write to."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")
    Path("out").mkdir()


def refused(arguments: list[str], code: int, text: str) -> None:
    """Run with and without --json; hold what is told to what is expected."""
    done = run(*arguments)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == code, done.output
    said = " ".join((done.stderr or done.stdout).split())
    assert text in said
    assert "Traceback" not in done.output
    if arguments[0] in PRINTS_CODE:
        return
    done = run(*arguments, "--json")
    assert done.exit_code == code
    if done.stdout:  # what was found, or failed, of several shards
        assert text in json.dumps(json.loads(done.stdout), ensure_ascii=False)
        return
    error = error_of(done.stderr)
    assert text in error["error"]
    assert error["exit_code"] == code
    assert error["kind"].isidentifier()


OF_SHARDS = {
    # What is named: part of the message, exit code; verify tells of a shard that cannot be read as of any other.
    "nowhere.tar": ("there is no such file", FAILED),
    "nowhere-*.tar": ("nothing matches", FAILED),
    "data/t-{0..1.tar": ("a brace is not closed", FAILED),
    "text.tar": ("is no tar header", FAILED),
    "empty.tar": ("it is empty", FAILED),
    "folder": ("it is a folder", FAILED),
    "binary.txt": ("no file's name holds a NUL", FAILED),
    "nosuch://bucket/a.tar": ("URLs that begin with nosuch:// cannot be read", FAILED),
    "": ("Was a variable of the shell not set?", MISUSED),
}
SHOWN_BY_VERIFY = {"nowhere.tar", "text.tar", "empty.tar"}


@pytest.mark.parametrize("wrong", OF_SHARDS)
@pytest.mark.parametrize("command", about("urls"))
def test_shards(command, wrong, here):
    """Names that name no shard."""
    text, code = OF_SHARDS[wrong]
    refused(called(command, wrong), FOUND if command == "verify" and wrong in SHOWN_BY_VERIFY else code, text)
    assert list(Path("out").rglob("*.seta-index")) == []
    assert list(Path("out").rglob("*.tar")) == []


OF_STATES = {
    "nowhere": ("nowhere", FAILED),
    "folder": ("folder", FAILED),
    "file": ("file", FAILED),
    "nosuch://bucket/run": ("URLs that begin with nosuch:// cannot be read", FAILED),
    "": ("Was a variable of the shell not set?", MISUSED),
}


@pytest.mark.parametrize("wrong", OF_STATES)
@pytest.mark.parametrize("command", about("state"))
def test_states(command, wrong, here):
    """Places that hold no run; nothing is made there."""
    text, code = OF_STATES[wrong]
    refused(called(command, wrong), code, text)
    assert not Path("nowhere").exists()
    assert list(Path("folder").iterdir()) == []
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("command", WRITE_STATES)
def test_states_that_cannot_be_written(command, here):
    """A file in the way, and a state that another run writes."""
    call = [part for part in called(command, "data/t-{0..1}.tar") if part not in {"--state", "out/state"}]
    if command == "repack":
        call = ["repack", "data/t-{0..1}.tar", "--to", "out/new", "--state", "run"]
    refused([*call, WRITE_STATES[command], "file"], FAILED, "File exists")
    generations = Generations("locked")
    generations.lock()
    try:
        refused([*call, WRITE_STATES[command], "locked"], FAILED, "another stream of this process writes it")
    finally:
        generations.close()


def writers() -> list[str]:
    """Return the commands that are called so that they write into a folder."""
    return [name for name, call in CALLS.items() if any("OUT" in part for part in call.arguments) and name != "demo"]


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond some bytes: the error of a full disk, but for its number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        *((name, called(name, "data/t-0.tar" if name in about("urls") else "run")) for name in writers()),
        ("inspect", ["inspect", "run", "--png", "out/run.png"]),
        ("simulate", ["simulate", "run", "--policy", "full", "-o", "out/run.png"]),
        ("export", ["export", "run", "--shards", "out/new"]),
        ("export", ["export", "run", "--to", "out/losses.parquet"]),
    ],
)
def test_a_full_disk(command, call, here):
    """It is told, and no file is left that looks whole."""
    with full_disk(20):
        done = run(*call)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == FAILED
    assert "File too large" in done.stderr
    assert [path for path in Path("out").rglob("*") if path.is_file() and path.stat().st_size > 0] == []


def test_what_the_system_refuses_is_told():
    """Which file, why, and what to do."""
    for error, text in [
        (OSError(28, "No space left on device", "/data/x"), "No space left on device: /data/x. Make room, and run"),
        (OSError(13, "Permission denied", "a", None, "b"), "Permission denied: a → b. Change its permissions"),
        (OSError("no number"), "no number."),
        (OSError(), "OSError."),
        (MemoryError(), "There is not enough memory. Give it less to do at once."),
        (MemoryError("3 TiB"), "There is not enough memory: 3 TiB."),
    ]:
        assert told(error).startswith(text)


def numbers() -> list[tuple[str, str, str]]:
    """Return every option that takes a number, with what is none: (command, option, text)."""
    wrong = {click.types.IntParamType: ["many", "1.5", "-77"], click.types.FloatParamType: ["many", "nan", "-77"],
             ByteCount: ["many", "-77", "9" * 40]}  # fmt: skip
    return [
        (name, option.opts[-1], text)
        for name, command in TREE.items()
        for option in options_of(command)
        for kind, texts in wrong.items()
        if isinstance(option.type, kind)
        for text in texts
    ]


@pytest.mark.parametrize(("command", "option", "text"), numbers())
def test_numbers(command, option, text, here):
    """What is no number of the option's range is refused before anything is done, and the option named."""
    objects = ["data/t-0.tar"] * ("urls" in {one.name for one in arguments_of(TREE[command])})
    objects += ["run"] * ("state" in {one.name for one in arguments_of(TREE[command])})
    done = run(*called(command, *objects), option, text)
    assert done.exit_code == MISUSED
    assert f"{option}'" in done.stderr
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (name, one.opts[-1])
        for name, command in TREE.items()
        for one in options_of(command)
        if isinstance(one.type, Place)
    ],
)
def test_empty_places(command, option, here):
    """A variable of the shell that was never set is no place."""
    objects = ["data/t-0.tar" if command in about("urls") else "run"]
    refused([*called(command, *objects), option, ""], MISUSED, "Was a variable of the shell not set?")
    refused([*called(command, *objects), option, "a\0b"], MISUSED, "holds a NUL")


LACKING = {
    "matplotlib.figure": [["inspect", "run", "-o", "out/a.png"], ["simulate", "run", "-o", "out/a.png"]],
    "pyarrow": [
        ["export", "run", "--to", "out/a.parquet"],
        ["import", "a.parquet", "data/t-0.tar", "--state", "out/s"],
    ],
    "distributed": [["index", "data/t-0.tar", "--force", "--backend", "dask"]],
    "ray": [["verify", "data/t-0.tar", "--backend", "ray"]],
    "joblibspark": [
        ["score", "data/t-0.tar", "--state", "out/s", "--model", "block_losses:losses", "--backend", "spark"]
    ],
}


@pytest.mark.parametrize(("module", "call"), [(name, call) for name, calls in LACKING.items() for call in calls])
def test_extras_that_are_not_installed(module, call, here, monkeypatch):
    """Which pip command installs them."""
    Path("a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, module, None)
    refused(call, FAILED, "pip install ")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ([], "Commands:"),
        (["indx"], "No such command 'indx'"),
        (["index"], "Missing argument 'URLS...'"),
        (["index", "data/t-0.tar", "--nosuch"], "No such option"),
        (["verify", "data/t-0.tar", "--address", "tcp://h:1"], "the backend is local"),
        (["verify", "data/t-0.tar", "--backend", "slurm"], "'slurm' is not one of"),
        (["index", "data/t-0.tar", "--option", "anon"], "write KEY=VALUE"),
        (["index", "data/t-0.tar", "--options-file", "text.tar"], "is no JSON"),
        (["report", "run", "-o", "nowhere/r.html"], "there is no folder 'nowhere'"),
        (["report", "run", "-o", ""], "Was a variable of the shell not set?"),
        (["inspect", "run", "-o", "s3://bucket/a.png"], "this is a file of this machine"),
        (["simulate", "run", "-o", "out/a.doc"], "ends in none of .png"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_wrong_command_lines(call, text, here):
    """Exit code 2, and nothing on stdout."""
    done = run(*call)
    assert (done.exit_code, done.stdout) == (MISUSED, "")
    assert text in " ".join(done.stderr.split())


def test_a_folder_that_may_not_be_written_to(here, monkeypatch):
    """It is told before anything is computed."""
    monkeypatch.setattr("seta_stream.cli.kinds.os.access", lambda *_: False)
    refused(["report", "run", "-o", "out/r.html"], MISUSED, "the folder 'out' may not be written to")


def test_a_question_that_nobody_answers(here):
    """A repair that is asked for where no one can answer is not done, and told as a failure."""
    Path("data/t-0.tar.seta-index").write_bytes(b"")
    done = run("verify", "data/t-0.tar", "--repair")
    assert done.exit_code == FAILED
    assert "Nobody answered, so nothing was done." in done.stderr
    assert Path("data/t-0.tar.seta-index").read_bytes() == b""
