"""obstore instead of botocore and the SDKs for byte ranges, where it finds the same object in the same way.

Takes an fsspec file system and its options; gives a Fetch, or None where an option cannot be carried over exactly.
Effects: requests; obstore's threads, which do not survive a fork.

Endpoint, region and credentials are asked of the file system itself, so both clients find the same ones: profiles,
roles and refreshed tokens too. Measured on one machine against nginx, 100 KB ranges, 64 at once: 250 µs of CPU per
request, botocore 1,000–1,200.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from seta_stream.store.concurrency import MOST_PER_MACHINE
from seta_stream.store.faults import Fault
from seta_stream.store.fetching import Fetch, do
from seta_stream.store.filesystems import AZURE, CONNECT_S, GOOGLE, S3
from seta_stream.store.objects import Bytes, ObjectInfo
from seta_stream.store.retrying import STALL_S
from seta_stream.store.urls import split
from seta_stream.store.versions import check_length, check_same, of_etag

Open = Callable[[str], Awaitable[Any]]
"""Bucket → obstore's store."""

STRIKES: Final = 3
"""So often may fsspec succeed where obstore failed before a bucket is left to fsspec."""
TOKEN_LIFE: Final = timedelta(minutes=5)
"""Credentials that are refreshed are asked for again after this long; whoever holds them refreshes them in time."""
_PLAIN_KEY: Final = re.compile(r"(?!.*(?:^|/)\.{0,2}(?:/|$))[\w./=+@,() -]+", re.ASCII)
"""Keys that obstore cannot spell otherwise: no empty or dotted parts, nothing to be quoted."""
_AMAZON: Final = re.compile(r"(https?)://s3(?:[.-][a-z]+-[a-z-]*\d)?\.amazonaws\.com(\.cn)?")
"""Amazon's common endpoints; others of theirs (FIPS, accelerated, dual-stack) are taken as they are."""

_GENERAL: Final = frozenset(
    {"use_listings_cache", "listings_expiry_time", "max_paths", "default_block_size", "default_fill_cache",
     "default_cache_type", "max_concurrency", "skip_instance_cache", "block_size", "blocksize", "cache_timeout"}
)  # fmt: skip
"""Options that do not matter to a ranged read."""
_S3_OPTIONS: Final = _GENERAL | {
    "anon", "key", "secret", "token", "username", "password", "profile", "endpoint_url", "requester_pays", "use_ssl",
    "client_kwargs", "config_kwargs", "fixed_upload_size", "local_expiry_check",
}  # fmt: skip
_S3_CLIENT: Final = frozenset({"region_name", "endpoint_url", "use_ssl"})
_S3_CONFIG: Final = frozenset({"connect_timeout", "read_timeout", "max_pool_connections", "retries", "region_name"})
_AZURE_OPTIONS: Final = _GENERAL | {
    "account_name", "account_key", "connection_string", "credential", "sas_token", "client_id", "client_secret",
    "tenant_id", "anon", "account_host", "assume_container_exists", "location_mode",
}  # fmt: skip
_GOOGLE_OPTIONS: Final = _GENERAL | {"project", "access", "token", "consistency", "requests_timeout", "timeout"}


class _Process:
    """What is known of this process."""

    is_lost = False
    """Whether obstore's threads may have been left behind in a parent."""


def _in_child() -> None:
    # Used or only imported: that cannot be told for a caller's own use, and waiting for threads that are gone is for
    # ever. fsspec works in the child either way.
    _Process.is_lost = "obstore" in sys.modules


os.register_at_fork(after_in_child=_in_child)


def faster(protocol: str, fs: Any, options: Mapping[str, Any], slow: Fetch) -> Fetch | None:
    """Return what reads through obstore, and through `slow` where obstore cannot; None where obstore does not serve."""
    if _Process.is_lost or find_spec("obstore") is None:
        return None
    given = {name for name, value in options.items() if value is not None}
    if protocol in S3 and given <= _S3_OPTIONS and _is_plain_s3(options):
        return Preferred(ObstoreFetch(_S3Opener(fs, options)), slow)
    if protocol in AZURE and given <= _AZURE_OPTIONS and options.get("location_mode", "primary") == "primary":
        return Preferred(ObstoreFetch(_AzureOpener(fs)), slow)
    if protocol in GOOGLE and given <= _GOOGLE_OPTIONS and "STORAGE_EMULATOR_HOST" not in os.environ:
        return Preferred(ObstoreFetch(_GoogleOpener(fs)), slow)
    return None


def _is_plain_s3(options: Mapping[str, Any]) -> bool:
    client, config = options.get("client_kwargs") or {}, options.get("config_kwargs") or {}
    return set(client) <= _S3_CLIENT and set(config) <= _S3_CONFIG


class ObstoreFetch:
    """Reads through obstore.

    Args:
        opener: makes the store of a bucket; asked once per bucket.
    """

    is_conditional = True

    def __init__(self, opener: Open) -> None:
        self._opener = opener
        self._stores: dict[str, asyncio.Task[Any]] = {}

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by one GET; the answer is obstore's own buffer."""
        import obstore  # noqa: PLC0415  (an extra)

        bucket, key = split(url)
        answer = await obstore.get_async(await self._store(bucket), key, options={"range": (start, stop)})
        meta = answer.meta
        etag, generation = meta.get("e_tag"), meta.get("version")
        if info.version.startswith("generation:"):
            version = f"generation:{generation}"
        elif etag:
            version = of_etag(etag)
        else:
            raise Fault("broken", "the store told no version")
        check_same(ObjectInfo(int(meta["size"]), version), info)
        data = memoryview(await answer.bytes_async())
        check_length(len(data), stop - start)
        return data

    async def _store(self, bucket: str) -> Any:
        task = self._stores.get(bucket)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._stores[bucket] = asyncio.ensure_future(self._opener(bucket))
        return await asyncio.shield(task)  # who gives up does not end it for the others


class Preferred:
    """Reads through obstore once it has proven itself; until then fsspec decides what a failure means.

    Args:
        fast: obstore.
        slow: fsspec.
    """

    is_conditional = True

    def __init__(self, fast: Fetch, slow: Fetch) -> None:
        self._fast = fast
        self._slow = slow
        self._proven: set[str] = set()
        self._strikes: dict[str, int] = {}

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> Bytes:
        """Read by obstore or by fsspec."""
        bucket, key = split(url)
        if self._strikes.get(bucket, 0) >= STRIKES or not _PLAIN_KEY.fullmatch(key):
            return await self._slow(url, start, stop, info)
        try:
            data = await self._fast(url, start, stop, info)
        except Exception:
            if bucket in self._proven:
                raise
            # Another region, an authority that only Python trusts, a store with habits of its own: where fsspec reads
            # it, obstore's failure was no answer.
            data = await self._slow(url, start, stop, info)
            self._strikes[bucket] = self._strikes.get(bucket, 0) + 1
            return data
        self._proven.add(bucket)
        return data


def _transport(endpoint: str | None) -> dict[str, Any]:
    return {
        "client_options": {
            "allow_http": bool(endpoint) and urlsplit(endpoint).scheme == "http",
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=STALL_S),
            "timeout": timedelta(hours=1),  # store/engine.py gives an attempt its time
            "pool_max_idle_per_host": str(MOST_PER_MACHINE),
        },
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
    }


class _S3Opener:
    def __init__(self, fs: Any, options: Mapping[str, Any]) -> None:
        self._fs = fs
        self._options = options

    async def __call__(self, bucket: str) -> Any:
        from obstore.store import S3Store  # noqa: PLC0415  (an extra)

        client = await self._fs.set_session()
        endpoint, region = client.meta.endpoint_url, client.meta.region_name or "us-east-1"
        amazon = _AMAZON.fullmatch(endpoint)
        if amazon is not None:
            # botocore follows a bucket to its region; obstore must know it.
            region = await self._region(client, bucket) or region
            endpoint = f"{amazon[1]}://s3.{region}.amazonaws.com{amazon[2] or ''}"
        return S3Store(
            bucket,
            region=region,
            endpoint=endpoint,
            virtual_hosted_style_request=False,
            request_payer=bool(self._options.get("requester_pays")),
            **await self._credentials(),
            **_transport(endpoint),
        )

    async def _region(self, client: Any, bucket: str) -> str | None:
        try:
            answer = await client.head_bucket(Bucket=bucket)
        except Exception as error:  # noqa: BLE001  (a refusal tells the region as well)
            answer = getattr(error, "response", {})
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        found = headers.get("x-amz-bucket-region")
        return str(found) if found else None

    async def _credentials(self) -> dict[str, Any]:
        if self._options.get("anon"):
            return {"skip_signature": True}
        key, secret = self._fs.key, self._fs.secret
        held = None if key else await self._fs.session.get_credentials()

        async def provide() -> dict[str, Any]:
            if held is None:
                # A provider even where they are fixed: obstore then passes over those of the environment.
                return {"access_key_id": key or "", "secret_access_key": secret or "", "token": self._fs.token,
                        "expires_at": None}  # fmt: skip
            found = await held.get_frozen_credentials()
            expires = datetime.now(UTC) + TOKEN_LIFE if hasattr(held, "refresh_needed") else None
            return {"access_key_id": found.access_key, "secret_access_key": found.secret_key, "token": found.token,
                    "expires_at": expires}  # fmt: skip

        return {"credential_provider": provide, "skip_signature": False}


class _AzureOpener:
    def __init__(self, fs: Any) -> None:
        self._fs = fs

    async def __call__(self, container: str) -> Any:
        from obstore.store import AzureStore  # noqa: PLC0415  (an extra)

        client = self._fs.service_client
        endpoint = urlsplit(client.url)._replace(query="").geturl().rstrip("/")
        return AzureStore(
            container,
            account_name=client.account_name,
            endpoint=endpoint,
            use_emulator=False,
            **self._credentials(client),
            **_transport(endpoint),
        )

    def _credentials(self, client: Any) -> dict[str, Any]:
        key = getattr(client.credential, "account_key", None)
        query = urlsplit(client.url).query
        token = self._fs.credential
        found: dict[str, Any]
        if key:
            found = {"access_key": key, "expires_at": None}
        elif "sig=" in query:
            found = {"sas_token": query, "expires_at": None}
        elif not hasattr(token, "get_token"):
            return {"skip_signature": True}

        async def provide() -> dict[str, Any]:
            if key or "sig=" in query:
                return found
            access = await token.get_token("https://storage.azure.com/.default")
            return {"token": access.token, "expires_at": datetime.fromtimestamp(access.expires_on, UTC)}

        return {"credential_provider": provide, "skip_signature": False}


class _GoogleOpener:
    def __init__(self, fs: Any) -> None:
        self._fs = fs

    async def __call__(self, bucket: str) -> Any:
        from obstore.store import GCSStore  # noqa: PLC0415  (an extra)

        await do(self._fs, "set_session")
        holder = self._fs.credentials
        if holder.credentials is None:
            return GCSStore(bucket, skip_signature=True, **_transport(None))

        async def provide() -> dict[str, Any]:
            await asyncio.to_thread(holder.maybe_refresh)
            expiry = holder.credentials.expiry
            expires = datetime.now(UTC) + TOKEN_LIFE if expiry else None
            return {"token": holder.credentials.token, "expires_at": expires}

        given: dict[str, Any] = {"credential_provider": provide, "skip_signature": False}
        return GCSStore(bucket, **given, **_transport(None))
