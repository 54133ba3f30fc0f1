"""Index files → the cache folders of the machines that lack them.

A cache folder belongs to one machine. Where several share a run, an index that was made on one is carried to the
others: it is a few bytes per sample, and making it again takes a request per sample or all bytes of the shard.

Takes shards whose indexes lie in cache folders alone; gives what could not be kept there. Acts: reads and writes
cache folders; every process of the run must come, in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seta_stream.collective import Collective, from_each
from seta_stream.corpus.ids import ShardFacts
from seta_stream.corpus.index import read_header
from seta_stream.corpus.messages import pack, unpack
from seta_stream.corpus.places import Homes, cache_folder, peek_near
from seta_stream.errors import IndexFileError, ReadError, SetaStreamWarning
from seta_stream.store import store_for

TRIP_BYTES: Final = 32 << 20
"""What one process sends, or receives, at once."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One index to carry.

    Args:
        shard: whose.
        size: bytes of its file.
        sender: the process that reads it.
        receivers: those that write it, each for its machine.
    """

    shard: int
    size: int
    sender: int
    receivers: tuple[int, ...]


def spread(
    collective: Collective,
    shards: Sequence[int],
    facts: Mapping[int, ShardFacts],
    homes: Homes,
    *,
    local_rank: int,
    local_world: int,
    most_held_bytes: int,
) -> dict[int, bytes]:
    """See that the cache folder of every machine holds the indexes of some shards; return those not written here.

    What no machine holds is left out. The processes of a machine divide what it lacks.

    Args:
        collective: of the run.
        shards: the same on every process.
        facts: of each of them.
        homes: where indexes live.
        local_rank, local_world: this process among those of its machine.
        most_held_bytes: of index files that cannot be written; what is more is let go, and made again at need.
    """
    mine = shards[local_rank::local_world]
    replies = from_each(collective, lambda: pack(_look(mine, facts, homes)))
    here: dict[int, bytes] = {}
    refused = held_bytes = 0
    for trip in trips(_parcels([unpack(reply) for reply in replies]), TRIP_BYTES):
        # Each process sends what it holds, and writes what it lacks; nothing here fails on one process alone.
        parts = collective.route(_packed(trip, collective, homes))
        arrived = {shard: file for part in parts for shard, file in unpack(part)}
        for shard, file in _keep(arrived, facts, homes).items():
            refused += 1
            if held_bytes + len(file) <= most_held_bytes:
                here[shard], held_bytes = file, held_bytes + len(file)
    if refused:
        warnings.warn(
            f"{refused} indexes that other machines made cannot be written to {cache_folder()}: {len(here)} of them "
            "stay in the memory of this process, and the rest is scanned again where it is read. Free space there, set "
            "XDG_CACHE_HOME to a folder that can be written, or give state=.",
            SetaStreamWarning,
            stacklevel=3,
        )
    return here


def _look(
    shards: Sequence[int], facts: Mapping[int, ShardFacts], homes: Homes
) -> tuple[list[int], list[int], list[int]]:
    """Return which indexes this machine's cache folder holds, their files' sizes, and which it lacks."""
    there, sizes, lacking = [], [], []
    for shard in shards:
        found = peek_near(homes.place(shard, "cache").url)
        if found is not None and _is_of(found[0], facts[shard]):
            there.append(shard)
            sizes.append(found[1])
        else:
            lacking.append(shard)
    return there, sizes, lacking


def _is_of(header: ShardFacts, wanted: ShardFacts) -> bool:
    return (header.digest, header.shard_size, header.shard_version) == (
        wanted.digest,
        wanted.shard_size,
        wanted.shard_version,
    )


def _parcels(replies: Sequence[tuple[list[int], list[int], list[int]]]) -> list[Parcel]:
    """Return what is to be carried: what some process lacks, from the first one that holds it."""
    holders: dict[int, tuple[int, int]] = {}
    receivers: dict[int, list[int]] = {}
    for rank, (there, sizes, lacking) in enumerate(replies):
        for shard, size in zip(there, sizes, strict=True):
            holders.setdefault(shard, (rank, size))
        for shard in lacking:
            receivers.setdefault(shard, []).append(rank)
    wanted = sorted(shard for shard in receivers if shard in holders)
    return [Parcel(shard, holders[shard][1], holders[shard][0], tuple(receivers[shard])) for shard in wanted]


def trips(parcels: Sequence[Parcel], most_bytes: int) -> Iterator[list[Parcel]]:
    """Divide parcels so that on each trip no process sends or receives more than `most_bytes`, one parcel apart.

    The order of the parcels is kept, and with it, on every process, the number of trips.
    """
    trip: list[Parcel] = []
    sent: dict[int, int] = {}
    received: dict[int, int] = {}
    for parcel in parcels:
        leaving = sent.get(parcel.sender, 0) + parcel.size * len(parcel.receivers)
        coming = max(received.get(rank, 0) for rank in parcel.receivers) + parcel.size
        if trip and max(leaving, coming) > most_bytes:
            yield trip
            trip, sent, received = [], {}, {}
        trip.append(parcel)
        sent[parcel.sender] = sent.get(parcel.sender, 0) + parcel.size * len(parcel.receivers)
        for rank in parcel.receivers:
            received[rank] = received.get(rank, 0) + parcel.size
    if trip:
        yield trip


def _packed(trip: Sequence[Parcel], collective: Collective, homes: Homes) -> list[bytes]:
    """Return what this process sends to each; a file that is gone meanwhile is left out, and is made again at need."""
    parts: list[list[tuple[int, bytes]]] = [[] for _ in range(collective.world)]
    for parcel in trip:
        if parcel.sender == collective.rank:
            url = homes.place(parcel.shard, "cache").url
            try:
                file = store_for(url).read(url)
            except ReadError:
                continue
            for rank in parcel.receivers:
                parts[rank].append((parcel.shard, file))
    return [pack(part) for part in parts]


def _keep(arrived: Mapping[int, bytes], facts: Mapping[int, ShardFacts], homes: Homes) -> dict[int, bytes]:
    """Write what came into the cache folder; return what cannot be written."""
    unwritten: dict[int, bytes] = {}
    for shard, file in arrived.items():
        url = homes.place(shard, "cache").url
        try:
            if not _is_of(read_header(file, url), facts[shard]):  # replaced since it was looked at
                continue
        except IndexFileError:
            continue
        try:
            store_for(url).write(url, file)
        except OSError:
            unwritten[shard] = file
    return unwritten
