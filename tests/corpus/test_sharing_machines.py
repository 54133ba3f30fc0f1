"""Several machines open a corpus together: each ends with what it needs, and no shard of a bucket is scanned twice."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from corpus_tars import SAMPLES, sample_shard
from hypothesis import given
from hypothesis import strategies as st
from process_team import run_processes
from servers import S3Endpoint
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream.corpus import places, sharing, spreading
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.places import Homes, cache_url
from seta_stream.corpus.sharing import open_corpus_together
from seta_stream.corpus.spreading import Parcel, trips
from seta_stream.errors import SetaStreamWarning

SHARDS = 9


class Machines:
    """Machines that threads play: each has a cache folder of its own, and its ranks follow each other.

    Args:
        folder: in which the cache folders lie.
        ranks: how many ranks each machine has.
    """

    def __init__(self, folder: Path, ranks: Sequence[int]) -> None:
        self.caches = [folder / f"cache-{machine}" for machine in range(len(ranks))]
        self._seats = [(machine, rank) for machine, count in enumerate(ranks) for rank in range(count)]
        self._ranks = ranks
        self.team = ThreadTeam(len(self._seats))

    def cache_folder(self) -> Path:
        """Return the folder of the machine whose thread asks."""
        rank = int(threading.current_thread().name.removeprefix("rank "))
        return self.caches[self._seats[rank][0]]

    def indexes(self) -> list[int]:
        """Return how many indexes each cache folder holds."""
        return [len(list(cache.iterdir())) if cache.is_dir() else 0 for cache in self.caches]

    def open(self, urls: Any, use: Callable[[Corpus], Any] = lambda corpus: corpus, **options: Any) -> list[Any]:
        """Return what `use` makes of each rank's corpus."""

        def one(collective: ThreadCollective) -> Any:
            machine, rank = self._seats[collective.rank]
            place = {"local_rank": rank, "local_world": self._ranks[machine], "machines": len(self._ranks)}
            return use(open_corpus_together(urls, collective=collective, progress=False, **place, **options))

        return self.team.run(one)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machines]:
    """Make machines with so many ranks each."""

    def make(*ranks: int) -> Machines:
        made = Machines(tmp_path, ranks)
        for module in (places, spreading):
            monkeypatch.setattr(module, "cache_folder", made.cache_folder)
        return made

    return make


def keys_of(corpus: Corpus) -> list[list[str]]:
    return [corpus.index(shard).keys for shard in range(len(corpus.table))]


KEYS = [[f"{shard:04d}-{sample}" for sample in range(SAMPLES)] for shard in range(SHARDS)]


@pytest.mark.parametrize("ranks", [(1, 1), (2, 2), (1, 3), (1, 1, 1)])
@pytest.mark.parametrize("size", [0, 1 << 30])
def test_every_machine_ends_with_every_index(
    machines: Callable[..., Machines],
    s3_server: S3Endpoint,
    fill: Callable[..., str],
    scanned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    ranks: tuple[int, ...],
    size: int,
) -> None:
    """Without a state each shard is scanned by one rank, and its index carried to the other machines: in many trips
    and in one."""
    monkeypatch.setattr(spreading, "TRIP_BYTES", size)
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(*ranks)
    options = {"storage_options": s3_server.options}
    assert made.open(pattern, keys_of, **options) == [KEYS] * sum(ranks)
    assert made.indexes() == [SHARDS] * len(ranks)
    assert len(scanned) == len(set(scanned)) == SHARDS
    tables = made.open(pattern, lambda corpus: corpus.table.to_bytes(), **options)
    assert len(set(tables)) == 1
    assert len(scanned) == SHARDS


@pytest.mark.parametrize("holder", [0, 1])
def test_what_one_machine_has_is_carried(
    machines: Callable[..., Machines], s3_server: S3Endpoint, fill: Callable[..., str], scanned: list[str], holder: int
) -> None:
    """Whichever it is: the indexes of an earlier run, in the cache folder of one, spare the scan of all."""
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(2, 2)
    made.open(pattern, storage_options=s3_server.options)
    scanned.clear()
    shutil.rmtree(made.caches[1 - holder])
    next(made.caches[holder].iterdir()).unlink()
    assert made.open(pattern, keys_of, storage_options=s3_server.options) == [KEYS] * 4
    assert made.indexes() == [SHARDS, SHARDS]
    assert len(scanned) == 1


def test_with_a_state_nothing_is_carried(
    machines: Callable[..., Machines],
    s3_server: S3Endpoint,
    s3_bucket: str,
    fill: Callable[..., str],
    scanned: list[str],
) -> None:
    """All machines find the indexes there, and their cache folders stay as they were."""
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(2, 2)
    options = {"storage_options": s3_server.options, "state_options": s3_server.options, "state": f"{s3_bucket}/run"}
    for _ in range(2):
        assert made.open(pattern, keys_of, **options) == [KEYS] * 4
    assert made.indexes() == [0, 0]
    assert len(scanned) == SHARDS
    assert {name for one in made.team.collectives for name in one.calls} == {"broadcast", "gather"}


def test_one_cache_folder_for_all_machines_is_filled_once(
    machines: Callable[..., Machines], s3_server: S3Endpoint, fill: Callable[..., str], scanned: list[str]
) -> None:
    """A home on a shared disk: nothing is missing anywhere, so nothing is carried."""
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(2, 1)
    made.caches[1] = made.caches[0]
    assert made.open(pattern, keys_of, storage_options=s3_server.options) == [KEYS] * 3
    assert (made.indexes(), len(scanned)) == ([SHARDS, SHARDS], SHARDS)
    assert "route" not in {name for one in made.team.collectives for name in one.calls}


@pytest.mark.parametrize(("held", "kept"), [(1 << 20, 9), (0, 0)])
def test_a_machine_that_cannot_keep_indexes_says_so(
    machines: Callable[..., Machines],
    s3_server: S3Endpoint,
    fill: Callable[..., str],
    scanned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    kept: int,
) -> None:
    """What came is held in memory up to a limit, and what is beyond is made again at need."""
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(2, 1)
    made.open(pattern, storage_options=s3_server.options)
    scanned.clear()
    shutil.rmtree(made.caches[1])
    made.caches[1].write_bytes(b"")
    monkeypatch.setattr(sharing, "HELD_BYTES", held)
    told = rf"9 indexes that other machines made cannot be written to .*cache-1: {kept} of them stay in the memory"
    with pytest.warns(SetaStreamWarning, match=told):
        corpora = made.open(pattern, storage_options=s3_server.options)
    assert [len(corpus._held) for corpus in corpora] == [0, 0, kept]
    assert scanned == []


def test_what_cannot_be_carried_is_made_again(
    machines: Callable[..., Machines],
    s3_server: S3Endpoint,
    fill: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gone, damaged or replaced between the look and the trip: nothing wrong is kept, and nobody waits."""
    pattern, made = f"{fill(SHARDS)}/*.tar", machines(1, 1)
    options = {"storage_options": s3_server.options}
    made.open(pattern, **options)
    shutil.rmtree(made.caches[1])
    plain = spreading._packed

    def packed(trip: list[Parcel], collective: Any, homes: Homes) -> list[bytes]:
        if collective.rank == 0:
            files = [Path(homes.place(parcel.shard, "cache").url) for parcel in trip]
            files[0].unlink()
            files[1].write_bytes(b"rubbish")
            files[2].write_bytes(files[3].read_bytes())
        return plain(trip, collective, homes)

    monkeypatch.setattr(spreading, "_packed", packed)
    assert made.open(pattern, keys_of, **options) == [KEYS] * 2
    # The three were scanned as they were read, by each machine for itself.
    assert made.indexes() == [SHARDS, SHARDS]


@given(
    st.lists(
        st.tuples(st.integers(0, 90), st.integers(0, 4), st.sets(st.integers(0, 4), min_size=1, max_size=3)),
        max_size=30,
    ),
    st.integers(0, 200),
)
def test_trips_are_bounded(rows: list[tuple[int, int, set[int]]], most: int) -> None:
    """Every parcel is carried once, in order; what is more than the limit goes alone; no trip ends before it must."""
    parcels = [Parcel(shard, size, sender, tuple(to)) for shard, (size, sender, to) in enumerate(rows)]
    made = list(trips(parcels, most))
    assert [parcel for trip in made for parcel in trip] == parcels
    assert all(made)

    def loads(trip: list[Parcel]) -> list[list[int]]:
        sent = [[one.size * len(one.receivers) for one in trip if one.sender == rank] for rank in range(5)]
        return sent + [[one.size for one in trip if rank in one.receivers] for rank in range(5)]

    def is_bounded(trip: list[Parcel]) -> bool:
        return all(len(load) == 1 or sum(load) <= most for load in loads(trip))

    assert all(map(is_bounded, made))
    for trip, after in pairwise(made):
        assert not is_bounded([*trip, after[0]]) or max(map(sum, loads(after[:1]))) > most


# Machines with disks of their own: processes, whose working folder is what they see at one and the same path.

WORK = """
import hashlib, warnings
from seta_stream.corpus import building
from seta_stream.corpus.sharing import open_corpus_together
from seta_stream.errors import SetaStreamError

def work(collective, local_rank, local_world, machines, state):
    scanned = []
    plain = building.scan_quietly
    building.scan_quietly = lambda url, *more, **named: scanned.append(url[-7:]) or plain(url, *more, **named)
    warnings.simplefilter("error")
    place = {"local_rank": local_rank, "local_world": local_world, "machines": machines}
    try:
        corpus = open_corpus_together("/proc/self/cwd/data/*.tar", collective=collective, state=state, **place)
    except SetaStreamError as error:
        return {"error": f"{type(error).__name__}: {error}", "scanned": sorted(scanned)}
    opened = sorted(scanned)
    from seta_stream.corpus import indexing
    indexing.scan_shard = None  # nothing may be scanned again where it is read
    keys = [corpus.index(shard).keys for shard in range(len(corpus.table))]
    versions = [corpus.index(shard).shard_version for shard in range(len(corpus.table))]
    table = hashlib.sha256(corpus.table.to_bytes()).hexdigest()
    return {"keys": keys, "versions": versions, "table": table, "scanned": opened}
"""


class Disks:
    """Two machines with a copy of the corpus each, and so many processes on each."""

    def __init__(self, folder: Path, ranks: tuple[int, int]) -> None:
        self.homes = [folder / f"machine-{number}" for number in range(2)]
        self.ranks = ranks
        for home in self.homes:
            (home / "data").mkdir(parents=True)
            for shard in range(5):
                (home / "data" / f"a-{shard}.tar").write_bytes(sample_shard(shard))

    def set_times(self, *seconds: int) -> None:
        """Give the files of each machine a time of its own."""
        for home, second in zip(self.homes, seconds, strict=True):
            for path in (home / "data").glob("*.tar"):
                os.utime(path, ns=(second, second))

    def open(self, state: str | None = None) -> list[Any]:
        """Return what each process found."""
        seats = [(machine, rank) for machine in range(2) for rank in range(self.ranks[machine])]
        arguments = [
            {"local_rank": rank, "local_world": self.ranks[machine], "machines": 2, "state": state}
            for machine, rank in seats
        ]
        return run_processes(WORK, arguments, [self.homes[machine] for machine, _ in seats])


NAMES = [f"a-{shard}.tar" for shard in range(5)]


def test_copies_with_the_same_times_are_one_corpus(tmp_path: Path) -> None:
    """As rsync leaves them: they are scanned once, and the indexes carried."""
    disks = Disks(tmp_path, (1, 2))
    disks.set_times(7, 7)
    found = disks.open()
    assert sorted(name for one in found for name in one["scanned"]) == NAMES
    assert [one["keys"] for one in found] == [KEYS[:5]] * 3
    assert [one["versions"] for one in found] == [["mtime:7"] * 5] * 3
    assert [one["scanned"] for one in disks.open()] == [[]] * 3


@pytest.mark.parametrize("state", [True, False])
def test_copies_with_times_of_their_own_are_scanned_by_each_machine(tmp_path: Path, state: bool) -> None:
    """As cp leaves them: one table for all, each machine's own indexes, and nothing to scan at the next start."""
    disks = Disks(tmp_path, (2, 1))
    disks.set_times(7, 8)
    folder = str(tmp_path / "state") if state else None
    first, again = disks.open(folder), disks.open(folder)
    assert sorted(first[0]["scanned"] + first[1]["scanned"]) == first[2]["scanned"] == NAMES
    assert [one["scanned"] for one in again] == [[]] * 3
    for found in (first, again):
        assert [one["keys"] for one in found] == [KEYS[:5]] * 3
        assert [one["versions"] for one in found] == [["mtime:7"] * 5, ["mtime:7"] * 5, ["mtime:8"] * 5]
        assert len({one["table"] for one in found}) == 1
    if state:
        return
    # A machine that has lost its indexes makes them again; the other does not.
    shutil.rmtree(disks.homes[1] / "cache")
    assert [one["scanned"] for one in disks.open(folder)] == [[], [], NAMES]
    shutil.rmtree(disks.homes[0] / "cache")
    found = disks.open(folder)
    assert (sorted(found[0]["scanned"] + found[1]["scanned"]), found[2]["scanned"]) == (NAMES, [])
    assert found[0]["table"] == first[0]["table"]


def test_an_index_beside_one_copy_alone_does_not_serve_the_other(tmp_path: Path) -> None:
    """Copies with the same times, of which one was indexed: the other machine makes its own."""
    disks = Disks(tmp_path, (1, 1))
    disks.set_times(7, 7)
    for path in (disks.homes[0] / "data").glob("*.tar"):
        (path.parent / f"{path.name}.seta-index").write_bytes(_index_bytes(path))
    found = disks.open()
    assert [one["scanned"] for one in found] == [[], NAMES]
    assert [one["keys"] for one in found] == [KEYS[:5]] * 2
    assert [one["scanned"] for one in disks.open()] == [[], []]


def _index_bytes(path: Path) -> bytes:
    open_corpus(str(path))
    return Path(cache_url(str(path))).read_bytes()


@pytest.mark.parametrize("is_known", [True, False])
def test_copies_that_differ_are_refused(tmp_path: Path, is_known: bool) -> None:
    """Missing, of another size, or of the same size with other keys: all processes name the shard and the machine."""
    disks = Disks(tmp_path, (1, 1))
    disks.set_times(7, 8)
    if is_known:
        disks.open()
    path = disks.homes[1] / "data" / "a-3.tar"
    path.write_bytes(sample_shard(4))
    for one in disks.open():
        assert one["error"].startswith("CorpusError: Cannot open /proc/self/cwd/data/a-3.tar on every machine: ")
        assert "its keys or sizes are others than process 0 knows, so the copies differ. Copy the shard" in one["error"]
    path.write_bytes(sample_shard(4, size=2000))
    for one in disks.open():
        assert one["error"].startswith("CorpusError: Cannot open /proc/self/cwd/data/a-3.tar on ")
        assert (
            f"it has {path.stat().st_size} bytes there, and 10240 where process 0 is. Copy the shard anew"
            in one["error"]
        )
    path.unlink()
    for one in disks.open():
        assert one["error"].startswith("CorpusError: Cannot open /proc/self/cwd/data/a-3.tar on ")
        assert "Process 0 sees it, with 10240 bytes: every machine must see every shard. Put the" in one["error"]
    assert one["scanned"] == []
