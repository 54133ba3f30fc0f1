"""OrderDP: a random pool, and of it the highest losses. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import check_portion, check_settings, everything, top, wanted
from seta_stream.policies.smoothing import BLS


@dataclass(frozen=True)
class OrderDP:
    """Keeps the samples of the highest last losses, `top_q_ratio` of a random pool of `random_len_ratio` of all.

    No weights and no annealing: the method is unbiased for a surrogate loss that leans towards hard samples. Exactly
    random_len_ratio · top_q_ratio of all samples are kept in expectation; unseen ones are kept and count first. Needs
    the loss of each sample.

    Args:
        random_len_ratio: the share of samples in the pool, in (0, 1].
        top_q_ratio: the share of the pool that is kept, in (0, 1].
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range.
    Source:
        "OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework", ICLR 2026, arXiv 2606.08574;
        code github.com/shengze-xu/OrderDP, class OrderDP, whose names and defaults these are (its ImageNet runs take
        0.75 and 0.8, its CIFAR-100 example 0.8 and 0.375). Where we differ: the cut is the highest losses' of all
        samples, which the pool's own cut scatters around, and samples are drawn one by one; unseen samples are kept
        (theirs have the loss 3.0), so the first epoch reads everything.
    """

    random_len_ratio: float = 0.75
    top_q_ratio: float = 0.85
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_portion("random_len_ratio", self.random_len_ratio, zero=False)
        check_portion("top_q_ratio", self.top_q_ratio, zero=False)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return the step of the highest losses, kept as often as the pool takes them, above the others, dropped."""
        if not histogram.seen:
            return everything()
        count = wanted(histogram, self.random_len_ratio * self.top_q_ratio)
        return top(histogram, count / self.random_len_ratio, self.random_len_ratio)

    def expected_share(self, epoch: int) -> float:
        """Return 1 for epoch 0, when no losses are known, else random_len_ratio · top_q_ratio."""
        return self.random_len_ratio * self.top_q_ratio if epoch else 1.0
