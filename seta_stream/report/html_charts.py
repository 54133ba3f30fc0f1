"""Charts as HTML and SVG, that fit any width: shapes stretch, words stay words.

Takes numbers; gives HTML. Pure. Every chart is one element that can be focused, with a sentence that says what it
shows, and stands in a figure whose table holds the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.report.distributions import LossAxis, density, is_over, keep_at
from seta_stream.report.html_text import attribute, details, loss, percent
from seta_stream.report.runfigures import number

RIDGES: Final = 16
FEWEST_SLOTS: Final = 6
"""A chart of fewer epochs leaves place free, so that one epoch is no wall."""

_WIDTH: Final = 200
_HEIGHT: Final = 100

Maybe = Sequence[float | None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bars:
    """A bar per epoch.

    Args:
        labels: of the epochs.
        values: of the bars; None leaves a gap.
        backs: of paler bars behind them; None for none.
        marks: of a short line across each bar; None for none.
        level: of one line across all; None for none.
        top: of the axis.
        tell: a value as text, for the axis.
    """

    labels: Sequence[str]
    values: Maybe
    top: float
    tell: Callable[[float], str]
    backs: Maybe | None = None
    marks: Maybe | None = None
    level: float | None = None


def figure(identifier: str, title: str, chart: str, *, says: str, legend: str = "", table: str = "") -> str:
    """Return a chart with its title, what it says, and its numbers.

    Args:
        identifier: of the figure's heading.
        title: our own words.
        chart: from `bars`, `ridges` or `fan`.
        says: one sentence or two, finished HTML.
        legend: from `legend_of`.
        table: the same numbers.
    """
    numbers = details(f'Numbers<span class="hidden"> of {title}</span>', table) if table else ""
    return (
        f'<figure aria-labelledby="{identifier}"><figcaption><h3 id="{identifier}">{title}</h3><p>{says}</p>'
        f'</figcaption>{legend}{chart}<output aria-live="polite"></output>{numbers}</figure>'
    )


def legend_of(*marks: tuple[str, str]) -> str:
    """Return what the colours mean: (class of the mark, words) each."""
    items = "".join(f'<li><span class="mark {kind}" aria-hidden="true"></span>{words}</li>' for kind, words in marks)
    return f'<ul class="legend">{items}</ul>'


def bars(chart: Bars, *, says: str) -> str:
    """Return a bar per epoch."""
    slots = max(len(chart.labels), FEWEST_SLOTS)
    top = chart.top if chart.top > 0 else 1.0
    parts = []
    for kind, values in (("back", chart.backs), ("kept", chart.values)):
        for at, value in enumerate(values or ()):
            if value is not None:
                height = _HEIGHT * min(max(value / top, 0.0), 1.0)
                parts.append(
                    f'<rect class="{kind}" x="{10 * at + 1}" y="{_place(_HEIGHT - height)}" width="8" '
                    f'height="{_place(height)}"/>'
                )
    for at, value in enumerate(chart.marks or ()):
        if value is not None:
            y = _place(_HEIGHT * (1 - min(value / top, 1.0)))
            parts.append(f'<path class="line" d="M{10 * at} {y}h10"/>')
    if chart.level is not None:
        y = _place(_HEIGHT * (1 - min(chart.level / top, 1.0)))
        parts.append(f'<path class="line dashed" d="M0 {y}H{10 * slots}"/>')
    return _framed("".join(parts), 10 * slots, [(0, chart.tell(0)), (0.5, chart.tell(top / 2)), (1, chart.tell(top))],
                   _epochs(chart.labels, slots), says=says, points=len(chart.labels), slots=slots)  # fmt: skip


def fan(labels: Sequence[str], levels: Sequence[Sequence[float]], axis: LossAxis, *, says: str) -> str:
    """Return how the losses spread, epoch by epoch: bands between quantiles, and the median.

    Args:
        labels: of the epochs.
        levels: per epoch, an odd number of quantiles in ascending order.
        axis: of the losses.
        says: what the chart shows.
    """
    first, *_, last = axis.places().tolist()
    slots = max(len(labels), FEWEST_SLOTS)

    def height(value: float) -> str:
        place = math.log10(max(value, axis.low)) if axis.is_log else value
        return _place(_HEIGHT * (1 - min(max((place - first) / (last - first), 0.0), 1.0)))

    parts = []
    middle = len(levels[0]) // 2
    for band in range(middle):
        upper = [f"{_middle(at)} {height(one[-1 - band])}" for at, one in enumerate(levels)]
        lower = [f"{_middle(at)} {height(one[band])}" for at, one in enumerate(levels)]
        parts.append(f'<path class="kept" fill-opacity="{0.25 + 0.3 * band:.2f}" d="{_closed(upper, lower)}"/>')
    median = [f"{_middle(at)} {height(one[middle])}" for at, one in enumerate(levels)]
    parts.append(f'<path class="line" d="M{"L".join(_widened(median))}"/>')
    ticks = [(at, loss(value)) for value, at in axis.ticks(4)]
    return _framed(
        "".join(parts), 10 * slots, ticks, _epochs(labels, slots), says=says, points=len(labels), slots=slots
    )


def _middle(at: int) -> int:
    return 10 * at + 5


def _widened(points: list[str]) -> list[str]:
    """Return points from which a shape can be drawn, though there be only one."""
    if len(points) > 1:
        return points
    x, y = points[0].split(" ")
    return [f"{int(x) - 4} {y}", f"{int(x) + 4} {y}"]


def _closed(upper: list[str], lower: list[str]) -> str:
    return f"M{'L'.join(_widened(upper))}L{'L'.join(_widened(lower)[::-1])}Z"


def ridges(lines: Sequence[Mapping[str, Any]], *, says: str) -> str:
    """Return the distribution of the losses that epochs started from, what each kept of them filled in.

    Args:
        lines: of history.jsonl, each with losses, oldest first; RIDGES of them are shown.
        says: what the chart shows.
    """
    axis = LossAxis(lines, _WIDTH)
    shown = [lines[at] for at in sorted({round(at) for at in np.linspace(0, len(lines) - 1, RIDGES).tolist()})]
    rows = "".join(_ridge(line, axis, is_last=line is lines[-1]) for line in shown)
    ticks = "".join(f'<span style="left:{100 * at:.2f}%">{loss(value)}</span>' for value, at in axis.ticks())
    name = f"loss per sample, as recorded{', log scale' if axis.is_log else ''}"
    return (
        f'<div class="ridges chart" role="img" tabindex="0" aria-label="{attribute(says)}">{rows}'
        f'<div class="row foot"><span></span><div class="ticks">{ticks}</div><span></span></div>'
        f'<div class="axis">{name}</div></div>'
    )


def _ridge(line: Mapping[str, Any], axis: LossAxis, *, is_last: bool) -> str:
    heights = density(line, axis)
    heights = heights / max(float(heights.max()), 1e-12) * (_HEIGHT - 8)
    places = [_place(_HEIGHT - 6 - height) for height in heights.tolist()]
    over = is_over(line)
    keep = np.zeros(_WIDTH) if over else keep_at(line, axis.losses(axis.places()))
    outline = "L".join(f"{x} {y}" for x, y in enumerate(places))
    base = _HEIGHT - 6
    parts = [f'<path class="back" d="M0 {base}L{outline}L{_WIDTH - 1} {base}Z"/>']
    for begin, end, chance in _runs(keep):
        inside = "L".join(f"{x} {places[x]}" for x in range(begin, end + 1))
        shape = f"M{begin} {base}L{inside}L{end} {base}Z"
        parts.append(f'<path class="kept" fill-opacity="{max(chance, 0.15):g}" d="{shape}"/>')
        parts.append(f'<path class="window" d="M{begin} {_HEIGHT - 2}H{end}"/>')
    parts.append(f'<path class="line" d="M{outline}"/>')
    expected, kept = number(line.get("expected_share")), number(line.get("kept_share"))
    told = f"keeps {percent(expected)}" if expected is not None else "" if kept is None else f"kept {percent(kept)}"
    told = "" if over else told
    epoch = line["epoch"] + 1
    label = "at the end" if over else f"next: {epoch}" if is_last else f"epoch {epoch}"
    return (
        f'<div class="row"><span>{label}</span><svg viewBox="0 0 {_WIDTH - 1} {_HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{"".join(parts)}</svg><span>{told}</span></div>'
    )


def _runs(keep: Floats) -> list[tuple[int, int, float]]:
    """Return (first place, last place, keep probability) of each stretch with one that is not 0."""
    bounds = [0, *(np.flatnonzero(np.diff(keep)) + 1).tolist(), len(keep)]
    return [(begin, min(end, len(keep) - 1), float(keep[begin])) for begin, end in pairwise(bounds) if keep[begin] > 0]


def meter(value: float | None, told: str) -> str:
    """Return a share as text with a bar behind it."""
    if value is None:
        return told
    width = 100 * min(max(value, 0.0), 1.0)
    return f'<span class="meter"><span style="width:{width:.1f}%" aria-hidden="true"></span></span>{told}'


def _framed(
    shapes: str, width: int, ticks: Sequence[tuple[float, str]], epochs: str, *, says: str, points: int, slots: int
) -> str:
    rules = "".join(f'<span style="bottom:{100 * at:.2f}%"><i></i>{told}</span>' for at, told in ticks)
    return (
        f'<div class="chart framed" role="img" tabindex="0" aria-label="{attribute(says)}" data-points="{points}" '
        f'data-slots="{slots}"><div class="scale">{rules}</div><div class="plot"><svg viewBox="0 0 {width} {_HEIGHT}" '
        f'preserveAspectRatio="none" aria-hidden="true" focusable="false">{shapes}</svg></div>'
        f'<div class="ticks">{epochs}</div><div class="axis">epoch</div></div>'
    )


def _epochs(labels: Sequence[str], slots: int) -> str:
    every = max(1, math.ceil(len(labels) / 8))
    return "".join(
        f'<span style="left:{100 * (at + 0.5) / slots:.2f}%">{label}</span>'
        for at, label in enumerate(labels)
        if at % every == 0
    )


def _place(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
