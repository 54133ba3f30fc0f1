"""Bytes at URLs: the bottom room, and the only one that imports fsspec.

Takes URLs and local paths; gives bytes, sizes and versions. Local files go through the operating system alone; every
other protocol goes through fsspec.
"""

from __future__ import annotations

from seta_stream.store.local import LocalFile, LocalStore
from seta_stream.store.objects import Answer, Bytes, LateAnswer, ObjectInfo, Options, ShardFile, Store, short_read
from seta_stream.store.urls import is_local, is_web, join, local_path, normalise, parsed, protocol_of, shown

__all__ = [
    "Answer",
    "Bytes",
    "LateAnswer",
    "LocalFile",
    "LocalStore",
    "ObjectInfo",
    "Options",
    "ShardFile",
    "Store",
    "is_local",
    "is_web",
    "join",
    "local_path",
    "normalise",
    "parsed",
    "protocol_of",
    "short_read",
    "shown",
    "store_for",
]


def store_for(url: str, options: Options | None = None) -> Store:
    """Return the store that serves a URL; `options` go to the fsspec file system as they are."""
    protocol = protocol_of(url)
    if protocol == "file":
        return LocalStore()
    from seta_stream.store.remote import RemoteStore  # noqa: PLC0415  (importing fsspec takes 70 ms)

    return RemoteStore(protocol, options or {})
