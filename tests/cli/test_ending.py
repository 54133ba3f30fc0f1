"""Every command ends alike: what it raises or warns of is told in words or as JSON; a defect keeps its traceback."""

from __future__ import annotations

import json
import warnings

import click
import pytest
from click.testing import CliRunner, Result
from command_runs import error_of, run
from small_corpora import write_tar

from seta_stream.cli.command import Command
from seta_stream.cli.ending import FAILED, INTERRUPTED, MISUSED
from seta_stream.cli.options import json_option
from seta_stream.errors import SetaStreamWarning, StateError, TarError


def ended(raised: BaseException | Warning | None, *arguments: str, resumes: str | None = None) -> Result:
    """Run a command that raises, or warns of, something and prints a result."""

    @click.command(cls=Command, resumes=resumes)
    @json_option()
    def command(*, as_json: bool) -> None:
        if isinstance(raised, Warning):
            warnings.warn(raised, stacklevel=1)
        elif raised is not None:
            raise raised
        click.echo(json.dumps({"done": True}) if as_json else "done")

    return CliRunner().invoke(command, arguments)


def test_done():
    """Exit code 0, and nothing but the result."""
    assert [(done.exit_code, done.stdout, done.stderr) for done in (ended(None), ended(None, "--json"))] == [
        (0, "done\n", ""), (0, '{"done": true}\n', ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raised", "code", "text", "told"),
    [
        (StateError("It is gone."), FAILED, "Error: It is gone.\n", {"error": "It is gone.", "kind": "StateError"}),
        (TarError("Cut.", shard="a.tar", key="k", offset=512, found=b"x"), FAILED, "Error: Cut.\n",
         {"error": "Cut.", "kind": "TarError", "shard": "a.tar", "key": "k", "offset": 512}),
        (PermissionError(13, "Permission denied", "a\x1b[2J"), FAILED,
         "Error: Permission denied: a\\x1b[2J. Change its permissions, or name another place.\n",
         {"error": "Permission denied: a\\x1b[2J. Change its permissions, or name another place.",
          "kind": "PermissionError"}),
        (BrokenPipeError(32, "Broken pipe"), FAILED, "Error: Broken pipe.\n",
         {"error": "Broken pipe.", "kind": "OSError"}),
        (MemoryError(), FAILED, "Error: There is not enough memory. Give it less to do at once.\n",
         {"error": "There is not enough memory. Give it less to do at once.", "kind": "MemoryError"}),
        (click.UsageError("Not so."), MISUSED,
         "Usage: command [OPTIONS]\nTry 'command --help' for help.\n\nError: Not so.\n",
         {"error": "Not so.", "kind": "UsageError"}),
        (KeyboardInterrupt(), INTERRUPTED, "\nInterrupted.\n", {"error": "Interrupted.", "kind": "Interrupted"}),
        (click.Abort(), FAILED, "Error: Nobody answered, so nothing was done.\n",
         {"error": "Nobody answered, so nothing was done.", "kind": "Abort"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_failures(raised, code, text, told):
    """One message on stderr, and the exit code; as JSON with the class and what it is about."""
    done = ended(raised)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", text)
    done = ended(raised, "--json")
    assert (done.exit_code, done.stdout) == (code, "")
    assert error_of(done.stderr) == told | {"exit_code": code}


def test_what_an_interrupt_leaves():
    """A command says it, where there is something to say."""
    assert ended(KeyboardInterrupt(), resumes="half of it is done.").stderr == "\nInterrupted: half of it is done.\n"


def test_a_defect_is_not_hidden():
    """What nobody foresaw keeps its traceback."""
    assert isinstance(ended(ZeroDivisionError("a defect")).exception, ZeroDivisionError)


def test_what_calls_a_command_hears_its_errors():
    """As click promises without its standalone mode."""

    @click.command(cls=Command)
    def command() -> None:
        raise StateError("It is gone.")

    with pytest.raises(StateError, match="It is gone"):
        command.main([], standalone_mode=False)


def test_warnings():
    """The package's own are told on stderr; another's go their own way, which here is an error."""
    done = ended(SetaStreamWarning("Slow."))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "done\n", "Warning: Slow.\n")
    done = ended(SetaStreamWarning("Slow."), "--json")
    assert (done.stdout, json.loads(done.stderr)) == ('{"done": true}\n', {"warning": "Slow."})
    assert isinstance(ended(UserWarning("Another's.")).exception, UserWarning)
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        ended(UserWarning("Another's."))
    assert [str(one.message) for one in others] == ["Another's."]


def test_no_sample_is_warned_of(tmp_path, monkeypatch):
    """An index of shards without samples is written, but it is likely a mistake."""
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar", [("folder/name", b"x")])
    done = run("index", "a.tar")
    assert done.exit_code == 0
    assert "Warning: No shard that a.tar names has a sample: members must be named key.field." in done.stderr
