"""Results of the bucket benchmarks: runs in turn, tables, and what is to hold.

Takes cases; gives results. Effects: a process per run, and printed tables.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from _common import show
from bucket_cases import Spec, command_of
from bucket_child import ReaderError, Watched, run_reader
from bucket_server import Bucket, Count

COLUMNS = [
    "reader",
    "epoch s",
    "first s",
    "open s",
    "samples/s",
    "requests",
    "MB",
    "connections",
    "CPU s",
    "epoch CPU s",
    "anon MB",
]


@dataclass(frozen=True)
class Result:
    """One reader's one run: what it told, what was watched, what the server counted."""

    watched: Watched
    count: Count

    def epoch_s(self) -> float:
        """Seconds of its last epoch."""
        return float(self.watched.told["epochs"][-1]["epoch_s"])

    def fastest_s(self) -> float:
        """Seconds of its fastest epoch after the first: noise only adds."""
        return min(float(row["epoch_s"]) for row in self.watched.told["epochs"][1:])


Results = Mapping[str, list[Result]]


class Checks:
    """What is to hold, and whether it does."""

    def __init__(self) -> None:
        self.failed = 0
        self.rows: list[list[str]] = []

    def at_most(self, what: str, found: float, bound: float) -> None:
        """Note whether `found` ≤ `bound`."""
        self._note(what, found, f"≤ {bound:g}", holds=found <= bound)

    def at_least(self, what: str, found: float, bound: float) -> None:
        """Note whether `found` ≥ `bound`."""
        self._note(what, found, f"≥ {bound:g}", holds=found >= bound)

    def told(self, what: str, found: float) -> None:
        """Note a figure that bounds nothing."""
        self.rows.append([what, f"{found:.3f}", "", ""])

    def missing(self, what: str, why: str) -> None:
        """Note something that cannot be measured: that is a failure."""
        self.failed += 1
        self.rows.append([what, "", why[:60], "FAIL"])

    def _note(self, what: str, found: float, bound: str, *, holds: bool) -> None:
        self.failed += not holds
        self.rows.append([what, f"{found:.3f}", bound, "PASS" if holds else "FAIL"])

    def show(self) -> None:
        """Print them."""
        if self.rows:
            show("To hold", ["what", "found", "bound", ""], self.rows)


def run_cases(cases: Mapping[str, Spec], bucket: Bucket, runs: int, checks: Checks) -> dict[str, list[Result]]:
    """Run each case `runs` times, in turn, the order reversed from run to run; one that fails is left out and noted."""
    results: dict[str, list[Result]] = {name: [] for name in cases}
    broken: set[str] = set()
    for run in range(runs):
        for name in list(cases)[:: -1 if run % 2 else 1]:
            if name in broken:
                continue
            bucket.count()
            try:
                watched = run_reader(command_of(cases[name]), cases[name], bucket.port)
            except ReaderError as error:
                broken.add(name)
                checks.missing(name, str(error).strip().splitlines()[-1])
                print(f"{name}: {error}", file=sys.stderr)
                continue
            result = Result(watched, bucket.count())
            results[name].append(result)
            _agree(name, cases[name], result, checks)
    return {name: found for name, found in results.items() if name not in broken}


def _agree(name: str, spec: Spec, result: Result, checks: Checks) -> None:
    """Note a failure where a stream's count of its bytes is not the server's."""
    epochs = result.watched.told["epochs"]
    if spec["reader"] == "ours" and "://" in spec["urls"][0] and not sum(row["retries"] for row in epochs):
        told = sum(row["bytes_fetched"] for row in epochs)
        if told != result.count.shard_bytes:
            checks.missing(f"{name}: bytes by the server", f"{result.count.shard_bytes:,}; stats say {told:,}")


def ratio(results: Results, over: str, under: str, seconds: Callable[[Result], float] = Result.epoch_s) -> float:
    """Return the median over the runs of one reader's seconds by another's."""
    return statistics.median(seconds(a) / seconds(b) for a, b in zip(results[over], results[under], strict=True))


def median(found: list[Result], value: Callable[[Result], float]) -> float:
    """Return the median of a figure over the runs."""
    return statistics.median(map(value, found))


def requests(result: Result) -> float:
    """Requests that the server counted; of the last epoch, by the stream, where there were several."""
    epochs = result.watched.told["epochs"]
    return float(epochs[-1]["requests"] if len(epochs) > 1 else result.count.requests)


def fetched_bytes(result: Result) -> float:
    """Bytes that the server counted; of the last epoch, by the stream, where there were several."""
    epochs = result.watched.told["epochs"]
    return float(epochs[-1]["bytes_fetched"] if len(epochs) > 1 else result.count.shard_bytes)


def row_of(name: str, found: list[Result]) -> list[str]:
    """Return a reader's line of the table."""
    last = [result.watched.told["epochs"][-1] for result in found]
    epoch_s = statistics.median(row["epoch_s"] for row in last)
    return [
        name,
        f"{epoch_s:.2f}",
        f"{median(found, lambda r: r.watched.told['epochs'][0]['first_s']):.2f}",
        f"{median(found, lambda r: r.watched.told['open_s']):.2f}",
        f"{statistics.median(row['samples'] for row in last) / epoch_s:,.0f}",
        f"{median(found, requests):,.0f}",
        f"{median(found, fetched_bytes) / 1e6:,.1f}",
        f"{max(r.watched.connections for r in found)}",
        f"{median(found, lambda r: r.watched.cpu_s):.1f}",
        f"{statistics.median(row['cpu_s'] for row in last):.2f}",
        f"{max(r.watched.anonymous_bytes for r in found) / 1e6:,.0f}",
    ]


def show_results(title: str, results: Results) -> None:
    """Print the table of one corpus under one profile."""
    show(title, COLUMNS, [row_of(name, found) for name, found in results.items() if found])
