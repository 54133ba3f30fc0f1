"""The process of `servers.FaultProxy`.

Takes: one JSON argument (target, shares, seed, methods, slow_s); JSON lines on stdin. Gives: JSON lines on stdout, the
first with its port. Effects: serves until stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from servers.fault_kinds import IN_BODY, Draws, error_answer, is_status, of_other_version, shortened
from servers.http1 import HEAD_LIMIT, Head, answer_length, request_length

PIECE = 1 << 18
FLIPPED = bytes(byte ^ 0xFF for byte in range(256))
COUNTS = ("requests", "in_flight", "in_flight_max", "bytes", "connections")


class Closed(Exception):  # noqa: N818  (an end, not an error)
    """This connection is over."""


class Nowhere:
    """Takes what is written and forgets it."""

    def write(self, data: bytes) -> None:
        """Forget it."""

    async def drain(self) -> None:
        """Be done."""


class Proxy:
    """Passes requests on to one server and breaks those that a list or a draw names."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.draws = Draws(config["shares"], config["seed"])
        self.planned: deque[tuple[str, str]] = deque()
        self.requests = self.in_flight = self.in_flight_max = self.bytes = self.connections = 0
        self.injected: Counter[str] = Counter()
        self.log: deque[tuple[str, str, str, str]] = deque(maxlen=100_000)

    def kind_for(self, head: Head) -> str:
        """Return the planned or drawn fault for a request."""
        for number, (kind, match) in enumerate(self.planned):
            if match in head.target and head.method in self.config["methods"]:
                del self.planned[number]
                return kind
        return self.draws.kind_for(head) if head.method in self.config["methods"] else "ok"

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Handle one client's connection until either side ends it."""
        self.connections += 1
        upstream: tuple[Reader, Writer] | None = None
        try:
            while True:
                head = Head.of(await reader.readuntil(b"\r\n\r\n"))
                if upstream is None or upstream[0].at_eof():
                    await _close(upstream)
                    upstream = await asyncio.open_connection(*self.config["target"], limit=PIECE)
                await self.exchange(head, reader, writer, *upstream)
        except (Closed, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            await _close(upstream)
            await _close((reader, writer))

    async def exchange(self, head: Head, reader: Reader, writer: Writer, up: Reader, down: Writer) -> None:
        """Answer one request."""
        kind = self.kind_for(head)
        self.requests += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        under_way = [True]

        def end() -> None:
            """Count the request as done; said before its last byte goes, for who has that may send the next one."""
            if under_way:
                under_way.pop()
                self.in_flight -= 1

        try:
            if kind == "slow":
                self.count(kind)
                await asyncio.sleep(self.config["slow_s"])
            if kind == "reset":
                self.count(kind)
                await _reset(writer)
            if is_status(kind) or (kind == "etag" and head.get("if-match")):
                self.count(kind)
                await _refuse(head, "412" if kind == "etag" else kind, reader, writer)
                return
            down.write(bytes(head))
            sent = asyncio.ensure_future(_pass_request(head, reader, down))
            try:
                kind = await self.answer(head, kind, up, writer, reader, end)
                if not sent.done():
                    raise Closed  # answered before the whole request was read: the rest of it is not a request
            finally:
                sent.cancel()
                with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                    await sent
        finally:
            end()
            self.log.append((head.method, head.target, head.get("range") or head.get("x-ms-range"), kind))

    def count(self, kind: str) -> None:
        """Note that a fault has really been injected."""
        self.injected[kind] += 1

    async def answer(
        self, request: Head, kind: str, up: Reader, writer: Writer, reader: Reader, end: Callable[[], None]
    ) -> str:
        """Pass one answer on, or break it; returns the fault that happened."""
        head = Head.of(await up.readuntil(b"\r\n\r\n"))
        while head.status < 200:
            writer.write(bytes(head))
            head = Head.of(await up.readuntil(b"\r\n\r\n"))
        length = answer_length(head, request.method)
        if (kind in IN_BODY and not length) or (kind != "slow" and head.status >= 400):
            kind = "ok"  # there is nothing to break
        if kind in IN_BODY:
            assert length is not None
            self.count(kind)
            await self.break_body(head, kind, length, up, writer, reader)
        else:
            if kind == "etag":
                self.count(kind)
                head = of_other_version(head)
            writer.write(bytes(head))
            await self.copy_body(head, length, up, writer, end, flip=kind == "etag")
        await writer.drain()
        if head.closes or request.closes:
            raise Closed
        return kind

    async def copy_body(
        self, head: Head, length: int | None, up: Reader, writer: Writer, end: Callable[[], None], *, flip: bool
    ) -> None:
        """Pass a body on, however its end is marked; flipped, it is another version's."""
        if length is not None:
            last = min(length, 1)
            await self.copy(up, writer, length - last, flip=flip)
            end()
            await self.copy(up, writer, last, flip=flip)
        elif head.is_chunked:
            await _copy_chunks(up, writer)
        else:
            while piece := await up.read(PIECE):
                self.bytes += len(piece)
                writer.write(piece)
                await writer.drain()
            raise Closed

    async def copy(self, up: Reader, writer: Writer | Nowhere, length: int, *, flip: bool = False) -> None:
        """Pass on so many bytes."""
        while length:
            piece = await up.read(min(PIECE, length))
            if not piece:
                raise Closed
            length -= len(piece)
            if isinstance(writer, Writer):
                self.bytes += len(piece)
            writer.write(piece.translate(FLIPPED) if flip else piece)
            await writer.drain()

    async def break_body(self, head: Head, kind: str, length: int, up: Reader, writer: Writer, reader: Reader) -> None:
        """Send half a body, and what belongs to the fault; only after a short answer can the connection go on."""
        half = length // 2
        writer.write(bytes(shortened(head, half) if kind == "short" else head))
        await self.copy(up, writer, half)
        if kind == "short":
            await self.copy(up, Nowhere(), length - half)
            return
        if kind == "reset-body":
            await _reset(writer)
        if kind == "stalled":
            await reader.read(1)  # the client says no more until it gives up
        raise Closed


async def _pass_request(head: Head, reader: Reader, down: Writer | Nowhere) -> None:
    length = request_length(head)
    if length is None:
        await _copy_chunks(reader, down)
    while length:
        piece = await reader.read(min(PIECE, length))
        if not piece:
            raise Closed
        length -= len(piece)
        down.write(piece)
        await down.drain()


async def _copy_chunks(source: Reader, sink: Writer | Nowhere) -> None:
    """Pass a chunked body on as it is, trailers included."""
    while True:
        line = await source.readuntil(b"\r\n")
        sink.write(line)
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        sink.write(await source.readexactly(size + 2))
        await sink.drain()
    while True:
        line = await source.readuntil(b"\r\n")
        sink.write(line)
        if line == b"\r\n":
            break
    await sink.drain()


async def _refuse(head: Head, kind: str, reader: Reader, writer: Writer) -> None:
    """Answer with an error, once the request is read; where its body was not sent yet the connection ends."""
    if not head.get("expect"):
        await _pass_request(head, reader, Nowhere())
    writer.write(error_answer(kind, head.method))
    await writer.drain()
    if head.get("expect") or head.closes:
        raise Closed


async def _reset(writer: Writer) -> None:
    """End a connection with a RST, after what was written has gone out."""
    with suppress(OSError):
        await writer.drain()
        while writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise Closed


async def _close(connection: tuple[Reader, Writer] | None) -> None:
    if connection is not None:
        connection[1].close()
        with suppress(OSError):
            await connection[1].wait_closed()


def _control(proxy: Proxy, question: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order of the parent; answers with all counts."""
    if "next" in question:
        proxy.planned.extend((kind, question["match"]) for kind in question["next"])
    if question.get("anew"):
        proxy.in_flight_max = proxy.in_flight
    if "shares" in question:
        proxy.draws.shares = question["shares"]
    answer: dict[str, Any] = {name: getattr(proxy, name) for name in COUNTS}
    answer["injected"] = dict(proxy.injected)
    if question.get("log"):
        answer["log"] = list(proxy.log)
    return answer


async def main() -> None:
    """Serve, and answer the parent, until the parent closes our stdin."""
    proxy = Proxy(json.loads(sys.argv[1]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=max(PIECE, HEAD_LIMIT), backlog=4096)
    orders = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    while line := await orders.readline():
        print(json.dumps(_control(proxy, json.loads(line))), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
