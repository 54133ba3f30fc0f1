"""What the accuracy experiments share: rows that survive a stop, paired statistics, tables, a plot, a bar.

Takes runs, each one arm with one seed; gives `results.jsonl`, `table.md`, a table in the terminal and a PNG.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

CONFIDENCE = 0.95
BASELINES = ("full-compressed", "full")
HEADINGS = ("arm", "seeds", "{metric}", "against full-compressed", "against full", "saved", "GB read")


@dataclass(frozen=True)
class Job:
    """One run to do. `policy` is its settings in words: where they change, the run is another one.

    Attributes:
        variant: of the data.
        arm: name of the policy.
        seed: of the data, the initial weights, the order and the draws.
        policy: what the arm does.
    """

    variant: str
    arm: str
    seed: int
    policy: str


@dataclass(frozen=True)
class Difference:
    """A mean over paired seeds, and half the width of its confidence interval (NaN for a single seed)."""

    mean: float
    half_width: float
    pairs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Difference:
        """Return the mean of some paired differences, by Student's t."""
        from scipy.stats import t

        mean, pairs = statistics.fmean(values), len(values)
        if pairs < 2:
            return cls(mean, math.nan, pairs)
        error = statistics.stdev(values) / math.sqrt(pairs)
        return cls(mean, float(t.ppf(0.5 + CONFIDENCE / 2, pairs - 1)) * error, pairs)

    @property
    def is_noise(self) -> bool:
        """Whether zero lies in the interval."""
        return not abs(self.mean) > self.half_width


class Rows:
    """The finished runs of one experiment, one JSON object per line; each is on the disk when its run ends.

    Args:
        path: of `results.jsonl`.
        settings: what all runs share. A file of other settings is refused.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.rows: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        if text and not text.endswith("\n"):
            path.write_text(text + "\n")
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run
                self.rows.append(json.loads(line))
        other = [row["settings"] for row in self.rows if row["settings"] != settings]
        if other:
            changed = {name: (other[0].get(name), value) for name, value in settings.items()}
            told = ", ".join(f"{name} {a!r} → {b!r}" for name, (a, b) in changed.items() if a != b)
            raise click.ClickException(f"{path} holds runs with other settings ({told}): choose another --out.")

    def lacks(self, job: Job) -> bool:
        """Say whether a run is still to be done."""
        return not any(all(row[name] == value for name, value in asdict(job).items()) for row in self.rows)

    def add(self, job: Job, found: dict[str, Any]) -> None:
        """Keep a finished run."""
        row = {**asdict(job), **found, "settings": self.settings}
        self.rows.append(row)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """Return the rows of these runs, those that are there."""
        wanted = {tuple(asdict(job).values()) for job in jobs}
        return [row for row in self.rows if (row["variant"], row["arm"], row["seed"], row["policy"]) in wanted]


def run_jobs(
    rows: Rows, jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], processes: int, console: Console
) -> None:
    """Do the runs that are not done yet, in `processes` processes, with a bar on stderr."""
    waiting = [job for job in jobs if rows.lacks(job)]
    with _bar(len(jobs), len(jobs) - len(waiting), console) as advance:
        if processes == 1:
            done: Iterator[tuple[Job, dict[str, Any]]] = ((job, work(job)) for job in waiting)
        else:
            parallel = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1)
            done = parallel(delayed(_with_job)(work, job) for job in waiting)
        for job, found in done:
            rows.add(job, found)
            advance(f"{job.variant} {job.arm} seed {job.seed}")


def _with_job(work: Callable[[Job], dict[str, Any]], job: Job) -> tuple[Job, dict[str, Any]]:
    return job, work(job)


@contextlib.contextmanager
def _bar(total: int, done: int, console: Console) -> Iterator[Callable[[str], None]]:
    columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda text: bar.update(task, advance=1, description=text)


# ---- figures


def differences(rows: Iterable[dict[str, Any]], metric: str, arm: str, baseline: str) -> Difference | None:
    """Return arm − baseline over the seeds that both have; None where there are none."""
    by_arm: dict[str, dict[int, float]] = {arm: {}, baseline: {}}
    for row in rows:
        if row["arm"] in by_arm:
            by_arm[row["arm"]][row["seed"]] = row[metric]
    seeds = sorted(by_arm[arm].keys() & by_arm[baseline].keys())
    return Difference.of([by_arm[arm][seed] - by_arm[baseline][seed] for seed in seeds]) if seeds else None


def table_rows(rows: Sequence[dict[str, Any]], metric: str, arms: Sequence[str]) -> list[list[str]]:
    """Return a line of text cells per arm that has rows, in the order of `arms`, under HEADINGS."""
    lines = []
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm]
        if not mine:
            continue
        cells = [arm, str(len(mine)), f"{statistics.fmean(row[metric] for row in mine):.2f}"]
        for baseline in BASELINES:
            found = None if arm == baseline else differences(rows, metric, arm, baseline)
            cells.append("" if found is None else said(found))
        cells.append(f"{100 * statistics.fmean(row['saved'] for row in mine):.1f} %")
        cells.append(f"{statistics.fmean(row['bytes'] for row in mine) / 1e9:.2f}")
        lines.append(cells)
    return lines


def said(difference: Difference) -> str:
    """Return "−0.31 ± 0.12", with a star where zero lies outside the interval."""
    if math.isnan(difference.half_width):
        return f"{difference.mean:+.2f}".replace("-", "−")
    star = "" if difference.is_noise else " *"
    return f"{difference.mean:+.2f} ± {difference.half_width:.2f}{star}".replace("-", "−")


def show(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def markdown(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return the table as markdown."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *lines))
    return f"### {title}\n\n{body}\n"


def report(
    out: Path, panels: dict[str, Sequence[dict[str, Any]]], metric: str, arms: Sequence[str], console: Console
) -> None:
    """Print and write the tables, one per panel, and draw the plot: `table.md` and `plot.png` in `out`.

    Args:
        out: the folder.
        panels: title → rows.
        metric: the name of the column that is compared, in per cent.
        arms: their order.
        console: where the tables go.
    """
    headings = [heading.format(metric=metric) for heading in HEADINGS]
    texts = []
    for title, rows in panels.items():
        lines = table_rows(rows, metric, arms)
        show(title, headings, lines, console)
        texts.append(markdown(title, headings, lines))
    note = "Points of a per cent: mean of the paired differences ± half of the 95 % interval; * where it excludes 0.\n"
    (out / "table.md").write_text("\n".join([*texts, note]))
    draw(out / "plot.png", panels, metric, arms)
    console.print(f"{out / 'results.jsonl'}, {out / 'table.md'}, {out / 'plot.png'}", highlight=False, soft_wrap=True)


def draw(path: Path, panels: dict[str, Sequence[dict[str, Any]]], metric: str, arms: Sequence[str]) -> None:
    """Draw each arm's difference to the compressed full run with its interval, one panel beside the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [arm for arm in arms if any(row["arm"] == arm for rows in panels.values() for row in rows)]
    size = (2.0 + 3.2 * len(panels), 1.2 + 0.28 * len(shown))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        found = {arm: differences(rows, metric, arm, BASELINES[0]) for arm in shown}
        for place, difference in enumerate(found.values()):
            if difference is not None:
                bar = 0.0 if math.isnan(difference.half_width) else difference.half_width
                colour = "0.55" if difference.is_noise else ("tab:green" if difference.mean > 0 else "tab:red")
                axis.errorbar(difference.mean, place, xerr=bar, fmt="o", color=colour, markersize=4, capsize=2)
        axis.axvline(0, color="0.7", linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(f"{metric} against {BASELINES[0]}, points", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="0.92")
    axes[0][0].set_yticks(range(len(shown)), shown)
    axes[0][0].invert_yaxis()
    figure.savefig(path, dpi=100)
    plt.close(figure)
