"""A plain HTTP client: http.client, and nothing that repairs anything."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


def connect(url: str, *, timeout: float = 30) -> http.client.HTTPConnection:
    """Open a connection to a URL's server."""
    where = urlsplit(str(url))
    return http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    *,
    method: str = "GET",
    span: tuple[int, int] | None = None,
    body: bytes | None = None,
    **headers: str,
) -> Reply:
    """Send one request on a connection, and read the whole answer."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if span is not None:
        sent["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    data = answer.read()
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)


def get(url: str, path: str, *, span: tuple[int, int] | None = None, method: str = "GET", **headers: str) -> Reply:
    """Send one request on a connection of its own."""
    connection = connect(url)
    try:
        return ask(connection, path, method=method, span=span, **headers)
    finally:
        connection.close()
