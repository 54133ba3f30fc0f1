"""The progress bar of indexing.

Takes what is to be scanned and what is done; draws on stderr. Acts, and alone of this room imports rich.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from seta_stream.corpus.building import Built, Task


@contextmanager
def index_bar(tasks: Sequence[Task]) -> Iterator[Callable[[Built], None]]:
    """Show a bar over the bytes of `tasks`; what is yielded moves it on by one shard that is done."""
    columns = (
        TextColumn("indexing"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[shards]:,} shards, {task.fields[samples]:,} samples"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        row = progress.add_task("", total=sum(task.size for task in tasks), shards=0, samples=0)
        shards = samples = 0

        def advance(built: Built) -> None:
            nonlocal shards, samples
            shards += 1
            samples += built.header.samples
            progress.update(row, advance=built.task.size, shards=shards, samples=samples)

        yield advance
