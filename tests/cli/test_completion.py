"""`seta-stream completion`: what shells offer, by click's protocol, and in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_runs import run

from seta_stream.cli import COMMANDS, main
from seta_stream.cli.completion import PROGRAM, SHELLS, VARIABLE

ENDS_S = 60.0


def offered(*words: str) -> list[tuple[str, str]]:
    """Return (kind, value) of what zsh is told for the last word."""
    environment = {VARIABLE: "zsh_complete", "COMP_WORDS": " ".join((PROGRAM, *words)), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(main, [], prog_name=PROGRAM, env=environment)
    assert done.exit_code == 0, done.output
    lines = done.stdout.rstrip("\n").split("\n")
    return list(zip(lines[::3], lines[1::3], strict=False)) if len(lines) >= 3 else []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ins"], {"inspect"}),
        (["inspect", "--js"], {"--json"}),
        (["simulate", "--synthetic", ""], {"exponential", "lognormal", "gamma", "late"}),
        (["simulate", "--policy", "se"], {"SeTa", "SelectiveBackprop"}),
        (["export", "run", "--policy", "Info"], {"InfoBatch", "InfoBatchQuantile"}),
        (["verify", "--decode", "l"], {"l8", "l"}),
        (["score", "--backend", "d"], {"dask"}),
        (["completion", ""], set(SHELLS)),
    ],
)
def test_words(words, wanted):
    """Commands, options, choices, policies and decoders by name."""
    assert {value for kind, value in offered(*words) if kind == "plain"} == wanted


def test_all_commands_are_offered():
    """With what each is for."""
    assert {value for _, value in offered("")} == set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["index", "da"], "file"),
        (["verify", "a.tar", "--state", "ru"], "dir"),
        (["inspect", "ru"], "dir"),
        (["index", "--out", "da"], "dir"),
        (["report", "run", "--out", "r"], "file"),
    ],
)
def test_paths_are_the_shells_own(words, kind):
    """Files for shards, folders for states; nothing is asked of a bucket."""
    assert offered(*words) == [(kind, words[-1])]
    assert offered(*words[:-1], "s3://bucket/") == (
        [] if kind == "dir" or words[0] == "index" else [(kind, "s3://bucket/")]
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell):
    """Each shell's own, for this program."""
    done = run("completion", shell)
    assert done.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in done.stdout
    assert "_seta_stream_completion" in done.stdout


def test_a_shell_that_click_does_not_know(monkeypatch):
    """An older click may lack one."""
    monkeypatch.setattr("seta_stream.cli.completion.get_completion_class", lambda _: None)
    done = run("completion", "fish")
    assert done.exit_code == 2
    assert "This release of click knows no completion for fish." in done.stderr


@pytest.fixture
def program(tmp_path):
    """`seta-stream` in a folder of its own, which comes first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / PROGRAM
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seta_stream "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb", "HOME": str(tmp_path)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_real_bash(tmp_path, program):
    """After the line of the help, TAB completes a command, an option, a choice, a folder and a file."""
    (tmp_path / "runs_of_may" / "7").mkdir(parents=True)
    (tmp_path / "train-00000.tar").touch()
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=program,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, b'eval "$(seta-stream completion bash)"; complete -p seta-stream\n')
        _read_until(ours, "complete -o nosort -F _seta_stream_completion seta-stream\r\n")
        for typed, wanted in [
            ("seta-stream insp\t", "inspect "),
            ("runs_o\t", "runs_of_may/"),
            ("\x15seta-stream simulate --syn\t", "--synthetic "),
            ("log\t", "lognormal "),
            ("\x15seta-stream index trai\t", "train-00000.tar "),
        ]:
            os.write(ours, typed.encode())
            _read_until(ours, wanted)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def _read_until(terminal: int, wanted: str) -> None:
    told, until = "", time.monotonic() + ENDS_S
    while wanted not in told:
        assert time.monotonic() < until, told
        if select.select([terminal], [], [], 1)[0]:
            told += os.read(terminal, 65536).decode(errors="replace")


def test_the_module_is_the_program():
    """`python -m seta_stream` calls itself seta-stream, wherever it is called."""
    done = subprocess.run(
        [sys.executable, "-m", "seta_stream", "--version"], capture_output=True, text=True, timeout=ENDS_S, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.startswith("seta-stream, version ")
    assert done.stderr == ""
