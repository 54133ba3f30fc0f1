"""The sidecar file, and the envelope that all state files share."""

from __future__ import annotations

import struct
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seta_stream.errors import SidecarError
from seta_stream.losses.envelope import pack_file, peek_header
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.sidecar import SIDECAR, pack, unpack

DIGEST = bytes(range(16))
NAN = float("nan")

GOLDEN_HALF = bytes.fromhex(
    "534554414c4f5353"  # SETALOSS
    "0100000032000000"  # version 1, zero, 50 bytes of header
    "83"  # {samples: 3, digest: …, losses: "float16"}
    "a773616d706c657303"
    "a6646967657374c410000102030405060708090a0b0c0d0e0f"
    "a66c6f73736573a7666c6f61743136"
    "003c00b8007e"  # 1.0, -0.5, never seen
    "0102ff"  # ages
    "d19db58d"  # CRC32
)
GOLDEN_CODES = bytes.fromhex(
    "534554414c4f5353"
    "0100000031000000"
    "83"
    "a773616d706c657303"
    "a6646967657374c410000102030405060708090a0b0c0d0e0f"
    "a66c6f73736573a6636f64653230"
    "00f82b74c9ffff0f0000"  # pairs of 20 bits: 1.0 = bf800 and 1e6 = c9742, never seen = fffff and nothing
    "0102ff"
    "4a02b381"
)


def test_golden_bytes_of_float16_losses():
    """The format does not change by accident."""
    losses, ages = np.array([1.0, -0.5, NAN], np.float32), np.array([1, 2, 9], np.uint8)
    assert pack(losses, ages, DIGEST) == GOLDEN_HALF
    found, found_ages, _ = unpack(GOLDEN_HALF, DIGEST)
    assert np.array_equal(found, losses, equal_nan=True)
    assert found_ages.tolist() == [1, 2, 255]


def test_golden_bytes_of_packed_codes():
    """A shard with one loss that float16 lacks holds 20-bit codes."""
    losses, ages = np.array([1.0, 1e6, NAN], np.float32), np.array([1, 2, 9], np.uint8)
    assert pack(losses, ages, DIGEST) == GOLDEN_CODES
    found, *_ = unpack(GOLDEN_CODES, DIGEST)
    assert np.array_equal(found, round_losses(losses), equal_nan=True)


@given(hnp.arrays(np.uint32, st.integers(0, 50)).map(lambda bits: bits.view(np.float32)), st.data())
def test_what_is_packed_comes_back(losses, data):
    """Any losses, rounded; what is not finite is never seen."""
    ages = data.draw(hnp.arrays(np.uint8, len(losses)))
    rounded = round_losses(losses) if len(losses) else losses
    rounded = np.where(np.isfinite(rounded), rounded, np.float32(NAN))
    found, found_ages, _ = unpack(pack(losses, ages, DIGEST), DIGEST)
    assert np.array_equal(found, rounded, equal_nan=True)
    assert np.array_equal(found_ages, np.where(np.isnan(rounded), 255, ages))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_sample_takes_less_than_four_bytes(scale):
    """For shards of 1,000 samples, header included, with and without float16."""
    losses = np.random.default_rng(0).exponential(scale, 1000).astype(np.float32)
    assert len(pack(losses, np.zeros(1000, np.uint8), DIGEST)) <= 4000


@given(st.data())
@settings(max_examples=300)
def test_any_flipped_byte_is_noticed(data):
    """Wherever it is, in both kinds of column."""
    whole = bytearray(data.draw(st.sampled_from([GOLDEN_HALF, GOLDEN_CODES])))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SidecarError, match="Cannot use the sidecar"):
        unpack(bytes(whole), DIGEST)


@pytest.mark.parametrize("length", range(len(GOLDEN_HALF)))
def test_any_truncation_is_noticed(length):
    """Also an empty file."""
    with pytest.raises(SidecarError, match="Cannot use the sidecar"):
        unpack(GOLDEN_HALF[:length], DIGEST)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def of_header(header: object, column: bytes = b"") -> bytes:
    packed = msgpack.packb(header)
    return sealed(b"SETALOSS" + struct.pack("<HHI", 1, 0, len(packed)) + packed + column)


GOOD = {"samples": 1, "digest": DIGEST, "losses": "float16"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04" + bytes(40), "it does not begin as one"),
        (sealed(b"SETALOSS" + struct.pack("<HHI", 3, 0, 0)), "it is of version 3 and this release reads up to 2"),
        (sealed(b"SETALOSS" + struct.pack("<HHI", 0, 0, 1) + b"\x80"), "its header is malformed"),
        (sealed(b"SETALOSS" + struct.pack("<HHI", 1, 0, 1) + b"\xc1"), "its header is not msgpack"),
        (sealed(b"SETALOSS" + struct.pack("<HHI", 1, 0, 9) + b"\x80"), "its header is malformed"),
        (of_header([1]), "its header is malformed"),
        (of_header({}), "does not say how its losses are stored"),
        (of_header(GOOD | {"losses": "float8"}), "does not say how its losses are stored"),
        (of_header(GOOD), "1 samples need 3 bytes and 0 are there"),
        (of_header(GOOD, b"\x00\x7c\x00"), "it holds infinite losses"),
        (of_header(GOOD | {"digest": b"x" * 16}, bytes(3)), "it belongs to another shard"),
        (of_header(GOOD | {"digest": 7}, bytes(3)), "belongs to another shard .digest 7"),
    ],
)
def test_a_foreign_or_future_file_is_named(data, told):
    """With its name and the reason; a whole checksum is not enough."""
    with pytest.raises(SidecarError, match=told) as caught:
        unpack(data, DIGEST, name="gen-000001-ab/000000.losses")
    assert "gen-000001-ab/000000.losses" in str(caught.value)


def test_a_damaged_checksum_is_told_with_both_values():
    """Expected and found."""
    with pytest.raises(SidecarError, match="its checksum is 00000000 and its bytes give 8db59dd1: it is damaged"):
        unpack(GOLDEN_HALF[:-4] + bytes(4), DIGEST)


def test_without_a_digest_any_shards_sidecar_is_read():
    """For tools that only look."""
    assert len(unpack(GOLDEN_HALF)[0]) == 3


@pytest.mark.parametrize(
    ("first_bytes", "header"),
    [(GOLDEN_HALF, msgpack.unpackb(GOLDEN_HALF[16:66])), (GOLDEN_HALF[:30], {}), (b"x" * 40, {}), (b"", {})],
)
def test_a_header_can_be_peeked_at(first_bytes, header):
    """And is empty where the bytes do not reach or are not ours."""
    assert peek_header(SIDECAR, first_bytes) == header
    assert peek_header(SIDECAR, pack_file(SIDECAR, {})) == {}
