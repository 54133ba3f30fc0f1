"""The tables of `seta-stream simulate`. Takes a simulation; prints on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.markup import escape
from rich.table import Table

from seta_stream.cli.numbers import told_bytes, told_money
from seta_stream.cli.screen import grid, screen
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.cli.scenario import Task
    from seta_stream.report.outcome import PolicyFigures, Simulation

SHOWN_EPOCHS: Final = 8


def print_simulation(simulation: Simulation, task: Task) -> None:
    """Print totals, epochs, the run's own figures beside the replayed ones, and every assumption."""
    console = screen()
    console.print(
        f"[bold]Simulated:[/bold] {escape(visible(task.source))}; {simulation.epochs} epochs of "
        f"{simulation.samples:,} samples in {simulation.shards:,} shards; {simulation.simulated:,} samples of "
        f"{simulation.simulated_shards:,} shards stand for them"
    )
    console.print(_samples(simulation))
    console.print(_reading(simulation))
    for policy in simulation.policies:
        if policy.stopped is not None:
            console.print(f"[bold]{escape(visible(policy.label))}[/bold] stopped at {escape(visible(policy.stopped))}")
    told = _beside_recorded(simulation, task)
    if told:
        console.print(told)
    for policy in simulation.policies:
        if policy.epochs:
            console.print(_epochs(policy, simulation))
    console.print("[bold]Assumed[/bold]")
    for line in task.assumptions:
        console.print(f"- {escape(visible(line))}", soft_wrap=not sys.stdout.isatty())


def _samples(simulation: Simulation) -> Table:
    table = grid("Samples", "policy", "nominal", "saved", "unique", "stale", "oldest")
    for policy in (simulation.full, *simulation.policies):
        table.add_row(
            escape(visible(policy.label)),
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
    table = grid("Reading", *names)
    for policy in (simulation.full, *simulation.policies):
        cells = [
            escape(visible(policy.label)),
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
    table = grid(f"{escape(visible(policy.label))}{left_out}", *names, *(("cost",) if simulation.price else ()))
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


def _times(share: float) -> str:
    return f"{share:.1%}" if share < 2 else f"{share:,.1f} ×"
