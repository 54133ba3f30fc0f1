"""The recogniser spells by CTC's rules, and learns."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from seta_stream.demo.fonts import find_fonts
from seta_stream.demo.lexicon import Lexicon
from seta_stream.demo.model import Recogniser, decode_steps, encode_words
from seta_stream.demo.words import WordMaker


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Beside other tests two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_words_become_letters_in_a_row() -> None:
    """a is 1, z is 26, and the lengths cut the row."""
    letters, lengths = encode_words(["abz", "ca"])
    assert letters.tolist() == [1, 2, 26, 3, 1]
    assert lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("steps", "word"),
    [([0, 0, 0], ""), ([1, 1, 1], "a"), ([1, 0, 1], "aa"), ([0, 2, 2, 0, 2, 1, 1, 0], "bba"), ([26, 1, 26], "zaz")],
)
def test_steps_are_read_by_the_rules_of_ctc(steps: list[int], word: str) -> None:
    """Repeats merge unless a blank lies between them; blanks go."""
    assert decode_steps(torch.tensor([steps])) == [word]


def test_losses_are_one_per_picture_and_do_not_grow_with_length() -> None:
    """A picture's loss is a mean over its letters, finite, and the same whatever shares the batch."""
    torch.manual_seed(0)
    model = Recogniser().eval()
    pictures = torch.randint(0, 256, (3, 32, 96), dtype=torch.uint8)
    with torch.no_grad():
        losses = model.losses(pictures, ["cat", "balloons", "aaaaaaaa"])
        alone = model.losses(pictures[1:2], ["balloons"])
    assert losses.shape == (3,)
    assert torch.isfinite(losses).all()
    torch.testing.assert_close(losses[1:2], alone, rtol=1e-3, atol=1e-3)


def test_learns_32_words_by_heart() -> None:
    """Forty steps on 32 word images read nearly all of them right, from nothing right before."""
    made = list(WordMaker(32, 0, Lexicon(0, 500), find_fonts(), repeats=0, wrong=0).make(0, 32))
    pictures = torch.from_numpy(np.stack([np.asarray(Image.open(io.BytesIO(m[0][1]))) for _, m in made]))
    words = [m[1][1].decode() for _, m in made]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recogniser()
    assert sum(a == b for a, b in zip(model.read(pictures), words, strict=True)) == 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.losses(pictures, words).mean().backward()
        optimizer.step()
    assert sum(a == b for a, b in zip(model.read(pictures), words, strict=True)) >= 28
