"""The recogniser: a small convolutional network over word images, trained by CTC.

Takes grey pictures and words; gives one loss per sample, and the words that it reads. No effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from seta_stream.demo.lexicon import ALPHABET

BLANK: Final = 0
COLUMNS_PER_STEP: Final = 4


def encode_words(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return (letters of all words in a row: int64 [letters], letters of each: int64 [words]); a is 1, 0 is blank."""
    letters = torch.tensor([ALPHABET.index(letter) + 1 for word in words for letter in word])
    return letters, torch.tensor([len(word) for word in words])


def decode_steps(best: Tensor) -> list[str]:
    """Return what the best class per step spells: repeats merged, then blanks removed.

    Args:
        best: int64 [words, steps].
    """
    words = []
    for row in best.tolist():
        letters = [step for step, before in zip(row, [BLANK, *row], strict=False) if step not in (BLANK, before)]
        words.append("".join(ALPHABET[letter - 1] for letter in letters))
    return words


class Recogniser(nn.Module):
    """Reads one word of a to z from a grey picture; 160,000 parameters, 5 million multiplications a picture.

    Args:
        channels: of the three layers over the picture.
        width: of the layers over its columns.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64), width: int = 128) -> None:
        super().__init__()
        first, second, third = channels
        # Rows go 32 → 16 → 8 → 4, columns 96 → 48 → 24 → 24: a step of the output is four columns wide.
        self.picture = nn.Sequential(_layer(1, first, 2), _layer(first, second, 2), _layer(second, third, (2, 1)))
        self.fold = nn.Sequential(
            nn.Conv1d(third * 4, width, 3, padding=1, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)
        )
        self.columns = nn.Sequential(_Neighbours(width), _Neighbours(width))
        self.letters = nn.Conv1d(width, len(ALPHABET) + 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return log probabilities: float32 [steps, pictures, 27], as CTC takes them.

        Args:
            pictures: uint8 [pictures, 32 rows, columns].
        """
        grey = pictures.unsqueeze(1).float()
        # Contrast and brightness differ by picture and say nothing about the word.
        spread, mean = torch.std_mean(grey, dim=(2, 3), keepdim=True)
        scaled = ((grey - mean) / (spread + 8)).contiguous(memory_format=torch.channels_last)
        # [pictures, channels × rows, columns]
        columns = self.fold(self.picture(scaled).contiguous().flatten(1, 2))
        scores: Tensor = self.letters(self.columns(columns))
        return functional.log_softmax(scores.permute(2, 0, 1), dim=-1)

    def losses(self, pictures: Tensor, words: Sequence[str]) -> Tensor:
        """Return one loss per picture, per letter so that long words are not hard by length: float32 [pictures]."""
        log_probabilities = self(pictures)
        letters, lengths = encode_words(words)
        steps = torch.full((len(words),), log_probabilities.shape[0])
        losses = functional.ctc_loss(log_probabilities, letters, steps, lengths, blank=BLANK, reduction="none")
        return losses / lengths

    @torch.no_grad()
    def read(self, pictures: Tensor) -> list[str]:
        """Return the word that each picture shows, in the mode (train or eval) that is set."""
        return decode_steps(self(pictures).argmax(dim=-1).T)


def _layer(inputs: int, outputs: int, stride: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Neighbours(nn.Module):
    """Lets each column see two on either side: depthwise, pointwise, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 5, padding=2, groups=width, bias=False)
        self.pointwise = nn.Conv1d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, columns: Tensor) -> Tensor:
        """Return float32 [pictures, width, columns]."""
        return columns + functional.relu(self.norm(self.pointwise(self.depthwise(columns))))
