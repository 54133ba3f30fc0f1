"""What an epoch cost and saved: a frozen value. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

SUMMED: Final = (
    "samples",
    "decoded",
    "skipped",
    "bytes_needed",
    "bytes_fetched",
    "requests",
    "retries",
    "cache_hits",
    "cache_hit_bytes",
    "cache_misses",
    "cache_miss_bytes",
    "bad_losses",
    "recorded",
)
"""What the processes of a run count apart, and the history keeps together, as the seconds waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts of the epoch that is set, over all workers of this process.

    Attributes:
        epoch: its number.
        total: samples of the corpus.
        selected: samples that the policy chose.
        left_out: chosen samples that fill no whole step.
        steps: steps of the epoch.
        samples: samples read so far, some of them not delivered yet.
        decoded: samples decoded so far.
        skipped: samples that could not be decoded, and were stood in for.
        bytes_total: bytes of all shards.
        bytes_needed: bytes of the extents read so far, headers and padding included.
        bytes_fetched: bytes asked for so far.
        requests: reads asked for so far.
        retries: requests that failed in passing and were tried again.
        wait_s: seconds spent reading and decoding while the caller (or its worker) waited, summed over workers.
        cache_hits, cache_misses: spans that the local cache held, and that it lacked.
        cache_hit_bytes, cache_miss_bytes: their bytes.
        bad_losses: NaN and infinite losses that were refused this epoch.
        recorded: losses recorded this epoch.
        is_sequential: whether some shards cannot be read by range, so that all their bytes are read.
    """

    epoch: int
    total: int
    selected: int
    left_out: int
    steps: int
    samples: int
    decoded: int
    skipped: int
    bytes_total: int
    bytes_needed: int
    bytes_fetched: int
    requests: int
    retries: int
    wait_s: float
    cache_hits: int
    cache_hit_bytes: int
    cache_misses: int
    cache_miss_bytes: int
    bad_losses: int
    recorded: int
    is_sequential: bool

    @property
    def share_kept(self) -> float:
        """Selected samples by all samples."""
        return self.selected / self.total if self.total else 0.0

    @property
    def cache_hit_rate(self) -> float:
        """Bytes that the cache held, by all bytes that it was asked for; 0 without a cache."""
        asked = self.cache_hit_bytes + self.cache_miss_bytes
        return self.cache_hit_bytes / asked if asked else 0.0

    def facts(self) -> dict[str, Any]:
        """Return the counts as plain values, for the history."""
        return asdict(self)
