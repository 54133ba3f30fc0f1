"""How to read: frozen settings with their checks. Pure."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Final

from seta_stream.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Settings of the reading room.

    Args:
        max_waste: share of fetched bytes that may lie outside the wanted extents, 0 … 1; 1 reads whole stretches.
        max_span_bytes: a byte range is no longer than this, unless one sample alone is.
        prefetch_bytes: bytes read ahead of the training loop, per machine.
        in_flight: requests under way at once, per machine; None lets the store's behaviour decide.
        patience_s: seconds for which a request that fails in passing (resets, time-outs, 503) is tried again.
        decode_threads: threads that decode, in order; 0 decodes in the caller's thread. torch's workers use 0.
        run_bytes: decide the random draw for runs of neighbouring samples of about this size; 0 for each sample.
    """

    max_waste: float = 0.05
    max_span_bytes: int = 8 << 20
    prefetch_bytes: int = 64 << 20
    in_flight: int | None = None
    patience_s: float = 300.0
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
        if not self.patience_s >= 0:
            raise ArgumentError(f"patience_s is a number of seconds, 0 or more; got {self.patience_s}.")
        if self.decode_threads < 0 or self.run_bytes < 0:
            raise ArgumentError(
                f"decode_threads and run_bytes are not negative; got {self.decode_threads} and {self.run_bytes}."
            )


SMALLEST_CACHE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Cache:
    """A local copy of what was fetched from a bucket: later epochs read it from this disk.

    Args:
        folder: of this machine; any number of processes and runs may share it, and it may be removed at any time.
        max_bytes: on disk, over all that use the folder; None for half of what is free there (what the cache holds
            counts as free).
    """

    folder: str
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        folder = str(self.folder).removeprefix("file://")
        object.__setattr__(self, "folder", folder)
        if not folder or "://" in folder:
            raise ArgumentError(f"cache={str(self.folder)!r} is no folder of this machine: give the path of one.")
        given = self.max_bytes
        if given is None:
            return
        if not hasattr(given, "__index__") or isinstance(given, bool) or operator.index(given) < SMALLEST_CACHE:
            raise ArgumentError(
                f"max_bytes of a cache is a number of bytes, {SMALLEST_CACHE} at least, or None for half of what is "
                f"free; got {given!r}.",
                found=given,
            )
        object.__setattr__(self, "max_bytes", operator.index(given))

    @classmethod
    def of(cls, value: object) -> Cache | None:
        """Return the settings that `cache=` names: None, a folder, or the settings themselves."""
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str) or hasattr(value, "__fspath__"):
            return cls(str(value))
        raise ArgumentError(f"cache={value!r} is not possible: give a folder, Cache(folder, max_bytes), or None.")
