"""Sizes and versions of many objects come in few requests, the same as one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import FaultProxy, S3Endpoint

from seta_stream.corpus.folders import FEW, Folders
from seta_stream.errors import ReadError
from seta_stream.store import store_for


def test_many_are_listed_and_few_are_asked_for(s3_server: S3Endpoint, s3_bucket: str) -> None:
    """A folder is listed once for all questions; a few of its objects are asked for one by one, in order."""
    urls = [f"{s3_bucket}/t/{number:02d}.tar" for number in range(20)]
    for number, url in enumerate(urls):
        s3_server.put(url, b"x" * number)
    alone = [store_for(url, s3_server.options).info(url) for url in urls]
    with FaultProxy(s3_server) as proxy:
        folders = Folders(s3_server.options_at(proxy.url))
        assert folders.infos(urls[::-1]) == alone[::-1]
        assert folders.present(f"{s3_bucket}/t", ["03.tar", "no.tar"]) == {"03.tar": alone[3]}
        assert [request.method for request in proxy.log] == ["GET"]
        folders = Folders(s3_server.options_at(proxy.url))
        assert folders.infos(urls[: FEW - 1]) == alone[: FEW - 1]
        assert [request.method for request in proxy.log[1:]] == ["HEAD"] * (FEW - 1)
        assert folders.present(f"{s3_bucket}/t", ["03.tar", "no.tar"]) == {"03.tar": alone[3]}


def test_what_is_missing_is_named(s3_server: S3Endpoint, s3_bucket: str) -> None:
    """An object that a listing does not hold is asked for, so that the error is its own."""
    urls = [f"{s3_bucket}/t/{number:02d}.tar" for number in range(FEW + 1)]
    for url in urls[:-1]:
        s3_server.put(url, b"x")
    with pytest.raises(ReadError, match=r"08\.tar: there is no such file"):
        Folders(s3_server.options).infos(urls)


def test_local_files_are_looked_at(tmp_path: Path) -> None:
    """Local folders give names for indexes and sizes for shards."""
    (tmp_path / "a.tar").write_bytes(b"abc")
    folders = Folders(None)
    assert folders.infos([str(tmp_path / "a.tar")]) == [store_for("").info(str(tmp_path / "a.tar"))]
    assert folders.present(str(tmp_path), ["a.tar", "b.tar"]) == {"a.tar": None}
    assert folders.present(str(tmp_path / "none"), ["a.tar"]) == {}
