"""Bytes → values: a small table over well-kept libraries, equal to WebDataset's handlers.

Takes a field's name and bytes; gives a value. No pickle, ever: fields that only pickle can read are refused. Here too
are the protocols of decoders that need more than bytes: a sample's own random numbers, or the run's progress.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from seta_stream.errors import ArgumentError, DecodeError, UnsupportedError
from seta_stream.read.images import image_reader

FieldDecode = Callable[[str, bytes], Any]
"""(field, bytes) → value."""


@runtime_checkable
class Seeded(Protocol):
    """A decoder that draws random numbers, the same ones for a sample whoever reads it."""

    def for_sample(self, seed: int, epoch: int, number: int) -> FieldDecode:
        """Return what decodes the fields of one sample.

        Args:
            seed: of the stream.
            epoch: that is read.
            number: the sample's id.
        """
        ...


@runtime_checkable
class Staged(Protocol):
    """A decoder that changes as the run goes on; a whole step has one. It may have `num_epochs`, the run's length."""

    def at(self, progress: float) -> FieldDecode | Seeded:
        """Return the decoder of a step; one that equals its neighbour's shares its work.

        Args:
            progress: samples consumed before the step over samples planned for the run, 0 … 1.
        """
        ...


Decode = FieldDecode | Seeded | Staged
"""What `decode=` takes besides names."""


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
            images; a callable (field, bytes) → value; or an object that is Seeded or Staged.

    Raises:
        ArgumentError: for any other name, and for the class of a staged decoder.
    """
    if isinstance(decode, type) and issubclass(decode, Staged):
        raise ArgumentError(f"decode={decode.__name__} is a class: give one made from it, as {decode.__name__}(…).")
    if decode is None or callable(decode) or isinstance(decode, Seeded | Staged):
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


def basic(field: str, data: bytes) -> Any:
    """Return the value of a field that is no picture: text, number, json, npy, msgpack; else its bytes."""
    return _by_field(field, None)(data)


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
        return image_reader(*IMAGE_KINDS[image])
    return BASIC.get(extension, _unchanged)


def _unchanged(data: bytes) -> bytes:
    return data


def decode_sample(sample: dict[str, Any], decode: FieldDecode) -> dict[str, Any]:
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
