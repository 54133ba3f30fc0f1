"""A corpus opens from indexes that fit, and builds those that are missing, stale or damaged."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_tars import samples_of, tar_bytes, unended

from seta_stream.corpus import building, indexing, places
from seta_stream.corpus.building import Task, build
from seta_stream.corpus.indexing import Corpus, open_corpus, scan_shard, write_index
from seta_stream.corpus.places import cache_url, index_names
from seta_stream.errors import CorpusError, ReadError, SetaStreamWarning, ShardChangedError, TarError
from seta_stream.store import ObjectInfo


def test_first_use_builds_into_the_cache_folder(shards: Path, cache: Path, scanned: list[str]) -> None:
    """Nothing is written beside the shards; the second opening scans nothing; ids and samples are right."""
    corpus = open_corpus(str(shards / "*.tar"))
    assert corpus.table.samples.tolist() == [2, 0, 3]
    assert len(scanned) == 3
    assert sorted(path.name for path in shards.iterdir()) == ["train-0.tar", "train-1.tar", "train-2.tar"]
    assert len(list(cache.iterdir())) == 3
    again = open_corpus(str(shards / "*.tar"))
    assert len(scanned) == 3
    assert again.table.fingerprint() == corpus.table.fingerprint()
    assert again.index(2).keys == ["20", "21", "22"]
    assert samples_of(again.index(0), (shards / "train-0.tar").read_bytes())[1] == {
        "__key__": "01",
        "jpg": b"x",
        "txt": b"x",
    }


@pytest.mark.parametrize("place", ["index", "beside", "state"])
def test_indexes_are_found(shards: Path, tmp_path: Path, cache: Path, scanned: list[str], place: str) -> None:
    """In a named folder, beside the shards and in the state folder, without a scan and without a cache."""
    folder = {"index": tmp_path / "idx", "beside": shards, "state": tmp_path / "state" / "index"}[place]
    for shard in range(3):
        write_index(scan_shard(str(shards / f"train-{shard}.tar")), str(folder / f"train-{shard}.tar.seta-index"))
    options: dict[str, Any] = {
        "index": {"index": str(folder)},
        "state": {"state": str(tmp_path / "state")},
        "beside": {},
    }[place]
    corpus = open_corpus(str(shards / "*.tar"), **options)
    assert not scanned
    assert not cache.exists()
    assert corpus.index(2).keys == ["20", "21", "22"]


def test_the_named_folder_comes_first(shards: Path, tmp_path: Path, cache: Path) -> None:
    """Of two indexes that fit, the one in index= is used."""
    folder = tmp_path / "idx"
    for place in (folder, shards):
        write_index(scan_shard(str(shards / "train-0.tar")), str(place / "train-0.tar.seta-index"))
    corpus = open_corpus(str(shards / "train-0.tar"), index=str(folder))
    (shards / "train-0.tar.seta-index").unlink()
    assert corpus._places[0][0].url == str(folder / "train-0.tar.seta-index")


def test_a_changed_shard_is_indexed_again(shards: Path, cache: Path, scanned: list[str]) -> None:
    """Another size or another time makes an index stale, beside the shard or in the cache; nothing is warned about."""
    path = shards / "train-0.tar"
    write_index(scan_shard(str(path)), str(path) + ".seta-index")
    path.write_bytes(tar_bytes([("n.jpg", b"new"), ("n.txt", b"")]))
    assert open_corpus(str(path)).index(0).keys == ["n"]
    path.write_bytes(tar_bytes([("m.jpg", b"new"), ("m.txt", b"")]))
    os.utime(path, ns=(5, 5))
    assert open_corpus(str(path)).index(0).keys == ["m"]
    assert len(scanned) == 2


def test_a_damaged_index_is_named_and_replaced(shards: Path, cache: Path, scanned: list[str]) -> None:
    """The warning names the file; the shard is scanned."""
    path = shards / "train-0.tar"
    Path(f"{path}.seta-index").write_bytes(b"rubbish")
    with pytest.warns(SetaStreamWarning, match=r"train-0\.tar\.seta-index: it does not begin.*It is not used"):
        assert open_corpus(str(path)).table.total == 2
    assert scanned == [str(path)]


def test_an_unreadable_index_is_passed_over(shards: Path, cache: Path, scanned: list[str]) -> None:
    """A folder of that name, or a file that vanished since it was listed, is no index and no error."""
    (shards / "train-0.tar.seta-index").mkdir()
    assert open_corpus(str(shards / "train-0.tar")).table.total == 2
    assert len(scanned) == 1


def test_a_folder_that_cannot_be_listed_holds_no_index(shards: Path, tmp_path: Path, cache: Path) -> None:
    """index= naming a file is not an error: the shards are what must be readable."""
    (tmp_path / "file").write_bytes(b"")
    assert open_corpus(str(shards / "train-0.tar"), index=str(tmp_path / "file")).table.total == 2


def test_an_index_that_cannot_be_written_stays_in_memory(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a usable cache folder the corpus opens all the same, without a warning, also in another process."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    corpus = pickle.loads(pickle.dumps(open_corpus(str(shards / "*.tar"))))
    assert corpus.index(2).keys == ["20", "21", "22"]


def test_a_corpus_is_pickled_without_its_indexes(shards: Path, cache: Path) -> None:
    """What a worker receives is the table and URLs."""
    corpus = open_corpus(str(shards / "*.tar"))
    corpus.index(0)
    copy: Corpus = pickle.loads(pickle.dumps(corpus))
    assert not copy._recent
    assert copy.index(0).keys == ["00", "01"]


def test_indexes_in_memory_are_bounded(shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for indexes is bounded by shards and by samples; what is asked for again comes from memory."""
    path = shards / "train-0.tar"
    for number in range(20):
        (shards / f"s{number:02d}.tar").write_bytes(path.read_bytes())
    corpus = open_corpus(str(shards / "s*.tar"))
    first = corpus.index(0)
    assert corpus.index(0) is first
    monkeypatch.setattr(indexing, "_KEPT", 16)
    for shard in range(20):
        corpus.index(shard)
    assert list(corpus._recent) == list(range(4, 20))
    monkeypatch.setattr(indexing, "_KEPT_SAMPLES", 2 * first.samples)
    corpus.index(0)
    assert list(corpus._recent) == [19, 0]


def test_a_vanished_index_is_made_again(shards: Path, cache: Path) -> None:
    """Clearing the cache folder in the middle of a run costs a scan, not the run."""
    corpus = open_corpus(str(shards / "*.tar"))
    for path in cache.iterdir():
        path.unlink()
    assert corpus.index(2).keys == ["20", "21", "22"]
    assert not list(cache.iterdir())


def test_a_replaced_shard_is_refused(shards: Path, cache: Path) -> None:
    """An index that was made of another shard meanwhile is never used with the old table."""
    path = shards / "train-0.tar"
    corpus = open_corpus(str(path))
    path.write_bytes(tar_bytes([("n.jpg", b"new")]))
    open_corpus(str(path))
    with pytest.raises(ShardChangedError, match=r"train-0\.tar: its keys or sizes are not those of the corpus"):
        corpus.index(0)


def test_a_corpus_without_samples_is_refused(shards: Path, cache: Path) -> None:
    """Empty shards are fine; nothing but empty shards is not."""
    with pytest.raises(CorpusError, match=r"none of its 1 shards \(.*train-1.tar, …\) has a sample"):
        open_corpus(str(shards / "train-1.tar"))


def test_errors_of_shards_come_through(shards: Path, cache: Path) -> None:
    """A missing shard and a damaged one are named, and leave no index."""
    with pytest.raises(ReadError, match=r"train-3\.tar: there is no such file"):
        open_corpus(str(shards / "train-{0..3}.tar"))
    (shards / "train-4.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(TarError, match=r"train-4\.tar: the block at byte 0"):
        open_corpus(str(shards / "train-4.tar"))
    assert not cache.exists() or not list(cache.iterdir())


def test_warnings_of_a_scan_come_through(shards: Path, cache: Path) -> None:
    """Missing end blocks are warned about when the shard is scanned, not when its index is used."""
    path = shards / "cut.tar"
    path.write_bytes(unended([("a.txt", b"1")]))
    with pytest.warns(SetaStreamWarning, match=r"cut\.tar has no end-of-archive blocks.* 1 samples"):
        open_corpus(str(path))
    open_corpus(str(path))


def test_processes_share_the_work(shards: Path, cache: Path) -> None:
    """Several processes give the same corpus, and their warnings and errors arrive here."""
    path = shards / "cut.tar"
    path.write_bytes(unended([("a.txt", b"1")]))
    with pytest.warns(SetaStreamWarning, match="has no end-of-archive blocks"):
        corpus = open_corpus(str(shards / "*.tar"), jobs=2)
    assert corpus.table.samples.tolist() == [1, 2, 0, 3]
    assert corpus.index(3).keys == ["20", "21", "22"]
    (shards / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(TarError, match=r"bad\.tar") as caught:
        open_corpus([str(shards / "bad.tar"), str(shards / "t*.tar")], jobs=2)
    assert caught.value.offset == 0


def test_two_processes_may_index_at_once(shards: Path, cache: Path, tmp_path: Path) -> None:
    """Both succeed, and what they leave is whole."""
    urls = str(shards / "*.tar")
    code = f"from seta_stream.corpus.indexing import open_corpus; print(open_corpus({urls!r}).table.total)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [b"5", b"5"]
    assert sorted(path.suffix for path in cache.iterdir()) == [".seta-index"] * 3


def test_an_index_that_must_be_written_is_an_error_where_it_cannot(shards: Path, tmp_path: Path) -> None:
    """The command line names the place."""
    (tmp_path / "file").write_bytes(b"")
    task = Task(0, str(shards / "train-0.tar"), ObjectInfo(1, ""), str(tmp_path / "file" / "x"), None, must_write=True)
    with pytest.raises(ReadError, match=r"Cannot write the index of .*train-0.tar to .*file/x.*--out"):
        list(build([task]))


def test_processes_are_used_where_they_pay() -> None:
    """One process for little, as many as CPUs for much, what is asked for in any case."""
    small = [Task(0, "a", ObjectInfo(1000, ""), "", None, must_write=False)] * 9
    large = [Task(0, "a", ObjectInfo(8 << 30, ""), "", None, must_write=False)] * 9
    assert building._processes(small, None) == 1
    assert building._processes(large, None) == min(9, len(os.sched_getaffinity(0)))
    assert building._processes(large[:1], None) == 1
    assert building._processes(small, 4) == 4
    assert building._processes(small, 40) == 9
    # The processes of a run divide the CPUs.
    assert building._processes(large, None, ranks=len(os.sched_getaffinity(0))) == 1


def test_names_of_indexes() -> None:
    """Shards of one name in different folders do not share an index; cache names differ by URL."""
    assert index_names(["/a/x.tar", "/a/y.tar"]) == ["x.tar.seta-index", "y.tar.seta-index"]
    twins = index_names(["/a/x.tar", "/b/x.tar"])
    assert twins[0] != twins[1]
    assert all(name.startswith("x.tar.") and name.endswith(".seta-index") for name in twins)
    assert cache_url("/a/x.tar") != cache_url("/b/x.tar")


def test_a_bar_is_shown_on_a_terminal_where_it_takes_long(
    shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not for a moment's work, not into a pipe, not where progress=False."""
    url = str(shards / "*.tar")
    open_corpus(url)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for patience, progress, shown in [(100.0, True, False), (-1.0, False, False), (-1.0, True, True)]:
        monkeypatch.setattr(indexing, "_PATIENCE_S", patience)
        for path in cache.iterdir():
            path.unlink()
        open_corpus(url, progress=progress)
        assert ("indexing" in capsys.readouterr().err) == shown


def test_a_folder_is_listed_once(shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is asked for its names once, not for every index."""
    asked: list[str] = []
    plain = places.store_for(str(shards)).names
    monkeypatch.setattr("seta_stream.store.LocalStore.names", lambda _, url: asked.append(url) or plain(url))
    open_corpus(str(shards / "*.tar"))
    assert asked == [str(shards)]


def test_a_bucket_corpus(cache: Path) -> None:
    """Shards behind fsspec are indexed into the local cache folder and located by id."""
    import fsspec

    files = fsspec.filesystem("memory")
    for shard in range(2):
        files.pipe_file(f"/indexing/b-{shard}.tar", tar_bytes([(f"{shard}.txt", b"abc")]))
    corpus = open_corpus("memory://indexing/b-{0..1}.tar")
    shard, position = corpus.table.locate(np.array([1]))
    assert (shard.tolist(), position.tolist(), corpus.index(1).keys) == ([1], [0], ["1"])
    assert len(list(cache.iterdir())) == 2
