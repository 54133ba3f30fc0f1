"""Compressed shards, read in sequence: no byte range of them can be asked for.

Takes a store and a URL; gives a ShardFile whose offsets are those of the decompressed stream. Effects: open streams.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any, Final, cast

from seta_stream.corpus.compressed import HEAD_BYTES, decompressing, opener_of
from seta_stream.errors import ReadError
from seta_stream.store import LateAnswer, ObjectInfo, Store, short_read

STREAMS_PER_SHARD: Final = 2
"""Two lanes meet in a shard at most, each with its own place in it."""

_SKIP_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 20

Count = Callable[[int, int], None]
"""Is told of (bytes, openings) as they come."""


def open_decompressed(store: Store, url: str, count: Count) -> IO[bytes]:
    """Return the decompressed bytes of an object as a stream; what is not compressed comes as it is."""
    stream = store.open_stream(url)
    head = stream.read(HEAD_BYTES)
    count(len(head), 1)
    raw = cast("IO[bytes]", io.BufferedReader(_Rejoined(head, stream, count), _SKIP_BYTES))
    opener = opener_of(head)
    return raw if opener is None else cast("IO[bytes]", _Owning(raw, opener(raw)))


def _not_decompressed(url: str, position: int, error: Exception) -> ReadError:
    return ReadError(
        f"Cannot decompress {url} after byte {position} of its contents: {error}. The shard is damaged or truncated: "
        "restore it.",
        shard=url,
        offset=position,
    )


def _read(stream: IO[bytes], length: int) -> bytes:
    """Return the next bytes, fewer at the end; what is claimed to be there takes no memory before it comes."""
    if length <= _PIECE_BYTES:
        return stream.read(length)
    parts = [stream.read(_PIECE_BYTES)]
    while parts[-1] and length > (found := sum(map(len, parts))):
        parts.append(stream.read(min(_PIECE_BYTES, length - found)))
    return b"".join(parts)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already: what comes from a web server cannot go back to its beginning."""

    def __init__(self, head: bytes, rest: IO[bytes], count: Count) -> None:
        super().__init__()
        self._head = head
        self._rest = rest
        self._count = count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._head[: len(buffer)]
        if data:
            self._head = self._head[len(data) :]
        else:
            data = self._rest.read(len(buffer))
            self._count(len(data), 0)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._rest.close()
        super().close()


class _Owning:
    """A decompressor that closes the stream below it too."""

    def __init__(self, raw: IO[bytes], stream: IO[bytes]) -> None:
        self._raw = raw
        self._stream = stream
        self.read = stream.read

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


class SequentialFile:
    """An object that is read forwards; going back opens it anew.

    Args:
        store: where it lies.
        url: its URL.
        until: where the last byte ends that is wanted; who has read so far holds no stream open.
        reads_on: whether it is then read on to the end, where the checksum of all stands.
        count: is told of what was read of the object as it lies in the store.
    """

    is_near = True
    """Reading on costs no request."""

    def __init__(self, store: Store, url: str, until: int, *, reads_on: bool, count: Count) -> None:
        self.url = url
        self.info: ObjectInfo = store.info(url)
        self._store = store
        self._until = until
        self._reads_on = reads_on
        self._count = count
        self._lock = threading.Lock()
        self._streams: list[tuple[int, IO[bytes]]] = []  # (position, stream), the last used at the end

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes of the decompressed stream."""
        with self._lock:
            position, stream = self._nearest(offset)
            try:
                data = self._forward(stream, position, offset, length)
            except BaseException:
                stream.close()
                raise
            if offset + length >= self._until:
                stream.close()
            else:
                self._streams.append((offset + length, stream))
            return data

    def _forward(self, stream: IO[bytes], position: int, offset: int, length: int) -> bytes:
        """Read on from a position; after the last byte wanted perhaps on to the end."""
        with decompressing(partial(_not_decompressed, self.url, position)):
            while position < offset:
                skipped = len(stream.read(min(_SKIP_BYTES, offset - position)))
                if not skipped:
                    break
                position += skipped
            data = _read(stream, length)
            while self._reads_on and offset + length >= self._until and stream.read(_SKIP_BYTES):
                pass
        if len(data) != length:
            raise short_read(self.url, offset, length, len(data))
        return data

    def _nearest(self, offset: int) -> tuple[int, IO[bytes]]:
        """Take the stream that is nearest before `offset`, or a new one."""
        before = [entry for entry in self._streams if entry[0] <= offset]
        if before:
            nearest = max(before, key=lambda entry: entry[0])
            self._streams.remove(nearest)
            return nearest
        while len(self._streams) >= STREAMS_PER_SHARD:
            self._streams.pop(0)[1].close()
        return 0, open_decompressed(self._store, self.url, self._count)

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order."""
        return [self.read(offset, length) for offset, length in spans]

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[LateAnswer]:
        """Return answers that are read when they are wanted, which is in sequence."""
        return [LateAnswer(self.read, offset, length) for offset, length in spans]

    def check(self) -> None:
        """The checksum at the end of the stream tells what changed."""

    def advise_scattered(self) -> None:
        """Reading is in sequence whatever is wanted."""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close all streams."""
        while self._streams:
            self._streams.pop()[1].close()
