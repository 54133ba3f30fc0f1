"""The picture of a simulation: one panel per figure, one line per policy.

Takes a simulation; effect: writes a PNG. Needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from seta_stream.errors import MissingExtraError, StateError

if TYPE_CHECKING:
    from seta_stream.report.outcome import PolicyFigures, Simulation

_INK: Final = "#22303c"
_MUTED: Final = "#8794a0"
# Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that is pale on white; styles tell
# them apart in print and where there are more policies than colours.
_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_STYLES: Final = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))
_EVERYTHING: Final = "#8794a0"
_LABEL: Final = 44
"""Longest label in the legend."""

_SIZES: Final = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes"))
_COUNTS: Final = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1.0, ""))
_LINE: Final = 0.24
"""Inches of the legend's height per line."""


def draw_simulation(simulation: Simulation, path: str | Path) -> None:
    """Draw the epochs of every policy: share kept, unique samples, staleness; and bytes, requests, money so far.

    Args:
        simulation: what was simulated.
        path: of the PNG.

    Raises:
        StateError: no policy came through any epoch.
        MissingExtraError: matplotlib is not installed.
    """
    policies = [one for one in simulation.policies if one.epochs]
    if not policies:
        raise StateError(f"Cannot draw {path}: no policy came through an epoch. Simulate one that selects something.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (an extra, and slow to import)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Drawing needs matplotlib: pip install 'seta-stream[plot]', or leave out the picture."
        ) from error
    lines = -(-(len(policies) + 1) // 3)
    figure = Figure(figsize=(12.0, 6.6 + _LINE * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    _shares(panels[0][0], policies)
    _unique(panels[0][1], policies)
    _staleness(panels[0][2], policies)
    _so_far(panels[1][0], simulation, policies, "bytes", _SIZES)
    _so_far(panels[1][1], simulation, policies, "requests", _COUNTS)
    if simulation.price:
        _so_far(panels[1][2], simulation, policies, "money", ((1.0, "US dollars"),))
    else:
        _saved(panels[1][2], simulation, policies)
    handles, labels = panels[1][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, labelcolor=_INK,
        handlelength=3.2, columnspacing=2.0,
    )  # fmt: skip
    figure.savefig(path, dpi=150, facecolor="white")


def _shares(axes: Any, policies: Sequence[PolicyFigures]) -> None:
    _draw(axes, policies, lambda one: one.share)
    _percent(axes)
    _finish(axes, "Share of the samples that an epoch reads")


def _unique(axes: Any, policies: Sequence[PolicyFigures]) -> None:
    _draw(axes, policies, lambda one: one.unique_share)
    _percent(axes)
    _finish(axes, "Share of the samples read at least once so far")


def _staleness(axes: Any, policies: Sequence[PolicyFigures]) -> None:
    _draw(axes, policies, lambda one: one.staleness)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("epochs", color=_INK)
    _finish(axes, "Mean epochs since a sample was last read")


def _so_far(
    axes: Any,
    simulation: Simulation,
    policies: Sequence[PolicyFigures],
    name: str,
    units: Sequence[tuple[float, str]],
) -> None:
    """Draw the running sum of a figure, that of reading everything beside."""
    sums = [np.cumsum([getattr(one, name) for one in policy.epochs]) for policy in (simulation.full, *policies)]
    highest = max(float(one[-1]) for one in sums)
    scale, unit = next(((size, told) for size, told in units if highest >= size), units[-1])
    axes.plot(_epochs(simulation.full), sums[0] / scale, color=_EVERYTHING, linewidth=2.6, label="reading everything")
    for number, (policy, running) in enumerate(zip(policies, sums[1:], strict=True)):
        axes.plot(_epochs(policy), running / scale, label=_short(policy.label), **_look(number))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit, color=_INK)
    what = {"bytes": "Bytes read so far", "requests": "Requests so far", "money": "Price of reading so far"}[name]
    _finish(axes, what)


def _saved(axes: Any, simulation: Simulation, policies: Sequence[PolicyFigures]) -> None:
    """Draw, where there is no price, the share of the bytes saved so far."""
    whole = np.cumsum([one.bytes for one in simulation.full.epochs])
    for number, policy in enumerate(policies):
        running = np.cumsum([one.bytes for one in policy.epochs])
        axes.plot(_epochs(policy), 1 - running / whole[: len(running)], **_look(number))
    axes.axhline(0, color=_EVERYTHING, linewidth=2.6, zorder=1)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    _finish(axes, "Share of the bytes saved so far")


def _draw(axes: Any, policies: Sequence[PolicyFigures], value: Callable[[Any], float]) -> None:
    for number, policy in enumerate(policies):
        axes.plot(_epochs(policy), [value(one) for one in policy.epochs], **_look(number))


def _look(number: int) -> dict[str, Any]:
    """Return a line's colour and style; markers too, so that a single epoch is seen."""
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "linewidth": 1.9,
        "marker": "osD^vPX*"[number % 8],
        "markersize": 3.6,
        "markevery": 0.17,
    }


def _epochs(policy: PolicyFigures) -> list[int]:
    return [one.epoch for one in policy.epochs]


def _percent(axes: Any) -> None:
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    axes.set_xlabel("epoch", color=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=_MUTED, alpha=0.25, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=9, length=3)
