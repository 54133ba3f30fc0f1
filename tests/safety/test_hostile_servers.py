"""Servers that lie: about lengths, about ranges, and about an end. Bounded memory, one error, no hanging."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fuzz.making import tar
from limits import MIB, within

from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.errors import ArgumentError, CorpusError, ReadError, SetaStreamError, TarError
from seta_stream.read.cache import BlockCache, Cache
from seta_stream.store import ObjectInfo, fetching
from seta_stream.store.remote import RemoteStore
from seta_stream.store.retrying import Patience

BODY = tar()
SENT_MOST = 96 * MIB
"""A server of endless bytes ends after so many, so that a failing test does too."""


class Lying(BaseHTTPRequestHandler):
    """Answers by the name of what is asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"ETag": '"x"', "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def _endless(self, chunk: bytes = b"x" * MIB) -> None:
        sent = 0
        with contextlib.suppress(OSError):  # the reader has seen enough
            while sent < SENT_MOST:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                sent += len(chunk)
        self.server.sent = sent  # type: ignore[attr-defined]

    def do_HEAD(self) -> None:
        """Tell a size that is not that of the body."""
        self._begin(200, Content_Length=len(BODY), Accept_Ranges="bytes")

    def do_GET(self) -> None:
        """Answer."""
        self.close_connection = True
        name, span = self.path.rpartition("/")[2], self.headers.get("Range", "bytes=0-")
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last or len(BODY) - 1) + 1
        size = 1 << 60 if name.startswith("vast") else len(BODY)
        told = {"Content_Range": f"bytes {start}-{stop - 1}/{size}"}
        if name == "endless-whole":
            self._begin(200, Transfer_Encoding="chunked")
            self._endless()
        elif name == "no-ranges.tar":
            self._begin(200, Content_Length=len(BODY)) if stop == 1 else self._begin(200, Transfer_Encoding="chunked")
            self.wfile.write(BODY) if stop == 1 else self._endless()
        elif name == "endless-range.tar" and stop - start > 1:
            self._begin(206, Transfer_Encoding="chunked", **told)
            self._endless()
        elif name == "short.tar" and stop - start > 1:
            self._begin(206, Content_Length=stop - start, **told)
            self.wfile.write(BODY[start : stop - 1])
        elif name == "vast.tar":
            data = (BODY + bytes(stop))[start:stop] if stop < 4 * MIB else b"x" * (stop - start)
            self._begin(206, Content_Length=len(data), **told)
            self.wfile.write(data)
        elif name == "packed.tar":
            self._begin(206, Content_Length=20, Content_Encoding="gzip", **told)
            self.wfile.write(b"\x1f\x8b" + b"x" * 18)
        elif name == "elsewhere.tar":
            self._begin(302, Location="file:///etc/passwd", Content_Length=0)
        else:
            self._begin(206, Content_Length=stop - start, **told)
            self.wfile.write(BODY[start:stop])


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """Run such a server."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Lying)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    """Return where it is."""
    server.sent = 0  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def store() -> RemoteStore:
    """A store that gives up at once."""
    return RemoteStore("http", {}, patience=Patience(give_up_s=0.0))


def test_a_range_without_an_end_is_cut(url: str, store: RemoteStore, server: ThreadingHTTPServer) -> None:
    """Of a body that goes on, a little more than was asked for is taken, and refused."""
    file = store.open(f"{url}/endless-range.tar", ObjectInfo(len(BODY), "etag:x"))
    client = store._client()
    with within(32 * MIB), pytest.raises(SetaStreamError, match=r"of 1024 bytes came"):
        raise_fault(client, f"{url}/endless-range.tar", file.info)
    file.close()
    assert server.sent < SENT_MOST  # type: ignore[attr-defined]


def raise_fault(client: object, url: str, info: ObjectInfo) -> None:
    """Ask for 1,024 bytes once, and raise what came of it as an error of the package."""
    import asyncio

    from seta_stream.store.faults import Fault, error_of

    try:
        asyncio.run_coroutine_threadsafe(client.get(url, 0, 1024, info), client.loop).result()  # type: ignore[attr-defined]
    except Fault as fault:
        raise error_of(fault, url, attempts=1, action="read") from None


def test_a_whole_object_without_an_end_is_cut(
    url: str, store: RemoteStore, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index or a list that never ends is given up at a limit."""
    monkeypatch.setattr(fetching, "MOST_WHOLE_BYTES", 4 * MIB)
    with within(32 * MIB), pytest.raises(ReadError, match=r"sends more than 4194304 bytes, and no such file"):
        store.read(f"{url}/endless-whole")
    assert server.sent < SENT_MOST  # type: ignore[attr-defined]
    assert store.read(f"{url}/right.tar") == BODY


def test_a_stream_without_an_end_is_cut(url: str, server: ThreadingHTTPServer) -> None:
    """A server without ranges that sends more than it told is a shard that is not what it claimed."""
    with within(64 * MIB, 10), pytest.raises((TarError, ReadError), match=r"Cannot scan|Cannot read"):
        scan_quietly(f"{url}/no-ranges.tar")


def test_a_body_that_is_too_short_is_refused(url: str, store: RemoteStore) -> None:
    """Never fewer bytes than were asked for."""
    with pytest.raises(SetaStreamError, match=r"Cannot read .*short\.tar"):
        raise_or_read(store, f"{url}/short.tar")


def raise_or_read(store: RemoteStore, url: str) -> None:
    """Read by one attempt."""
    raise_fault(store._client(), url, ObjectInfo(len(BODY), "etag:x"))


def test_a_size_that_cannot_be_takes_no_memory(url: str, tmp_path: Path) -> None:
    """A shard of 2^60 bytes is as large as its tar; the rest is never asked for, and no cache is laid out for it."""
    with within(64 * MIB, 10):
        assert scan_quietly(f"{url}/vast.tar").index.samples == 2
    with within(16 * MIB), pytest.raises(ReadError, match=r"of 1152921504606846976 bytes .*cannot be cached"):
        BlockCache(Cache(str(tmp_path)), [f"{url}/vast.tar"], [1 << 60], ["etag:x"], options=None)


def test_what_is_packed_on_the_way_is_not_unpacked(url: str, store: RemoteStore) -> None:
    """Bytes are taken as they lie: a few KiB cannot become many MiB by a header."""
    client, info = store._client(), ObjectInfo(len(BODY), "etag:x")
    with pytest.raises(SetaStreamError, match=r"20 of 1024 bytes came"):
        raise_fault(client, f"{url}/packed.tar", info)


def test_a_redirection_leads_to_no_file(url: str) -> None:
    """A web server can send a reader to another server, not to this machine's files."""
    store = RemoteStore("http", {}, patience=Patience(give_up_s=0.0))
    with pytest.raises(ReadError, match=r"Cannot read .*elsewhere\.tar"):
        store.info(f"{url}/elsewhere.tar")


def test_a_list_from_a_server_is_a_list_of_urls(url: str, tmp_path: Path) -> None:
    """Programs (`pipe:`) and chains of file systems (`a::b`) are refused wherever they are named."""
    for line in ("pipe:touch harm", "simplecache::http://x/a.tar", "zip://x.tar::file:///x.zip", "file:///a\0b.tar"):
        (tmp_path / "list.txt").write_text(f"{line}\n")
        with pytest.raises((ArgumentError, CorpusError, SetaStreamError)):
            open_corpus(tmp_path / "list.txt", progress=False)
    assert not (tmp_path / "harm").exists()
