"""Losses as they are met: names of shapes, and samples of them.

Takes a name, a count and a generator; gives float32 losses. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def late_training(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return 60 % near zero, as -log(p) of half-precision probabilities next to 1 gives them: few values, many ties."""
    sure = np.float16(1) - np.float16(2.0**-11) * rng.integers(0, 6, n).astype(np.float16)
    return np.where(rng.random(n) < 0.6, -np.log(sure.astype(np.float32)), rng.exponential(size=n))


SHAPES: Final[dict[str, Draw]] = {
    "uniform": lambda rng, n: rng.uniform(0, 4, n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 1.5, n),
    "gamma": lambda rng, n: rng.gamma(4, 1, n),
    "late training": late_training,
    "heavy ties": lambda rng, n: np.where(rng.random(n) < 0.7, rng.integers(0, 6, n) / 4, rng.exponential(size=n)),
    "outliers of 1e4": lambda rng, n: np.where(rng.random(n) < 4 / n, 1e4 * rng.random(n), rng.exponential(size=n)),
    "negative": lambda rng, n: rng.normal(-1, 2, n),
    "near-equal": lambda rng, n: 5 + 0.02 * rng.standard_normal(n),
}


def draw_losses(shape: str, n: int, seed: int = 0) -> NDArray[np.float32]:
    """Return n losses of a shape: float32 [n]."""
    return SHAPES[shape](np.random.default_rng(seed), n).astype(np.float32)
