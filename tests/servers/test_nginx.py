"""nginx serves what the folder holds, in the way that was asked for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plain_client import ask, connect, get
from servers import ServerError, WebServer, nginx, nginx_server
from servers.child import free_port

DATA = os.urandom(300_000)
Serve = Callable[..., WebServer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one file."""
    (tmp_path / "www folder").mkdir()
    (tmp_path / "www folder" / "a.bin").write_bytes(DATA)
    return tmp_path / "www folder"


@pytest.mark.parametrize(
    "options", [{}, {"first_byte_ms": 5}, {"bytes_per_s": 50e6}, {"first_byte_ms": 5, "bytes_per_s": 50e6}]
)
def test_ranges_versions_and_heads_work_in_every_profile(http_server: Serve, folder: Path, options: dict) -> None:
    """A late first byte and a rate change neither ranges, nor If-Match, nor HEAD, nor what is missing."""
    url = http_server(folder, **options)
    whole = get(url, "/a.bin")
    assert (whole.status, whole.body) == (200, DATA)
    part = get(url, "/a.bin", span=(1000, 250_000), If_Match=whole.headers["etag"])
    assert (part.status, part.body) == (206, DATA[1000:250_000])
    assert part.headers["content-range"] == "bytes 1000-249999/300000"
    assert get(url, "/a.bin", If_Match='"another"').status == 412
    head = get(url, "/a.bin", method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, "300000", b"")
    assert get(url, "/none.bin").status == 404


def test_without_ranges_the_whole_file_comes(http_server: Serve, folder: Path) -> None:
    """A server without ranges answers 200 with everything and does not say that it accepts ranges."""
    reply = get(http_server(folder, ranges=False), "/a.bin", span=(10, 20))
    assert (reply.status, reply.body) == (200, DATA)
    assert "accept-ranges" not in reply.headers


def test_without_etag_none_is_sent(http_server: Serve, folder: Path) -> None:
    """A server that knows no versions is to be had too."""
    assert "etag" in get(http_server(folder), "/a.bin").headers
    assert "etag" not in get(http_server(folder, etag=False), "/a.bin").headers


def test_the_first_byte_comes_late(http_server: Serve, folder: Path) -> None:
    """Each request on a kept connection waits for its first byte."""
    connection = connect(http_server(folder, first_byte_ms=20))
    start = time.monotonic()
    for _ in range(5):
        assert ask(connection, "/a.bin", span=(0, 1)).body == DATA[:1]
    assert time.monotonic() - start >= 0.1
    connection.close()


def test_a_rate_holds_for_spans_far_shorter_than_a_second(http_server: Serve, folder: Path) -> None:
    """300 KB at 3 MB/s take a tenth of a second, less the last 4 ms."""
    url = http_server(folder, bytes_per_s=3e6)
    start = time.monotonic()
    assert get(url, "/a.bin").body == DATA
    assert time.monotonic() - start >= 0.095


def test_what_was_served_is_counted_at_once(http_server: Serve, folder: Path) -> None:
    """Requests and bytes are exact as soon as the client has its answer, for many requests on one connection."""
    url = http_server(folder)
    connection = connect(url)
    for number in range(1, 301):
        ask(connection, "/a.bin?q=1 x".replace(" ", "%20"), span=(0, 100))
        if number in {1, 300}:
            assert (url.requests, url.bytes) == (number, number * 100)
    connection.close()
    assert url.served[-1] == ("GET", 206, 100, "/a.bin?q=1%20x", "bytes=0-99")
    assert connection.sock is None


def test_several_run_at_once_and_stop(folder: Path) -> None:
    """Each has a port of its own, and nothing listens there after the block."""
    with nginx(folder) as one, nginx(folder) as other:
        assert one != other
        assert get(one, "/a.bin").body == get(other, "/a.bin").body == DATA
    with pytest.raises(ConnectionRefusedError):
        get(one, "/a.bin")


def test_a_port_taken_in_between_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else took the port, another is tried."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(nginx_server, "free_port", lambda: ports.pop(0))
        with nginx(folder) as url:
            assert get(url, "/a.bin").body == DATA
        assert ports == []
        monkeypatch.setattr(nginx_server, "free_port", lambda: taken.getsockname()[1])
        with pytest.raises(ServerError, match=r"each of 5 free ports was taken"), nginx(folder):
            pass


def test_a_missing_program_names_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nginx or its echo module is not installed, the error says how to install them; a pair is taken together."""
    monkeypatch.setattr(nginx_server, "SYSTEM", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/nginx").touch()
    with (
        pytest.raises(ServerError, match=r"start nginx: no usr/sbin/nginx and .*: bash tools/install_servers\.sh"),
        nginx(folder),
    ):
        pass
    own = tmp_path / "home/.cache/seta-stream-servers/nginx"
    for name in (nginx_server.PROGRAM, nginx_server.ECHO_MODULE):
        (own / name).parent.mkdir(parents=True)
        (own / name).touch()
    assert nginx_server.find_nginx() == (own / nginx_server.PROGRAM, own / nginx_server.ECHO_MODULE)


def test_a_bad_configuration_shows_what_nginx_said(tmp_path: Path) -> None:
    """A server that does not start fails with its own words."""
    with (
        pytest.raises(ServerError, match=r"nginx ended at its start; exit code 1, stderr: .*unexpected"),
        nginx(tmp_path / 'a"b'),
    ):
        pass
