"""A proxy that breaks some of the requests that go through it.

Takes: a server's URL, and how often which fault happens. Gives: the proxy's URL and what it counted.
Effects: a process of its own.

No kept package does this: Toxiproxy (not in the registries we reach) works on bytes, so it knows no status, ETag or
Content-Length, and mitmproxy is a hundred times the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from servers.fault_kinds import checked, shares_of
from servers.proxy_process import ProxyProcess


@dataclass(frozen=True)
class Request:
    """One request that a fault proxy has answered, and the fault that it met ("ok": none)."""

    method: str
    target: str
    range: str
    kind: str


class FaultProxy:
    """Passes HTTP/1.1 requests on to a server; some fail, by a list or by a draw.

    The Host header stays as the client sent it, so signatures hold. Whether a request fails depends on the seed, the
    request itself and how often it came before, not on the order of arrival: a run can be repeated.

    Args:
        target_url: the server; a path in it is kept in `url`.
        faults: share of requests per kind (see KINDS; "404" or any other status is a kind too), or one share for
            `kinds` together.
        seed: decides which requests fail.
        kinds: which kinds one share is divided over; None: all.
        methods: only requests of these methods fail.
        slow_s: how late the first byte of "slow" comes.
    """

    def __init__(
        self,
        target_url: str,
        *,
        faults: Mapping[str, float] | float = 0.0,
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        methods: Iterable[str] = ("GET", "HEAD"),
        slow_s: float = 0.2,
    ) -> None:
        config = {
            "shares": shares_of(faults, kinds),
            "seed": seed,
            "methods": sorted(methods),
            "slow_s": slow_s,
        }
        self._process = ProxyProcess("servers.fault_main", "fault proxy", target_url, config)
        self._ask = self._process.ask

    def __enter__(self) -> Self:
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

    def next(self, kinds: Sequence[str], *, match: str = "") -> None:
        """Plan the faults of the next requests, "ok" for none; the draw goes on after them.

        Args:
            kinds: one for each of the next requests.
            match: only requests whose path or query holds this text count.
        """
        self._ask(next=[checked(kind) for kind in kinds], match=match)

    def set_faults(self, faults: Mapping[str, float] | float, *, kinds: Sequence[str] | None = None) -> None:
        """Change the shares from now on."""
        self._ask(shares=shares_of(faults, kinds))

    def begin_anew(self) -> None:
        """Let `in_flight_max` be of what comes from now on."""
        self._ask(anew=True)

    @property
    def requests(self) -> int:
        """How many requests have come."""
        return int(self._ask()["requests"])

    @property
    def connections(self) -> int:
        """How many connections have been opened."""
        return int(self._ask()["connections"])

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return int(self._ask()["in_flight"])

    @property
    def in_flight_max(self) -> int:
        """The most requests that were under way at once."""
        return int(self._ask()["in_flight_max"])

    @property
    def bytes(self) -> int:
        """How many bytes of bodies were passed on."""
        return int(self._ask()["bytes"])

    @property
    def injected(self) -> dict[str, int]:
        """How many faults of each kind have really happened."""
        return dict(self._ask()["injected"])

    @property
    def log(self) -> list[Request]:
        """The last 100,000 requests, in the order in which they were done with."""
        return [Request(*entry) for entry in self._ask(log=True)["log"]]
