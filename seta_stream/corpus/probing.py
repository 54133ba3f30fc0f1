"""A few requests ahead of indexing: what the store gives and how the members stand, so that the cost can be told.

Takes the shards that are to be scanned; gives a plan and an estimate. Effects: some tens of ranged requests, a clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seta_stream.corpus.building import Task
from seta_stream.corpus.compressed import HEAD_BYTES, opener_of
from seta_stream.corpus.conditions import FIRST_BYTES, LEAST_SPANS, Plan, Step, Way
from seta_stream.corpus.costs import (
    MOST_BYTES_PER_S,
    SPAN_BYTES,
    SPANS_AT_ONCE,
    Cost,
    Estimate,
    Link,
    Spacing,
    Team,
    cheaper,
    scan_costs,
)
from seta_stream.corpus.tar import TarScanner
from seta_stream.errors import SetaStreamError
from seta_stream.jobs import cpus
from seta_stream.store import ShardFile, is_local, local_path, protocol_of, shown, store_for

if TYPE_CHECKING:
    from seta_stream.store.engine import Engine

SMALL_BYTES: Final = 64 << 20
"""Fewer bytes are read whole in less time than it takes to ask how."""
SHARDS: Final = 4
MEMBERS: Final = 16
HOPS: Final = 8
HOP_BYTES: Final = 1024
BODY_BYTES: Final = 1 << 20
BURST: Final = 16
"""Reads of BODY_BYTES at once, which tell whether the link as a whole is narrower than its parts together."""
BURST_PAYS_BYTES: Final = 256 << 20
NARROW: Final = 0.7
PROCESS_PAYS_S: Final = 4.0
"""Processor time that one more process must take over: it needs more than a second to start."""
LOUD_LOCAL_BYTES: Final = 32 << 30
"""Local shards of fewer bytes are indexed without a word."""
ALONE: Final = Team()


@dataclass(frozen=True)
class Probe:
    """What one shard told."""

    first_byte_s: float
    bytes_per_s: float
    spacing: Spacing


def foresee(
    tasks: Sequence[Task], of: int, *, jobs: int | None = None, way: Way | None = None, team: Team = ALONE
) -> tuple[Plan, Estimate | None]:
    """Return how the remote ones of some shards are best scanned, and what that will take.

    Args:
        tasks: what is to be scanned; local ones cost nothing worth telling unless they are many bytes.
        of: shards of the corpus.
        jobs: processes; None for as many as pay.
        way: the only way that is taken; None for the cheaper one.
        team: who shares the work; the estimate is of all, the plan of each of them on this machine.
    """
    # Where another tool's index holds, its shard costs little; where none does, it is scanned without being foreseen.
    far = [task for task in tasks if not is_local(task.url) and not task.foreign]
    if not far:
        near = [task for task in tasks if is_local(task.url)]
        size = sum(task.size for task in near)
        return Plan(ranks=team.ranks), _estimate(near, of, None, team) if size >= LOUD_LOCAL_BYTES else None
    total, largest = sum(task.size for task in far), max(task.size for task in far)
    probes, link = ([], Link()) if total <= SMALL_BYTES else _probe(far, total)
    if not probes:
        seconds = max(team.here(total) / link.total_bytes_per_s, largest / link.bytes_per_s, link.first_byte_s)
        requests = sum(max(1, -(-task.size // SPAN_BYTES)) for task in far)
        cost = Cost("whole", SPAN_BYTES, requests, total, total / MOST_BYTES_PER_S, seconds)
        return Plan(link, _first(cost, way), way, jobs or 1, team.ranks), _estimate(far, of, cost, team)
    spacing = Spacing(
        [stride for probe in probes for stride in probe.spacing.strides],
        [head for probe in probes for head in probe.spacing.heads],
    )

    def best(processes: int) -> Cost:
        hops, whole = scan_costs(
            spacing,
            link,
            shards=team.here(len(far)),
            total_bytes=team.here(total),
            largest_bytes=largest,
            processes=processes * team.ranks,
        )
        return {"hops": hops, "whole": whole, None: cheaper(hops, whole)}[way]

    most = min(cpus() // team.ranks, len(far) // team.world)
    processes = jobs or max(1, min(most, int(best(1).busy_s / team.ranks / PROCESS_PAYS_S)))
    cost = best(processes)
    plan = Plan(link, _first(cost, way), way, processes, team.ranks)
    return plan, _estimate(far, of, cost.of_all(team), team)


def _first(cost: Cost, way: Way | None) -> Step:
    if (way or cost.way) == "whole":
        return Step("whole", SPAN_BYTES, LEAST_SPANS)
    return Step("hops", cost.read_bytes if cost.way == "hops" else FIRST_BYTES, 1)


def _probe(tasks: Sequence[Task], total: int) -> tuple[list[Probe], Link]:
    """Look into a few shards at once; what cannot be read so (compressed, damaged, no ranges) tells nothing."""
    from seta_stream.store.engine import Engine  # noqa: PLC0415  (clients; only where something is remote)

    places = sorted({round(at * (len(tasks) - 1) / (SHARDS - 1)) for at in range(SHARDS)})
    engine = Engine(in_flight=SHARDS * BURST)
    with ThreadPoolExecutor(SHARDS) as pool:
        found = list(pool.map(lambda place: _look(tasks[place], engine), places))
    probes = [probe for probe in found if probe is not None]
    if not probes:
        return [], Link()
    link = Link(
        first_byte_s=min(probe.first_byte_s for probe in probes),
        bytes_per_s=statistics.median(probe.bytes_per_s for probe in probes),
    )
    at_once = min(MOST_BYTES_PER_S, SPANS_AT_ONCE * link.bytes_per_s)
    if total >= BURST_PAYS_BYTES:
        at_once = min(at_once, _burst(max(tasks, key=lambda task: task.size), engine, link))
    return probes, Link(link.first_byte_s, link.bytes_per_s, at_once)


def _look(task: Task, engine: Engine) -> Probe | None:
    try:
        file = store_for(task.url, task.storage_options).open(task.url, task.info, engine=engine)
        try:
            return _measure(task, file)
        finally:
            file.close()
    except SetaStreamError:  # the scan will tell, if it meets it too
        return None


def _measure(task: Task, file: ShardFile) -> Probe | None:
    """Read a shard's begin, its next headers one by one, and a stretch of its middle."""
    scanner, size = TarScanner(task.url), task.size
    head = file.read(0, min(FIRST_BYTES, size))
    if opener_of(head[:HEAD_BYTES]) is not None:
        return None
    if len(head) < scanner.need:
        return None
    scanner.feed(head)
    times: list[float] = []
    while not scanner.finished and scanner.count < MEMBERS and len(times) < HOPS:
        length = min(max(HOP_BYTES, scanner.need), size - scanner.offset)
        if length < scanner.need:
            break
        data, seconds = _timed(file, scanner.offset, length)
        times.append(seconds)
        scanner.feed(data)
    times += [_timed(file, 0, min(HOP_BYTES, size))[1] for _ in range(2)]
    starts, datas = scanner.last(4 * MEMBERS)
    if not starts:
        return None
    length = min(BODY_BYTES, size)
    first_byte_s = min(times)
    seconds = _timed(file, (size - length) // 2, length)[1] - first_byte_s
    spacing = Spacing.between(starts, datas, scanner.offset)
    return Probe(statistics.median(times), length / max(seconds, length / MOST_BYTES_PER_S), spacing)


def _timed(file: ShardFile, offset: int, length: int) -> tuple[bytes, float]:
    began = time.perf_counter()
    data = file.read(offset, length)
    return data, time.perf_counter() - began


def _burst(task: Task, engine: Engine, link: Link) -> float:
    """Return the bytes per second that the link gives to many requests at once."""
    count = min(BURST, task.size // BODY_BYTES)
    if count < LEAST_SPANS:
        return MOST_BYTES_PER_S
    try:
        file = store_for(task.url, task.storage_options).open(task.url, task.info, engine=engine)
        began = time.perf_counter()
        file.read_spans([(number * BODY_BYTES, BODY_BYTES) for number in range(count)])
        seconds = max(time.perf_counter() - began - link.first_byte_s, 1e-6)
        file.close()
    except SetaStreamError:
        return MOST_BYTES_PER_S
    rate = count * BODY_BYTES / seconds
    return rate if rate < NARROW * count * link.bytes_per_s else MOST_BYTES_PER_S


def _estimate(tasks: Sequence[Task], of: int, cost: Cost | None, team: Team = ALONE) -> Estimate:
    url = tasks[0].url
    folder = str(local_path(url).parent) if is_local(url) else shown(url).rpartition("/")[0]
    return Estimate(
        shards=len(tasks),
        of=of,
        shard_bytes=sum(task.size for task in tasks),
        place=folder,
        protocol=protocol_of(url),
        cost=cost,
        team=team,
    )
