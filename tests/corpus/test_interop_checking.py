"""A foreign index is worth what the shard's own headers say, whatever it claims and however few of them are read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from corpus_tars import END, extension, header, pax, tar_bytes, unended
from hypothesis import given, settings
from hypothesis import strategies as st
from interop_fakes import URL, MemoryFile, dali_text, energon_idx, member_list, scanned, shards, tar_members
from test_index_file import same

from seta_stream.corpus import interop_ahead, interop_dali, interop_energon, interop_lists
from seta_stream.corpus.interop_ahead import behind_header, walk
from seta_stream.corpus.interop_checking import check
from seta_stream.corpus.interop_claims import Claims, claims_of
from seta_stream.corpus.interop_rows import rows_of
from seta_stream.errors import DuplicateFieldError, IndexFileError, ShardChangedError, TarError

MAKERS: dict[str, Callable[[bytes], Claims]] = {
    "energon": lambda data: interop_energon.read_idx(energon_idx(data), "X.tar.idx", len(data)),
    "member list": lambda data: interop_lists.read_member_list(member_list(data), "X.json", len(data)),
    "dali v1.2": lambda data: interop_dali.read_idx(dali_text(data), "X.idx", len(data)),
    "dali v1.1": lambda data: interop_dali.read_idx(dali_text(data, "v1.1"), "X.idx", len(data)),
    "dali, too low": lambda data: interop_dali.read_idx(dali_text(data, error=-1024), "X.idx", len(data)),
    "dali, too high": lambda data: interop_dali.read_idx(dali_text(data, error=1024), "X.idx", len(data)),
    "ours": lambda data: claims_of(scanned(data), "X.tar.seta-index", URL),
}
PHOTOS = [
    (f"{number:05d}.{ext}", b"x" * (3000 if ext == "jpg" else 20)) for number in range(400) for ext in ("jpg", "txt")
]


def claims(name: str, data: bytes) -> Claims | None:
    """Return what an index of a shard says; None where its format cannot say it, or two members would share a place."""
    try:
        return MAKERS[name](data)
    except IndexFileError:
        assert name.startswith("dali")  # an error of 1,024 bytes may put one body where another lies
        return None


@settings(max_examples=60)
@given(data=shards(), name=st.sampled_from(sorted(MAKERS)), whole=st.booleans(), is_near=st.booleans())
def test_every_format_gives_the_index_of_a_fresh_scan(*, data: bytes, name: str, whole: bool, is_near: bool) -> None:
    """Whatever dialect the shard has and whatever lies between its samples, nothing differs from a scan's outcome."""
    if name.startswith("dali") and not any("." in info.name.rpartition("/")[2] for info in tar_members(data)):
        return  # DALI has no index without a sample
    said = claims(name, data)
    if said is None:
        return
    found = check(MemoryFile(data, is_near=is_near), said, whole=whole)
    assert same(found.index, scanned(data))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getmembers()) >= len(found.members)
        assert found.end == tar.offset
    assert [row.start for row in rows_of(found.members)] == found.index.extent_start.tolist()


@settings(max_examples=40)
@given(data=shards(utf8_only=False), whole=st.booleans())
def test_names_that_are_no_utf8(*, data: bytes, whole: bool) -> None:
    """Energon's offsets and a list of members name them as well as a scan does."""
    for name in ("energon", "member list", "ours"):
        assert same(check(MemoryFile(data), MAKERS[name](data), whole=whole).index, scanned(data))


@pytest.mark.parametrize("name", ["member list", "dali v1.2", "ours"])
def test_a_sample_of_the_headers_is_enough(name: str) -> None:
    """Of 800 members, 64 of each length of gap are read where an index lists names; all of them when asked for."""
    data = tar_bytes(PHOTOS, tarfile.PAX_FORMAT, mtime=1.5)
    file = MemoryFile(data, is_near=False)
    found = check(file, MAKERS[name](data))
    assert 64 <= found.headers <= 200
    assert sum(length for _, length in file.reads) < 0.1 * len(data)
    assert file.calls <= 3
    assert same(found.index, scanned(data))
    assert check(MemoryFile(data), MAKERS[name](data), whole=True).headers == 800


def test_energons_offsets_are_followed_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bucket, the headers of all samples come in as many rounds as a sample has members, bodies apart."""
    monkeypatch.setattr(interop_ahead, "STRIDE", {True: 2000, False: 2000})
    monkeypatch.setattr(interop_ahead, "HOP", 1024)
    data = tar_bytes(PHOTOS)
    file = MemoryFile(data, is_near=False)
    assert same(check(file, MAKERS["energon"](data)).index, scanned(data))
    assert file.calls <= 4
    assert sum(length for _, length in file.reads) < 0.75 * len(data)


def test_places_that_lie_cost_reads_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever an index puts headers, a walk sees what a scan sees, in a bounded number of reads."""
    monkeypatch.setattr(interop_ahead, "STRIDE", {True: 600, False: 600})
    data = tar_bytes(PHOTOS[:60], tarfile.PAX_FORMAT, mtime=2.5)
    for places in ([], [512, 1024, len(data) - 512], list(range(0, len(data), 512)), [1 << 40]):
        for is_complete in (True, False):
            file = MemoryFile(data, is_near=False)
            scanner = walk(file, np.array(places, np.int64), is_complete=is_complete)
            assert scanner.members().data.tolist() == [info.offset_data for info in tar_members(data)]
            assert len(file.reads) <= 60 + 2 * len(places) + 64


def test_bodies_larger_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that end inside headers, and bodies that reach over several, lose nothing."""
    monkeypatch.setattr(interop_ahead, "WINDOW", 1024)
    files = [(f"{number}.bin", b"x" * size) for number, size in enumerate([0, 5000, 100, 9000, 513] * 4)]
    for layout, facts in ((tarfile.USTAR_FORMAT, {}), (tarfile.PAX_FORMAT, {"mtime": 0.5})):
        data = tar_bytes(files, layout, **facts)
        for is_near in (True, False):
            found = check(MemoryFile(data, is_near=is_near), MAKERS["energon"](data))
            assert same(found.index, scanned(data))


@pytest.mark.parametrize(
    ("data", "behind"),
    [
        (header(b"a.txt", size=600), 512 + 1024),
        (header(b"a.txt", size=600) + b"x" * 4, 512 + 1024),
        (extension(b"x", pax(mtime="1.5")) + header(b"a", size=1), 1024 + 1024),
        (header(b"dir/", kind=b"5"), 512),
        (extension(b"x", pax(mtime="1.5")), None),
        (header(b"x", kind=b"x", size=1 << 30), None),
        (b"\0" * 512, None),
        (b"rubbish!" * 64, None),
        (b"", None),
    ],
)
def test_the_header_behind_a_header(data: bytes, behind: int | None) -> None:
    """A guess where the next header lies is right where it is made, and not made where the bytes do not tell."""
    assert behind_header(data) == behind


def test_what_stands_between_is_found() -> None:
    """Folders, hidden files and notes that an index leaves out are seen in the gaps, and cost no sample its place."""
    files = [(f"{number:04d}.txt", b"x") for number in range(300)]
    files[150:150] = [("folder/", b""), ("folder/.hidden", b"h" * 600), ("__note__", b"")]
    data = tar_bytes([*files, ("last", b"end")])
    found = check(MemoryFile(data), MAKERS["dali v1.2"](data))
    assert same(found.index, scanned(data))
    assert "folder/" in found.index.keys
    assert found.headers < 200
    assert len(found.members) == 303


def test_a_global_header_makes_all_headers_be_read() -> None:
    """What a global extension says holds for all members, so no sample of them is enough."""
    files = [(f"{number:04d}.txt", b"x") for number in range(200)]
    data = extension(b"g", pax(comment="made by hand")) + tar_bytes(files)
    assert check(MemoryFile(data), MAKERS["member list"](data)).headers == 200
    late = tar_bytes(files)[: 200 * 1024] + extension(b"g", pax(comment="x")) + header(b"z.txt") + END
    assert check(MemoryFile(late), MAKERS["dali v1.2"](tar_bytes(files))).headers == 201


def test_fields_in_capitals_and_bad_samples_make_all_headers_be_read() -> None:
    """An index of ours keeps neither, and other tools want them: names come from the headers then."""
    files = [(f"{number:04d}.txt", b"x") for number in range(300)]
    data = tar_bytes([*files[:150], ("0150.JPG", b"y"), *files[151:]])
    found = check(MemoryFile(data), MAKERS["ours"](data))
    assert b"0150.JPG\0" in found.members.names
    assert found.headers == len(found.members) == 300
    data = tar_bytes([*files, ("bad.__bad__", b"1"), ("bad.txt", b"z")])
    found = check(MemoryFile(data), MAKERS["ours"](data))
    assert (len(found.members), found.index.samples) == (302, 300)
    assert same(check(MemoryFile(data), MAKERS["energon"](data)).index, scanned(data))


def test_wrong_offsets_of_dalis_tool_are_told() -> None:
    """The members are right, and the note says how many were not, and what to do."""
    data = tar_bytes([("n" * 120 + ".txt", b"x"), ("b.txt", b"y")], tarfile.GNU_FORMAT)
    found = check(MemoryFile(data), MAKERS["dali, too low"](data))
    assert found.index.member_offset.tolist() == [1536, 2560]
    assert "X.idx puts 1 of 2 members at wrong bytes" in found.notes[0]
    assert "convert --to dali --overwrite" in found.notes[0]


def test_a_shard_without_end_blocks_is_told() -> None:
    """It is used, and a note says that it may be cut."""
    data = unended([("a.txt", b"x"), ("b.txt", b"y")])
    for name in ("energon", "member list"):
        assert "no end-of-archive blocks" in check(MemoryFile(data), MAKERS[name](data)).notes[0]


SHARD = tar_bytes([(f"{number}.{ext}", b"x" * size) for number in range(5) for ext, size in (("jpg", 700), ("txt", 3))])


def listing(**changes: dict[str, int] | None) -> Claims:
    """Return a list of the shard's members, some of them changed."""
    files = json.loads(member_list(SHARD))["files"]
    for place, entry in changes.items():
        name = place.replace("_", ".")
        if entry is None:
            del files[name]
        else:
            files[name] = {**files.get(name, {}), **entry}
    data = json.dumps({"files": files}).encode()
    return interop_lists.read_member_list(data, "X.json", len(SHARD))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"2_txt": {"size": 4}}, r"3 bytes at byte|puts a member of 4 bytes"),
        ({"0_jpg": {"size": 100}}, r"700 bytes at byte 512|puts a member of 100 bytes"),
        ({"2_txt": None, "2_png": {"offset": 7168, "size": 3}}, r"'2\.png'.*at byte 7168"),
        ({"4_txt": {"offset": 14336}}, r"'4\.txt'.* at byte 14336 of mem://b/train-0\.tar"),
    ],
)
def test_members_that_are_not_there_are_refused(
    changes: dict[str, dict[str, int] | None], text: str, whole: bool
) -> None:
    """Another size, another name, another place: the message says what the index says and what the shard has."""
    with pytest.raises(IndexFileError, match=text) as caught:
        check(MemoryFile(SHARD), listing(**changes), whole=whole)
    assert caught.value.shard == URL
    assert "make it anew" in str(caught.value)


def test_members_that_an_index_lacks_are_found_where_their_headers_are() -> None:
    """An index of fewer members is completed from the gaps: the outcome is that of a scan."""
    assert same(check(MemoryFile(SHARD), listing(**{"2_txt": None, "3_jpg": None})).index, scanned(SHARD))
    assert same(check(MemoryFile(SHARD), listing(**{"4_jpg": None, "4_txt": None})).index, scanned(SHARD))


def test_a_large_gap_makes_all_headers_be_read() -> None:
    """Behind a gap of more than 64 KiB lies something large that the index does not list."""
    data = tar_bytes([("a.txt", b"x"), ("big.bin", b"y" * 100_000), ("c.txt", b"z")])
    files = json.loads(member_list(data))["files"]
    del files["big.bin"]
    said = interop_lists.read_member_list(json.dumps({"files": files}).encode(), "X.json", len(data))
    assert check(MemoryFile(data), said).headers == 3


def test_a_stale_index_is_refused() -> None:
    """The index of another version of the shard, of the same size, does not pass."""
    other = tar_bytes(
        [(f"{number}.{ext}", b"x" * size) for number in range(5) for ext, size in (("jpg", 3), ("txt", 700))]
    )
    assert len(other) == len(SHARD)
    for name in sorted(MAKERS):
        with pytest.raises(IndexFileError, match="Cannot use X"):
            check(
                MemoryFile(SHARD), MAKERS[name](other if name != "energon" else tar_bytes([("a.bin", b"x" * 3000)] * 3))
            )


def test_another_number_of_samples_is_refused() -> None:
    """Energon's offsets must be those of all samples, and its end that of the members."""
    good = energon_idx(SHARD)
    for bad, text in (
        (good[:8] + good[16:], "lists 4 samples of .* one at byte 2560; by its headers the shard has 5"),
        (good[:-8] + (512).to_bytes(8, "little"), "sample 4 at byte"),
        (good[:-8] + (12_288).to_bytes(8, "little"), "ends at byte 12288 of .* the samples of the shard at byte 12800"),
    ):
        with pytest.raises(IndexFileError, match=text):
            check(MemoryFile(SHARD), interop_energon.read_idx(bad, "X.tar.idx", len(SHARD)))


def test_damage_of_the_shard_is_the_shards() -> None:
    """A shard that cannot be scanned says so itself, whatever index lies beside it."""
    said = MAKERS["energon"](SHARD)
    with pytest.raises(TarError, match="the block at byte 1536 is no tar header"):
        check(MemoryFile(SHARD[:1536] + b"rubbish!" + SHARD[1544:]), said)
    twice = tar_bytes([("a.txt", b"x"), ("a.txt", b"x")])
    with pytest.raises(DuplicateFieldError, match="field 'txt' twice"):
        check(MemoryFile(twice), MAKERS["energon"](twice))
    file = MemoryFile(SHARD)
    file.is_changed = True
    with pytest.raises(ShardChangedError, match="truncated or changed"):
        check(file, said)


def test_a_list_of_a_damaged_shard_is_refused() -> None:
    """Where a header is damaged that is among those read, the message says that none stands there."""
    damaged = bytearray(SHARD)
    damaged[2560 + 150] ^= 1
    with pytest.raises(IndexFileError, match=r"it puts '1\.jpg', 700 bytes, at byte 3072 .* is no tar header"):
        check(MemoryFile(bytes(damaged)), listing())
    with pytest.raises(TarError, match="the block at byte 2560 is no tar header"):
        check(MemoryFile(bytes(damaged)), listing(), whole=True)


def test_much_behind_the_last_member_makes_all_headers_be_read() -> None:
    """A few members that an index does not list are followed one by one; of many, all headers are read anew."""
    files = [(f"{number:04d}.txt", b"x") for number in range(200)]
    for more, headers in ((3, 64 + 3), (80, 280)):
        notes = [(f"__note{number}__", b"n" * 5000) for number in range(more)]
        found = check(MemoryFile(tar_bytes([*files, *notes])), MAKERS["dali v1.2"](tar_bytes(files)))
        assert (found.index.samples, len(found.members), found.headers) == (200, 200 + more, headers)


def test_a_damaged_tail_is_the_shards() -> None:
    """What stands behind the last member that is listed is looked at too."""
    damaged = SHARD[:12_800] + b"r" * 512 + SHARD[13_312:]
    with pytest.raises(TarError, match="the block at byte 12800 is no tar header"):
        check(MemoryFile(damaged), listing())
