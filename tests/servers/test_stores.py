"""moto and Azurite run in processes of their own and keep what they are given, also through a proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from obstore.store import AzureStore
from plain_client import get
from servers import AzureAccount, FaultProxy, S3Endpoint, ServerError, azurite, azurite_server, moto, moto_server

DATA = os.urandom(100_000)


def s3(options: dict[str, Any]) -> fsspec.AbstractFileSystem:
    """Return an S3 file system of this test alone."""
    return fsspec.filesystem("s3", skip_instance_cache=True, **options)


def test_moto_keeps_objects(s3_server: S3Endpoint, s3_bucket: str) -> None:
    """What is put comes back in whole and in part, by fsspec's options."""
    s3_server.put(f"{s3_bucket}/x/a.bin", DATA)
    fs = s3(s3_server.options)
    assert fs.cat_file(f"{s3_bucket}/x/a.bin") == DATA
    assert fs.cat_file(f"{s3_bucket}/x/a.bin", start=10, end=20) == DATA[10:20]
    assert fs.ls(s3_bucket + "/x", detail=False) == [f"{s3_bucket}/x/a.bin".removeprefix("s3://")]


def test_moto_knows_versions(s3_server: S3Endpoint, s3_bucket: str) -> None:
    """If-Match is honoured: a replaced object answers 412."""
    path = f"/{s3_bucket.removeprefix('s3://')}/a.bin"
    s3_server.put(f"{s3_bucket}/a.bin", DATA)
    etag = get(s3_server, path, **moto_server.SIGNED).headers["etag"]
    assert get(s3_server, path, span=(0, 5), If_Match=etag, **moto_server.SIGNED).body == DATA[:5]
    s3_server.put(f"{s3_bucket}/a.bin", DATA[::-1])
    assert get(s3_server, path, span=(0, 5), If_Match=etag, **moto_server.SIGNED).status == 412


def test_moto_through_a_proxy(s3_server: S3Endpoint, s3_bucket: str) -> None:
    """Reading and writing, also what botocore announces with Expect: 100-continue, work through a proxy."""
    with FaultProxy(s3_server) as proxy:
        fs = s3(s3_server.options_at(proxy.url))
        fs.pipe_file(f"{s3_bucket}/a.bin", DATA)
        assert fs.cat_file(f"{s3_bucket}/a.bin", start=10) == DATA[10:]
        assert proxy.requests == len(proxy.log) >= 2
        assert {request.kind for request in proxy.log} == {"ok"}
    assert s3(s3_server.options).cat_file(f"{s3_bucket}/a.bin") == DATA


def test_moto_says_why_it_refused(s3_server: S3Endpoint) -> None:
    """A bucket that cannot be made is an error with moto's words."""
    with pytest.raises(ServerError, match=r"PUT /A on moto: expected 200, found 400: .*InvalidBucketName"):
        s3_server.make_bucket("A")


def test_without_moto_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where moto is not installed, the error says how to install it."""
    monkeypatch.setattr(moto_server, "find_spec", lambda name: None)
    with (
        pytest.raises(ServerError, match=r"start moto: the package is not installed; .*pip install -e '\.\[test\]'"),
        moto(),
    ):
        pass


def test_azurite_keeps_blobs(azure_server: AzureAccount, azure_container: str) -> None:
    """What is put comes back by fsspec's options and by obstore's, straight and through a proxy."""
    azure_server.put(f"{azure_container}/x/a.bin", DATA)
    container = azure_container.removeprefix("az://")
    with FaultProxy(azure_server) as proxy:
        for url in (azure_server, proxy.url):
            fs = fsspec.filesystem("az", skip_instance_cache=True, **azure_server.options_at(url))
            assert fs.cat_file(f"{azure_container}/x/a.bin", start=10, end=20) == DATA[10:20]
            store = AzureStore(container, **azure_server.obstore_options(url))
            assert bytes(store.get_range("x/a.bin", start=10, end=20)) == DATA[10:20]
        assert proxy.requests >= 1


def test_azurite_knows_versions(azure_server: AzureAccount, azure_container: str) -> None:
    """If-Match is honoured: a replaced blob is not read."""
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceModifiedError
    from azure.storage.blob import BlobClient

    azure_server.put(f"{azure_container}/a.bin", DATA)
    text = azure_server.options["connection_string"]
    with BlobClient.from_connection_string(text, azure_container.removeprefix("az://"), "a.bin") as blob:
        etag = blob.get_blob_properties().etag
        azure_server.put(f"{azure_container}/a.bin", DATA[::-1])
        with pytest.raises(ResourceModifiedError):
            blob.download_blob(0, 10, etag=etag, match_condition=MatchConditions.IfNotModified)


def test_azurite_keeps_blobs_in_a_folder(tmp_path: Path) -> None:
    """With a folder, a second server finds what the first one was given."""
    for is_second in (False, True):
        with azurite(tmp_path) as account:
            fs = fsspec.filesystem("az", skip_instance_cache=True, **account.options)
            if not is_second:
                account.put(f"{account.make_container('kept')}/a.bin", DATA)
            assert fs.cat_file("az://kept/a.bin") == DATA


def test_without_azurite_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Azurite is not installed, the error says how to install it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ServerError, match=r"start Azurite: no azurite-blob in .*bash tools/install_servers\.sh"),
        azurite(),
    ):
        pass
    own = azurite_server.server_folder() / "node_modules" / ".bin"
    own.mkdir(parents=True)
    (own / "azurite-blob").touch()
    assert azurite_server.azurite_program() == own / "azurite-blob"
