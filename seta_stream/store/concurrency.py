"""How many requests may be under way at once, by what the store gives. Pure: the caller tells the time.

Takes finished and throttled requests; gives a limit. It climbs while throughput rises with it, goes back to the
smallest number that reached the best throughput, and halves where the store asks for less.
"""

from __future__ import annotations

from typing import Final

MOST_PER_MACHINE: Final = 256
FIRST: Final = 32
INTERVAL_S: Final = 0.25
PER_SLOT: Final = 2
"""Finished requests per slot that an interval needs, so that it measures the limit and not the start."""
GAIN: Final = 1.05
"""Throughput that is not higher by this factor has not risen."""
GROWTH: Final = 2.0
PATIENT_INTERVALS: Final = 2
HOLD_S: Final = 15.0
"""A limit that was found is kept for this long before another is tried: stores change their minds."""
THROTTLED_HOLD_S: Final = 5.0
HALVED_AT_MOST_EVERY_S: Final = 1.0


class Concurrency:
    """The number of requests in flight of one process.

    Args:
        most: never more than this.
        is_fixed: always `most`, but for throttling.
    """

    def __init__(self, most: int, *, is_fixed: bool = False) -> None:
        self.most = max(1, most)
        self.limit = self.most if is_fixed else min(FIRST, self.most)
        self._is_fixed = is_fixed
        self._began: float | None = None
        self._bytes = 0
        self._finished = 0
        self._best_rate = 0.0
        self._best_limit = self.limit
        self._without_gain = 0
        self._hold_until = 0.0
        self._halved_at = -HALVED_AT_MOST_EVERY_S

    def finished(self, count: int, now: float, *, is_full: bool) -> None:
        """Count a request.

        Args:
            count: its bytes.
            now: seconds on any steady clock.
            is_full: whether as many requests as allowed are under way and others wait; else nothing is learnt.
        """
        if self._is_fixed and self.limit == self.most:
            return
        if not is_full or self._began is None:
            self._began, self._bytes, self._finished = now, 0, 0
            return
        self._bytes += count
        self._finished += 1
        elapsed = now - self._began
        if elapsed >= INTERVAL_S and self._finished >= PER_SLOT * self.limit:
            self._judge(self._bytes / elapsed, now)
            self._began, self._bytes, self._finished = now, 0, 0

    def throttled(self, now: float) -> None:
        """Count an answer that asks for fewer requests."""
        if now - self._halved_at < HALVED_AT_MOST_EVERY_S:
            return
        self._halved_at = now
        self.limit = max(1, self.limit // 2)
        self._hold_until = now + THROTTLED_HOLD_S
        self._forget()

    def _forget(self) -> None:
        self._began, self._best_rate, self._best_limit, self._without_gain = None, 0.0, self.limit, 0

    def _judge(self, rate: float, now: float) -> None:
        """Learn from one interval's throughput, in bytes per second."""
        if now < self._hold_until:
            return
        if rate > self._best_rate * GAIN:
            self._best_rate, self._best_limit, self._without_gain = rate, self.limit, 0
            self.limit = min(self.most, max(self.limit + 1, int(self.limit * GROWTH)))
            return
        self._without_gain += 1
        if self._without_gain >= PATIENT_INTERVALS:
            self.limit = self._best_limit
            self._hold_until = now + HOLD_S
            self._forget()
