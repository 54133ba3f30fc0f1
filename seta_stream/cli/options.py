"""Options and arguments that several commands have, each written once.

Takes a command; gives it the option. No effects.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypeVar

import click

from seta_stream.cli.kinds import FOLDER, SHARDS, Number, Picture, PolicySpec

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_SEED: Final = 2**63 - 1


def json_option(*, help: str = "Print one JSON document instead.") -> Callable[[Command], Command]:  # noqa: A002
    """Give a command --json, which arrives as `as_json`; with it errors are JSON, too (see `ending`)."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def urls_argument(command: Command) -> Command:
    """Give a command the shards that it is about, as `urls`."""
    return click.argument("urls", nargs=-1, required=True, type=SHARDS)(command)


def state_argument(*, required: bool = True) -> Callable[[Command], Command]:
    """Give a command the state that it is about, as `state`."""
    return click.argument("state", type=FOLDER, required=required)


def state_option(*, required: bool = False, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command a state besides what it is about, as `state`."""
    return click.option("--state", type=FOLDER, required=required, metavar="STATE", help=help)


def index_option(command: Command) -> Command:
    """Give a command the folder where indexes are looked for, too, as `index`."""
    return click.option(
        "--index", type=FOLDER, metavar="FOLDER", help="Folder of the indexes, if they are not beside the shards."
    )(command)


def shards_option(command: Command) -> Command:
    """Give a command that is about a state the shards' place, as `urls`."""
    return click.option(
        "--urls", type=SHARDS, multiple=True, metavar="URLS",
        help="The shards, if they are not where the state says; repeatable.",
    )(command)  # fmt: skip


def policy_option(*, multiple: bool = False, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command a policy's name or settings, as `policy`."""
    return click.option("--policy", type=PolicySpec(), multiple=multiple, metavar="POLICY", help=help)


def seed_option(*, default: int | None = 0, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command a seed, as `seed`."""
    return click.option(
        "--seed", type=click.IntRange(0, MOST_SEED), metavar="N", default=default, show_default=default is not None,
        help=help,
    )  # fmt: skip


def picture_option(*, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command a picture to draw, as `png`."""
    return click.option("-o", "--png", type=Picture(), metavar="FILE", help=help)


def count_option(*names: str, least: int = 1, most: int | None = None, **settings: Any) -> Callable[[Command], Command]:
    """Give a command a whole number of a range."""
    return click.option(*names, type=click.IntRange(least, most), metavar="N", **settings)


def number_option(
    *names: str, least: float = 0, most: float | None = None, **settings: Any
) -> Callable[[Command], Command]:
    """Give a command a finite number of a range."""
    return click.option(*names, type=Number(least, most), metavar="X", **settings)


def split_option(command: Command) -> Command:
    """Give a command that writes shards their size in samples and their names, as `shard_samples` and `prefix`."""
    command = click.option("--prefix", metavar="NAME", help="Name the new shards NAME-000000.tar and so on.")(command)
    return count_option("--shard-samples", help="Split or join shards to this many samples.")(command)


def installed_version() -> str:
    """Return the package's version."""
    try:
        return version("seta-stream")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"
