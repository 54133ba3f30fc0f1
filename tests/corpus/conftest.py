"""What the acting tests of the corpus room share."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_tars import tar_bytes


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
