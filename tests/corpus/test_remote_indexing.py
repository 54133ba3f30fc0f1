"""Corpora on real servers are indexed by several threads and processes, and go on where they stopped."""

from __future__ import annotations

import gzip
import http.server
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_tars import SAMPLES, index_of, sample_shard, unended
from servers import AzureAccount, FaultProxy, S3Endpoint, WebServer

from seta_stream.corpus import building
from seta_stream.corpus.building import Task, build
from seta_stream.corpus.conditions import Conditions, Plan
from seta_stream.corpus.indexing import Corpus, assemble, open_corpus
from seta_stream.corpus.places import cache_url
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.corpus.surveying import survey
from seta_stream.errors import SetaStreamWarning, ShardChangedError, TarError
from seta_stream.store import ObjectInfo, store_for


def test_azure_and_s3_give_the_same_index(
    azure_server: AzureAccount, azure_container: str, s3_server: S3Endpoint, s3_bucket: str, cache: Path
) -> None:
    """A corpus in Azure is listed, scanned and opened again as one in S3 is."""
    digests = []
    for folder, server in ((azure_container, azure_server), (s3_bucket, s3_server)):
        for number in range(9):
            server.put(f"{folder}/t/a-{number}.tar", sample_shard(number))
        for _ in range(2):
            corpus = open_corpus(f"{folder}/t/a-*.tar", storage_options=server.options)
            digests.append((corpus.table.fingerprint(), corpus.index(8).keys, len(list(cache.iterdir()))))
    assert [digest[:2] for digest in digests] == [digests[0][:2]] * 4
    assert [digest[2] for digest in digests] == [9, 9, 18, 18]


def test_a_web_server_is_asked_for_each_shard(
    http_server: Callable[..., WebServer], tmp_path: Path, cache: Path
) -> None:
    """Without listings sizes are asked for one by one, and the indexes beside the shards are found."""
    for number in range(20):
        (tmp_path / f"a-{number:02d}.tar").write_bytes(sample_shard(number))
    server = http_server(tmp_path)
    corpus = open_corpus(f"{server}/a-{{00..19}}.tar")
    assert (corpus.table.total, len(list(cache.iterdir()))) == (20 * SAMPLES, 20)
    assert bool(corpus.table.seekable.all())
    for url in corpus.table.urls:
        Path(cache_url(url)).rename(tmp_path / f"{url.rpartition('/')[2]}.seta-index")
    before = len(server.served)
    assert open_corpus(f"{server}/a-{{00..19}}.tar").table.to_bytes() == corpus.table.to_bytes()
    # Each shard and each index is looked at, and each index read.
    assert len(server.served) - before == 60
    assert not list(cache.iterdir())


class _NoRanges(http.server.SimpleHTTPRequestHandler):
    """Python's own server, which knows no ranges."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder without ranges and ETags; returns its URL."""
    handler = lambda *more: _NoRanges(*more, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", [10, 400_000])
@pytest.mark.parametrize("name", ["python", "nginx"])
def test_a_server_without_ranges_is_read_in_sequence(
    name: str, size: int, plain_server: str, http_server: Callable[..., WebServer], tmp_path: Path, cache: Path
) -> None:
    """The index says that the shard cannot be read by position, small or large, compressed or not."""
    data = sample_shard(0, size=size)
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "b.tar").write_bytes(gzip.compress(data))
    folder = plain_server if name == "python" else str(http_server(tmp_path, ranges=False))
    corpus = open_corpus(f"{folder}/{{a,b}}.tar")
    assert corpus.table.seekable.tolist() == [False, False]
    expected = index_of(data)
    for index in (corpus.index(0), corpus.index(1)):
        assert index.digest == expected.digest
        assert np.array_equal(index.member_offset, expected.member_offset)
    assert len(list(cache.iterdir())) == 2


def test_a_compressed_shard_in_a_bucket(s3_server: S3Endpoint, s3_bucket: str, cache: Path) -> None:
    """It is told by the first bytes that a scan fetches, and read through its stream."""
    s3_server.put(f"{s3_bucket}/a.tar.gz", gzip.compress(sample_shard(7)))
    corpus = open_corpus(f"{s3_bucket}/a.tar.gz", storage_options=s3_server.options)
    assert (corpus.table.seekable.tolist(), corpus.table.total) == ([False], SAMPLES)


def tasks_of(urls: list[str], options: Any, folder: Path) -> list[Task]:
    """Return what builds these shards into a folder."""
    infos = [store_for(url, options).info(url) for url in urls]
    return [
        Task(number, url, info, str(folder / str(number)), options, must_write=True)
        for number, (url, info) in enumerate(zip(urls, infos, strict=True))
    ]


def test_processes_share_a_bucket(s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path) -> None:
    """Two processes with threads of their own build the same indexes as one; errors and warnings arrive here."""
    folder = fill(6)
    urls = [f"{folder}/train-{number:04d}.tar" for number in range(6)]
    tasks = tasks_of(urls, s3_server.options, tmp_path)
    alone = {built.task.shard: built.header for built in build(tasks)}
    shared = {built.task.shard: built.header for built in build(tasks, plan=Plan(processes=2))}
    assert shared == alone
    s3_server.put(urls[4], unended([("a.txt", b"1")]))
    with pytest.warns(SetaStreamWarning, match="has no end-of-archive blocks"):
        assert len(list(build(tasks_of(urls, s3_server.options, tmp_path), plan=Plan(processes=2)))) == 6
    s3_server.put(urls[5], b"no tar" * 400)
    with pytest.raises(TarError, match=r"train-0005\.tar: the block at byte 0"):
        list(build(tasks_of([urls[3], urls[5]], s3_server.options, tmp_path), plan=Plan(processes=2)))


class _Endless:
    """A shard of which hours are left."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def cancel(self) -> None:
        self.is_over.set()


def test_a_build_that_is_no_longer_wanted_stops(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the shards under way take long: their requests are given up, and no thread is left."""
    monkeypatch.setattr(building, "_LOOKS_EVERY_S", 0.01)
    folder, plain = fill(3), building.scan_quietly
    begun = threading.Semaphore(0)

    def scan(url: str, *more: Any, conditions: Conditions, **named: Any) -> Any:
        if url.endswith("0000.tar"):
            return plain(url, *more, conditions=conditions, **named)
        endless = _Endless()
        with conditions.live(endless):
            begun.release()
            assert endless.is_over.wait(30)
        raise CancelledError

    monkeypatch.setattr(building, "scan_quietly", scan)
    urls = [f"{folder}/train-{number:04d}.tar" for number in range(3)]
    halt = threading.Event()
    results = build(tasks_of(urls, s3_server.options, tmp_path), halt=halt)
    assert next(results).task.shard == 0
    assert begun.acquire(timeout=30)
    assert begun.acquire(timeout=30)
    halt.set()
    assert list(results) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("seta-index")] == []


def test_batches_are_short_where_a_build_may_be_given_up(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process of its own has done is known when its whole batch is; the indexes are the same."""
    lengths: list[int] = []
    monkeypatch.setattr(building, "_BATCH", 6)
    monkeypatch.setattr(building, "HOPS_AT_ONCE", 4)
    plain = building.run
    monkeypatch.setattr(
        building,
        "run",
        lambda work, batches, engine: (lengths.extend(map(len, batches)), plain(work, batches, engine))[1],
    )
    urls = [f"{fill(6)}/train-{number:04d}.tar" for number in range(6)]
    tasks = tasks_of(urls, s3_server.options, tmp_path)
    for halt, expected in [(None, [3, 3]), (threading.Event(), [2, 2, 1, 1])]:
        lengths.clear()
        built = list(build(tasks, plan=Plan(processes=2), halt=halt))
        assert (sorted(one.task.shard for one in built), lengths) == (list(range(6)), expected)


def test_ranks_build_their_parts(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """One process surveys, each builds every third task, one assembles; all that travels is pickled and small."""
    folder = fill(8)
    options = s3_server.options
    known = pickle.loads(pickle.dumps(survey(f"{folder}/*.tar", storage_options=options)))
    parts = [pickle.loads(pickle.dumps(list(build(known.tasks[rank::3])))) for rank in range(3)]
    assert max(len(pickle.dumps(part)) for part in parts) < 8192
    corpus = assemble(known, [built for part in parts for built in part], options)
    assert corpus.table.to_bytes() == open_corpus(f"{folder}/*.tar", storage_options=options).table.to_bytes()
    assert corpus.index(7).keys == ["0007-0", "0007-1", "0007-2"]


CHILD = """
import json, sys
from seta_stream.corpus.building import build
from seta_stream.corpus.conditions import Plan, Step
from seta_stream.corpus.surveying import survey
pattern, options = json.loads(sys.argv[1])
known = survey(pattern, storage_options=options)
for built in build(known.tasks, plan=Plan(first=Step("hops", 1024, 1), way="hops")):
    print(built.task.shard, flush=True)
"""


def test_a_killed_build_goes_on_with_what_is_missing(
    s3_server: S3Endpoint, fill: Callable[..., str], scanned: list[str], cache: Path
) -> None:
    """After kill -9 the indexes that were written are used, whole, and only the other shards are scanned."""
    folder = fill(40)
    pattern = f"{folder}/*.tar"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps([pattern, s3_server.options])], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    done = [int(child.stdout.readline()) for _ in range(3)]
    child.kill()
    child.wait()
    child.stdout.close()
    written = {path.name for path in cache.iterdir() if path.suffix == ".seta-index"}
    assert {cache_url(f"{folder}/train-{number:04d}.tar").rpartition("/")[2] for number in done} <= written
    corpus = open_corpus(pattern, storage_options=s3_server.options)
    assert len(scanned) == 40 - len(written)
    assert corpus.table.samples.tolist() == [SAMPLES] * 40
    assert corpus.index(done[0]).samples == SAMPLES


def test_two_processes_may_index_a_bucket_at_once(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """Both succeed, and what they leave is whole."""
    folder = fill(12)
    argument = json.dumps([f"{folder}/*.tar", s3_server.options])
    both = [subprocess.Popen([sys.executable, "-c", CHILD, argument], stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [child.communicate()[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    # The second may find what the first has written already.
    assert max(len(output.split()) for output in outputs) == 12
    assert [path.suffix for path in cache.iterdir()] == [".seta-index"] * 12
    assert open_corpus(f"{folder}/*.tar", storage_options=s3_server.options).table.total == 12 * SAMPLES


def test_a_shard_that_is_replaced_while_it_is_scanned_is_refused(
    s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path
) -> None:
    """Every request is bound to the version that was listed: half the old and half the new shard is never indexed."""
    url = f"{s3_bucket}/a.tar"
    s3_server.put(url, sample_shard(0, size=200_000))
    store = store_for(url, s3_server.options)
    old = store.info(url)
    s3_server.put(url, sample_shard(1, size=200_000))
    task = Task(0, url, old, str(tmp_path / "0"), s3_server.options, must_write=True)
    with pytest.raises(ShardChangedError, match=r"a\.tar"):
        list(build([task]))
    assert not (tmp_path / "0").exists()


def test_a_throttled_store_is_waited_for(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """Requests that are refused for a moment cost time, and nothing else."""
    folder = fill(10)
    with FaultProxy(s3_server, faults={"503": 0.2, "reset": 0.05}, seed=3) as proxy:
        proxy.next(["503"])  # the listing; what is drawn for the others goes by their random names
        corpus = open_corpus(f"{folder}/*.tar", storage_options=s3_server.options_at(proxy.url))
        assert proxy.injected["503"] > 0
    assert corpus.table.samples.tolist() == [SAMPLES] * 10


def test_an_index_that_cannot_be_cached_stays_in_memory(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache folder a bucket's corpus opens; an index that vanished is scanned once and then held."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = fill(2)
    corpus = open_corpus(f"{folder}/*.tar", storage_options=s3_server.options)
    assert corpus.is_index_near(1)
    copy: Corpus = pickle.loads(pickle.dumps(corpus))
    assert copy.index(1).keys == ["0001-0", "0001-1", "0001-2"]
    copy._recent.clear()
    copy._held.clear()
    assert copy.index(1).samples == SAMPLES
    assert list(copy._held) == [1]


def test_what_it_takes_is_told_before(
    fill: Callable[..., str], s3_server: S3Endpoint, cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line on stderr, terminal or not; none where nothing is built, all is local, or progress=False."""
    folder = fill(3)
    options = s3_server.options
    open_corpus(f"{folder}/*.tar", storage_options=options)
    err = capsys.readouterr().err
    assert err.startswith(
        f"Indexing 3 shards (30.7 KB) on {folder}: read whole in 3 requests, 30.7 KB to fetch, about "
    )
    assert err.count("\n") == 1
    assert s3_server.options["secret"] not in err
    open_corpus(f"{folder}/*.tar", storage_options=options)
    for path in cache.iterdir():
        path.unlink()
    open_corpus(f"{folder}/*.tar", storage_options=options, progress=False)
    (tmp_path / "a.tar").write_bytes(sample_shard(0))
    open_corpus(str(tmp_path / "a.tar"))
    assert capsys.readouterr().err == ""


def test_a_version_is_asked_for_where_none_is_given(s3_server: S3Endpoint, fill: Callable[..., str]) -> None:
    """A single shard is scanned from its URL alone."""
    url = f"{fill(1)}/train-0000.tar"
    index = scan_quietly(url, s3_server.options).index
    assert ObjectInfo(index.shard_size, index.shard_version) == store_for(url, s3_server.options).info(url)
