"""A progress bar over rows, on stderr where that is a terminal. Takes how many there are; draws."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def row_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar over rows; what is yielded moves it on by some.

    Args:
        title: before the bar.
        total: of the rows; None where nobody knows.
    """
    from rich.console import Console  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.progress import (  # noqa: PLC0415  (likewise)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        row = bar.add_task("", total=total)
        yield lambda count: bar.update(row, advance=count)
