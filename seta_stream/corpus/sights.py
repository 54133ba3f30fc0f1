"""What each machine of a run sees of a corpus that one process has surveyed.

A bucket is the same from everywhere. Files need not be: machines may share a disk, or have a copy of the corpus each,
with other times and without the indexes beside it; and each has a cache folder of its own.

Takes a survey; gives what is there on this machine, and what it has to scan for itself. Acts: looks at files, reads the
headers of local indexes.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seta_stream.corpus.building import Task
from seta_stream.corpus.ids import ShardFacts
from seta_stream.corpus.index import IndexHeader
from seta_stream.corpus.messages import to_home
from seta_stream.corpus.places import Homes, Place, fits, peek_near
from seta_stream.corpus.surveying import Found, Survey
from seta_stream.errors import CorpusError, ReadError
from seta_stream.store import ObjectInfo, Options, is_local, store_for

_LOOKED: Final = 256
"""Shards that each process looks at to tell whether its machine has copies of its own: on a shared disk a thousand
processes ask for them at once."""


@dataclass(frozen=True)
class Sight:
    """What one process of a machine found there.

    Args:
        is_apart: whether the machine's files are others than process 0 sees: copies, or without their indexes.
        cached: headers of the indexes in the machine's cache folder of shards that have none elsewhere.
    """

    is_apart: bool
    cached: dict[int, IndexHeader]


def look(known: Survey, homes: Homes, local_rank: int, local_world: int) -> Sight:
    """Return what this process finds of its part; those of a machine divide what there is to look at.

    Raises:
        CorpusError: a shard that is a file is not there on this machine, or has another size.
    """
    mine = local_shards(known)[local_rank::local_world]
    expected = _expected(known)
    is_apart = False
    for shard in mine[:: max(1, -(-len(mine) // _LOOKED))]:
        found = known.found.get(shard)
        is_apart |= _info_here(known.urls[shard], expected[shard].size) != expected[shard]
        is_apart |= found is not None and not _is_there(found.places[0])
    cached = {}
    for task in known.tasks[local_rank::local_world]:
        peeked = peek_near(homes.place(task.shard, "cache").url)
        if peeked is not None and fits(peeked[0], task.info):
            cached[task.shard] = peeked[0]
    return Sight(is_apart, cached)


def local_shards(known: Survey) -> list[int]:
    """Return the shards that are files."""
    return [shard for shard, url in enumerate(known.urls) if is_local(url)]


def merged(known: Survey, homes: Homes, sights: Sequence[Sight]) -> tuple[Survey, bool]:
    """Return the survey with what the machines' cache folders hold, and whether some machine sees other files.

    Where one does, each machine is on its own with the shards that are files.
    """
    is_apart = any(sight.is_apart for sight in sights)
    cached = {shard: header for sight in reversed(sights) for shard, header in sight.cached.items()}
    if is_apart:
        cached = {shard: header for shard, header in cached.items() if not is_local(known.urls[shard])}
    added = {shard: Found(header, (homes.place(shard, "cache"),)) for shard, header in cached.items()}
    tasks = tuple(task for task in known.tasks if task.shard not in added)
    return Survey(known.urls, known.found | added, tasks), is_apart


def own_part(
    known: Survey, homes: Homes, local_rank: int, local_world: int, options: Options | None
) -> tuple[list[Task], dict[int, IndexHeader]]:
    """Return which shards that are files this process scans for its machine, and the indexes it found of others.

    Only those are told whose index no other process knows.

    Raises:
        CorpusError: a shard is not there on this machine, or is another one than process 0 sees.
    """
    tasks, headers = [], {}
    expected = _expected(known)
    for shard in local_shards(known)[local_rank::local_world]:
        info = _info_here(known.urls[shard], expected[shard].size)
        found = known.found.get(shard)
        header = _index_here(homes.place(shard, "cache"), found, info)
        if header is None:
            task = Task(shard, known.urls[shard], info, "", options, must_write=False)
            tasks.append(to_home(task, homes, "cache"))
        elif found is None:
            assert isinstance(header, IndexHeader)  # noqa: S101  (only what process 0 found comes as less)
            headers[shard] = header
        elif header.digest != found.facts.digest:
            raise differing(known.urls[shard], found.facts.digest, header.digest, f"on {platform.node()}")
    return tasks, headers


def differing(url: str, expected: bytes, found: bytes, where: str) -> CorpusError:
    """Return the error of a shard whose copies on the machines are not the same."""
    return CorpusError(
        f"Cannot open {url} on every machine: {where} its keys or sizes are others than process 0 knows, so the copies "
        "differ. Copy the shard anew, or put the corpus where all machines see the same files.",
        shard=url,
        expected=expected.hex(),
        found=found.hex(),
    )


def _index_here(cache: Place, found: Found | None, info: ObjectInfo) -> ShardFacts | None:
    """Return the header of an index that fits this machine's copy of a shard; None where there is none."""
    for place in (*(found.places if found is not None else ()), cache):
        if is_local(place.url):
            peeked = peek_near(place.url)
            if peeked is not None and fits(peeked[0], info):
                return peeked[0]
        elif found is not None and fits(found.facts, info):
            return found.facts
    return None


def _expected(known: Survey) -> dict[int, ObjectInfo]:
    """Return each shard's size and version as process 0 sees them."""
    found = {shard: ObjectInfo(one.facts.shard_size, one.facts.shard_version) for shard, one in known.found.items()}
    return found | {task.shard: task.info for task in known.tasks}


def _info_here(url: str, size: int) -> ObjectInfo:
    """Return size and version of this machine's copy of a shard, which must have `size` bytes."""
    try:
        info = store_for(url).info(url)
    except ReadError as error:
        raise CorpusError(
            f"Cannot open {url} on {platform.node()}: {error} Process 0 sees it, with {size} bytes: every machine must "
            "see every shard. Put the corpus on a shared disk or into a bucket, or copy all of it to every machine.",
            shard=url,
            expected=size,
        ) from error
    if info.size != size:
        raise CorpusError(
            f"Cannot open {url} on {platform.node()}: it has {info.size} bytes there, and {size} where process 0 is. "
            "Copy the shard anew, or put the corpus where all machines see the same files.",
            shard=url,
            expected=size,
            found=info.size,
        )
    return info


def _is_there(place: Place) -> bool:
    """Say whether what process 0 found beside a shard or in a named folder is there; each cache folder is its own."""
    return place.home == "cache" or not is_local(place.url) or store_for(place.url).exists(place.url)
