"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from small_corpora import MakeCorpus, text_members, write_tar

# A machine that does something else besides makes no example wrong.
settings.register_profile("seta", deadline=None)
settings.load_profile("seta")


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep indexes that streams build out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """Make shards of text samples; returns their paths. Sample i of the corpus has key f"{i:08d}"."""

    def make(shards: int = 4, samples: int | list[int] = 25, *, length: int = 20, name: str = "train") -> list[str]:
        counts = [samples] * shards if isinstance(samples, int) else samples
        paths, first = [], 0
        for number, count in enumerate(counts):
            path = tmp_path / f"{name}-{number:05d}.tar"
            paths.append(str(write_tar(path, text_members(first, count, length=length))))
            first += count
        return paths

    return make
