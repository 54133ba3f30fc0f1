"""Fixtures of all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from small_corpora import MakeCorpus, text_members, write_tar

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from servers import AzureAccount, S3Endpoint, WebServer, azurite, moto, nginx

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and processes hand it on: the tests' own would pass over Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


# Real servers: one of each for all tests of a process, started where a test first asks for it.


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Endpoint]:
    """Run moto's S3 server: its endpoint, with `options` for s3:// URLs."""
    with moto() as endpoint:
        yield endpoint


@pytest.fixture
def s3_bucket(s3_server: S3Endpoint) -> str:
    """Make an empty bucket of this test alone; returns its s3:// URL."""
    return s3_server.make_bucket(f"test-{uuid4().hex}")


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureAccount]:
    """Run Azurite's blob server: its account, with `options` for az:// URLs."""
    with azurite() as account:
        yield account


@pytest.fixture
def azure_container(azure_server: AzureAccount) -> str:
    """Make an empty container of this test alone; returns its az:// URL."""
    return azure_server.make_container(f"test-{uuid4().hex}")


@pytest.fixture
def http_server() -> Iterator[Callable[..., WebServer]]:
    """Serve folders with nginx until the test ends: called as servers.nginx is, returns the folder's URL."""
    with ExitStack() as stack:
        yield lambda folder, **options: stack.enter_context(nginx(folder, **options))
