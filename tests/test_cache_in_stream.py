"""Streams over a real server with a cache: what the bucket is asked for, epoch by epoch."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from servers import WebServer
from small_corpora import MakeCorpus, text_members, write_tar

from seta_stream import DynamicRandom, Full, SetaStream
from seta_stream.errors import SetaStreamWarning, ShardChangedError
from seta_stream.read.options import Cache

Serve = Callable[..., WebServer]
LENGTH = 6000
SHARDS, SAMPLES = 5, 120


def shard_bytes(server: WebServer, before: int = 0) -> int:
    """Return the bytes of shards that the server has sent since so many answers; looks at a version ask for one."""
    answers = [one for one in server.served[before:] if one.method == "GET" and one.target.endswith(".tar")]
    return sum(one.bytes for one in answers if one.bytes > 1)


def read(stream: SetaStream, epoch: int) -> dict[int, bytes]:
    """Read an epoch; return the texts by id."""
    stream.set_epoch(epoch)
    return {sample["__index__"]: sample["txt"] for sample in stream}


def texts(ids: range | list[int]) -> dict[int, bytes]:
    return {number: f"{number}".ljust(LENGTH).encode() for number in ids}


@pytest.fixture
def corpus(make_corpus: MakeCorpus, http_server: Serve, tmp_path: Path) -> tuple[WebServer, list[str]]:
    """Serve a small corpus, indexed: the server, and its URLs."""
    paths = make_corpus(SHARDS, SAMPLES, length=LENGTH)
    server = http_server(tmp_path)
    urls = [f"{server}/{Path(path).name}" for path in paths]
    with SetaStream(urls, batch_size=1):
        pass
    return server, urls


def test_later_epochs_read_nothing_from_the_bucket(
    corpus: tuple[WebServer, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Epoch 0 fetches every byte once, later ones none, in this run and the next; stats tell it."""
    server, urls = corpus
    folder = str(tmp_path_factory.mktemp("scratch"))
    before = len(server.served)
    with SetaStream(urls, batch_size=10, cache=folder) as stream:
        assert read(stream, 0) == texts(range(SHARDS * SAMPLES))
        total = stream.stats.bytes_total
        fetched = shard_bytes(server, before)
        assert stream.stats.bytes_fetched == fetched
        # The two blocks of zeros at the end of a tar lie in no sample, and perhaps in no block that is wanted.
        assert total - SHARDS * 10240 <= fetched <= total
        assert stream.stats.requests > 0
        before = len(server.served)
        for epoch in (1, 2):
            assert read(stream, epoch) == texts(range(SHARDS * SAMPLES))
            stats = stream.stats
            assert (stats.bytes_fetched, stats.requests, stats.cache_misses) == (0, 0, 0)
            assert stats.cache_hit_rate == 1
            assert stats.cache_hit_bytes >= stats.bytes_needed
    with SetaStream(urls, batch_size=10, cache=Cache(folder, 1 << 30), policy=DynamicRandom(0.5)) as stream:
        for epoch in range(3):
            found = read(stream, epoch)
            assert found == texts(list(found))
            assert 200 < len(found) < 400
            assert stream.stats.bytes_fetched == 0
            assert stream.stats.cache_hit_rate == 1
    assert shard_bytes(server, before) == 0


def test_half_epochs_fill_the_gaps(
    corpus: tuple[WebServer, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A first epoch that selects a part fetches the blocks it lies in; what one epoch fetched, no later one does."""
    server, urls = corpus
    before = len(server.served)
    cache = str(tmp_path_factory.mktemp("scratch"))
    with SetaStream(urls, batch_size=1, cache=cache, policy=DynamicRandom(0.97)) as stream:
        fetched = 0
        for epoch in range(4):
            found = read(stream, epoch)
            assert found == texts(list(found))
            fetched += stream.stats.bytes_fetched
        assert 0 < fetched <= stream.stats.bytes_total
    assert shard_bytes(server, before) == fetched


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_the_cache(
    corpus: tuple[WebServer, list[str]], tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    """DataLoader workers fill one cache together: what one fetched, the others find, in the next epoch all of it."""
    from torch.utils.data import DataLoader

    from seta_stream.adapters.torch import SetaDataset

    server, urls = corpus
    dataset = SetaDataset(urls, batch_size=10, cache=str(tmp_path_factory.mktemp("scratch")), drop_last=True)
    loader = DataLoader(
        dataset,
        batch_size=10,
        num_workers=2,
        collate_fn=list,
        multiprocessing_context=multiprocessing.get_context(method),
        persistent_workers=method == "spawn",
    )
    before, costs = len(server.served), []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found = {sample["__index__"]: sample["txt"] for samples in loader for sample in samples}
        assert found == texts(range(SHARDS * SAMPLES))
        costs.append(shard_bytes(server, before))
        before = len(server.served)
        stats = dataset.stream.stats
        assert stats.bytes_fetched == costs[-1]
    assert stats.cache_hit_rate == 1
    assert costs[1] == 0
    # A block between two workers' stretches may be fetched by both.
    assert costs[0] < 1.5 * stats.bytes_total
    dataset.stream.close()


def test_a_changed_object_is_never_served(
    corpus: tuple[WebServer, list[str]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A shard that is replaced by one of the same size: the new run reads the new bytes, the old blocks stay unread."""
    server, urls = corpus
    folder = str(tmp_path_factory.mktemp("scratch"))
    with SetaStream(urls, batch_size=10, cache=folder) as stream:
        read(stream, 0)
    path = tmp_path / "train-00002.tar"
    size, age = path.stat().st_size, path.stat().st_mtime
    write_tar(path, [(name, data[::-1]) for name, data in text_members(2 * SAMPLES, SAMPLES, length=LENGTH)])
    os.utime(path, (age + 10, age + 10))
    assert path.stat().st_size == size
    before = len(server.served)
    with SetaStream(urls, batch_size=10, cache=folder) as stream:
        found = read(stream, 0)
        changed = range(2 * SAMPLES, 3 * SAMPLES)
        want = texts(range(SHARDS * SAMPLES))
        assert found == {n: text[::-1] if n in changed else text for n, text in want.items()}
        fetched = {one.target for one in server.served[before:] if one.bytes > 1 << 16 and one.method == "GET"}
    assert fetched == {"/train-00002.tar"}


def test_an_object_that_changes_in_mid_run(
    corpus: tuple[WebServer, list[str]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is cached is served, being the version that was indexed; what is not is refused, not mixed in."""
    _, urls = corpus
    with SetaStream(urls, batch_size=1, cache=str(tmp_path_factory.mktemp("scratch")), shuffle=False) as stream:
        stream.set_epoch(0)
        for number, _sample in enumerate(stream):
            if number == SAMPLES + 5:
                break
        for number in (0, SHARDS - 1):
            path = tmp_path / f"train-{number:05d}.tar"
            write_tar(
                path, [(name, data[::-1]) for name, data in text_members(number * SAMPLES, SAMPLES, length=LENGTH)]
            )
            os.utime(path, (1000, 1000))
        stream.set_epoch(0)
        samples = iter(stream)
        assert [next(samples)["txt"] for _ in range(SAMPLES)] == list(texts(range(SAMPLES)).values())
        with pytest.raises(ShardChangedError, match=r"train-00004\.tar"):
            list(samples)


def test_a_cache_that_cannot_be(corpus: tuple[WebServer, list[str]], tmp_path: Path) -> None:
    """A folder that cannot be used is told once in a run of several epochs, and every sample comes."""
    _, urls = corpus
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with SetaStream(urls, batch_size=10, cache=str(tmp_path / "file" / "cache"), policy=Full()) as stream:
            for epoch in range(2):
                assert read(stream, epoch) == texts(range(SHARDS * SAMPLES))
                assert stream.stats.cache_hit_rate == 0
                assert stream.stats.bytes_fetched > 0
    about = [str(one.message) for one in told if "The cache in" in str(one.message)]
    assert len(about) == 1
    assert all(issubclass(one.category, SetaStreamWarning) for one in told)


def test_local_shards_need_no_cache(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A cache beside local shards is not made: they are read where they lie."""
    with SetaStream(make_corpus(2, 5), batch_size=1, cache=str(tmp_path / "cache")) as stream:
        assert len(list(stream)) == 10
        assert stream.stats.cache_hit_rate == 0
    assert not (tmp_path / "cache").exists()


def test_fields_and_large_members(http_server: Serve, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Large members, chosen by field and read late by threads, come from the cache as from a local file."""
    rng = np.random.default_rng(0)
    images = {f"{number:04d}": rng.bytes(60_000) for number in range(40)}
    members = [
        (f"{key}.{field}", data) for key, image in images.items() for field, data in (("jpg", image), ("cls", b"1"))
    ]
    write_tar(tmp_path / "a.tar", members)
    server = http_server(tmp_path)
    cache = str(tmp_path_factory.mktemp("scratch"))
    with SetaStream(
        f"{server}/a.tar", batch_size=4, fields=("jpg",), decode=lambda _field, data: data, cache=cache
    ) as stream:
        for epoch in range(3):
            stream.set_epoch(epoch)
            assert {sample["__key__"]: sample["jpg"] for sample in stream} == images
            assert epoch == 0 or stream.stats.bytes_fetched == 0
    assert server.served
