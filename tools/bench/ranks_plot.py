"""The simulated figures as a picture: what a rank spends, holds and exchanges, over samples; a line per ranks.

Takes the figures of ranks.py; effect: writes a PNG. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ranks import exchange_s, own_s, peak_bytes, setting, total
from ranks_rig import Case

PANELS: dict[str, tuple[str, Callable[[Any], float], float | None]] = {
    "Setting an epoch": ("CPU and exchange, s", lambda one: own_s(setting(one)) + exchange_s(setting(one)), 10),
    "Memory": ("peak above imports, MB", lambda one: peak_bytes(one) / 1e6, 2000),
    "Exchanged per epoch": ("received, MB", lambda one: total(setting(one), "received") / 1e6, None),
}
"""Title → axis, value, and the bound for a billion samples at 64 ranks."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")


def draw(path: Path, found: dict[Case, Any]) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    every = sorted({case.ranks for case in found})
    ticks = sorted({case.samples / 1e6 for case in found})
    for axes, (title, (label, value, bound)) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for ranks, marker, color in zip(every, "os^Dv", COLORS, strict=False):
            cases = sorted((case for case in found if case.ranks == ranks), key=lambda case: case.samples)
            # One process exchanges nothing, which a logarithm does not show.
            points = [(case.samples / 1e6, value(found[case])) for case in cases if value(found[case])]
            name = f"{ranks:,} rank{'s' if ranks > 1 else ''}"
            axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, color=color, label=name)
        if bound is not None:
            axes.axhline(bound, color="0.5", linestyle=":", linewidth=1)
            place = {"xy": (1, bound), "xycoords": ("axes fraction", "data"), "ha": "right"}
            text = f"{bound:,g}: to hold at 1B, 64"
            axes.annotate(text, xytext=(-2, 3), textcoords="offset points", color="0.35", fontsize=8, **place)
        axes.set(xscale="log", yscale="log", title=title, xlabel="million samples", ylabel=label)
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
