"""Objects that are not files of this machine: listed, written and opened through the client of their protocol.

Takes URLs; gives bytes, sizes and versions. Effects: requests, tried again as the reads of the engine are.

One put replaces an object whole in s3://, gs://, az:// and memory://. Other fsspec protocols write as their file system
does, and a reader may meet half an object there.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import IO, Any, Final, TypeVar, cast

from seta_stream.errors import SetaStreamError, UnsupportedError
from seta_stream.store import filesystems
from seta_stream.store.clients import FileSystemClient, Force, client_for
from seta_stream.store.engine import TRIED_AGAIN, Engine, RemoteFile, engine_for, tell_waiting
from seta_stream.store.faults import Fault, error_of
from seta_stream.store.globbing import find
from seta_stream.store.objects import ObjectInfo
from seta_stream.store.retrying import TOLD_AFTER_S, Patience
from seta_stream.store.streams import BLOCK_BYTES, BlockStream, WholeStream
from seta_stream.store.urls import shown
from seta_stream.store.versions import of_facts

Result = TypeVar("Result")

# The jitter decides nothing about the data; a generator of its own leaves the global one alone.
_jitter: Final = random.Random()  # noqa: S311


class RemoteStore:
    """Objects of one protocol.

    Args:
        protocol: of the URLs.
        options: of its fsspec file system.
        patience: how long failing requests are tried again.
        force: which client reads byte ranges, for tests and benchmarks.

    Raises:
        MissingExtraError: a package that the protocol needs is not installed.
        ArgumentError: there is no such protocol, or its file system refuses the options.
    """

    def __init__(
        self,
        protocol: str,
        options: Mapping[str, Any],
        *,
        patience: Patience | None = None,
        force: Force | None = None,
    ) -> None:
        self._protocol = protocol
        self._options = dict(options)
        self._patience = patience or Patience()
        self._force: Force | None = force
        self._client()  # what is missing or wrong shows here

    def _client(self) -> FileSystemClient:
        """Return the client; a forked child makes its own."""
        return client_for(self._protocol, self._options, self._force)

    def info(self, url: str) -> ObjectInfo:
        """Return size and version; ReadError where there is no such object."""
        return self._tried(url, "read", lambda client: client.info(url))

    def infos(self, url: str) -> dict[str, ObjectInfo]:
        """Return size and version of every object directly in a folder, by name: one listing, no request for each.

        Versions are those of `info`. Empty where there is no such folder, and where the protocol does not list.
        """
        if self._protocol in filesystems.WEB:
            return {}
        found = {}
        for facts in self._listed(url):
            if facts.get("type") != "directory" and facts.get("size") is not None:
                found[_last(facts["name"])] = of_facts(self._protocol, facts)
        return found

    def read(self, url: str) -> bytes:
        """Return the whole object; ReadError where there is none."""

        async def read(client: FileSystemClient) -> Any:
            return await (client.do("cat_file", url) if client.web is None else client.web.whole(url))

        return bytes(self._tried(url, "read", read))

    def write(self, url: str, data: bytes) -> None:
        """Replace the object."""
        self._refuse_web(url)
        self._tried(url, "write", lambda client: self._put(client, url, data))

    def create(self, url: str, data: bytes) -> bool:
        """Write an object where there is none; return whether these bytes are there now.

        Of several writers at once, one succeeds. In s3://, gs://, az:// and memory:// the store decides; elsewhere
        somebody may write between the look and the write.
        """
        self._refuse_web(url)
        if self._protocol not in filesystems.OBJECT_STORES:
            if self.exists(url):
                return self.read(url) == data
            self.write(url, data)
            return True
        # An attempt whose answer was lost may have written it.
        return self._tried(url, "write", lambda client: _create(client, url, data)) or self.read(url) == data

    def exists(self, url: str) -> bool:
        """Say whether an object or folder is there."""
        is_web = self._protocol in filesystems.WEB
        look = (lambda client: client.info(url)) if is_web else (lambda client: client.do("info", url))
        return self._tried(url, "read", _or(look, None)) is not None

    def names(self, url: str) -> list[str]:
        """Return the names directly inside a folder, sorted; empty where there is no such folder."""
        return sorted({name for facts in self._listed(url) if (name := _last(facts["name"]))})

    def glob(self, pattern: str) -> list[str]:
        """Return the URLs that match, sorted."""
        if self._protocol in filesystems.WEB:
            return []

        def listing(folder: str) -> list[tuple[str, bool]]:
            return [(_last(facts["name"]), facts.get("type") == "directory") for facts in self._listed(folder)]

        return sorted(set(find(pattern, listing)))

    def remove(self, url: str) -> None:
        """Remove an object, or everything in a folder; harmless where there is nothing."""
        self._refuse_web(url)
        self._tried(url, "remove", _or(lambda client: client.do("rm", url, recursive=True), None))

    def open(self, url: str, info: ObjectInfo | None = None, *, engine: Engine | None = None) -> RemoteFile:
        """Open for positional reads; asks for the version where it is not given."""
        return RemoteFile(self._client(), url, info or self.info(url), engine or engine_for())

    def open_stream(self, url: str, *, block_bytes: int = BLOCK_BYTES) -> IO[bytes]:
        """Open for reading in sequence; a dropped connection is taken up again where the server serves byte ranges."""
        client = self._client()
        if client.web is not None:
            info, has_ranges = self._look(url)
            if not has_ranges:
                return cast("IO[bytes]", io.BufferedReader(WholeStream(client, url), 1 << 20))
        else:
            info = self.info(url)
        return cast("IO[bytes]", io.BufferedReader(BlockStream(self.open(url, info), block_bytes), 1 << 20))

    def accepts_ranges(self, url: str) -> bool:
        """Say whether parts of an object can be read; only web servers may not allow it."""
        return self._protocol not in filesystems.WEB or self._look(url)[1]

    def _look(self, url: str) -> tuple[ObjectInfo, bool]:
        async def look(client: FileSystemClient) -> tuple[ObjectInfo, bool]:
            assert client.web is not None  # noqa: S101  (narrows the type)
            return await client.web.look(url)

        return self._tried(url, "read", look)

    def _listed(self, url: str) -> list[Mapping[str, Any]]:
        """Return what the file system tells of a folder's content; nothing where there is no such folder."""
        if self._protocol in filesystems.WEB:
            return []
        folder = url.rstrip("/")
        found = self._tried(url, "list", _or(lambda client: self._fresh(client, "ls", folder, detail=True), []))
        # Of an object, some file systems list the object itself.
        return [facts for facts in found if not _is_itself(facts["name"], folder)]

    async def _fresh(self, client: FileSystemClient, method: str, *arguments: Any, **options: Any) -> Any:
        client.fs.invalidate_cache()
        return await client.do(method, *arguments, **options)

    async def _put(self, client: FileSystemClient, url: str, data: bytes) -> None:
        if self._protocol not in filesystems.OBJECT_STORES:
            await client.do("makedirs", url.rpartition("/")[0], exist_ok=True)
        await client.do("pipe_file", url, data)

    def _refuse_web(self, url: str) -> None:
        if self._protocol in filesystems.WEB:
            raise UnsupportedError(
                f"Cannot write {shown(url)}: web servers are only read. Give a local folder, or a bucket (s3://, "
                "gs://, az://).",
                shard=shown(url),
            )

    def _tried(self, url: str, action: str, work: Callable[[FileSystemClient], Awaitable[Result]]) -> Result:
        """Do something on the client's loop, and again where that may help.

        Raises:
            ReadError: it failed; its cause is a FileNotFoundError where there is no such object.
        """
        client = self._client()
        attempts, begun = 0, time.monotonic()
        while True:
            try:
                found = _wait(client, work)
            except SetaStreamError:
                raise
            except Exception as error:  # noqa: BLE001  (whatever a client raises is judged)
                fault = client.fault(error, url)
            else:
                client.has_answered = True
                return found
            if not isinstance(fault, Fault):
                raise fault
            client.has_answered |= fault.kind != "transient"
            attempts += 1
            since = time.monotonic() - begun
            patience = self._patience if client.has_answered else self._patience.with_stranger()
            pause = patience.delay_s(attempts, since, _jitter.random(), fault.retry_after_s)
            if fault.kind not in TRIED_AGAIN or pause is None:
                # Neither the client's error nor its own cause: they may hold credentials.
                cause = FileNotFoundError(fault.reason) if fault.kind == "missing" else fault
                raise error_of(fault, url, attempts=attempts, action=action) from cause
            if since > TOLD_AFTER_S and not client.has_told:
                client.has_told = True
                tell_waiting(url, fault.reason, patience)
            time.sleep(pause)


def _wait(client: FileSystemClient, work: Callable[[FileSystemClient], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        return await work(client)

    task: Future[Result] = asyncio.run_coroutine_threadsafe(run(), client.loop)
    try:
        return task.result()
    except BaseException:
        task.cancel()
        raise


def _or(
    work: Callable[[FileSystemClient], Awaitable[Any]], instead: Any
) -> Callable[[FileSystemClient], Awaitable[Any]]:
    """Return work that gives something else where there is no such object."""

    async def run(client: FileSystemClient) -> Any:
        try:
            return await work(client)
        except (FileNotFoundError, NotADirectoryError):
            return instead
        except Fault as fault:
            if fault.kind == "missing":
                return instead
            raise

    return run


async def _create(client: FileSystemClient, url: str, data: bytes) -> bool:
    try:
        await client.do("pipe_file", url, data, mode="create")
    except FileExistsError:
        return False
    return True


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _is_itself(path: str, url: str) -> bool:
    """Say whether a path of the file system, which may leave host and slashes out, is that of the URL."""
    return f"/{url.partition('://')[2].strip('/')}".endswith(f"/{path.strip('/')}")
