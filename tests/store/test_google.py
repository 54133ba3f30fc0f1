"""gs:// through gcsfs and obstore, against a server that answers as Google's does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fake_google import Bucket, google

from seta_stream.errors import ReadError, ShardChangedError
from seta_stream.store import ObjectInfo, filesystems, obstores
from seta_stream.store.clients import client_for
from seta_stream.store.faults import Fault
from seta_stream.store.obstores import ObstoreFetch
from seta_stream.store.remote import RemoteStore

Server = tuple[str, Bucket]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run one."""
    from gcsfs.core import GCSFileSystem

    # The extended class asks Google's control plane, over gRPC, what kind of bucket it has before it.
    monkeypatch.setattr(filesystems.fsspec, "filesystem", lambda protocol, **options: GCSFileSystem(**options))
    with google() as running:
        yield running


@pytest.fixture
def store(server: Server) -> RemoteStore:
    """A store there."""
    return RemoteStore("gs", {"token": "anon", "project": "p", "endpoint_url": server[0]})


def test_objects_are_written_listed_and_read(store: RemoteStore) -> None:
    """As in every other store."""
    store.write("gs://b/in/a.tar", b"old")
    store.write("gs://b/in/a.tar", b"0123456789")
    store.write("gs://b/in/more/c.tar", b"x")
    assert store.read("gs://b/in/a.tar") == b"0123456789"
    assert store.names("gs://b/in") == ["a.tar", "more"]
    assert store.glob("gs://b/in/*.tar") == ["gs://b/in/a.tar"]
    assert store.infos("gs://b/in") == {"a.tar": store.info("gs://b/in/a.tar")}
    assert store.info("gs://b/in/a.tar").version.startswith("generation:17")
    file = store.open("gs://b/in/a.tar")
    assert file.read_spans([(2, 3), (8, 2)]) == [b"234", b"89"]
    with store.open_stream("gs://b/in/a.tar") as stream:
        assert stream.read() == b"0123456789"
    store.remove("gs://b/in")
    assert not store.exists("gs://b/in/a.tar")
    with pytest.raises(ReadError, match=r"a\.tar: there is no such file.*in bucket 'b'"):
        store.info("gs://b/in/a.tar")


def test_only_one_creates(store: RemoteStore) -> None:
    """By a condition on the generation."""
    assert store.create("gs://b/record", b"one")
    assert not store.create("gs://b/record", b"two")
    assert store.read("gs://b/record") == b"one"


def test_another_generation_is_told_from_none(store: RemoteStore) -> None:
    """A generation that is gone was replaced, or removed."""
    store.write("gs://b/a.tar", b"0123456789")
    file = store.open("gs://b/a.tar")
    assert file.read(0, 2) == b"01"
    store.write("gs://b/a.tar", b"9876543210")
    with pytest.raises(ShardChangedError, match=r"it had 10 bytes \(generation:17\d+\) and has 10 \(generation:17"):
        file.read(0, 2)
    store.remove("gs://b/a.tar")
    with pytest.raises(ReadError, match=r"a\.tar: there is no such file"):
        file.read(0, 2)


def test_obstore_tells_the_same_generation(server: Server, store: RemoteStore) -> None:
    """The version that gcsfs told fits what obstore reads, and another one is refused."""
    from obstore.store import GCSStore

    url, _ = server
    store.write("gs://b/in/a.tar", b"0123456789")
    info = store.info("gs://b/in/a.tar")

    async def opener(bucket: str) -> Any:
        return GCSStore(bucket, base_url=url, skip_signature=True, **obstores._transport(url))

    fetch = ObstoreFetch(opener)

    async def read(info: ObjectInfo) -> bytes:
        return bytes(await fetch("gs://b/in/a.tar", 2, 5, info))

    assert asyncio.run(read(info)) == b"234"
    with pytest.raises(Fault, match=r"changed: it had 10 bytes \(generation:1\) and has 10 \(generation:17"):
        asyncio.run(read(ObjectInfo(10, "generation:1")))


def test_gcsfs_credentials_sign_for_obstore() -> None:
    """A stranger signs nothing; tokens that end are asked for again."""
    refreshed = []

    async def session() -> None:
        return None

    def opened(credentials: Any) -> Any:
        holder = SimpleNamespace(credentials=credentials, maybe_refresh=lambda: refreshed.append(1))
        fs = SimpleNamespace(async_impl=True, _set_session=session, credentials=holder)
        return asyncio.run(obstores._GoogleOpener(fs)("bucket"))

    assert opened(None).config["skip_signature"]
    found = opened(SimpleNamespace(token="t", expiry=datetime.now(UTC) + timedelta(hours=1)))
    assert refreshed == []
    given = asyncio.run(found.credential_provider())
    assert (given["token"], refreshed) == ("t", [1])
    assert given["expires_at"] > datetime.now(UTC)


def test_obstore_serves_google_where_it_can(server: Server) -> None:
    """With an endpoint of its own, gcsfs reads."""
    from seta_stream.store.fetching import GoogleFetch

    options = {"token": "anon", "project": "p", "endpoint_url": server[0]}
    assert type(client_for("gs", options).fetch) is GoogleFetch
