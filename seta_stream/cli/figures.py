"""The tables of `seta-stream simulate`. Takes a simulation; prints on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from seta_stream.cli.scenario import Task
    from seta_stream.report.outcome import PolicyFigures, Simulation

SHOWN_EPOCHS: Final = 8
PIPE_WIDTH: Final = 110
"""Columns where nobody can say how wide the reader's window is."""


def print_simulation(simulation: Simulation, task: Task) -> None:
    """Print totals, epochs, the run's own figures beside the replayed ones, and every assumption."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    console.print(
        f"[bold]Simulated:[/bold] {escape(task.source)}; {simulation.epochs} epochs of {simulation.samples:,} samples "
        f"in {simulation.shards:,} shards; {simulation.simulated:,} samples of {simulation.simulated_shards:,} shards "
        "stand for them"
    )
    console.print(_samples(simulation))
    console.print(_reading(simulation))
    for policy in simulation.policies:
        if policy.stopped is not None:
            console.print(f"[bold]{escape(policy.label)}[/bold] stopped at {escape(policy.stopped)}")
    told = _beside_recorded(simulation, task)
    if told:
        console.print(told)
    for policy in simulation.policies:
        if policy.epochs:
            console.print(_epochs(policy, simulation))
    console.print("[bold]Assumed[/bold]")
    for line in task.assumptions:
        console.print(f"- {escape(line)}", soft_wrap=False)


def _samples(simulation: Simulation) -> Table:
    table = _grid("Samples", "policy", "nominal", "saved", "unique", "stale", "oldest")
    for policy in (simulation.full, *simulation.policies):
        table.add_row(
            escape(policy.label),
            "–" if policy.nominal_saved is None else f"{policy.nominal_saved:.1%}",
            f"{policy.saved:.1%}",
            f"{policy.unique_share:.1%}",
            f"{policy.staleness:.2f}",
            f"{policy.oldest}",
            style="dim" if policy.stopped else None,
        )
    return table


def _reading(simulation: Simulation) -> Table:
    has_price = bool(simulation.price)
    names = ("policy", "bytes", "of all", "requests", "of all", *(("cost", "saved") if has_price else ()))
    table = _grid("Reading", *names)
    for policy in (simulation.full, *simulation.policies):
        cells = [
            escape(policy.label),
            told_bytes(policy.total("bytes")),
            f"{1 - simulation.saved_of(policy, 'bytes'):.1%}",
            f"{policy.total('requests'):,.0f}",
            _times(1 - simulation.saved_of(policy, "requests")),
        ]
        if has_price:
            cost = policy.total("money")
            cells += [told_money(cost), told_money(simulation.whole_of(policy, "money") - cost)]
        table.add_row(*cells, style="dim" if policy.stopped else None)
    return table


def _beside_recorded(simulation: Simulation, task: Task) -> str:
    """Tell what the run really read beside what its replay says."""
    own = next((one for one in simulation.policies if one.label == task.own), None)
    if own is None or task.recorded is None:
        return ""
    by_epoch = {one.epoch: one for one in own.epochs}
    visits = [one for one in task.recorded.visits if one["epoch"] in by_epoch and one["share"] is not None]
    if not visits:
        return ""
    replayed = [by_epoch[one["epoch"]] for one in visits]
    kept = sum(one["share"] for one in visits) / len(visits)
    told = [f"kept {kept:.1%} (replayed {sum(one.share for one in replayed) / len(visits):.1%})"]
    for name, tell in (("bytes", told_bytes), ("requests", lambda value: f"{value:,.0f} requests")):
        known = [one[name] for one in visits]
        if all(value is not None for value in known):
            told.append(f"{tell(sum(known))} ({tell(sum(getattr(one, name) for one in replayed))})")
    return f"[bold]The run itself[/bold], over {len(visits)} epochs: {', '.join(told)}"


def _epochs(policy: PolicyFigures, simulation: Simulation) -> Table:
    places = sorted({round(at) for at in np.linspace(0, len(policy.epochs) - 1, SHOWN_EPOCHS)})
    left_out = f" ({len(places)} of {len(policy.epochs)} epochs)" if len(places) < len(policy.epochs) else ""
    names = ["epoch", "kept", "unique so far", "stale", "oldest", "bytes", "requests"]
    table = _grid(f"{escape(policy.label)}{left_out}", *names, *(("cost",) if simulation.price else ()))
    for one in (policy.epochs[place] for place in places):
        cells = [
            str(one.epoch),
            f"{one.share:.1%}",
            f"{one.unique_share:.1%}",
            f"{one.staleness:.2f}",
            str(one.oldest),
            told_bytes(one.bytes),
            f"{one.requests:,.0f}",
        ]
        table.add_row(*cells, *((told_money(one.money),) if simulation.price else ()))
    return table


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for at, column in enumerate(columns):
        options: dict[str, Any] = (
            {"justify": "left", "overflow": "fold"} if at == 0 else {"justify": "right", "no_wrap": True}
        )
        table.add_column(column, **options)
    return table


def told_bytes(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def told_money(dollars: float) -> str:
    """Return an amount of money, small ones with the digits that tell something."""
    sign = "−" if dollars < 0 else ""
    amount = abs(dollars)
    return f"{sign}${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{sign}${amount:.3g}"


def _times(share: float) -> str:
    return f"{share:.1%}" if share < 2 else f"{share:,.1f} ×"
