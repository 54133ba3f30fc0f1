"""What an epoch's figures tell its user: warnings, given once an epoch by one process. Effects: warns."""

from __future__ import annotations

import warnings

from seta_stream.errors import SetaStreamWarning
from seta_stream.stats import Stats


def warn_of_losses(stats: Stats, delivered: int, *, needs_losses: bool) -> None:
    """Warn of losses that did not come, or cannot be used.

    Args:
        stats: of all processes together.
        delivered: samples that the training loops received.
        needs_losses: whether the policy goes by them.
    """
    if stats.bad_losses:
        warnings.warn(
            f"{stats.bad_losses} losses of epoch {stats.epoch} were NaN or infinite and were not recorded; the "
            "samples keep their older loss. Under mixed precision, compute the per-sample loss in float32.",
            SetaStreamWarning,
            stacklevel=5,
        )
    if delivered and not stats.recorded and needs_losses:
        warnings.warn(
            f"No losses were recorded in epoch {stats.epoch}, so the policy learns nothing: call record(ids, "
            "losses) with each batch (update(ids, loss) in the torch adapter).",
            SetaStreamWarning,
            stacklevel=5,
        )
