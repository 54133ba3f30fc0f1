"""moto's S3 server, in a process of its own.

Takes: nothing. Gives: the endpoint's URL, with storage options for it.
Effects: a process; objects are kept in its memory and go with it.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from servers.child import ServerError, Url, running_module

KEY, SECRET, REGION = "testing", "testing-secret", "us-east-1"
# moto checks no signature, but takes requests without one for a stranger's.
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/{REGION}/s3/aws4_request, SignedHeaders=host, "
                           "Signature=00"}  # fmt: skip


class S3Endpoint(Url):
    """The URL of an S3 server."""

    __slots__ = ()

    @property
    def options(self) -> dict[str, Any]:
        """Storage options of fsspec for s3:// URLs."""
        return self.options_at(self)

    def options_at(self, url: str) -> dict[str, Any]:
        """Return storage_options that reach this server through a proxy's URL."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": str(url)}

    def make_bucket(self, name: str) -> str:
        """Make a bucket; returns its s3:// URL."""
        self._request("PUT", f"/{name}", b"")
        return f"s3://{name}"

    def put(self, url: str, data: bytes) -> None:
        """Store an object at an s3:// URL."""
        self._request("PUT", "/" + url.removeprefix("s3://"), data)

    def get(self, url: str) -> bytes:
        """Return the object at an s3:// URL."""
        return self._request("GET", "/" + url.removeprefix("s3://"), None)

    def delete(self, url: str) -> None:
        """Delete the object at an s3:// URL."""
        self._request("DELETE", "/" + url.removeprefix("s3://"), None)

    def _request(self, method: str, target: str, data: bytes | None) -> bytes:
        where = urlsplit(str(self))
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        try:
            connection.request(method, target, data, SIGNED)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in {200, 204}:
            raise ServerError(f"{method} {target} on moto: expected 200, found {answer.status}: {text[:500]!r}")
        return text


@contextmanager
def moto() -> Iterator[S3Endpoint]:
    """Run an S3 server until the block ends; gives its endpoint's URL."""
    if find_spec("moto") is None:
        raise ServerError("start moto: the package is not installed; install it with: pip install -e '.[test]'")
    with running_module("servers.moto_main", {}, name="moto") as (_, ready):
        yield S3Endpoint(f"http://127.0.0.1:{ready['port']}")
