"""What repack refuses, and in which words; and that nothing wrong gets a name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repack_tars import Member, by_webdataset, samples, state_of, tar_of, write

from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import ArgumentError, CorpusError, ReadError, ShardChangedError, StateError, TarError
from seta_stream.repack import Progress, repack, running
from seta_stream.repack.drafts import LocalDraft
from seta_stream.repack.holding import Costs, Shard, hold, read_at
from seta_stream.repack.laid import difference, lay
from seta_stream.repack.plan import Piece
from seta_stream.store import ObjectInfo, store_for


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """Return two shards of three samples."""
    return [write(tmp_path / "old" / f"t-{n}.tar", tar_of(samples(f"{n}{key}" for key in "abc"))) for n in range(2)]


# ---- options


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"order": "size"}, "order='size' is none of loss, key, corpus"),
        ({"order": "loss"}, "the order by loss needs --state"),
        ({"order": "key", "generation": "gen-1"}, "--generation and --state-out .* need --state"),
        ({"order": "key", "state_out": "/x"}, "--generation and --state-out .* need --state"),
        (
            {"order": "key", "shard_bytes": 5, "shard_samples": 5},
            "--shard-bytes and --shard-samples exclude each other",
        ),
        ({"order": "key", "shard_bytes": 0}, "shard_bytes=0 must be at least 1"),
        ({"order": "key", "shard_samples": -1}, "shard_samples=-1 must be at least 1"),
        ({"order": "key", "jobs": 0}, "jobs=0 must be at least 1"),
        ({"order": "key", "prefix": "../x"}, r"prefix='\.\./x' is no beginning of a file's name"),
        ({"order": "key", "prefix": "a/b"}, "prefix='a/b' is no beginning"),
        ({"order": "key", "prefix": ""}, "prefix='' is no beginning"),
        ({"state": "/s", "state_out": "/s/"}, "--state-out is /s/, the state that the losses are taken from"),
    ],
)
def test_options(choices: dict[str, Any], text: str) -> None:
    """An option that is wrong, or that does not go with another, is named before anything is read."""
    with pytest.raises(ArgumentError, match=f"Cannot repack: {text}"):
        repack("/none.tar", "/nowhere", **choices)


def test_the_corpus_s_own_folder(corpus: list[str], tmp_path: Path) -> None:
    """Neither over the shards nor beside them, by whatever name the folder goes."""
    (tmp_path / "link").symlink_to(tmp_path / "old")
    for to in (tmp_path / "old", tmp_path / "link", f"file://{tmp_path}/old/"):
        with pytest.raises(ArgumentError, match=r"the shards of the corpus lie there .* Name another folder") as caught:
            repack(corpus, str(to), order="key")
        assert caught.value.shard == corpus[0]
    assert {path.suffix for path in (tmp_path / "old").iterdir()} == {".tar"}


# ---- what is there already


@pytest.mark.parametrize("name", ["t-1.tar", "t-1.tar.seta-index"])
def test_files_of_others_are_never_overwritten(corpus: list[str], tmp_path: Path, name: str) -> None:
    """A file of a name that is to be written stops the repack before it begins; other files do not."""
    new = tmp_path / "new"
    new.mkdir()
    (new / "notes.txt").write_text("mine")
    (new / name).write_bytes(b"mine")
    with pytest.raises(ArgumentError, match=rf"1 files of the names .* no repack wrote them \(the first is {name}\)"):
        repack(corpus, str(new), order="key")
    assert (new / name).read_bytes() == b"mine"
    (new / name).unlink()
    assert repack(corpus, str(new), order="key").written == 2
    assert (new / "notes.txt").read_text() == "mine"


def test_a_file_that_took_the_place_meanwhile(corpus: list[str], tmp_path: Path) -> None:
    """Between two starts somebody put another file under a new shard's name: it is named and kept."""
    new = tmp_path / "new"
    repack(corpus, str(new), order="key")
    (new / "t-1.tar").write_bytes(b"another's")
    with pytest.raises(
        ArgumentError, match=r"Cannot write .*t-1.tar: a file of 9 bytes is there, and this repack writes"
    ):
        repack(corpus, str(new), order="key")
    assert (new / "t-1.tar").read_bytes() == b"another's"


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"order": "corpus"}, "order is 'corpus' now and was 'key'"),
        ({"order": "key", "shard_samples": 9}, "shard_samples is 9 now and was None"),
        ({"order": "key", "prefix": "x"}, "shards: number 0 is 'x-000000.tar' now and was 't-0.tar'"),
    ],
)
def test_other_settings_in_the_same_folder(
    corpus: list[str], tmp_path: Path, choices: dict[str, Any], text: str
) -> None:
    """What differs is told, and what is finished stays."""
    repack(corpus, str(tmp_path / "new"), order="key")
    with pytest.raises(ArgumentError, match=f"it holds another repack, and what differs is: .*{text}"):
        repack(corpus, str(tmp_path / "new"), **choices)
    assert repack(corpus, str(tmp_path / "new"), order="key").written == 0


def test_another_corpus_in_the_same_folder(corpus: list[str], tmp_path: Path) -> None:
    """A corpus with other samples is another repack; the same corpus at another place is the same."""
    repack(corpus, str(tmp_path / "new"), order="key")
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    copies = str(tmp_path / "copy" / "*.tar")
    assert repack(copies, str(tmp_path / "new"), order="key").written == 0
    write(tmp_path / "copy" / "t-1.tar", tar_of(samples("xyz")))
    with pytest.raises(ArgumentError, match="sources: number 1 is"):
        repack(copies, str(tmp_path / "new"), order="key")


@pytest.mark.parametrize("spoil", ["shard", "touched", "index", "no index", "record", "no record"])
def test_what_is_damaged_is_written_again(corpus: list[str], tmp_path: Path, spoil: str) -> None:
    """A shard counts as finished only if shard, index and record are there and belong together."""
    new = tmp_path / "new"
    repack(corpus, str(new), order="key")
    wanted = (new / "t-0.tar").read_bytes()
    shard, index, record = new / "t-0.tar", new / "t-0.tar.seta-index", new / "repack" / "t-0.tar.order"
    if spoil == "shard":
        shard.unlink()
    elif spoil == "touched":
        shard.touch()
    elif spoil == "index":
        index.write_bytes(index.read_bytes()[:-1])
    elif spoil == "no index":
        index.unlink()
    elif spoil == "record":
        record.write_bytes(b"SETAORDR")
    else:
        record.unlink()
    assert repack(corpus, str(new), order="key").written == 1
    assert shard.read_bytes() == wanted
    assert repack(corpus, str(new), order="key").written == 0


def test_a_damaged_manifest(corpus: list[str], tmp_path: Path) -> None:
    """Nothing is done in a folder whose manifest cannot be read."""
    repack(corpus, str(tmp_path / "new"), order="key")
    (tmp_path / "new" / "repack" / "repack.json").write_bytes(b"{")
    with pytest.raises(StateError, match=r"repack\.json: it is not the manifest of a repack"):
        repack(corpus, str(tmp_path / "new"), order="key")


# ---- a corpus that changes or is damaged


def test_a_shard_replaced_before_it_is_read(corpus: list[str], tmp_path: Path) -> None:
    """The first shard is finished and stays; the second, replaced meanwhile, is refused and leaves nothing."""

    def replace(progress: Progress) -> None:
        if progress.shards_done == 1:
            write(Path(corpus[1]), tar_of(samples("xyz")))

    with pytest.raises(
        ShardChangedError, match=r"Cannot repack .*t-1.tar: it was replaced since the corpus was opened"
    ):
        repack(corpus, str(tmp_path / "new"), order="key", progress=replace, jobs=1)
    assert sorted(path.name for path in (tmp_path / "new").glob("*.tar")) == ["t-0.tar"]


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_shard_changed_while_it_is_read(
    corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Written to between the first byte and the last, held in memory or not: no shard is made of it."""
    real = LocalDraft.write if memory == 0 else None
    monkeypatch.setattr(running, "MEMORY_BYTES", memory)
    if real is not None:

        def write_and_touch(self: LocalDraft, data: bytes) -> None:
            real(self, data)
            Path(corpus[0]).touch()

        monkeypatch.setattr(LocalDraft, "write", write_and_touch)
    else:
        from seta_stream.store.local import LocalFile

        read = LocalFile.read_spans

        def read_and_touch(self: LocalFile, spans: Any) -> list[bytes]:
            parts = read(self, spans)
            if self.url == corpus[0]:
                Path(corpus[0]).touch()
            return parts

        open_corpus(corpus)
        monkeypatch.setattr(LocalFile, "read_spans", read_and_touch)
    with pytest.raises(
        ShardChangedError, match=r"changed since it was opened|was replaced since the corpus was opened"
    ):
        repack(corpus, str(tmp_path / "new"), order="key", jobs=1)
    assert list((tmp_path / "new").glob("*.tar*")) == []
    assert list((tmp_path / "new").glob(".*")) == []


def test_a_compressed_shard_that_is_cut(tmp_path: Path) -> None:
    """Damaged after it was indexed, it is named; a stream that ends early too."""
    url = write(tmp_path / "old" / "t.tar.gz", tar_of(samples("abc")))
    info, size = store_for(url).info(url), scan_shard(url).tar_size
    with pytest.raises(TarError, match=r"it cannot be decompressed \(it ends 512 bytes before its last member does\)"):
        hold(Shard(url, info, seekable=False, tar_size=10240 + 512, options=None), 0, 1, 1 << 20, Costs())
    data = Path(url).read_bytes()
    Path(url).write_bytes(data[:-9])
    cut = Shard(url, store_for(url).info(url), seekable=False, tar_size=size, options=None)
    with pytest.raises(TarError, match=r"Cannot repack .*t\.tar\.gz: it cannot be decompressed"):
        hold(cut, 0, size, 1 << 20, Costs())
    assert info != ObjectInfo(0, "")


def test_a_temporary_file_that_was_cut(tmp_path: Path) -> None:
    """A file of ours that is shorter than it was is an error, not a loop."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        assert read_at(file.fileno(), 1, 2) == b"bc"
        with pytest.raises(ReadError, match="A temporary file ended 2 bytes early"):
            read_at(file.fileno(), 1, 4)


# ---- what is written is verified


def test_flipped_bytes_are_noticed(corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a body, and one of a header, that reach the disk otherwise: an error, and no shard."""
    real = LocalDraft.write
    for place, text in ((600, r"bytes 0 … \d+ are not those that were written"), (5, "is no tar header")):

        def spoil(self: LocalDraft, data: bytes, place: int = place) -> None:
            if len(data) > 600 and data.strip(b"\0"):
                data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            real(self, data)

        monkeypatch.setattr(LocalDraft, "write", spoil)
        with pytest.raises(CorpusError, match=text):
            repack(corpus, str(tmp_path / "new"), order="key", jobs=1)
        assert list((tmp_path / "new").glob("*.tar*")) == []
        assert list((tmp_path / "new").glob(".*")) == []


def test_a_wrong_index_is_noticed(corpus: list[str], tmp_path: Path) -> None:
    """An index whose checksum holds and whose offsets are another's: what would be written is not what it says."""
    index = scan_shard(corpus[0])
    place = Path(f"{corpus[0]}.seta-index")
    wrong = ShardIndex(**{**vars(index), "member_size": index.member_size - 1})
    place.write_bytes(wrong.to_bytes())
    with pytest.raises(CorpusError, match="what was written is not what was read: a member's size of sample '0a'"):
        repack(corpus, str(tmp_path / "new"), order="key", jobs=1)
    assert list((tmp_path / "new").glob("*.tar")) == []


def changed(index: ShardIndex, **facts: Any) -> ShardIndex:
    return ShardIndex(**{**{name: vars(index)[name] for name in ShardIndex.__dataclass_fields__}, **facts})


def test_every_difference_is_named(tmp_path: Path) -> None:
    """Samples, keys, fields, members, sizes and places: the first that differs is told with both values."""
    whole = scan_shard(write(tmp_path / "a.tar", tar_of(samples("abc"))))
    other = scan_shard(write(tmp_path / "b.tar", tar_of(samples("abX"))))
    fewer = scan_shard(write(tmp_path / "c.tar", tar_of(samples("ab"))))
    renamed = scan_shard(write(tmp_path / "d.tar", tar_of(samples("abc", ["txt", "cla"]))))
    single = [*samples("a"), Member("b.txt", b"1"), *samples("c"), Member("c.x", b"1")]
    moved = scan_shard(write(tmp_path / "e.tar", tar_of(single)))
    wanted = lay([whole], [Piece(0, 0, 3)])
    rows = [
        (whole, None),
        (fewer, "3 samples were written and 2 are found"),
        (other, "sample 2 should be 'c' and is 'X'"),
        (renamed, "a field of sample 'a' should be 1 and is -1"),
        (moved, "the number of members of sample 'b' should be 4 and is 3"),
        (changed(whole, member_size=whole.member_size + 1), "a member's size of sample 'a' should be 7 and is 8"),
        (changed(whole, extent_start=whole.extent_start + 512), "the first byte of sample 'a' should be 0 and is 512"),
        (
            changed(whole, extent_stop=whole.extent_stop + np.array([0, 0, 512])),
            "the last byte of sample 'c' should be 6144 and",
        ),
        (
            changed(whole, member_offset=whole.member_offset + 1),
            "a member's place of sample 'a' should be 512 and is 513",
        ),
    ]
    for found, text in rows:
        told = difference(wanted, 0, found)
        assert told is None if text is None else (told or "").startswith(text), told


def test_a_folder_that_changed_meanwhile(corpus: list[str], tmp_path: Path) -> None:
    """Records that together hold fewer samples than the corpus are not passed off as a finished repack."""

    def swap(progress: Progress) -> None:
        if progress.shards_done == 2:
            other = tmp_path / "other" / "repack" / "t-0.tar.order"
            shutil.copy(other, tmp_path / "new" / "repack" / "t-0.tar.order")

    less = [write(tmp_path / "less" / "t-0.tar", tar_of(samples("0")))]
    repack(less, str(tmp_path / "other"), order="key")
    with pytest.raises(CorpusError, match=r"the corpus has 6 samples of .* bytes, and the new shards have 4"):
        repack(corpus, str(tmp_path / "new"), order="key", progress=swap, jobs=1)


def test_a_folder_that_cannot_be_written(corpus: list[str], tmp_path: Path) -> None:
    """A file stands where the folder should: the place is named, and the next step."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadError, match=r"Cannot write .*/file/repack: .*Not a directory.* give the rights to write"):
        repack(corpus, str(tmp_path / "file"), order="key")


def test_the_corpus_is_left_as_it_was(corpus: list[str], tmp_path: Path) -> None:
    """Not a byte and not a time of it differs after a repack."""
    before = [(Path(url).read_bytes(), Path(url).stat().st_mtime_ns) for url in corpus]
    state = state_of(corpus, tmp_path / "state", np.arange(6))
    repack(corpus, str(tmp_path / "new"), state=state)
    assert [(Path(url).read_bytes(), Path(url).stat().st_mtime_ns) for url in corpus] == before
    assert [one["__key__"] for one in by_webdataset((tmp_path / "new" / "t-0.tar").read_bytes())] == ["0a", "0b", "0c"]
