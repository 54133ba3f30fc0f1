"""Verifies a corpus and its state: shards in several processes, then what only all of them together tell.

Takes a Request; gives a Verified. Acts: all that shards.py and states.py do; nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from seta_stream.corpus.folders import AT_ONCE, Folders
from seta_stream.corpus.listing import Urls, expand, options_at
from seta_stream.corpus.places import Home, Homes, Place, Places
from seta_stream.errors import ReadError
from seta_stream.jobs import Engine, run
from seta_stream.read.decode import decoder
from seta_stream.store import ObjectInfo, Options, is_local, is_web
from seta_stream.verifying.contents import differing_fields
from seta_stream.verifying.findings import Finding, ordered
from seta_stream.verifying.hashes import KeyHashes, Returning
from seta_stream.verifying.shards import ShardLook, ShardTask, keys_at, look
from seta_stream.verifying.states import Corpus, StateLook, look_at_state

if TYPE_CHECKING:
    from seta_stream.corpus.ids import ShardRow


@dataclass(frozen=True)
class Request:
    """What is to be verified.

    Args:
        urls: the shards, as listing.expand takes them.
        state: folder of a run's state; None for none.
        index: folder of the shards' indexes, if they are not beside them.
        decode: name of a decoder that every sample is put through; None for none.
        engine: where the shards are looked at.
        storage_options: of the shards' file system.
        state_options: of the state's; those of the shards where the protocol is the same.
    """

    urls: Urls
    state: str | None = None
    index: str | None = None
    decode: str | None = None
    engine: Engine = field(default_factory=Engine)
    storage_options: Options | None = field(default=None, repr=False)
    state_options: Options | None = field(default=None, repr=False)

    @property
    def of_state(self) -> Options | None:
        """Options of the state's file system."""
        return options_at(self.state or "", self.urls, self.storage_options, self.state_options)


@dataclass(frozen=True)
class Progress:
    """How far it has come: shards and bytes, done and all."""

    shards_done: int
    shards: int
    bytes_done: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Verified:
    """What was found.

    Args:
        request: what was asked.
        tasks: one per shard.
        corpus: the shards as they are.
        state: what was seen of the state; None where none was named.
        findings: the gravest first.
        samples, members: of the shards that could be scanned.
        bytes: of all shards.
        seconds: wall time.
    """

    request: Request
    tasks: tuple[ShardTask, ...]
    corpus: Corpus
    state: StateLook | None
    findings: tuple[Finding, ...]
    samples: int
    members: int
    bytes: int
    seconds: float


def verify(request: Request, progress: Callable[[Progress], None] | None = None) -> Verified:
    """Look at every shard, its indexes and the state, and return what is wrong; damage is found, never raised.

    Args:
        request: what is to be verified.
        progress: is called after each shard.

    Raises:
        CorpusError: the URLs name no shard.
        ArgumentError: an option is wrong.
        StateError: nothing lies where the state should be.
    """
    started = time.perf_counter()
    decoder(request.decode)  # refuses a wrong name before an hour is spent
    tasks = _tasks(request)
    rows: list[ShardRow | None] = [None] * len(tasks)
    findings: list[Finding] = []
    looks: dict[int, ShardLook] = {}
    tell = progress or (lambda _: None)
    whole, done = sum(task.size for task in tasks), 0
    tell(Progress(0, len(tasks), 0, whole))
    with KeyHashes() as keys:
        for task, seen in _looks(tasks, request.engine):
            rows[seen.number] = seen.row
            findings += seen.findings
            keys.add(seen.number, seen.hashes)
            looks[seen.number] = ShardLook(seen.number, (), sets=seen.sets, members=seen.members)
            done += task.size
            tell(Progress(len(looks), len(tasks), done, whole))
        findings += _elsewhere(keys.returning(), tasks)
    findings += differing_fields(one for number in sorted(looks) for one in looks[number].sets)
    corpus = Corpus(tuple(task.url for task in tasks), tuple(rows))
    state = None
    if request.state is not None:
        state = look_at_state(request.state, request.of_state, corpus)
        findings += state.findings
    return Verified(
        request=request,
        tasks=tuple(tasks),
        corpus=corpus,
        state=state,
        findings=tuple(ordered(findings)),
        samples=sum(row.samples for row in rows if row is not None),
        members=sum(one.members for one in looks.values()),
        bytes=whole,
        seconds=round(time.perf_counter() - started, 3),
    )


def _looks(tasks: Sequence[ShardTask], engine: Engine) -> Iterator[tuple[ShardTask, ShardLook]]:
    """Give each shard with what was seen of it, in any order.

    Remote ones wait for requests: without a cluster, many are looked at at once in threads of this process.
    """
    far = [task for task in tasks if engine.is_local and not is_local(task.url)]
    near = [task for task in tasks if not (engine.is_local and not is_local(task.url))]
    if engine.is_local and near:
        # Decoding takes more than reading: every sample is work for a processor.
        size = None if near[0].decode is not None else sum(task.size for task in near)
        engine = replace(engine, jobs=engine.processes(len(near), size))
    yield from run(look, near, engine) if near else ()
    if far:
        with ThreadPoolExecutor(min(len(far), engine.jobs or AT_ONCE), thread_name_prefix="seta-verify") as pool:
            try:
                waiting = {pool.submit(look, task): task for task in far}
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _tasks(request: Request) -> list[ShardTask]:
    urls = expand(request.urls, request.storage_options)
    folders = Folders(request.storage_options)
    homes = Homes(
        urls,
        index=request.index,
        state=request.state,
        storage_options=request.storage_options,
        state_options=request.of_state if request.state is not None else None,
    )
    places = Places(homes, folders)
    infos = _infos(urls, folders)
    return [
        ShardTask(
            number=number,
            url=url,
            info=infos[number],
            places=tuple(places.candidates(number)),
            target=_target(request, homes, number, url),
            options=request.storage_options,
            decode=request.decode,
        )
        for number, url in enumerate(urls)
    ]


def _target(request: Request, homes: Homes, number: int, url: str) -> Place:
    """Return where a shard's index should be written: into the named folder, beside it, or where neither can be."""
    home: Home = "index" if request.index is not None else "cache" if is_web(url) else "beside"
    return homes.place(number, home)


def _infos(urls: Sequence[str], folders: Folders) -> list[ObjectInfo | None]:
    """Return size and version of each shard; None for one that is not there, where others may be."""
    try:
        return list(folders.infos(urls))
    except ReadError:
        return [_info(url, folders) for url in urls]


def _info(url: str, folders: Folders) -> ObjectInfo | None:
    try:
        return folders.infos([url])[0]
    except ReadError:
        return None


def _elsewhere(found: Returning, tasks: Sequence[ShardTask]) -> list[Finding]:
    """Return one finding for all keys that stand in more than one shard; the first is read where it stands."""
    for (shard, position), (other, there) in found.places:
        key, _ = keys_at(tasks[shard], position)
        again, offset = keys_at(tasks[other], there)
        if key != again:  # two keys of one hash: of 15 million, about one pair in 160,000 corpora
            continue
        what = (
            f"{found.keys} keys stand in more than one shard, with {found.samples} samples besides the first of each; "
            f"{key!r} is in {tasks[shard].url} and in {tasks[other].url}."
        )
        return [Finding("key-elsewhere", what, tasks[other].url, key, offset, count=found.samples)]
    return []
