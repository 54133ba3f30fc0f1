"""What stores ask for reading: list prices of the large ones, and money from bytes and requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seta_stream.errors import ArgumentError

GB: Final = 1 << 30
"""Stores bill by 2^30 bytes, whatever they call it."""


@dataclass(frozen=True)
class Price:
    """What reading costs, in US dollars.

    Args:
        per_gb: for 2^30 bytes that leave the store.
        per_1000_requests: for a thousand reads.
        source: whose price it is, of when, and where it stands.

    Raises:
        ArgumentError: a negative price.
    """

    per_gb: float
    per_1000_requests: float
    source: str

    def __post_init__(self) -> None:
        for name in ("per_gb", "per_1000_requests"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ArgumentError(
                    f"A price {name}={getattr(self, name)} cannot be: give dollars, 0 or more.",
                    found=getattr(self, name),
                )

    def __bool__(self) -> bool:
        return self.per_gb > 0 or self.per_1000_requests > 0

    def of(self, read_bytes: float, requests: float) -> float:
        """Return the dollars that so much reading costs."""
        return read_bytes / GB * self.per_gb + requests / 1000 * self.per_1000_requests


STORES: Final = {
    # First tier, to the internet. Within a store's own region bytes cost nothing and only requests count.
    "s3": Price(
        0.09,
        0.0004,
        "Amazon S3 Standard, us-east-1: first 10 TB a month to the internet, GET requests; list price as "
        "others quoted it in June 2026 (aws.amazon.com/s3/pricing)",
    ),
    "gcs": Price(
        0.12,
        0.0004,
        "Google Cloud Storage Standard, one region: first TB a month to the internet (Americas, EMEA), class B "
        "operations; list price as stored in November 2026 (cloud.google.com/storage/pricing-examples)",
    ),
    "azure": Price(
        0.087,
        0.00044,
        "Azure Blob Storage, hot, LRS, East US: first 10 TB a month to the internet, read operations; list price "
        "as others quoted it in May 2026 (azure.microsoft.com/pricing/details/storage/blobs and …/bandwidth)",
    ),
    "none": Price(0.0, 0.0, "no price"),
}
