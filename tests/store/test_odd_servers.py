"""Servers that leave out what others tell: sizes, versions, ranges."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers import WebServer

from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.store import ObjectInfo
from seta_stream.store.faults import Fault
from seta_stream.store.obstores import ObstoreFetch
from seta_stream.store.remote import RemoteStore
from seta_stream.store.retrying import Patience
from seta_stream.store.versions import UNVERSIONED

BODY = b"0123456789"
ACCEPTED = {"Accept_Ranges": "bytes", "ETag": '"x"'}


class Odd(BaseHTTPRequestHandler):
    """Answers by the name of what is asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send an answer; without a length where the body comes in chunks."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Transfer_Encoding" in headers:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer as GET does, without a range."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer."""
        name, span = self.path.rpartition("/")[2], self.headers.get("Range")
        if span is None or name == "chunked":
            is_sized = "chunked" not in name
            self.answer(200, BODY, **(ACCEPTED if is_sized else {"Transfer_Encoding": "chunked"}))
            return
        first, last = span.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1, len(BODY))
        if name.startswith("refused"):
            self.answer(416, b"")
        elif name == "wrong":
            self.answer(206, BODY[: stop - start], Content_Range=f"bytes 0-{stop - start - 1}/10", ETag='"x"')
        else:
            etag = {} if name == "plain" else {"ETag": 'W/"x"' if name == "weak" else '"x"'}
            size = "*" if name == "star" else "10"
            self.answer(206, BODY[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{size}", **etag)


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    """Run such a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def store() -> RemoteStore:
    """A store that gives up at once."""
    return RemoteStore("http", {}, patience=Patience(give_up_s=0.0))


@pytest.mark.parametrize("name", ["chunked", "refused-chunked"])
def test_a_size_that_is_not_told(odd: str, store: RemoteStore, name: str) -> None:
    """Without a size there is nothing to index."""
    with pytest.raises(ReadError, match=rf"Cannot read .*/{name}: .*the server does not tell the size.*Check the URL"):
        store.info(f"{odd}/{name}")


def test_a_size_that_head_tells(odd: str, store: RemoteStore) -> None:
    """Where the range's answer leaves the size out, HEAD is asked; ranges are read all the same."""
    info = store.info(f"{odd}/star")
    assert info == ObjectInfo(10, "etag:x")
    assert store.accepts_ranges(f"{odd}/star")
    assert store.open(f"{odd}/star", info).read(3, 4) == b"3456"
    assert store.info(f"{odd}/refused").size == 10


def test_a_range_that_was_not_asked_for(odd: str, store: RemoteStore) -> None:
    """The right number of wrong bytes is no answer."""
    client, info = store._client(), store.info(f"{odd}/wrong")
    assert info == ObjectInfo(10, "etag:x")
    with pytest.raises(Fault, match=r"transient: bytes 0-3/10 came for bytes 4-7"):
        asyncio.run_coroutine_threadsafe(client.get(f"{odd}/wrong", 4, 8, info), client.loop).result()


def test_a_server_without_versions(odd: str, store: RemoteStore) -> None:
    """What tells neither ETag nor time is held to its size; a weak ETag counts as any other."""
    info = store.info(f"{odd}/plain")
    assert info == ObjectInfo(10, UNVERSIONED)
    assert store.open(f"{odd}/plain", info).read(3, 4) == b"3456"
    with pytest.raises(ShardChangedError, match=r"it had 11 bytes \(size\) and has 10"):
        store.open(f"{odd}/plain", ObjectInfo(11, UNVERSIONED)).read(3, 4)
    weak = store.info(f"{odd}/weak")
    assert weak == ObjectInfo(10, "etag:x")
    assert store.open(f"{odd}/weak", weak).read(3, 4) == b"3456"


def test_obstore_needs_a_version(odd: str) -> None:
    """Bytes of no version are left to fsspec."""
    from obstore.store import HTTPStore

    async def opener(bucket: str) -> Any:
        return HTTPStore(odd, client_options={"allow_http": True})

    async def read() -> bytes:
        return bytes(await ObstoreFetch(opener)("s3://b/plain", 3, 7, ObjectInfo(10, "etag:x")))

    with pytest.raises(Fault, match="broken: the store told no version"):
        asyncio.run(read())


@pytest.mark.parametrize("force", ["obstore", "fsspec"])
def test_a_bucket_without_ranges(http_server: Callable[..., WebServer], tmp_path: Path, force: Any) -> None:
    """A store that sends whole objects is known as such by either client, and serves whole objects."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a.tar").write_bytes(BODY)
    web = http_server(tmp_path, ranges=False)
    store = RemoteStore("s3", {"key": "k", "secret": "s", "endpoint_url": str(web)}, force=force)
    file = store.open("s3://bucket/a.tar")
    with pytest.raises(ReadError, match=r"a\.tar: the server sends whole files only \(the whole object came\)"):
        file.read(3, 4)
    assert file.read(0, 10) == BODY
