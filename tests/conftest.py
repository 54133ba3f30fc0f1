"""Helpers of all tests: small corpora, written by tarfile alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

Member = tuple[str, bytes]


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep indexes that streams build out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write_tar(path: Path, members: Iterable[Member], *, mode: str = "w", layout: int = tarfile.PAX_FORMAT) -> Path:
    """Write (name, bytes) members in order."""
    with tarfile.open(path, mode, format=layout) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def text_members(first: int, count: int, *, length: int = 20) -> list[Member]:
    """Return txt + cls members of samples first … first + count − 1; each text is its id, padded."""
    members = []
    for number in range(first, first + count):
        members.append((f"{number:08d}.txt", f"{number}".ljust(length).encode()))
        members.append((f"{number:08d}.cls", str(number % 10).encode()))
    return members


MakeCorpus = Callable[..., list[str]]


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
