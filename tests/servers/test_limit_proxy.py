"""The limit proxy passes bytes on unchanged, all connections together no faster than its rate."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from plain_client import ask, connect, get
from servers import LimitProxy, ServerError, WebServer, moto, nginx

DATA = os.urandom(4_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Serve one file of four million bytes."""
    folder = tmp_path_factory.mktemp("www")
    (folder / "a.bin").write_bytes(DATA)
    with nginx(folder) as url:
        yield url


def test_every_byte_passes_on_kept_connections(server: WebServer) -> None:
    """Bodies of any length are the server's own, on many connections at once and many requests on each."""

    def work(first: int) -> None:
        connection = connect(proxy.url)
        for length in (1, 100, 65_536, 1_000_000, 3_000_000):
            assert ask(connection, "/a.bin", span=(first, first + length)).body == DATA[first : first + length]
        connection.close()

    with LimitProxy(server, bytes_per_s=1e9) as proxy:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(64)))
        assert proxy.bytes > 64 * 4_065_637
        assert proxy.connections == 64
        # A client may connect anew before the proxy has seen its last connection close.
        assert 1 <= proxy.connections_max <= 2 * 16


def test_all_connections_share_the_rate(server: WebServer) -> None:
    """Four connections that fetch 4 MB together at 8 MB/s take what one would, but for the first 10 ms."""
    with LimitProxy(server, bytes_per_s=8e6) as proxy, ThreadPoolExecutor(4) as pool:
        start = time.monotonic()
        spans = [(n * 1_000_000, (n + 1) * 1_000_000) for n in range(4)]
        for (begin, end), reply in zip(
            spans, pool.map(lambda span: get(proxy.url, "/a.bin", span=span), spans), strict=True
        ):
            assert reply.body == DATA[begin:end]
        assert time.monotonic() - start >= (4e6 - 8e4) / 8e6


def test_a_client_that_does_not_read_stops_nobody_else(server: WebServer) -> None:
    """What one client leaves lying takes neither the others' turn nor the rate."""
    with LimitProxy(server, bytes_per_s=1e9) as proxy, socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", connect(proxy.url).port))
        lazy.sendall(b"GET /a.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(3):
            assert get(proxy.url, "/a.bin").body == DATA
        got = b""
        while piece := lazy.recv(1 << 20):
            got += piece
        assert got.endswith(DATA)


def test_what_clients_send_passes_too() -> None:
    """A request far longer than any buffer reaches the server whole."""
    with moto() as endpoint, LimitProxy(endpoint, bytes_per_s=1e9) as proxy:
        bucket = endpoint.make_bucket("sent")
        type(endpoint)(proxy.url).put(f"{bucket}/a.bin", DATA * 4)
        assert endpoint.get(f"{bucket}/a.bin") == DATA * 4


def test_connections_end_on_both_sides(server: WebServer) -> None:
    """Where the server or the client closes, so does the other side; nothing stays open."""
    with LimitProxy(server, bytes_per_s=1e9) as proxy:
        connection = connect(proxy.url)
        assert ask(connection, "/a.bin", Connection="close").body == DATA
        connection.close()
        left = connect(proxy.url)
        left.request("GET", "/a.bin")
        left.close()  # before the answer was read
        assert get(proxy.url, "/a.bin").body == DATA
        # One more round trip: what closed before it has been seen.
        assert get(proxy.url, "/a.bin").body == DATA
        assert proxy.connections == 4
        assert proxy.connections_open <= 1


def test_a_server_that_is_gone_ends_the_connection() -> None:
    """Where nothing listens behind it, the client's connection is closed at once."""
    with LimitProxy("http://127.0.0.1:9", bytes_per_s=1e9) as proxy:
        with pytest.raises((ConnectionResetError, ConnectionAbortedError, OSError)):
            get(proxy.url, "/a.bin")
        assert proxy.connections_open == 0


def test_it_keeps_the_path_of_the_target() -> None:
    """A target with a path, as Azurite's account, gives a proxy URL with the same path."""
    with LimitProxy("http://127.0.0.1:9/account", bytes_per_s=1e9) as proxy:
        assert proxy.url.endswith("/account")


def test_it_does_no_work_when_idle(server: WebServer) -> None:
    """Waiting takes no CPU: the benchmarks measure the client, not the proxy."""
    with LimitProxy(server, bytes_per_s=1e6) as proxy:
        assert get(proxy.url, "/a.bin", span=(0, 500_000)).body == DATA[:500_000]
        # Half a second of a limited body, and this many wake-ups, not a spin.
        assert proxy.cpu_s < 0.25


def test_what_it_refuses(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of nothing, another system than Linux and a proxy that is not running are refused."""
    with pytest.raises(ValueError, match=r"limit a rate: bytes_per_s must be above 0, found 0"):
        LimitProxy(server, bytes_per_s=0)
    with pytest.raises(RuntimeError, match=r"ask a limit proxy: it is not running; use it in a `with` block"):
        _ = LimitProxy(server, bytes_per_s=1).bytes
    monkeypatch.setattr(sys, "platform", "darwin")
    with (
        pytest.raises(ServerError, match=r"it needs Linux's splice and epoll; this is darwin"),
        LimitProxy(server, bytes_per_s=1),
    ):
        pass
