"""The picture of a run: the losses of each epoch with the window that was kept, and the share kept per epoch.

Takes the lines of history.jsonl; effect: writes a PNG. Needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from seta_stream.errors import MissingExtraError, StateError
from seta_stream.report.distributions import Lines, LossAxis, density, is_over, keep_at
from seta_stream.report.lineage import epoch_shares, lineage_lines

MAX_RIDGES: Final = 14

_INK: Final = "#22303c"
_MUTED: Final = "#8794a0"
_DROPPED: Final = "#d5dbe1"
_KEPT: Final = "#1f77b4"
_RIDGE: Final = 0.86
"""Height of the highest place of each curve, where the curves are 1 apart: none reaches the next."""


def draw_history(history: Lines, path: str | Path) -> None:
    """Draw the run that the last line belongs to.

    Each ridge is the distribution of the losses that an epoch started from; what that epoch kept is filled in.

    Args:
        history: lines of history.jsonl, oldest first.
        path: of the PNG.

    Raises:
        StateError: no epoch was committed yet.
        MissingExtraError: matplotlib is not installed.
    """
    lines = [line for line in lineage_lines(history) if line["histogram"]["counts"]]
    if not lines:
        raise StateError(
            f"Cannot draw {path}: the history holds no losses yet. Finish an epoch with recorded losses first."
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (an extra, and slow to import)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Drawing needs matplotlib: pip install 'seta-stream[plot]', or leave out the picture."
        ) from error
    shown = [lines[at] for at in sorted({round(at) for at in np.linspace(0, len(lines) - 1, MAX_RIDGES)})]
    figure = Figure(figsize=(9.0, 3.8 + 0.5 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.6 + 0.5 * len(shown), 1.7])
    _draw_ridges(upper, shown)
    _draw_shares(lower, lineage_lines(history))
    figure.savefig(path, dpi=150, facecolor="white")


def _draw_ridges(axes: Any, lines: Lines) -> None:
    axis = LossAxis(lines)
    places = axis.places()
    for row, line in enumerate(lines):
        base = float(len(lines) - 1 - row)  # the first epoch at the top
        height = density(line, axis)
        height *= _RIDGE / max(height.max(), 1e-12)
        keep = np.zeros(len(places)) if is_over(line) else keep_at(line, axis.losses(places))
        axes.fill_between(places, base, base + height, color=_DROPPED, linewidth=0, zorder=row)
        for share in np.unique(keep[keep > 0]):
            # A step fills up to where the next one begins.
            filled = (keep == share) | np.concatenate([[False], keep[:-1] == share])
            axes.fill_between(places, base, base + height, where=filled, color=_blend(share), linewidth=0, zorder=row)
        axes.plot(places, base + height, color=_INK, linewidth=0.8, zorder=row)
        expected = line.get("expected_share")
        told = "" if expected is None or is_over(line) else f"keeps {100 * expected:.0f} %"
        axes.annotate(
            told, (1.005, base + 0.12), xycoords=("axes fraction", "data"), color=_KEPT, fontsize=9, va="center"
        )
    axes.set_yticks(range(len(lines)), _labels(lines)[::-1])
    axes.set_ylim(-0.15, len(lines) - 1 + _RIDGE + 0.1)
    axes.set_xlim(places[0], places[-1])
    _label(axis, axes)
    axes.set_title(
        "Losses before each epoch, and the window of them that it kept", loc="left", color=_INK, fontsize=12, pad=26
    )
    _legend(axes)
    _clean(axes, left=False)


def _labels(lines: Lines) -> list[str]:
    """Return what each ridge is called; the last is of an epoch that has not run."""
    labels = [f"epoch {line['epoch'] + 1}" for line in lines]
    labels[-1] = "at the end" if is_over(lines[-1]) else f"next: {lines[-1]['epoch'] + 1}"
    return labels


def _blend(share: float) -> tuple[float, float, float]:
    """Return the colour between left out and kept."""
    ends = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in (_DROPPED, _KEPT)])
    red, green, blue = ends[0] + share * (ends[1] - ends[0])
    return float(red), float(green), float(blue)


def _legend(axes: Any) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415  (an extra)

    patches = [
        Patch(color=_KEPT, label="kept"),
        Patch(color=_blend(0.5), label="kept in part, by chance"),
        Patch(color=_DROPPED, label="left out"),
    ]
    axes.legend(
        handles=patches, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, frameon=False, fontsize=9,
        handlelength=1.2, columnspacing=1.4, labelcolor=_INK,
    )  # fmt: skip


def _draw_shares(axes: Any, lines: Lines) -> None:
    epochs = np.array([line["epoch"] for line in lines])
    known = epoch_shares(lines)
    shares = np.array([np.nan if share is None else share for share in known])
    axes.bar(epochs, np.ones(len(epochs)), color=_DROPPED, width=0.82)
    axes.bar(epochs, np.nan_to_num(shares), color=_KEPT, width=0.82)
    if np.isfinite(shares).any():
        mean = float(np.nanmean(shares))
        axes.axhline(mean, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{100 * mean:.0f} % of all\nvisits so far", (1.005, mean), xycoords=("axes fraction", "data"), color=_INK,
            fontsize=9, va="center",
        )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_xlim(epochs.min() - 0.6, epochs.max() + 0.6)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch", color=_INK)
    axes.set_ylabel("share of samples", color=_INK)
    axes.set_title("Share of the samples that each epoch read", loc="left", color=_INK, fontsize=12)
    _clean(axes, left=True)


def _clean(axes: Any, *, left: bool) -> None:
    for side in ("top", "right") if left else ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=9, length=3 if left else 0)


def _label(axis: LossAxis, axes: Any) -> None:
    """Name the axis; powers of ten where it is logarithmic."""
    axes.set_xlabel(f"loss per sample, as recorded{' (log scale)' if axis.is_log else ''}", color=_INK)
    if axis.is_log:
        axes.xaxis.set_major_locator(_integers())
        axes.xaxis.set_major_formatter(lambda place, _: f"$10^{{{place:.0f}}}$")


def _integers() -> Any:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  (an extra)

    return MaxNLocator(integer=True)
