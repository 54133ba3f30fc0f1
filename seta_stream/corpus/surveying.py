"""URLs → the shards as they are now, the indexes that fit them, and what is left to build.

Takes what a user writes; gives a survey: plain values that one process can make and send to others. Acts: lists
folders, reads the headers of indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seta_stream.corpus.building import Task
from seta_stream.corpus.folders import Folders
from seta_stream.corpus.ids import ShardFacts, ShardTable
from seta_stream.corpus.listing import Urls, expand
from seta_stream.corpus.places import Homes, Place, Places, cache_url, fits, read_headers
from seta_stream.errors import IndexFileError, ReadError
from seta_stream.store import ObjectInfo, Options, is_local, join, store_for

if TYPE_CHECKING:
    from seta_stream.corpus.interop import Found as Foreign

CORPUS_FILE: Final = "corpus"
"""Name of the shard table in a state folder."""


@dataclass(frozen=True)
class Found:
    """A shard that has an index.

    Args:
        facts: what the shard table needs of it.
        places: where the index lies; where several are named, the first that fits is the one.
    """

    facts: ShardFacts
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Survey:
    """A corpus as it is now.

    Args:
        urls: the shards, normalised.
        found: those with an index, by number.
        tasks: the others: what is to be built, in order of the shards.
    """

    urls: tuple[str, ...]
    found: dict[int, Found]
    tasks: tuple[Task, ...]


def survey(
    urls: Urls,
    *,
    index: str | None = None,
    state: str | None = None,
    storage_options: Options | None = None,
    state_options: Options | None = None,
) -> Survey:
    """Return what is known of the shards that `urls` names; for their arguments see indexing.open_corpus.

    A bucket is asked a handful of times for its listings. Of an index whose shard stands in the state's table as it is
    now, nothing is read; of the others the headers, many at once.

    Raises:
        CorpusError: nothing matches, or a shard is named twice.
        ReadError: a shard is missing or cannot be read.
    """
    shards = expand(urls, storage_options)
    folders = Folders(storage_options)
    infos = folders.infos(shards)
    homes = Homes(shards, index=index, state=state, storage_options=storage_options, state_options=state_options)
    places = Places(homes, folders)
    candidates = [places.candidates(shard) for shard in range(len(shards))]
    found = _in_state(shards, infos, candidates, state, state_options)
    rest = [shard for shard in range(len(shards)) if shard not in found]
    found.update(fitting(rest, infos, candidates))
    missing = {shard: url for shard, url in enumerate(shards) if shard not in found}
    foreign = _foreign(list(missing.values()), folders)
    tasks = [
        Task(shard, url, infos[shard], cache_url(url), storage_options, must_write=False, foreign=foreign.get(url, ()))
        for shard, url in missing.items()
    ]
    return Survey(tuple(shards), found, tuple(tasks))


def _foreign(urls: Sequence[str], folders: Folders) -> dict[str, tuple[Foreign, ...]]:
    """Return other tools' indexes beside remote shards; local ones are scanned as fast as they are checked."""
    far = [url for url in urls if not is_local(url)]
    if not far:
        return {}
    from seta_stream.corpus.interop import lying_beside  # noqa: PLC0415  (sqlite3; only where something is built)

    return dict(zip(far, lying_beside(far, folders), strict=True))


def fitting(
    shards: Sequence[int], infos: Sequence[ObjectInfo], candidates: Sequence[Sequence[Place]]
) -> dict[int, Found]:
    """Return, of some shards, those that have an index that fits, the best one first looked at.

    An index of an older version of the shard is passed over in silence, a damaged one with a warning.
    """
    found: dict[int, Found] = {}
    left, rank = [shard for shard in shards if candidates[shard]], 0
    while left:
        for shard, header in zip(left, read_headers([candidates[shard][rank] for shard in left]), strict=True):
            if header is not None and fits(header, infos[shard]):
                found[shard] = Found(header, (candidates[shard][rank],))
        rank += 1
        left = [shard for shard in left if shard not in found and len(candidates[shard]) > rank]
    return found


def _in_state(
    shards: Sequence[str],
    infos: Sequence[ObjectInfo],
    candidates: Sequence[Sequence[Place]],
    state: str | None,
    options: Options | None,
) -> dict[int, Found]:
    """Return the shards that the state's table describes as they are now, and for which an index lies somewhere."""
    if state is None:
        return {}
    place = join(state, CORPUS_FILE)
    try:
        table = ShardTable.from_bytes(store_for(place, options).read(place), place)
    except (ReadError, IndexFileError):  # a first run, or one whose table is damaged: the indexes tell as well
        return {}
    rows = dict(zip(table.urls, table.rows(), strict=True))
    found: dict[int, Found] = {}
    for shard, url in enumerate(shards):
        row = rows.get(url)
        if row is not None and candidates[shard] and fits(row, infos[shard]):
            found[shard] = Found(row, tuple(candidates[shard]))
    return found
