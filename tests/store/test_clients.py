"""Which client serves a URL: by protocol, options and process; and what it finds out about credentials."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from seta_stream.errors import ArgumentError, MissingExtraError, ReadError
from seta_stream.store import filesystems, obstores, store_for
from seta_stream.store.clients import FileSystemClient, client_for
from seta_stream.store.faults import Fault
from seta_stream.store.fetching import AzureFetch, GoogleFetch, PlainFetch, S3Fetch, WebFetch
from seta_stream.store.objects import ObjectInfo
from seta_stream.store.obstores import STRIKES, ObstoreFetch, Preferred
from seta_stream.store.processes import PerProcess
from seta_stream.store.remote import RemoteStore

READER = Path(__file__).parent / "forking_reader.py"
INFO = ObjectInfo(14, "etag:x")
S3 = {"key": "k", "secret": "s"}
AZURE = {"account_name": "name", "account_key": "a2V5"}


@pytest.mark.parametrize(
    ("protocol", "options", "kind"),
    [
        ("s3", S3, Preferred),
        ("s3a", {**S3, "client_kwargs": {"region_name": "eu-west-1"}, "endpoint_url": "http://host:9000"}, Preferred),
        ("s3", {"anon": True, "requester_pays": True, "config_kwargs": {"read_timeout": 5}}, Preferred),
        ("s3", {**S3, "client_kwargs": {"verify": False}}, S3Fetch),
        ("s3", {**S3, "config_kwargs": {"s3": {"addressing_style": "virtual"}}}, S3Fetch),
        ("s3", {**S3, "s3_additional_kwargs": {"SSECustomerKey": "x"}}, S3Fetch),
        ("s3", {**S3, "version_aware": True}, S3Fetch),
        ("az", AZURE, Preferred),
        ("abfs", {**AZURE, "version_aware": True}, AzureFetch),
        ("az", {**AZURE, "location_mode": "secondary"}, AzureFetch),
        ("gs", {"token": "anon", "project": "p"}, Preferred),
        ("gcs", {"token": "anon", "project": "p", "endpoint_url": "http://host"}, GoogleFetch),
        ("http", {}, WebFetch),
        ("https", {"client_kwargs": {"headers": {"a": "b"}}}, WebFetch),
        ("memory", {}, PlainFetch),
    ],
)
def test_options_decide_who_reads(protocol: str, options: dict[str, Any], kind: type) -> None:
    """obstore reads where each option can be carried over exactly; else the protocol's own client does."""
    assert type(FileSystemClient(protocol, options).fetch) is kind
    assert not isinstance(FileSystemClient(protocol, options, "fsspec").fetch, Preferred)


def test_without_obstore_fsspec_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is not needed."""
    monkeypatch.setattr(obstores, "find_spec", lambda name: None)
    assert type(FileSystemClient("s3", S3).fetch) is S3Fetch


def test_one_client_per_options() -> None:
    """Equal options share a client, whatever their order; others have their own; no credential is kept as a key."""
    options = {"key": "k1", "secret": "secret-value", "client_kwargs": {"region_name": "r", "use_ssl": True}}
    turned = {"client_kwargs": {"use_ssl": True, "region_name": "r"}, "secret": "secret-value", "key": "k1"}
    client = client_for("s3", options)
    assert client_for("s3", turned) is client
    assert client_for("s3", {**options, "secret": "another"}) is not client
    assert client_for("s3", options, "fsspec") is not client
    assert client.loop.is_running()
    from seta_stream.store import clients

    assert "secret-value" not in repr(list(clients._clients._values))


def test_file_systems_are_our_own() -> None:
    """What we switch off stays on in a file system that the caller made with the same options."""
    ours, theirs = filesystems.make("s3", S3), fsspec.filesystem("s3", **S3)
    assert ours is not theirs
    assert (ours.retries, theirs.retries) == (1, type(theirs).retries)
    assert type(theirs).retries > 1


def test_settings_give_way_to_options() -> None:
    """Time-outs, pools and attempts are ours unless the caller says otherwise."""
    fs = filesystems.make("s3", {**S3, "config_kwargs": {"read_timeout": 7}, "max_concurrency": 3})
    assert fs.config_kwargs["read_timeout"] == 7
    assert fs.config_kwargs["max_pool_connections"] >= 256
    assert fs.config_kwargs["retries"]["total_max_attempts"] == 1
    assert fs.max_concurrency == 3


@pytest.mark.parametrize(
    ("parent", "begins"),
    [("read", "fork"), ("listed", "fork"), ("own", "fork"), ("read", "spawn"), ("read", "threads")],
)
def test_children_and_threads_read(parent: str, begins: str, request: pytest.FixtureRequest) -> None:
    """Forked and spawned children and threads read, silently, whatever the parent did.

    obstore's threads stay behind in a fork: a child whose parent may have used it reads through fsspec. A parent that
    only looked, listed and read whole objects leaves it to its children.
    """
    server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket")
    url = f"{bucket}/in/a.bin"
    server.put(url, b"abcdefghijklmn")
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", str(READER)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, parent, begins, url, json.dumps(server.options)],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    data, left_behind = "abcdklmn", begins == "fork" and parent != "listed"
    child = [data, "fsspec" if left_behind else "obstore"]
    ours = [data, "obstore"]
    assert json.loads(done.stdout) == ([ours, child, ours] if parent == "read" else [child])


def test_values_of_a_parent_stay_alone() -> None:
    """A forked child makes its own values; its parent's are neither used nor ended there."""
    ended = []

    class Value:
        def __del__(self) -> None:
            ended.append(self)

    table: PerProcess[Any] = PerProcess()
    first = table.get("a", Value)
    assert table.get("a", Value) is first
    number = id(first)
    del first
    table.begin_anew()
    assert id(table.get("a", Value)) != number
    assert ended == []


class Scripted:
    """A client that fails as it is told, or gives its name."""

    is_conditional = True

    def __init__(self, name: bytes, *failures: Exception | None) -> None:
        self.name = name
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self, url: str, start: int, stop: int, info: ObjectInfo) -> bytes:
        self.calls += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return self.name


def gets(fetch: Preferred, *urls: str) -> list[bytes]:
    """Read from each."""

    async def run() -> list[bytes]:
        return [bytes(await fetch(url, 0, 4, INFO)) for url in urls]

    return asyncio.run(run())


def test_until_obstore_has_read_fsspec_judges() -> None:
    """What obstore cannot read and fsspec can is read by fsspec; after three times without being asked again."""
    fast, slow = Scripted(b"fast", *[Fault("denied", "no")] * 9), Scripted(b"slow")
    assert gets(Preferred(fast, slow), *["s3://b/k"] * 9) == [b"slow"] * 9
    assert fast.calls == STRIKES
    assert slow.calls == 9


def test_where_both_fail_fsspec_tells_why() -> None:
    """An object that neither client reads fails as fsspec says, and tells nothing against obstore."""
    fast = Scripted(b"fast", *[Fault("broken", "strange")] * 5)
    slow = Scripted(b"slow", *[Fault("missing", "404")] * 5)
    fetch = Preferred(fast, slow)
    for _ in range(5):
        with pytest.raises(Fault, match="missing: 404"):
            gets(fetch, "s3://b/k")
    assert gets(fetch, "s3://b/k") == [b"fast"]


def test_once_obstore_has_read_its_word_counts() -> None:
    """A proven client's failures are the store's; another bucket is another matter."""
    fast, slow = Scripted(b"fast", None, Fault("throttled", "503")), Scripted(b"slow")
    fetch = Preferred(fast, slow)
    assert gets(fetch, "s3://b/k") == [b"fast"]
    with pytest.raises(Fault, match="throttled: 503"):
        gets(fetch, "s3://b/k")
    fast.failures = [Fault("broken", "redirected")]
    assert gets(fetch, "s3://other/k") == [b"slow"]
    assert gets(fetch, "s3://b/k") == [b"fast"]


@pytest.mark.parametrize(
    ("key", "client"),
    [
        ("a/b-1_2.tar", b"fast"),
        ("a b/c=d+e@f,(g).tar", b"fast"),
        ("a//b.tar", b"slow"),
        ("a/../b.tar", b"slow"),
        ("a/./b.tar", b"slow"),
        ("a%20b.tar", b"slow"),
        ("ü.tar", b"slow"),
        ("a?b#c.tar", b"slow"),
        ("a/b/", b"slow"),
    ],
)
def test_unusual_keys_are_read_by_fsspec(key: str, client: bytes) -> None:
    """A key that one client may spell otherwise than the other goes to the one that also looked at it."""
    assert gets(Preferred(Scripted(b"fast"), Scripted(b"slow")), f"s3://b/{key}") == [client]


def test_both_clients_read_a_real_bucket(request: pytest.FixtureRequest) -> None:
    """On moto and Azurite obstore proves itself by its first read, and a version that fsspec told fits it."""
    for server, bucket in (("s3_server", "s3_bucket"), ("azure_server", "azure_container")):
        options, folder = request.getfixturevalue(server).options, request.getfixturevalue(bucket)
        protocol, name = folder.split("://")
        store = RemoteStore(protocol, options)
        store.write(f"{folder}/a.bin", b"0123456789")
        assert store.open(f"{folder}/a.bin").read(2, 3) == b"234"
        fetch = client_for(protocol, options).fetch
        assert isinstance(fetch, Preferred)
        assert name in fetch._proven
        assert name not in fetch._strikes


def test_versions_are_told_alike(request: pytest.FixtureRequest) -> None:
    """obstore's own look at an object gives the version that fsspec's gives, quotes or not."""
    import obstore

    from seta_stream.store.versions import of_etag

    for server, bucket in (("s3_server", "s3_bucket"), ("azure_server", "azure_container")):
        options, folder = request.getfixturevalue(server).options, request.getfixturevalue(bucket)
        protocol, name = folder.split("://")
        client = client_for(protocol, options)
        RemoteStore(protocol, options).write(f"{folder}/a.bin", b"0123456789")

        async def look(client: FileSystemClient = client, name: str = name) -> str:
            fetch = client.fetch
            assert isinstance(fetch, Preferred)
            assert isinstance(fetch._fast, ObstoreFetch)
            return of_etag(str((await obstore.head_async(await fetch._fast._store(name), "a.bin"))["e_tag"]))

        told = asyncio.run_coroutine_threadsafe(look(), client.loop).result()
        assert RemoteStore(protocol, options).info(f"{folder}/a.bin").version == told


def test_a_signature_for_a_container(request: pytest.FixtureRequest) -> None:
    """A shared access signature reads through obstore as through adlfs."""
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    server, folder = request.getfixturevalue("azure_server"), request.getfixturevalue("azure_container")
    container = folder.removeprefix("az://")
    server.put(f"{folder}/a.bin", b"0123456789")
    signature = generate_container_sas(
        server.options["account_name"], container, account_key=server.options["account_key"],
        permission=ContainerSasPermissions(read=True, list=True), expiry=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    options = {"connection_string": f"BlobEndpoint={server};SharedAccessSignature={signature}"}
    for force in (None, "fsspec"):
        store = RemoteStore("az", options, force=force)
        assert store.open(f"{folder}/a.bin").read(0, 4) == b"0123"
    fetch = client_for("az", options).fetch
    assert isinstance(fetch, Preferred)
    assert container in fetch._proven


def test_a_strangers_requests(request: pytest.FixtureRequest) -> None:
    """anon=True reads what is public, through both clients; what is not is denied, with what to give."""
    server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket")
    owner = client_for("s3", server.options)
    for name, acl in (("public", "public-read"), ("private", "private")):
        owner.fs.pipe_file(f"{bucket}/{name}", b"0123456789", ACL=acl)
    for force in (None, "fsspec"):
        store = RemoteStore("s3", {"anon": True, "endpoint_url": str(server)}, force=force)
        assert store.open(f"{bucket}/public").read(0, 4) == b"0123"
        with pytest.raises(ReadError, match=r"private: access to bucket 'test-.*' is denied.*Give key= and secret="):
            store.info(f"{bucket}/private")
        with pytest.raises(ReadError, match=r"private: access to bucket 'test-.*' is denied.*anon=True for a public"):
            store.open(f"{bucket}/private", ObjectInfo(10, "etag:x")).read(0, 4)


def provided(opener: obstores._S3Opener) -> dict[str, Any]:
    """Ask for the credentials that obstore would be given."""

    async def run() -> dict[str, Any]:
        found = await opener._credentials()
        return dict(await found["credential_provider"]()) if "credential_provider" in found else found

    return asyncio.run(run())


def test_a_profile_serves_both_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that botocore finds, as in a profile of ~/.aws, are those that obstore signs with."""
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = from-profile\naws_secret_access_key = hidden\n")
    (tmp_path / "config").write_text("[profile work]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    options = {"profile": "work"}
    client = FileSystemClient("s3", options)

    async def run() -> tuple[dict[str, Any], str]:
        session = await client.fs.set_session()
        found = await obstores._S3Opener(client.fs, options)._credentials()
        return await found["credential_provider"](), session.meta.region_name

    found, region = asyncio.run_coroutine_threadsafe(run(), client.loop).result()
    assert (found["access_key_id"], found["secret_access_key"], found["token"]) == ("from-profile", "hidden", None)
    assert found["expires_at"] is None
    assert region == "eu-north-1"


def test_refreshed_credentials_are_asked_for_again() -> None:
    """A role's tokens end, so obstore comes back for them; given ones stay; a stranger signs nothing."""

    class Held:
        def __init__(self) -> None:
            self.asked = 0

        def refresh_needed(self) -> bool:
            return False

        async def get_frozen_credentials(self) -> SimpleNamespace:
            self.asked += 1
            return SimpleNamespace(access_key=f"key{self.asked}", secret_key="s", token="t")

    class Session:
        held = Held()

        async def get_credentials(self) -> Held:
            return self.held

    fs = SimpleNamespace(key=None, secret=None, token=None, session=Session())
    opener = obstores._S3Opener(fs, {})
    assert [provided(opener)["access_key_id"] for _ in range(2)] == ["key1", "key2"]
    assert provided(opener)["expires_at"] > datetime.now(UTC)
    given = obstores._S3Opener(SimpleNamespace(key="k", secret="s", token=None, session=None), {"key": "k"})
    assert provided(given) == {"access_key_id": "k", "secret_access_key": "s", "token": None, "expires_at": None}
    assert provided(obstores._S3Opener(fs, {"anon": True})) == {"skip_signature": True}


class Answering:
    """botocore's client, as far as a bucket's region goes."""

    def __init__(self, endpoint: str, region: str, error: Exception | None = None) -> None:
        self.meta = SimpleNamespace(endpoint_url=endpoint, region_name="us-east-1")
        self._headers = {"ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": region}}}
        self._error = error

    async def head_bucket(self, Bucket: str) -> dict[str, Any]:  # noqa: N803  (botocore's name)
        if self._error is not None:
            self._error.response = self._headers  # type: ignore[attr-defined]
            raise self._error
        return self._headers


@pytest.mark.parametrize(
    ("endpoint", "error", "expected"),
    [
        ("https://s3.amazonaws.com", None, ("https://s3.eu-west-1.amazonaws.com", "eu-west-1")),
        ("https://s3.us-east-1.amazonaws.com", RuntimeError("403"),
         ("https://s3.eu-west-1.amazonaws.com", "eu-west-1")),
        ("https://s3.cn-north-1.amazonaws.com.cn", None, ("https://s3.eu-west-1.amazonaws.com.cn", "eu-west-1")),
        ("https://s3-fips.us-east-1.amazonaws.com", None, ("https://s3-fips.us-east-1.amazonaws.com", "us-east-1")),
        ("http://minio:9000", None, ("http://minio:9000", "us-east-1")),
    ],
)  # fmt: skip
def test_a_bucket_is_read_in_its_region(endpoint: str, error: Exception | None, expected: tuple[str, str]) -> None:
    """Amazon tells a bucket's region even to those it refuses; other endpoints are taken as they are."""

    async def session() -> Answering:
        return Answering(endpoint, "eu-west-1", error)

    fs = SimpleNamespace(set_session=session, key="k", secret="s", token=None)
    config = asyncio.run(obstores._S3Opener(fs, {"key": "k"})("bucket")).config
    assert (config["endpoint"], config["region"]) == expected


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is named with the command that installs it."""

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(filesystems.fsspec, "filesystem", missing)
    for protocol, extra in (("s3", "s3"), ("gs", "gcs"), ("abfs", "azure"), ("https", "http")):
        with pytest.raises(MissingExtraError, match=rf"{protocol}:// need.*pip install 'seta-stream\[{extra}\]'"):
            filesystems.make(protocol, {})
    with pytest.raises(ArgumentError, match=r"begin with sftp:// cannot be read: Install s3fs.*that fsspec names"):
        filesystems.make("sftp", {})


def test_wrong_options_are_refused_without_telling_them() -> None:
    """An error about options names them, and holds none of their values."""
    options = {"connection_string": "AccountKey=very-secret", "account_key": "very-secret"}
    with pytest.raises(
        ArgumentError, match=r"with az:// cannot be read.*given are account_key, connection_s"
    ) as caught:
        store_for("az://c/x", options)
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
