"""Counter-based random words."""

from __future__ import annotations

import numpy as np

from seta_stream.draws import WordSource


def test_words_are_pinned() -> None:
    """These very words come on every machine; a change here changes every selection ever made."""
    source = WordSource(7, "keep", 3)
    assert source.words(5, 5).tolist() == PINNED
    assert WordSource(-1, "order", -1).permutation(2, 8).tolist() == PINNED_ORDER


def test_words_depend_on_everything_and_on_nothing_else() -> None:
    """Seed, purpose, epoch and shard each give other words; a shorter draw is the start of a longer one."""
    one = WordSource(7, "keep", 3)
    words = one.words(5, 1001)
    others = [WordSource(8, "keep", 3), WordSource(7, "order", 3), WordSource(7, "keep", 4)]
    assert all((other.words(5, 1001) != words).mean() > 0.99 for other in others)
    assert (one.words(6, 1001) != words).mean() > 0.99
    assert (one.words(5, 1001) == words).all()
    assert (one.words(5, 10) == words[:10]).all()
    assert one.words(5, 0).tolist() == []


def test_words_are_uniform() -> None:
    """A million words fill sixteen bins evenly, within five standard deviations."""
    words = WordSource(0, "keep", 0).words(0, 1_000_000)
    counts = np.bincount(words >> 28, minlength=16)
    assert abs(counts - 62_500).max() < 5 * np.sqrt(62_500)


def test_global_generators_are_left_alone() -> None:
    """Drawing touches no global state."""
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    WordSource(0, "keep", 0).permutation(0, 100)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]  # noqa: NPY002


PINNED = [2052216952, 493742138, 3786412209, 729513124, 1727929589]
PINNED_ORDER = [3, 7, 0, 6, 5, 2, 4, 1]
