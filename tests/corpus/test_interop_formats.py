"""Every foreign format is read as its tool wrote it, written as its tool would, and refused where it cannot be."""

from __future__ import annotations

import io
import json
import re
import tarfile

import golden_indexes as golden
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interop_fakes import MemoryFile, dali_text, energon_idx, scanned, shards, tar_members
from test_index_file import same

from seta_stream.corpus import interop_dali, interop_energon, interop_lists
from seta_stream.corpus.interop_checking import check
from seta_stream.corpus.interop_claims import Claims, claims_of, largest_file, listed
from seta_stream.corpus.interop_rows import rows_of
from seta_stream.errors import IndexFileError, UnsupportedError

PAX, GNU = golden.gold("pax"), golden.gold("gnu")
SIZE = 20_480


@pytest.mark.parametrize(
    ("claims", "data"),
    [
        (interop_energon.read_idx(golden.ENERGON_IDX, "g", SIZE), PAX),
        (interop_dali.read_idx(golden.DALI_PAX, "g", SIZE), PAX),
        (interop_dali.read_idx(golden.DALI_GNU, "g", SIZE), GNU),
        (interop_lists.read_member_list(golden.HFUTILS_PAX, "g", SIZE), PAX),
        (interop_lists.read_member_list(golden.WEBSHART_PAX, "g", SIZE), PAX),
        (interop_lists.read_member_list(golden.WEBSHART_GNU, "g", SIZE), GNU),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_the_tools_wrote_is_read(claims: Claims, data: bytes, whole: bool) -> None:
    """Golden files of each tool give the index of a scan, and DALI's with its known errors."""
    found = check(MemoryFile(data), claims, whole=whole)
    assert same(found.index, scanned(data))
    assert bool(found.notes) == (claims.kind == "dali" and data is GNU)


def test_what_is_written_is_what_the_tools_write() -> None:
    """Energon's files are those of `energon prepare` byte for byte; DALI's are its tool's for our samples."""
    found = check(MemoryFile(PAX), interop_lists.read_member_list(golden.HFUTILS_PAX, "g", SIZE))
    rows = list(rows_of(found.members))
    assert interop_energon.write_idx(np.array([row.start for row in rows]), found.end) == golden.ENERGON_IDX
    assert interop_energon.write_info({"pax.tar": 3}) == golden.ENERGON_INFO
    written = interop_dali.write_idx([[(p.field, p.data, p.size, p.name) for p in row.parts] for row in rows], "x")
    theirs = golden.DALI_PAX.split(b"\n")
    assert written.split(b"\n") == [b"v1.2 3", theirs[1], theirs[2], theirs[4], b""]


def samples_by_dali(index: bytes, data: bytes) -> list[dict[str, bytes]]:
    """Read samples as DALI documents its format: the version, then words by fours (v1.2) or threes (v1.1)."""
    lines = index.decode("utf-8", "surrogateescape").splitlines()
    version, count = lines[0].split()
    width = {"v1.1": 3, "v1.2": 4}[version]
    samples = []
    for line in lines[1 : int(count) + 1]:
        words = line.split()
        sample = {}
        for at in range(0, len(words), width):
            offset, size = int(words[at + 1]), int(words[at + 2])
            assert offset % 512 == 0
            assert width == 3 or words[at + 3].endswith(words[at])
            sample[words[at]] = data[offset : offset + size]
        samples.append(sample)
    assert len(lines) == int(count) + 1
    return samples


@settings(max_examples=60)
@given(data=shards())
def test_ours_to_theirs_and_back(data: bytes) -> None:
    """Written for Energon and DALI and read again, the index is the same; DALI's rules give every sample's bytes."""
    index = scanned(data)
    found = check(MemoryFile(data), claims_of(index, "ours", "x"))
    rows = list(rows_of(found.members))
    idx = interop_energon.write_idx(np.array([row.start for row in rows], np.int64), found.end)
    assert idx == energon_idx(data)
    assert check(MemoryFile(data), interop_energon.read_idx(idx, "e", len(data))).index.digest == index.digest
    lines = [[(part.field, part.data, part.size, part.name) for part in row.parts] for row in rows]
    if not rows:
        with pytest.raises(UnsupportedError, match="no sample, and DALI refuses"):
            interop_dali.write_idx(lines, "x.tar")
        return
    written = interop_dali.write_idx(lines, "x.tar")
    assert same(check(MemoryFile(data), interop_dali.read_idx(written, "d", len(data))).index, index)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        bodies = {info.name: tar.extractfile(info).read() for info in tar_members(data)}  # type: ignore[union-attr]
    for row, sample in zip(rows, samples_by_dali(written, data), strict=True):
        assert sample == {part.field.decode(): bodies[part.name.decode()] for part in row.parts}


def test_a_key_with_a_space_makes_it_v1_1() -> None:
    """DALI parts words at spaces, so names are left out; a field with a space is refused."""
    row = (b"txt", 512, 3, b"my cat.txt")
    written = interop_dali.write_idx([[row]], "x.tar")
    assert written == b"v1.1 1\ntxt 512 3\n"
    for ext in (b"t x", b"t\nx", b""):
        with pytest.raises(UnsupportedError, match=r"'my cat\.txt' has the field .* parts fields at spaces"):
            interop_dali.write_idx([[(ext, 512, 3, b"my cat.txt")]], "x.tar")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "its first line is b''"),
        (b"v1.0 1\ntxt 3 512\n", r"first line is b'v1.0 1', and `v1.1 <samples>`"),
        (b"v1.2 -1\n", "its first line is"),
        (b"v1.2 99999999999999999\n", "counts 99999999999999999 samples, and a shard of 20480 bytes has room for 40"),
        (b"v1.2 2\ntxt 512 3 a.txt\n", "counts 2 samples, and 1 lines follow"),
        (b"v1.2 1\ntxt 512 3 a.txt\ntxt 1536 3 b.txt\n", "counts 1 samples, and 2 lines follow"),
        (b"v1.2 1\ntxt 512 3 my cat.txt\n", "its line 2 .* is not 4 words for each member"),
        (b"v1.2 1\n 512 3 a.\n", "its line 2 .* is not 4 words"),
        (b"v1.2 2\n\ntxt 512 3 a.txt\n", "its line 2 .* is not 4 words"),
        (b"v1.2 1\ntxt 512 3 a\tb.txt\n", "its line 2 .* is not 4 words"),
        (b"v1.2 1\n" + b"txt 512 3 a.txt " * 50, "more members than the 40"),
        (b"v1.2 1\ntxt -512 3 a.txt\n", r"gives b'-512' and b'3' as offset and size"),
        (b"v1.2 1\ntxt 512 1e3 a.txt\n", "as offset and size"),
        (b"v1.2 1\ntxt 512 %s a.txt\n" % (b"9" * 400), "as offset and size"),
        (b"v1.2 1\ntxt 513 3 a.txt\n", "its offset 513 is no multiple of 512"),
        (b"v1.2 1\ntxt 20480 1 a.txt\n", "puts a member of 1 bytes at byte 20480 of a shard of 20480"),
        (b"v1.2 1\ntxt 512 999999999999999999 a.txt\n", "puts a member of 999999999999999999 bytes at byte 512"),
        (b"v1.2 1\ntxt 0 3 a.txt\n", "puts a member of 3 bytes at byte 0"),
        (b"v1.2 2\ntxt 512 3 a.txt\ntxt 512 3 b.txt\n", "no room for a header behind the one before"),
        (b"v1.2 2\ntxt 1536 3 a.txt\ntxt 512 3 b.txt\n", "do not come in the order of the shard"),
        (b"v1.2 1\ntxt 512 3 a\0.txt\n", "holds a NUL"),
    ],
)
def test_dali_files_that_cannot_be(data: bytes, text: str) -> None:
    """Versions, counts, words and numbers are checked one after another, and the message says which was wrong."""
    with pytest.raises(IndexFileError, match=text) as caught:
        interop_dali.read_idx(data, "X.idx", SIZE)
    assert "Cannot use X.idx" in str(caught.value)


def words(*numbers: int) -> bytes:
    """Return numbers as Energon writes them."""
    return b"".join(number.to_bytes(8, "little") for number in numbers)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it has 0 bytes, where whole numbers of 8"),
        (b"x" * 9, "it has 9 bytes"),
        (words(*range(0, 512 * 43, 512)), "lists 42 samples, and a shard of 20480 bytes has room for 40"),
        (words(0, 1 << 63), "points at byte 9223372036854775808 of a shard of 20480"),
        (words(0, 20_992), "points at byte 20992"),
        (words(0, 100, 1024), "its offset 100 is no multiple of 512"),
        (words(1024, 512, 2048), "sample 1 begins at byte 512, not behind sample 0 at byte 1024"),
        (words(512, 512), "sample 1 begins at byte 512, not behind"),
    ],
)
def test_energon_files_that_cannot_be(data: bytes, text: str) -> None:
    """Length, range, order and blocks of the offsets are checked."""
    with pytest.raises(IndexFileError, match=text):
        interop_energon.read_idx(data, "X.tar.idx", SIZE)


def test_an_energon_index_of_an_empty_shard() -> None:
    """One number, where the members end, is an index without a sample."""
    claims = interop_energon.read_idx(words(0), "X.tar.idx", 1024)
    assert (len(claims.starts), claims.end) == (0, 0)  # type: ignore[arg-type]


def text_of(**entry: object) -> bytes:
    """Return a list of one member."""
    return json.dumps({"files": {"a.txt": {"offset": 512, "size": 3} | entry}}).encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{}", 'it has no "files"'),
        (b"[]", "'{' was expected"),
        (json.dumps(dict.fromkeys(map(str, range(1001)), 1)).encode(), "an object may have 1000 names here"),
        (b'{"files": {}} x', "something stands behind the end"),
        (b'{"filesize": 99, "files": {}}', "made of a shard of 99 bytes, and the shard has 20480"),
        (b'{"filesize": -1, "files": {}}', "a whole number from 0 to 2"),
        (b'{"filesize": 1e300, "files": {}}', "a whole number from 0 to 2"),
        (b'{"filesize": 20480, "filesize": 20480}', "'filesize' comes twice in one object"),
        (b'{"files": {"a.txt": {"offset": 512, "offset": 512, "size": 1}}}', "a name comes twice in one object"),
        (b'{"files": {"a": {"offset": 512, "size": 1}, "a": {"offset": 512, "size": 1}}}', "'a' comes twice"),
        (b'{"files": {"a": {"offset": 512, "size": NaN}}}', "NaN is no JSON"),
        (b'{"files": {"a": {"offset": 512, "size": }}}', "it is no JSON"),
        (b'{"files": {"\xff": {}}}', "a string is no text"),
        (b'{"files": {"\\ud800": {}}}', "a string is no text"),
        (b'{"files": {"\\u0g00": {}}}', "a string is no text"),
        (b'{"files": [{"offset": 512, "size": 1}]}', "entry at byte 512 lacks a name"),
        (b'{"files": [{"path": 7, "offset": 512, "size": 1}]}', "entry at byte 512 lacks a name"),
        (b'{"files": [{"path": "\\ud800", "offset": 512, "size": 1}]}', "entry at byte 512 is no text"),
        (b'{"files": {"": {"offset": 512, "size": 1}}}', "entry at byte 512 lacks a name"),
        (
            b'{"files": {"a.txt": {"path": "../a", "offset": 512, "size": 1}}}',
            r"calls one member b'\.\./a' and b'a\.txt'",
        ),
        (b'{"files": {"a\\u0000b": {"offset": 512, "size": 1}}}', "empty or holds a NUL"),
        (text_of(offset=-512), "lacks an offset or a size"),
        (text_of(offset=512.0), "lacks an offset or a size"),
        (text_of(offset=True), "lacks an offset or a size"),
        (text_of(size=1 << 70), "lacks an offset or a size"),
        (text_of(size=None), "lacks an offset or a size"),
        (text_of(offset=513), "no multiple of 512"),
        (text_of(size=20_000), "puts a member of 20000 bytes at byte 512 of a shard of 20480"),
        (
            json.dumps({"files": [{"path": f"{n}", "offset": 512, "size": 0} for n in range(41)]}).encode(),
            "more members than the 40",
        ),
        (b'{"x": ' + b"[" * 100_000, "nested 64 deep"),
        (b'{"x": ' + b'{"a":' * 100_000, "nested 64 deep"),
        (b'{"x": ' + b"9" * 100_000 + b"}", "'}' was expected|',' was expected"),
        (b'{"x": "', "a value was expected"),
        (b'{"x": [1 2]}', "',' was expected"),
        (b'{"x": [1,]}', "a value was expected"),
        (b'{"x": {1: 2}}', "a value was expected"),
        (b'{"x": {"a" 2}}', "':' was expected"),
        (b'{"x" 2}', "':' was expected"),
        (b"{1: 2}", "a string was expected"),
    ],
)
def test_member_lists_that_cannot_be(data: bytes, text: str) -> None:
    """Bombs, double names, numbers that are none and members that overlap are refused, with the byte or the entry."""
    with pytest.raises(IndexFileError, match=re.compile(text)):
        interop_lists.read_member_list(data, "X.json", SIZE)


def test_what_webshart_keeps_besides_is_stepped_over() -> None:
    """Sizes of images, captions and the JSON of sidecars, nested as deep as they are, disturb nothing."""
    sidecar = {"tags": [["a", "b"], {"c": {}}], "offset": 7, "note": 'a "quoted" }'}
    files = [
        {"filename": "a.jpg", "length": 3, "offset": 512, "json_metadata": sidecar, "aspect": 1.5, "captions": []},
        {"fname": "b.jpg", "length": 3, "offset": 1536, "path": None, "sha256": "f" * 64},
    ]
    for form in (files, {file.get("filename") or file["fname"]: file for file in files}):
        data = json.dumps({"path": "x.tar", "filesize": 0, "files": form, "includes_image_geometry": True}).encode()
        members = interop_lists.read_member_list(data, "X.json", SIZE).members
        assert members is not None
        assert (members.names, members.data.tolist(), members.size.tolist()) == (
            (b"a.jpg", b"b.jpg"),
            [512, 1536],
            [3, 3],
        )
    assert not interop_lists.is_member_list(b'{"a.jpg": {"width": 3}}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150)
@given(value=JSON, indent=st.sampled_from([None, 1]))
def test_any_json_is_stepped_over(value: object, indent: int | None) -> None:
    """Whatever stands under another name, the list behind it is read."""
    data = json.dumps({"other": value, "files": {"a.txt": {"offset": 512, "size": 3}}}, indent=indent).encode()
    numbers = re.findall(rb"[0-9]{20,}", data)
    if not numbers:
        assert interop_lists.read_member_list(data, "X.json", SIZE).members is not None


FUZZED = st.sampled_from(
    [golden.DALI_PAX, golden.WEBSHART_PAX, golden.HFUTILS_PAX, golden.ENERGON_IDX, golden.ENERGON_INFO]
)


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_files_are_refused_or_claim_what_fits(data: st.DataObject) -> None:
    """Cut, patched and random files raise IndexFileError, or give members in order, apart and inside the shard."""
    raw = bytearray(data.draw(FUZZED | st.binary(max_size=60)))
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            at = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
                st.binary(max_size=4) | st.sampled_from([b"{", b"[", b"9" * 30])
            )
    damaged = bytes(raw)
    for read in (interop_energon.read_idx, interop_dali.read_idx, interop_lists.read_member_list):
        try:
            claims = read(damaged, "X", SIZE)
        except IndexFileError:
            continue
        members = claims.members
        if claims.starts is not None:
            assert (np.diff([*claims.starts, claims.end]) >= 512).all()
        if members is not None:
            assert len(members) <= SIZE // 512
            assert (members.data % 512 == 0).all()
            assert (members.data + members.size <= SIZE).all()
            assert not claims.are_exact or (members.data - members.befores >= 512).all()
        try:
            found = check(MemoryFile(PAX), claims)
        except IndexFileError:
            continue
        assert found.index.digest == scanned(PAX).digest
    for count in (interop_lists.read_shard_counts, interop_lists.read_wids_counts, interop_energon.read_info_yaml):
        try:
            counts = count(damaged, "X")
        except IndexFileError:
            continue
        assert all(type(number) is int and number >= 0 for number in counts.values())


def test_counts_of_a_data_set() -> None:
    """Energon's notes of today and of before, and wids' list, give samples per shard, in order."""
    counts = {"b/x.tar": 5, "a.tar": 0, "it's.tar": 3, "with space.tar": 7}
    data = json.dumps({"energon_version": "7", "shard_counts": counts}).encode()
    assert interop_lists.read_shard_counts(data, "i") == counts
    yaml = (
        b"energon_version: 6.0.1\nshard_counts:\n  b/x.tar: 5\n  \"a.tar\": 0\n  'it''s.tar': 3\n  with space.tar: 7\n"
    )
    assert interop_energon.read_info_yaml(yaml, "i") == counts
    assert list(interop_energon.read_info_yaml(yaml, "i")) == list(counts)
    shard = {"url": "s3://b/x.tar", "filesize": 10_240, "nsamples": 5}
    wids = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": [shard]}
    assert interop_lists.read_wids_counts(json.dumps(wids).encode(), "w") == {"x.tar": 5}


@pytest.mark.parametrize(
    ("read", "data", "text"),
    [
        (interop_lists.read_shard_counts, b"{}", 'has no "shard_counts"'),
        (interop_lists.read_shard_counts, b'{"shard_counts": {"a": -1}}', "a whole number"),
        (interop_lists.read_wids_counts, b'{"wids_version": 1}', 'has no "shardlist"'),
        (interop_lists.read_wids_counts, b'{"shardlist": [{"url": "a.tar"}]}', 'lacks "url" or "nsamples"'),
        (
            interop_lists.read_wids_counts,
            b'{"shardlist": [{"url": "x/a.tar", "nsamples": 1}, {"url": "y/a.tar", "nsamples": 1}]}',
            "two shards with the name 'a.tar'",
        ),
        (interop_energon.read_info_yaml, b"\xff", "no UTF-8"),
        (interop_energon.read_info_yaml, b"energon_version: 7\n", 'has no "shard_counts"'),
        (interop_energon.read_info_yaml, b"shard_counts:\n  a.tar: many\n", "line 2 .* is not `shard: samples`"),
        (interop_energon.read_info_yaml, b"shard_counts:\n  a.tar: 1\n  a.tar: 1\n", "line 3 .* names a shard again"),
        (interop_energon.read_info_yaml, b"shard_counts:\n  &a [*a, *a]: 1\n", "line 2"),
        (interop_energon.read_info_yaml, b"shard_counts:\n  !!python/object/apply:os.system ['id']: 1\n", "line 2"),
    ],
)
def test_counts_that_cannot_be(read: object, data: bytes, text: str) -> None:
    """A file of counts that is another file, or says what cannot be, is named."""
    with pytest.raises(IndexFileError, match=text):
        read(data, "X")  # type: ignore[operator]


def test_a_list_of_more_shards_than_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting stops where no corpus goes on."""
    monkeypatch.setattr(interop_lists, "_MOST_SHARDS", 2)
    shards = [{"url": f"{number}.tar", "nsamples": 1} for number in range(3)]
    with pytest.raises(IndexFileError, match="it lists more than 2 shards"):
        interop_lists.read_wids_counts(json.dumps({"shardlist": shards}).encode(), "w")
    counts = {shard["url"]: 1 for shard in shards}
    with pytest.raises(IndexFileError, match="an object may have 2 names here"):
        interop_lists.read_shard_counts(json.dumps({"shard_counts": counts}).encode(), "i")


def test_energons_split_and_uuid() -> None:
    """All shards are in "train", names are quoted and their braces escaped; the same samples have the same UUID."""
    from braceexpand import braceexpand

    names = ["a.tar", "d/{b}.tar", "x{0..2}.tar", "back\\slash.tar", 'quo"te: #.tar', "é.tar"]
    text = interop_energon.write_split(names).decode()
    assert text.startswith('split_parts:\n  train:\n  - "a.tar"\n')
    quoted = [json.loads(line[4:]) for line in text.splitlines() if line.startswith("  - ")]
    assert [list(braceexpand(name)) for name in quoted] == [[name] for name in names]
    assert interop_energon.write_split([]) == b"split_parts:\n  train: []\n  val: []\n  test: []\nexclude: []\n"
    uuid = interop_energon.write_uuid({"a.tar": 1}, [b"d" * 16])
    assert re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)
    assert uuid == interop_energon.write_uuid({"a.tar": 1}, [b"d" * 16])
    assert uuid != interop_energon.write_uuid({"a.tar": 1}, [b"e" * 16])


def test_file_names_are_the_tools() -> None:
    """Energon and DALI put their suffix in the place of the shard's last one."""
    for name, energon, dali in (
        ("a.tar", "a.tar.idx", "a.idx"),
        ("a.b.tgz", "a.b.tar.idx", "a.b.idx"),
        ("x", "x.tar.idx", "x.idx"),
    ):
        assert (interop_energon.idx_name(name), interop_dali.idx_name(name)) == (energon, dali)


def test_a_list_longer_than_the_shard_is_refused() -> None:
    """More members than headers fit, before anything is built of them; and no index file of any size is read."""
    with pytest.raises(IndexFileError, match="it lists 3 members, and a shard of 1024 bytes has room for 2"):
        listed("X", data=[512] * 3, size=[0] * 3, names=None, shard_size=1024)
    assert largest_file(0) == 64 << 10
    assert largest_file(1 << 50) == 512 << 20


def test_an_index_of_a_compressed_shard_is_refused() -> None:
    """Offsets in the decompressed stream are nothing that other tools could read at."""
    index = scanned(PAX)
    fields = {name: getattr(index, name) for name in type(index).__dataclass_fields__} | {"seekable": False}
    with pytest.raises(UnsupportedError, match=r"the shard is compressed.*Unpack it"):
        claims_of(type(index)(**fields), "ours", "x.tar.gz")


def test_names_that_gnu_tar_quoted_are_not_compared() -> None:
    """DALI's tool takes names from GNU tar's listing, which writes foreign bytes with backslashes."""
    data = dali_text(PAX).replace(b"a.JPG", b"\\303\\251.JPG")
    claims = interop_dali.read_idx(data, "X.idx", SIZE)
    assert claims.members is not None
    assert claims.members.names is None
    assert same(check(MemoryFile(PAX), claims).index, scanned(PAX))
