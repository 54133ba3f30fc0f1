"""Photos: 500 × 375 colour JPEGs of 60–100 KB that look, to a decoder and a disk, like those of a camera.

Takes a seed; gives samples (`jpg`, `cls`). Reads nothing. Gradients, clouds of noise at several scales, and shapes with
edges; the JPEG quality is chosen per picture so that its size falls into the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.demo.randomness import NumberedRandom
from seta_stream.demo.shards import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH: Final = 500
HEIGHT: Final = 375
MIN_BYTES: Final = 60_000
MAX_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True)
class PhotoMaker:
    """A corpus of photos.

    Args:
        samples: how many.
        seed: decides everything.
        classes: labels are 0 … classes − 1; the label shows in the picture's colours and shapes.
        name: first part of the shards' names.
    """

    samples: int
    seed: int
    classes: int = 1000
    name: str = "photos"

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return {"samples": self.samples, "seed": self.seed, "classes": self.classes}

    def make(self, first: int, stop: int) -> Iterator[Sample]:
        """Give the samples first … stop − 1."""
        samples = NumberedRandom(self.seed, "photos")
        themes = NumberedRandom(self.seed, "photo classes")
        for number in range(first, stop):
            random = samples.at(number)
            label = int(random.integers(self.classes))
            picture = paint(themes.at(label).random(8), random)
            target = int(random.integers(MIN_BYTES + 8_000, MAX_BYTES - 8_000))
            yield Sample(f"{number:09d}", (("jpg", encode(picture, target)), ("cls", str(label).encode())))


def paint(theme: NDArray[np.float64], random: np.random.Generator) -> Image:
    """Return an RGB picture.

    Args:
        theme: float64 [8] in [0, 1): what pictures of one class share.
        random: gives the rest.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415  (an extra)

    size = (WIDTH, HEIGHT)
    sky = Image.fromarray((random.random((2, 2, 3)) * 90 + theme[:3] * 150).astype(np.uint8))
    picture = sky.resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for x, y, width, height, shade, tint in random.random((4 + int(8 * theme[3]), 6)).tolist():
        left, top = int(x * WIDTH) - 40, int(y * HEIGHT) - 40
        box = (left, top, left + 20 + int(width * 180), top + 20 + int(height * 140))
        colour = (int(255 * shade), int(255 * tint), int(255 * theme[4]))
        (draw.ellipse if theme[5] < shade else draw.rectangle)(box, fill=colour)
    pixels = np.asarray(picture).astype(np.int16)
    # Clouds: coarse ones lie soft over large parts, fine ones look like grass and gravel.
    for step, strength in ((32, 40), (8, 30), (2, 12 + 24 * theme[6])):
        coarse = (random.random((HEIGHT // step + 1, WIDTH // step + 1)) * 2 * strength).astype(np.uint8)
        cloud = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)
        pixels += np.asarray(cloud).astype(np.int16)[:, :, None] - np.int16(strength)
    grain = np.frombuffer(random.bytes(WIDTH * HEIGHT), np.uint8).reshape(HEIGHT, WIDTH, 1) >> 4
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def encode(picture: Image, target_bytes: int) -> bytes:
    """Return a JPEG of about `target_bytes`, by bisecting the quality until within MIN_BYTES … MAX_BYTES."""
    low, high, quality = 20, 98, 85
    while True:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        size = file.tell()
        if low >= high or abs(size - target_bytes) < 8_000:
            return file.getvalue()
        low, high = (quality + 1, high) if size < target_bytes else (low, quality - 1)
        quality = (low + high) // 2
