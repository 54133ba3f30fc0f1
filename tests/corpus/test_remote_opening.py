"""An indexed corpus in a bucket opens in few requests, and no index is believed that does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_tars import SAMPLES, sample_shard, tar_bytes
from servers import FaultProxy, S3Endpoint

from seta_stream.corpus.indexing import open_corpus, write_index
from seta_stream.corpus.places import cache_url
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import CorpusError, ReadError, SetaStreamWarning, ShardChangedError


def test_an_indexed_bucket_opens_in_few_requests(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, scanned: list[str], cache: Path
) -> None:
    """200 shards: a listing and a small read each without a state; a handful of requests where the state knows them."""
    folder = fill(200, indexed=True)
    pattern = f"{folder}/train-{{0000..0199}}.tar"
    with FaultProxy(s3_server) as proxy:
        options = s3_server.options_at(proxy.url)
        corpus = open_corpus(pattern, storage_options=options)
        assert corpus.table.total == 200 * SAMPLES
        assert 200 <= proxy.requests <= 210
        assert proxy.in_flight_max > 4

        state = tmp_path / "state"
        state.mkdir()
        (state / "corpus").write_bytes(corpus.table.to_bytes())
        before = proxy.requests
        again = open_corpus(pattern, state=str(state), storage_options=options)
        assert proxy.requests - before <= 10
        assert again.index(150).keys == ["0150-0", "0150-1", "0150-2"]
    assert not scanned
    assert again.table.to_bytes() == corpus.table.to_bytes()


def test_a_state_in_the_bucket_has_options_of_its_own(
    s3_server: S3Endpoint, fill: Callable[..., str], s3_bucket: str, cache: Path, tmp_path: Path
) -> None:
    """The state's table and index folder are read with state_options: what opens one bucket may not open the other."""
    (tmp_path / "train-0.tar").write_bytes(sample_shard(0))
    url = str(tmp_path / "train-0.tar")
    write_index(scan_shard(url), f"{s3_bucket}/run/index/train-0.tar.seta-index", s3_server.options)
    corpus = open_corpus(url, state=f"{s3_bucket}/run", state_options=s3_server.options)
    assert not cache.exists()
    assert pickle.loads(pickle.dumps(corpus)).index(0).keys == ["0000-0", "0000-1", "0000-2"]


def test_a_shard_that_changed_since_the_state_was_written_is_scanned(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, scanned: list[str], cache: Path
) -> None:
    """A row whose size or ETag is not the listing's is not believed, nor the old index beside the shard."""
    folder = fill(9, indexed=True)
    pattern = f"{folder}/*.tar"
    (tmp_path / "corpus").write_bytes(open_corpus(pattern, storage_options=s3_server.options).table.to_bytes())
    s3_server.put(f"{folder}/train-0003.tar", tar_bytes([("new.txt", b"1")]))
    corpus = open_corpus(pattern, state=str(tmp_path), storage_options=s3_server.options)
    assert scanned == [f"{folder}/train-0003.tar"]
    assert corpus.index(3).keys == ["new"]
    (tmp_path / "corpus").write_bytes(b"rubbish")
    assert open_corpus(pattern, state=str(tmp_path), storage_options=s3_server.options).table.total == 8 * SAMPLES + 1


def test_a_row_of_the_state_is_no_reason_to_believe_an_index(
    s3_server: S3Endpoint, fill: Callable[..., str], tmp_path: Path, cache: Path
) -> None:
    """Where only a stale index lies beside the shard, it is scanned when it is wanted, once for all processes here."""
    folder = fill(1)
    url = f"{folder}/train-0000.tar"
    corpus = open_corpus(url, storage_options=s3_server.options)
    (tmp_path / "corpus").write_bytes(corpus.table.to_bytes())
    for path in cache.iterdir():
        path.unlink()
    old = tmp_path / "old.tar"
    old.write_bytes(tar_bytes([("old.txt", b"1")]))
    write_index(scan_shard(str(old)), url + ".seta-index", s3_server.options)
    again = open_corpus(url, state=str(tmp_path), storage_options=s3_server.options)
    assert again.index(0).keys == ["0000-0", "0000-1", "0000-2"]
    assert Path(cache_url(url)).exists()
    with FaultProxy(s3_server) as proxy:
        other = open_corpus(url, state=str(tmp_path), storage_options=s3_server.options_at(proxy.url))
        before = proxy.requests
        assert other.index(0).keys == again.index(0).keys
        # The stale index is looked at; the shard is not.
        assert [request.target for request in proxy.log[before:]] == [f"/{url.removeprefix('s3://')}.seta-index"]


def test_a_long_index_is_opened_by_its_header(s3_server: S3Endpoint, s3_bucket: str, cache: Path) -> None:
    """Of an index of 40 KB a page is read; a header that lies about its samples is met when the index is read whole."""
    url = f"{s3_bucket}/long.tar"
    data = tar_bytes([(f"{n:06d}-{n * 7919 % 10007}.txt", b"x" * (n % 3000)) for n in range(6000)])
    s3_server.put(url, data)
    index = scan_shard(url, s3_server.options)
    packed = index.to_bytes()
    assert len(packed) > 20_000
    s3_server.put(url + ".seta-index", packed)
    with FaultProxy(s3_server) as proxy:
        corpus = open_corpus(url, storage_options=s3_server.options_at(proxy.url))
        assert [request.range for request in proxy.log if request.method == "GET"] == ["bytes=0-4095"]
        assert corpus.index(0).keys == index.keys
    assert not cache.exists()
    at = packed.index(b"\xa7samples\xcd\x17\x70") + 9
    s3_server.put(url + ".seta-index", packed[:at] + b"\x17\x69" + packed[at + 2 :])
    lying = open_corpus(url, storage_options=s3_server.options)
    assert lying.table.total == 5993
    with pytest.raises(ShardChangedError, match="its keys or sizes are not those of the corpus that was opened"):
        lying.index(0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: b"rubbish" + data, "does not begin with"),
        (lambda data: data[:8] + b"\x02" + data[9:], "it is of version 2"),
        (lambda data: data[:12] + b"\xff\xff\xff\0" + data[16:], "the length of the header cannot be"),
        (lambda data: data[:16] + b"\xc1" * 4000 + data[4016:], "the header cannot be"),
        (lambda data: data[:16] + b"\x01" + data[17:], "the header cannot be"),
    ],
)
def test_a_long_index_with_a_damaged_header_is_named_and_replaced(
    change: Callable[[bytes], bytes], text: str, s3_server: S3Endpoint, s3_bucket: str, cache: Path
) -> None:
    """Foreign, of another version, or garbled where its begin alone is read: a warning, and the shard is scanned."""
    url = f"{s3_bucket}/long.tar"
    s3_server.put(url, tar_bytes([(f"{n:06d}-{n * 7919 % 10007}.txt", b"x" * (n % 3000)) for n in range(6000)]))
    packed = scan_shard(url, s3_server.options).to_bytes()
    s3_server.put(url + ".seta-index", change(packed))
    with pytest.warns(SetaStreamWarning, match=rf"long\.tar\.seta-index: .*{text}.*It is not used"):
        assert open_corpus(url, storage_options=s3_server.options).table.total == 6000


def test_an_empty_index_is_no_index(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """An upload that never finished leaves nothing to ask for."""
    url = f"{fill(1)}/train-0000.tar"
    s3_server.put(url + ".seta-index", b"")
    with pytest.warns(SetaStreamWarning, match="It is not used"):
        assert open_corpus(url, storage_options=s3_server.options).table.total == SAMPLES


def test_what_may_not_be_listed_may_be_read(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """Where a listing is refused, each object is asked for alone."""
    folder = fill(9)
    with FaultProxy(s3_server) as proxy:
        proxy.next(["403"], match="list-type")
        options = s3_server.options_at(proxy.url)
        assert open_corpus(f"{folder}/train-{{0000..0008}}.tar", storage_options=options).table.total == 9 * SAMPLES
        assert proxy.injected["403"] == 1


def test_missing_and_closed_shards_are_named(s3_server: S3Endpoint, fill: Callable[..., str], cache: Path) -> None:
    """A shard that is not there, a bucket that is not, a pattern without a match, and a refusal say so."""
    folder = fill(9)
    options = s3_server.options
    with pytest.raises(ReadError, match=r"train-0009\.tar: there is no such file"):
        open_corpus(f"{folder}/train-{{0000..0009}}.tar", storage_options=options)
    with pytest.raises(CorpusError, match="nothing matches it"):
        open_corpus(f"{folder}/val-*.tar", storage_options=options)
    with pytest.raises(ReadError, match=r"list\.txt: there is no such file"):
        open_corpus(f"{folder}/list.txt", storage_options=options)
    with FaultProxy(s3_server, faults={"403": 1.0}) as proxy:
        for pattern in (f"{folder}/*.tar", f"{folder}/train-0000.tar", f"{folder}/list.txt"):
            with pytest.raises(ReadError, match=r"is denied.*key= and secret="):
                open_corpus(pattern, storage_options=s3_server.options_at(proxy.url))


def test_lists_and_patterns_in_a_bucket(s3_server: S3Endpoint, fill: Callable[..., str], s3_bucket: str) -> None:
    """Globs, braces and .txt files of both name the same shards, relative to the list's folder."""
    from seta_stream.corpus.listing import expand

    folder = fill(3)
    s3_server.put(f"{s3_bucket}/all.txt", b"# these\nt/train-{0000..0001}.tar\nt/*2.tar\n")
    urls = [f"{folder}/train-000{number}.tar" for number in range(3)]
    for pattern in (f"{folder}/*.tar", f"{folder}/train-{{0000..0002}}.tar", f"{s3_bucket}/all.txt"):
        assert expand(pattern, s3_server.options) == urls
