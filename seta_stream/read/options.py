"""How to read: frozen settings with their checks. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from seta_stream.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Settings of the reading room.

    Args:
        max_waste: share of fetched bytes that may lie outside the wanted extents, 0 … 1; 1 reads whole stretches.
        max_span_bytes: a byte range is no longer than this, unless one sample alone is.
        prefetch_bytes: bytes read ahead of the training loop, per machine.
        in_flight: requests under way at once, per machine; None lets the store's behaviour decide.
        decode_threads: threads that decode, in order; 0 decodes in the caller's thread. torch's workers use 0.
        run_bytes: decide the random draw for runs of neighbouring samples of about this size; 0 for each sample.
    """

    max_waste: float = 0.05
    max_span_bytes: int = 8 << 20
    prefetch_bytes: int = 64 << 20
    in_flight: int | None = None
    decode_threads: int = 1
    run_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_waste <= 1:
            raise ArgumentError(f"max_waste is a share of the bytes, 0 … 1; got {self.max_waste}.")
        for name in ("max_span_bytes", "prefetch_bytes"):
            if getattr(self, name) < 4096:
                raise ArgumentError(f"{name} is a number of bytes, 4096 at least; got {getattr(self, name)}.")
        if self.in_flight is not None and self.in_flight < 1:
            raise ArgumentError(f"in_flight is a number of requests, 1 at least, or None; got {self.in_flight}.")
        if self.decode_threads < 0 or self.run_bytes < 0:
            raise ArgumentError(
                f"decode_threads and run_bytes are not negative; got {self.decode_threads} and {self.run_bytes}."
            )


@dataclass(frozen=True, slots=True)
class Cache:
    """A local copy of what was fetched.

    Args:
        folder: where it lies.
        max_bytes: how large it may grow.
    """

    folder: str
    max_bytes: int
