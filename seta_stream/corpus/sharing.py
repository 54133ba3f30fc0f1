"""URLs → the same corpus in every process of a run, listed once and scanned by all of them together.

Takes what a user writes, and where this process stands; gives what indexing.open_corpus does. Acts: process 0 lists
folders and reads the headers of indexes; each process scans its part of the shards that have none and writes their
indexes, where all machines find them (the state folder) or into its machine's cache folder, from where they are carried
to the other machines. What is told is plain bytes (messages.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from seta_stream.collective import Collective, agree, from_each, from_first
from seta_stream.corpus.background import Background
from seta_stream.corpus.building import Built, Task, build
from seta_stream.corpus.conditions import Plan
from seta_stream.corpus.costs import Team
from seta_stream.corpus.ids import ShardFacts
from seta_stream.corpus.index import IndexHeader
from seta_stream.corpus.indexing import Corpus, announce, assemble, open_corpus, with_bar
from seta_stream.corpus.listing import Urls
from seta_stream.corpus.messages import (
    News,
    pack,
    pack_headers,
    pack_plan,
    pack_survey,
    unpack,
    unpack_headers,
    unpack_plan,
    unpack_survey,
)
from seta_stream.corpus.places import Homes, fits
from seta_stream.corpus.probing import foresee
from seta_stream.corpus.sights import Sight, differing, look, merged, own_part
from seta_stream.corpus.spreading import spread
from seta_stream.corpus.surveying import Survey, survey
from seta_stream.errors import SetaStreamWarning
from seta_stream.store import Options, is_local

TOLD_EVERY_S: Final = 2.0
"""How often those that scan tell each other how far they are: a damaged shard ends all of them so soon, and nobody
waits for another for as long as a large shard takes."""
HELD_BYTES: Final = 64 << 20
"""Index files that no folder took, and that every process keeps in memory."""


def open_corpus_together(
    urls: Urls,
    *,
    collective: Collective,
    local_rank: int,
    local_world: int,
    machines: int,
    index: str | None = None,
    state: str | None = None,
    storage_options: Options | None = None,
    state_options: Options | None = None,
    progress: bool = True,
) -> Corpus:
    """Return the corpus that `urls` names, the same on every process of a run, no shard scanned twice.

    All processes call it at the same point. What process 0 is given as `urls`, `index` and `state` holds for all.
    Indexes that are missing are written to `<state>/index`, or without a state into the cache folders of the machines,
    each of which has them all in the end; where machines have copies of a corpus of files, each scans its own.

    Args:
        urls, index, state: as for indexing.open_corpus.
        collective: of the run.
        local_rank, local_world: this process among those of its machine.
        machines: on how many machines the run is.
        storage_options: what this process gives the file system of the shards; never told to others.
        state_options: what it gives that of the state; likewise.
        progress: whether process 0 tells on stderr what building takes, and shows a bar of all that is built.

    Raises:
        CorpusError: as for open_corpus; or the machines see other shards than process 0 does.
        ReadError: a shard is missing or cannot be read.
        PeerError: another process left, or failed by something else.
    """
    if collective.world == 1:
        return open_corpus(
            urls,
            index=index,
            state=state,
            storage_options=storage_options,
            state_options=state_options,
            progress=progress,
        )

    def surveyed() -> bytes:
        known = survey(urls, index=index, state=state, storage_options=storage_options, state_options=state_options)
        return pack_survey(known, index, state)

    known, homes = unpack_survey(from_first(collective, surveyed), storage_options, state_options)
    seat = Seat(collective, local_rank, local_world, machines)
    is_apart = False
    if machines > 1:
        known, is_apart = _compare(seat, known, homes)
    share = Share(seat, known, homes, storage_options, is_apart=is_apart)
    ledger = Ledger(known)
    if known.tasks or is_apart:
        share.plan = _foresee(seat, known, progress=progress)
        shows_bar = progress and collective.rank == 0
        for _ in with_bar(_scan(collective, share, ledger), known.tasks, progress=shows_bar):
            pass
    held = ledger.unwritten | share.kept
    if machines > 1:
        held |= _spread(seat, known, ledger, homes, is_apart=is_apart)
    corpus = assemble(known, ledger.built(), storage_options, held)
    agree(collective, f"SetaStream(…) over the corpus {corpus.table.fingerprint().hex()}")
    return corpus


@dataclass(frozen=True)
class Seat:
    """Where this process stands; see open_corpus_together."""

    collective: Collective
    local_rank: int
    local_world: int
    machines: int


def _compare(seat: Seat, known: Survey, homes: Homes) -> tuple[Survey, bool]:
    """Return the survey as all machines see it, and whether each is on its own with the shards that are files."""

    def seen() -> bytes:
        sight = look(known, homes, seat.local_rank, seat.local_world)
        return pack([sight.is_apart, pack_headers(sight.cached)])

    told = map(unpack, from_each(seat.collective, seen))
    return merged(known, homes, [Sight(is_apart, unpack_headers(cached)) for is_apart, cached in told])


def _foresee(seat: Seat, known: Survey, *, progress: bool) -> Plan:
    """Return how this process scans; process 0 looks ahead for all, and tells a person what it takes."""
    team = Team(seat.collective.world, seat.local_world, seat.machines)

    def foreseen() -> bytes:
        plan, estimate = foresee(known.tasks, len(known.urls), team=team)
        if estimate is not None and progress:
            announce(estimate)
        return pack_plan(plan)

    return unpack_plan(from_first(seat.collective, foreseen), seat.local_world)


def deal(tasks: Sequence[Task], rank: int, world: int) -> list[Task]:
    """Return the part of one process: like numbers of shards, and large ones dealt out first."""
    return sorted(tasks, key=lambda task: -task.size)[rank::world]


class Share:
    """What this process scans, told piece by piece.

    Args:
        seat: where it stands.
        known: the survey.
        homes: where indexes live.
        options: what the file system of the shards is given.
        is_apart: whether each machine is on its own with the shards that are files.
    """

    def __init__(self, seat: Seat, known: Survey, homes: Homes, options: Options | None, *, is_apart: bool) -> None:
        self.plan = Plan()
        """How it scans."""
        self.kept: dict[int, bytes] = {}
        """Index files that could not be written."""
        self._seat = seat
        self._known = known
        self._homes = homes
        self._options = options
        self._is_apart = is_apart
        self._work: Background[Built] | None = None
        self._left_bytes = HELD_BYTES // seat.collective.world
        self._untold: list[Task] = []

    def news(self) -> bytes:
        """Return what came of the scan within a while, begun with what needs none.

        Raises:
            CorpusError, ReadError: as for building.build, and sights.own_part.
        """
        headers: dict[int, IndexHeader] = {}
        unwritten: dict[int, bytes] = {}
        if self._work is None:
            tasks, headers = self._part()
            self._work = Background(lambda halt: build(tasks, plan=self.plan, halt=halt))
        results, is_done = self._work.take(TOLD_EVERY_S)
        for built in results:
            headers[built.task.shard] = built.header
            if built.data is not None:
                unwritten.update(self._keep(built.task, built.data))
        if is_done:
            self._warn()
        return News(headers, unwritten, is_done).to_bytes()

    def close(self) -> None:
        """Give up what is under way."""
        if self._work is not None:
            self._work.close()

    def _part(self) -> tuple[list[Task], dict[int, IndexHeader]]:
        """Return what this process scans, and the headers of indexes that it alone knows."""
        seat, tasks = self._seat, self._known.tasks
        if not self._is_apart:
            return deal(tasks, seat.collective.rank, seat.collective.world), {}
        own, headers = own_part(self._known, self._homes, seat.local_rank, seat.local_world, self._options)
        far = [task for task in tasks if not is_local(task.url)]
        return [*deal(far, seat.collective.rank, seat.collective.world), *own], headers

    def _keep(self, task: Task, data: bytes) -> dict[int, bytes]:
        """Keep an index that could not be written; return it as what others are told, if they can use it."""
        self.kept[task.shard] = data
        if self._is_apart and is_local(task.url):
            return {}
        if len(data) > self._left_bytes:
            self._untold.append(task)
            return {}
        self._left_bytes -= len(data)
        return {task.shard: data}

    def _warn(self) -> None:
        untold, self._untold = self._untold, []
        if untold:
            warnings.warn(
                f"{len(untold)} indexes cannot be written, as that of {untold[0].url} to {untold[0].target}, and are "
                "too large to be kept in the memory of every process: others scan these shards again where they read "
                "them. Free space there, set XDG_CACHE_HOME to a folder that can be written, or give state=.",
                SetaStreamWarning,
                stacklevel=4,
            )


class Ledger:
    """What all processes have built, as it is told.

    Args:
        known: the survey.
    """

    def __init__(self, known: Survey) -> None:
        self.unwritten: dict[int, bytes] = {}
        """Index files that could not be written, and were told."""
        self.headers: dict[int, IndexHeader] = {}
        """Of the shards that had no index, those whose index was told."""
        self._tasks = {task.shard: task for task in known.tasks}
        self._digests = {shard: found.facts.digest for shard, found in known.found.items()}
        self._urls = known.urls

    def take(self, news: Sequence[News]) -> Iterator[Built]:
        """Note what the processes tell, in rank order; give what is new.

        Raises:
            CorpusError: two copies of a shard differ.
        """
        for rank, one in enumerate(news):
            self.unwritten |= one.unwritten
            for shard, header in one.headers.items():
                known = self._digests.setdefault(shard, header.digest)
                if header.digest != known:
                    raise differing(self._urls[shard], known, header.digest, f"for process {rank}")
                task = self._tasks.get(shard)
                if task is None:
                    continue  # this machine's own index of a shard that has one elsewhere
                is_new = shard not in self.headers
                # Of copies with different times, the table tells that of process 0.
                if is_new or fits(header, task.info):
                    self.headers[shard] = header
                if is_new:
                    yield Built(task, header, 0, None, None)

    def built(self) -> list[Built]:
        """Return what was built, by all."""
        return [Built(self._tasks[shard], header, 0, None, None) for shard, header in self.headers.items()]


def _scan(collective: Collective, share: Share, ledger: Ledger) -> Iterator[Built]:
    """Scan the shares of all processes; give what any of them has done, as it is told."""
    with closing(share):
        is_done = False
        while not is_done:
            news = [News.from_bytes(part) for part in from_each(collective, share.news)]
            yield from ledger.take(news)
            is_done = all(one.is_done for one in news)


def _spread(seat: Seat, known: Survey, ledger: Ledger, homes: Homes, *, is_apart: bool) -> dict[int, bytes]:
    """Carry the indexes that lie in cache folders alone to the machines that lack them; return what stays in memory."""
    facts: dict[int, ShardFacts] = {
        shard: found.facts
        for shard, found in known.found.items()
        if {place.home for place in found.places} == {"cache"}
    }
    facts.update(
        (task.shard, ledger.headers[task.shard])
        for task in known.tasks
        if task.home == "cache" and task.shard not in ledger.unwritten
    )
    if is_apart:
        facts = {shard: fact for shard, fact in facts.items() if not is_local(known.urls[shard])}
    if not facts:
        return {}
    return spread(
        seat.collective,
        sorted(facts),
        facts,
        homes,
        local_rank=seat.local_rank,
        local_world=seat.local_world,
        most_held_bytes=HELD_BYTES,
    )
