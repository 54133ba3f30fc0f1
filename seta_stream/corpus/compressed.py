"""Compressed shards: which kind, and what opens them.

Takes first bytes and streams; gives decompressed streams. No files of its own; what is opened is the caller's to close.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO, cast

from seta_stream.errors import SetaStreamError

Opener = Callable[[IO[bytes]], IO[bytes]]

HEAD_BYTES = 10
"""First bytes of an object that tell its kind."""


def opener_of(head: bytes) -> Opener | None:
    """Return what opens a stream that begins so; None where it is neither gzip, bzip2 nor xz."""
    if head.startswith(b"\x1f\x8b\x08"):
        import gzip  # noqa: PLC0415  (compressed shards are rare)

        return lambda raw: cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if head.startswith(b"BZh") and head[4:] in (b"1AY&SY", b"\x17rE8P\x90"):
        import bz2  # noqa: PLC0415  (compressed shards are rare)

        return lambda raw: cast("IO[bytes]", bz2.BZ2File(raw))
    if head.startswith(b"\xfd7zXZ\0"):
        import lzma  # noqa: PLC0415  (compressed shards are rare)

        return lambda raw: cast("IO[bytes]", lzma.LZMAFile(raw))
    return None


@contextlib.contextmanager
def decompressing(failed: Callable[[Exception], SetaStreamError]) -> Iterator[None]:
    """Turn what a decompressor raises into the error that `failed` makes of it."""
    import lzma  # noqa: PLC0415  (compressed shards are rare)
    import zlib  # noqa: PLC0415  (compressed shards are rare)

    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, SetaStreamError):
            raise
        raise failed(error) from error
