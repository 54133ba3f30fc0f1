"""How long to wait before a request is tried again. Pure but for the jitter, which the caller draws.

Takes how often it failed and since when; gives seconds, or None to give up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 20.0
LONGEST_WISH_S: Final = 120.0
"""A server that asks for a longer pause than this is taken to ask for this one."""
SLOWEST_BYTES_PER_S: Final = 128 << 10
"""A body that comes slower than this, over its whole length, counts as stalled."""
STALL_S: Final = 30.0
STRANGER_S: Final = 30.0
"""A store that has never answered is given up after this long: its address is wrong more often than it is down."""
TOLD_AFTER_S: Final = 10.0
"""Who waits for a store that fails is told so after this long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failing requests are tried again.

    Args:
        give_up_s: seconds from the first attempt after which no other one begins.
    """

    give_up_s: float = 300.0

    def delay_s(self, attempt: int, since_s: float, jitter: float, wish_s: float | None = None) -> float | None:
        """Return the pause before the next attempt; None where it is time to give up.

        The pause doubles from attempt to attempt and is drawn between nothing and all of it ("full jitter"), so that
        many processes that failed together do not come back together.

        Args:
            attempt: how many have failed, 1 or more.
            since_s: seconds since the first attempt began.
            jitter: drawn uniformly from 0 … 1.
            wish_s: what the server asked for (Retry-After), which is waited for at least.
        Source:
            AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
        """
        longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 30))
        pause = longest * jitter
        if wish_s is not None:
            pause += min(max(wish_s, 0.0), LONGEST_WISH_S)
        return pause if since_s + pause <= self.give_up_s else None

    def with_stranger(self) -> Patience:
        """Return what is left of it for a store that has never answered."""
        return Patience(min(self.give_up_s, STRANGER_S))

    def attempt_s(self, length: int) -> float:
        """Return the seconds that one attempt at `length` bytes may take."""
        return min(STALL_S, max(self.give_up_s / 4, 0.5)) + length / SLOWEST_BYTES_PER_S
