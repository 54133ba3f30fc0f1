"""Indexes of other tools are found where the tools put them, used where they agree, told of where they do not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import golden_indexes as golden
import pytest
from corpus_tars import tar_bytes
from interop_fakes import dali_text, energon_idx, member_list
from test_index_file import same

from seta_stream.corpus import interop, interop_energon
from seta_stream.corpus.folders import Folders
from seta_stream.corpus.interop import ADOPTED, KINDS, Foreign, Found, adopt, adopt_quietly, candidates, lying_beside
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import IndexFileError, SetaStreamWarning, TarError, UnsupportedError
from seta_stream.store import store_for

PAX = golden.gold("pax")


@pytest.fixture
def shard(tmp_path: Path, cache: Path) -> Path:
    """Return a shard of which golden indexes are known, in a folder of its own."""
    path = tmp_path / "data" / "pax.tar"
    path.parent.mkdir()
    path.write_bytes(PAX)
    return path


def beside(shard: Path, name: str, data: bytes) -> Path:
    """Write a file into the shard's folder."""
    path = shard.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("pax.tar.idx", golden.ENERGON_IDX, "energon"),
        ("pax.idx", golden.DALI_PAX, "dali"),
        ("pax.tar.idx", golden.DALI_PAX, "dali"),
        ("pax.json", golden.HFUTILS_PAX, "webshart"),
        ("pax.json", golden.WEBSHART_PAX, "webshart"),
        ("pax.tar.index.sqlite", golden.RATARMOUNT_SQLITE, "ratarmount"),
    ],
)
def test_each_tools_file_is_found_and_told_by_its_content(shard: Path, name: str, data: bytes, kind: str) -> None:
    """The best index is that file's, whichever of two tools gave it its name; it equals a scan."""
    beside(shard, name, data)
    url = str(shard)
    folders = Folders(None)
    lying = lying_beside([url], folders, KINDS)[0]
    best = Foreign(None, folders).best(url, store_for(url).info(url), lying)
    assert (best.kind, best.source) == (kind, str(shard.parent / name))
    assert same(best.checked.index, scan_shard(url))


@pytest.mark.parametrize("bucket", [False, True])
def test_a_stream_may_adopt_what_lies_beside(shard: Path, *, bucket: bool) -> None:
    """adopt gives the scan's index from a foreign one, on disk and in a bucket; None where none lies there."""
    url = f"memory://interop{os.getpid()}/pax.tar" if bucket else str(shard)
    store = store_for(url)
    store.write(url, PAX)
    assert adopt(url) is None
    for name, data in ((".json", golden.WEBSHART_PAX), (".tar.idx", golden.ENERGON_IDX)):
        store.write(url[:-4] + name, data)
        adopted = adopt(url)
        assert adopted is not None
        assert same(adopted, scan_shard(url))
        store.remove(url[:-4] + name)


def test_what_does_not_agree_is_warned_about_and_the_next_one_used(shard: Path) -> None:
    """An index of another version is named with the reason; the next kind is tried."""
    beside(shard, "pax.tar.idx", energon_idx(tar_bytes([("a.txt", b"x"), ("b.txt", b"y")])))
    with pytest.warns(SetaStreamWarning, match=r"pax\.tar\.idx: it ends at byte 2048 .* It is not used"):
        assert adopt(str(shard)) is None
    beside(shard, "pax.idx", golden.DALI_PAX)
    index, notes = adopt_quietly(str(shard), info=store_for(str(shard)).info(str(shard)))
    assert index is not None
    assert len(notes) == 1


def test_other_files_of_these_names_are_no_indexes(shard: Path) -> None:
    """A JSON file beside a shard may be anything; a stream opens no SQLite file, and a pickle never."""
    beside(shard, "pax.json", b'{"caption": "a cat"}')
    beside(shard, "pax.tar.index.sqlite", golden.RATARMOUNT_SQLITE)
    beside(shard, "pax.tar.index", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    assert adopt_quietly(str(shard)) == (None, ())
    assert "ratarmount" not in ADOPTED


def test_damage_of_the_shard_is_left_to_the_scan(shard: Path) -> None:
    """A shard that cannot be scanned is told of by the scan that follows, and so is one that is gone."""
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX)
    data = bytearray(PAX)
    data[2700] ^= 1
    shard.write_bytes(data)
    assert adopt_quietly(str(shard)) == (None, ())
    with pytest.raises(TarError, match="is no tar header"):
        scan_shard(str(shard))
    shard.unlink()
    assert adopt_quietly(str(shard)) == (None, ())


def test_signed_urls_have_no_neighbours(tmp_path: Path) -> None:
    """What is signed is one object; a local name may hold a question mark."""
    assert candidates("https://h/a.tar?signature=s") == []
    assert Found("energon", f"{tmp_path}/a?.tar.idx") in candidates(f"{tmp_path}/a?.tar")


def test_best_scans_where_nothing_agrees(shard: Path) -> None:
    """The outcome is a scan's, and the notes say what was passed over and why; the pickle is not loaded."""
    beside(shard, "pax.tar.index", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    beside(shard, "pax.tar.idx", b"short")
    beside(shard, "pax.json", b"{}")
    url = str(shard)
    lying = lying_beside([url], Folders(None), (*KINDS, "wids"))[0]
    best = Foreign(None).best(url, store_for(url).info(url), lying)
    assert (best.kind, best.source) == ("scan", url)
    assert same(best.checked.index, scan_shard(url))
    assert [note.partition(":")[0] for note in best.notes] == [
        f"Cannot use {url}.idx",
        f"{url}.index is an index of wids, which is a Python pickle",
    ]
    assert "runs whatever code it holds, so it is never loaded" in best.notes[1]


def test_an_index_of_ours_is_compared_too(shard: Path, cache: Path) -> None:
    """Beside the shard or in the user's cache folder; one of another version is refused."""
    url = str(shard)
    foreign = Foreign(None)
    index = scan_shard(url)
    found = Found("seta", url + ".seta-index")
    store_for(url).write(found.url, index.to_bytes())
    checked = foreign.checked(found, url, None, whole=True)
    assert checked is not None
    assert same(checked.index, index)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(IndexFileError, match="made of another version of"):
        foreign.checked(found, url, None)


def test_files_of_any_size_are_not_read(shard: Path) -> None:
    """An index larger than its shard could need, or notes larger than 64 MiB, are refused by their size alone."""
    path = beside(shard, "pax.idx", b"")
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(IndexFileError, match=r"pax\.idx: it has 1099511627776 bytes, and 147456 at most are read"):
        Foreign(None).checked(Found("dali", str(path)), str(shard), None)
    path.unlink()
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX)
    with beside(shard, ".nv-meta/.info.json", b"").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(IndexFileError, match=r"info\.json: it has 1099511627776 bytes"):
        Foreign(None).checked(Found("energon", f"{shard}.idx"), str(shard), None)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_energons_notes_are_compared(shard: Path, form: str) -> None:
    """Counts, and a SQLite file that lists all members, must agree with the offsets; then few headers need be read."""
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX)
    found, url = Found("energon", f"{shard}.idx"), str(shard)

    def note(count: int, name: str = "pax.tar") -> None:
        json = interop_energon.write_info({name: count})
        yaml = f"energon_version: 6.0\nshard_counts:\n  {name}: {count}\n".encode()
        beside(shard, f".nv-meta/.info.{form}", json if form == "json" else yaml)

    note(4)
    with pytest.raises(IndexFileError, match=rf"it has 3 samples, and .*\.info\.{form} counts 4"):
        Foreign(None).checked(found, url, None)
    for count, name in ((3, "pax.tar"), (4, "other.tar")):
        note(count, name)
        checked = Foreign(None).checked(found, url, None)
        assert checked is not None
        assert same(checked.index, scan_shard(url))
    note(3)
    beside(shard, ".nv-meta/index.sqlite", golden.ENERGON_SQLITE)
    checked = Foreign(None).checked(found, url, None)
    assert checked is not None
    assert same(checked.index, scan_shard(url))
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX[:-8] + (18_944 + 512).to_bytes(8, "little"))
    with pytest.raises(IndexFileError, match=r"its samples begin elsewhere than .*index\.sqlite says"):
        Foreign(None).checked(found, url, None)


def test_notes_in_a_folder_above_are_found(shard: Path) -> None:
    """Energon's data set may hold its shards in folders; the notes name them from its own folder on."""
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX)
    beside(shard, "../.nv-meta/.info.json", interop_energon.write_info({"data/pax.tar": 7}))
    with pytest.raises(IndexFileError, match="counts 7"):
        Foreign(None).checked(Found("energon", f"{shard}.idx"), str(shard), None)


def test_names_in_notes_are_no_paths(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an index calls shards or members, nothing is opened by such a name."""
    opened: list[str] = []
    plain = interop.store_for

    def watched(url: str, options: object = None) -> object:
        opened.append(url)
        return plain(url, options)  # type: ignore[arg-type]

    monkeypatch.setattr(interop, "store_for", watched)
    names = ["../../etc/passwd", "/etc/passwd", "a\nb.tar", "s3://other/x.tar", "pax.tar"]
    beside(shard, ".nv-meta/.info.json", interop_energon.write_info({**dict.fromkeys(names, 1), "pax.tar": 3}))
    beside(shard, "pax.tar.idx", golden.ENERGON_IDX)
    evil = tar_bytes([("../../up.txt", b"1"), ("/etc/passwd.txt", b"2"), ("a\nb\x1b[2J.txt", b"3")])
    other = beside(shard, "evil.tar", evil)
    beside(shard, "evil.json", member_list(evil))
    beside(shard, "evil.idx", dali_text(evil).replace(b"a\nb", b"ab"))
    for path in (shard, other):
        adopted = adopt_quietly(str(path))[0]
        assert adopted is not None
        assert adopted.samples == 3
    assert {os.path.dirname(url) for url in opened} <= {str(shard.parent), str(shard.parent / ".nv-meta")}  # noqa: PTH120


def test_a_sqlite_file_in_a_bucket_is_refused() -> None:
    """SQLite reads files of this machine alone; the message says what to do."""
    url = f"memory://sqlite{os.getpid()}/pax.tar"
    store_for(url).write(url, PAX)
    with pytest.raises(UnsupportedError, match=r"SQLite files are read from this machine's disk alone\. Copy the file"):
        Foreign(None).checked(Found("ratarmount", url + ".index.sqlite"), url, None)


def test_what_lies_beside_may_be_looked_up_for_all_shards_at_once(shard: Path) -> None:
    """Every folder is listed once; a stream passes on what was found."""
    second = beside(shard, "second.tar", PAX)
    beside(shard, "second.json", golden.HFUTILS_PAX)
    found = lying_beside([str(shard), str(second)], Folders(None))
    assert found == [(), (Found("webshart", str(shard.parent / "second.json")),)]
    assert adopt_quietly(str(second), found=())[0] is None
    assert adopt_quietly(str(second), found=found[1])[0] is not None
    assert zlib.crc32(PAX) == zlib.crc32(second.read_bytes())


def test_a_bucket(s3_bucket: str, s3_server: object) -> None:
    """In S3, a list of members becomes the index that a scan gives."""
    options = s3_server.options  # type: ignore[attr-defined]
    data = tar_bytes([(f"{number:04d}.bin", b"x" * 20_000) for number in range(300)])
    url = f"{s3_bucket}/train.tar"
    store = store_for(url, options)
    store.write(url, data)
    store.write(f"{s3_bucket}/train.json", member_list(data))
    adopted = adopt(url, options)
    assert adopted is not None
    assert same(adopted, scan_shard(url, options))
