"""`seta-stream watch STATE`: a run in the terminal, while it trains.

Takes a state URL; looks at its history again and again, and draws. Only reads the state.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.kinds import Number
from seta_stream.cli.options import json_option, state_argument
from seta_stream.cli.storage import storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning, StateError

if TYPE_CHECKING:
    from seta_stream.cli.watching import View

LEAST_S = 0.1


@click.command("watch", cls=Command)
@state_argument()
@click.option(
    "--interval", type=Number(LEAST_S), default=None, metavar="S",
    help="Seconds between two looks.  [default: 2; 15 at a URL]",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Look once, print, and end.")
@storage_options
@json_option(help="Print a line of JSON for each new epoch instead.")
def command(state: str, interval: float | None, options: dict[str, Any] | None, *, once: bool, as_json: bool) -> None:
    """Show the run in STATE (a folder or URL) while it trains: each epoch's losses, kept share, bytes, and time left.

    Epochs appear as they are committed. It ends with the last planned epoch, or by Ctrl-C.

    \b
    Examples:
        seta-stream watch runs/7
        seta-stream watch s3://bucket/runs/7 --options-file s3.json --once
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    from seta_stream.store import is_local  # noqa: PLC0415  (numpy; --help need not wait for it)

    look = Look(state, options)
    pause = interval if interval is not None else 2.0 if is_local(state) else 15.0
    if once:
        _print_once(look, as_json=as_json)
    elif as_json or not sys.stdout.isatty():
        _follow(look, pause, _json_line if as_json else _plain_line)
    else:
        _live(look, pause)


class Look:
    """Looks at a history, and reads it anew only where it changed.

    Args:
        state: URL.
        options: of its file system.
        clock: seconds, ascending.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        state: str,
        options: dict[str, Any] | None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        from seta_stream.cli.watching import View  # noqa: PLC0415  (numpy and rich, as above)
        from seta_stream.store import join, shown, store_for  # noqa: PLC0415  (likewise)

        self._url = join(state, "history.jsonl")
        self._store = store_for(self._url, options)
        self._version: object = None
        self._clock, self._wall = clock, wall
        self._came: float | None = None
        self.view: View = View.of(shown(state), [])
        self.trouble: str | None = None
        """Why the last look failed; None where it did not."""

    def again(self) -> bool:
        """Look; return whether there is something new.

        Raises:
            ReadError: nothing could be read, and nothing was before.
        """
        try:
            lines = self._changed()
        except SetaStreamError as error:
            if self._version is None:
                raise
            self.trouble = error.message
            return False
        self.trouble = None
        if lines is None:
            return False
        self._came = self._clock() - self._age()
        self.view = type(self.view).of(self.view.state, lines)
        return True

    @property
    def running_s(self) -> float | None:
        """Seconds since the last epoch was committed, as far as is known: since it was first seen, at a URL."""
        return None if self._came is None else self._clock() - self._came

    def _age(self) -> float:
        """Return how long ago the history was written, by the time of its file; 0 where that is not known."""
        told = getattr(self._version, "version", "")
        written = told.removeprefix("mtime:") if told.startswith("mtime:") else ""
        return max(0.0, self._wall() - int(written) / 1e9) if written.isdecimal() else 0.0

    def _changed(self) -> list[Any] | None:
        from seta_stream.losses.history import read_history  # noqa: PLC0415  (numpy, as above)
        from seta_stream.report.runfigures import usable_lines  # noqa: PLC0415  (likewise)

        if not self._store.exists(self._url):
            return None
        version = self._store.info(self._url)
        if version == self._version:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", SetaStreamWarning
            )  # a line that is being written is read with the next look
            history = read_history(self._store, self._url)
        self._version = version
        return usable_lines(history)


def _print_once(look: Look, *, as_json: bool) -> None:
    look.again()
    if not look.view.lines:
        raise StateError(
            f"There is nothing to watch in {look.view.state}: no epoch stands in its history.jsonl yet. Give the "
            "folder that was passed as state=, or watch without --once until its first epoch is committed."
        )
    if as_json:
        click.echo(_json_line(look.view))
        return
    from seta_stream.cli.screen import screen  # noqa: PLC0415  (rich: 100 ms that other commands need not pay)
    from seta_stream.cli.watching import drawn  # noqa: PLC0415  (likewise)

    console = screen()
    console.print(drawn(look.view, console.width))


def _json_line(view: View) -> str:
    from seta_stream.report.plain import finite  # noqa: PLC0415  (as above)

    return json.dumps(finite(view.to_plain()), allow_nan=False)


def _plain_line(view: View) -> str:
    from seta_stream.cli.watching import epoch_line  # noqa: PLC0415  (as above)

    return epoch_line(view.run.epochs[-1]) if view.run.epochs else f"{view.state}: losses from before epoch 0"


def _follow(look: Look, pause: float, tell: Callable[[View], str]) -> None:
    """Print a line for each new epoch, where nothing can be redrawn; of those before the first look, the last alone."""
    from seta_stream.cli.watching import WAITING  # noqa: PLC0415  (numpy and rich, as above)

    told: set[str] = set()
    is_told = False
    while True:
        if look.again():
            for view in _new_views(look.view, told):
                click.echo(tell(view))
            told.update(line["generation"] for line in look.view.lines)
            sys.stdout.flush()
        elif not look.view.lines and not is_told:
            is_told = True
            click.echo(f"{look.view.state}: {WAITING}", err=True)
        if look.view.progress.is_over:
            return
        time.sleep(pause)


def _new_views(view: View, told: set[str]) -> list[View]:
    """Return the run as of each epoch that was not told yet."""
    if not told:
        return [view] if view.lines else []
    new = [at for at, line in enumerate(view.lines) if line["generation"] not in told]
    return [type(view).of(view.state, view.lines[: at + 1]) for at in new]


def _live(look: Look, pause: float) -> None:
    from rich.live import Live  # noqa: PLC0415  (rich, as above)

    from seta_stream.cli.screen import screen  # noqa: PLC0415  (likewise)
    from seta_stream.cli.watching import drawn  # noqa: PLC0415  (likewise)

    console = screen()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            look.again()
            view = drawn(look.view, console.width, running_s=look.running_s, trouble=look.trouble)
            live.update(view, refresh=True)
            if look.view.progress.is_over:
                return
            time.sleep(pause)
