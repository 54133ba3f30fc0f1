"""What a command is told about a bucket: key=value pairs, or a file that holds them.

Takes arguments; gives the storage options as a dict. Effects: reads the file. Values may be secrets, so no message
repeats them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def storage_options(command: Command) -> Command:
    """Give a command --option and --options-file; both together arrive as its argument `options`."""
    command = click.option(
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_gathered,
        help="An option of the shards' file system, as endpoint_url=http://127.0.0.1:9000 or anon=true; repeatable.",
    )(command)
    # Eager: it is read before --option, which is laid over it.
    return click.option(
        "--options-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        expose_value=False,
        is_eager=True,
        callback=_kept,
        help="A JSON file of such options: other users of this machine can see the arguments of a command.",
    )(command)


def _kept(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        options = json.loads(path.read_text())
    except ValueError:
        # The parser's own message would quote the file.
        raise click.BadParameter(f"{path} is no JSON: write an object of options.", context, parameter) from None
    if not isinstance(options, dict):
        raise click.BadParameter(f'{path} holds no JSON object: write {{"anon": true}}.', context, parameter)
    context.meta[__name__] = options


def _gathered(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    options = dict(context.meta.get(__name__, {}))
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark or not key:
            raise click.BadParameter("write KEY=VALUE, as anon=true.", context, parameter)
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options
