"""The progress bar of indexing.

Takes what is to be scanned and what is done; draws on stderr. Acts, and alone of this room imports rich.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from seta_stream.corpus.building import Built, Task


@contextmanager
def index_bar(tasks: Sequence[Task]) -> Iterator[Callable[[Built], None]]:
    """Show a bar over the bytes of `tasks`; what is yielded moves it on by one shard that is done."""
    columns = (
        TextColumn("indexing"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[samples]:,} samples"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        row = progress.add_task("", total=sum(task.size for task in tasks), samples=0)
        samples = 0

        def advance(built: Built) -> None:
            nonlocal samples
            samples += built.header.samples
            progress.update(row, advance=built.task.size, samples=samples)

        yield advance
