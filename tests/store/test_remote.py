"""Remote stores on real servers, with and without faults: versions, listings, retries, streams, web servers."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from servers import AzureAccount, FaultProxy, WebServer

from seta_stream.errors import ReadError, SetaStreamWarning, ShardChangedError, UnsupportedError
from seta_stream.store import ObjectInfo, remote, retrying, store_for
from seta_stream.store.clients import client_for
from seta_stream.store.engine import Engine
from seta_stream.store.faults import Fault
from seta_stream.store.filesystems import web_session
from seta_stream.store.remote import RemoteStore
from seta_stream.store.retrying import Patience
from seta_stream.store.streams import BlockStream
from seta_stream.store.versions import (
    UNVERSIONED,
    check_length,
    check_range,
    content_range,
    of_etag,
    of_facts,
    of_headers,
)

DATA = bytes(range(256)) * 1000
Serve = Callable[..., WebServer]


@pytest.fixture
def web(http_server: Serve, tmp_path: Path) -> WebServer:
    """Serve a folder with one object."""
    (tmp_path / "a.tar").write_bytes(DATA)
    return http_server(tmp_path)


@pytest.fixture(params=["s3", "s3 fsspec", "az", "az fsspec", "memory"])
def listed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RemoteStore, str]:
    """A store that lists, and a folder there."""
    protocol, _, force = request.param.partition(" ")
    if protocol == "memory":
        return RemoteStore("memory", {}), f"memory://{tmp_path.name}"
    server = request.getfixturevalue("s3_server" if protocol == "s3" else "azure_server")
    bucket = request.getfixturevalue("s3_bucket" if protocol == "s3" else "azure_container")
    return RemoteStore(protocol, server.options, force="fsspec" if force else None), f"{bucket}/in"


def test_a_listing_tells_what_each_object_tells(listed: tuple[RemoteStore, str]) -> None:
    """Sizes and versions of a folder come in one listing, equal to those of each object; folders are left out."""
    store, folder = listed
    for number in range(5):
        store.write(f"{folder}/a-{number}.tar", bytes(number))
    store.write(f"{folder}/more/b.tar", b"x")
    found = store.infos(folder)
    assert found == {f"a-{number}.tar": store.info(f"{folder}/a-{number}.tar") for number in range(5)}
    assert found == store.infos(f"{folder}/")
    assert store.infos(f"{folder}/none") == {}
    assert store.infos(f"{folder}/a-1.tar") == {}
    assert store.names(f"{folder}/a-1.tar") == []
    assert store.accepts_ranges(f"{folder}/a-1.tar")
    store.write(f"{folder}/a-1.tar", b"y")
    assert store.infos(folder)["a-1.tar"] != found["a-1.tar"], "nothing is remembered"


def test_creating_where_the_store_cannot_decide(tmp_path: Path) -> None:
    """Elsewhere a look comes before the write; folders are made."""
    store = RemoteStore("local", {})
    url = f"local://{tmp_path}/new/a"
    assert store.create(url, b"one")
    assert store.create(url, b"one")
    assert not store.create(url, b"two")
    assert (tmp_path / "new" / "a").read_bytes() == b"one"
    assert store.glob(f"local://{tmp_path}/new/*") == [f"local://{tmp_path}/new/a"]


def test_removing_spares_neighbours(listed: tuple[RemoteStore, str]) -> None:
    """A folder goes with all in it, and nothing whose name only begins alike."""
    store, folder = listed
    for name in ("gen-1/a", "gen-1/deep/b", "gen-10/a", "gen-1x"):
        store.write(f"{folder}/{name}", b"x")
    store.remove(f"{folder}/gen-1")
    assert store.names(folder) == ["gen-10", "gen-1x"]
    assert not store.exists(f"{folder}/gen-1")


def test_many_objects_cost_few_requests(s3_server: Any, s3_bucket: str) -> None:
    """A listing of 40 objects is one request, not 40."""
    store = RemoteStore("s3", s3_server.options)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.write(f"{s3_bucket}/in/{n:04d}.tar", b"x"), range(40)))
    with FaultProxy(s3_server) as proxy:
        behind = RemoteStore("s3", s3_server.options_at(proxy.url))
        assert len(behind.infos(f"{s3_bucket}/in")) == 40
        assert proxy.requests == 1
        assert behind.read(f"{s3_bucket}/in/0000.tar") == b"x"
        assert proxy.requests == 2


def quick(store_options: dict[str, Any], protocol: str = "s3", force: Any = None) -> RemoteStore:
    """A store that gives up after some seconds."""
    return RemoteStore(protocol, store_options, patience=Patience(give_up_s=8.0), force=force)


@pytest.fixture(scope="module")
def s3_proxy(s3_server: Any) -> Iterator[FaultProxy]:
    """A proxy before moto that breaks what a test plans."""
    with FaultProxy(s3_server, methods=("GET", "HEAD", "PUT", "POST")) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", ["reset", "503", "503-after", "500", "429"])
def test_looks_and_writes_are_tried_again(s3_proxy: FaultProxy, s3_server: Any, s3_bucket: str, kind: str) -> None:
    """What fails once or twice and then works is nobody's concern."""
    store, url = quick(s3_server.options_at(s3_proxy.url)), f"{s3_bucket}/in/a.tar"
    s3_proxy.next([kind])
    store.write(url, b"0123456789")
    s3_proxy.next([kind])
    assert store.info(url).size == 10
    s3_proxy.next([kind])
    assert store.read(url) == b"0123456789"
    s3_proxy.next([kind])
    assert store.names(f"{s3_bucket}/in") == ["a.tar"]
    s3_proxy.next(["ok"])


@pytest.mark.parametrize("force", ["obstore", "fsspec"])
@pytest.mark.parametrize("kind", ["reset", "reset-body", "truncated", "short", "500", "503-after", "429", "etag"])
def test_spans_survive_faults(s3_proxy: FaultProxy, s3_server: Any, s3_bucket: str, kind: str, force: str) -> None:
    """Every fault of one answer costs another attempt; the bytes are right, through either client."""
    url = f"{s3_bucket}/a.tar"
    s3_server.put(url, DATA)
    store = quick(s3_server.options_at(s3_proxy.url), force="fsspec" if force == "fsspec" else None)
    engine = Engine(1, patience=Patience(give_up_s=8.0))
    file = store.open(url, engine=engine)
    assert file.read(0, 10) == DATA[:10], "obstore is proven"
    before = s3_proxy.injected
    s3_proxy.next([kind])
    assert file.read(5000, 3000) == DATA[5000:8000]
    # aiohttp repeats a request itself where a kept connection turns out to be closed.
    assert engine.retries == 1 or (kind, force) == ("reset", "fsspec")
    assert s3_proxy.injected[kind] > before.get(kind, 0)


def test_giving_up_names_the_reason(s3_proxy: FaultProxy, s3_server: Any, s3_bucket: str) -> None:
    """A store that fails for long enough is an error with the last reason, and no credentials."""
    options = s3_server.options_at(s3_proxy.url)
    store = RemoteStore("s3", options, patience=Patience(give_up_s=0.0))
    s3_proxy.next(["503"])
    with pytest.raises(ReadError, match=r"Cannot write .*/a\.tar: the store asks for fewer requests \(.*SlowDown"):
        store.write(f"{s3_bucket}/a.tar", b"x")
    s3_proxy.next(["403"])
    with pytest.raises(ReadError, match=r"a\.tar: access to bucket '.*' is denied") as caught:
        store.info(f"{s3_bucket}/a.tar")
    assert options["secret"] not in repr(caught.value.__cause__)


def test_a_stream_goes_on_after_a_drop(s3_proxy: FaultProxy, s3_server: Any, s3_bucket: str) -> None:
    """A connection that breaks in the middle costs one block; nothing comes twice or is left out."""
    url = f"{s3_bucket}/a.tar"
    s3_server.put(url, DATA)
    store = quick(s3_server.options_at(s3_proxy.url))
    with store.open_stream(url, block_bytes=20_000) as stream:
        s3_proxy.next(["ok", "reset-body", "ok", "truncated", "503"])
        assert stream.read() == DATA


def test_unusual_keys_round_trip(listed: tuple[RemoteStore, str]) -> None:
    """Keys with spaces, percent signs and letters of any script are written, listed and read."""
    store, folder = listed
    names = ["a b.tar", "a%20b.tar", "ü-日.tar", "a+b=c.tar", "a#b.tar"]
    for number, name in enumerate(names):
        store.write(f"{folder}/{name}", b"%d--------" % number)
    assert store.names(folder) == sorted(names)
    assert sorted(store.infos(folder)) == sorted(names)
    for number, name in enumerate(names):
        file = store.open(f"{folder}/{name}")
        assert file.read(0, 2) == b"%d-" % number
        assert store.read(f"{folder}/{name}")[:1] == b"%d" % number


# ---- web servers


def test_a_web_server_is_read(web: WebServer) -> None:
    """Size, ETag and ranges of an object; nothing is listed; what is missing is named."""
    store, url = store_for(web), f"{web}/a.tar"
    info = store.info(url)
    assert info.size == len(DATA)
    assert info.version.startswith("etag:")
    assert '"' not in info.version
    file = store.open(url)
    assert file.read_spans([(0, 5), (1000, 1), (len(DATA) - 2, 2)]) == [DATA[:5], DATA[1000:1001], DATA[-2:]]
    assert store.read(url) == DATA
    assert store.accepts_ranges(url)
    assert (store.exists(url), store.exists(f"{web}/b.tar")) == (True, False)
    assert (store.names(str(web)), store.infos(str(web))) == ([], {})
    with store.open_stream(url) as stream:
        assert stream.read() == DATA
    with pytest.raises(ReadError, match=r"b\.tar: there is no such file\. No path 'b\.tar' was found in host '127"):
        store.info(f"{web}/b.tar")
    with pytest.raises(ReadError, match=r"256 bytes were wanted at offset 255900 and 100 are there"):
        file.read(len(DATA) - 100, 256)


def test_a_web_server_is_not_written(web: WebServer) -> None:
    """Writing, creating and removing are refused with what to give instead."""
    store = store_for(web)
    for call in (lambda: store.write(f"{web}/b?sig=x", b""), lambda: store.remove(f"{web}/b")):
        with pytest.raises(
            UnsupportedError, match=r"Cannot write http://127[^?]*/b: web servers are only read\. Give a"
        ):
            call()
    with pytest.raises(UnsupportedError, match="only read"):
        RemoteStore("http", {}).create(f"{web}/b", b"")


def test_whole_files_only(http_server: Serve, tmp_path: Path) -> None:
    """A server without ranges is known by one look; its objects come in sequence, and whole where all is asked for."""
    (tmp_path / "a.tar").write_bytes(DATA)
    web = http_server(tmp_path, ranges=False)
    store, url = store_for(web), f"{web}/a.tar"
    assert not store.accepts_ranges(url)
    assert store.info(url).size == len(DATA)
    with store.open_stream(url) as stream:
        assert stream.read(3) == DATA[:3]
        assert stream.read() == DATA[3:]
    file = store.open(url)
    assert file.read(0, len(DATA)) == DATA
    with pytest.raises(ReadError, match=r"a\.tar: the server sends whole files only \(status 200 to a range request\)"):
        file.read(10, 5)
    for missing in (store.open_stream, store.accepts_ranges):
        with pytest.raises(ReadError, match=r"b\.tar: there is no such file"):
            missing(f"{web}/b.tar")


def test_whole_files_are_looked_at_by_their_heads(http_server: Serve, tmp_path: Path) -> None:
    """A server that sends all where one byte is asked for does so once, not for every look."""
    (tmp_path / "a.tar").write_bytes(DATA)
    (tmp_path / "b.tar").write_bytes(DATA[:100])
    web = http_server(tmp_path, ranges=False)
    store = RemoteStore("http", {"headers": {"X-Test": "heads"}})
    found = [store.info(f"{web}/a.tar") for _ in range(4)]
    assert found == [found[0]] * 4
    assert store.info(f"{web}/b.tar").size == 100
    assert not store.accepts_ranges(f"{web}/b.tar")
    assert [(one.method, one.status) for one in web.served] == [("GET", 200), *[("HEAD", 200)] * 5]
    with pytest.raises(ReadError, match=r"c\.tar: there is no such file"):
        store.info(f"{web}/c.tar")


def test_a_store_that_never_answered(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead endpoint is given up soon, and not in silence; one that has answered once gets all the patience."""
    monkeypatch.setattr(retrying, "STRANGER_S", 0.3)
    monkeypatch.setattr(remote, "TOLD_AFTER_S", -1.0)
    with FaultProxy(web, faults={"reset": 1.0}) as proxy:
        store = RemoteStore("http", {"headers": {"X-Test": "stranger"}})
        with (
            pytest.warns(SetaStreamWarning, match=r"Waiting for http.*a\.tar: .* until 0 s have passed") as told,
            pytest.raises(ReadError, match=r"Cannot read .*a\.tar: no whole answer came.*Check the network"),
        ):
            store.info(f"{proxy.url}/a.tar")
        assert len(told) == 1
        monkeypatch.setattr(retrying, "STRANGER_S", 0.0)
        proxy.set_faults(0.0)
        assert store.info(f"{proxy.url}/a.tar").size == len(DATA)
        proxy.next(["reset", "reset"])
        assert store.info(f"{proxy.url}/a.tar").size == len(DATA)


def test_azure_is_asked_once_per_attempt(azure_server: AzureAccount) -> None:
    """The SDK's own attempts would hide what the engine should see: four of them take 85 s at a dead endpoint."""
    with FaultProxy(azure_server, faults={"500": 1.0}) as proxy:
        store = RemoteStore("az", azure_server.options_at(proxy.url), patience=Patience(give_up_s=0.0))
        with pytest.raises(ReadError, match="no whole answer came"):
            store.info("az://container/a.tar")
        assert proxy.requests == 1


def test_a_whole_file_that_breaks_off(http_server: Serve, tmp_path: Path) -> None:
    """Without ranges a broken connection cannot be taken up again: the offset is told."""
    (tmp_path / "a.tar").write_bytes(DATA * 20)
    with FaultProxy(http_server(tmp_path, ranges=False)) as proxy:
        store = RemoteStore("http", {}, patience=Patience(give_up_s=0.0))
        proxy.next(["ok", "truncated"])
        with store.open_stream(f"{proxy.url}/a.tar") as stream:
            with pytest.raises(ReadError, match=r"a\.tar: no whole answer came") as caught:
                stream.read()
            assert caught.value.offset is not None
            assert 0 < caught.value.offset < len(DATA) * 20


def test_without_an_etag_the_time_counts(http_server: Serve, tmp_path: Path) -> None:
    """A server that gives no ETag is held to Last-Modified."""
    (tmp_path / "a.tar").write_bytes(DATA)
    web = http_server(tmp_path, etag=False)
    store, url = store_for(web), f"{web}/a.tar"
    file = store.open(url)
    assert file.info.version.startswith("time:")
    assert file.read(3, 4) == DATA[3:7]
    os.utime(tmp_path / "a.tar", (1, 1))
    with pytest.raises(ShardChangedError, match=r"changed since it was indexed: it had 256000 bytes \(time:.*1970"):
        file.read(3, 4)


@pytest.mark.parametrize(
    "kind", ["reset", "reset-body", "truncated", "short", "500", "503-after", "429", "etag", "slow"]
)
def test_web_spans_survive_faults(web: WebServer, kind: str) -> None:
    """As in buckets: the bytes are right whatever one answer met."""
    with FaultProxy(web) as proxy:
        store = quick({}, "http")
        engine = Engine(1, patience=Patience(give_up_s=8.0))
        file = store.open(f"{proxy.url}/a.tar", store.info(f"{proxy.url}/a.tar"), engine=engine)
        proxy.next([kind])
        assert file.read(5000, 3000) == DATA[5000:8000]
        assert engine.retries == (kind != "slow") or kind == "reset"
        assert proxy.injected[kind] == 1


def test_a_signed_url_is_read_and_not_told(web: WebServer) -> None:
    """The query goes to the server, and into no message."""
    store = store_for(web)
    assert store.read(f"{web}/a.tar?X-Amz-Signature=secret") == DATA
    assert any("X-Amz-Signature=secret" in target for _, _, _, target, _ in web.served)
    with pytest.raises(ReadError, match=r"b\.tar: there is no such file") as caught:
        store.info(f"{web}/b.tar?X-Amz-Signature=secret")
    assert "secret" not in f"{caught.value} {vars(caught.value)} {caught.value.__cause__}"


def test_empty_objects_of_a_web_server(http_server: Serve, tmp_path: Path) -> None:
    """A range of nothing is refused by servers; the size is known all the same."""
    (tmp_path / "empty").touch()
    web = http_server(tmp_path)
    store = store_for(web)
    assert store.info(f"{web}/empty").size == 0
    assert store.read(f"{web}/empty") == b""
    with store.open_stream(f"{web}/empty") as stream:
        assert stream.read() == b""


def test_the_callers_own_headers_are_sent(http_server: Serve, tmp_path: Path) -> None:
    """Headers and session options of storage_options reach the server; compressed files stay as they lie."""
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b not really")
    web = http_server(tmp_path)
    options = {"client_kwargs": {"headers": {"X-One": "1"}}, "headers": {"X-Two": "2"}}
    assert RemoteStore("http", options).open(f"{web}/a.tar.gz").read(0, 4) == b"\x1f\x8b n"

    async def sent() -> dict[str, str]:
        session = await web_session(**options["client_kwargs"])
        try:
            return {**session.headers, "decompresses": str(session.auto_decompress), "limit": session.connector.limit}
        finally:
            await session.close()

    found = asyncio.run(sent())
    assert (found["X-One"], found["Accept-Encoding"]) == ("1", "identity")
    assert (found["decompresses"], found["limit"]) == ("False", 0)


# ---- versions and streams by themselves


def test_versions_of_all_kinds() -> None:
    """Quotes and weak marks are no part of a version; a generation is Google's; a time serves where nothing else is."""
    assert of_etag('"abc-2"') == of_etag("abc-2") == of_etag('W/"abc-2"') == "etag:abc-2"
    assert of_facts("s3", {"size": 3, "ETag": '"x"', "LastModified": "now"}) == ObjectInfo(3, "etag:x")
    assert of_facts("gs", {"size": 3, "etag": "CJ=", "generation": "17"}) == ObjectInfo(3, "generation:17")
    assert of_facts("sftp", {"size": 3, "mtime": 17}) == ObjectInfo(3, "time:17000000")
    date = datetime(2026, 11, 24, 11, 28, 6, 566706, UTC)
    assert of_facts("sftp", {"size": 3, "created": date}) == of_facts("sftp", {"size": 3, "created": 1795519686.566706})
    assert of_facts("sftp", {"size": 3, "modified": "now"}) == ObjectInfo(3, "time:now")
    assert of_facts("odd", {"size": 3}) == ObjectInfo(3, UNVERSIONED)
    assert of_headers(3, {}) == ObjectInfo(3, UNVERSIONED)
    assert content_range("bytes 3-9/20") == (3, 9, 20)
    assert content_range("bytes 3-9/*") == (3, 9, None)
    assert content_range("bytes */20") == (None, None, 20)
    assert content_range("lines 1-2/3") == (None, None, None)
    check_range(None, 3, 10)
    check_range("bytes 3-9/20", 3, 10)
    with pytest.raises(Fault, match=r"transient: bytes 3-8/20 came for bytes 3-9"):
        check_range("bytes 3-8/20", 3, 10)
    check_length(3, 3)
    with pytest.raises(Fault, match=r"transient: 2 of 3 bytes came"):
        check_length(2, 3)
    with pytest.raises(Fault, match="missing: there is a folder of that name"):
        of_facts("s3", {"size": 0, "type": "directory"})
    with pytest.raises(Fault, match="broken: the store does not tell the size"):
        of_facts("http", {"size": None})


def test_a_stream_keeps_few_blocks(tmp_path: Path) -> None:
    """Only the next blocks are asked for; what is under way when it is closed is given up."""

    class Answer:
        def __init__(self, data: bytes) -> None:
            self.data, self.is_cancelled = data, False

        def result(self) -> bytes:
            return self.data

        def cancel(self) -> None:
            self.is_cancelled = True

    class File:
        info = ObjectInfo(1000, "etag:x")
        asked: list[Answer]
        is_closed = False

        def __init__(self) -> None:
            self.asked = []

        def ask(self, spans: list[tuple[int, int]]) -> list[Answer]:
            answers = [Answer(bytes([offset // 10]) * length) for offset, length in spans]
            self.asked.extend(answers)
            return answers

        def close(self) -> None:
            self.is_closed = True

    file: Any = File()
    stream = io.BufferedReader(BlockStream(file, 10), 10)
    assert stream.read(10) == bytes(10)
    assert len(file.asked) == 4
    assert stream.read(5) == b"\1" * 5
    stream.close()
    stream.close()
    assert [answer.is_cancelled for answer in file.asked] == [False, False, True, True, True]
    assert file.is_closed


def test_a_client_looks_and_reads_once(web: WebServer) -> None:
    """A client makes one attempt, on its own loop; what fails is a fault, without the client's own error."""
    client = client_for("http", {})

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, client.loop).result()

    info = run(client.info(f"{web}/a.tar"))
    assert bytes(run(client.get(f"{web}/a.tar", 1, 4, info))) == DATA[1:4]
    assert run(client.get(f"{web}/a.tar", 4, 4, info)) == b""
    with pytest.raises(Fault, match="missing: ") as caught:
        run(client.get(f"{web}/b.tar", 1, 4, info))
    assert caught.value.__cause__ is None
    with pytest.raises(Fault, match=r"changed: it had 256000 bytes \(etag:other\) and has 256000 \(etag:"):
        run(client.get(f"{web}/a.tar", 1, 4, ObjectInfo(info.size, "etag:other")))
