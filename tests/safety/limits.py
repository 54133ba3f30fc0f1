"""What a claim about memory and time is measured with."""

from __future__ import annotations

import contextlib
import resource
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20


@contextlib.contextmanager
def within(memory: int, seconds: float = 5.0, *, traced: bool = True) -> Iterator[None]:
    """Let a block take so many bytes at once, and so many seconds of processor time, and no more.

    The operating system refuses what is asked for far beyond that (a MemoryError, which no parser may raise), so that a
    failing test does not take the machine.

    Args:
        memory: bytes.
        seconds: of processor time.
        traced: whether every byte is counted, which makes Python three times as slow; else the system's limit, of four
            times as many and 256 MiB, is all.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + 4 * memory + 256 * MIB
    begun = time.process_time()
    if traced:
        tracemalloc.start()
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        peak = tracemalloc.get_traced_memory()[1]  # 0 where nothing was traced
        tracemalloc.stop()
    assert peak <= memory, f"{peak / MIB:.1f} MiB were taken at once, and {memory / MIB:.1f} are allowed"
    taken = time.process_time() - begun
    assert taken <= seconds, f"{taken:.2f} s were taken, and {seconds} are allowed"
