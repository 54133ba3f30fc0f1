"""Which client serves a URL, one per file system, options and process.

Takes a protocol and storage options; gives a client whose `get` is one attempt at one byte range. Effects: fsspec's
thread, sessions and connections; in a forked child all of them are made anew.

    s3, gs, az      fsspec's file system looks, lists and writes; obstore reads byte ranges where it is installed, knows
                    every option that was given, and its threads did not stay behind in a parent; else fsspec reads
    http(s)         aiohttp through fsspec's file system: other clients are no faster
    anything else   fsspec's file system
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import fsspec.asyn

from seta_stream.errors import SetaStreamError
from seta_stream.store import filesystems
from seta_stream.store.faults import Fault, fault_of
from seta_stream.store.fetching import AzureFetch, Fetch, GoogleFetch, PlainFetch, S3Fetch, WebFetch, do
from seta_stream.store.objects import Bytes, ObjectInfo, short_read
from seta_stream.store.obstores import faster
from seta_stream.store.processes import PerProcess
from seta_stream.store.redaction import secrets_of
from seta_stream.store.retrying import STALL_S
from seta_stream.store.urls import shown
from seta_stream.store.versions import of_facts

Force = Literal["fsspec", "obstore"]


class Client(Protocol):
    """One file system in one process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs `get` and `info`, in a thread of its own."""
        ...

    @property
    def is_conditional(self) -> bool:
        """Whether `get` brings no other version's bytes; else its caller looks at the version afterwards."""
        ...

    async def get(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Return the bytes start … stop − 1 of a version, by one attempt.

        Raises:
            Fault: they cannot be had.
            ReadError: the object ends before `stop`.
        """
        ...

    async def info(self, url: str) -> ObjectInfo:
        """Return size and version, by one attempt; a Fault where they cannot be had."""
        ...


class FileSystemClient:
    """A client over an fsspec file system.

    Args:
        protocol: of the URLs.
        options: of the file system.
        force: which client reads byte ranges, for tests and benchmarks; None for the faster one that serves.
    """

    def __init__(self, protocol: str, options: Mapping[str, Any], force: Force | None = None) -> None:
        self.protocol = protocol
        self.fs = filesystems.make(protocol, options)
        self.loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
        self.secrets = secrets_of(options)
        self.web = WebFetch(self.fs) if protocol in filesystems.WEB else None
        slow = self._slow()
        fast = None if force == "fsspec" else faster(protocol, self.fs, options, slow)
        self.fetch: Fetch = fast or slow
        self.has_answered = False
        """Whether the store is known to be there."""
        self.has_told = False
        """Whether somebody was told that it is waited for."""

    @property
    def is_conditional(self) -> bool:
        """Whether every answer is known to be of the version that was asked for."""
        return self.fetch.is_conditional

    def _slow(self) -> Fetch:
        if self.web is not None:
            return self.web
        if self.protocol in filesystems.S3:
            return S3Fetch(self.fs)
        if self.protocol in filesystems.AZURE:
            return AzureFetch(self.fs)
        if self.protocol in filesystems.GOOGLE:
            return GoogleFetch(self.fs)
        return PlainFetch(self.fs, self.protocol)

    async def get(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Return the bytes start … stop − 1 of a version, by one attempt."""
        if stop > info.size:
            raise short_read(shown(url), start, stop - start, max(info.size - start, 0))
        if start == stop:
            return b""
        try:
            data = await self.fetch(url, start, stop, info)
        except Exception as error:  # noqa: BLE001  (whatever a client raises is judged)
            raise self.fault(error, url) from None  # the client's error may hold credentials
        self.has_answered = True
        return data

    async def info(self, url: str) -> ObjectInfo:
        """Return size and version, by one attempt."""
        try:
            async with asyncio.timeout(STALL_S):
                if self.web is not None:
                    return (await self.web.look(url))[0]
                return of_facts(self.protocol, await self.do("info", url))
        except TimeoutError:
            raise Fault("transient", f"no answer came in {STALL_S:.0f} s") from None
        except Exception as error:  # noqa: BLE001  (likewise)
            raise self.fault(error, url) from None

    async def do(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system."""
        return await do(self.fs, method, *arguments, **options)

    def fault(self, error: Exception, url: str) -> Fault | SetaStreamError:
        """Return what an error of this client means, without credentials."""
        return error if isinstance(error, SetaStreamError) else fault_of(error, url, self.secrets)


_clients: Final[PerProcess[FileSystemClient]] = PerProcess()


def client_for(protocol: str, options: Mapping[str, Any], force: Force | None = None) -> FileSystemClient:
    """Return this process's client for a protocol and options.

    Raises:
        MissingExtraError: a package that the protocol needs is not installed.
        ArgumentError: there is no such protocol, or its file system refuses the options.
    """
    return _clients.get((protocol, _digest(options), force), lambda: FileSystemClient(protocol, dict(options), force))


def _digest(options: Mapping[str, Any]) -> str:
    """Return what tells options apart, without holding them."""
    return hashlib.sha256(repr(_ordered(options)).encode("utf-8", "surrogatepass")).hexdigest()


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(name), _ordered(one)) for name, one in value.items())
    return [_ordered(one) for one in value] if isinstance(value, (list, tuple)) else repr(value)
