"""The engine: many ranged requests under way at once, tried again where that helps, never another version's bytes.

Takes spans of remote objects; gives answers, the first ones first. Effects: requests, on the client's own thread, which
also runs all bookkeeping here; a caller's thread only asks and waits.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Final

from seta_stream.errors import SetaStreamError, SetaStreamWarning
from seta_stream.store.clients import Client
from seta_stream.store.concurrency import MOST_PER_MACHINE, Concurrency
from seta_stream.store.faults import Fault, error_of, fault_of
from seta_stream.store.objects import Bytes, ObjectInfo
from seta_stream.store.processes import PerProcess
from seta_stream.store.retrying import TOLD_AFTER_S, Patience
from seta_stream.store.urls import shown

TRIED_AGAIN: Final = frozenset({"throttled", "transient"})
MOST_DOUBTS: Final = 3
"""So often may one span's answer be of another version while a look finds the right one: a replica that lags behind, a
proxy's stale copy, a range that was cut short."""


class Engine:
    """What is under way in one process for one reader.

    Args:
        in_flight: requests at once per machine; None adapts to what the store gives.
        processes: of this machine that read at the same time, and share that number.
        patience: how long failing requests are tried again.
    """

    def __init__(self, in_flight: int | None = None, *, processes: int = 1, patience: Patience | None = None) -> None:
        most = MOST_PER_MACHINE if in_flight is None else in_flight
        self.concurrency = Concurrency(max(1, most // processes), is_fixed=in_flight is not None)
        self.patience = patience or Patience()
        self.retries = 0
        """Attempts after the first ones."""
        self.has_told = False
        """Whether somebody was told that the store is waited for."""
        self._waiting: deque[_Ticket] = deque()
        self._running = 0
        self._looks = _Looks()
        # The jitter decides nothing about the data; a generator of its own leaves the global one alone.
        self._random = random.Random()  # noqa: S311

    def ask(self, client: Client, url: str, info: ObjectInfo, spans: Sequence[tuple[int, int]]) -> list[_Ticket]:
        """Begin to read spans of one version of an object, after all that was asked before, and return at once."""
        tickets = [_Ticket(self, client, url, info, offset, length) for offset, length in spans]
        client.loop.call_soon_threadsafe(self._take, tickets)
        return tickets

    # ---- on the client's thread

    def _take(self, tickets: list[_Ticket]) -> None:
        self._waiting.extend(tickets)
        self._begin()

    def _begin(self) -> None:
        """Start what the limit allows."""
        while self._waiting and self._running < self.concurrency.limit:
            ticket = self._waiting.popleft()
            if ticket.done():
                continue  # given up meanwhile
            self._running += 1
            ticket.task = asyncio.ensure_future(self._attempt(ticket))

    async def _attempt(self, ticket: _Ticket) -> None:
        came = 0
        ticket.begun_at = ticket.begun_at or time.monotonic()
        try:
            async with asyncio.timeout(self.patience.attempt_s(ticket.length)):
                ticket.settle(await self._get(ticket))
            came = ticket.length
        except asyncio.CancelledError:
            ticket.cancel()
        except SetaStreamError as error:
            ticket.fail(error)
        except Exception as error:  # noqa: BLE001  (whatever a client raises is judged)
            self._failed(ticket, error)
        finally:
            self._running -= 1
            is_full = bool(self._waiting)
            self.concurrency.finished(came, time.monotonic(), is_full=is_full)
            self._begin()

    async def _get(self, ticket: _Ticket) -> Bytes:
        client, length = ticket.client, ticket.length
        try:
            data = await client.get(ticket.url, ticket.offset, ticket.offset + length, ticket.info)
        except Fault as fault:
            if fault.kind == "changed":
                await self._doubt(ticket, fault)
            raise
        if len(data) != length:
            raise Fault("transient", f"{len(data)} of {length} bytes came")
        if not client.is_conditional:
            found = await self._looks.after_now(client, ticket.url)
            if found != ticket.info:
                raise Fault("changed", f"it had {ticket.info} and has {found}")
        return data

    async def _doubt(self, ticket: _Ticket, fault: Fault) -> None:
        """Call an answer of another version passing, where a look finds the object as it was."""
        ticket.doubts += 1
        if ticket.doubts <= MOST_DOUBTS and await self._looks.after_now(ticket.client, ticket.url) == ticket.info:
            raise Fault("transient", fault.reason) from fault

    def _failed(self, ticket: _Ticket, error: Exception) -> None:
        """Try again later, or give up."""
        fault = error if isinstance(error, Fault) else fault_of(error, ticket.url)
        now = time.monotonic()
        if fault.kind == "throttled":
            self.concurrency.throttled(now)
        pause = None
        if fault.kind in TRIED_AGAIN:
            ticket.attempts, ticket.trouble = ticket.attempts + 1, fault.reason
            since = now - (ticket.begun_at or now)
            pause = self.patience.delay_s(ticket.attempts, since, self._random.random(), fault.retry_after_s)
        if pause is None:
            ticket.fail(error_of(fault, ticket.url, offset=ticket.offset, attempts=ticket.attempts), error)
            return
        self.retries += 1
        ticket.client.loop.call_later(pause, self._again, ticket)

    def _again(self, ticket: _Ticket) -> None:
        self._waiting.appendleft(ticket)
        self._begin()


def tell_waiting(url: str, reason: str, patience: Patience) -> None:
    """Warn that a store is waited for: silence looks like a hang."""
    warnings.warn(
        f"Waiting for {shown(url)}: {reason}. It is tried again until {patience.give_up_s:.0f} s have passed.",
        SetaStreamWarning,
        stacklevel=3,
    )


_engines: Final[PerProcess[Engine]] = PerProcess()


def engine_for(in_flight: int | None = None, *, processes: int = 1, patience: Patience | None = None) -> Engine:
    """Return the engine that everything in this process shares that asks for the same limits.

    So what one epoch learnt about the store serves the next one, and two readers do not add up.
    """
    key = (in_flight, processes, patience)
    return _engines.get(key, lambda: Engine(in_flight, processes=processes, patience=patience))


class _Looks:
    """Looks at objects whose requests cannot be bound to a version: bytes that came before a look are of what it saw.

    All who wait for an object's next look share it, so that there is one per round trip, not one per span.
    """

    def __init__(self) -> None:
        self._next: dict[str, asyncio.Task[ObjectInfo]] = {}
        self._last: dict[str, asyncio.Task[ObjectInfo]] = {}

    async def after_now(self, client: Client, url: str) -> ObjectInfo:
        """Return what a look finds that begins after this call."""
        if url not in self._next:
            self._next[url] = asyncio.ensure_future(self._look(client, url, self._last.get(url)))
        return await asyncio.shield(self._next[url])

    async def _look(self, client: Client, url: str, before: asyncio.Task[ObjectInfo] | None) -> ObjectInfo:
        if before is not None:
            await asyncio.wait([before])
        self._last[url] = self._next.pop(url)  # who comes from here on needs another one
        try:
            return await client.info(url)
        finally:
            if url not in self._next:
                self._last.pop(url, None)


class _Ticket(Future[Bytes]):
    """One span that was asked for."""

    def __init__(self, engine: Engine, client: Client, url: str, info: ObjectInfo, offset: int, length: int) -> None:
        super().__init__()
        self.client = client
        self.url = url
        self.info = info
        self.offset = offset
        self.length = length
        self.attempts = 0
        self.trouble = ""
        """Why the last attempt failed."""
        self.doubts = 0
        self.begun_at: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._engine = engine

    def result(self, timeout: float | None = None) -> Bytes:
        """Wait, and say so once where the store fails for long."""
        while not (self._engine.has_told or self.done() or timeout is not None):
            with suppress(TimeoutError):
                return super().result(TOLD_AFTER_S)
            if self.trouble and not self._engine.has_told:
                self._engine.has_told = True
                tell_waiting(self.url, self.trouble, self._engine.patience)
        return super().result(timeout)

    def settle(self, data: Bytes) -> None:
        with suppress(InvalidStateError):  # it was given up meanwhile
            self.set_result(data)

    def fail(self, error: Exception, cause: BaseException | None = None) -> None:
        if cause is not None and cause is not error:
            error.__cause__ = cause
        with suppress(InvalidStateError):
            self.set_exception(error)

    def cancel(self) -> bool:
        """Give the span up, and the request for it."""
        was_waiting = super().cancel()
        task = self.task
        if was_waiting and task is not None:
            with suppress(RuntimeError):  # the thread has ended
                self.client.loop.call_soon_threadsafe(task.cancel)
        return was_waiting


class RemoteFile:
    """An object in a bucket or behind HTTP; each span is one ranged request.

    Args:
        client: of this process.
        url: the object.
        info: the version that is read; any other is an error.
        engine: whose limits hold.
    """

    __slots__ = ("_client", "_engine", "info", "url")

    is_near = False

    def __init__(self, client: Client, url: str, info: ObjectInfo, engine: Engine) -> None:
        self._client = client
        self._engine = engine
        self.url = url
        self.info = info

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[_Ticket]:
        """Begin to read each (offset, length) and return at once."""
        return self._engine.ask(self._client, self.url, self.info, spans)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order; many requests are in flight at once."""
        tickets = self.ask(spans)
        try:
            return [bytes(ticket.result()) for ticket in tickets]
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise

    def check(self) -> None:
        """Every request was bound to the version."""

    def advise_scattered(self) -> None:
        """Ranged requests read nothing ahead."""

    def close(self) -> None:
        """Nothing is held."""
