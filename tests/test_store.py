"""The bottom room: one behaviour for local files and every remote store, and errors that say what to do."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seta_stream.errors import ArgumentError, ReadError, ShardChangedError
from seta_stream.store import is_local, join, local_path, normalise, protocol_of, store_for
from seta_stream.store.remote import RemoteStore
from seta_stream.store.urls import shown, split


@dataclass(frozen=True)
class Place:
    """A store, and an empty folder there."""

    store: Any
    folder: str


@pytest.fixture(params=["local", "file url", "memory", "s3 obstore", "s3 fsspec", "az obstore", "az fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Every implementation, on real servers."""
    protocol, _, force = request.param.partition(" ")
    if protocol in {"local", "file"}:
        folder = str(tmp_path) if protocol == "local" else f"file://{tmp_path}"
        return Place(store_for(folder), folder)
    if protocol == "memory":
        return Place(store_for("memory://x"), f"memory://{tmp_path.name}")
    server = request.getfixturevalue("s3_server" if protocol == "s3" else "azure_server")
    bucket = request.getfixturevalue("s3_bucket" if protocol == "s3" else "azure_container")
    return Place(RemoteStore(protocol, server.options, force="fsspec" if force == "fsspec" else None), f"{bucket}/in")


def test_objects_are_replaced_whole(place: Place) -> None:
    """What is written is read back; names, existence, glob and removal agree; a folder goes with all in it."""
    store, folder = place.store, place.folder
    url = join(folder, "a", "b.bin")
    assert not store.exists(url)
    assert store.names(join(folder, "a")) == []
    store.write(url, b"old")
    store.write(url, b"0123456789")
    store.write(join(folder, "a", "c.bin"), b"x")
    assert store.read(url) == b"0123456789"
    assert store.exists(url)
    assert store.names(join(folder, "a")) == ["b.bin", "c.bin"]
    found = store.glob(join(folder, "a", "*.bin"))
    assert found == [normalise(join(folder, "a", name)) for name in ("b.bin", "c.bin")], "spelt as they were asked for"
    assert store.names(folder) == ["a"]
    assert store.exists(join(folder, "a"))
    store.remove(url)
    store.remove(url)
    assert store.names(join(folder, "a")) == ["c.bin"]
    store.remove(join(folder, "a"))
    assert not store.exists(join(folder, "a", "c.bin"))


def test_positional_reads_are_exact(place: Place) -> None:
    """Spans come in order; bytes past the end are an error with the numbers, alone or among other spans."""
    store, folder = place.store, place.folder
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


def test_only_one_of_many_creates(place: Place) -> None:
    """Of many writers at once one makes the object and the others learn it; folders are made, nothing else is left."""
    store, url = place.store, join(place.folder, "new", "record")
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: made.append(n) if store.create(url, b"%d" % n) else None) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert store.read(url) == b"%d" % made[0]
    assert store.create(url, b"%d" % made[0]), "an attempt whose answer was lost made it"
    assert not store.create(url, b"another")
    assert store.names(join(place.folder, "new")) == ["record"]


def test_answers_come_as_they_are_asked_for(place: Place) -> None:
    """Many ranges are under way at once; each answer is its own range; one that is given up disturbs no other."""
    store, url = place.store, join(place.folder, "shard.tar")
    data = bytes(range(256)) * 64
    store.write(url, data)
    file = store.open(url, store.info(url))
    spans = [(start, 1 + start % 50) for start in range(0, 16000, 250)]
    answers = file.ask(spans)
    answers[3].cancel()
    for number, (answer, (start, length)) in enumerate(zip(answers, spans, strict=True)):
        if number != 3:
            assert bytes(answer.result()) == data[start : start + length]
    assert file.read_spans([(0, 0), (len(data), 0)]) == [b"", b""]
    file.check()
    file.close()


def test_another_version_is_never_read(place: Place) -> None:
    """Bytes of an object that was replaced since its version was noted are an error, not data."""
    store, url = place.store, join(place.folder, "shard.tar")
    store.write(url, bytes(1000))
    info = store.info(url)
    file = store.open(url, info)
    assert file.read(10, 4) == bytes(4)
    store.write(url, b"x" * 1000)
    assert store.info(url) != info
    if is_local(place.folder):
        assert file.read(10, 4) == bytes(4), "the open file is the old one, whole"
    else:
        with pytest.raises(ShardChangedError, match=r"shard\.tar changed since it was indexed.*index` again"):
            file.read(10, 4)
    file.close()
    store.write(url, b"x")
    with pytest.raises((ShardChangedError, ReadError), match=r"shard\.tar"):
        store.open(url, info).read(900, 50)


def test_a_stream_reads_all_in_order(place: Place) -> None:
    """The whole object comes in sequence, in pieces of any size; leaving early is harmless."""
    store, url = place.store, join(place.folder, "shard.tar")
    data = os.urandom(100_000)
    store.write(url, data)
    with store.open_stream(url) as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]
        assert stream.read(1) == b""
    with store.open_stream(url) as stream:
        assert stream.read(1) == data[:1]
    store.write(url, b"")
    with store.open_stream(url) as stream:
        assert stream.read() == b""
    assert store.read(url) == b""
    assert store.info(url).size == 0


def test_missing_objects_are_named(place: Place) -> None:
    """Info, read, open and open_stream of what is not there say so."""
    store, folder = place.store, place.folder
    for call in (store.info, store.read, store.open, store.open_stream):
        with pytest.raises(ReadError, match=r"no\.tar: there is no such file") as caught:
            call(join(folder, "no.tar"))
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert store.names(join(folder, "none")) == []
    store.remove(join(folder, "none"))


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
    assert split("s3://b/c/d.tar") == ("b", "c/d.tar")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://host/a.tar?X-Amz-Signature=abc", "https://host/a.tar"),
        ("https://user:word@host:8080/a.tar", "https://host:8080/a.tar"),
        ("https://ghp_token@host/a.tar", "https://host/a.tar"),
        ("az://container@account.host/a?b.tar", "az://container@account.host/a?b.tar"),
        ("s3://b/a?b.tar", "s3://b/a?b.tar"),
        ("/tmp/a?b.tar", "/tmp/a?b.tar"),
    ],
)
def test_messages_show_no_signature(url: str, text: str) -> None:
    """A URL stands in a message without its signed query, its user and its password."""
    assert shown(url) == text
