"""`seta-stream verify`: shards against indexes against sidecars.

Takes URLs and a state; prints what does not agree, and builds it anew on request. Acts through the room `verifying`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.engines import engine_options
from seta_stream.cli.storage import key_values, storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.verifying import Progress, Repair, Verified

FOUND: Final = 3
"""The exit code that says that something was found."""
_SHOWN: Final = 100
"""Findings in the table; --json tells all."""


@click.command("verify")
@click.argument("urls", nargs=-1, required=True)
@click.option("--state", metavar="STATE", help="State folder or URL of a run: its losses, history and shard table.")
@click.option("--index", metavar="FOLDER", help="Folder of the indexes, if they are not beside the shards.")
@click.option(
    "--decode", metavar="NAME", help="Decode every sample too: basic, pil, rgb8 or another of decode='s names."
)
@click.option("--repair", is_flag=True, help="Build indexes and state files anew, and remove what killed runs left.")
@click.option("--yes", is_flag=True, help="Do not ask before a repair.")
@click.option("--strict", is_flag=True, help="Let hints count as findings for the exit code.")
@engine_options
@storage_options
@key_values(
    "--state-option", "state_options", help="The same for --state; --option by default, where the protocol is one."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --repair, it needs --yes.")
def command(urls: tuple[str, ...], *, repair: bool, yes: bool, strict: bool, as_json: bool, **choices: Any) -> None:
    """Find what is damaged, stale, doubled or missing, in shards, indexes and a run's state.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. Nothing is
    written without --repair, which never touches a shard.

    The exit code is 0 where nothing is wrong (hints apart) or all of it was repaired, 3 where something was found, and
    1 where it could not be verified.

    \b
    Example:
        seta-stream verify "/data/train-{00000..00149}.tar" --state runs/7 --decode pil
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    if repair and as_json and not yes:
        raise click.UsageError("--repair with --json asks nobody: add --yes.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)  # what they would say is found and told below
        try:
            verified = _verify(urls, choices)
            mended = _mend(verified, yes=yes, as_json=as_json) if repair else None
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(_plain(verified, mended)))
    else:
        _print(verified, mended, is_repair=repair)
    left = verified.findings if mended is None else mended.left
    is_wrong = any(strict or one.severity != "hint" for one in left) or bool(mended and mended.failed)
    sys.exit(FOUND if is_wrong else 0)


def _verify(urls: tuple[str, ...], choices: dict[str, Any]) -> Verified:
    from seta_stream.verifying import Request, verify  # noqa: PLC0415  (numpy; --help need not wait for it)

    request = Request(
        urls,
        state=choices["state"],
        index=choices["index"],
        decode=choices["decode"],
        engine=choices["engine"],
        storage_options=choices["options"],
        state_options=choices["state_options"],
    )
    with _bar() as advance:
        return verify(request, advance)


def _mend(verified: Verified, *, yes: bool, as_json: bool) -> Repair | None:
    """Repair what can be, after asking; None where there is nothing to do or the answer is no."""
    from seta_stream.verifying import repair  # noqa: PLC0415  (numpy; --help need not wait for it)

    mendable = [one for one in verified.findings if one.is_mendable]
    if not mendable:
        return None
    if not yes:
        if not as_json:
            _print_findings(verified)
        if not click.confirm(f"Repair {len(mendable)} of {len(verified.findings)} findings?", err=True):
            return None
    return repair(verified)


def _plain(verified: Verified, mended: Repair | None) -> dict[str, Any]:
    from seta_stream.verifying.findings import counted  # noqa: PLC0415  (keeps --help fast)

    told: dict[str, Any] = {
        "shards": len(verified.tasks),
        "samples": verified.samples,
        "members": verified.members,
        "bytes": verified.bytes,
        "seconds": verified.seconds,
        "generations": None if verified.state is None else len(verified.state.generations),
        "counts": counted(verified.findings),
        "findings": [one.to_plain() for one in verified.findings],
    }
    if mended is not None:
        told["repaired"] = list(mended.done)
        told["failed"] = list(mended.failed)
        told["left"] = [one.to_plain() for one in mended.left]
    return told


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a bar over the shards' bytes, where stderr is a terminal."""
    from rich.console import Console  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415  (likewise)
    from rich.progress import Progress as Bar  # noqa: PLC0415  (likewise)

    columns = (
        TextColumn("verifying"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[shards]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        row = bar.add_task("", total=None, shards="")

        def advance(progress: Progress) -> None:
            shards = f"{progress.shards_done:,} of {progress.shards:,} shards"
            bar.update(row, total=progress.bytes, completed=progress.bytes_done, shards=shards)

        yield advance


def _print(verified: Verified, mended: Repair | None, *, is_repair: bool) -> None:
    from seta_stream.cli.figures import told_bytes  # noqa: PLC0415  (rich; --help need not wait for it)
    from seta_stream.verifying.findings import counted  # noqa: PLC0415  (likewise)

    _print_findings(verified)
    whose = "" if verified.state is None else f", {len(verified.state.generations)} generations"
    click.echo(
        f"{len(verified.tasks):,} shards, {verified.samples:,} samples, {told_bytes(verified.bytes)}{whose}, in "
        f"{verified.seconds:,.1f} s"
    )
    counts = [f"{count:,} {name}{'s' * (count != 1)}" for name, count in counted(verified.findings).items() if count]
    click.echo(", ".join(counts) if counts else "Nothing is wrong.")
    if mended is not None:
        for line in mended.done:
            click.echo(f"Repaired: {line}")
        for line in mended.failed:
            click.echo(f"Not repaired: {line}")
        if mended.left:
            click.echo(f"{len(mended.left):,} findings are left; no repair is known for them.")
    elif not is_repair and any(one.is_mendable for one in verified.findings):
        click.echo("--repair mends those marked *.")


def _print_findings(verified: Verified) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.console import Console  # noqa: PLC0415  (likewise)
    from rich.markup import escape  # noqa: PLC0415  (likewise)
    from rich.table import Table  # noqa: PLC0415  (likewise)

    from seta_stream.cli.figures import PIPE_WIDTH  # noqa: PLC0415  (likewise)

    if not verified.findings:
        return
    colours = {"error": "red", "warning": "yellow", "hint": "dim"}
    table = Table(box=SIMPLE_HEAD)
    for name in ("", "what", "where", "what to do"):
        table.add_column(name, overflow="fold")
    for one in verified.findings[:_SHOWN]:
        told = one.to_plain()
        mark = "*" if one.is_mendable else ""
        table.add_row(
            f"[{colours[one.severity]}]{one.severity}{mark}[/]",
            escape(_printable(told["what"])),
            escape(_printable(_where(told))),
            escape(one.advice),
        )
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    console.print(table)
    if len(verified.findings) > _SHOWN:
        click.echo(f"and {len(verified.findings) - _SHOWN:,} more: --json tells all")


def _where(told: dict[str, Any]) -> str:
    places = [told["shard"], told["file"]]
    if told["key"] is not None:
        places.append(f"key {told['key']}")
    if told["offset"] is not None:
        places.append(f"byte {told['offset']}")
    return ", ".join(place for place in places if place)


def _printable(text: str) -> str:
    """Return a text without what could move a terminal's cursor or colour it: keys and names come from tars."""
    return "".join(
        each if each.isprintable() or each == " " else each.encode("unicode_escape").decode() for each in text
    )
