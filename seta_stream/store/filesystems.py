"""fsspec file systems, set up for many requests at once and for one attempt each.

Takes a protocol and storage options; gives a file system of this process that shares nothing with the caller's own
ones. With store/clients.py the only file of the package that imports fsspec. Effects: fsspec's thread.

Retries and caches of listings are switched off where a file system has a switch: store/engine.py and store/remote.py
try again, and a listing that is remembered would hide what another process wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import fsspec
import fsspec.asyn

from seta_stream.errors import ArgumentError, MissingExtraError, SetaStreamError
from seta_stream.store.concurrency import MOST_PER_MACHINE
from seta_stream.store.redaction import redact, secrets_of
from seta_stream.store.retrying import STALL_S

CONNECT_S: Final = 10.0

S3: Final = frozenset({"s3", "s3a"})
GOOGLE: Final = frozenset({"gs", "gcs"})
AZURE: Final = frozenset({"az", "abfs", "abfss"})
WEB: Final = frozenset({"http", "https"})
OBJECT_STORES: Final = S3 | GOOGLE | AZURE | {"memory"}
"""Protocols whose folders need not be made, and whose objects are replaced whole by one put."""

_EXTRAS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(S3, ("s3", "s3fs")),
    **dict.fromkeys(GOOGLE, ("gcs", "gcsfs")),
    **dict.fromkeys(AZURE, ("azure", "adlfs")),
    **dict.fromkeys(WEB, ("http", "aiohttp")),
}

# A thread may hold fsspec's lock while another one forks; its own hook leaves it held.
os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)


def make(protocol: str, options: Mapping[str, Any]) -> Any:
    """Return a new file system.

    Raises:
        MissingExtraError: a package that the protocol needs is not installed.
        ArgumentError: there is no such protocol, or its file system refuses the options.
    """
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _SETTINGS.get(protocol, dict)
    try:
        fs = fsspec.filesystem(protocol, skip_instance_cache=True, **settings(options))
    except ImportError as error:
        raise _missing(protocol, error) from error
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise _refused(protocol, error, options) from None  # the cause may hold the options
    if protocol in S3:
        fs.retries = 1  # attempts per call
    if protocol in AZURE and options.get("location_mode", "primary") == "primary":
        _without_retries(fs)
    return fs


def _without_retries(fs: Any) -> None:
    """Give adlfs a service client that tries once; it has no option for that, and the SDK's own takes 85 s to fail."""
    given = fs.service_client
    fs.service_client = type(given)(
        given.url, credential=given.credential, retry_total=0, connection_timeout=CONNECT_S, read_timeout=STALL_S
    )


def _missing(protocol: str, error: ImportError) -> SetaStreamError:
    if protocol in _EXTRAS:
        extra, package = _EXTRAS[protocol]
        return MissingExtraError(
            f"URLs that begin with {protocol}:// need the package {package}, which cannot be imported ({error}). "
            f"Install it: pip install 'seta-stream[{extra}]'"
        )
    return ArgumentError(
        f"URLs that begin with {protocol}:// cannot be read: {error}. Install the package that fsspec names."
    )


def _refused(protocol: str, error: Exception, options: Mapping[str, Any]) -> ArgumentError:
    reason = redact(str(error), secrets_of(options))
    return ArgumentError(
        f"URLs that begin with {protocol}:// cannot be read: {reason}. Check the spelling, and that storage_options "
        f"are those of fsspec's file system; given are {', '.join(sorted(map(str, options))) or 'none'}."
    )


def _s3(options: Mapping[str, Any]) -> dict[str, Any]:
    config = {
        "max_pool_connections": MOST_PER_MACHINE,
        "connect_timeout": CONNECT_S,
        "read_timeout": STALL_S,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        **(options.get("config_kwargs") or {}),
    }
    # One request per read: with more than one at a time, s3fs asks for the size first.
    return {"use_listings_cache": False, "max_concurrency": 1, **options, "config_kwargs": config}


def _unlisted(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"use_listings_cache": False, **options}


def _web(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"get_client": web_session, **options}


async def web_session(**options: Any) -> Any:
    """Return an aiohttp session that does not hold requests back, ends stalled ones, and takes bytes as they lie."""
    import aiohttp  # noqa: PLC0415  (an extra)

    loop = options.pop("loop", None)
    headers = {"Accept-Encoding": "identity", **(options.pop("headers", None) or {})}
    settings = {
        "connector": options.get("connector") or aiohttp.TCPConnector(limit=0, loop=loop),
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S),
        # A .tar.gz that is served as gzip-encoded must stay one: sizes and ranges are those of the file.
        "auto_decompress": False,
        **options,
    }
    return aiohttp.ClientSession(loop=loop, headers=headers, **settings)


_SETTINGS: Final[Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = {
    **dict.fromkeys(S3, _s3),
    **dict.fromkeys(GOOGLE | AZURE, _unlisted),
    **dict.fromkeys(WEB, _web),
}
