"""The fault proxy changes nothing but what it is told to break, and each fault is what its name says."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plain_client import Reply, ask, connect, get
from servers import KINDS, FaultProxy, WebServer, nginx
from servers.fault_kinds import OTHER_VERSION

DATA = os.urandom(1_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Serve one file of a million bytes."""
    folder = tmp_path_factory.mktemp("www")
    (folder / "a.bin").write_bytes(DATA)
    (folder / "empty.bin").touch()
    with nginx(folder) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(server: WebServer) -> Iterator[FaultProxy]:
    """Run a proxy that breaks only what a test plans."""
    with FaultProxy(server, slow_s=0.1) as running:
        yield running


def one(proxy: FaultProxy, kind: str, *, method: str = "GET", **headers: str) -> Reply:
    """Send one request for bytes 100 … 1099 that meets a fault."""
    proxy.next([kind])
    return get(proxy.url, "/a.bin", span=(100, 1100), method=method, **headers)


@pytest.mark.parametrize("span", [None, (0, 1), (100, 900_000)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_faults_answers_are_the_servers_own(
    server: WebServer, proxy: FaultProxy, method: str, span: tuple[int, int] | None
) -> None:
    """Status, headers and every byte are as without the proxy, also on a connection that is kept."""
    direct, through = connect(server), connect(proxy.url)
    for _ in range(3):
        straight, passed = (ask(link, "/a.bin", method=method, span=span) for link in (direct, through))
        straight.headers.pop("date"), passed.headers.pop("date")
        assert straight == passed
    for link in (direct, through):
        link.close()


def test_the_reset_is_a_reset(proxy: FaultProxy) -> None:
    """The client sees ECONNRESET, before any byte of an answer."""
    with pytest.raises(ConnectionResetError):
        one(proxy, "reset")


def test_the_reset_in_mid_body_comes_after_a_head(proxy: FaultProxy) -> None:
    """The client has status and length, then ECONNRESET."""
    connection = connect(proxy.url)
    proxy.next(["reset-body"])
    connection.request("GET", "/a.bin")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-length")) == (200, "1000000")
    with pytest.raises(ConnectionResetError):
        answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [
        ("500", 500, None),
        ("503", 503, None),
        ("503-after", 503, "1"),
        ("429", 429, None),
        ("404", 404, None),
        ("403", 403, None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_statuses(proxy: FaultProxy, kind: str, status: int, retry_after: str | None, method: str) -> None:
    """An error's status comes whole, and the connection goes on after it."""
    connection = connect(proxy.url)
    proxy.next([kind])
    reply = ask(connection, "/a.bin", method=method)
    assert (reply.status, reply.headers.get("retry-after")) == (status, retry_after)
    assert len(reply.body) == (0 if method == "HEAD" else int(reply.headers["content-length"]))
    assert ask(connection, "/a.bin").body == DATA
    connection.close()


def test_a_truncated_body_ends_too_early(proxy: FaultProxy) -> None:
    """Half the promised bytes come, then an orderly end of the connection."""
    with pytest.raises(http.client.IncompleteRead) as caught:
        one(proxy, "truncated")
    assert caught.value.partial == DATA[100:600]
    assert caught.value.expected == 500


def test_a_short_answer_is_whole_but_too_short(proxy: FaultProxy) -> None:
    """Length and Content-Range agree with half of what was asked; the connection goes on."""
    connection = connect(proxy.url)
    proxy.next(["short"])
    reply = ask(connection, "/a.bin", span=(100, 1100))
    assert (reply.status, reply.body, reply.headers["content-length"]) == (206, DATA[100:600], "500")
    assert reply.headers["content-range"] == "bytes 100-599/1000000"
    assert ask(connection, "/a.bin").body == DATA
    connection.close()


def test_a_stalled_body_stops(proxy: FaultProxy) -> None:
    """Half the body comes and then nothing, until the client gives up; then the proxy lets go too."""
    connection = connect(proxy.url, timeout=0.2)
    proxy.next(["stalled"])
    connection.request("GET", "/a.bin", headers={"Range": "bytes=100-1099"})
    answer = connection.getresponse()
    assert answer.read(500) == DATA[100:600]
    with pytest.raises(TimeoutError):
        answer.read(1)
    assert proxy.in_flight == 1
    answer.close()
    connection.close()
    # The next connection is accepted after the end of this one was seen.
    assert one(proxy, "ok").status == 206
    assert proxy.in_flight == 0


def test_an_answer_of_another_version(proxy: FaultProxy, server: WebServer) -> None:
    """Without If-Match: another ETag and other bytes of the same length; with it: 412, as a real server says."""
    etag = get(server, "/a.bin").headers["etag"]
    reply = one(proxy, "etag")
    assert (reply.status, reply.headers["etag"], len(reply.body)) == (206, OTHER_VERSION, 1000)
    assert reply.body == bytes(byte ^ 0xFF for byte in DATA[100:1100])
    assert one(proxy, "etag", method="HEAD").headers["etag"] == OTHER_VERSION
    assert one(proxy, "etag", If_Match=etag).status == 412
    assert one(proxy, "ok", If_Match=etag).body == DATA[100:1100]


def test_a_slow_first_byte(proxy: FaultProxy) -> None:
    """The answer is right, and late."""
    start = time.monotonic()
    assert one(proxy, "slow").body == DATA[100:1100]
    assert time.monotonic() - start >= 0.1


def test_what_cannot_break_is_passed_on_and_not_counted(proxy: FaultProxy) -> None:
    """A body's faults do not happen where there is no body, nor to an error of the server's own."""
    before = proxy.injected
    for kind in ("reset-body", "truncated", "short", "stalled"):
        assert one(proxy, kind, method="HEAD").status == 206
        proxy.next([kind])
        assert get(proxy.url, "/empty.bin").body == b""
    proxy.next(["truncated", "etag"])
    assert get(proxy.url, "/none.bin").status == get(proxy.url, "/none.bin").status == 404
    assert proxy.injected == before
    assert proxy.log[-1].kind == "ok"


def test_planned_faults_meet_the_requests_that_they_match(proxy: FaultProxy) -> None:
    """A plan is followed in order; with `match` only requests for that path use it up."""
    proxy.next(["503", "ok", "404"], match="a.bin")
    statuses = [
        get(proxy.url, path).status for path in ("/empty.bin", "/a.bin", "/a.bin", "/empty.bin", "/a.bin", "/a.bin")
    ]
    assert statuses == [200, 503, 200, 200, 404, 200]
    assert [request.kind for request in proxy.log[-6:]] == ["ok", "503", "ok", "ok", "404", "ok"]
    assert proxy.log[-1].target == "/a.bin"


def test_each_kind_is_drawn_at_its_share(server: WebServer) -> None:
    """Over 1,000 requests a total share of 0.3 gives each kind about as often; the same seed gives the same faults."""
    kinds = ["500", "503", "429"]

    def statuses(seed: int) -> tuple[list[int], dict[str, int], int]:
        with FaultProxy(server, faults=0.3, kinds=kinds, seed=seed) as proxy:
            connection = connect(proxy.url)
            seen = [ask(connection, "/a.bin", span=(n, n + 1)).status for n in range(1000)]
            connection.close()
            return seen, proxy.injected, proxy.requests

    seen, injected, requests = statuses(1)
    assert requests == 1000
    assert injected == {kind: seen.count(int(kind)) for kind in kinds}
    # Five standard deviations of 1,000 draws at 0.1.
    assert all(abs(count - 100) < 48 for count in injected.values())
    assert statuses(1)[0] == seen
    assert statuses(2)[0] != seen


def test_a_request_that_failed_is_drawn_anew(server: WebServer) -> None:
    """The same request meets its faults independently each time, so that retries succeed; shares can change."""
    with FaultProxy(server, faults={"503": 0.5}) as proxy:
        seen = [get(proxy.url, "/a.bin", span=(0, 1)).status for _ in range(40)]
        assert {206, 503} == set(seen)
        proxy.set_faults(0)
        assert {get(proxy.url, "/a.bin", span=(0, 1)).status for _ in range(20)} == {206}
        proxy.set_faults(1.0, kinds=["429"])
        assert get(proxy.url, "/a.bin", span=(0, 1)).status == 429
        assert get(proxy.url, "/a.bin", method="HEAD").status == 429


def test_other_methods_are_left_alone(server: WebServer) -> None:
    """By default only reads fail; a request's body is read to its end before an error where writes fail too."""
    with FaultProxy(server, faults={"503": 1.0}) as proxy:
        connection = connect(proxy.url)
        assert ask(connection, "/a.bin", method="PUT", body=DATA).status == 405  # nginx's own answer
        connection.close()
    with FaultProxy(server, faults={"503": 1.0}, methods=["PUT"]) as proxy:
        connection = connect(proxy.url)
        assert ask(connection, "/a.bin", method="PUT", body=DATA).status == 503
        assert ask(connection, "/a.bin").body == DATA
        connection.close()


def test_requests_at_once_are_counted(tmp_path: Path) -> None:
    """The most requests under way, connections and bytes are counted."""
    (tmp_path / "a.bin").write_bytes(DATA[:1000])
    with nginx(tmp_path, first_byte_ms=200) as server, FaultProxy(server) as proxy:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: get(proxy.url, "/a.bin").body == DATA[:1000], range(8)))
        assert proxy.in_flight_max == proxy.connections == proxy.requests == 8
        assert proxy.bytes == 8000


def test_a_chunked_request_passes(server: WebServer) -> None:
    """A body that comes in chunks ends where its chunks say; the next request on the connection is understood."""
    got = b""
    with FaultProxy(server) as proxy, socket.create_connection(("127.0.0.1", connect(proxy.url).port)) as link:
        link.sendall(b"PUT /a.bin HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        link.sendall(b"GET /a.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n")
        while piece := link.recv(65536):
            got += piece
        log = proxy.log
    assert got.endswith(DATA[:10])
    assert [(request.method, request.range) for request in log] == [("PUT", ""), ("GET", "bytes=0-9")]


def test_what_it_is_not_told(server: WebServer) -> None:
    """Unknown kinds, impossible shares and a proxy that is not running are refused."""
    with pytest.raises(
        ValueError, match=r"inject a fault: no kind 'sneeze'; kinds are 'ok', reset, .*a status as '404'"
    ):
        FaultProxy(server, faults={"sneeze": 0.1})
    with pytest.raises(ValueError, match=r"inject a fault: no kind '200'"):
        FaultProxy(server).next(["200"])
    for faults in ({"500": 0.6, "503": 0.6}, {"500": -0.1}, 1.5):
        with pytest.raises(ValueError, match=r"inject faults: shares must be 0 or more and add up to at most 1"):
            FaultProxy(server, faults=faults)
    with pytest.raises(RuntimeError, match=r"ask a fault proxy: it is not running; use it in a `with` block"):
        _ = FaultProxy(server).requests


def test_every_kind_is_tested_here() -> None:
    """A kind that is added is tested above."""
    text = Path(__file__).read_text()
    assert all(f'"{kind}"' in text for kind in KINDS)
