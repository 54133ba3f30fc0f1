"""Progress bars, on stderr where that is a terminal.

Takes what is to be done and what is done; draws. Acts, and alone of this room imports rich.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from seta_stream.corpus import building

WIDE: Final = 100
"""Columns from which on a bar is long and tells the time that has passed; in 80 there is no room for these."""


class _Rate(ProgressColumn):
    """Items, or bytes, per second."""

    def __init__(self, *, is_bytes: bool) -> None:
        super().__init__()
        self._is_bytes = is_bytes

    def render(self, task: Task) -> Text:
        """Return it; nothing while it is not known."""
        if not task.speed:
            return Text("")
        return Text(f"{task.speed / (1 << 20):,.1f} MiB/s" if self._is_bytes else f"{task.speed:,.0f}/s")


@contextmanager
def bar(
    title: str, total: int | None = None, *, unit: Literal["items", "bytes"] = "items", **told: str
) -> Iterator[Callable[..., None]]:
    """Show a bar; what is yielded takes `advance=`, or `completed=` and `total=`, and the texts of `told` anew.

    Args:
        title: before it.
        total: of what is counted; None where nobody knows yet.
        unit: what is counted.
        told: texts after it, by name.
    """
    console = Console(stderr=True)
    is_wide, is_bytes = console.width >= WIDE, unit == "bytes"
    columns = (
        TextColumn(title),
        BarColumn(20 if is_wide else 8),
        DownloadColumn(binary_units=True) if is_bytes else MofNCompleteColumn(),
        _Rate(is_bytes=is_bytes),
        *(TextColumn(f"{{task.fields[{name}]}}") for name in told),
        *((TimeElapsedColumn(),) if is_wide else ()),
        TimeRemainingColumn(),
    )
    # FORCE_COLOR makes rich take anything for a terminal; a log wants no bars even so.
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as drawn:
        row = drawn.add_task("", total=total, **told)  # type: ignore[arg-type]  # its other keywords are no texts
        yield lambda **changes: drawn.update(row, **changes)


@contextmanager
def index_bar(tasks: Sequence[building.Task]) -> Iterator[Callable[[building.Built], None]]:
    """Show a bar over the bytes of `tasks`; what is yielded moves it on by one shard that is done."""
    shards = samples = 0
    with bar("indexing", sum(task.size for task in tasks), unit="bytes", done="") as move:

        def advance(built: building.Built) -> None:
            nonlocal shards, samples
            shards += 1
            samples += built.header.samples
            move(advance=built.task.size, done=f"{shards:,} shards, {samples:,} samples")

        yield advance
