"""Shards against indexes against sidecars: what does not agree, and what can be built anew. `seta-stream verify`."""

from __future__ import annotations

from seta_stream.verifying.findings import Finding
from seta_stream.verifying.repairing import Repair, repair
from seta_stream.verifying.running import Progress, Request, Verified, verify

__all__ = ["Finding", "Progress", "Repair", "Request", "Verified", "repair", "verify"]
