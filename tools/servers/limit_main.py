"""The process of `servers.LimitProxy`: bytes from socket to socket, all together no faster than a rate.

Takes: one JSON argument (target, bytes_per_s); JSON lines on stdin. Gives: JSON lines on stdout, the first with its
port. Effects: serves until stdin closes. Linux only.

Nothing is parsed, and answers go through a pipe inside the kernel (splice), never into this process: the machine that
is measured has better things to do than to copy.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from typing import Any

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 18
REQUEST_BYTES = 1 << 18
TURN_S = 0.002  # a connection gets this much time's worth of bytes, then the others have their turn
BURST_S = 0.010  # what the rate lost while this process was not scheduled is made up for, up to here
NO_WAIT = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Bucket:
    """The bytes that may go out now."""

    def __init__(self, bytes_per_s: float) -> None:
        self.rate = bytes_per_s
        self.turn = int(min(PIPE_BYTES / 2, max(4096, bytes_per_s * TURN_S)))
        self.most = max(self.turn, bytes_per_s * BURST_S)
        self.tokens = self.most
        self.at = time.monotonic()

    def wait_s(self) -> float:
        """Return how long it takes until a turn's bytes may go out; 0: now."""
        now = time.monotonic()
        self.tokens = min(self.most, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return max(0.0, (self.turn - self.tokens) / self.rate)


class Pair:
    """A client's connection, its connection to the server, and the pipe that answers go through."""

    def __init__(self, client: socket.socket, target: tuple[str, int]) -> None:
        self.client = client
        self.server = socket.create_connection(target)
        for sock in (client, self.server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(self.into, F_SETPIPE_SZ, PIPE_BYTES)
        self.held = 0  # bytes in the pipe
        self.asked = b""  # bytes of requests that the server has not taken yet
        self.stuck = False  # the pipe holds what the client did not take
        self.server_done = False

    def close(self) -> None:
        """Close everything."""
        self.client.close()
        self.server.close()
        os.close(self.out)
        os.close(self.into)


class Proxy:
    """Moves bytes between pairs of connections.

    Two epolls: one for whatever may always go on, one for answers, which is not looked at while the bucket is empty.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.target = (config["target"][0], config["target"][1])
        self.bucket = Bucket(config["bytes_per_s"])
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.always, self.answers, self.both = epoll(), epoll(), epoll()
        self.always.register(self.listener, EPOLLIN)
        self.always.register(sys.stdin.fileno(), EPOLLIN)
        self.both.register(self.always, EPOLLIN)
        self.both.register(self.answers, EPOLLIN)
        self.clients: dict[int, Pair] = {}
        self.servers: dict[int, Pair] = {}
        self.done: list[Pair] = []
        self.counts = {"bytes": 0, "connections": 0, "connections_max": 0}

    def run(self) -> None:
        """Serve until stdin closes."""
        while True:
            wait_s = self.bucket.wait_s()
            if wait_s:
                events = self.always.poll(wait_s)
            else:
                ready = {fd for fd, _ in self.both.poll()}
                events = self.always.poll(0) if self.always.fileno() in ready else []
                if self.answers.fileno() in ready:
                    self.pass_answers()
            for fd, event in events:
                if fd == self.listener.fileno():
                    self.accept()
                elif fd == sys.stdin.fileno():
                    if not self.control():
                        return
                else:
                    self.act(fd, event)
            # Not before: a number closed above could name a new connection while old events for it are still to come.
            while self.done:
                self.done.pop().close()

    def control(self) -> bool:
        """Answer one order of the parent; False: there is no parent any more."""
        # Unbuffered: what a buffer held would not show in an epoll.
        line = os.read(sys.stdin.fileno(), 1 << 16)
        if line:
            print(json.dumps(self.counts | {"open": len(self.clients), "cpu_s": time.process_time()}), flush=True)
        return bool(line)

    def accept(self) -> None:
        """Take a new client."""
        client, _ = self.listener.accept()
        try:
            pair = Pair(client, self.target)
        except OSError:
            client.close()
            return
        self.clients[client.fileno()] = self.servers[pair.server.fileno()] = pair
        self.counts["connections"] += 1
        self.counts["connections_max"] = max(self.counts["connections_max"], len(self.clients))
        self.always.register(client, EPOLLIN)
        self.always.register(pair.server, 0)
        self.answers.register(pair.server, EPOLLIN)

    def drop(self, pair: Pair) -> None:
        """Forget a pair."""
        if self.clients.pop(pair.client.fileno(), None) is not None:
            del self.servers[pair.server.fileno()]
            self.done.append(pair)

    def act(self, fd: int, event: int) -> None:
        """Go on with what one socket is ready for."""
        pair = self.clients.get(fd) or self.servers.get(fd)
        if pair is None:
            return  # dropped by an event before this one
        try:
            if fd == pair.client.fileno():
                if event & EPOLLOUT:
                    self.flush(pair)
                elif event & (EPOLLIN | EPOLLHUP | EPOLLERR):
                    self.pass_request(pair)
            elif event & EPOLLOUT:
                self.ask(pair)
            elif event & (EPOLLHUP | EPOLLERR):
                # Both directions are over; what is left of the answer is still to be read.
                self.always.unregister(fd)
        except OSError:
            self.drop(pair)

    def pass_request(self, pair: Pair) -> None:
        """Read from the client."""
        data = pair.client.recv(REQUEST_BYTES)
        if not data:
            self.drop(pair)
            return
        pair.asked = data
        self.ask(pair)

    def ask(self, pair: Pair) -> None:
        """Send a request on; while the server does not take it, the client is not read."""
        with suppress(BlockingIOError):
            pair.asked = pair.asked[pair.server.send(pair.asked) :]
        self.always.modify(pair.server, EPOLLOUT if pair.asked else 0)
        self.watch_client(pair)

    def watch_client(self, pair: Pair) -> None:
        """Wait for what this pair can use of its client."""
        self.always.modify(pair.client, (0 if pair.asked else EPOLLIN) | (EPOLLOUT if pair.held else 0))

    def pass_answers(self) -> None:
        """Give each connection that has something its turn, while the bucket holds a turn."""
        for fd, _ in self.answers.poll(0):
            pair = self.servers[fd]
            try:
                self.pass_answer(pair)
            except OSError:
                self.drop(pair)
            if self.bucket.tokens < self.bucket.turn:
                break

    def pass_answer(self, pair: Pair) -> None:
        """Move one turn's bytes from the server into the pipe, and on to the client."""
        try:
            count = os.splice(pair.server.fileno(), pair.into, self.bucket.turn, flags=NO_WAIT)
        except BlockingIOError:
            if not pair.held:
                return
            count = -1  # the pipe is full: the client has to take something first
        if count > 0:
            pair.held += count
            self.bucket.tokens -= count
            self.counts["bytes"] += count
        pair.server_done = count == 0
        self.flush(pair)

    def flush(self, pair: Pair) -> None:
        """Send the client what the pipe holds; while it does not take it, the server is not read."""
        was_stuck = pair.stuck
        with suppress(BlockingIOError):
            while pair.held:
                pair.held -= os.splice(pair.out, pair.client.fileno(), pair.held, flags=NO_WAIT)
        pair.stuck = pair.held > 0
        if pair.server_done and not pair.held:
            self.drop(pair)
        elif pair.stuck != was_stuck:
            self.answers.modify(pair.server, 0 if pair.stuck else EPOLLIN)
            self.watch_client(pair)


def main() -> None:
    """Serve until the parent closes our stdin."""
    proxy = Proxy(json.loads(sys.argv[1]))
    print(json.dumps({"port": proxy.listener.getsockname()[1]}), flush=True)
    proxy.run()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
