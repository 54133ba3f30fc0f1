"""The server of the bucket benchmarks: a folder behind nginx under a profile, and what it has sent.

Takes a folder and a profile; gives a URL and counts. Effects: nginx and perhaps a proxy, on free ports of the loopback,
until the `with` block ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import LimitProxy, WebServer, nginx

SHARDS = (".tar", ".mds")


@dataclass(frozen=True)
class Profile:
    """How a server answers.

    Args:
        first_byte_ms: each answer waits for so long.
        bytes_per_s: of each connection; None for as fast as it goes.
        total_bytes_per_s: of all connections together, by a proxy; None for no proxy.
    """

    first_byte_ms: float
    bytes_per_s: float | None = None
    total_bytes_per_s: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.first_byte_ms:g} ms to the first byte"]
        if self.bytes_per_s is not None:
            parts.append(f"{self.bytes_per_s / 1e6:g} MB/s per connection")
        if self.total_bytes_per_s is not None:
            parts.append(f"{self.total_bytes_per_s / 1e6:g} MB/s in all")
        return ", ".join(parts)


PROFILES = {
    "latency": Profile(first_byte_ms=20, bytes_per_s=50e6),
    "limited": Profile(first_byte_ms=20, total_bytes_per_s=100e6),
    "plain": Profile(first_byte_ms=0),
}


@dataclass(frozen=True)
class Count:
    """What the server has answered in some time.

    Attributes:
        requests: answered, of any method and target.
        bytes: of all bodies.
        shard_requests, shard_bytes: of the shards alone; indexes and listings are the rest.
    """

    requests: int
    bytes: int
    shard_requests: int
    shard_bytes: int


class Bucket:
    """A folder that is served.

    Attributes:
        url: what a reader is given.
        port: where a reader's connections go.
    """

    def __init__(self, server: WebServer, url: str) -> None:
        self.url = url
        self.port = int(urlsplit(url).port or 0)
        self._server = server
        self._seen = 0

    def behind(self, url: str) -> Bucket:
        """Return the same server as it is seen through a proxy at another URL."""
        return Bucket(self._server, url)

    def count(self) -> Count:
        """Return what was answered since the last call."""
        served = self._server.served
        new, self._seen = served[self._seen :], len(served)
        # One byte is a look at the version.
        shards = [row[2] for row in new if row[0] == "GET" and row[3].endswith(SHARDS) and row[2] > 1]
        return Count(len(new), sum(row[2] for row in new), len(shards), sum(shards))


@contextmanager
def serving(folder: Path, profile: Profile) -> Iterator[Bucket]:
    """Serve a folder under a profile until the block ends."""
    with nginx(folder, first_byte_ms=profile.first_byte_ms, bytes_per_s=profile.bytes_per_s) as server:
        if profile.total_bytes_per_s is None:
            yield Bucket(server, str(server))
            return
        with LimitProxy(server, bytes_per_s=profile.total_bytes_per_s) as proxy:
            yield Bucket(server, proxy.url)
