"""The protocol between processes, its one-process form, and how they fail together.

Adapters bring the forms for torch.distributed, JAX and MPI. Nothing is exchanged per step: a stream talks once an
epoch, to route losses to their owners, to sum histograms, to broadcast the rule and to gather masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from seta_stream import errors
from seta_stream.errors import PeerError, PeerFailedError, SetaStreamError


class Collective(Protocol):
    """What a stream asks of the processes that train together. Every process makes the same calls in the same order.

    An exchange that another process does not come to ends in an error, within a time that the form is given.

    Raises:
        PeerError: another process left, or did not answer in time.
    """

    @property
    def rank(self) -> int:
        """This process, 0 … world − 1."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elementwise sum over all processes, on every process; all give arrays of one shape."""
        ...

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send parts[r] to process r; return what each process sent here, in rank order."""
        ...

    def gather(self, part: bytes) -> list[bytes]:
        """Return every process's part, in rank order, on every process; parts may differ in length."""
        ...

    def broadcast(self, value: bytes) -> bytes:
        """Return process 0's value on every process; what the others give is ignored."""
        ...


class OneProcess:
    """The collective of a single process: every exchange returns what was given."""

    rank = 0
    world = 1

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `counts`."""
        return counts

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Return `parts`, of which there must be one."""
        return list(parts)

    def gather(self, part: bytes) -> list[bytes]:
        """Return `part` alone."""
        return [part]

    def broadcast(self, value: bytes) -> bytes:
        """Return `value`."""
        return value


_DONE: Final = b"\0"
_FAILED: Final = b"\1"


def from_first(collective: Collective, work: Callable[[], bytes]) -> bytes:
    """Return, on every process, what `work` returns on process 0, where alone it is called.

    Raises:
        SetaStreamError: process 0 failed: the error is raised there as it was, and on the others with its text.
    """
    if collective.world == 1:
        return work()
    if collective.rank:
        return _opened(collective, 0, collective.broadcast(b""))
    sent: bytes = _tried(work, collective.broadcast)
    return sent[1:]


def from_each(collective: Collective, work: Callable[[], bytes]) -> list[bytes]:
    """Return what `work` returns on each process, in rank order, on every process.

    Raises:
        SetaStreamError: some process failed: its own error is raised there, and that of the lowest on the others.
    """
    if collective.world == 1:
        return [work()]
    parts = _tried(work, collective.gather)
    return [_opened(collective, rank, part) for rank, part in enumerate(parts)]


def agree(collective: Collective, what: str) -> None:
    """See that every process is about to do the same: an exchange of different things would never end, or end wrong.

    Args:
        collective: of the run.
        what: in words, as "set_epoch(3)".

    Raises:
        PeerError: they differ.
    """
    if collective.world == 1:
        return
    told = [_named(part) for part in collective.gather(what.encode())]
    other = next((rank for rank, one in enumerate(told) if one != told[0]), None)
    if other is not None:
        raise PeerError(
            f"The processes of this run do different things: process 0 calls {told[0]} and process {other} calls "
            f"{told[other]}. Every process must make the same calls in the same order.",
            expected=told[0],
            found=told[other],
        )


def agree_on(collective: Collective, options: Mapping[str, object]) -> None:
    """See that every process was given the same options, before anything is built from them.

    Args:
        collective: of the run.
        options: by name; their repr is compared.

    Raises:
        PeerError: naming the first option that differs, and both values.
    """
    if collective.world == 1:
        return
    packed = msgpack.packb({name: repr(value) for name, value in options.items()})
    told = [msgpack.unpackb(part) for part in collective.gather(packed)]
    for rank, other in enumerate(told):
        for name, value in told[0].items():
            if other.get(name) != value:
                raise PeerError(
                    f"The processes of this run were given different options: {name} is {_short(value)} on process 0 "
                    f"and {_short(str(other.get(name)))} on process {rank}. Give all the same: the plan deals out who "
                    "reads what.",
                    expected=value,
                    found=other.get(name),
                )


def _named(part: bytes) -> str:
    text = part.decode("utf-8", "replace")
    return text if text and text.isprintable() else "another exchange"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:120]} … {text[-60:]}"


def _tried(work: Callable[[], bytes], send: Callable[[bytes], Any]) -> Any:
    """Do the work and send its outcome, also where it is an error, which is raised then."""
    try:
        outcome = _DONE + work()
    except Exception as error:
        send(_FAILED + _told(error))
        raise
    return send(outcome)


def _told(error: Exception) -> bytes:
    is_known = isinstance(error, SetaStreamError)
    text = error.message if isinstance(error, SetaStreamError) else f"{type(error).__name__}: {error}"
    return bytes(msgpack.packb([type(error).__name__ if is_known else "", text]))


def _opened(collective: Collective, rank: int, part: bytes) -> bytes:
    """Return what a process sent; raise its error."""
    if part[:1] == _DONE:
        return part[1:]
    name, text = msgpack.unpackb(part[1:])
    kind = getattr(errors, name, None) if name else None
    if isinstance(kind, type) and issubclass(kind, SetaStreamError):
        raise kind(f"{text} (Told by process {rank} of {collective.world}.)")
    raise PeerFailedError(f"Process {rank} of {collective.world} failed, and this one cannot go on without it. {text}")
