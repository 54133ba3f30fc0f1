"""What the acting tests of the corpus room share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_tars import index_of, sample_shard, tar_bytes
from servers import S3Endpoint

from seta_stream.corpus import building


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the user's cache folder into the test's own; return where indexes go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seta_stream" / "index"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return a folder of three shards with 2, 0 and 3 samples."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, count in enumerate([2, 0, 3]):
        files = [(f"{shard}{number}.{ext}", b"x" * number) for number in range(count) for ext in ("jpg", "txt")]
        (folder / f"train-{shard}.tar").write_bytes(tar_bytes(files))
    return folder


@pytest.fixture
def fill(s3_server: S3Endpoint, s3_bucket: str) -> Callable[..., str]:
    """Put shards into a bucket's folder, with their indexes where wanted; returns the folder's URL."""

    def put(shards: int, *, indexed: bool = False, size: int = 10) -> str:
        for number in range(shards):
            url, data = f"{s3_bucket}/t/train-{number:04d}.tar", sample_shard(number, size=size)
            s3_server.put(url, data)
            if indexed:
                # The ETag of what was put at once is its MD5.
                index = replace(index_of(data), shard_version=f"etag:{hashlib.md5(data).hexdigest()}")
                s3_server.put(url + ".seta-index", index.to_bytes())
        return f"{s3_bucket}/t"

    return put


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every scan adds its URL."""
    urls: list[str] = []
    plain = building.scan_quietly
    monkeypatch.setattr(
        building, "scan_quietly", lambda url, *more, **named: urls.append(url) or plain(url, *more, **named)
    )
    return urls
