"""What a command is told about a bucket: key=value pairs, or a file that holds them.

Takes arguments; gives the storage options as a dict, None where there are none. Effects: reads the file. Values may be
secrets, so no message repeats them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from seta_stream.errors import ArgumentError

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE: Final = "--options-file"


def storage_options(command: Command) -> Command:
    """Give a command --option and --options-file; both together arrive as its argument `options`."""
    command = click.option(
        _FILE,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        expose_value=False,
        is_eager=True,  # read before --option, which is laid over it
        callback=_kept,
        help="A JSON file of such options: other users of this machine can see the arguments of a command.",
    )(command)
    return key_values(
        "--option",
        "options",
        help="An option of the file system, as endpoint_url=http://127.0.0.1:9000 or anon=true; repeatable.",
    )(command)


def key_values(flag: str, name: str, *, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command a repeatable option KEY=VALUE, which arrives as one dict; a value is JSON where it can be."""
    return click.option(flag, name, multiple=True, metavar="KEY=VALUE", callback=_gathered, help=help)


def state_options(command: Command) -> Command:
    """Give a command that reads shards and a state --state-option, as `state_options`."""
    return key_values(
        "--state-option",
        "state_options",
        help="The same for the state; --option by default, where the protocol is one.",
    )(command)


def to_options(command: Command) -> Command:
    """Give a command that writes shards --to-option, as `to_options`."""
    return key_values(
        "--to-option", "to_options",
        help="The same for the new shards; --option by default, where the protocol is one.",
    )(command)  # fmt: skip


def refuse_web(shards: Sequence[str]) -> None:
    """Refuse to write beside shards of a web server.

    Raises:
        ArgumentError: known before an hour is spent on scanning them.
    """
    from seta_stream.store import is_web, shown  # noqa: PLC0415  (numpy; --help need not wait for it)

    closed = next(filter(is_web, shards), None)
    if closed is not None:
        raise ArgumentError(
            f"Cannot write an index beside {shown(closed)}: a web server takes no files. Give --out a "
            "folder; a stream finds the indexes there by index=.",
            expected="--out FOLDER",
        )


def _kept(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        options = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        # The parser's own message would quote the file.
        raise click.BadParameter(f"{path} is no JSON: write an object of options.", context, parameter) from None
    if not isinstance(options, dict):
        raise click.BadParameter(f'{path} holds no JSON object: write {{"anon": true}}.', context, parameter)
    context.meta[_FILE] = options


def _gathered(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any] | None:
    options = dict(context.meta.get(_FILE, {})) if parameter.name == "options" else {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark or not key:
            raise click.BadParameter("write KEY=VALUE, as anon=true.", context, parameter)
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options or None
