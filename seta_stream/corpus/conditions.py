"""What the scans of remote shards in one process share: the link as measured, and who may read how much.

Takes the times and sizes of reads; gives each shard its way. Effects: a clock and locks; `stop` cancels requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from seta_stream.corpus.costs import (
    HOPS_AT_ONCE,
    MOST_BYTES_PER_S,
    SPAN_BYTES,
    SPANS_AT_ONCE,
    Link,
    Spacing,
    cheaper,
    scan_costs,
)

WHOLE_AT_ONCE: Final = 16
"""Shards that are read whole at once: fewer are half done, and lost, when the work is interrupted."""
LEAST_SPANS: Final = 2
"""Of a shard that is read whole: one is scanned while the other comes."""
FIRST_BYTES: Final = 64 << 10
"""Of a shard of which nothing is known."""
ROUNDS: Final = 20
"""The time to the first byte is that of the last so many hops of each shard under way."""
STAY: Final = 0.75
"""The other way must take less than this share of the time before a shard leaves the one that it is on."""
SHORTEST_S: Final = 1e-4
RATE_INTERVAL_S: Final = 1.0

Way = Literal["hops", "whole"]


@dataclass(frozen=True, slots=True)
class Step:
    """How a shard is read on: `read_bytes` per request, `spans` requests under way."""

    way: Way
    read_bytes: int
    spans: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a number of shards are to be scanned, as far as it is known ahead; small, for processes that share the work.

    Args:
        link: what the store gives, as measured or guessed.
        first: how a shard is read before its own members tell more.
        way: the only way that is taken; None for the cheaper one.
        processes: in which one process of the run scans.
        ranks: processes of the run on this machine, each of which does so.
    """

    link: Link = field(default_factory=Link)
    first: Step = field(default_factory=lambda: Step("hops", FIRST_BYTES, 1))
    way: Way | None = None
    processes: int = 1
    ranks: int = 1

    @property
    def sharers(self) -> int:
        """Processes of this machine that scan at the same time, and share what may be under way."""
        return self.processes * self.ranks


class Stoppable(Protocol):
    """What has requests under way."""

    def cancel(self) -> None:
        """Give them up; nobody asks for more."""
        ...


class Conditions:
    """The link, the shards under way, and the places for shards that are read whole.

    Args:
        plan: what is known ahead.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        from seta_stream.store.engine import Engine  # noqa: PLC0415  (clients; only where something is remote)

        plan = plan or Plan()
        self.link = plan.link
        self.first = plan.first
        self.engine = Engine(in_flight=HOPS_AT_ONCE, processes=plan.sharers)
        self._forced = plan.way
        self._processes = plan.sharers
        self._spans = max(LEAST_SPANS, SPANS_AT_ONCE // plan.sharers)
        self._seats = threading.Semaphore(max(1, min(WHOLE_AT_ONCE, self._spans // LEAST_SPANS)))
        self._lock = threading.Lock()
        self._live: set[Stoppable] = set()
        self._seated = 0
        self.is_stopped = False
        self._rate_began: float | None = None
        self._rate_bytes = 0

    # ---- shards under way

    @contextmanager
    def live(self, shard: Stoppable) -> Iterator[None]:
        """Count a shard as under way."""
        with self._lock:
            self._live.add(shard)
        try:
            yield
        finally:
            with self._lock:
                self._live.discard(shard)

    def stop(self) -> None:
        """Give up all requests, and let nobody begin another: their scans end with CancelledError."""
        with self._lock:
            self.is_stopped = True
            live = list(self._live)
        for shard in live:
            shard.cancel()
        self._seats.release(len(live) + 1)

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Wait until the shard may be read whole."""
        self._seats.acquire()
        with self._lock:
            self._seated += 1
        try:
            yield
        finally:
            with self._lock:
                self._seated -= 1
            self._seats.release()

    # ---- measuring

    def hopped(self, seconds: float, count: int) -> None:
        """Learn from one hop: the seconds that its `count` bytes took, pauses between attempts included.

        While shards are read whole nothing is learnt: hops that wait behind large spans would look slow, more shards
        would be read whole, and the rest would wait still longer.
        """
        with self._lock:
            link = self.link
            if not self._seated:
                first_byte_s = max(SHORTEST_S, seconds - count / link.bytes_per_s)
                settled = link.first_byte_s + (first_byte_s - link.first_byte_s) / (ROUNDS * max(1, len(self._live)))
                self.link = replace(link, first_byte_s=settled)

    def came(self, count: int) -> None:
        """Learn from a span of a whole shard: enough of them under way tell the rate of all requests."""
        with self._lock:
            now = time.monotonic()
            if self._rate_began is None or self._seated * LEAST_SPANS < self._spans // 2:
                self._rate_began, self._rate_bytes = now, 0
                return
            self._rate_bytes += count
            elapsed = now - self._rate_began
            if elapsed >= RATE_INTERVAL_S:
                rate = min(MOST_BYTES_PER_S, self._rate_bytes / elapsed * self._processes)
                self.link = replace(self.link, total_bytes_per_s=rate)
                self._rate_began, self._rate_bytes = now, 0

    # ---- deciding

    def step(self, spacing: Spacing, left_bytes: int, now: Way | None = None) -> Step:
        """Return how a shard is read on.

        Args:
            spacing: of its last members.
            left_bytes: of the shard; the others under way are taken to be like it.
            now: the way that it is on and should not leave for a small gain; None where none was chosen yet.
        """
        with self._lock:
            # The other processes are taken to do what this one does; the link is that of all.
            shards, link = max(1, len(self._live)) * self._processes, self.link
        left = max(left_bytes, 1)
        hops, whole = scan_costs(
            spacing, link, shards=shards, total_bytes=shards * left, largest_bytes=left, processes=self._processes
        )
        favours = {"hops": (STAY, 1.0), "whole": (1.0, STAY), None: (1.0, 1.0)}[now]
        favoured = (
            replace(cost, seconds=cost.seconds * favour) for cost, favour in zip((hops, whole), favours, strict=True)
        )
        best = {"hops": hops, "whole": whole, None: cheaper(*favoured)}[self._forced]
        return Step("whole", SPAN_BYTES, self.spans) if best.way == "whole" else Step("hops", best.read_bytes, 1)

    @property
    def spans(self) -> int:
        """How many spans each of the shards that are read whole may have under way."""
        return max(LEAST_SPANS, self._spans // max(1, self._seated))
