"""Every tar dialect that tarfile reads is scanned to the same members, and damage is named with its offset."""

from __future__ import annotations

import io
import tarfile

import pytest
from corpus_tars import END, SHARD, body, extension, header, members, pax, scan, tar_bytes, unended
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.corpus.tar import Members, TarScanner
from seta_stream.errors import TarError

LONG = "/".join(["folder" * 4] * 5) + "/" + "n" * 30 + ".txt"


def rows(found: Members) -> list[tuple[str, int, int, int]]:
    """Return (name, start, data offset, size) of each member."""
    names = found.names.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return list(zip(names, found.start.tolist(), found.data.tolist(), found.size.tolist(), strict=True))


def by_tarfile(data: bytes) -> list[tuple[str, int, int, int]]:
    """Return the same facts as the standard library finds them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info.name, info.offset, info.offset_data, info.size) for info in tar if info.isreg()]


MANY = [(f"{number:05d}.{ext}", b"x" * (number % 700)) for number in range(200) for ext in ("jpg", "txt")]
DIALECTS = {
    "ustar": tar_bytes(MANY),
    "ustar with prefix": tar_bytes([(f"{'d' * 90}/{name}", data) for name, data in MANY]),
    "gnu long names": tar_bytes([(LONG, b"1"), ("a.txt", b"2"), (LONG + "x", b"3")] * 30, tarfile.GNU_FORMAT),
    "pax long names": tar_bytes([(LONG, b"1"), ("a.txt", b"2"), ("é" * 60 + ".txt", b"3")] * 30, tarfile.PAX_FORMAT),
    "pax times, as webdataset's TarWriter gives": tar_bytes(MANY, tarfile.PAX_FORMAT, mtime=1.5),
    "pax size": extension(b"x", pax(size="700")) + header(b"a.txt", size=0) + body(b"y" * 700) + header(b"b.txt") + END,
    "pax size among many": unended(MANY[:200])
    + extension(b"x", pax(size="700"))
    + header(b"a.txt", size=0)
    + body(b"y" * 700)
    + tar_bytes(MANY[200:]),
    "solaris pax": extension(b"X", pax(path="q.txt")) + header(b"a.txt", size=3) + body(b"abc") + END,
    "two pax headers": extension(b"x", pax(path="q.txt"))
    + extension(b"x", pax(path="r.txt"))
    + header(b"a.txt", size=3)
    + body(b"abc")
    + END,
    "global pax path": header(b"g", kind=b"g", size=14)
    + body(pax(path="q.txt"))
    + header(b"a.txt", size=3)
    + body(b"abc")
    + header(b"b.txt")
    + END,
    "global pax comment": header(b"g", kind=b"g", size=15) + body(pax(comment="a")) + tar_bytes(MANY),
    "pax path with slashes after": extension(b"x", pax(path="q.txt/")) + header(b"a.txt", size=3) + body(b"abc") + END,
    "gnu name over pax path": extension(b"L", b"l.txt\0")
    + extension(b"x", pax(path="r.txt"))
    + header(b"a.txt", size=3)
    + body(b"abc")
    + END,
    "gnu long link": extension(b"K", b"l.txt\0") + header(b"a.txt", size=3) + body(b"abc") + END,
    "base-256 small": header(b"a.txt", size=b"\x80" + (3).to_bytes(11, "big")) + body(b"abc") + header(b"b.txt") + END,
    "old v7": header(b"a.txt", size=3, kind=b"\0", magic=b"")
    + body(b"abc")
    + header(b"d/", kind=b"\0", magic=b"")
    + header(b"b.txt", kind=b"\0", magic=b"")
    + END,
    "contiguous": header(b"a.txt", size=3, kind=b"7") + body(b"abc") + header(b"b.txt") + END,
    "devices": header(b"c", kind=b"3", size=9)
    + header(b"b", kind=b"4")
    + header(b"f.txt", kind=b"6")
    + header(b"b.txt")
    + END,
    "unknown kind with a body": header(b"v.txt", kind=b"V", size=3) + body(b"abc") + header(b"b.txt") + END,
    "folder with a size": header(b"d", kind=b"5", size=900) + header(b"b.txt") + END,
    "spaces around the size": header(b"a.txt", size=b"         3 \0"[:12]) + body(b"abc") + header(b"b.txt") + END,
    "signed checksum": header("é.txt".encode(), size=3, signed=True) + body(b"abc") + header(b"b.txt") + END,
    "signed checksums among many": b"".join(
        header(f"é{n}.txt".encode(), size=3, signed=n == 50) + body(b"abc") for n in range(99)
    )
    + END,
    "rubbish after the name's end": header(b"a.txt\0rubbish", size=3) + body(b"abc") + header(b"b.txt\0z") + END,
    "rubbish after the name's end among many": b"".join(
        header(b"a%d.txt\0zz" % n, size=3) + body(b"abc") for n in range(99)
    )
    + END,
    "bytes that are no UTF-8": tar_bytes([("a\udcff.txt", b"1")] * 40, tarfile.GNU_FORMAT),
    "one zero block, then members": header(b"a.txt", size=3) + body(b"abc") + b"\0" * 512 + header(b"b.txt") + END,
    "only an end": END,
}


@pytest.mark.parametrize("window", [1, 2048, 5000, 1 << 20])
@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_agree_with_tarfile(name: str, window: int) -> None:
    """Names, header offsets, data offsets and sizes equal tarfile's, whatever is fed at a time."""
    found = scan(DIALECTS[name], window=window)
    assert rows(found.members()) == by_tarfile(DIALECTS[name])
    assert not found.missing_end


FILES = st.lists(
    st.tuples(
        st.one_of(
            st.text(st.sampled_from("ab./é"), min_size=1, max_size=6), st.sampled_from([LONG, "d/", "x" * 101 + ".a"])
        ).filter(lambda name: name.strip("/")),
        st.integers(0, 1600),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(
    files=FILES,
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.sampled_from([0, 1.5]),
    window=st.integers(1, 200_000),
)
def test_any_tar_is_scanned_as_tarfile_does(files: list[tuple[str, int]], form: int, mtime: float, window: int) -> None:
    """Random tars, whatever the mixture of long names, folders and extension headers, agree with tarfile."""
    data = tar_bytes([(name, b"\xaa" * size) for name, size in files], form, mtime=mtime)
    assert rows(members(data, window=window)) == by_tarfile(data)


def test_sizes_over_8_gib_need_no_body_bytes() -> None:
    """A base-256 size is jumped over: the scanner asks for the header behind a 9 GiB body at once."""
    scanner = TarScanner(SHARD)
    size = 9 << 30
    scanner.feed(header(b"a.bin", size=b"\x80" + size.to_bytes(11, "big")))
    assert (scanner.offset, scanner.need, scanner.finished) == (512 + size, 512, False)
    scanner.feed(END)
    assert rows(scanner.members()) == [("a.bin", 0, 512, size)]


def test_missing_end_is_noted() -> None:
    """A shard that stops after a whole member, or inside its end blocks, is accepted and marked."""
    whole = header(b"a.txt", size=3) + body(b"abc")
    assert scan(whole).missing_end
    assert scan(whole + b"\0" * 100).missing_end
    assert not scan(whole + b"\0" * 512).missing_end


GOOD = header(b"k/a.txt", size=3) + body(b"abc")
DAMAGED = {
    "an empty file": (b"", "is empty: 0 bytes", 0),
    "a truncated header": (GOOD + header(b"b.txt")[:200], "ends inside a header.*512 bytes.*200", 1024),
    "a truncated body": (GOOD + header(b"b.txt", size=600) + b"x" * 100, "ends inside the body of 'b.txt'", 1024),
    "a body without its padding": (GOOD + header(b"b.txt", size=3) + b"abc", "ends inside the body of 'b.txt'", 1024),
    "a truncated extension": (
        GOOD + header(b"x", kind=b"x", size=900) + b"9 a=b",
        "ends inside an extension header",
        1024,
    ),
    "an extension before the end": (
        GOOD + extension(b"x", pax(path="q.txt")) + END,
        "extension header.*no member follows",
        1024,
    ),
    "a garbled header": (GOOD + b"rubbish " * 64 + END, "checksum", 1024),
    "a garbled header among many": (GOOD * 50 + GOOD[:9] + b"!" + GOOD[10:] + GOOD * 50 + END, "checksum", 51200),
    "no tar at all": (b"\x00\x01hello" * 100, "checksum", 0),
    "a size that is no number": (GOOD + header(b"b.txt", size=b"zzzzzzzzzzz\0") + END, "size of 'b.txt'.*octal", 1024),
    "a negative size": (GOOD + header(b"b.txt", size=b"\xff" * 12) + END, "size of 'b.txt'", 1024),
    "a hard link": (
        GOOD + header(b"b.txt", kind=b"1", link=b"k/a.txt") + END,
        "'b.txt' is a hard link.*dereference",
        1024,
    ),
    "a symbolic link": (GOOD + header(b"b.txt", kind=b"2", link=b"a.txt") + END, "'b.txt' is a symbolic link", 1024),
    "a sparse member": (GOOD + header(b"b.txt", kind=b"S") + END, "'b.txt' is a sparse member", 1024),
    "a sparse member in PAX": (
        GOOD + extension(b"x", pax(GNU__sparse__major="1")) + header(b"b.txt") + END,
        "'b.txt' is a sparse member",
        1024,
    ),
    "a sparse member in PAX among many": (
        GOOD * 50 + extension(b"x", pax(GNU__sparse__major="1")) + GOOD * 50,
        "'k/a.txt' is a sparse member",
        51200,
    ),
    "a huge extension": (
        GOOD + header(b"x", kind=b"L", size=1 << 30) + END,
        "extension header of 1073741824 bytes",
        1024,
    ),
    "a garbled PAX record": (GOOD + extension(b"x", b"path=a.txt\nx") + header(b"b.txt") + END, "PAX record", 1024),
    "a PAX record of no length": (
        GOOD + extension(b"x", b"0 path=a.tx\n") + header(b"b.txt") + END,
        "PAX record",
        1024,
    ),
    "a PAX size that is no number": (
        GOOD + extension(b"x", pax(size="-5")) + header(b"b.txt") + END,
        "PAX size '-5'",
        1024,
    ),
    "a NUL in a PAX path": (GOOD + extension(b"x", pax(path="a\0b")) + header(b"b.txt") + END, "NUL", 1024),
}


@pytest.mark.parametrize("window", [1, 1 << 20])
@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named_with_its_offset(name: str, window: int) -> None:
    """A damaged or refused member raises TarError with the shard and the offset of its (first) header."""
    data, text, offset = DAMAGED[name]
    with pytest.raises(TarError, match=f"(?s){text}") as caught:
        scan(data, window=window)
    assert (caught.value.shard, caught.value.offset) == (SHARD, offset)
    assert SHARD in str(caught.value)
    assert f"byte {offset}" in str(caught.value) or not data


@settings(max_examples=200, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=3000), st.binary(max_size=600).map(lambda junk: GOOD + junk + END)),
    window=st.integers(1, 4096),
)
def test_any_bytes_give_members_or_a_tar_error(data: bytes, window: int) -> None:
    """Arbitrary bytes never hang the scanner nor raise anything but TarError."""
    try:
        found = members(data, window=window)
    except TarError:
        return
    assert (found.data + found.size <= len(data)).all()


@pytest.mark.parametrize("name", ["ustar", "pax times, as webdataset's TarWriter gives"])
def test_plain_headers_are_checked_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path takes whole runs, webdataset's own PAX headers included, and asks for no header alone."""
    monkeypatch.setattr("seta_stream.corpus.fastruns.checks", None)
    stepped = []
    monkeypatch.setattr(TarScanner, "_take", lambda *facts: stepped.append(facts))
    assert len(members(DIALECTS[name])) == len(MANY)
    assert not stepped


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 511), value=st.integers(0, 255), row=st.integers(0, 59))
def test_a_flipped_header_byte_is_noticed(at: int, value: int, row: int) -> None:
    """Changing any byte of a header is refused at that header's offset (the checksum's own digits apart)."""
    data = bytearray(GOOD * 60 + END)
    if data[row * 1024 + at] == value or at in range(148, 156):
        return
    data[row * 1024 + at] = value
    with pytest.raises(TarError) as caught:
        members(bytes(data))
    assert caught.value.offset == row * 1024


@pytest.mark.parametrize("window", [512, 4096, 1 << 20])
def test_the_last_members_are_known(window: int) -> None:
    """Where their headers and bodies begin, in order, whether they were stepped through or came in a run."""
    data = tar_bytes([(f"{n:03d}.bin", b"x" * (n * 37 % 1500)) for n in range(90)])
    scanner = scan(data, window=window)
    whole = scanner.members()
    fresh = scan(data, window=window)
    for most in (1, 7, 40, 90, 200):
        assert fresh.last(most) == (whole.start[-most:].tolist(), whole.data[-most:].tolist())
    assert scan(tar_bytes([])).last(5) == ([], [])
