"""A proxy that gives all its connections together one rate.

Takes: a server's URL and a rate. Gives: the proxy's URL and what it counted. Effects: a process of its own; Linux only.

A slow network that all requests share: nginx's limit_rate holds for each request alone.
"""

from __future__ import annotations

import sys
from typing import Self

from servers.child import ServerError
from servers.proxy_process import ProxyProcess


class LimitProxy:
    """Passes bytes on; answers of all connections together go no faster than a rate.

    It knows nothing of HTTP, so it changes nothing, and it costs little: 0.5 to 1 ms of CPU per MB, mostly TCP itself.

    Args:
        target_url: the server; a path in it is kept in `url`.
        bytes_per_s: the rate of all answers together, their headers counted.
    """

    def __init__(self, target_url: str, *, bytes_per_s: float) -> None:
        if bytes_per_s <= 0:
            raise ValueError(f"limit a rate: bytes_per_s must be above 0, found {bytes_per_s}")
        config = {"bytes_per_s": float(bytes_per_s)}
        self._process = ProxyProcess("servers.limit_main", "limit proxy", target_url, config)
        self._ask = self._process.ask

    def __enter__(self) -> Self:
        if sys.platform != "linux":
            raise ServerError(f"start the limit proxy: it needs Linux's splice and epoll; this is {sys.platform}")
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def __str__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """The proxy's address; empty before it runs."""
        return self._process.url

    @property
    def bytes(self) -> int:
        """How many bytes of answers were passed on, headers counted."""
        return int(self._ask()["bytes"])

    @property
    def connections(self) -> int:
        """How many connections have been opened."""
        return int(self._ask()["connections"])

    @property
    def connections_max(self) -> int:
        """The most connections that were open at once."""
        return int(self._ask()["connections_max"])

    @property
    def connections_open(self) -> int:
        """How many connections are open."""
        return int(self._ask()["open"])

    @property
    def cpu_s(self) -> float:
        """How many seconds of CPU the proxy has used."""
        return float(self._ask()["cpu_s"])
