"""The bottom room: one behaviour for local files and fsspec, and errors that say what to do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from seta_stream.errors import ArgumentError, ReadError
from seta_stream.store import is_local, join, local_path, normalise, protocol_of, store_for


@pytest.fixture(params=["local", "file url", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return str(tmp_path) if request.param == "local" else f"file://{tmp_path}"


def test_objects_are_replaced_whole(folder: str) -> None:
    """What is written is read back; names, existence, glob and removal agree; a folder goes with all in it."""
    store = store_for(folder)
    url = join(folder, "a", "b.bin")
    assert not store.exists(url)
    assert store.names(join(folder, "a")) == []
    store.write(url, b"old")
    store.write(url, b"0123456789")
    store.write(join(folder, "a", "c.bin"), b"x")
    assert store.read(url) == b"0123456789"
    assert store.exists(url)
    assert store.names(join(folder, "a")) == ["b.bin", "c.bin"]
    assert [found.rpartition("/")[2] for found in store.glob(join(folder, "a", "*.bin"))] == ["b.bin", "c.bin"]
    store.remove(url)
    store.remove(url)
    assert store.names(join(folder, "a")) == ["c.bin"]
    store.remove(join(folder, "a"))
    assert not store.exists(join(folder, "a", "c.bin"))


def test_positional_reads_are_exact(folder: str) -> None:
    """Spans come in order; bytes past the end are an error with the numbers, alone or among other spans."""
    store = store_for(folder)
    url = join(folder, "shard.tar")
    store.write(url, bytes(range(100)))
    file = store.open(url)
    assert file.info == store.info(url)
    assert file.info.size == 100
    assert file.read_spans([(10, 3), (0, 1), (98, 2)]) == [b"\n\x0b\x0c", b"\0", b"bc"]
    file.advise_scattered()
    with pytest.raises(ReadError, match="20 bytes were wanted at offset 90 and 10 are there"):
        file.read(90, 20)
    with pytest.raises(ReadError, match="truncated or changed"):
        file.read_spans([(0, 5), (99, 2)])
    file.close()
    file.close()
    with store.open_stream(url) as stream:
        assert stream.read(4) == b"\0\1\2\3"


def test_missing_objects_are_named(folder: str) -> None:
    """Info, read, open and open_stream of what is not there say so."""
    store = store_for(folder)
    for call in (store.info, store.read, store.open, store.open_stream):
        with pytest.raises(ReadError, match=r"no\.tar: there is no such file"):
            call(join(folder, "no.tar"))


def test_a_new_version_is_told_apart(tmp_path: Path) -> None:
    """A rewritten file has another size or time."""
    store, url = store_for(str(tmp_path)), str(tmp_path / "a")
    store.write(url, b"one")
    before = store.info(url)
    store.write(url, b"two")
    os.utime(url, ns=(1, 1))
    assert store.info(url) != before


def test_other_failures_are_read_errors(tmp_path: Path) -> None:
    """What is not a file is not read, and the system's reason is passed on."""
    with pytest.raises(ReadError, match=r"Cannot read .*: .*directory"):
        store_for(str(tmp_path)).read(str(tmp_path))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that cannot finish changes nothing and leaves no temporary file."""
    store, url = store_for(str(tmp_path)), str(tmp_path / "a")
    store.write(url, b"old")
    with pytest.raises(TypeError):
        store.write(url, None)  # type: ignore[arg-type]
    assert store.read(url) == b"old"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_concurrent_writes_leave_the_umask_alone(tmp_path: Path) -> None:
    """Writers in threads do not disturb each other, and files get the rights that the user's umask gives."""
    store = store_for(str(tmp_path))
    threads = [
        threading.Thread(target=lambda n=n: [store.write(str(tmp_path / f"{n}"), b"x") for _ in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mask = os.umask(0o022)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("pipe:cat a.tar", "'pipe:cat a.tar' is a WebDataset pipe.*give the URL that the command"),
        ("simplecache::s3://b/a.tar", "chains file systems.*give the plain URL"),
        ("nosuch://b/a.tar", "URLs that begin with nosuch:// cannot be read"),
    ],
)
def test_urls_that_cannot_be(url: str, text: str) -> None:
    """Pipes, chains and unknown protocols are refused with the URL to write instead."""
    with pytest.raises(ArgumentError, match=text):
        store_for(url)


def test_spellings_of_urls(tmp_path: Path) -> None:
    """Local paths have one absolute spelling; other URLs stay as they are."""
    assert normalise("a/../b.tar") == str(Path.cwd() / "b.tar")
    assert normalise(f"file://{tmp_path}/x%20y.tar") == f"{tmp_path}/x y.tar"
    assert normalise("s3://b/c.tar") == "s3://b/c.tar"
    assert (is_local("/a"), is_local("FILE:///a"), is_local("s3://b")) == (True, True, False)
    assert protocol_of("S3://b/c") == "s3"
    assert join("s3://b/", "c", "d") == "s3://b/c/d"
    assert local_path("~/x") == Path.home() / "x"
