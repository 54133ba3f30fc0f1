"""Members made to do harm as they are decoded: each is a DecodeError that names its sample, and runs nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from fuzz.making import tar
from limits import MIB, within
from PIL import Image

from seta_stream import SetaStream
from seta_stream.cli.cards import small
from seta_stream.errors import DecodeError
from seta_stream.read import decode as decoding
from seta_stream.read.curriculum import EfficientTrain
from seta_stream.read.decode import decode_sample, decoder, unzipped
from seta_stream.read.images import image_formats


def decoded(field: str, data: bytes, how: str = "pil") -> Any:
    """Return the value of a field, as a stream decodes it."""
    decode: Any = decoder(how)
    return decode_sample({"__key__": "k", "__url__": "u", field: data}, decode)[field]


class Harm:
    """Makes a file as it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


def saved(array: np.ndarray[Any, Any]) -> bytes:
    """Return an .npy file, of objects too."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npy(header: str, body: bytes = b"") -> bytes:
    """Return an .npy file with any header; "dtype shape" stands for one of these."""
    kind, _, shape = header.partition(" ")
    if kind[:1] in {"<", "|"}:
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape},)}}"
    told = header.encode().ljust(117) + b"\n"
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(told)) + told + body


def npz(**files: bytes) -> bytes:
    """Return an .npz file of any content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(f"{name}.npy", data)
    return out.getvalue()


def gzip_bomb(times: int) -> bytes:
    """Return so many MiB of zeros, as gzip."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(times)) + packer.flush()


@pytest.mark.parametrize("field", ["pkl", "pickle", "pyd", "pth", "x.pkl", "pkl.gz", "npy", "npz", "a.npy.gz"])
def test_no_field_is_unpickled(field: str, tmp_path: Path) -> None:
    """Neither by name nor inside numpy's files; the same bytes do run where somebody loads them."""
    place = tmp_path / "harm"
    objects = np.array([Harm(place)], object)
    kind = field.removesuffix(".gz").rpartition(".")[2]
    data = {"npy": saved(objects), "npz": npz(a=saved(objects))}.get(kind, pickle.dumps(Harm(place)))
    data = gzip.compress(data) if field.endswith(".gz") else data
    for how in ("basic", "pil"):
        with pytest.raises(
            DecodeError, match=rf"Cannot decode field '{field}' .*(never|Object arrays cannot be loaded)"
        ):
            decoded(field, data, how)
    assert not place.exists()
    if kind == "pkl" and not field.endswith(".gz"):
        pickle.loads(data)
        assert place.exists(), "the test would not show it"


BOMBS = {
    "npy of 2^60 numbers": ("npy", npy("<f8 1152921504606846976")),
    "npy of more than 2^64": ("npy", npy("|u1 4294967296, 4294967297")),
    "npy of a negative number": ("npy", npy("<f8 -1")),
    "npy whose header is a call": ("npy", npy("__import__('os').mkdir('/tmp/never-made-by-npy')")),
    "npy of objects, renamed": ("npy", npy("|O 1", pickle.dumps([1]))),
    "npz that is no zip": ("npz", b"PK\x03\x04" + b"\0" * 60),
    "npz that is a pickle": ("npz", pickle.dumps([1])),
    "npz that is an npy": ("npz", saved(np.arange(3))),
    "msgpack of 2^32 things": ("mp", b"\xdd\xff\xff\xff\xff"),
    "msgpack of 2^32 keys": ("msg", b"\xdf\xff\xff\xff\xff"),
    "msgpack nested 100,000 deep": ("mp", b"\x91" * 100_000),
    "msgpack with a list as key": ("mp", b"\x81\x90\x01"),
    "JSON nested 100,000 deep": ("json", b"[" * 100_000),
    "JSON of a number of a million digits": ("json", b"9" * 1_000_000),
    "a class of a million digits": ("cls", b"9" * 1_000_000),
    "text that is none": ("txt", b"\xff\xfe\xfd"),
    "gzip that ends early": ("txt.gz", gzip.compress(b"text" * 100)[:-9]),
    "gzip with a wrong checksum": ("txt.gz", gzip.compress(b"text" * 100)[:-8] + b"\0" * 8),
    "gzip of gzip of nothing": ("gz.gz", gzip.compress(b"x")),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_malicious_field_is_refused(name: str) -> None:
    """In the memory that its bytes justify."""
    field, data = BOMBS[name]
    with (
        within(32 * MIB, 5, traced="npy" not in name),
        pytest.raises(DecodeError, match=rf"Cannot decode field '{field}'"),
    ):
        decoded(field, data)
    assert not Path("/tmp/never-made-by-npy").exists()


def test_extension_types_stay_data() -> None:
    """msgpack's own types of others are kept as bytes with a number: nobody is asked to make objects of them."""
    found = decoded("mp", msgpack.packb({"a": msgpack.ExtType(5, b"x")}))
    assert found == {"a": msgpack.ExtType(5, b"x")}


@pytest.mark.parametrize("field", ["txt.gz", "npy.gz", "gz"])
def test_a_gzip_bomb_stops_at_its_limit(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB unpack to the limit and a little more, never to what they would."""
    monkeypatch.setattr(decoding, "UNPACKED_FREE", MIB)
    bomb = gzip_bomb(64)
    assert len(bomb) * decoding.UNPACKED_PER_BYTE < 4 * MIB
    with within(10 * MIB, 5), pytest.raises(DecodeError, match=r"unpack to more than .*give decode= a callable"):
        decoded(field, bomb)


def test_many_streams_behind_another_are_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gzip has it; the limit is that of all together."""
    monkeypatch.setattr(decoding, "UNPACKED_FREE", 1000)
    monkeypatch.setattr(decoding, "UNPACKED_PER_BYTE", 1)
    assert unzipped(gzip.compress(b"ab") + gzip.compress(b"cd") + b"\0\0") == b"abcd"
    assert unzipped(gzip.compress(b"")) == b""
    with pytest.raises(ValueError, match="unpack to more than 1000"):
        unzipped(gzip.compress(b"x" * 400) * 3)
    with pytest.raises(EOFError, match="ends before its end-of-stream mark"):
        unzipped(b"")


def test_an_npz_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the archive says that it holds is compared first."""
    monkeypatch.setattr(decoding, "UNPACKED_FREE", MIB)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w") as inside:
        inside.write(npy(f"|u1 {64 * MIB}"))
        for _ in range(64):
            inside.write(bytes(MIB))
    with within(8 * MIB, 5), pytest.raises(DecodeError, match=r"unpack to more than 20\d+"):
        decoded("npz", out.getvalue())


def test_real_archives_are_within_the_limits() -> None:
    """Zeros by the ten MiB are allowed: a mask is nothing else."""
    mask = np.zeros((2000, 2000), np.uint8)
    assert decoded("npz", npz(a=saved(mask)))["a"].shape == (2000, 2000)
    assert decoded("npy.gz", gzip.compress(saved(mask))).shape == (2000, 2000)


# ---- pictures


def picture(kind: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """Return a picture as Pillow writes it."""
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


def bomb_png(side: int) -> bytes:
    """Return a PNG that claims side × side pixels, and holds some KiB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(MIB))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) + chunk(
        b"IDAT", rows) + chunk(b"IEND", b"")  # fmt: skip


@pytest.mark.parametrize("how", ["pil", "rgb8", "rgb"])
def test_a_picture_of_too_many_pixels_is_refused(how: str) -> None:
    """Pillow's own limit holds: 400 million pixels in some KiB take no memory."""
    with within(16 * MIB, 5), pytest.raises(DecodeError, match=r"DecompressionBombError.*could be decompression bomb"):
        decoded("png", bomb_png(20_000), how)
    stage = EfficientTrain(num_epochs=10).at(0.0).for_sample(1, 2, 3)
    with within(16 * MIB, 5), pytest.raises(DecodeError, match="DecompressionBombError"):
        decode_sample({"__key__": "k", "__url__": "u", "png": bomb_png(20_000)}, stage)
    with within(16 * MIB, 5), pytest.raises(DecodeError, match=r"20000 × 20000 pixels, too many|DecompressionBomb"):
        small(bomb_png(20_000))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_in_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow alone would hand it to Ghostscript, whatever the field is called."""
    from PIL import EpsImagePlugin

    mark = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    for field in ("jpg", "png", "tiff"):
        for how in ("pil", "rgb8", "rgb"):
            with pytest.raises(DecodeError, match="cannot identify image file"):
                decoded(field, EPS, how)
    with pytest.raises(DecodeError, match="cannot identify image file"):
        small(EPS)
    assert not mark.exists()
    opened = Image.open(io.BytesIO(EPS))
    with pytest.raises((subprocess.CalledProcessError, OSError)):
        opened.load()
    assert mark.exists(), "the test would not show it"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "PPM", "GIF", "BMP", "TIFF"])
def test_pictures_are_read_by_what_they_are(kind: str) -> None:
    """A field `jpg` often holds another format in crawled corpora; those that pictures have are all read."""
    assert decoded("jpg", picture(kind), "rgb8").shape == (8, 8, 3)
    assert kind in image_formats()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX", "SGI", "TGA"])
def test_formats_that_no_field_is_of_are_not_read(kind: str) -> None:
    """Less code of others meets bytes of strangers."""
    with pytest.raises(DecodeError, match="cannot identify image file"):
        decoded("jpg", picture(kind))


def test_a_stream_skips_what_does_harm(tmp_path: Path) -> None:
    """With on_error="skip" a bomb costs its own sample, no more."""
    place = tmp_path / "x.tar"
    place.write_bytes(tar([("0.png", picture("PNG")), ("1.png", bomb_png(20_000)), ("2.png", picture("PNG"))]))
    stream = SetaStream(str(place), decode="rgb8", on_error="skip", shuffle=False)
    with pytest.warns(match="DecompressionBombError"):
        assert [sample["__weight__"] for sample in stream] == [1.0, 0.0, 1.0]


def test_json_of_any_size_is_in_proportion() -> None:
    """Values take some thirty times their bytes; nothing multiplies further."""
    data = json.dumps([[] for _ in range(100_000)]).encode()
    with within(40 * len(data)):
        assert len(decoded("json", data)) == 100_000
