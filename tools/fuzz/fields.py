"""Members as decoders read them: text, numbers, JSON, npy, npz, msgpack, gzip and pictures, whatever they are called.

The first byte says the field's name.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import warnings
from collections.abc import Iterator
from unittest.mock import patch

import msgpack
import numpy as np
from PIL import Image

from fuzz.making import refusing
from seta_stream.cli.cards import small, words
from seta_stream.read.curriculum import EfficientTrain
from seta_stream.read.decode import decode_sample, decoder

FIELDS = (
    "txt",
    "cls",
    "json",
    "npy",
    "npz",
    "mp",
    "txt.gz",
    "npy.gz",
    "jpg",
    "png",
    "tiff",
    "gif",
    "webp",
    "pkl",
    "ppm",
)
LARGEST_PIXELS = 1 << 20
"""Of a picture, so that what is allowed is done fast."""
COST = 4

DECODERS = (decoder("pil"), decoder("rgb8"), decoder("rgb"), decoder("basic"))
STAGED = EfficientTrain(num_epochs=10).at(0.0).for_sample(1, 2, 3)


def seeds() -> Iterator[bytes]:
    """Give right members of each kind."""
    array, out = np.arange(12, dtype=np.float32).reshape(3, 4), io.BytesIO()
    np.save(out, array)
    zipped = io.BytesIO()
    np.savez_compressed(zipped, a=array, b=array.astype("U3"))
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], object), allow_pickle=True)
    right = {
        "txt": "a text, € too".encode(), "cls": b"7", "json": json.dumps({"a": [1, 2.5, None, "x"]}).encode(),
        "npy": out.getvalue(), "npz": zipped.getvalue(), "mp": msgpack.packb({"a": [1, b"x", 2.5, None]}),
        "txt.gz": gzip.compress(b"text" * 9), "npy.gz": gzip.compress(out.getvalue()), "pkl": pickle.dumps([1]),
    }  # fmt: skip
    for kind, name in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("TIFF", "tiff"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("PPM", "ppm"),
    ):
        file = io.BytesIO()
        Image.new("RGB", (24, 17), (10, 200, 99)).save(file, kind)
        right[name] = file.getvalue()
    for name, data in right.items():
        yield bytes([FIELDS.index(name)]) + data
    yield bytes([FIELDS.index("npy")]) + objects.getvalue()


def one(data: bytes) -> None:
    """Decode one member in every way."""
    field, data = FIELDS[data[0] % len(FIELDS) if data else 0], data[1:]
    words(data[:1024], len(data))
    with warnings.catch_warnings(), patch.object(Image, "MAX_IMAGE_PIXELS", LARGEST_PIXELS):
        warnings.simplefilter("ignore")  # Pillow warns of odd pictures
        for decode in (*DECODERS, STAGED):
            with refusing():
                decode_sample({"__key__": "a", "__url__": "b", field: data}, decode)
        with refusing():
            picture, kind, (width, height) = small(data)
            assert kind in {"jpeg", "png"}, "another kind of picture in a page"
            assert max(width, height) <= 160, "a large picture in a page"
            assert picture[:2] in {b"\xff\xd8", b"\x89P"}, "a picture that is none in a page"
