"""One attempt at one byte range, through the client of each protocol.

Takes a URL, a range and the version that is read; gives its bytes, or raises a Fault or whatever the client raises.
Effects: one request.

Every answer's own version is compared with the expected one, where the client shows it: the bytes and the ETag come in
one answer, so no other version's bytes can pass. That is as safe as If-Match, and works with the servers that do not
know it (VAST, several web servers); a changed object costs one wasted body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from seta_stream.store.faults import Fault
from seta_stream.store.filesystems import CONNECT_S
from seta_stream.store.objects import Bytes, ObjectInfo
from seta_stream.store.retrying import STALL_S
from seta_stream.store.urls import split
from seta_stream.store.versions import (
    UNVERSIONED,
    check_length,
    check_range,
    check_same,
    content_range,
    of_etag,
    of_facts,
    of_headers,
)

MOST_WHOLE_BYTES: Final = 2 << 30
"""No object is read whole from a web server that is larger: who serves it need not be trusted to end it."""


class Fetch(Protocol):
    """Reads byte ranges; runs on the client's loop."""

    @property
    def is_conditional(self) -> bool:
        """Whether every answer is known to be of the version that was asked for."""
        ...

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Return the bytes start … stop − 1 of a version."""
        ...


async def do(fs: Any, method: str, *arguments: Any, **options: Any) -> Any:
    """Call a file system's method from the loop: its coroutine, or in a thread where it has none.

    fsspec documents `_ls` as the coroutine of `ls`, and so on.
    Source:
        fsspec, docs/source/async.rst, "Using from Async".
    """
    if fs.async_impl:
        return await getattr(fs, f"_{method}")(*arguments, **options)
    return await asyncio.to_thread(getattr(fs, method), *arguments, **options)


class PlainFetch:
    """Any fsspec file system; nothing shows which version the bytes are of."""

    is_conditional = False

    def __init__(self, fs: Any, protocol: str) -> None:
        self._fs = fs
        self._protocol = protocol

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by `cat_file`; the caller looks at the version where all bytes came."""
        data: bytes = await do(self._fs, "cat_file", url, start=start, end=stop)
        if len(data) != stop - start:
            check_same(of_facts(self._protocol, await do(self._fs, "info", url)), info)
        check_length(len(data), stop - start)
        return data


class S3Fetch:
    """s3fs and botocore: about 1 ms of CPU per request."""

    is_conditional = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by GetObject, with whatever the options ask to send along."""
        bucket, key, version = self._fs.split_path(url)
        named = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
        answer = await do(self._fs, "call_s3", "get_object", Range=f"bytes={start}-{stop - 1}", **named)
        body = answer["Body"]
        try:
            told = answer.get("ContentRange")
            size = content_range(told)[2] if told else int(answer["ContentLength"])
            check_same(ObjectInfo(info.size if size is None else size, of_etag(answer.get("ETag", ""))), info)
            if told is None and stop - start != size:
                raise Fault("no-ranges", "the whole object came")
            check_range(told, start, stop)
            data: bytes = await body.read()
        finally:
            body.close()
        check_length(len(data), stop - start)
        return data


class AzureFetch:
    """adlfs and Azure's SDK."""

    is_conditional = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by Get Blob; without the SDK's own retries."""
        container, blob, _ = self._fs.split_path(url)
        async with self._fs.service_client.get_blob_client(container, blob) as client:
            answer = await client.download_blob(
                offset=start,
                length=stop - start,
                max_concurrency=1,
                retry_total=0,
                connection_timeout=CONNECT_S,
                read_timeout=STALL_S,
            )
            check_same(ObjectInfo(info.size, of_etag(answer.properties.etag or "")), info)
            data: bytes = await answer.readall()
        check_length(len(data), stop - start)
        return data


class GoogleFetch:
    """gcsfs; a generation is asked for, and where it is gone, another one or none is there."""

    is_conditional = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read one generation's bytes."""
        generation = info.version.partition("generation:")[2] or None
        try:
            data: bytes = await do(self._fs, "cat_file", url, start=start, end=stop, generation=generation)
        except FileNotFoundError:
            check_same(of_facts("gs", await do(self._fs, "info", url)), info)
            raise
        check_length(len(data), stop - start)
        return data


async def read_at_most(body: Any, most: int) -> bytes:
    """Return a body; of one that goes on, a little more than `most` bytes, so that its length tells.

    A server may send more than it says, and never end.
    """
    parts: list[bytes] = []
    found = 0
    while found <= most and (part := await body.readany()):
        parts.append(part)
        found += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class WebFetch:
    """fsspec's HTTP file system and aiohttp: about 120 µs of CPU per request, no more than other clients."""

    is_conditional = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._whole: set[str] = set()
        """Hosts that sent a whole object where one byte was asked for: of them the head is asked for first."""

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by one GET."""
        async with await self.get(url, {"Range": f"bytes={start}-{stop - 1}"}) as answer:
            answer.raise_for_status()
            told = answer.headers.get("Content-Range") if answer.status == 206 else None
            size = content_range(told or "")[2] if answer.status == 206 else answer.content_length
            if info.version != UNVERSIONED or size is not None:
                check_same(of_headers(info.size if size is None else size, answer.headers), info)
            if answer.status != 206 and stop - start != size:
                raise Fault("no-ranges", f"status {answer.status} to a range request")
            check_range(told, start, stop)
            data = await read_at_most(answer.content, stop - start)
        check_length(len(data), stop - start)
        return data

    async def whole(self, url: str) -> bytes:
        """Return a whole object, of those that are read so: indexes, lists and tables."""
        async with await self.get(url, {}) as answer:
            answer.raise_for_status()
            data = await read_at_most(answer.content, MOST_WHOLE_BYTES)
        if len(data) > MOST_WHOLE_BYTES:
            raise Fault("broken", f"the server sends more than {MOST_WHOLE_BYTES} bytes, and no such file is so large")
        if answer.content_length is not None:
            check_length(len(data), answer.content_length)
        return data

    async def get(self, url: str, headers: Mapping[str, str], method: str = "GET") -> Any:
        """Return the answer to a request that has the caller's own headers and options as well."""
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        sent = {**(options.pop("headers", None) or {}), **headers}
        return await session.request(method, self._fs.encode_url(url), headers=sent, allow_redirects=True, **options)

    async def look(self, url: str) -> tuple[ObjectInfo, bool]:
        """Return size and version, and whether byte ranges are served.

        One byte is asked for: that tells more than HEAD does, and is allowed where a signed URL refuses HEAD. A host
        that answers with the whole object is not asked so again, unless its head tells of ranges or nothing.
        """
        if split(url)[0] in self._whole:
            with suppress(Exception):  # GET tells what is wrong
                info, has_ranges = await self._look_at_head(url)
                if not has_ranges:
                    return info, False
        async with await self.get(url, {"Range": "bytes=0-0"}) as answer:
            if answer.status == 206:
                size = content_range(answer.headers.get("Content-Range", ""))[2]
                if size is not None:
                    return of_headers(size, answer.headers), True
            elif answer.status == 416 and content_range(answer.headers.get("Content-Range", ""))[2] == 0:
                return of_headers(0, answer.headers), True
            elif answer.status != 416:
                answer.raise_for_status()
                if answer.content_length is None:
                    raise Fault("broken", "the server does not tell the size")
                self._whole.add(split(url)[0])
                found = of_headers(answer.content_length, answer.headers)
                answer.close()  # the body is not wanted
                return found, False
        return await self._look_at_head(url)

    async def _look_at_head(self, url: str) -> tuple[ObjectInfo, bool]:
        async with await self.get(url, {}, "HEAD") as answer:
            answer.raise_for_status()
            if answer.content_length is None:
                raise Fault("broken", "the server does not tell the size")
            return of_headers(answer.content_length, answer.headers), answer.headers.get("Accept-Ranges") == "bytes"
