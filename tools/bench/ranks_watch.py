"""Where the time, the memory and the bytes of a rank go: the package's own functions are timed where they are called.

Takes callables by owner and name, and a collective; gives seconds per part that add up to the whole, peaks of the
resident set, and bytes per kind of exchange. Effects: the callables are replaced while a `Watch` is open; the kernel's
high-water mark of this process is set back for each stage.
"""

from __future__ import annotations

import gc
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seta_stream.collective import Collective

EXCHANGE = "exchange"
OTHER = "other"
ROW_BYTES = 16
"""Each exchange begins with a row of two numbers from every process (seta_stream/transport.py)."""

PARTS: dict[str, str] = {
    "seta_stream.memory:Outbox.parts": "losses, parts made",
    "seta_stream.memory:unpack_calls": "losses, taken in",
    "seta_stream.memory:take_in": "losses, taken in",
    "seta_stream.memory:Memory.settle": "losses, taken in",
    "seta_stream.selecting:judge": "histogram",
    "seta_stream.selecting:exchange.summed": "histogram",
    "seta_stream.selecting:exchange.ruled": "rule",
    "seta_stream.selecting:rule_from": "rule",
    "seta_stream.selecting:apply": "own mask",
    "seta_stream.selecting:exchange.joined": "masks joined",
    "seta_stream.losses.generations:Committer.write_part": "sidecars",
    "seta_stream.losses.generations:Generations.commit": "manifest",
    "seta_stream.losses.generations:Generations.shared": "manifest",
    "seta_stream.session:line_weights": "weights",
    "seta_stream.session:Weights.of_line": "weights",
    "seta_stream.session:EpochPlan.__post_init__": "plan",
    "seta_stream.session:Board.publish": "board",
}
"""Module and name → the part that it belongs to. What none of these does is OTHER."""


class Watch:
    """Seconds per part, each without what it calls of other parts: they add up to the time that passed.

    `wall_s` is the clock's, `cpu_s` the processor's, which others that use the machine do not lengthen as much.
    """

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self._open: list[list[Any]] = []  # [part, wall and CPU seconds of what it called], outermost first
        self._replaced: list[tuple[Any, str, Any]] = []

    @property
    def part(self) -> str:
        """The part that runs now; an exchange belongs to the one that asks for it."""
        return next((part for part, _, _ in reversed(self._open) if part != EXCHANGE), OTHER)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what happens inside as a part's."""
        self._open.append([part, 0.0, 0.0])
        begin, begin_cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            passed, passed_cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
            _, inner, inner_cpu = self._open.pop()
            self.wall_s[part] += passed - inner
            self.cpu_s[part] += passed_cpu - inner_cpu
            if self._open:
                self._open[-1][1] += passed
                self._open[-1][2] += passed_cpu

    def around(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return the function, timed."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.timed(part):
                return function(*arguments, **options)

        return call

    def __enter__(self) -> Self:
        import importlib

        for place, part in PARTS.items():
            module, _, path = place.partition(":")
            owner: Any = importlib.import_module(module)
            *above, name = path.split(".")
            for one in above:
                owner = getattr(owner, one)
            self.replace(owner, name, lambda function, part=part: self.around(function, part))
        return self

    def replace(self, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
        """Put another callable in a place until the end."""
        before = vars(owner)[name]
        is_of_class = isinstance(before, classmethod)
        function = made(before.__func__ if is_of_class else before)
        self._replaced.append((owner, name, before))
        setattr(owner, name, classmethod(function) if is_of_class else function)

    def __exit__(self, *_: object) -> None:
        while self._replaced:
            setattr(*self._replaced.pop())


@dataclass
class Traffic:
    """What one process gives and gets in one kind of exchange.

    Attributes:
        sent, received: bytes over the network.
        messages: one after another.
        exchanges: calls of the collective.
        seconds: by the clock, waiting for the others included.
    """

    sent: int = 0
    received: int = 0
    messages: int = 0
    exchanges: int = 0
    seconds: float = 0.0


@dataclass
class Counted:
    """A collective whose exchanges are counted and timed, by the part that asks for them.

    A sum moves 2 (world − 1) / world of its array each way, as a ring does; what process 0 tells all goes down a tree.
    """

    inner: Collective
    watch: Watch
    traffic: dict[str, Traffic] = field(default_factory=lambda: defaultdict(Traffic))

    @property
    def rank(self) -> int:
        """As the inner one's."""
        return self.inner.rank

    @property
    def world(self) -> int:
        """As the inner one's."""
        return self.inner.world

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Collective.sum`."""
        moved = 2 * counts.nbytes * (self.world - 1) // self.world
        with self._counted() as one:
            total = self.inner.sum(counts)
        self._add(one, moved, moved, 2 * (self.world - 1))
        return total

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """As `Collective.route`."""
        with self._counted() as one:
            told = self.inner.route(parts)
        sent = sum(map(len, parts)) - len(parts[self.rank])
        self._add(one, sent, sum(map(len, told)) - len(told[self.rank]), 2 * (self.world - 1))
        return told

    def gather(self, part: bytes) -> list[bytes]:
        """As `Collective.gather`."""
        with self._counted() as one:
            told = self.inner.gather(part)
        self._add(one, len(part) * (self.world - 1), sum(map(len, told)) - len(part), self.world - 1)
        return told

    def broadcast(self, value: bytes) -> bytes:
        """As `Collective.broadcast`."""
        with self._counted() as one:
            told = self.inner.broadcast(value)
        levels = math.ceil(math.log2(self.world))
        self._add(one, 0 if self.rank else len(told) * levels, len(told) if self.rank else 0, levels)
        return told

    @contextmanager
    def _counted(self) -> Iterator[Traffic]:
        one, begin = self.traffic[self.watch.part], time.perf_counter()
        with self.watch.timed(EXCHANGE):
            yield one
        one.exchanges += 1
        one.seconds += time.perf_counter() - begin

    def _add(self, one: Traffic, sent: int, received: int, messages: int) -> None:
        others = self.world - 1
        one.sent += sent + ROW_BYTES * others
        one.received += received + ROW_BYTES * others
        one.messages += messages + others


@dataclass(frozen=True)
class Stage:
    """One stage of a rank's life.

    Attributes:
        whole_s: by the clock, exchanges included.
        wall_s, cpu_s: seconds per part; the former add up to whole_s.
        peak_bytes: the most that was resident, over what was before everything.
        after_bytes: what was resident at its end, likewise.
        traffic: per kind of exchange.
    """

    whole_s: float
    wall_s: dict[str, float]
    cpu_s: dict[str, float]
    peak_bytes: int
    after_bytes: int
    traffic: dict[str, Traffic]


class Stages:
    """Runs stages and keeps their figures."""

    def __init__(self, watch: Watch, collective: Counted) -> None:
        self.done: dict[str, Stage] = {}
        self._watch, self._collective = watch, collective
        self._base = resident()["VmRSS"]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins again
        self._watch.wall_s.clear()
        self._watch.cpu_s.clear()
        self._collective.traffic.clear()
        begin = time.perf_counter()
        with self._watch.timed(OTHER):
            yield
        whole_s, now = time.perf_counter() - begin, resident()
        self.done[name] = Stage(
            whole_s,
            dict(self._watch.wall_s),
            dict(self._watch.cpu_s),
            now["VmHWM"] - self._base,
            now["VmRSS"] - self._base,
            dict(self._collective.traffic),
        )


def resident() -> dict[str, int]:
    """Return VmRSS (resident now) and VmHWM (at most), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    split = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in split}
