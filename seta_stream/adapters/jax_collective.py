"""JAX: the collective over JAX processes.

Takes the processes that jax.distributed joined; gives a `Collective` over them. Effects: connections between the CPUs
of the hosts, made when the collective is; an exchange runs in a thread of its own, which a time limit and Ctrl-C end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from seta_stream.adapters.jax_wire import AT_ONCE, Wire
from seta_stream.errors import ArgumentError, PeerError
from seta_stream.transport import Exchanges, checked_timeout, first_line

T = TypeVar("T")


class JaxCollective:
    """The processes of jax.distributed, as a `Collective`.

    Everything travels as bytes, by one compiled program: each process sends one row of uint8 to every other
    (`jax.lax.all_to_all`). Nothing is computed in JAX, so that int64 stays exact whether jax_enable_x64 is on or off.
    It runs on the CPU of each host, never on an accelerator: device memory and the order of the collectives there are
    not touched, and a lost connection is an error. (A collective on a GPU waits for ever:
    github.com/jax-ml/jax/issues/38503.) What JAX runs on the CPUs is waited for first, for two programs that exchange
    at once would mix up their messages.

    **Every process must construct it, at the same place in its code**, within 30 s of each other, which is how long JAX
    lets processes meet: right after `jax.distributed.initialize()`.

    A process that dies ends the exchanges of the others at once, in PeerError. They cannot go on, and JAX ends
    them on their way out: it waits for the dead one, up to `shutdown_timeout_seconds` (300), then aborts; and wherever
    they are, it aborts them after `heartbeat_timeout_seconds` (100). Both are arguments of `initialize`.

    Args:
        timeout_s: how long one round of messages may wait for another process.

    Raises:
        ArgumentError: JAX has no CPU devices here, or does not connect the processes.
        PeerError: another process did not come.
    """

    def __init__(self, *, timeout_s: float = 600.0) -> None:
        self._timeout_s = checked_timeout(timeout_s)
        devices = _cpu_devices()
        self.rank = jax.process_index("cpu")
        """As JAX numbers the hosts' CPUs; on a TPU pod `jax.process_index()` may be another number."""
        self.world = len(devices)
        self._wire = Wire(devices, self.rank)
        if self.world > 1:
            self._meet()
        self._exchanges = Exchanges(
            self._wire,
            AT_ONCE,
            name="JaxCollective",
            timeout_s=self._timeout_s,
            failures=(ConnectionError, TimeoutError),
            call=self._watched if self.world > 1 else lambda work: work(),
        )

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elementwise sum over all processes, on every process; all give arrays of one shape."""
        return self._exchanges.sum(counts)

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send parts[r] to process r; return what each process sent here, in rank order.

        Every part takes the room of the longest on its way: parts should be of about one length.
        """
        return self._exchanges.route(parts)

    def gather(self, part: bytes) -> list[bytes]:
        """Return every process's part, in rank order, on every process."""
        return self._exchanges.gather(part)

    def broadcast(self, value: bytes) -> bytes:
        """Return process 0's value on every process."""
        return self._exchanges.broadcast(value)

    def close(self) -> None:
        """Refuse every later exchange; the connections are JAX's and end with it. Doing it again does nothing."""
        self._exchanges.end("it was closed.")

    def _meet(self) -> None:
        """Connect the processes, once every one of them is here."""
        try:
            self._watched(lambda: self._wire.tell("gather", 0))
        except (ConnectionError, TimeoutError) as error:
            raise PeerError(
                f"Process {self.rank} of {self.world} could not meet the others within {min(self._timeout_s, 30):g} s: "
                "one left, or never came. Every process must construct JaxCollective (or JaxStream, which does) at the "
                "same place in its code, right after jax.distributed.initialize(). Look for the first error among the "
                f"logs of the others. ({first_line(error)})"
            ) from error

    def _watched(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, waiting in a way that a signal and the time limit can end.

        JAX waits in C++, where Python sees no Ctrl-C, and for half an hour. In a thread of its own the exchange is
        also free of what the caller's thread has set: a mesh, a default device, a transfer guard.

        Raises:
            TimeoutError: a round took longer than the limit; the thread is left behind, and ends with the process.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                self._wire.settle()
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001  (raised where the work was asked for)
                failure.append(error)

        # A daemon, and no pool's, which Python would join at its exit.
        thread = threading.Thread(target=run, name="seta_stream exchange", daemon=True)
        thread.start()
        while thread.is_alive():
            before = self._wire.rounds
            thread.join(self._timeout_s)
            if thread.is_alive() and self._wire.rounds == before:
                raise TimeoutError(f"no answer within {self._timeout_s:g} s")
        if failure:
            raise failure[0]
        return outcome[0]


def _cpu_devices() -> list[Any]:
    """Return the first CPU device of each process, by process.

    Raises:
        ArgumentError: there is none, or the processes are not connected.
    """
    try:
        devices = jax.devices("cpu")
    except RuntimeError as error:
        raise ArgumentError(
            "JaxCollective exchanges between the CPUs of the hosts, and JAX has no CPU devices here: add cpu to "
            f"JAX_PLATFORMS, as JAX_PLATFORMS=cuda,cpu. ({first_line(error)})"
        ) from error
    first = {device.process_index: device for device in reversed(devices)}
    if len(first) != jax.process_count():
        raise ArgumentError(
            f"JAX has {jax.process_count()} processes, and the CPUs of {len(first)} are connected: call "
            "jax.distributed.initialize() in every process, before anything else of JAX.",
            expected=jax.process_count(),
            found=len(first),
        )
    settings: Any = jax.config  # its options have no annotations
    if len(first) > 1 and settings.jax_cpu_collectives_implementation is None:
        raise ArgumentError(
            "JAX connects no CPUs here: leave jax_cpu_collectives_implementation at 'gloo', its default.",
            expected="gloo",
        )
    return [first[process] for process in sorted(first)]
