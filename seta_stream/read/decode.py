"""Bytes → values: a small table over well-kept libraries, equal to WebDataset's handlers.

Takes a field's name and bytes; gives a value. No pickle, ever: fields that only pickle can read are refused. Here too
are the protocols of decoders that need more than bytes: a sample's own random numbers, or the run's progress.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from seta_stream.errors import ArgumentError, DecodeError, MissingExtraError, UnsupportedError
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
        # Numpy reads of each array no more than the archive says that it has.
        _refuse_large(sum(info.file_size for info in arrays.zip.infolist()), len(data))
        return dict(arrays)


def unzipped(data: bytes) -> bytes:
    """Return what gzip bytes hold, which may be several streams one behind another.

    Raises:
        ValueError: they unpack to more than a field may.
        EOFError, zlib.error: they are cut short, or damaged.
    """
    parts: list[bytes] = []
    rest, found = data, 0
    while rest or not parts:
        inflater = zlib.decompressobj(wbits=31)
        parts.append(inflater.decompress(rest, max(UNPACKED_FREE, UNPACKED_PER_BYTE * len(data)) - found + 1))
        found += len(parts[-1])
        _refuse_large(found, len(data))
        if not inflater.eof:
            raise EOFError("the compressed field ends before its end-of-stream mark")
        rest = inflater.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _refuse_large(found: int, packed: int) -> None:
    most = max(UNPACKED_FREE, UNPACKED_PER_BYTE * packed)
    if found > most:
        raise ValueError(
            f"its {packed} bytes unpack to more than {most}, which a few bytes can be made to do; if it is yours, give "
            "decode= a callable (field, bytes) → value that unpacks it"
        )


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

_ADDRESS: Final = re.compile(r" <[\w.]+ object at 0x[0-9a-f]+>")
"""Libraries name so what they read from, which is always the sample's bytes."""

UNPACKED_FREE: Final = 256 << 20
UNPACKED_PER_BYTE: Final = 32
"""A field (`.gz`, `.npz`) may unpack to 256 MiB in any case, and to so many times its size."""

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
        return lambda data: inner(unzipped(data))
    if image is not None and extension in IMAGE_FIELDS:
        return image_reader(*IMAGE_KINDS[image])
    return BASIC.get(extension, _unchanged)


def _unchanged(data: bytes) -> bytes:
    return data


def decode_sample(sample: dict[str, Any], decode: FieldDecode) -> dict[str, Any]:
    """Decode a sample's fields in place, and return it.

    Raises:
        DecodeError: with the shard, the key and the field, from whatever the decoder raised.
        MissingExtraError: what decodes the field is not installed.
    """
    for field, data in sample.items():
        if field.startswith("__"):
            continue
        try:
            sample[field] = decode(field, data)
        except (DecodeError, MissingExtraError):  # without its library no sample can be decoded: none is skipped
            raise
        except Exception as error:
            why = _ADDRESS.sub("", f"{type(error).__name__}: {error}")
            raise DecodeError(
                f"Cannot decode field {field!r} ({len(data)} bytes) of sample {sample['__key__']!r} in "
                f"{sample['__url__']}: {why}. Mend the sample, or use on_error='skip'.",
                shard=sample["__url__"],
                key=sample["__key__"],
            ) from error
    return sample
