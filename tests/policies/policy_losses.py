"""Losses of many shapes for the tests of policies, and what is asked of every rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.policies import Rule, select
from seta_stream.policies.deciding import Decision

NAN = float("nan")
SAMPLES = 20_000


def _shapes() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    exponential = random.exponential(size=SAMPLES)
    late = np.where(random.random(SAMPLES) < 0.6, 0.001, random.lognormal(size=SAMPLES))
    shapes = {
        "exponential": exponential,
        "lognormal": random.lognormal(sigma=2, size=SAMPLES),
        "gamma": random.gamma(4, size=SAMPLES),
        "60 % in one bin": late,
        "negative and positive": random.normal(size=SAMPLES),
        "all negative": -exponential,
        "all equal": np.full(SAMPLES, 0.7),
        "all zero": np.zeros(SAMPLES),
        "two values": np.where(random.random(SAMPLES) < 0.9, 0.5, 4.0),
        "from 1e-30 to 1e30": 10 ** random.uniform(-30, 30, SAMPLES),
        "5 % unseen": np.where(random.random(SAMPLES) < 0.05, NAN, exponential),
    }
    return {name: round_losses(values.astype(np.float32)) for name, values in shapes.items()}


SHAPES = _shapes()


def counted(losses: dict[float, int], unseen: int = 0) -> Histogram:
    """Return the histogram of so many samples per loss."""
    return Histogram.of(np.repeat([*losses, NAN], [*losses.values(), unseen]).astype(np.float32))


@st.composite
def histograms(draw: st.DrawFn, *, max_unseen: int = 0) -> Histogram:
    """Few distinct losses of any sign and size with many ties, or many; and unseen samples."""
    value = st.one_of(
        st.sampled_from([0.0, 0.1, 1.0, 2.5, -1.0]),
        st.floats(-(2.0**20), 2.0**20, width=32),
        st.floats(2.0**-100, 2.0**100, width=32),
    )
    counts = draw(st.dictionaries(value, st.integers(1, 60), min_size=1, max_size=30))
    return counted(counts, draw(st.integers(0, max_unseen)))


def keep_of(rule: Rule, *losses: float) -> list[float]:
    """Return the keep probability of each loss."""
    return rule.keep[np.searchsorted(rule.edges, np.array(losses, np.float32), side="right")].tolist()


def is_unbiased(rule: Rule) -> bool:
    """Whether keep times weight is 1 on every step, to the precision of the float32 weights."""
    seen = np.allclose(rule.keep * rule.weight.astype(np.float64), 1, rtol=2e-7, atol=0)
    return seen and rule.unseen_keep * rule.unseen_weight == 1


def holds(rule: Rule, histogram: Histogram, kept: float) -> bool:
    """Whether the rule keeps so many samples in expectation, but for the rounding of sums."""
    return rule.expected_kept(histogram) == pytest.approx(kept, rel=1e-9, abs=1e-8)


def expected_of(decision: Decision) -> float:
    """Return how many samples a decision keeps in expectation, over all groups."""
    if decision.groups is None:
        return decision.rule.expected_kept(decision.histogram)
    return sum(kept for _, kept in decision.groups.values())


def assert_drawn_as_expected(rule: Rule, scores: np.ndarray, share: float, epoch: int = 3) -> None:
    """The drawn share, and for unbiased steps the sum of the weights, lie within four standard deviations."""
    first_id = np.array([0, 1, 7_000, 7_000, len(scores)])
    mask, weight = select(rule, scores, first_id, seed=11, epoch=epoch)
    histogram = Histogram.of(scores)
    masses = np.append(rule.masses(histogram), histogram.unseen)
    keep, weights = np.append(rule.keep, rule.unseen_keep), np.append(rule.weight, np.float32(rule.unseen_weight))
    deviation = np.sqrt(masses @ (keep * (1 - keep)))
    assert abs(mask.sum() - share * len(scores)) <= 4 * deviation + 1e-6 * len(scores)
    if weight is not None and is_unbiased(rule):
        deviation = np.sqrt(masses @ (keep * (1 - keep) * weights.astype(np.float64) ** 2))
        assert abs(weight.sum(dtype=np.float64) - len(scores)) <= 4 * deviation + 1e-5 * len(scores)
