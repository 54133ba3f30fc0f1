"""Remote objects read in sequence, as files.

Takes an open remote file, or a web server's whole answer; gives a readable. Effects: requests. Where byte ranges are
served, a dropped connection costs one block's second request; where they are not, it ends the reading.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from typing import Any, Final

from seta_stream.store.clients import FileSystemClient
from seta_stream.store.faults import Fault, error_of
from seta_stream.store.objects import Answer, ShardFile

BLOCK_BYTES: Final = 2 << 20
BLOCKS_AHEAD: Final = 4


class BlockStream(io.RawIOBase):
    """An object, block by block, the next ones under way.

    Args:
        file: is closed with the stream.
        block_bytes: of one request.
    """

    def __init__(self, file: ShardFile, block_bytes: int = BLOCK_BYTES) -> None:
        super().__init__()
        self._file = file
        self._block = block_bytes
        self._asked = 0
        self._answers: deque[Answer] = deque()
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what comes next; 0 at the end.

        Raises:
            ReadError: it cannot be had.
            ShardChangedError: the object is another one now.
        """
        if not self._held:
            self._held = self._next()
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._held))
        target[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _next(self) -> memoryview:
        size = self._file.info.size
        while self._asked < size and len(self._answers) < BLOCKS_AHEAD:
            length = min(self._block, size - self._asked)
            self._answers.extend(self._file.ask([(self._asked, length)]))
            self._asked += length
        return memoryview(self._answers.popleft().result() if self._answers else b"")

    def close(self) -> None:
        """Give up what is under way."""
        for answer in self._answers:
            answer.cancel()
        self._answers.clear()
        if not self.closed:
            self._file.close()
        super().close()


class WholeStream(io.RawIOBase):
    """The body of one answer, for servers without byte ranges.

    Args:
        client: of the web server.
        url: the object.
    """

    def __init__(self, client: FileSystemClient, url: str) -> None:
        super().__init__()
        self._client = client
        self._url = url
        self._offset = 0
        self._answer = self._run(self._begin())

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what comes next; 0 at the end.

        Raises:
            ReadError: the connection broke.
        """
        target = memoryview(buffer).cast("B")
        data: bytes = self._run(self._answer.content.read(len(target)))
        target[: len(data)] = data
        self._offset += len(data)
        return len(data)

    async def _begin(self) -> Any:
        assert self._client.web is not None  # noqa: S101  (narrows the type)
        answer = await self._client.web.get(self._url, {})
        if answer.status >= 400:
            answer.close()
            answer.raise_for_status()
        return answer

    def _run(self, work: Any) -> Any:
        task = asyncio.run_coroutine_threadsafe(work, self._client.loop)
        try:
            return task.result()
        except Exception as error:  # noqa: BLE001  (whatever a client raises is judged)
            fault = self._client.fault(error, self._url)
            raise (error_of(fault, self._url, offset=self._offset) if isinstance(fault, Fault) else fault) from None
        except BaseException:
            task.cancel()
            raise

    def close(self) -> None:
        """Close the connection."""
        if not self.closed and hasattr(self, "_answer"):
            self._client.loop.call_soon_threadsafe(self._answer.close)
        super().close()
