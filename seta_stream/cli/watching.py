"""What `seta-stream watch` shows: a table per epoch, curves in a line, and how long the rest will take.

Takes lines of a history; gives what rich draws, and plain values. Acts by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seta_stream.report.html_text import duration, percent, size, visible
from seta_stream.report.prices import STORES
from seta_stream.report.progress import Progress, progress_of
from seta_stream.report.runfigures import Costs, EpochRow, RunFigures, drawable, figures_of

BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDE: Final = 48
"""Columns of a curve."""
SHOWN_EPOCHS: Final = 12


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


def drawn(view: View, *, running_s: float | None = None, trouble: str | None = None) -> RenderableType:
    """Return the whole view.

    Args:
        view: what is known.
        running_s: seconds since the last epoch was committed; None where nobody knows.
        trouble: why the last look failed.
    """
    parts: list[RenderableType] = [_head(view)]
    if view.run.epochs:
        parts += [_curves(view), _table(view.run)]
    parts.append(Text(_ahead(view, running_s), style="bold"))
    if trouble is not None:
        parts.append(Text(f"The last look failed, and the next one may not: {visible(trouble, 300)}", style="yellow"))
    return Group(*parts)


def epoch_line(one: EpochRow) -> str:
    """Return an epoch in one line, for where nothing can be redrawn."""
    mean = "" if one.mean is None else f", mean loss {one.mean:.4g}"
    return (
        f"epoch {one.epoch}: kept {percent(one.kept, 1)}, seen {percent(_seen(one), 1)}{mean}, "
        f"{size(one.bytes_fetched)} fetched, waited {duration(one.wait_s)} of {duration(one.seconds)}"
    ).replace("\u00a0", " ")


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


def _curves(view: View) -> Table:
    grid = Table.grid(padding=(0, 2))
    means = [one.mean for one in view.run.epochs]
    known = [mean for mean in means if mean is not None]
    if known:
        grid.add_row("mean loss", Text(sparkline(means), style="blue"), f"{known[0]:.4g} → {known[-1]:.4g}")
    kept = [one.kept for one in view.run.epochs]
    if any(share is not None for share in kept):
        last = percent(kept[-1], 1)
        saved = percent(view.run.saved_share, 1)
        grid.add_row("kept", Text(sparkline(kept), style="blue"), f"{last} now; {saved} of all visits saved so far")
    drawable_lines = drawable(view.lines[-1:])
    if drawable_lines:
        curve, low, high = spread_line(drawable_lines[0])
        grid.add_row("losses now", Text(curve, style="blue"), f"{low:.4g} … {high:.4g}")
    return grid


def _table(run: RunFigures) -> Table:
    rows = run.epochs[-SHOWN_EPOCHS:]
    left_out = f", the last {len(rows)} of {len(run.epochs)}" if len(rows) < len(run.epochs) else ""
    table = Table(title=f"Epochs{left_out}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    heads = ("epoch", "kept", "expected", "seen", "mean loss", "fetched", "requests", "waited", "took")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for one in rows:
        mean = "–" if one.mean is None else f"{one.mean:.4g}"
        requests = "–" if one.requests is None else f"{one.requests:,.0f}"
        table.add_row(
            str(one.epoch), _bar(one.kept), percent(one.expected, 1), percent(_seen(one), 1), mean,
            size(one.bytes_fetched), requests, duration(one.wait_s), duration(one.seconds),
        )  # fmt: skip
    return table


def _bar(share: float | None) -> str:
    if share is None:
        return "–"
    filled = round(8 * share)
    return f"[blue]{'█' * filled}[/blue][dim]{'·' * (8 - filled)}[/dim] {escape(f'{100 * share:5.1f} %')}"


def _ahead(view: View, running_s: float | None) -> str:
    """Say what runs now, and how long the rest will take."""
    progress = view.progress
    if progress.is_over:
        took = duration(view.run.total("seconds"))
        return f"The last of {progress.planned} planned epochs is done; they took {took}.".replace("\u00a0", " ")
    told = f"Epoch {progress.next_epoch}"
    if progress.planned is not None:
        told += f" of {progress.planned}"
    if progress.next_share is not None:
        told += f" keeps {percent(progress.next_share, 1)}"
    if running_s is not None:
        told += f"; {duration(running_s)} since the last commit"
    if progress.next_seconds is not None:
        told += f", it takes about {duration(progress.next_seconds)}"
    if progress.left_seconds is not None:
        left = max(progress.left_seconds - (running_s or 0.0), 0.0)
        told += f"; about {duration(left)} to the end"
    return f"{told}.".replace("\u00a0", " ")
