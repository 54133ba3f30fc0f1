"""Bytes → values: a small table over well-kept libraries, equal to WebDataset's handlers.

Takes a field's name and bytes; gives a value. No pickle, ever: fields that only pickle can read are refused.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np

from seta_stream.errors import ArgumentError, DecodeError, UnsupportedError

Decode = Callable[[str, bytes], Any]


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _npy(data: bytes) -> Any:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _msgpack(data: bytes) -> Any:
    import msgpack  # noqa: PLC0415  (rarely needed)

    return msgpack.unpackb(data)


def _refused(data: bytes) -> Any:
    raise UnsupportedError(
        f"This field of {len(data)} bytes is a pickle, which runs code of whoever wrote it, and seta_stream never "
        "loads one. Give decode= a callable (field, bytes) → value if you trust the corpus, or fields= without it."
    )


BASIC: Final[dict[str, Callable[[bytes], Any]]] = {
    **dict.fromkeys(("txt", "text", "transcript"), _text),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), int),
    **dict.fromkeys(("json", "jsn"), json.loads),
    **dict.fromkeys(("mp", "msg"), _msgpack),
    "npy": _npy,
    "npz": _npz,
    **dict.fromkeys(("pkl", "pickle", "pyd", "pth"), _refused),
}
"""By the last extension of a field. What is in no table stays bytes."""

IMAGE_FIELDS: Final = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "ppm", "pgm", "pbm", "pnm", "webp", "bmp", "gif", "tif", "tiff"}
)

IMAGE_KINDS: Final[dict[str, tuple[str, str]]] = {
    "pil": ("pil", "RGB"),
    "pilrgb": ("pil", "RGB"),
    "pill": ("pil", "L"),
    "pilrgba": ("pil", "RGBA"),
    "rgb8": ("uint8", "RGB"),
    "rgba8": ("uint8", "RGBA"),
    "l8": ("uint8", "L"),
    "rgb": ("float32", "RGB"),
    "rgba": ("float32", "RGBA"),
    "l": ("float32", "L"),
}
"""WebDataset's names → (what comes back, mode): a Pillow image; uint8 [height, width(, channels)]; float32 in 0 … 1."""


def decoder(decode: str | Decode | None) -> Decode | None:
    """Return the callable that an option names.

    Args:
        decode: None for bytes; "basic" for text, numbers, json, npy and msgpack; one of IMAGE_KINDS for these and
            images; or a callable (field, bytes) → value.

    Raises:
        ArgumentError: for any other name.
    """
    if decode is None or callable(decode):
        return decode
    if decode == "basic":
        return _Table(None)
    if decode in IMAGE_KINDS:
        return _Table(decode)
    if decode.startswith("torch"):
        raise ArgumentError(
            f"decode={decode!r} makes torch tensors, and this stream knows no framework: use decode="
            f"{decode.removeprefix('torch') or 'rgb'!r}, and torch.from_numpy in your collate function."
        )
    raise ArgumentError(
        f"decode={decode!r} is no decoder: give None, 'basic', {', '.join(map(repr, IMAGE_KINDS))}, or a callable "
        "(field, bytes) → value."
    )


class _Table:
    """Decodes by the last extension of the field."""

    def __init__(self, image: str | None) -> None:
        self.image = image

    def __call__(self, field: str, data: bytes) -> Any:
        return _by_field(field, self.image)(data)


@lru_cache(maxsize=256)
def _by_field(field: str, image: str | None) -> Callable[[bytes], Any]:
    extension = field.rpartition(".")[2]
    if extension == "gz":
        inner = _by_field(field.removesuffix("gz").rstrip("."), image)
        return lambda data: inner(gzip.decompress(data))
    if image is not None and extension in IMAGE_FIELDS:
        return _image_reader(*IMAGE_KINDS[image])
    return BASIC.get(extension, _unchanged)


def _unchanged(data: bytes) -> bytes:
    return data


def _image_reader(kind: str, mode: str) -> Callable[[bytes], Any]:
    try:
        from PIL import Image  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise DecodeError(
            "Images are decoded by Pillow, which is not installed: pip install 'seta-stream[image]', or give decode= "
            "a callable."
        ) from error

    def read(data: bytes) -> Any:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image = opened if opened.mode == mode else opened.convert(mode)
        if kind == "pil":
            return image
        if kind == "uint8":
            return np.array(image)  # a copy: torch wants arrays that can be written to
        return np.asarray(image).astype(np.float32) / np.float32(255)

    return read


def decode_sample(sample: dict[str, Any], decode: Decode) -> dict[str, Any]:
    """Decode a sample's fields in place, and return it.

    Raises:
        DecodeError: with the shard, the key and the field, from whatever the decoder raised.
    """
    for field, data in sample.items():
        if field.startswith("__"):
            continue
        try:
            sample[field] = decode(field, data)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(
                f"Cannot decode field {field!r} ({len(data)} bytes) of sample {sample['__key__']!r} in "
                f"{sample['__url__']}: {type(error).__name__}: {error}. Mend the sample, or use on_error='skip'.",
                shard=sample["__url__"],
                key=sample["__key__"],
            ) from error
    return sample
