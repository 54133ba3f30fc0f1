"""The engine, against a client that does what a test tells it: order, bounds, attempts, versions, giving up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import pytest

from seta_stream.errors import ReadError, SetaStreamWarning, ShardChangedError
from seta_stream.store import engine as engine_room
from seta_stream.store.engine import MOST_DOUBTS, Engine, RemoteFile
from seta_stream.store.faults import Fault
from seta_stream.store.objects import ObjectInfo
from seta_stream.store.retrying import Patience

CONTENT = bytes(range(256)) * 64
INFO = ObjectInfo(len(CONTENT), "etag:one")
URL = "s3://bucket/a.tar"
SOON = Patience(give_up_s=2.0)

Answering = Callable[[int, int, int], Any]
"""(number of the request, start, stop) → bytes, or an exception to raise, or an event to wait for."""


class ScriptedClient:
    """A client of one object; requests are answered by a function."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Answering, *, is_conditional: bool = True) -> None:
        self.loop = loop
        self.is_conditional = is_conditional
        self.requests: list[tuple[int, int]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.looks = 0
        self.now = INFO
        self._answer = answer

    async def get(self, url: str, start: int, stop: int, info: ObjectInfo) -> bytes:
        self.requests.append((start, stop))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            found = self._answer(len(self.requests), start, stop)
            if isinstance(found, asyncio.Event):
                await found.wait()
                found = CONTENT[start:stop]
            if isinstance(found, BaseException):
                raise found
            return found
        finally:
            self.under_way -= 1

    async def info(self, url: str) -> ObjectInfo:
        self.looks += 1
        await asyncio.sleep(0)
        return self.now


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a running event loop in a thread of its own."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


def right(_number: int, start: int, stop: int) -> bytes:
    return CONTENT[start:stop]


SPANS = [(offset, 16) for offset in range(0, 1600, 32)]
PARTS = [CONTENT[offset : offset + length] for offset, length in SPANS]


def test_spans_come_in_the_order_asked(loop: asyncio.AbstractEventLoop) -> None:
    """Each answer is its own span's bytes, and requests begin in the order in which they were asked for."""
    client = ScriptedClient(loop, right)
    file = RemoteFile(client, URL, INFO, Engine(in_flight=4))
    assert file.read_spans(SPANS) == PARTS
    assert client.requests == [(offset, offset + length) for offset, length in SPANS]


@pytest.mark.parametrize(("in_flight", "processes", "expected"), [(4, 1, 4), (8, 4, 2), (2, 8, 1), (1, 1, 1)])
def test_no_more_are_under_way_than_allowed(
    loop: asyncio.AbstractEventLoop, in_flight: int, processes: int, expected: int
) -> None:
    """`in_flight` is a machine's; its processes share it, and each has one at least."""
    client = ScriptedClient(loop, right)
    RemoteFile(client, URL, INFO, Engine(in_flight, processes=processes)).read_spans(SPANS)
    assert client.most_under_way == expected


def test_files_of_one_engine_share_its_limit(loop: asyncio.AbstractEventLoop) -> None:
    """The limit is of the process, not of an open shard."""
    client, engine = ScriptedClient(loop, right), Engine(in_flight=3)
    answers = [answer for _ in range(5) for answer in RemoteFile(client, URL, INFO, engine).ask(SPANS)]
    assert [answer.result() for answer in answers] == PARTS * 5
    assert client.most_under_way == 3


@pytest.mark.parametrize(
    "failure",
    [
        Fault("transient", "connection reset"),
        Fault("throttled", "503 SlowDown"),
        Fault("throttled", "429", retry_after_s=0.05),
        ConnectionResetError("peer"),
        TimeoutError(),
    ],
    ids=["reset", "throttled", "wish", "oserror", "time-out"],
)
def test_failures_in_passing_are_tried_again(loop: asyncio.AbstractEventLoop, failure: Exception) -> None:
    """Every third request fails; every byte comes, and the attempts are counted."""

    def answer(number: int, start: int, stop: int) -> Any:
        return failure if number % 3 == 0 else CONTENT[start:stop]

    client, engine = ScriptedClient(loop, answer), Engine(in_flight=8, patience=SOON)
    assert RemoteFile(client, URL, INFO, engine).read_spans(SPANS) == PARTS
    assert engine.retries == len(client.requests) - len(SPANS) > 0


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_body_of_another_length_is_never_delivered(loop: asyncio.AbstractEventLoop, wrong: int) -> None:
    """A short or long body is asked for again."""

    def answer(number: int, start: int, stop: int) -> Any:
        return CONTENT[start : stop + wrong] if number == 1 else CONTENT[start:stop]

    client = ScriptedClient(loop, answer)
    assert RemoteFile(client, URL, INFO, Engine(patience=SOON)).read(32, 16) == CONTENT[32:48]
    assert len(client.requests) == 2


def test_who_waits_for_long_is_told_so_once(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails looks like a hang; the reason is told while it is tried again."""
    monkeypatch.setattr(engine_room, "TOLD_AFTER_S", 0.01)
    client = ScriptedClient(loop, lambda number, *span: Fault("transient", "reset") if number < 4 else right(0, *span))
    engine = Engine(1, patience=Patience(7.0))
    monkeypatch.setattr(engine, "_random", SimpleNamespace(random=lambda: 1.0))  # pauses of 0.1 s and more
    file = RemoteFile(client, URL, INFO, engine)
    with pytest.warns(SetaStreamWarning, match=r"Waiting for s3://bucket/a\.tar: reset\..* until 7 s") as told:
        assert file.read_spans(SPANS[:4]) == PARTS[:4]
    assert len(told) == 1


def test_patience_ends_in_an_error_that_tells_all(loop: asyncio.AbstractEventLoop) -> None:
    """The shard, the reason and the number of attempts are named; the cause is chained."""
    fault = Fault("throttled", "503 SlowDown")
    file = RemoteFile(ScriptedClient(loop, lambda *_: fault), URL, INFO, Engine(patience=Patience(0.3)))
    with pytest.raises(ReadError, match=r"s3://bucket/a\.tar.*503 SlowDown") as caught:
        file.read(0, 16)
    assert caught.value.shard == URL
    assert caught.value.__cause__ is fault


@pytest.mark.parametrize("kind", ["missing", "denied", "no-ranges", "broken"])
def test_what_cannot_get_better_is_told_at_once(loop: asyncio.AbstractEventLoop, kind: str) -> None:
    """No second attempt."""
    client = ScriptedClient(loop, lambda *_: Fault(kind, "as it is"))
    with pytest.raises(ReadError, match=r"s3://bucket/a\.tar"):
        RemoteFile(client, URL, INFO, Engine()).read(0, 16)
    assert len(client.requests) == 1


def test_another_version_is_an_error(loop: asyncio.AbstractEventLoop) -> None:
    """Never its bytes; where a look finds another version too, at once, else after a few attempts more."""
    client = ScriptedClient(loop, lambda *_: Fault("changed", "412"))
    with pytest.raises(ShardChangedError, match=r"s3://bucket/a\.tar"):
        RemoteFile(client, URL, INFO, Engine()).read(0, 16)
    assert (len(client.requests), client.looks) == (MOST_DOUBTS + 1, MOST_DOUBTS)
    client = ScriptedClient(loop, lambda *_: Fault("changed", "412"))
    client.now = ObjectInfo(INFO.size, "etag:two")
    with pytest.raises(ShardChangedError, match=r"s3://bucket/a\.tar"):
        RemoteFile(client, URL, INFO, Engine()).read(0, 16)
    assert (len(client.requests), client.looks) == (1, 1)


def test_one_answer_of_another_version_is_asked_for_again(loop: asyncio.AbstractEventLoop) -> None:
    """A stale copy's answer, while the object is what it was, costs another attempt."""
    client = ScriptedClient(loop, lambda number, *span: Fault("changed", "412") if number == 1 else right(0, *span))
    engine = Engine()
    assert RemoteFile(client, URL, INFO, engine).read(0, 16) == CONTENT[:16]
    assert (engine.retries, client.looks) == (1, 1)


def test_a_client_without_conditions_looks_after_reading(loop: asyncio.AbstractEventLoop) -> None:
    """Bytes are delivered only after a look that began later than they came; spans share looks."""
    client = ScriptedClient(loop, right, is_conditional=False)
    file = RemoteFile(client, URL, INFO, Engine(in_flight=16))
    assert file.read_spans(SPANS) == PARTS
    assert 1 <= client.looks <= len(SPANS) / 2


def test_a_change_between_reading_and_looking_is_seen(loop: asyncio.AbstractEventLoop) -> None:
    """The object is replaced while a span is read."""

    def answer(_number: int, start: int, stop: int) -> bytes:
        client.now = ObjectInfo(INFO.size, "etag:two")
        return CONTENT[start:stop]

    client = ScriptedClient(loop, answer, is_conditional=False)
    with pytest.raises(ShardChangedError, match="etag:two"):
        RemoteFile(client, URL, INFO, Engine()).read(0, 16)


def test_what_was_given_up_is_not_asked_for(loop: asyncio.AbstractEventLoop) -> None:
    """Cancelled answers that wait are dropped, one that is under way ends, and the others come."""
    has_begun = threading.Event()

    def answer(number: int, start: int, stop: int) -> Any:
        has_begun.set()
        return asyncio.Event() if number == 1 else CONTENT[start:stop]

    client = ScriptedClient(loop, answer)
    answers = RemoteFile(client, URL, INFO, Engine(in_flight=1)).ask(SPANS[:4])
    assert has_begun.wait(10)
    answers[1].cancel()
    answers[0].cancel()
    assert answers[3].result() == PARTS[3]
    assert answers[2].result() == PARTS[2]
    with pytest.raises(CancelledError):
        answers[0].result()
    assert (SPANS[1][0], SPANS[1][0] + 16) not in client.requests
    assert client.under_way == 0


def test_a_stalled_request_is_given_up_and_tried_again(loop: asyncio.AbstractEventLoop) -> None:
    """A body that never ends takes an attempt's time, not all."""

    def answer(number: int, start: int, stop: int) -> Any:
        return asyncio.Event() if number == 1 else CONTENT[start:stop]

    client, engine = ScriptedClient(loop, answer), Engine(patience=Patience(1.2))
    assert RemoteFile(client, URL, INFO, engine).read(0, 16) == CONTENT[:16]
    assert engine.retries == 1


def test_a_waiting_request_leaves_its_slot_to_others(loop: asyncio.AbstractEventLoop) -> None:
    """One span that must pause does not hold up the next ones, even where one may be under way."""

    def answer(number: int, start: int, stop: int) -> Any:
        return Fault("transient", "reset", retry_after_s=0.2) if number == 1 else CONTENT[start:stop]

    client = ScriptedClient(loop, answer)
    assert RemoteFile(client, URL, INFO, Engine(1, patience=SOON)).read_spans(SPANS[:4]) == PARTS[:4]
    starts = [start for start, _ in client.requests]
    assert starts == [0, 32, 64, 96, 0]
