"""Whole epochs from real servers behind a proxy that breaks requests: every sample once, byte for byte, or an error."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import KINDS, AzureAccount, FaultProxy, S3Endpoint, nginx
from torch.utils.data import DataLoader

from seta_stream import Reading, SetaStream
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.stats import Stats

SHARDS = [f"train-{number:05d}.tar" for number in range(3)]
PER_SHARD = 96
SAMPLE_BYTES = 5000
BATCH = 8
READING = Reading(max_span_bytes=4096, prefetch_bytes=256 << 10, patience_s=8.0)
"""A request for each sample, an eighth of the corpus ahead, and an end to all patience within a test's own time."""
Fields = dict[str, bytes]

pytestmark = [
    # This machine has two cores; two workers and the servers are the point here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@dataclass(frozen=True)
class Place:
    """Where the corpus lies, behind a proxy.

    Attributes:
        urls: of the shards.
        options: storage_options.
        proxy: what breaks requests.
        replace: puts other bytes at a shard's place.
        remove: takes a shard away.
    """

    urls: list[str]
    options: dict[str, Any]
    proxy: FaultProxy
    replace: Callable[[str, bytes], None]
    remove: Callable[[str], None]


def members(first: int, count: int, salt: int = 0) -> list[tuple[str, bytes]]:
    """Return samples of random bytes, of lengths that differ."""
    draws = np.random.default_rng(first + 1000 * salt)
    made = []
    for number in range(first, first + count):
        made.append((f"{number:08d}.bin", draws.bytes(SAMPLE_BYTES + number * 37 % 1500)))
        made.append((f"{number:08d}.cls", str(number).encode()))
    return made


def tar_bytes(samples: list[tuple[str, bytes]]) -> bytes:
    """Return a shard in memory."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the corpus on disk."""
    made = tmp_path_factory.mktemp("corpus")
    for number, name in enumerate(SHARDS):
        (made / name).write_bytes(tar_bytes(members(number * PER_SHARD, PER_SHARD)))
    return made


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, Fields]:
    """Read every sample with tarfile: what an epoch has to give."""
    samples: dict[str, Fields] = {}
    for name in SHARDS:
        with tarfile.open(folder / name) as tar:
            for member in tar:
                key, _, field = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                samples.setdefault(key, {})[field] = data.read()
    return samples


@pytest.fixture
def own_name(request: pytest.FixtureRequest) -> str:
    """Return a bucket's name: the test's own, and the same in every run, so that the same requests fail."""
    return f"faults-{zlib.crc32(request.node.nodeid.encode()):08x}"


@contextmanager
def kept_on(store: S3Endpoint | AzureAccount, root: str, folder: Path) -> Iterator[Place]:
    """Keep the corpus in a bucket or container, behind a fault proxy."""
    for name in SHARDS:
        store.put(f"{root}/{name}", (folder / name).read_bytes())
    with FaultProxy(store, slow_s=0.1) as proxy:
        yield Place(
            [f"{root}/{name}" for name in SHARDS],
            store.options_at(proxy.url),
            proxy,
            lambda name, data: store.put(f"{root}/{name}", data),
            lambda name: store.delete(f"{root}/{name}"),
        )


@pytest.fixture
def s3_place(folder: Path, s3_server: S3Endpoint, own_name: str) -> Iterator[Place]:
    """Keep the corpus on moto."""
    with kept_on(s3_server, s3_server.make_bucket(own_name), folder) as place:
        yield place


@pytest.fixture
def az_place(folder: Path, azure_server: AzureAccount, own_name: str) -> Iterator[Place]:
    """Keep the corpus on Azurite."""
    with kept_on(azure_server, azure_server.make_container(own_name), folder) as place:
        yield place


@pytest.fixture
def http_place(folder: Path, tmp_path: Path) -> Iterator[Place]:
    """Serve a copy of the corpus with nginx."""
    served = tmp_path / "served"
    shutil.copytree(folder, served)

    def replace(name: str, data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        # nginx makes its ETag of the size and the second of the last change.
        os.utime(tmp_path / name, (2_000_000_000, 2_000_000_000))
        (tmp_path / name).rename(served / name)

    with nginx(served) as server, FaultProxy(server, slow_s=0.1) as proxy:
        urls = [f"{proxy.url}/{name}" for name in SHARDS]
        yield Place(urls, {}, proxy, replace, lambda name: (served / name).unlink())


@pytest.fixture(params=["s3", "az", "http"])
def place(request: pytest.FixtureRequest) -> Place:
    """Give the corpus on each kind of server in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


def stream_of(place: Place, **options: Any) -> SetaStream:
    """Open the corpus for one process."""
    reading = dataclasses.replace(READING, **options)
    return SetaStream(place.urls, read=reading, storage_options=place.options, drop_last=False)


def check_right(samples: Iterable[dict[str, Any]], truth: dict[str, Fields]) -> list[str]:
    """Compare every byte with what tarfile read; returns the keys."""
    keys = []
    for sample in samples:
        keys.append(sample["__key__"])
        assert {name: value for name, value in sample.items() if not name.startswith("__")} == truth[keys[-1]]
    return keys


def read_whole(place: Place, workers: int, method: str | None) -> tuple[list[dict[str, Any]], Stats]:
    """Read one epoch, raw."""
    if not workers:
        with stream_of(place) as stream:
            return list(stream), stream.stats
    with SetaDataset(place.urls, batch_size=BATCH, read=READING, storage_options=place.options) as dataset:
        loader = DataLoader(
            dataset, batch_size=BATCH, num_workers=workers, multiprocessing_context=method, collate_fn=list
        )
        return [sample for batch in loader for sample in batch], dataset.stats


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")], ids=["alone", "fork", "spawn"])
def test_an_epoch_under_faults_is_whole(
    place: Place, truth: dict[str, Fields], workers: int, method: str | None
) -> None:
    """With one request in twenty broken in every way, each sample comes once and every byte is right."""
    place.proxy.set_faults(0.05, kinds=tuple(KINDS))
    samples, stats = read_whole(place, workers, method)
    assert sorted(check_right(samples, truth)) == sorted(truth)
    # That faults are survived is nothing to say where there were none.
    assert stats.retries >= 3
    assert len(place.proxy.injected) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_alone_is_survived(http_place: Place, truth: dict[str, Fields], kind: str) -> None:
    """Each kind of fault, in the middle of an epoch and twice in a row, costs another attempt and nothing else."""
    with stream_of(http_place) as stream:
        samples = iter(stream)
        keys = check_right(islice(samples, 10), truth)
        http_place.proxy.next([kind, kind], match=SHARDS[-1])
        keys += check_right(samples, truth)
        assert sorted(keys) == sorted(truth)
        assert http_place.proxy.injected == {kind: 2}
        # aiohttp itself asks once more where a kept connection is reset before an answer.
        assert stream.stats.retries in ({0} if kind == "slow" else {0, 1, 2} if kind == "reset" else {2})


def test_a_shard_replaced_in_mid_epoch_is_an_error(place: Place, truth: dict[str, Fields]) -> None:
    """Where a shard is overwritten by one of the same size, the epoch ends in an error before any byte of it."""
    with stream_of(place) as stream:
        samples = iter(stream)
        check_right(islice(samples, 10), truth)
        for number, name in enumerate(SHARDS):
            place.replace(name, tar_bytes(members(number * PER_SHARD, PER_SHARD, salt=1)))
        with pytest.raises(ShardChangedError, match=r"train-0000[012]\.tar changed") as caught:
            check_right(samples, truth)
        assert caught.value.shard in place.urls


def test_answers_of_another_version_are_never_used(place: Place, truth: dict[str, Fields]) -> None:
    """Where answers carry another ETag and other bytes, the epoch ends in an error before any of them is yielded."""
    with stream_of(place) as stream:
        samples = iter(stream)
        check_right(islice(samples, 10), truth)
        place.proxy.set_faults({"etag": 1.0})
        with pytest.raises(ShardChangedError, match=r"train-0000[012]\.tar changed"):
            check_right(samples, truth)


def test_a_shard_removed_in_mid_epoch_is_named(place: Place, truth: dict[str, Fields]) -> None:
    """Where a shard goes away, the error says which, and that it is not there."""
    with stream_of(place) as stream:
        samples = iter(stream)
        check_right(islice(samples, 10), truth)
        for name in SHARDS:
            place.remove(name)
        with pytest.raises(ReadError, match=r"train-0000[012]\.tar: there is no such") as caught:
            check_right(samples, truth)
        assert caught.value.shard in place.urls


@pytest.mark.parametrize(("status", "text"), [("403", "denied"), ("404", "there is no such")])
def test_refusals_name_the_shard_and_are_not_tried_again(
    place: Place, truth: dict[str, Fields], status: str, text: str
) -> None:
    """A 403 or 404 in mid-epoch is final: the error names the shard and what to look at."""
    with stream_of(place) as stream:
        samples = iter(stream)
        check_right(islice(samples, 10), truth)
        place.proxy.set_faults({status: 1.0})
        with pytest.raises(ReadError, match=rf"train-0000[012]\.tar.*{text}") as caught:
            check_right(samples, truth)
        assert caught.value.shard in place.urls
        assert stream.stats.retries == 0


@pytest.mark.parametrize("kind", ["503", "429", "reset", "stalled"])
def test_a_store_that_never_recovers_ends_in_an_error(place: Place, truth: dict[str, Fields], kind: str) -> None:
    """Where every request fails from some moment on, the epoch ends in an error once patience does, not in a hang."""
    with stream_of(place, patience_s=1.0) as stream:
        samples = iter(stream)
        check_right(islice(samples, 10), truth)
        place.proxy.set_faults({kind: 1.0})
        with pytest.raises(ReadError, match=r"train-0000[012]\.tar.*attempt") as caught:
            check_right(samples, truth)
        assert caught.value.shard in place.urls
        assert stream.stats.retries >= 1


def test_a_server_without_ranges_is_read_in_sequence(folder: Path, truth: dict[str, Fields]) -> None:
    """Whole shards come from a server that knows no ranges, each once, and stats say so."""
    with nginx(folder, ranges=False) as server:
        urls = [f"{server}/{name}" for name in SHARDS]
        with SetaStream(urls, read=READING, drop_last=False) as stream:
            before = len(server.served)
            assert sorted(check_right(stream, truth)) == sorted(truth)
            assert stream.stats.is_sequential
            assert stream.stats.bytes_fetched == sum((folder / name).stat().st_size for name in SHARDS)
            assert stream.stats.requests == len(SHARDS)
        served = server.served[before:]
        whole = [answer.target for answer in served if answer.method == "GET"]
        assert sorted(whole) == [f"/{name}" for name in SHARDS]
        assert sum(answer.bytes for answer in served) == sum((folder / name).stat().st_size for name in SHARDS)


def test_a_compressed_shard_in_a_bucket_is_read_in_sequence(
    s3_server: S3Endpoint, s3_bucket: str, folder: Path, truth: dict[str, Fields]
) -> None:
    """A .tar.gz comes whole from a bucket too, and stats say so."""
    for name in SHARDS:
        s3_server.put(f"{s3_bucket}/{name}.gz", gzip.compress((folder / name).read_bytes(), 1))
    urls = [f"{s3_bucket}/{name}.gz" for name in SHARDS]
    with SetaStream(urls, read=READING, storage_options=s3_server.options, drop_last=False) as stream:
        assert sorted(check_right(stream, truth)) == sorted(truth)
        assert stream.stats.is_sequential


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork")], ids=["alone", "fork"])
def test_requests_at_once_hold_for_all_processes(
    http_place: Place, truth: dict[str, Fields], workers: int, method: str | None
) -> None:
    """`in_flight` is a number of the machine: two workers share it."""
    reading = dataclasses.replace(READING, in_flight=4)
    with SetaDataset(http_place.urls, batch_size=BATCH, read=reading, storage_options={}) as dataset:
        before = http_place.proxy.connections
        http_place.proxy.begin_anew()  # indexing, which opening did, has a bound of its own
        loader = DataLoader(
            dataset, batch_size=BATCH, num_workers=workers, multiprocessing_context=method, collate_fn=list
        )
        keys = check_right((sample for batch in loader for sample in batch), truth)
    assert sorted(keys) == sorted(truth)
    assert http_place.proxy.in_flight_max <= 4
    assert http_place.proxy.connections - before <= 4
