"""Buckets and web servers in, buckets out: whole objects, few requests, and the same promises as on disk."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repack_tars import Member, by_tarfile, by_webdataset, samples, state_of, tar_of, write
from servers import S3Endpoint, WebServer

from seta_stream import SeTa, SetaStream
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import (
    ArgumentError,
    CorpusError,
    ReadError,
    SetaStreamWarning,
    ShardChangedError,
    UnsupportedError,
)
from seta_stream.losses.generations import Generations
from seta_stream.repack import Choice, Progress, drafts, forecast, holding, repack, running
from seta_stream.store import store_for

POLICY = SeTa(num_epochs=9, prune_ratio=0.0, num_group=5, window_scale=0.4)
KEYS = [[f"{shard}{at:02d}" for at in range(12)] for shard in range(3)]


def put_corpus(s3: S3Endpoint, bucket: str) -> str:
    """Put three shards into a bucket; return their pattern."""
    for number, keys in enumerate(KEYS):
        s3.put(f"{bucket}/old/t-{number}.tar", tar_of(samples(keys)))
    return f"{bucket}/old/t-{{0..2}}.tar"


def keys_in(s3: S3Endpoint, url: str) -> list[object]:
    return [one["__key__"] for one in by_webdataset(s3.get(url))]


def test_from_bucket_to_bucket(s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path) -> None:
    """Shards, indexes, records and losses lie in the bucket; nothing is written twice; a stream reads them warm."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options
    urls = [write(tmp_path / f"t-{number}.tar", tar_of(samples(keys))) for number, keys in enumerate(KEYS)]
    losses = np.random.default_rng(0).random(36)
    state = state_of(urls, tmp_path / "state", losses)  # sidecars match by digest, wherever the shards lie
    to, out = f"{s3_bucket}/new", f"{s3_bucket}/state2"
    choices: dict[str, Any] = {"state": state, "storage_options": options}
    report = repack(pattern, to, **choices)
    assert (report.written, report.samples) == (3, 36)
    for shard in range(3):
        wanted = [KEYS[shard][at] for at in np.argsort(losses[shard * 12 : shard * 12 + 12])]
        assert keys_in(s3_server, f"{to}/t-{shard}.tar") == wanted
    again = repack(pattern, to, state_out=out, state_options=options, **choices)
    assert (again.written, again.carried) == (0, Generations(out, options).kept()[0].name)
    stream = SetaStream(
        f"{to}/t-{{0..2}}.tar", policy=POLICY, state=out, storage_options=options, state_options=options, batch_size=1
    )
    stream.set_epoch(4)
    window = {sample["__key__"] for sample in stream}
    with pytest.warns(SetaStreamWarning, match="No losses were recorded"):
        stream.close()
    assert 3 < len(window) < 33
    by_loss = [key for shard in KEYS for key in shard]
    ranks = sorted(int(np.argsort(np.argsort(losses))[by_loss.index(key)]) for key in window)
    assert ranks == list(range(ranks[0], ranks[-1] + 1)), "a window of the losses that were carried over"


def test_a_bucket_costs_few_requests(s3_server: S3Endpoint, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is read once, in large spans, whatever the order: the report and the forecast count the same."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options
    size = len(s3_server.get(f"{s3_bucket}/old/t-0.tar"))
    monkeypatch.setattr(holding, "SPAN_BYTES", size // 2)
    monkeypatch.setattr(drafts, "SPAN_BYTES", size // 2)
    monkeypatch.setattr("seta_stream.repack.forecasting.SPAN_BYTES", size // 2)
    choice = Choice(pattern, f"{s3_bucket}/new", *("key", *[None] * 8), options, None, None)  # type: ignore[arg-type]
    told = forecast(choice)
    assert not store_for(s3_bucket, options).names(f"{s3_bucket}/new")
    done = running.run(choice)
    # per shard: two looks and two spans in; a look, a put and two spans back, an index and a record out
    assert done.requests == 3 * (4 + 6)
    assert told.requests == done.requests
    assert (told.bytes_read, told.bytes_checked) == (3 * size, told.bytes_written)
    assert done.bytes_read == told.bytes_read + told.bytes_checked


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("size", [{}, {"shard_samples": 5}])
def test_from_bucket_to_disk(
    s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    memory: int, size: dict[str, int],
) -> None:  # fmt: skip
    """Held in memory or in a file, split or not, and in two processes: the same samples."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options
    monkeypatch.setattr(running, "MEMORY_BYTES", memory)
    jobs = 2 if memory else 1
    repack(pattern, str(tmp_path / "new"), order="key", storage_options=options, jobs=jobs, **size)  # type: ignore[arg-type]
    found = [one for path in sorted((tmp_path / "new").glob("*.tar")) for one in by_tarfile(path.read_bytes())]
    wanted = [one for n in range(3) for one in by_tarfile(s3_server.get(f"{s3_bucket}/old/t-{n}.tar"))]
    assert found == wanted
    assert open_corpus(str(tmp_path / "new" / "*.tar"), progress=False).table.total == 36


def test_a_shard_of_a_bucket_that_is_replaced(s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path) -> None:
    """Put again between the opening and the reading: no shard is made of two versions."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options

    def replace(progress: Progress) -> None:
        if progress.shards_done == 1:
            s3_server.put(f"{s3_bucket}/old/t-1.tar", tar_of(samples(KEYS[1], ["txt", "clx"])))

    with pytest.raises(ShardChangedError, match=r"t-1\.tar: it was replaced since the corpus was opened"):
        repack(pattern, str(tmp_path / "new"), order="key", storage_options=options, jobs=1, progress=replace)
    assert sorted(path.name for path in (tmp_path / "new").glob("*.tar")) == ["t-0.tar"]


def test_what_a_bucket_gives_back_is_compared(
    s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that keeps other bytes than it was given: an error, and the object is gone."""
    url = write(tmp_path / "old" / "t.tar", tar_of(samples("abc")))
    options = s3_server.options
    store = type(store_for(s3_bucket, options))
    real = store.write
    for spoilt in (lambda data: data[:700] + b"?" + data[701:], lambda data: data[:-512]):

        def write_otherwise(self: Any, at: str, data: bytes, spoilt: Any = spoilt) -> None:
            real(self, at, spoilt(data) if at.endswith(".tar") else data)

        monkeypatch.setattr(store, "write", write_otherwise)
        with pytest.raises(
            CorpusError, match="the store gives other bytes than it was given, so the object was removed"
        ):
            repack(url, f"{s3_bucket}/new", order="key", to_options=options)
        assert [name for name in store_for(s3_bucket, options).names(f"{s3_bucket}/new") if "tar" in name] == []


def test_buckets_refuse_in_the_same_words(s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path) -> None:
    """The corpus's own folder, and objects of others."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options
    with pytest.raises(ArgumentError, match="the shards of the corpus lie there"):
        repack(pattern, f"{s3_bucket}/old/", order="key", storage_options=options)
    s3_server.put(f"{s3_bucket}/new/t-1.tar", b"another's")
    with pytest.raises(ArgumentError, match=r"no repack wrote them \(the first is t-1\.tar\)"):
        repack(pattern, f"{s3_bucket}/new", order="key", storage_options=options)
    assert s3_server.get(f"{s3_bucket}/new/t-1.tar") == b"another's"


def test_no_credentials_are_written_or_told(
    s3_server: S3Endpoint, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what lies in the new folder, nor in an error, nor in what a task prints."""
    pattern, options = put_corpus(s3_server, s3_bucket), s3_server.options
    secret = options["secret"]
    told: list[str] = []
    real = running.write_task

    def listen(task: Any) -> Any:
        told.append(repr(task))
        return real(task)

    monkeypatch.setattr(running, "write_task", listen)
    repack(pattern, str(tmp_path / "new"), order="key", storage_options=options, jobs=1)
    assert len(told) == 3
    assert all(secret not in text for text in told)
    for path in (tmp_path / "new").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()
    manifest = (tmp_path / "new" / "repack" / "repack.json").read_text()
    assert s3_bucket.removeprefix("s3://") not in manifest
    with pytest.raises(ReadError) as caught:
        repack(f"{s3_bucket}/none/t.tar", str(tmp_path / "other"), order="key", storage_options=options)
    assert secret not in repr(vars(caught.value))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_from_a_web_server(http_server: Callable[..., WebServer], tmp_path: Path, ranges: bool, ending: str) -> None:
    """With byte ranges or without, compressed or not; nothing can be written there, and that is said."""
    for number, keys in enumerate(KEYS):
        write(tmp_path / "www" / f"t-{number}.{ending}", tar_of(samples(keys)))
    url = http_server(tmp_path / "www", ranges=ranges)
    pattern = f"{str(url).rstrip('/')}/t-{{0..2}}.{ending}"
    repack(pattern, str(tmp_path / "new"), order="key", shard_samples=5, jobs=1)
    found = [
        one["__key__"] for path in sorted((tmp_path / "new").glob("*.tar")) for one in by_webdataset(path.read_bytes())
    ]
    assert found == [key for keys in KEYS for key in keys]
    with pytest.raises(UnsupportedError, match=r"Cannot write .*web servers are only read"):
        repack(pattern, f"{str(url).rstrip('/')}/new", order="key", jobs=1)


def test_any_protocol_of_fsspec(tmp_path: Path) -> None:
    """memory:// stands for those: in and out, and gone on with."""
    store = store_for("memory://x")
    data = tar_of([Member("folder/"), *samples("cab"), Member("__meta__", b"m")])
    store.write("memory://repack-in/t.tar", data)
    try:
        report = repack("memory://repack-in/t.tar", "memory://repack-out", order="key")
        found = store.read("memory://repack-out/t.tar")
        assert Counter(by_tarfile(found)) == Counter(by_tarfile(data))
        assert [one["__key__"] for one in by_webdataset(found)] == ["a", "b", "c"]
        assert (report.written, repack("memory://repack-in/t.tar", "memory://repack-out", order="key").written) == (
            1,
            0,
        )
        assert io.BytesIO(found).getvalue()[-1024:] == b"\0" * 1024
    finally:
        store.remove("memory://repack-in")
        store.remove("memory://repack-out")
