"""What `seta-stream watch` shows: a table per epoch, curves in a line, and how long the rest will take.

Takes lines of a history; gives what rich draws, and plain values. Acts by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seta_stream.cli.numbers import told_bytes, told_share
from seta_stream.cli.screen import gauge, grid
from seta_stream.report.html_text import duration
from seta_stream.report.prices import STORES
from seta_stream.report.progress import Progress, progress_of
from seta_stream.report.runfigures import Costs, EpochRow, RunFigures, drawable, figures_of
from seta_stream.visible import visible

BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDE: Final = 48
"""Columns of a curve, where there is room."""
BESIDE: Final = 62
"""Columns of what stands beside it."""
WAITING: Final = "No epoch is committed there yet: waiting for the first. Is it the folder that was passed as state=?"
SHOWN_EPOCHS: Final = 12
SPARED: Final = ("requests", "expected", "waited", "seen", "took", "fetched")
"""Columns of the table that are left out, one by one, where there is no room."""


@dataclass(frozen=True)
class View:
    """What is known of a run while it is watched.

    Args:
        state: URL, as it may be shown.
        lines: of its history, oldest first.
        run: its numbers.
        progress: how far it is.
    """

    state: str
    lines: Sequence[Mapping[str, Any]]
    run: RunFigures
    progress: Progress

    @classmethod
    def of(cls, state: str, lines: Sequence[Mapping[str, Any]]) -> View:
        """Return what lines tell."""
        run = figures_of(lines, Costs(STORES["none"]))
        return cls(state, lines, run, progress_of(run, lines))

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        last = asdict(self.run.epochs[-1]) if self.run.epochs else None
        return {
            "state": self.state,
            "policy": self.run.policy,
            "saved_share": self.run.saved_share,
            "progress": self.progress.to_plain(),
            "last_epoch": last,
        }


def drawn(view: View, width: int, *, running_s: float | None = None, trouble: str | None = None) -> RenderableType:
    """Return the whole view.

    Args:
        view: what is known.
        width: columns that there are.
        running_s: seconds since the last epoch was committed; None where nobody knows.
        trouble: why the last look failed.
    """
    parts: list[RenderableType] = [_head(view)]
    if view.run.epochs:
        parts += [_curves(view, width), _table(view.run, width)]
    parts.append(Text(_ahead(view, running_s), style="bold"))
    if trouble is not None:
        parts.append(Text(f"The last look failed, and the next one may not: {visible(trouble, 300)}", style="yellow"))
    return Group(*parts)


def epoch_line(one: EpochRow) -> str:
    """Return an epoch in one line, for where nothing can be redrawn."""
    mean = "" if one.mean is None else f", mean loss {one.mean:.4g}"
    return (
        f"epoch {one.epoch}: kept {told_share(one.kept)}, seen {told_share(_seen(one))}{mean}, "
        f"{told_bytes(one.bytes_fetched)} fetched, waited {_time(one.wait_s)} of {_time(one.seconds)}"
    )


def sparkline(values: Sequence[float | None], width: int = WIDE) -> str:
    """Return a curve as one line of text; a gap where a value is not known; the latest `width` values."""
    shown = list(values)[-width:]
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = len(BLOCKS) - 1
    return "".join(
        " " if value is None else BLOCKS[round(steps * (value - low) / (high - low)) if high > low else steps // 2]
        for value in shown
    )


def spread_line(line: Mapping[str, Any], width: int = WIDE) -> tuple[str, float, float]:
    """Return an epoch's losses as one line of text, and the 1 % and 99 % losses between which it lies."""
    edges = np.asarray(line["histogram"]["edges"], np.float64)
    counts = np.asarray(line["histogram"]["counts"], np.float64)
    reached = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    low, high = np.interp([0.01, 0.99], reached, edges)
    places = np.linspace(low, high, width + 1) if high > low else np.array([low, low])
    return sparkline(np.diff(np.interp(places, edges, reached)).tolist(), width), float(low), float(high)


def _seen(one: EpochRow) -> float | None:
    return one.seen / one.samples if one.samples else None


def _head(view: View) -> Text:
    head = Text(visible(view.state), style="bold")
    if view.run.policy is not None:
        head.append(f"\n{visible(view.run.policy, 200)}", style="dim")
    return head


def _curves(view: View, width: int) -> Table:
    lines = Table.grid(padding=(0, 2))
    wide = min(WIDE, max(8, width - BESIDE))
    means = [one.mean for one in view.run.epochs]
    known = [mean for mean in means if mean is not None]
    if known:
        lines.add_row("mean loss", Text(sparkline(means, wide), style="blue"), f"{known[0]:.4g} → {known[-1]:.4g}")
    kept = [one.kept for one in view.run.epochs]
    if any(share is not None for share in kept):
        told = f"{told_share(kept[-1])} now; {told_share(view.run.saved_share)} of all visits saved so far"
        lines.add_row("kept", Text(sparkline(kept, wide), style="blue"), told)
    drawable_lines = drawable(view.lines[-1:])
    if drawable_lines:
        curve, low, high = spread_line(drawable_lines[0], wide)
        lines.add_row("losses now", Text(curve, style="blue"), f"{low:.4g} … {high:.4g}")
    return lines


def _table(run: RunFigures, width: int) -> Table:
    rows = run.epochs[-SHOWN_EPOCHS:]
    left_out = f", the last {len(rows)} of {len(run.epochs)}" if len(rows) < len(run.epochs) else ""
    columns = {
        "epoch": [str(one.epoch) for one in rows],
        "kept": [gauge(one.kept, 8) or "–" for one in rows],
        "expected": [told_share(one.expected) for one in rows],
        "seen": [told_share(_seen(one)) for one in rows],
        "mean loss": ["–" if one.mean is None else f"{one.mean:.4g}" for one in rows],
        "fetched": [told_bytes(one.bytes_fetched) for one in rows],
        "requests": ["–" if one.requests is None else f"{one.requests:,.0f}" for one in rows],
        "waited": [_time(one.wait_s) for one in rows],
        "took": [_time(one.seconds) for one in rows],
    }
    for spared in SPARED:
        # The table puts three columns around each of its own.
        if sum(3 + max(map(cell_len, (head, *map(_unmarked, cells)))) for head, cells in columns.items()) < width:
            break
        del columns[spared]
    table = grid(f"Epochs{left_out}", *columns)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _unmarked(cell: str) -> str:
    return Text.from_markup(cell).plain


def _time(seconds: float | None) -> str:
    return duration(seconds).replace("\u00a0", " ")


def _ahead(view: View, running_s: float | None) -> str:
    """Say what runs now, and how long the rest will take."""
    progress = view.progress
    if progress.is_over:
        took = _time(view.run.total("seconds"))
        return f"The last of {progress.planned} planned epochs is done; they took {took}."
    if not view.lines:
        return WAITING
    told = f"Epoch {progress.next_epoch}"
    if progress.planned is not None:
        told += f" of {progress.planned}"
    if progress.next_share is not None:
        told += f" keeps {told_share(progress.next_share)}"
    if running_s is not None:
        told += f"; {_time(running_s)} since the last commit"
    if progress.next_seconds is not None:
        told += f", it takes about {_time(progress.next_seconds)}"
    if progress.left_seconds is not None:
        left = max(progress.left_seconds - (running_s or 0.0), 0.0)
        told += f"; about {_time(left)} to the end"
    return f"{told}."
