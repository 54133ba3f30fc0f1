"""Whether an epoch's requests to a bucket are large enough to pay, and what to do where they are not.

Takes a selection; gives a warning. No other effect.
"""

from __future__ import annotations

import warnings
from typing import Final

from seta_stream.errors import SetaStreamWarning
from seta_stream.plan.epoch import Selection

PAYING_BYTES: Final = 32 << 10
"""A request costs a client about 110 µs here, in which it reads 110 KB in large spans: a third of that still pays."""
MANY_REQUESTS: Final = 2000


def advise_far(selection: Selection, mean_bytes: float) -> bool:
    """Warn where an epoch asks a bucket for many small stretches; say whether it did.

    Args:
        selection: of the epoch.
        mean_bytes: of a sample, headers and padding included.
    """
    stretches = selection.stretches
    mean = selection.selected * mean_bytes / max(stretches, 1)
    if stretches < MANY_REQUESTS or mean >= PAYING_BYTES:
        return False
    warnings.warn(
        f"This epoch asks the bucket for about {stretches:,} stretches of {mean:,.0f} bytes, which takes longer than "
        "reading everything. For samples this small give cache= a local folder (epoch 0 fills it, later ones read no "
        "byte from the bucket), or read=Reading(run_bytes=262144) (runs of neighbours are drawn together), or rewrite "
        'the shards by `seta-stream repack` and pass unit="run". docs/buckets.md tells which pays when; '
        "Reading(max_waste=1) reads whole stretches meanwhile.",
        SetaStreamWarning,
        stacklevel=5,
    )
    return True
