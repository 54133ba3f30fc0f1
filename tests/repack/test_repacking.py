"""Repacked shards hold the same samples, read by tarfile and by webdataset, in the order that was asked for."""

from __future__ import annotations

import dataclasses
import tarfile
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repack_tars import Member, by_tarfile, by_webdataset, bytes_of, frozen, samples, state_of, tar_of, write

from seta_stream.corpus.index import ShardIndex, read_header
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.places import fits
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import CorpusError, SetaStreamWarning
from seta_stream.repack import Progress, running
from seta_stream.repack import repack as public_repack
from seta_stream.repack.record import Record
from seta_stream.store import store_for

NAN = float("nan")


def new_shards(to: Path) -> list[Path]:
    return sorted(to.glob("*.tar"))


def keys_of(path: Path) -> list[object]:
    return [sample["__key__"] for sample in by_webdataset(path.read_bytes())]


def check_indexes(to: Path) -> None:
    """Every new shard has an index beside it that fits it and is what a scan gives, and a record that agrees."""
    for path in new_shards(to):
        data = Path(f"{path}.seta-index").read_bytes()
        scanned = scan_shard(str(path))  # a warning, as of a missing end, is an error here
        assert fits(read_header(data), store_for(str(path)).info(str(path)))
        assert ShardIndex.from_bytes(data).to_bytes() == data == scanned.to_bytes()
        record = Record.from_bytes((to / "repack" / f"{path.name}.order").read_bytes())
        assert (record.digest, record.samples) == (scanned.digest, scanned.samples)


# ---- random corpora

PARTS = st.text("ab.é/_- ", min_size=1, max_size=6).map(lambda text: text.strip("/ ")).filter(bool)
LONG = st.sampled_from(["", "d" * 60 + "/", "d" * 99 + "/" + "e" * 90 + "/"])
FIELDS = st.lists(st.sampled_from(["txt", "cls", "seg.png", "JPG", "json"]), min_size=1, max_size=3, unique=True)
BODIES = st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 513, b"v" * 3000])
LOOSE = st.sampled_from(
    [Member("folder/"), Member("__meta__", b"{}"), Member("README", b"no field"), Member("__x__/a.txt", b"skipped")]
)


@st.composite
def a_sample(draw: st.DrawFn) -> list[Member]:
    key = (
        draw(LONG) + draw(st.sampled_from(["k", "0001", "a b", "é", "q"])) + draw(st.sampled_from(["", "2", "3", "4"]))
    )
    mtime = draw(st.sampled_from([0, 1_600_000_000, 1_600_000_000.25]))
    mode = draw(st.sampled_from([0o644, 0o600, 0o444]))
    members = [Member(f"{key}.{field}", draw(BODIES), mode, mtime) for field in draw(FIELDS)]
    if draw(st.integers(0, 9)) == 0:
        members.insert(draw(st.integers(0, len(members))), draw(LOOSE))
    return members


def is_valid(shard: list[list[Member]]) -> bool:
    """Two neighbours of one key would be one sample, perhaps with a field twice."""
    keys = [sample[0].name.partition(".")[0] if sample[0].data != b"{}" else "" for sample in shard]
    return all(one != other for one, other in pairwise(keys))


LAYOUTS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
SHARDS = st.tuples(st.lists(a_sample(), max_size=8).filter(is_valid), LAYOUTS, st.booleans(), st.booleans())


def written(folder: Path, shards: list[tuple[list[list[Member]], int, bool, bool]]) -> list[str]:
    """Write shards; some begin with a comment that holds for all, some are compressed."""
    urls = []
    for number, (held, layout, has_comment, is_compressed) in enumerate(shards):
        comment = {"comment": "made by a test"} if has_comment and held and layout == tarfile.PAX_FORMAT else None
        data = tar_of([member for sample in held for member in sample], layout, comment)
        urls.append(write(folder / f"part-{number:03d}.tar{'.gz' * is_compressed}", data))
    return urls


@settings(max_examples=60)
@given(
    shards=st.lists(SHARDS, min_size=1, max_size=4),
    how=st.sampled_from(["loss", "key", "corpus"]),
    size=st.sampled_from([{}, {}, {"shard_samples": 3}, {"shard_bytes": 6000}, {"shard_bytes": 1}]),
    seed=st.integers(0, 9),
)
def test_every_sample_is_there_byte_for_byte(
    shards: list[tuple[list[list[Member]], int, bool, bool]], how: str, size: dict[str, int], seed: int
) -> None:
    """Whatever the dialect, names and layout: the same samples for webdataset, the same members with mode, times and
    owner for tarfile, in ascending losses, and each in the shard it belongs to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            urls = written(folder / "old", shards)
            table = open_corpus(urls, progress=False).table
        except (ValueError, CorpusError):  # a name too long for the dialect; no sample at all
            return
        losses = np.random.default_rng(seed).choice([NAN, 0.5, 1.0, 2.0, -3.0], table.total)
        state = state_of(urls, folder / "state", losses)
        before = [by_webdataset(bytes_of(url)) for url in urls]
        choices: dict[str, Any] = {"order": how, "state": state, **size}
        try:
            report = public_repack(urls, str(folder / "new"), **choices)
        except CorpusError as error:
            if error.key is None:  # else samples of one key cannot stand side by side, and there is not much else
                raise
            return
        after = [by_webdataset(path.read_bytes()) for path in new_shards(folder / "new")]
        flat = [sample for shard in before for sample in shard]
        assert Counter(map(frozen, flat)) == Counter(frozen(sample) for shard in after for sample in shard)
        old_members = Counter(one for url in urls for one in by_tarfile(bytes_of(url)))
        assert old_members == Counter(
            one for path in new_shards(folder / "new") for one in by_tarfile(path.read_bytes())
        )
        assert (report.samples, report.shards_before, report.shards) == (len(flat), len(urls), len(after))
        check_indexes(folder / "new")
        # Each new shard holds the next samples of the corpus.
        first = 0
        for found in after:
            part = flat[first : first + len(found)]
            assert Counter(map(frozen, part)) == Counter(map(frozen, found))
            keys = [str(sample["__key__"]) for sample in part]
            if len(set(keys)) == len(keys):
                rank = {"loss": losses[first : first + len(found)], "key": [key.encode() for key in keys]}.get(how)
                places = list(range(len(part)))
                if how == "loss":
                    places.sort(key=lambda at: (np.isnan(rank[at]), np.nan_to_num(rank[at])))
                elif how == "key":
                    places.sort(key=rank.__getitem__)
                assert [frozen(part[at]) for at in places] == [frozen(sample) for sample in found]
            first += len(found)


# ---- named cases


def test_similar_losses_lie_side_by_side(tmp_path: Path) -> None:
    """Five samples of one shard: ascending, the unseen ones last, equal ones as they were; the names stay."""
    url = write(tmp_path / "old" / "t-0.tar", tar_of(samples("abcde")))
    state = state_of(url, tmp_path / "state", [2, NAN, 1, 2, NAN])
    report = public_repack(url, str(tmp_path / "new"), state=state)
    assert keys_of(tmp_path / "new" / "t-0.tar") == ["c", "a", "d", "b", "e"]
    assert (report.shards, report.written, report.samples, report.members) == (1, 1, 5, 10)
    record = Record.from_bytes((tmp_path / "new" / "repack" / "t-0.tar.order").read_bytes())
    assert record.order.tolist() == [2, 0, 3, 1, 4]
    assert record.pieces == ((open_corpus(url).table.digests[0], 0, 5),)
    assert Path(url).stat().st_size == (tmp_path / "new" / "t-0.tar").stat().st_size


def test_what_belongs_to_no_sample_comes_first(tmp_path: Path) -> None:
    """Folders, `__meta__` and names without a field stand before the samples, in their order; what stands inside a
    sample stays there; the tar ends on a whole record."""
    members = [
        Member("./"), *samples("b"), Member("__meta__", b"m"), *samples("a")[:1], Member("NOTES", b"n"),
        *samples("a")[1:], Member("last/"),
    ]  # fmt: skip
    url = write(tmp_path / "old" / "t.tar", tar_of(members))
    public_repack(url, str(tmp_path / "new"), order="key")
    data = (tmp_path / "new" / "t.tar").read_bytes()
    names = [str(row[0]) for row in by_tarfile(data)]
    assert names == [".", "__meta__", "last", "a.txt", "NOTES", "a.cls", "b.txt", "b.cls"]
    assert len(data) % 10240 == 0
    assert data.endswith(b"\0" * 1024)


def test_dropped_samples_are_left_out(tmp_path: Path) -> None:
    """webdataset drops a sample whose `__bad__` is not empty; beside one of the same key it would swallow that."""
    members = [*samples("a"), Member("b.txt", b"b"), Member("b.__bad__", b"yes"), *samples("ab")]
    members[4:4] = [Member("__meta__", b"m")]
    url = write(tmp_path / "old" / "t.tar", tar_of([*members, Member("c.__bad__", b"yes")]))
    before = by_webdataset(Path(url).read_bytes())
    public_repack(url, str(tmp_path / "new"), order="key")
    data = (tmp_path / "new" / "t.tar").read_bytes()
    assert Counter(map(frozen, by_webdataset(data))) == Counter(map(frozen, before))
    assert "__bad__" not in str(by_tarfile(data))
    assert str(by_tarfile(data)[0][0]) == "__meta__"


def test_a_key_that_returns_is_another_sample(tmp_path: Path) -> None:
    """Two samples of one key are not merged: between them stays another one."""
    members = [*samples("k", ["txt"]), *samples("xy"), *samples("k", ["cls"])]
    url = write(tmp_path / "old" / "t.tar", tar_of(members))
    state = state_of(url, tmp_path / "state", [1, 5, 6, 1])
    public_repack(url, str(tmp_path / "new"), state=state)
    found = by_webdataset((tmp_path / "new" / "t.tar").read_bytes())
    assert [(one["__key__"], set(one) - {"__key__"}) for one in found] == [
        ("k", {"txt"}), ("x", {"txt", "cls"}), ("k", {"cls"}), ("y", {"txt", "cls"}),
    ]  # fmt: skip


def test_samples_of_one_key_alone_are_refused(tmp_path: Path) -> None:
    """Joined, two shards of the same single key would be one sample: the error names it, and nothing is written."""
    urls = [write(tmp_path / "old" / f"t-{n}.tar", tar_of(samples("k", [field]))) for n, field in enumerate("xy")]
    with pytest.raises(CorpusError, match=r"new/t-000000.tar: 2 of its 2 samples have the key 'k'") as caught:
        public_repack(urls, str(tmp_path / "new"), order="corpus", shard_samples=5)
    assert caught.value.key == "k"
    assert list((tmp_path / "new").glob("*.tar*")) == []
    assert list((tmp_path / "new").glob(".*")) == []


def test_shards_are_split_and_joined(tmp_path: Path) -> None:
    """Seven samples in shards of 5 and 2 become 3, 3 and 1, in corpus order first, then by loss inside each."""
    old = tmp_path / "old"
    urls = [write(old / "t-0.tar", tar_of(samples("abcde"))), write(old / "t-1.tar", tar_of(samples("fg")))]
    state = state_of(urls, tmp_path / "state", [3, 2, 1, 9, 8, 7, 0])
    report = public_repack(urls, str(tmp_path / "new"), state=state, shard_samples=3)
    assert [path.name for path in new_shards(tmp_path / "new")] == ["t-000000.tar", "t-000001.tar", "t-000002.tar"]
    assert [keys_of(path) for path in new_shards(tmp_path / "new")] == [["c", "b", "a"], ["f", "e", "d"], ["g"]]
    assert (report.shards_before, report.shards) == (2, 3)
    check_indexes(tmp_path / "new")


def test_compressed_shards_become_plain_ones(tmp_path: Path) -> None:
    """A .tar.gz is read once, in sequence, however many shards it is split into, and held in a file if need be."""
    keys = [f"{number:03d}" for number in range(40)]
    url = write(tmp_path / "old" / "t.tar.gz", tar_of(samples(keys)))
    report = public_repack(url, str(tmp_path / "new"), order="key", shard_samples=7, prefix="part")
    assert [key for path in new_shards(tmp_path / "new") for key in keys_of(path)] == keys
    assert report.bytes_read == Path(url).stat().st_size
    assert new_shards(tmp_path / "new")[0].name == "part-000000.tar"
    assert open_corpus(str(tmp_path / "new" / "*.tar")).table.seekable.all()


def test_a_shard_without_an_end_gets_one(tmp_path: Path) -> None:
    """It is warned about when the corpus is opened, and what is written has its end blocks."""
    data = tar_of(samples("ba"))
    url = write(tmp_path / "old" / "t.tar", data[: len(data.rstrip(b"\0")) // 512 * 512 + 512])
    with pytest.warns(SetaStreamWarning, match="has no end-of-archive blocks"):
        public_repack(url, str(tmp_path / "new"), order="key")
    assert keys_of(tmp_path / "new" / "t.tar") == ["a", "b"]
    check_indexes(tmp_path / "new")


@pytest.mark.parametrize("size", [{}, {"shard_samples": 7}])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_what_memory_does_not_hold_is_held_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, size: dict[str, int]
) -> None:
    """With no memory allowed, local shards are read where they lie and compressed ones from a temporary file."""
    keys = [f"{number:03d}" for number in range(30)]
    url = write(tmp_path / "old" / f"t.{ending}", tar_of(samples(keys)))
    state = state_of(url, tmp_path / "state", list(range(30, 0, -1)))
    monkeypatch.setattr(running, "MEMORY_BYTES", 0)
    public_repack(url, str(tmp_path / "new"), state=state, **size)  # type: ignore[arg-type]
    step = size.get("shard_samples", 30)
    wanted = [key for first in range(0, 30, step) for key in reversed(keys[first : first + step])]
    assert [key for path in new_shards(tmp_path / "new") for key in keys_of(path)] == wanted


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    """Two processes give what one gives, byte for byte, and tell how far they are."""
    urls = [write(tmp_path / "old" / f"t-{n}.tar", tar_of(samples(f"{n}{c}" for c in "abcdef"))) for n in range(5)]
    state = state_of(urls, tmp_path / "state", np.random.default_rng(0).random(30))
    told: list[Progress] = []
    one = public_repack(urls, str(tmp_path / "one"), state=state, jobs=1, progress=told.append)
    two = public_repack(urls, str(tmp_path / "two"), state=state, jobs=2)
    assert [path.read_bytes() for path in new_shards(tmp_path / "one")] == [
        path.read_bytes() for path in new_shards(tmp_path / "two")
    ]
    same = ("shards", "samples", "members", "bytes_read", "bytes_written", "written")
    assert [getattr(one, name) for name in same] == [getattr(two, name) for name in same]
    assert [(step.shards_done, step.shards) for step in told] == [(n, 5) for n in range(6)]
    assert told[-1].bytes_done == told[-1].bytes == open_corpus(urls).table.extent_bytes.sum()


def test_the_report_counts_bytes(tmp_path: Path) -> None:
    """Read is each shard once; written are shards, indexes and records; nothing of it is remote."""
    urls = [write(tmp_path / "old" / f"t-{n}.tar", tar_of(samples("abc"))) for n in range(2)]
    report = public_repack(urls, str(tmp_path / "new"), order="corpus")
    new = tmp_path / "new"
    files = [*new.glob("*.tar"), *new.glob("*.seta-index"), *(new / "repack").glob("*.order")]
    assert report.bytes_written == sum(path.stat().st_size for path in files)
    assert report.bytes_read == sum(Path(url).stat().st_size for url in urls)
    assert (report.requests, report.generation, report.carried) == (0, None, None)
    assert report.seconds > 0
    assert dataclasses.is_dataclass(report)
