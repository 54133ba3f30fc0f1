"""The files that repack keeps: golden bytes, and nothing that is damaged is trusted."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

from seta_stream.errors import ArgumentError, StateError
from seta_stream.losses.envelope import pack_file
from seta_stream.repack.record import RECORD, Record, pack_manifest, refuse_other, unpack_manifest

RECORDED = Record(
    fingerprint=bytes(range(16)),
    digest=bytes(range(16, 32)),
    size=10240,
    version="mtime:7",
    samples=3,
    members=6,
    extent_bytes=6144,
    pieces=((b"\x09" * 16, 5, 8),),
    order=np.array([2, 0, 1]),
)


def test_golden_bytes() -> None:
    """The format is what docs/repack.md says."""
    data = RECORDED.to_bytes()
    header = (
        b"\x88\xabfingerprint\xc4\x10" + bytes(range(16)) + b"\xa6digest\xc4\x10" + bytes(range(16, 32))
        + b"\xa7version\xc4\x07mtime:7" + b"\xa6pieces\x91\x93\xc4\x10" + b"\x09" * 16 + b"\x05\x08"
        + b"\xa4size\xcd\x28\x00" + b"\xa7samples\x03" + b"\xa7members\x06" + b"\xacextent_bytes\xcd\x18\x00"
    )  # fmt: skip
    body = b"\x02\0\0\0" + b"\0\0\0\0" + b"\x01\0\0\0"
    assert data[:-4] == b"SETAORDR\x01\0\0\0" + len(header).to_bytes(4, "little") + header + body
    assert data[-4:] == zlib.crc32(data[:-4]).to_bytes(4, "little")


def test_records_come_back() -> None:
    """What is written is read; a version of foreign bytes too."""
    odd = replace(RECORDED, version="etag:\udcff")
    for record in (RECORDED, odd):
        found = Record.from_bytes(record.to_bytes())
        assert found.order.tolist() == [2, 0, 1]
        assert {k: v for k, v in vars(found).items() if k != "order"} == {
            k: v for k, v in vars(record).items() if k != "order"
        }


def test_no_flipped_bit_is_trusted() -> None:
    """Every damaged or shortened record is refused by name."""
    data = RECORDED.to_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 4
        with pytest.raises(StateError, match="Cannot use the record x"):
            Record.from_bytes(bytes(flipped), "x")
        with pytest.raises(StateError, match="Cannot use the record x"):
            Record.from_bytes(data[:place], "x")


def crafted(body: bytes = np.arange(3, dtype="<u4").tobytes(), **changes: object) -> bytes:
    header = {
        "fingerprint": b"f", "digest": b"d", "version": b"v", "pieces": [[b"s", 0, 3]], "size": 1, "samples": 3,
        "members": 3, "extent_bytes": 1,
    }  # fmt: skip
    return pack_file(RECORD, header | changes, body)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (crafted(size=-1), "its header"),
        (crafted(size=True), "its header"),
        (crafted(digest="text"), "its header"),
        (crafted(pieces=None), "its header"),
        (crafted(pieces=[[b"s", 3, 0]]), "its header"),
        (crafted(pieces=[[b"s", 0, 1 << 40]]), "its header"),
        (crafted(pieces=[[b"s", 0, 4]]), "its order"),
        (crafted(samples=2), "its order"),
        (crafted(b"\0" * 12), "its order"),
        (crafted(b"\0" * 13), "its order"),
    ],
)
def test_content_that_cannot_be(data: bytes, what: str) -> None:
    """A whole file with impossible content is refused: an order is a permutation of the pieces' samples."""
    Record.from_bytes(crafted())
    with pytest.raises(StateError, match=f"{what} cannot be as it is"):
        Record.from_bytes(data)


def test_manifests() -> None:
    """Settings come back; what is no manifest, or a later one, is refused by name."""
    settings = {"order": "loss", "sources": [["a.tar", "00", 3]], "shards": ["a\udcff.tar"]}
    assert unpack_manifest(pack_manifest(settings), "x") == settings
    for data in (b"{", b"[]", b'{"format": "other"}', b"\xff"):
        with pytest.raises(StateError, match=r"Cannot use x: it is not the manifest of a repack\."):
            unpack_manifest(data, "x")
    later = pack_manifest(settings).replace(b'"version": 1', b'"version": 2')
    with pytest.raises(StateError, match="Cannot use x: it is of version 2, and this release reads version 1"):
        unpack_manifest(later, "x")


def test_what_differs_is_told() -> None:
    """One sentence names every setting that is another, and of a list the first place."""
    found = {"order": "loss", "shard_bytes": None, "sources": [["a", 1], ["b", 2]], "shards": ["a", "b"]}
    refuse_other(found, {**found, "kept": "gen"}, "/to")
    wanted = {"order": "key", "shard_bytes": 5, "sources": [["a", 1], ["c", 2]], "shards": ["a"]}
    with pytest.raises(ArgumentError, match="Cannot repack into /to: it holds another repack") as caught:
        refuse_other(wanted, found, "/to")
    for text in (
        "order is 'key' now and was 'loss'",
        "shard_bytes is 5 now and was None",
        "sources: number 1 is ['c', 2] now and was ['b', 2]",
        "shards are 1 now and were 2",
    ):
        assert text in str(caught.value)
