"""MPI: the collective over mpi4py, for jobs that mpiexec or srun starts.

Takes a communicator; gives a `Collective` over its processes. Effects: importing mpi4py initialises MPI; a communicator
of its own is made with the collective. Buffers alone are sent, nothing is pickled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, MissingExtraError, PeerError
from seta_stream.transport import PAIRWISE, Exchanges, checked_timeout

try:
    from mpi4py import MPI
except ImportError as error:
    raise MissingExtraError.of("MPICollective", "mpi", error) from error

_SPIN_S: Final = 0.001
_PAUSE_S: Final = 0.001

_ABANDONED: Final[list[tuple[list[MPI.Request], tuple[Any, ...]]]] = []
"""Requests that were given up, and their arrays: MPI may still write there until the process ends."""


class MPICollective:
    """The processes of an MPI communicator, as a `Collective`.

    It talks over a duplicate of `comm`, so that no message of the user's is mistaken for one of its own. Every process
    of `comm` must construct it, at the same place in its code, and it is used from the thread that made it (or one at a
    time, where MPI was initialised for that). DataLoader workers forked from there may hold it and must not use it.

    A process that is late ends in PeerError here. One that *dies* is mostly noticed sooner by what started it: MPICH's
    mpiexec, Open MPI's and srun (with --kill-on-bad-exit) end all processes of the job. A PeerError in its turn must
    end the job too: `MPI_Finalize`, which mpi4py calls at the end of the process, waits for the others. So start the
    script as `mpiexec -n 4 python -m mpi4py train.py`: that aborts the whole job at an exception nobody catches.

    Args:
        comm: the processes that train together; None means all, MPI.COMM_WORLD.
        timeout_s: how long a message may wait for another process.

    Raises:
        ArgumentError: MPI was finalised, or this process is not in `comm`.
        PeerError: another process of `comm` did not come.

    Source:
        mpi4py's documentation of `mpi4py.run`: exceptions, finalisation and deadlocks.
    """

    def __init__(self, comm: MPI.Intracomm | None = None, *, timeout_s: float = 600.0) -> None:
        timeout_s = checked_timeout(timeout_s)
        if not MPI.Is_initialized() or MPI.Is_finalized():
            raise ArgumentError(
                "MPICollective needs MPI, which is not initialised in this process (any more): construct it after "
                "MPI.Init() and close it before MPI.Finalize()."
            )
        given = MPI.COMM_WORLD if comm is None else comm
        if given == MPI.COMM_NULL:
            raise ArgumentError(
                "The communicator given to MPICollective is MPI.COMM_NULL: this process is not in it. Each process "
                "gives the communicator that it trains in."
            )
        self.rank = given.Get_rank()
        self.world = given.Get_size()
        self._transport = MPITransport(given, timeout_s)
        self._exchanges = Exchanges(
            self._transport, PAIRWISE, name="MPICollective", timeout_s=timeout_s, failures=(MPI.Exception, TimeoutError)
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
        """Free the communicator, on every process at the same place; doing it again, or in a fork, does nothing."""
        if self._exchanges.end("it was closed."):
            self._transport.free()


class MPITransport:
    """Messages over a duplicate of a communicator, each polled against a deadline.

    MPI has no wait with a time limit: every call is the nonblocking one, and Python looks whether it is over. That
    lets Ctrl-C through as well.

    Args:
        comm: the communicator to duplicate.
        timeout_s: for each message.

    Raises:
        PeerError: another process of `comm` did not come to the duplication.
    """

    def __init__(self, comm: MPI.Intracomm, timeout_s: float) -> None:
        self.rank = comm.Get_rank()
        self.world = comm.Get_size()
        self._timeout_s = timeout_s
        self._comm, request = comm.Idup()
        try:
            self._wait([request])
        except (MPI.Exception, TimeoutError) as error:
            raise PeerError(
                f"Process {self.rank} of {self.world} could not meet the others of its communicator within "
                f"{timeout_s:g} s: one left, or never came. Every process of it must construct MPICollective at the "
                f"same place in its code. Look for the first error among the logs of the others. ({error})"
            ) from error
        # A failure is an exception here, whatever the user's communicator does with it.
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every process's row."""
        rows = np.empty((self.world, row.size), dtype=np.int64)
        self._wait([self._comm.Iallgather(row, rows)], row, rows)
        return rows

    def swap(self, target: int, outgoing: NDArray[np.uint8], source: int, incoming: NDArray[np.uint8]) -> None:
        """Send one array while another arrives."""
        requests = []
        if incoming.size:
            requests.append(self._comm.Irecv([incoming, MPI.BYTE], source))
        if outgoing.size:
            requests.append(self._comm.Isend([outgoing, MPI.BYTE], target))
        self._wait(requests, outgoing, incoming)

    def spread(self, piece: NDArray[np.uint8]) -> None:
        """Fill the array with process 0's."""
        self._wait([self._comm.Ibcast([piece, MPI.BYTE], 0)], piece)

    def add(self, piece: NDArray[np.int64]) -> None:
        """Replace the array by the sum over all processes."""
        total = np.empty_like(piece)
        self._wait([self._comm.Iallreduce(piece, total, MPI.SUM)], piece, total)
        piece[:] = total

    def abandon(self) -> None:
        """Leave the communicator as it is: freeing one with a request under way waits for the others."""

    def free(self) -> None:
        """Give the communicator back to MPI."""
        if not MPI.Is_finalized():
            self._comm.Free()

    def _wait(self, requests: list[MPI.Request], *arrays: Any) -> None:
        """Wait for all requests, which write to and read from the arrays.

        Raises:
            TimeoutError: the time is up.
        """
        try:
            _poll(requests, self._timeout_s)
        except BaseException:
            _ABANDONED.append((requests, arrays))
            raise


def _poll(requests: list[MPI.Request], timeout_s: float) -> None:
    """Return once all requests are over; TimeoutError where they are not in time."""
    begun = time.monotonic()
    while not MPI.Request.Testall(requests):
        waited_s = time.monotonic() - begun
        if waited_s > timeout_s:
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if waited_s > _SPIN_S:
            # MPI makes progress in its calls alone and wakes nobody: the only way is to look again.
            time.sleep(_PAUSE_S)
