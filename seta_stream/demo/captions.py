"""Captions: about 100 bytes of text and a json of similar size per sample, made fast.

Takes a seed; gives samples (`txt`, `json`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from seta_stream.demo.lexicon import Lexicon, zipf_ranks
from seta_stream.demo.randomness import NumberedRandom
from seta_stream.demo.shards import Sample

VOCABULARY: Final = 8_000
MIN_WORDS: Final = 9
MAX_WORDS: Final = 19
BLOCK: Final = 1024
"""Samples whose numbers are drawn at once; fixed, since it decides the bytes."""

_LICENSES: Final = ("by", "by-sa", "cc0", "by-nc")


@dataclass(frozen=True, slots=True)
class CaptionMaker:
    """A corpus of captions.

    Args:
        samples: how many.
        seed: decides everything.
        name: first part of the shards' names.
    """

    samples: int
    seed: int
    name: str = "captions"

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return {"samples": self.samples, "seed": self.seed}

    def make(self, first: int, stop: int) -> Iterator[Sample]:
        """Give the samples first … stop − 1."""
        for block in range(first // BLOCK, -(-stop // BLOCK)):
            start = block * BLOCK
            yield from self._make_block(block, max(first - start, 0), min(stop - start, BLOCK))

    def _make_block(self, block: int, first: int, stop: int) -> Iterator[Sample]:
        words = Lexicon(self.seed, VOCABULARY).words()
        random = NumberedRandom(self.seed, "captions").at(block)
        # Axes: samples, words.
        ranks = zipf_ranks(random.random((BLOCK, MAX_WORDS)), len(words), 1.0).tolist()
        lengths = random.integers(MIN_WORDS, MAX_WORDS + 1, BLOCK).tolist()
        # Axes: samples; width, height, score, license.
        facts = random.integers((256, 256, 150, 0), (2048, 2048, 450, len(_LICENSES)), (BLOCK, 4)).tolist()
        for row in range(first, stop):
            number = block * BLOCK + row
            chosen = [words[rank] for rank in ranks[row][: lengths[row]]]
            width, height, score, license_number = facts[row]
            # The form of json.dumps, which takes ten times as long.
            meta = (
                f'{{"id": {number}, "width": {width}, "height": {height}, "score": 0.{score}, '
                f'"license": "{_LICENSES[license_number]}", "source": "{chosen[0]}.example"}}'
            )
            members = (("txt", f"{' '.join(chosen).capitalize()}.".encode()), ("json", meta.encode()))
            yield Sample(f"{number:09d}", members)
