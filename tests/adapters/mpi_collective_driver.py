"""One process of an MPI run that a test of MPICollective starts with mpiexec.

Takes the name of a scenario and a folder; writes what it saw to <folder>/<rank>.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from collective_suite import outcomes
from mpi4py import MPI

from seta_stream.adapters.mpi import MPICollective
from seta_stream.errors import SetaStreamError

Seen = dict[str, Any]

LONG_S = 60.0
"""So long that a test fails by it where an end must come at once."""


def refusal(call: Callable[[], Any]) -> list[str] | None:
    """Return class and text of the package's error, None where there is none."""
    try:
        call()
    except SetaStreamError as error:
        return [type(error).__name__, str(error)]
    return None


def suite() -> Seen:
    """Run all checks among all processes, then what harms no process."""
    collective = MPICollective(timeout_s=20)
    seen: Seen = {"told": outcomes(collective)}
    seen["forked"] = in_a_fork(collective)
    seen["after the fork"] = [part.decode() for part in collective.gather(b"%d" % collective.rank)]
    collective.close()
    collective.close()
    seen["closed"] = refusal(lambda: collective.gather(b""))
    seen["nowhere"] = refusal(lambda: MPICollective(MPI.COMM_NULL))
    MPI.Finalize()
    seen["finalized"] = refusal(MPICollective)
    return seen


def in_a_fork(collective: MPICollective) -> Any:
    """Use and close the collective in a fork, as a DataLoader worker would; return what that one saw."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = refusal(lambda: collective.gather(b""))
        collective.close()
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        told = json.loads(answer.read())
    os.waitpid(child, 0)
    return told


def groups() -> Seen:
    """Run all checks in two communicators of two at once, in the reverse order, beside traffic of the user's own."""
    rank = MPI.COMM_WORLD.Get_rank()
    own = MPI.COMM_WORLD.Split(rank // 2, -rank)
    mine, theirs = np.array([rank]), np.array([-1])
    # A receive for whatever comes on the user's communicator: none of the collective's messages may end up in it.
    waiting = own.Irecv([theirs, MPI.INT64_T], MPI.ANY_SOURCE, MPI.ANY_TAG)
    collective = MPICollective(own, timeout_s=20)
    told = outcomes(collective)
    order = [collective.rank, [int(part) for part in collective.gather(b"%d" % rank)]]
    own.Send([mine, MPI.INT64_T], 1 - own.Get_rank())
    waiting.Wait()
    collective.close()
    return {"told": told, "order": order, "received": int(theirs[0])}


def absent() -> Seen:
    """The last process makes one collective, not the second, and comes to no exchange."""
    collective = MPICollective(timeout_s=1)
    if collective.rank == collective.world - 1:
        signal.pause()
    counts = np.zeros(3, dtype=np.int64)
    begun = time.monotonic()
    told = [refusal(lambda: collective.sum(counts)), refusal(lambda: collective.route([b""] * collective.world))]
    between = time.monotonic()
    made = refusal(lambda: MPICollective(timeout_s=1))
    seen = {"told": told, "made": made, "seconds": [between - begun, time.monotonic() - between]}
    write(seen)
    raise SystemExit(7)  # under `python -m mpi4py` this aborts the job, and ends the process that stayed away


def killed() -> Seen:
    """Exchange until the last process kills itself."""
    collective = MPICollective(timeout_s=LONG_S)
    write({"begun": time.time()})
    for turn in range(100_000):
        collective.gather(b"%d" % turn)
        if turn == 20 and collective.rank == collective.world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return {}


def interrupted() -> Seen:
    """Process 0 waits for one that does not come and gets SIGINT, which it sends itself by a timer."""
    collective = MPICollective(timeout_s=LONG_S)
    if collective.rank:
        signal.pause()
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    begun = time.monotonic()
    try:
        collective.gather(b"")
    except KeyboardInterrupt:
        write({"seconds": time.monotonic() - begun, "later": refusal(lambda: collective.gather(b""))})
        raise
    return {}


folder = Path(sys.argv[2])


def write(seen: Seen) -> None:
    rank = os.environ["PMI_RANK"]
    partial = folder / f"{rank}.partial"
    partial.write_text(json.dumps(seen))
    partial.rename(folder / f"{rank}.json")


if __name__ == "__main__":
    warnings.simplefilter("error")
    write(globals()[sys.argv[1]]())
