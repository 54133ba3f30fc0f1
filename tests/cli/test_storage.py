"""What commands are told about file systems, and how their help names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from seta_stream.cli import COMMANDS, main
from seta_stream.cli.storage import key_values, storage_options


@click.command()
@storage_options
@key_values("--to-option", "to_options", help="Likewise.")
def told(**options: Any) -> None:
    """Print what arrived."""
    click.echo(json.dumps(options))


def given(*arguments: str) -> dict[str, Any]:
    """Return what a command is told."""
    result = CliRunner().invoke(told, arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def test_values_are_json_or_text() -> None:
    """True is a truth value, a map is a map, a bare word a text; what is not given is None."""
    pairs = ("anon=true", "endpoint_url=http://h:1", 'client_kwargs={"a": 1}', "key=a=b")
    plain = {"anon": True, "endpoint_url": "http://h:1", "client_kwargs": {"a": 1}, "key": "a=b"}
    for flag, name in (("--option", "options"), ("--to-option", "to_options")):
        expected: dict[str, Any] = {"options": None, "to_options": None, name: plain}
        assert given(*(part for pair in pairs for part in (flag, pair))) == expected


def test_a_file_is_laid_under_the_options(tmp_path: Path) -> None:
    """Of --option alone: a file of one store's secrets goes to no other."""
    (tmp_path / "s3.json").write_text('{"key": "file", "secret": "file"}')
    found = given("--option", "key=given", "--options-file", str(tmp_path / "s3.json"))
    assert found == {"options": {"key": "given", "secret": "file"}, "to_options": None}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_holds_an_example(command: str) -> None:
    """Every command shows a line to copy, and the list of commands says what each does, uncut."""
    shown = CliRunner().invoke(main, [command, "--help"], terminal_width=100).output
    assert f"  seta-stream {command} " in shown or f"  seta-stream {command}\n" in shown
    listed = " ".join(CliRunner().invoke(main, ["--help"], terminal_width=100).output.split())
    assert COMMANDS[command] in listed
