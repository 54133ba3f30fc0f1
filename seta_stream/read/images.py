"""Pictures, by Pillow: whole, or cut and scaled to a square with no more decoding than the square needs.

Takes bytes and a mode; gives Pillow images and numpy arrays. Pure but for the import of Pillow, an extra, on first use.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from seta_stream.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

Box = tuple[int, int, int, int]
"""left, top, right, bottom, in pixels of the whole picture."""

CropOf = Callable[[int, int], Box]
"""(width, height) → what is cut out."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "PPM", "GIF", "BMP", "TIFF", "MPO", "JPEG2000", "AVIF")

DCT_SCALES: Final = (8, 4, 2)
"""A JPEG's blocks of 8 × 8 can be decoded at an eighth, a quarter or half of their width."""


def pillow() -> ModuleType:
    """Return PIL.Image.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingExtraError(
            "Images are decoded by Pillow, which is not installed: pip install 'seta-stream[image]', or give decode= "
            "a callable."
        ) from error
    return Image


@lru_cache(maxsize=1)
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read, whatever a field is called.

    Pillow knows some forty, and looks at the bytes alone: a field `jpg` could hold PostScript, for which it starts
    Ghostscript.
    """
    module = pillow()
    from PIL import Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401, PLC0415  (they register)

    with suppress(ImportError):  # new in Pillow 11.3
        from PIL import AvifImagePlugin  # noqa: F401, PLC0415  (likewise)
    module.preinit()
    return tuple(kind for kind in _FORMATS if kind in module.OPEN)


def image_reader(kind: str, mode: str) -> Callable[[bytes], Any]:
    """Return what decodes whole pictures: to "pil", "uint8" or "float32" (see decode.IMAGE_KINDS) of a Pillow mode."""
    module, kinds = pillow(), image_formats()

    def read(data: bytes) -> Any:
        with module.open(io.BytesIO(data), formats=kinds) as opened:
            opened.load()
            image = opened if opened.mode == mode else opened.convert(mode)
        if kind == "pil":
            return image
        if kind == "uint8":
            return np.array(image)  # a copy: torch wants arrays that can be written to
        return np.asarray(image).astype(np.float32) / np.float32(255)

    return read


def read_square(data: bytes, resolution: int, mode: str, crop_of: CropOf) -> Image:
    """Return a picture's crop as a square of `resolution` × `resolution` pixels.

    A JPEG is decoded at the smallest DCT scale at which the crop still has `resolution` pixels each way; then, as any
    other picture, it is resized by Pillow's bicubic filter, which widens with the reduction and so does not alias.

    Args:
        data: of a file that Pillow reads.
        resolution: pixels of a side.
        mode: Pillow's, "RGB", "L", …
        crop_of: says what is cut out of a whole picture of some width and height.
    """
    module = pillow()
    with module.open(io.BytesIO(data), formats=image_formats()) as opened:
        width, height = opened.size
        box = crop_of(width, height)
        scale = dct_scale(box, resolution)
        # None for what is no JPEG; else (mode, the whole picture's box after the reduction, fractions kept).
        drafted = opened.draft(mode, (max(width // scale, 1), max(height // scale, 1)))
        opened.load()
        image: Image = opened if opened.mode == mode else opened.convert(mode)
    reduced: float = 1.0 if drafted is None else drafted[1][2] / width
    left, top, right, bottom = (edge * reduced for edge in box)
    return image.resize((resolution, resolution), module.Resampling.BICUBIC, (left, top, right, bottom))


def dct_scale(box: Box, resolution: int) -> int:
    """Return by how much a JPEG may be reduced so that the crop keeps `resolution` pixels each way: 8, 4, 2 or 1."""
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    return next((scale for scale in DCT_SCALES if side >= scale * resolution), 1)
