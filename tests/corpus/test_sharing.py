"""The processes of one machine open a corpus together: listed by one, scanned once, the same for all."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_tars import SAMPLES, sample_shard, unended
from interop_fakes import dali_text
from servers import S3Endpoint
from small_corpora import write_tar
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream.corpus import building, indexing, sharing
from seta_stream.corpus.indexing import Corpus, open_corpus, scan_shard, write_index
from seta_stream.corpus.sharing import open_corpus_together
from seta_stream.errors import CorpusError, PeerError, ReadError, SetaStreamError, SetaStreamWarning, TarError
from seta_stream.store import store_for

WORLDS = (1, 2, 3, 4, 5)


class Recorder:
    """A collective that keeps what its rank sends."""

    def __init__(self, inner: ThreadCollective) -> None:
        self.inner, self.rank, self.world = inner, inner.rank, inner.world
        self.sent: list[bytes] = []

    def route(self, parts: list[bytes]) -> list[bytes]:
        self.sent += parts
        return self.inner.route(parts)

    def gather(self, part: bytes) -> list[bytes]:
        self.sent.append(part)
        return self.inner.gather(part)

    def broadcast(self, value: bytes) -> bytes:
        self.sent.append(value)
        return self.inner.broadcast(value)


def opened(world: int, urls: Any, **options: Any) -> list[Any]:
    """Return the corpus of each rank of one machine, or the exception that it raised."""
    return ThreadTeam(world).outcomes(
        lambda collective: open_corpus_together(
            urls, collective=collective, local_rank=collective.rank, local_world=world, machines=1, **options
        )
    )


def all_opened(world: int, urls: Any, **options: Any) -> list[Corpus]:
    """Return the corpus of each rank; none failed."""
    corpora = opened(world, urls, **options)
    assert [one for one in corpora if isinstance(one, BaseException)] == []
    return corpora


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("state", [True, False])
def test_files_are_scanned_once(
    shards: Path, tmp_path: Path, cache: Path, scanned: list[str], world: int, state: bool
) -> None:
    """One shard has no sample, and there are fewer of them than ranks; all have the table that one process has."""
    options = {"state": str(tmp_path / "state")} if state else {}
    corpora = all_opened(world, str(shards / "*.tar"), **options)
    assert sorted(scanned) == [str(shards / f"train-{shard}.tar") for shard in range(3)]
    folder = tmp_path / "state" / "index" if state and world > 1 else cache
    assert len(list(folder.iterdir())) == 3
    assert folder == cache or not cache.exists()
    scanned.clear()
    for corpus in corpora:
        assert corpus.table.samples.tolist() == [2, 0, 3]
        assert corpus.index(2).keys == ["20", "21", "22"]
    alone = open_corpus(str(shards / "*.tar"), **options)
    assert {corpus.table.to_bytes() for corpus in corpora} == {alone.table.to_bytes()}
    assert {corpus.table.to_bytes() for corpus in all_opened(world, str(shards / "*.tar"), **options)} == {
        alone.table.to_bytes()
    }
    assert scanned == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("place", ["bucket", "folder", "none"])
def test_a_bucket_is_scanned_once(
    s3_server: S3Endpoint,
    s3_bucket: str,
    fill: Callable[..., str],
    tmp_path: Path,
    scanned: list[str],
    world: int,
    place: str,
) -> None:
    """With a state in the bucket, on a disk or nowhere; what was found is read with each rank's own options."""
    folder = fill(9)
    states = {"bucket": f"{s3_bucket}/run", "folder": str(tmp_path / "run"), "none": None}
    options: dict[str, Any] = {"state": states[place], "storage_options": s3_server.options, "progress": False}
    mine = {**s3_server.options}
    options["state_options"] = mine if place == "bucket" else None
    corpora = all_opened(world, f"{folder}/*.tar", **options)
    assert sorted(scanned) == [f"{folder}/train-{number:04d}.tar" for number in range(9)]
    for corpus in corpora:
        assert corpus.table.samples.tolist() == [SAMPLES] * 9
        assert corpus.index(8).keys == [f"0008-{sample}" for sample in range(SAMPLES)]
        assert {one.options is mine for one in corpus._places[3]} == {place == "bucket" and world > 1}
    if place == "bucket" and world > 1:
        place = f"{s3_bucket}/run/index/train-0008.tar.seta-index"
        assert store_for(place, s3_server.options).exists(place)
    assert len({corpus.table.to_bytes() for corpus in corpora}) == 1
    all_opened(world, f"{folder}/*.tar", **options)
    assert len(scanned) == 9


def test_indexes_beside_and_in_a_named_folder_are_found(
    shards: Path, tmp_path: Path, cache: Path, scanned: list[str]
) -> None:
    """Of those that process 0 found, all read the one that it would read; only what is missing is scanned."""
    write_index(scan_shard(str(shards / "train-0.tar")), str(shards / "train-0.tar.seta-index"))
    write_index(scan_shard(str(shards / "train-2.tar")), str(tmp_path / "named" / "train-2.tar.seta-index"))
    corpora = all_opened(3, str(shards / "*.tar"), index=str(tmp_path / "named"))
    assert scanned == [str(shards / "train-1.tar")]
    for corpus in corpora:
        assert [places[0].home for places in corpus._places] == ["beside", "cache", "index"]
        assert corpus.index(0).keys == ["00", "01"]
        assert corpus.index(2).keys == ["20", "21", "22"]
    assert len(scanned) == 1


def test_only_process_0_asks_what_there_is(s3_server: S3Endpoint, fill: Callable[..., str]) -> None:
    """A hundred ranks do not list a bucket a hundred times: the others expand no pattern."""
    folder = fill(9, indexed=True)

    def one(collective: ThreadCollective) -> Corpus:
        urls = f"{folder}/*.tar" if collective.rank == 0 else "s3://bucket-that-is-not-there/*.tar"
        options = {"storage_options": s3_server.options, "local_rank": collective.rank, "local_world": 3}
        return open_corpus_together(urls, collective=collective, machines=1, **options)

    team = ThreadTeam(3)
    assert [corpus.table.total for corpus in team.run(one)] == [9 * SAMPLES] * 3
    assert [collective.calls for collective in team.collectives] == [["broadcast", "gather"]] * 3


FAULTS: dict[str, tuple[Callable[[Path], str], type[SetaStreamError], str]] = {
    "no match": (lambda folder: f"{folder}/val-*.tar", CorpusError, "nothing matches it"),
    "missing": (lambda folder: f"{folder}/train-{{0..3}}.tar", ReadError, r"train-3\.tar"),
    "twice": (lambda folder: f"{folder}/train-{{0,0}}.tar", CorpusError, "is named twice"),
    "empty": (lambda folder: f"{folder}/train-1.tar", CorpusError, "none of its 1 shards"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_process_0_cannot_find_fails_on_all(shards: Path, cache: Path, fault: str) -> None:
    """With the class and the text of its error."""
    pattern, kind, text = FAULTS[fault]
    errors = opened(3, pattern(shards))
    assert {type(error) for error in errors} == {kind}
    for error in errors:
        with pytest.raises(kind, match=text):
            raise error
    assert all(error.message.startswith(errors[0].message) for error in errors)


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_shard_fails_on_all(shards: Path, cache: Path, damaged: int) -> None:
    """Whichever rank meets it, all name it; the indexes of the others are kept."""
    (shards / f"train-{damaged}.tar").write_bytes(b"no tar" * 1000)
    errors = opened(3, str(shards / "*.tar"))
    for error in errors:
        with pytest.raises(TarError, match=rf"train-{damaged}\.tar: the block at byte 0 is no tar header"):
            raise error
    assert sum("Told by process" in str(error) for error in errors) == 2
    assert len(list(cache.iterdir())) == 2


def test_an_error_ends_the_scan_of_all_soon(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that scan tell each other how far they are: nobody scans its whole share for nothing."""
    monkeypatch.setattr(sharing, "TOLD_EVERY_S", 0.02)
    for number in range(20):
        (tmp_path / f"a-{number:02d}.tar").write_bytes(sample_shard(number))
    (tmp_path / "a-00.tar").write_bytes(b"no tar" * 10_000)
    scanned: list[str] = []
    is_given_up = threading.Event()
    plain_scan, plain_close = building.scan_quietly, sharing.Share.close

    def scan(url: str, *more: Any, **named: Any) -> Any:
        scanned.append(url)
        # The second shard of the other rank takes until that rank was told.
        assert url.endswith(("a-00.tar", "a-01.tar")) or is_given_up.wait(30)
        return plain_scan(url, *more, **named)

    monkeypatch.setattr(building, "scan_quietly", scan)
    monkeypatch.setattr(sharing.Share, "close", lambda share: is_given_up.set() or plain_close(share))
    assert {type(error) for error in opened(2, str(tmp_path / "*.tar"))} == {TarError}
    assert len(scanned) <= 3


def test_what_takes_long_is_told_in_parts(
    tmp_path: Path, cache: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they tell, with nothing new or some, the corpus is the same."""
    monkeypatch.setattr(sharing, "TOLD_EVERY_S", 0.001)
    for number in range(20):
        (tmp_path / f"a-{number:02d}.tar").write_bytes(sample_shard(number))
    team = ThreadTeam(2)
    corpora = team.run(
        lambda collective: open_corpus_together(
            str(tmp_path / "*.tar"), collective=collective, local_rank=collective.rank, local_world=2, machines=1
        )
    )
    assert team.collectives[0].calls.count("gather") > 5
    assert [corpus.table.to_bytes() for corpus in corpora] == [
        open_corpus(str(tmp_path / "*.tar")).table.to_bytes()
    ] * 2
    assert len(scanned) == 20


class _GoneError(BaseException):
    """What ends a process without a word."""


@pytest.mark.parametrize("error", [RuntimeError("the disk burns"), _GoneError()])
def test_a_rank_that_ends_in_the_scan_ends_the_others(
    shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Told why where there was time to say it."""
    plain = building.scan_quietly

    def scan(url: str, *more: Any, **named: Any) -> Any:
        if url.endswith("train-1.tar"):
            raise error
        return plain(url, *more, **named)

    monkeypatch.setattr(building, "scan_quietly", scan)
    outcomes = opened(3, str(shards / "*.tar"))
    assert sum(outcome is error for outcome in outcomes) == 1
    others = [outcome for outcome in outcomes if outcome is not error]
    assert all(isinstance(other, PeerError) for other in others)
    if isinstance(error, RuntimeError):
        assert all("RuntimeError: the disk burns" in str(other) for other in others)


def test_no_message_holds_what_a_file_system_is_given(s3_server: S3Endpoint, fill: Callable[..., str]) -> None:
    """Keys stay with the process that has them, also where an index could not be kept and where the scan fails."""
    folder = fill(5)
    recorders: list[Recorder] = []

    def one(collective: ThreadCollective) -> Corpus:
        recorder = Recorder(collective)
        recorders.append(recorder)
        options = {"storage_options": s3_server.options, "state_options": s3_server.options}
        options |= {"state": f"{folder}/run", "local_rank": collective.rank, "local_world": 3, "machines": 2}
        return open_corpus_together(f"{folder}/*.tar", collective=recorder, progress=False, **options)  # type: ignore[arg-type]

    ThreadTeam(3).run(one)
    s3_server.put(f"{folder}/train-0002.tar", b"no tar" * 1000)
    assert {type(outcome) for outcome in ThreadTeam(3).outcomes(one)} == {TarError}
    sent = b"".join(part for recorder in recorders for part in recorder.sent)
    assert folder.encode() in sent
    values = [str(value).encode() for value in s3_server.options.values() if isinstance(value, str)]
    assert len(values) >= 2
    assert [value for value in values if value in sent] == []


def test_names_need_not_be_utf_8(tmp_path: Path, cache: Path) -> None:
    """A shard's path may hold any bytes."""
    name = os.fsencode(str(tmp_path)) + b"/caf\xe9-0.tar"
    Path(os.fsdecode(name)).write_bytes(sample_shard(0))
    for corpus in [*all_opened(2, os.fsdecode(name)), *all_opened(2, os.fsdecode(name))]:
        assert os.fsencode(corpus.table.urls[0]) == name
        assert corpus.index(0).samples == SAMPLES


@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_indexes_that_no_folder_takes_are_held_by_all(
    tmp_path: Path, shards: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much of them as is allowed; the rest by the rank that made them alone, and the others scan again."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for state in (None, str(tmp_path / "file" / "state")):
        scanned.clear()
        corpora = all_opened(3, str(shards / "*.tar"), state=state)
        assert len(scanned) == 3
        assert [corpus.index(2).keys for corpus in corpora] == [["20", "21", "22"]] * 3
        assert [set(corpus._held) for corpus in corpora] == [{0, 1, 2}] * 3
    monkeypatch.setattr(sharing, "HELD_BYTES", 0)
    corpora = all_opened(3, str(shards / "*.tar"))
    assert sorted(len(corpus._held) for corpus in corpora) == [1, 1, 1]
    assert [corpus.index(2).keys for corpus in corpora] == [["20", "21", "22"]] * 3


def test_what_is_too_large_to_be_held_by_all_is_told(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a file that could not be written, and what to do."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(sharing, "HELD_BYTES", 0)
    with pytest.warns(SetaStreamWarning, match=r"1 indexes cannot be written.*train-\d\.tar to .*set XDG_CACHE_HOME"):
        all_opened(3, str(shards / "*.tar"))


def test_the_one_that_scans_warns(tmp_path: Path, cache: Path) -> None:
    """A shard without its end is used, and told once."""
    (tmp_path / "a.tar").write_bytes(unended([("k.txt", b"1")]))
    (tmp_path / "b.tar").write_bytes(sample_shard(1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        corpora = all_opened(2, str(tmp_path / "*.tar"))
    assert [corpus.table.total for corpus in corpora] == [1 + SAMPLES] * 2
    assert [str(one.message).count("a.tar has no end-of-archive blocks") for one in told] == [1]


def test_what_it_takes_is_told_once(
    s3_server: S3Endpoint, fill: Callable[..., str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By process 0, before, and for all of them."""
    folder = fill(3)
    all_opened(3, f"{folder}/*.tar", storage_options=s3_server.options)
    err = capsys.readouterr().err
    assert err.startswith(f"Indexing 3 shards (30.7 KB) on {folder}, shared by 3 processes: read whole in 3 requests, ")
    assert err.count("\n") == 1
    for path in cache.iterdir():
        path.unlink()
    all_opened(3, f"{folder}/*.tar", storage_options=s3_server.options, progress=False)
    assert capsys.readouterr().err == ""


def test_one_bar_shows_what_all_do(
    shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Process 0 draws it, over the shards of all."""
    drawn: list[int] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(indexing, "_PATIENCE_S", -1.0)
    plain = indexing.with_bar

    def with_bar(results: Any, tasks: Any, *, progress: bool) -> Any:
        for built in plain(results, tasks, progress=progress):
            if progress:
                drawn.append(built.task.shard)
            yield built

    monkeypatch.setattr(sharing, "with_bar", with_bar)
    all_opened(3, str(shards / "*.tar"))
    assert sorted(drawn) == [0, 1, 2]
    assert capsys.readouterr().err.count("indexing") >= 1


def test_other_tools_indexes_spare_the_scan(
    http_server: Callable[..., Any], tmp_path: Path, scanned: list[str]
) -> None:
    """Each rank reads those of its part."""
    body, folder = 100_000, tmp_path / "served"
    folder.mkdir()
    for shard in range(3):
        members = [(f"{shard}{number:03d}.bin", bytes([number]) * body) for number in range(20)]
        path = write_tar(folder / f"{shard}.tar", members)
        (folder / f"{shard}.idx").write_bytes(dali_text(path.read_bytes()))
    server = http_server(folder)
    urls = [f"{server}/{shard}.tar" for shard in range(3)]
    corpora = all_opened(2, urls, progress=False)
    assert scanned == []
    assert server.bytes < 0.5 * sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert [corpus.index(1).keys[:2] for corpus in corpora] == [["1000", "1001"]] * 2
