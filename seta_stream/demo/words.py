"""Word images: small grey JPEGs of one word each, as rendered scene-text sets have them.

Takes a lexicon, fonts and a seed; gives samples (`jpg`, `txt`, and `json` where asked for). Reads font files. Half of
the samples are near-copies of others and a few labels are wrong, as in the sets that people train on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.demo.fonts import load_font
from seta_stream.demo.lexicon import ALPHABET, Lexicon, zipf_ranks
from seta_stream.demo.randomness import NumberedRandom
from seta_stream.demo.shards import Sample

HEIGHT: Final = 32
WIDTH: Final = 96
FONT_SIZE: Final = 26
COPIES: Final = 10
"""Near-copies per original, on average, among the repeated samples."""

_STYLE_DRAWS: Final = 20


@dataclass(frozen=True, slots=True)
class WordMaker:
    """A corpus of word images.

    Args:
        samples: how many.
        seed: decides everything together with the settings below.
        lexicon: where the words come from.
        fonts: names from `find_fonts`.
        zipf: how much more frequent the first words of the lexicon are; 0 is all alike, 1 Zipf's law.
        repeats: share of samples that show an earlier picture again: same word, font and style, other noise.
        wrong: share of samples whose label is not what the picture shows.
        meta: adds a `json` member with the font, and whether the sample is repeated or its label wrong.
        name: first part of the shards' names.
    """

    samples: int
    seed: int
    lexicon: Lexicon
    fonts: tuple[str, ...]
    zipf: float = 0.7
    repeats: float = 0.5
    wrong: float = 0.03
    meta: bool = False
    name: str = "words"

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return {
            "samples": self.samples,
            "seed": self.seed,
            **self.lexicon.settings(),
            "fonts": [PurePath(font).name for font in self.fonts],
            "zipf": self.zipf,
            "repeats": self.repeats,
            "wrong": self.wrong,
            "meta": self.meta,
        }

    def make(self, first: int, stop: int) -> Iterator[Sample]:
        """Give the samples first … stop − 1."""
        words = self.lexicon.words()
        choices = NumberedRandom(self.seed, f"{self.name} choices")
        styles = NumberedRandom(self.seed, f"{self.name} styles")
        originals = max(1, round(self.samples * self.repeats / COPIES))
        for number in range(first, stop):
            random = choices.at(number)
            draws = random.random(4)
            repeat = bool(draws[0] < self.repeats)
            # Originals of repeats have negative numbers: no fresh sample is one of them.
            style = styles.at(-1 - int(draws[1] * originals) if repeat else number)
            word, font, look = self._choose(style, words)
            wrong = bool(draws[2] < self.wrong)
            label = _wrong_label(word, words, random) if wrong else word
            members = [("jpg", render(word, font, look, random)), ("txt", label.encode())]
            if self.meta:
                facts = {"font": PurePath(font).name, "repeat": repeat, "text": word, "wrong": wrong}
                members.append(("json", json.dumps(facts).encode()))
            yield Sample(f"{number:09d}", tuple(members))

    def _choose(self, style: np.random.Generator, words: tuple[str, ...]) -> tuple[str, str, list[float]]:
        rank = zipf_ranks(style.random(1), len(words), self.zipf)[0]
        look = style.random(_STYLE_DRAWS).tolist()
        return words[rank], self.fonts[int(look[0] * len(self.fonts))], look


def _wrong_label(word: str, words: tuple[str, ...], random: np.random.Generator) -> str:
    """Return another word, or the same one with one letter changed; never the word itself."""
    draws = random.random(3)
    other = words[int(draws[0] * len(words))]
    if draws[1] < 0.5 and other != word:
        return other
    place = int(draws[1] * 2 % 1 * len(word))
    letter = ALPHABET[(ALPHABET.index(word[place]) + 1 + int(draws[2] * (len(ALPHABET) - 1))) % len(ALPHABET)]
    return word[:place] + letter + word[place + 1 :]


def render(word: str, font: str, look: list[float], random: np.random.Generator) -> bytes:
    """Return a JPEG of HEIGHT × WIDTH grey pixels.

    Args:
        word: what it shows.
        font: name from `find_fonts`.
        look: 20 numbers in [0, 1): everything that near-copies share.
        random: gives what differs between them: place, noise, quality.
    """
    from PIL import Image  # noqa: PLC0415  (an extra)

    jitter = random.random(4).tolist()
    ink = _ink(word, font, look, jitter)
    paper = _paper(look)
    dark, contrast = 20 + 60 * look[1], 60 + 140 * look[2] ** 0.7
    noise = random.standard_normal((HEIGHT, WIDTH), dtype=np.float32) * np.float32(2.5 + 16 * look[3] ** 2)
    # [rows, columns]: 0 is the darker of ink and paper, 1 the lighter.
    light = 1 - ink if look[4] < 0.6 else ink
    pixels = dark + contrast * light + (paper - 0.5) * (20 + 70 * look[5]) + noise
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    file = BytesIO()
    picture.save(file, "JPEG", quality=int(87 + 8 * look[6] + 2 * jitter[3]))
    return file.getvalue()


def _ink(word: str, font: str, look: list[float], jitter: list[float]) -> NDArray[np.float32]:
    """Return how much ink lies on each pixel, 0 to 1: the word scaled, turned, sheared, moved and blurred."""
    from PIL import Image, ImageDraw, ImageFilter  # noqa: PLC0415  (an extra)

    face = load_font(font, FONT_SIZE)
    left, top, right, bottom = face.getbbox(word)
    width, height = math.ceil(right - left) + 4, math.ceil(bottom - top) + 4
    flat = Image.new("L", (width, height))
    ImageDraw.Draw(flat).text((2 - left, 2 - top), word, fill=255, font=face)
    angle = math.radians(12 * (look[7] - 0.5) + 1.0 * (jitter[0] - 0.5))
    shear = 0.6 * (look[8] - 0.5)
    cos, sin = math.cos(angle), math.sin(angle)
    # What the picture can hold, then a share of it; wide words are squeezed rather than made tiny.
    fit_y = min((HEIGHT - 2) / height, 1.25) * (0.7 + 0.25 * look[9])
    slant = abs(shear - sin) * height * fit_y / 2
    fit_x = min((WIDTH - 4 - slant) / width, fit_y * (0.85 + 0.4 * look[10]))
    free_x = WIDTH - 4 - slant - width * fit_x
    free_y = max(0.0, HEIGHT - height * fit_y - abs(sin) * width * fit_x)
    centre_x = WIDTH / 2 + free_x * (look[11] - 0.5) + 1.5 * (jitter[1] - 0.5)
    centre_y = HEIGHT / 2 + free_y * 0.7 * (look[12] - 0.5) + 1.0 * (jitter[2] - 0.5)
    # Output pixel → input pixel, the form that Image.transform takes.
    a, b = (cos + shear * sin) / fit_x, (sin - shear * cos) / fit_x
    d, e = -sin / fit_y, cos / fit_y
    matrix = (a, b, width / 2 - a * centre_x - b * centre_y, d, e, height / 2 - d * centre_x - e * centre_y)
    placed = flat.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    radius = 1.3 * look[13] ** 2
    if radius > 0.2:
        placed = placed.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(placed, dtype=np.float32) * np.float32(1 / 255)


def _axis(length: int) -> NDArray[np.float32]:
    return ((np.arange(length) + 0.5) / length - 0.5).astype(np.float32)


# From −0.5 to 0.5. Axes: rows, 1; and 1, columns.
_ROWS: Final = _axis(HEIGHT)[:, None]
_COLUMNS: Final = _axis(WIDTH)[None, :]


def _paper(look: list[float]) -> NDArray[np.float32]:
    """Return the background around 0.5: a slope across the picture, and waves on every second one."""
    paper = np.float32(0.5) + _COLUMNS * np.float32(look[14] - 0.5) + _ROWS * np.float32(look[15] - 0.5)
    if look[16] < 0.5:
        return paper
    across = np.float32(6 + 40 * look[17]) * _COLUMNS
    down = np.float32(4 + 20 * look[18]) * _ROWS
    waves: NDArray[np.float32] = np.sin(across + down + np.float32(6.3 * look[19])) * np.float32(0.3)
    return paper + waves
