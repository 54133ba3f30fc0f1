"""How commands end as real processes: Ctrl-C, a closed pipe, a full stdout, a terminal or none, any encoding."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runs import about, called, error_of, prepare

from seta_stream.cli.ending import CLOSED, FAILED, INTERRUPTED

ENDS_S = 60.0
ROOT = Path(__file__).parents[2]
WATCH = ["watch", "run", "--once"]
"""The quickest of the commands that draw in colour."""
SLOW = """
import threading
from pathlib import Path

def losses(batch):
    Path(f"began-{batch['__key__'][0]}").touch()
    threading.Event().wait(600)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards with indexes, a run, a table of losses, a slow model: the working folder of the module's tests."""
    folder = tmp_path_factory.mktemp("here")
    prepare(folder)
    (folder / "slow.py").write_text(SLOW)
    return folder


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a command in a session of its own, whose processes get what a terminal's Ctrl-C sends."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"} | dict(options.pop("env", {}))  # type: ignore[call-overload]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "seta_stream", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, start_new_session=True, **(pipes | options))  # type: ignore[call-overload]


def interrupted(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; return what is said on stderr. No process of the session is left."""
    try:
        os.killpg(process.pid, signal.SIGINT)
        out, said = process.communicate(timeout=ENDS_S)
    finally:
        process.kill()
    assert (process.returncode, out) == (INTERRUPTED, "")
    assert "Traceback" not in said
    assert living(process.pid) == []
    return said


def living(session: int) -> list[int]:
    """Return the processes of a session that run; those that ended and that nobody asked after do not."""
    until = time.monotonic() + ENDS_S
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it ended meanwhile
                continue
            if int(of) == session and state not in "ZX":
                found.append(int(folder.name))
        if not found or time.monotonic() > until:
            return found


@pytest.mark.parametrize("command", about("urls"))
def test_ctrl_c_while_a_server_does_not_answer(command, here, tmp_path):
    """Exit code 130 and a sentence that says what stays, as JSON with --json; nothing half-made is left."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/t.tar"
        call = [part.replace("block_losses", "slow") for part in called(command, url, out=tmp_path)]
        process = start(*call, "--json", cwd=here)
        server.settimeout(ENDS_S)
        with server.accept()[0] as asked:
            asked.recv(1)
            error = error_of(interrupted(process))
    assert error["kind"] == "Interrupted"
    assert error["exit_code"] == INTERRUPTED
    assert error["error"].startswith("Interrupted: ")
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert [name for name in left if name.endswith((".tar", ".seta-index", ".idx", ".csv", "manifest"))] == []


def test_ctrl_c_ends_processes(here, tmp_path):
    """Those of two shards that are scored at once, too."""
    process = start(
        "score", "data/t-{0..1}.tar", "--state", tmp_path / "state", "--model", "slow:losses", "--jobs", 2, cwd=here
    )
    until = time.monotonic() + ENDS_S
    while len(list(here.glob("began-*"))) < 2 and process.poll() is None:
        assert time.monotonic() < until
    said = interrupted(process)
    assert said == "\nInterrupted: shards that are scored stay, and the same command goes on with the others.\n"
    assert not list((tmp_path / "state" / "losses").glob("gen-*"))


def test_ctrl_c_where_a_question_is_asked(here, tmp_path):
    """On a terminal: it is no answer, and nothing is repaired."""
    (tmp_path / "t.tar").write_bytes((here / "data/t-0.tar").read_bytes())
    (tmp_path / "t.tar.seta-index").write_bytes(b"")
    said, code = on_terminal(["verify", "t.tar", "--repair"], tmp_path, answer=("findings? [y/N]", b"\x03"))
    assert code == INTERRUPTED
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert (tmp_path / "t.tar.seta-index").read_bytes() == b""


@pytest.mark.parametrize(
    "call", [WATCH, ["verify", "data/t-0.tar", "--json"], ["simulate", "--help"]], ids=lambda call: call[0]
)
def test_a_closed_pipe(call, here):
    """As of `| head`: nothing is said, and the exit code is that of a program which such a pipe ends."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*call, stdout=writing, cwd=here)
    os.close(writing)
    assert process.communicate(timeout=ENDS_S)[1] == ""
    assert process.returncode == CLOSED


def test_a_full_stdout(here):
    """It is told, since the result is lost."""
    with open("/dev/full", "w") as full:
        process = start(*WATCH, "--json", stdout=full, cwd=here)
        error = error_of(process.communicate(timeout=ENDS_S)[1])
    assert process.returncode == FAILED
    assert error == {"error": "No space left on device. Make room, and run the command again.", "kind": "OSError",
                     "exit_code": FAILED}  # fmt: skip


def test_any_encoding(here):
    """Where characters of bars and names cannot be written, they are spelled."""
    process = start(*WATCH, cwd=here, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"})
    told, said = process.communicate(timeout=ENDS_S)
    assert (process.returncode, said) == (0, "")
    assert "\\u2588" in told


ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "seta_stream", *sys.argv[1:]])
"""
"""Takes its stdin for the terminal of its session, and becomes the command."""


def on_terminal(
    call: list[str], folder: Path, *, answer: tuple[str, bytes] | None = None, columns: int = 80, **environment: str
) -> tuple[str, int]:
    """Run on a terminal; return all that it shows, and the exit code."""
    plain = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR", "LINES"}}
    more = {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns), **environment}
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *call], cwd=folder, env={**plain, **more}, start_new_session=True,
        stdin=inside, stdout=inside, stderr=inside,
    )  # fmt: skip
    os.close(inside)
    told, until = "", time.monotonic() + ENDS_S
    try:
        while select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux's word for a terminal whose program ended
                break
            told += data.decode(errors="replace")
            if answer is not None and answer[0] in told:
                os.write(terminal, answer[1])
                answer = None
        return told, process.wait(timeout=ENDS_S)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")


@pytest.mark.parametrize(
    ("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_on_a_terminal(environment, is_coloured, here):
    """Unless it is asked not to be."""
    told, code = on_terminal(WATCH, here, **environment)
    assert code == 0
    assert bool(COLOUR.search(told)) == is_coloured


def test_no_colour_and_no_bar_elsewhere(here, tmp_path):
    """Unless colour is asked for; bars are for terminals alone even then."""
    plain = start(*WATCH, cwd=here).communicate(timeout=ENDS_S)
    assert "\x1b" not in plain[0] + plain[1]
    forced = start(*WATCH, cwd=here, env={"FORCE_COLOR": "1"}).communicate(timeout=ENDS_S)
    assert COLOUR.search(forced[0])
    call = called("index", "data/t-{0..1}.tar", out=tmp_path)
    assert start(*call, cwd=here, env={"FORCE_COLOR": "1"}).communicate(timeout=ENDS_S)[1] == ""


@pytest.mark.parametrize(
    "call",
    [["inspect", "run"], WATCH, ["simulate", "run", "--policy", "full"], ["verify", "data/t-0.tar", "nowhere.tar"],
     ["repack", "data/t-0.tar", "--to", "OUT", "--state", "run", "--dry-run"]],
    ids=lambda call: call[0],
)  # fmt: skip
def test_tables_fit_a_terminal(call, here, tmp_path):
    """Of 80 columns: no line is longer, so no terminal folds one; no cell is cut, and no heading broken."""
    told, _ = on_terminal([part.replace("OUT", str(tmp_path)) for part in call], here, NO_COLOR="1")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in told.partition("losses now")[0]
    if call[0] == "watch":
        assert any(line.split()[:2] == ["epoch", "kept"] for line in lines)


def test_lines_are_whole_where_there_is_no_terminal(here):
    """What is found stands in one line each, whatever its length, for grep."""
    told, said = start("verify", "data/t-0.tar", "nowhere.tar", cwd=here).communicate(timeout=ENDS_S)
    assert said == ""
    assert f"error  {here}/nowhere.tar" in told
    found = json.loads(
        start("verify", "data/t-0.tar", "nowhere.tar", "--json", cwd=here).communicate(timeout=ENDS_S)[0]
    )
    assert f"    {found['findings'][0]['what']}\n    → {found['findings'][0]['advice']}\n" in told
