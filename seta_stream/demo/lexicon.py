"""The words of a corpus: pseudo-words or a list of the user's, split once and for all into seen and held-out ones.

Takes a seed and a size, or a file; gives words, most frequent first. Reads the file that it is given; else pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.demo.randomness import NumberedRandom
from seta_stream.errors import ArgumentError

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
MIN_LETTERS: Final = 3
MAX_LETTERS: Final = 8
HELD_OUT_ONE_IN: Final = 10
MAX_SIZE: Final = 1_000_000


def _mixed(common: str, times: int, rare: str) -> tuple[str, ...]:
    """Return what one syllable's part is drawn from: the common letters several times, the rare ones once."""
    return (*(common.split() * times), *rare.split())


_ONSETS: Final = _mixed(
    "b c d f g h j k l m n p qu r s t v w x y z",
    3,
    "bl br ch cl cr dr fl fr gl gr ph pl pr sc sh sk sl sm sn sp st str sw th tr tw wh",
)
_NUCLEI: Final = _mixed("a e i o u", 6, "ai ay ea ee ie io oa oo ou oy au y")
_CODAS: Final = (
    *([""] * 16),
    *_mixed(
        "b d f g k l m n p r s t x z", 2, "ck ct ff ft ld ll lt mp nd ng nk nt pt rd rk rm rn rt sh sk ss st th tz"
    ),
)


def is_held_out(word: str) -> bool:
    """Say whether a word is kept for the test: one in ten, by its letters alone, so for every corpus and seed."""
    return hashlib.blake2b(word.encode(), digest_size=2).digest()[0] % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True, slots=True)
class Lexicon:
    """A list of words, held by description so that it travels to other processes in a few bytes.

    Args:
        seed: seed of the pseudo-words.
        size: how many words; of a file, at most how many.
        held_out: the words kept for the test, or the others.
        file: one word a line, most frequent first, in place of pseudo-words.
    """

    seed: int
    size: int
    held_out: bool = False
    file: str | None = None

    def words(self) -> tuple[str, ...]:
        """Return the words, most frequent first; the same list on every call."""
        return _words_of(self)

    def settings(self) -> dict[str, Any]:
        """Return what decides the words, as plain values."""
        source = "pseudo-words" if self.file is None else hashlib.sha256(Path(self.file).read_bytes()).hexdigest()
        return {"lexicon": source, "vocabulary": self.size, "held_out_words": self.held_out}


@lru_cache(maxsize=8)
def _words_of(lexicon: Lexicon) -> tuple[str, ...]:
    if not 1 <= lexicon.size <= MAX_SIZE:
        raise ArgumentError(
            f"A vocabulary of {lexicon.size} words cannot be made: give 1 to {MAX_SIZE}.",
            expected=f"1 to {MAX_SIZE}",
            found=lexicon.size,
        )
    if lexicon.file is not None:
        return _read_words(lexicon.file, lexicon.size, held_out=lexicon.held_out)
    words: dict[str, None] = {}
    random = NumberedRandom(lexicon.seed, "pseudo-word")
    number = 0
    while len(words) < lexicon.size:
        for word in _pseudo_words(random.at(number), 256):
            if is_held_out(word) == lexicon.held_out:
                words.setdefault(word)
        number += 1
    return tuple(words)[: lexicon.size]


def _pseudo_words(random: np.random.Generator, count: int) -> list[str]:
    """Return up to `count` words of one to three syllables, each of 3 to 8 letters."""
    # Axes: words, syllables, (onset, nucleus, coda).
    draws = random.random((count, 3, 3))
    syllables = random.choice(3, size=count, p=(0.2, 0.5, 0.3)) + 1
    words = []
    for draw, length in zip(draws.tolist(), syllables.tolist(), strict=True):
        word = "".join(
            _ONSETS[int(onset * len(_ONSETS))] + _NUCLEI[int(nucleus * len(_NUCLEI))] + _CODAS[int(coda * len(_CODAS))]
            for onset, nucleus, coda in draw[:length]
        )
        if MIN_LETTERS <= len(word) <= MAX_LETTERS:
            words.append(word)
    return words


def _read_words(file: str, size: int, *, held_out: bool) -> tuple[str, ...]:
    """Return the usable words of a file: lower-cased, of 3 to 8 letters a to z, each once."""
    usable = re.compile(f"[a-z]{{{MIN_LETTERS},{MAX_LETTERS}}}")
    try:
        lines = Path(file).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"Cannot read the words of {file}: {error}. Give a text file, one word a line.") from error
    words = dict.fromkeys(word for line in lines if usable.fullmatch(word := line.lower()))
    chosen = [word for word in words if is_held_out(word) == held_out]
    if not chosen:
        kind = "held-out" if held_out else "training"
        raise ArgumentError(
            f"{file} holds no {kind} word: {len(words)} of its {len(lines)} words have 3 to 8 letters a to z, and one "
            f"in {HELD_OUT_ONE_IN} of those is held out. Give a longer list.",
            expected="at least one word",
            found=len(words),
        )
    return tuple(chosen[:size])


def zipf_ranks(uniform: NDArray[np.float64], size: int, exponent: float) -> NDArray[np.int64]:
    """Return ranks below `size`, rank r about as likely as 1 / (r + 1) ** exponent.

    Args:
        uniform: float64 [n] in [0, 1).
        size: number of words.
        exponent: 0 is all alike, 1 is Zipf's law.

    Returns:
        int64 [n].
    """
    # The law's continuous form on [1, size + 1), turned round.
    if abs(exponent - 1) < 1e-9:
        ranks = (size + 1.0) ** uniform
    else:
        power = 1 - exponent
        ranks = (uniform * ((size + 1.0) ** power - 1) + 1) ** (1 / power)
    return np.minimum(ranks.astype(np.int64) - 1, size - 1)
