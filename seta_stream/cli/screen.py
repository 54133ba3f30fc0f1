"""What a command draws on stdout; its bars are corpus.bar's.

Takes texts and numbers; draws. rich follows NO_COLOR, FORCE_COLOR, TERM=dumb and COLUMNS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from seta_stream.corpus.bar import bar

PIPE_WIDTH: Final = 110
"""Columns where nobody can say how wide the reader's window is."""


class _Console(Console):
    """A console that lets a closed pipe be told as what it is."""

    def on_broken_pipe(self) -> None:
        """Pass on what rich would end the program for, with an exit code that says that it failed."""
        raise  # noqa: PLE0704  (rich calls this where it handles the error)


class Shards(Protocol):
    """How far work on shards is."""

    @property
    def shards_done(self) -> int:
        """Shards that are done."""

    @property
    def shards(self) -> int:
        """All of them."""

    @property
    def bytes_done(self) -> int:
        """Bytes that are done."""

    @property
    def bytes(self) -> int:
        """All of them."""


def screen() -> Console:
    """Return what draws on stdout: as wide as the terminal, or as PIPE_WIDTH; numbers are not coloured."""
    return _Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def grid(title: str, *columns: str) -> Table:
    """Return an empty table: the first column of words, which folds where there is no room, the others of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for at, column in enumerate(columns):
        options: dict[str, Any] = (
            {"justify": "left", "overflow": "fold"} if at == 0 else {"justify": "right", "no_wrap": True}
        )
        table.add_column(column, **options)
    return table


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and what they are."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, figure in rows:
        table.add_row(name, figure)
    return table


def gauge(share: float | None, width: int = 10) -> str:
    """Return a share as a bar and in percent."""
    if share is None:
        return ""
    filled = round(width * share)
    return f"[blue]{'█' * filled}[/blue][dim]{'·' * (width - filled)}[/dim] {share:6.1%}"


@contextmanager
def shard_bar(title: str) -> Iterator[Callable[[Shards], None]]:
    """Show a bar over the bytes of shards; what is yielded takes how far the work is."""
    with bar(title, unit="bytes", shards="") as advance:
        yield lambda progress: advance(
            completed=progress.bytes_done,
            total=progress.bytes,
            shards=f"{progress.shards_done:,} of {progress.shards:,} shards",
        )


__all__ = ["PIPE_WIDTH", "bar", "facts", "gauge", "grid", "screen", "shard_bar"]
