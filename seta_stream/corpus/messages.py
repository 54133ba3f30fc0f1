"""What the processes of a run tell each other of a corpus: a survey, built indexes, a plan; as plain bytes.

Takes values of this room; gives msgpack, and the values back, with the places and options of the process that reads
them. URLs are told as they are; what file systems are given never is: it may hold credentials, and each process has its
own. Where an index lives is told by the name of its home, since every machine has a cache folder of its own. Effects:
none but a look at where that folder is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgpack

from seta_stream.corpus.building import Task
from seta_stream.corpus.conditions import Plan, Step
from seta_stream.corpus.costs import Link
from seta_stream.corpus.ids import ShardFacts, ShardRow
from seta_stream.corpus.index import IndexHeader
from seta_stream.corpus.places import HOMES, Home, Homes
from seta_stream.corpus.surveying import Found, Survey
from seta_stream.store import ObjectInfo, Options

if TYPE_CHECKING:
    from seta_stream.corpus.interop import Found as Foreign

_ROW: Final = ("shard_size", "shard_version", "seekable", "samples", "extent_bytes", "digest")
_HEADER: Final = (*_ROW, "tar_size", "members")


def pack(value: Any) -> bytes:
    """Return plain values as bytes; texts need not be UTF-8, since names of files need not."""
    return bytes(msgpack.packb(value, unicode_errors="surrogateescape"))


def unpack(data: bytes) -> Any:
    """Return what `pack` was given; tuples come as lists."""
    return msgpack.unpackb(data, unicode_errors="surrogateescape")


# ---- a survey


def pack_survey(known: Survey, index: str | None, state: str | None) -> bytes:
    """Return a survey as bytes: 100,000 shards take about 15 MB.

    Args:
        known: what was found.
        index: the folder that the user names, or None.
        state: the folder of the run's state, or None.
    """
    homes = {home: number for number, home in enumerate(HOMES)}
    shards, found = list(known.found), list(known.found.values())
    return pack(
        {
            "index": index,
            "state": state,
            "urls": known.urls,
            "found": shards,
            "rows": _columns([one.facts for one in found], _ROW),
            "homes": [bytes(homes[place.home] for place in one.places) for one in found],
            "tasks": [task.shard for task in known.tasks],
            "infos": [[task.info.size for task in known.tasks], [task.info.version for task in known.tasks]],
            "foreign": [[task.shard, _positions(task)] for task in known.tasks if task.foreign],
        }
    )


def unpack_survey(data: bytes, storage_options: Options | None, state_options: Options | None) -> tuple[Survey, Homes]:
    """Return the survey that `pack_survey` was given, and where indexes live, as this process reaches them.

    The indexes that are missing are to be built where every machine finds them, in the state folder; without one, in
    the cache folder.

    Args:
        data: what came.
        storage_options: what this process gives the file system of the shards.
        state_options: what it gives that of the state.
    """
    told = unpack(data)
    urls = tuple(told["urls"])
    homes = Homes(
        urls,
        index=told["index"],
        state=told["state"],
        storage_options=storage_options,
        state_options=state_options,
    )
    rows = map(ShardRow, *told["rows"])
    found = {
        shard: Found(row, tuple(homes.place(shard, HOMES[number]) for number in numbers))
        for shard, row, numbers in zip(told["found"], rows, told["homes"], strict=True)
    }
    target: Home = "cache" if told["state"] is None else "state"
    blank = Task(0, "", ObjectInfo(0, ""), "", storage_options, must_write=False)
    foreign = dict(told["foreign"])
    tasks = []
    for shard, info in zip(told["tasks"], map(ObjectInfo, *told["infos"]), strict=True):
        beside = _at_positions(urls[shard], foreign.get(shard, b""))
        tasks.append(to_home(replace(blank, shard=shard, url=urls[shard], info=info, foreign=beside), homes, target))
    return Survey(urls, found, tuple(tasks)), homes


def to_home(task: Task, homes: Homes, home: Home) -> Task:
    """Return a task whose index goes to one of its homes."""
    place = homes.place(task.shard, home)
    return replace(task, target=place.url, home=home, target_options=place.options or {})


def _positions(task: Task) -> bytes:
    """Return which of the names that other tools' indexes may have are there."""
    from seta_stream.corpus.interop import candidates  # noqa: PLC0415  (sqlite3; only where there is one)

    names = candidates(task.url)
    return bytes(names.index(one) for one in task.foreign)


def _at_positions(url: str, positions: bytes) -> tuple[Foreign, ...]:
    if not positions:
        return ()
    from seta_stream.corpus.interop import candidates  # noqa: PLC0415  (likewise)

    names = candidates(url)
    return tuple(names[position] for position in positions)


# ---- how to scan


def pack_plan(plan: Plan) -> bytes:
    """Return a plan as bytes."""
    link, first = plan.link, plan.first
    rates = [link.first_byte_s, link.bytes_per_s, link.total_bytes_per_s]
    return pack([rates, [first.way, first.read_bytes, first.spans], plan.way, plan.processes])


def unpack_plan(data: bytes, ranks: int) -> Plan:
    """Return the plan that `pack_plan` was given, for a machine with so many processes of the run."""
    rates, first, way, processes = unpack(data)
    return Plan(Link(*rates), Step(*first), way, processes, ranks)


# ---- headers, and what was built


def pack_headers(headers: Mapping[int, IndexHeader]) -> bytes:
    """Return the headers of some shards' indexes as bytes, about 90 each."""
    return pack([list(headers), _columns(list(headers.values()), _HEADER)])


def unpack_headers(data: bytes) -> dict[int, IndexHeader]:
    """Return what `pack_headers` was given."""
    shards, columns = unpack(data)
    headers = (IndexHeader(**dict(zip(_HEADER, row, strict=True))) for row in zip(*columns, strict=True))
    return dict(zip(shards, headers, strict=True))


@dataclass(frozen=True)
class News:
    """What one process has built since it last told.

    Args:
        headers: of the indexes, by shard.
        unwritten: the index files that could not be written, and are small enough to be told.
        is_done: whether it has built all that it had to.
    """

    headers: dict[int, IndexHeader]
    unwritten: dict[int, bytes]
    is_done: bool

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        return pack([pack_headers(self.headers), list(self.unwritten.items()), self.is_done])

    @classmethod
    def from_bytes(cls, data: bytes) -> News:
        """Return what `to_bytes` gave."""
        headers, unwritten, is_done = unpack(data)
        return cls(unpack_headers(headers), dict(unwritten), is_done)


def _columns(facts: Sequence[ShardFacts], names: Sequence[str]) -> list[list[Any]]:
    """Return one list per name: packed so, a hundred thousand rows take a moment."""
    return [[getattr(one, name) for one in facts] for name in names]
