"""What indexing remote shards costs: by hops from header to header, or read whole. Pure.

Takes what a link gives (seconds to the first byte, bytes per second) and how far apart the headers stand; gives
requests, bytes, seconds and money.

A hop reads a few bytes at a header and jumps over the body: little is fetched, but each hop waits for the one before,
so only many shards at once are fast. Read whole, a shard comes in large spans, several under way: all is fetched,
at the full rate of the link. Neither is cheaper everywhere: 80 KB photos on a link of 1 GB/s are read whole in less
time than a client takes for the requests alone, and on one of 100 MB/s that is the other way round.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, Literal, Self

HOPS_AT_ONCE: Final = 128
"""Shards of one machine that are scanned at once, each with one small request under way."""
SPAN_BYTES: Final = 2 << 20
SPANS_AT_ONCE: Final = 32
"""Spans of whole shards under way per machine: 64 MiB, and as much again that is being scanned."""
REQUEST_S: Final = 300e-6
"""Processor time of one hop: the request, two changes of threads and a header."""
MEMBER_S: Final = 1.2e-6
"""Processor time of one member: its header, its key, its row in the index."""
MOST_BYTES_PER_S: Final = 0.5e9
"""What one process takes in through large requests; 0.8e9 where nothing else, as TLS or the server, needs its cores."""
READ_BYTES: Final = tuple(1 << power for power in range(10, 21))
"""Sizes of a hop's read that are considered: 1 KiB … 1 MiB."""
SPARSE: Final = 0.5
"""Share of the bytes up to which reads are hops; larger ones read the shard whole, and are better read many at once."""
PAYS: Final = 0.95
"""A larger read must take less than this share of the smaller one's time: bytes are not free."""

GB: Final = 1 << 30
PRICES: Final = {
    # Dollars per 1,000 reads, and per 2^30 bytes that leave the store's region. The figures and their sources are those
    # of report/prices.py, which this room may not import; a test compares the two.
    "s3": (0.0004, 0.09),
    "s3a": (0.0004, 0.09),
    "gs": (0.0004, 0.12),
    "gcs": (0.0004, 0.12),
    "az": (0.00044, 0.087),
    "abfs": (0.00044, 0.087),
    "abfss": (0.00044, 0.087),
}


@dataclass(frozen=True, slots=True)
class Link:
    """What a store gives to this machine.

    Args:
        first_byte_s: from a request to its first byte.
        bytes_per_s: of one request's body.
        total_bytes_per_s: of all requests together.
    """

    first_byte_s: float = 0.03
    bytes_per_s: float = 50e6
    total_bytes_per_s: float = MOST_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Spacing:
    """How far apart the headers of some consecutive members stand.

    Args:
        strides: bytes from each member's header to the next one's.
        heads: bytes of each member's headers, extension headers included.
    """

    strides: Sequence[int]
    heads: Sequence[int]

    @classmethod
    def between(cls, starts: Sequence[int], datas: Sequence[int], end: int) -> Self:
        """Return it from where each member's headers begin, where its body does, and where the next header stands."""
        stops = [*starts[1:], end]
        return cls(
            [stop - start for start, stop in zip(starts, stops, strict=True)],
            [data - start for start, data in zip(starts, datas, strict=True)],
        )

    @property
    def total(self) -> int:
        """Bytes that these members take."""
        return sum(self.strides)


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run that share a scan.

    Args:
        world: how many there are.
        ranks: how many of them are on this machine.
        machines: on how many machines they are.
    """

    world: int = 1
    ranks: int = 1
    machines: int = 1

    def here(self, count: int) -> int:
        """Return what falls to this machine of so many bytes or shards."""
        return -(-count * self.ranks // self.world)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of scanning takes.

    Args:
        way: "hops", or "whole".
        read_bytes: of one request.
        requests: how many.
        fetched: bytes.
        busy_s: processor time.
        seconds: wall time.
    """

    way: Literal["hops", "whole"]
    read_bytes: int
    requests: float
    fetched: float
    busy_s: float
    seconds: float

    def of_all(self, team: Team) -> Cost:
        """Return the cost of all machines from that of this one: they work at the same time."""
        factor = team.world / team.ranks
        return replace(
            self, requests=self.requests * factor, fetched=self.fetched * factor, busy_s=self.busy_s * factor
        )


def count_hops(spacing: Spacing, read_bytes: int) -> int:
    """Return the reads of `read_bytes` that see the headers of all these members; each begins at a header."""
    begins = [0, *accumulate(spacing.strides)]
    # behind [members]: where a member's header is known whole; ascending, since headers do not overlap.
    behind = [begin + head for begin, head in zip(begins, spacing.heads, strict=False)]
    at = hops = 0
    while at < len(behind):
        hops += 1
        # What is not whole in the read is what the next one begins with; the first is always read whole.
        at = max(at + 1, bisect_right(behind, begins[at] + read_bytes))
    return hops


def hops_per_byte(spacing: Spacing, read_bytes: int) -> float:
    """Return how many such reads a byte of tar takes; what is longer than the stretch that is known sees all in it."""
    return 1 / read_bytes if read_bytes >= spacing.total else count_hops(spacing, read_bytes) / spacing.total


def scan_costs(
    spacing: Spacing, link: Link, *, shards: int, total_bytes: int, largest_bytes: int, processes: int = 1
) -> tuple[Cost, Cost]:
    """Return the cost of scanning shards by hops, with the read size that is best, and of reading them whole.

    Args:
        spacing: of a stretch of members that stands for all; at least one.
        link: what the store gives.
        shards: how many are to be scanned.
        total_bytes: of all of them.
        largest_bytes: of the largest, within which hops wait for each other.
        processes: of this machine that share the work.
    """
    index_s = total_bytes * len(spacing.strides) / spacing.total * MEMBER_S
    rates = {read_bytes: hops_per_byte(spacing, read_bytes) for read_bytes in READ_BYTES}
    sparse = [read_bytes for read_bytes, per_byte in rates.items() if per_byte * read_bytes <= SPARSE]
    best: Cost | None = None
    for read_bytes in sparse or READ_BYTES:
        per_byte = rates[read_bytes]
        hops = max(total_bytes * per_byte, shards)
        each_s = link.first_byte_s + read_bytes / link.bytes_per_s
        busy_s = hops * REQUEST_S + index_s
        seconds = max(
            busy_s / processes,
            hops * each_s / min(shards, HOPS_AT_ONCE),
            largest_bytes * per_byte * each_s,
            hops * read_bytes / link.total_bytes_per_s,
        )
        if best is None or seconds < PAYS * best.seconds:
            best = Cost("hops", read_bytes, hops, min(hops * read_bytes, total_bytes), busy_s, seconds)
    assert best is not None  # noqa: S101  (READ_BYTES is not empty)
    return best, _whole(link, shards, total_bytes, largest_bytes, index_s, processes)


def _whole(link: Link, shards: int, total_bytes: int, largest_bytes: int, index_s: float, processes: int) -> Cost:
    mean_bytes = total_bytes / shards
    spans = shards * math.ceil(mean_bytes / SPAN_BYTES)
    span_bytes = min(SPAN_BYTES, mean_bytes)
    each_s = link.first_byte_s + span_bytes / link.bytes_per_s
    busy_s = total_bytes / MOST_BYTES_PER_S + index_s
    seconds = max(
        busy_s / processes,
        total_bytes / link.total_bytes_per_s,
        # The last span of all comes no sooner than one span does.
        max(1.0, spans / SPANS_AT_ONCE) * each_s,
        largest_bytes / SPAN_BYTES / SPANS_AT_ONCE * each_s,
    )
    return Cost("whole", SPAN_BYTES, spans, total_bytes, busy_s, seconds)


def cheaper(hops: Cost, whole: Cost) -> Cost:
    """Return the one that takes less time; hops, which fetch less, where there is little between them."""
    is_sparse = hops.fetched <= SPARSE * whole.fetched
    return hops if is_sparse and PAYS * hops.seconds <= whole.seconds else whole


@dataclass(frozen=True, slots=True)
class Estimate:
    """What building the indexes of a corpus will take, for a person.

    Args:
        shards: how many have no index that fits.
        of: how many the corpus has.
        shard_bytes: bytes of those without.
        place: where they lie, without credentials.
        protocol: of their URLs; tells whose price holds.
        cost: of the way that was chosen; None where that is not known ahead (files of this machine).
        team: who shares the work.
    """

    shards: int
    of: int
    shard_bytes: int
    place: str
    protocol: str
    cost: Cost | None
    team: Team = Team()

    @property
    def dollars(self) -> float | None:
        """Price of the requests; None where nobody publishes one."""
        price = PRICES.get(self.protocol)
        return None if price is None or self.cost is None else self.cost.requests / 1000 * price[0]

    def __str__(self) -> str:
        """Return one line: what, where, how, how much, how long, and that it may be interrupted."""
        count = f"{self.shards:,} of {self.of:,} shards" if self.shards < self.of else f"{self.shards:,} shards"
        if self.shards == self.of == 1:
            count = "1 shard"
        line = f"Indexing {count} ({_bytes(self.shard_bytes)}) on {self.place}"
        if self.team.world > 1:
            where = f" on {self.team.machines:,} machines" if self.team.machines > 1 else ""
            line += f", shared by {self.team.world:,} processes{where}"
        cost = self.cost
        if cost is not None:
            requests = f"{max(1, round(cost.requests)):,}"
            how = f"{requests} reads of headers" if cost.way == "hops" else f"read whole in {requests} requests"
            line += f": {how}, {_bytes(cost.fetched)} to fetch, about {_duration(cost.seconds)}{self._money(cost)}"
        return f"{line}. Interrupted, it goes on where it stopped."

    def _money(self, cost: Cost) -> str:
        dollars = self.dollars
        if dollars is None:
            return ""
        away = cost.fetched / GB * PRICES[self.protocol][1]
        more = f" ({_dollars(away)} more if the bytes leave the store's region)" if away >= 0.01 else ""
        return f" and {_dollars(dollars)}{more}"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.01 else "less than $0.01"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} KB"


def _duration(seconds: float) -> str:
    units = (("hour", 3600.0), ("minute", 60.0), ("second", 1.0))
    unit, size = next((entry for entry in units if seconds >= 1.5 * entry[1]), units[-1])
    number = max(1, round(seconds / size))
    return f"{number} {unit}{'s' if number > 1 else ''}"
