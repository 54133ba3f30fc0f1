"""`seta-stream verify`: shards against indexes against sidecars.

Takes URLs and a state; prints what does not agree, and builds it anew on request. Acts through the room `verifying`.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.command import Command
from seta_stream.cli.ending import FOUND
from seta_stream.cli.engines import engine_options
from seta_stream.cli.kinds import Decoder
from seta_stream.cli.numbers import told_bytes, told_count
from seta_stream.cli.options import index_option, json_option, state_option, urls_argument
from seta_stream.cli.storage import state_options, storage_options
from seta_stream.errors import SetaStreamWarning
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.verifying import Repair, Verified

_SHOWN: Final = 100
"""Findings that are printed; --json tells all."""
_COLOURS: Final = {"error": "red", "warning": "yellow", "hint": "dim"}


@click.command("verify", cls=Command, resumes="nothing was changed, but by a repair that had begun.")
@urls_argument
@state_option(help="State folder or URL of a run: its losses, history and shard table.")
@index_option
@click.option(
    "--decode",
    type=Decoder(),
    metavar="NAME",
    help="Decode every sample too: basic, pil, rgb8 or another of decode='s names.",
)
@click.option("--repair", is_flag=True, help="Build indexes and state files anew, and remove what killed runs left.")
@click.option("--yes", is_flag=True, help="Do not ask before a repair.")
@click.option("--strict", is_flag=True, help="Let hints count as findings for the exit code.")
@engine_options
@storage_options
@state_options
@json_option(help="Print one JSON document instead; with --repair, it needs --yes.")
def command(urls: tuple[str, ...], *, repair: bool, yes: bool, strict: bool, as_json: bool, **choices: Any) -> None:
    """Find what is damaged, stale, doubled or missing, in shards, indexes and a run's state.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. Nothing is
    written without --repair, which never touches a shard.

    The exit code is 0 where nothing is wrong (hints apart) or all of it was repaired, 3 where something was found, and
    1 where it could not be verified.

    \b
    Examples:
        seta-stream verify "/data/train-{00000..00149}.tar" --state runs/7
        seta-stream verify "/data/*.tar" --decode pil --repair --yes
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    if repair and as_json and not yes:
        raise click.UsageError("--repair with --json asks nobody: add --yes.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)  # what they would say is found and told below
        verified = _verify(urls, choices)
        mended = _mend(verified, yes=yes) if repair else None
    if as_json:
        click.echo(json.dumps(_plain(verified, mended)))
    else:
        if yes or not repair:  # or else they were told before the question
            _print_findings(verified)
        _print(verified, mended, is_repair=repair)
    left = verified.findings if mended is None else mended.left
    is_wrong = any(strict or one.severity != "hint" for one in left) or bool(mended and mended.failed)
    raise click.exceptions.Exit(FOUND if is_wrong else 0)


def _verify(urls: tuple[str, ...], choices: dict[str, Any]) -> Verified:
    from seta_stream.cli.screen import shard_bar  # noqa: PLC0415  (rich; --help need not wait for it)
    from seta_stream.verifying import Request, verify  # noqa: PLC0415  (numpy, likewise)

    request = Request(
        urls,
        state=choices["state"],
        index=choices["index"],
        decode=choices["decode"],
        engine=choices["engine"],
        storage_options=choices["options"],
        state_options=choices["state_options"],
    )
    with shard_bar("verifying") as advance:
        return verify(request, advance)


def _mend(verified: Verified, *, yes: bool) -> Repair | None:
    """Repair what can be, after asking; None where there is nothing to do or the answer is no."""
    from seta_stream.verifying import repair  # noqa: PLC0415  (numpy; --help need not wait for it)

    mendable = [one for one in verified.findings if one.is_mendable]
    if not mendable:
        return None
    if not yes:
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


def _print(verified: Verified, mended: Repair | None, *, is_repair: bool) -> None:
    from seta_stream.verifying.findings import counted  # noqa: PLC0415  (keeps --help fast)

    whose = "" if verified.state is None else f", {told_count(len(verified.state.generations), 'generation')}"
    click.echo(
        f"{told_count(len(verified.tasks), 'shard')}, {told_count(verified.samples, 'sample')}, "
        f"{told_bytes(verified.bytes)}{whose}, in {verified.seconds:,.1f} s"
    )
    counts = [told_count(count, name) for name, count in counted(verified.findings).items() if count]
    click.echo(", ".join(counts) if counts else "Nothing is wrong.")
    if mended is not None:
        for line in mended.done:
            click.echo(f"Repaired: {visible(line)}")
        for line in mended.failed:
            click.echo(f"Not repaired: {line}")
        if mended.left:
            click.echo(f"{len(mended.left):,} findings are left; no repair is known for them.")
    elif not is_repair and any(one.is_mendable for one in verified.findings):
        click.echo("--repair mends those marked *.")


def _print_findings(verified: Verified) -> None:
    """Print each finding: how grave and where in a line, then what it is and what to do, indented."""
    from rich.padding import Padding  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.text import Text  # noqa: PLC0415  (likewise)

    from seta_stream.cli.screen import screen  # noqa: PLC0415  (likewise)

    console = screen()
    # Where nobody can say how wide the reader's window is, a line is left whole.
    is_whole = not sys.stdout.isatty()
    for one in verified.findings[:_SHOWN]:
        told = one.to_plain()
        head = Text(one.severity + "*" * one.is_mendable, style=_COLOURS[one.severity])
        console.print(head.append(f"  {visible(_where(told))}", style="bold"), soft_wrap=is_whole)
        for text in (visible(told["what"]), f"→ {visible(one.advice)}"):
            line = Text(f"    {text}") if is_whole else Padding(Text(text), (0, 0, 0, 4))
            console.print(line, soft_wrap=is_whole)
    if len(verified.findings) > _SHOWN:
        click.echo(f"and {len(verified.findings) - _SHOWN:,} more: --json tells all")


def _where(told: dict[str, Any]) -> str:
    places = [told["shard"], told["file"]]
    if told["key"] is not None:
        places.append(f"key {told['key']}")
    if told["offset"] is not None:
        places.append(f"byte {told['offset']}")
    return ", ".join(place for place in places if place)
