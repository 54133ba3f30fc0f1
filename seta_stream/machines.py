"""Which processes of a run share a machine: what memory, requests and caches are divided by.

Takes the collective; gives places. Effects: asks for this machine's name, and tells the other processes.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seta_stream.collective import Collective

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    Args:
        local_rank: its number among those of its machine.
        local_world: how many run on its machine.
        machines: of the run.
        groups: node groups for the plan: the machines, where neighbouring ranks share one and each has as many.
    """

    local_rank: int = 0
    local_world: int = 1
    machines: int = 1
    groups: int = 1

    @classmethod
    def among(cls, names: Sequence[bytes], rank: int) -> Place:
        """Return the place of a process.

        Args:
            names: of the machine of each rank.
            rank: of the process.
        """
        own = [other for other, name in enumerate(names) if name == names[rank]]
        distinct = list(dict.fromkeys(names))
        size = len(names) // len(distinct)
        is_even = list(names) == [name for name in distinct for _ in range(size)]
        return cls(own.index(rank), len(own), len(distinct), len(distinct) if is_even else 1)


def place_of(collective: Collective) -> Place:
    """Return where this process runs; every process asks at once."""
    return Place.among(collective.gather(_name()), collective.rank)


def _name() -> bytes:
    """Return what tells this machine from others: containers have names of their own, and memory of their own."""
    boot = b""
    with suppress(OSError):  # macOS has none; the name must do
        boot = _BOOT.read_bytes().strip()
    return socket.gethostname().encode() + b"\n" + boot
