"""PyTorch: the collective over torch.distributed.

Takes a process group; gives a `Collective` over its ranks. Effects: connections between the processes, made when the
collective is; an exchange runs in a thread of its own, so that Ctrl-C ends the wait for it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from seta_stream.adapters.torch_waiting import in_thread, stop_waiting
from seta_stream.errors import ArgumentError, PeerError
from seta_stream.transport import PAIRWISE, Exchanges, checked_timeout, first_line

T = TypeVar("T")

_PrefixStore: Final[Any] = dist.PrefixStore  # type: ignore[attr-defined]  # public, and not in torch's list of exports

_FAILURES: Final = (RuntimeError, ValueError)
"""What torch.distributed raises for a lost or late peer (RuntimeError) and for a group that was destroyed."""

_STOP_TAG: Final = 1
"""Of a message that is never sent; all others have 0."""

_KEPT: Final[set[GlooTransport]] = set()
"""What was made here and not closed. A fork's copy must never run a group's destructor, which joins threads that a fork
does not have; and Python must not end beside them: one that lets go of a tensor then would abort the process."""


class TorchCollective:
    """The processes of a torch.distributed group, as a `Collective`.

    It talks over a gloo group of its own, on the CPU: the traffic, the order and the streams of the user's group,
    NCCL's say, are never touched. **Every process of `group` must construct it, at the same place in its code**, and
    no other process need: the processes meet through the store of `group`. (An older torch does not give that store
    away; there they meet by `dist.new_group`: see `_registered`.)

    It is made once per run, in the process that trains. DataLoader workers forked from there may hold it and must not
    use it; it cannot be pickled. Where gloo is not built in, it exchanges tensors through `group` itself: on the
    current CUDA device with NCCL, whose watchdog ends the process, by its own timeout, when a peer is lost.

    Args:
        group: the processes that train together (the data-parallel group); None means all.
        timeout_s: how long a message may wait for another process.

    Raises:
        ArgumentError: torch.distributed is not initialised, or this process is not in the group.
        PeerError: another process of the group did not come.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, timeout_s: float = 600.0) -> None:
        timeout_s = checked_timeout(timeout_s)
        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError(
                "TorchCollective needs torch.distributed, which is not initialised in this process: call "
                "torch.distributed.init_process_group() first (torchrun sets what it needs)."
            )
        self.rank = dist.get_rank(group)
        self.world = dist.get_world_size(group)
        if self.rank < 0:
            raise ArgumentError(
                f"Process {dist.get_rank()} of {dist.get_world_size()} is not in the group given to TorchCollective: "
                f"each process gives the group that it trains in."
            )
        self._transport = _met(group, self.rank, self.world, timeout_s)
        self._exchanges = Exchanges(
            self._transport,
            PAIRWISE,
            name="TorchCollective",
            timeout_s=timeout_s,
            failures=_FAILURES,
            call=self._transport.call,
        )

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elementwise sum over all processes, on every process; all give arrays of one shape."""
        return self._exchanges.sum(counts)

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send parts[r] to process r; return what each process sent here, in rank order."""
        return self._exchanges.route(parts)

    def gather(self, part: bytes) -> list[bytes]:
        """Return every process's part, in rank order, on every process."""
        return self._exchanges.gather(part)

    def broadcast(self, value: bytes) -> bytes:
        """Return process 0's value on every process."""
        return self._exchanges.broadcast(value)

    def close(self) -> None:
        """Close the connections; nothing is exchanged, and doing it again, or in a fork, does nothing."""
        if self._exchanges.end("it was closed."):
            self._transport.abandon()


class GlooTransport:
    """Messages over a gloo group that torch.distributed keeps no books on: its ranks are those of `Collective`.

    Args:
        store: where the processes find each other; the prefix must be this group's alone.
        rank, world: of this process in the group.
        timeout_s: for each message, and for the processes to meet.
    """

    def __init__(self, store: Any, rank: int, world: int, timeout_s: float) -> None:
        self.rank, self.world = rank, world
        self.process = os.getpid()
        # Source: torchft's process_group.py builds gloo groups over a PrefixStore in this way.
        self._group: Any = dist.ProcessGroupGloo(store, rank, world, timedelta(seconds=timeout_s))
        _KEPT.add(self)

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every process's row."""
        rows = np.empty((self.world, row.size), dtype=np.int64)
        _wait([self._group.allgather([list(torch.from_numpy(rows))], [torch.from_numpy(row)])])
        return rows

    def swap(self, target: int, outgoing: NDArray[np.uint8], source: int, incoming: NDArray[np.uint8]) -> None:
        """Send one array while another arrives."""
        works = []
        if incoming.size:
            works.append(self._group.recv([torch.from_numpy(incoming)], source, 0))
        if outgoing.size:
            works.append(self._group.send([_tensor(outgoing)], target, 0))
        _wait(works)

    def spread(self, piece: NDArray[np.uint8]) -> None:
        """Fill the array with process 0's."""
        _wait([self._group.broadcast(_tensor(piece), 0)])

    def add(self, piece: NDArray[np.int64]) -> None:
        """Replace the array by the sum over all processes."""
        _wait([self._group.allreduce(torch.from_numpy(piece), dist.ReduceOp.SUM)])

    def call(self, work: Callable[[], T]) -> T:
        """Run an exchange so that Ctrl-C ends it."""
        return in_thread(work, self._stop)

    def abandon(self) -> None:
        """Drop the group: with the last reference its sockets close, and who waits for this process is told."""
        _KEPT.discard(self)
        self._group = None

    def _stop(self) -> None:
        def ask(other: int) -> Any:
            return self._group.recv([torch.empty(1, dtype=torch.uint8)], other, _STOP_TAG)

        stop_waiting(ask, self.rank, self.world)


class GroupTransport:
    """Messages through a group that torch.distributed knows, as tensors on a device.

    Args:
        group: of torch.distributed; None means all processes.
        device: of the tensors: "cpu" for gloo, the current CUDA device for NCCL.
        is_own: the group was made for this alone, and is destroyed with it.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device, *, is_own: bool) -> None:
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self._group = group
        self._device = device
        self._is_own = is_own
        # The numbers that torch.distributed calls the group's processes by, in the group's order.
        self._processes = dist.get_process_group_ranks(group if group is not None else dist.group.WORLD)

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every process's row."""
        given = torch.from_numpy(row).to(self._device)
        rows = [torch.empty_like(given) for _ in range(self.world)]
        dist.all_gather(rows, given, group=self._group)
        gathered: NDArray[np.int64] = torch.stack(rows).cpu().numpy()
        return gathered

    def swap(self, target: int, outgoing: NDArray[np.uint8], source: int, incoming: NDArray[np.uint8]) -> None:
        """Send one array while another arrives."""
        arriving = torch.empty(incoming.size, dtype=torch.uint8, device=self._device)
        messages = []
        if outgoing.size:
            leaving = _tensor(outgoing).to(self._device)
            messages.append(dist.P2POp(dist.isend, leaving, self._processes[target], self._group))
        if incoming.size:
            messages.append(dist.P2POp(dist.irecv, arriving, self._processes[source], self._group))
        if messages:
            # As a batch: NCCL runs a send and a receive one after the other else, and two processes that both send
            # first would wait for ever.
            _wait(dist.batch_isend_irecv(messages))
        incoming[:] = arriving.cpu().numpy()

    def spread(self, piece: NDArray[np.uint8]) -> None:
        """Fill the array with process 0's."""
        tensor = _tensor(piece).to(self._device)
        dist.broadcast(tensor, self._processes[0], group=self._group)
        if self.rank:
            piece[:] = tensor.cpu().numpy()

    def add(self, piece: NDArray[np.int64]) -> None:
        """Replace the array by the sum over all processes."""
        tensor = torch.from_numpy(piece).to(self._device)
        dist.all_reduce(tensor, dist.ReduceOp.SUM, group=self._group)
        piece[:] = tensor.cpu().numpy()

    def call(self, work: Callable[[], T]) -> T:
        """Run an exchange so that Ctrl-C ends it, in a group of its own; in the user's it must run its course."""
        return in_thread(work, self._stop) if self._is_own else work()

    def abandon(self) -> None:
        """Destroy the group, if it is this one's own and is still there."""
        group, self._group = self._group, None
        if self._is_own and group is not None and dist.is_initialized():
            with suppress(ValueError):  # gone already: a script that ends may destroy all groups by one call
                dist.destroy_process_group(group)

    def _stop(self) -> None:
        def ask(other: int) -> Any:
            return dist.irecv(torch.empty(1, dtype=torch.uint8), self._processes[other], self._group, _STOP_TAG)

        stop_waiting(ask, self.rank, self.world)


def _met(group: dist.ProcessGroup | None, rank: int, world: int, timeout_s: float) -> GlooTransport | GroupTransport:
    """Return the transport of a group, once every process of it is here."""
    # Read here, for a thread has a current device of its own; and only where it is needed, for it starts CUDA.
    device = torch.device("cpu") if dist.is_gloo_available() else _device(group)
    try:
        return in_thread(lambda: _transport(group, rank, world, timeout_s, device), lambda: None)
    except _FAILURES as error:
        raise PeerError(
            f"Process {rank} of {world} could not meet the others of its group within {timeout_s:g} s: one left, or "
            f"never came. Every process of the group must construct TorchCollective (or SetaDataset, which does) at "
            f"the same place in its code. Look for the first error among the logs of the others. ({first_line(error)})"
        ) from error


def _transport(
    group: dist.ProcessGroup | None, rank: int, world: int, timeout_s: float, device: torch.device
) -> GlooTransport | GroupTransport:
    if not dist.is_gloo_available():
        return GroupTransport(group, device, is_own=False)
    given: Any = group if group is not None else dist.group.WORLD
    if not hasattr(given, "get_group_store"):
        return _registered(group, timeout_s)
    processes = dist.get_process_group_ranks(given)
    # One more per construction, counted by each process for itself, so that a second collective has its own keys.
    base = _PrefixStore(f"seta_stream/{processes[0]}", given.get_group_store())
    number = base.add(f"made/{rank}", 1)
    return GlooTransport(_PrefixStore(f"gloo/{number}", base), rank, world, timeout_s)


def _registered(group: dist.ProcessGroup | None, timeout_s: float) -> GroupTransport:
    """Return a transport over a gloo group made by `dist.new_group`, for a torch that gives no store away.

    A group of all processes is made by all of them, under a number that torch counts. A smaller one is made by its
    members alone (`use_local_synchronization`): disjoint groups that are made at once would get one number. Its
    name then holds how many groups the process is in: members that are in different numbers of groups do not meet,
    and the timeout ends it.
    """
    processes = dist.get_process_group_ranks(group if group is not None else dist.group.WORLD)
    own = dist.new_group(
        processes,
        timeout=timedelta(seconds=timeout_s),
        backend="gloo",
        use_local_synchronization=len(processes) < dist.get_world_size(),
    )
    return GroupTransport(own, torch.device("cpu"), is_own=True)


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """Return where the group's own backend takes tensors."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _wait(works: list[Any]) -> None:
    """Wait for the messages; keep none, for each holds the connections open, also from an error's traceback."""
    try:
        while works:
            works.pop(0).wait()
    finally:
        works.clear()


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return the array as a tensor; a read-only one, which torch does not take, is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@atexit.register
def _close_kept() -> None:
    for transport in [one for one in _KEPT if one.process == os.getpid()]:
        transport.abandon()
