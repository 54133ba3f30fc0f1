"""One process of a torch.distributed run that a test of TorchCollective starts.

Takes the name of a scenario and a folder; writes what it saw to <folder>/<rank>.json. Started by
torch.distributed.run, or by a test with RANK and WORLD_SIZE, when the processes meet at a file in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from collective_suite import outcomes
from torch.utils.data import DataLoader, IterableDataset

from seta_stream.adapters import torch_collective
from seta_stream.adapters.torch_collective import GroupTransport, TorchCollective
from seta_stream.errors import SetaStreamError

Seen = dict[str, Any]

LONG_S = 60.0
"""So long that a test fails by it where an error must come at once."""

make_group: Any = dist.new_group


def forget_gloo() -> None:
    """Be a torch without gloo, which exchanges through the user's group."""
    torch_collective.dist.is_gloo_available = lambda: False  # type: ignore[method-assign]


def forget_store() -> None:
    """Be an older torch, whose groups do not give their store away."""
    del dist.ProcessGroup.get_group_store  # type: ignore[attr-defined]


def suite() -> Seen:
    """Run all checks over a gloo group of its own, then over what stands in for it in other builds of torch."""
    seen = {"own": checked(None)}
    forget_store()
    seen["registered"] = checked(None)
    forget_gloo()
    seen["through the group"] = checked(None)
    return seen


def nccl() -> Seen:
    """Run all checks through an NCCL group, as tensors on this process's GPU."""
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    forget_gloo()
    return {"nccl": checked(None)}


def checked(group: Any) -> dict[str, str]:
    collective = TorchCollective(group, timeout_s=20)
    told = outcomes(collective)
    collective.close()
    return told


def pairs() -> Seen:
    """Run all checks in two groups of two at once, while one process is in a group that no other knows of."""
    world, rank = dist.get_world_size(), dist.get_rank()
    rows = [make_group([first, first + 1]) for first in range(0, world, 2)]
    columns = [make_group([first, first + 2]) for first in range(2)]
    row, column = rows[rank // 2], columns[rank % 2]
    alone = make_group([0])
    told = {"rows": checked(row), "columns": checked(column)}
    both = [TorchCollective(row, timeout_s=20), TorchCollective(column, timeout_s=20)]
    # Two at once, used in turns: each keeps to its own processes.
    members = [[int(part) for part in one.gather(b"%d" % rank)] for one in both for _ in range(2)]
    reverse = make_group([3, 1], sort_ranks=False)
    order = None
    if rank in {1, 3}:
        turned = TorchCollective(reverse, timeout_s=20)
        order = [turned.rank, [int(part) for part in turned.gather(b"%d" % rank)]]
    outside = refusal(lambda: TorchCollective(rows[0]))
    # A torch that does not give stores away needs members that are in equally many groups.
    for uneven in (alone, reverse):
        dist.destroy_process_group(uneven)
    forget_store()
    told["registered rows"] = checked(row)
    return {"told": told, "members": members, "order": order, "outside": outside}


def refusal(call: Callable[[], Any]) -> list[str] | None:
    """Return class and text of the package's error, None where there is none."""
    try:
        call()
    except SetaStreamError as error:
        return [type(error).__name__, str(error)]
    return None


def killed() -> Seen:
    """Exchange until the last process kills itself; say what each survivor learns, and stay until the test says go."""
    collective = TorchCollective(timeout_s=LONG_S)
    begun = time.monotonic()
    seen = refusal(lambda: until_the_end(collective))
    later = refusal(lambda: collective.broadcast(b""))
    return {"seen": seen, "later": later, "seconds": time.monotonic() - begun, "stay": True}


def killed_in_registered() -> Seen:
    """The same over a group that torch keeps books on."""
    forget_store()
    return killed()


def until_the_end(collective: TorchCollective) -> None:
    for turn in range(1000):
        collective.gather(b"%d" % turn)
        if turn == 20 and collective.rank == collective.world - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def absent() -> Seen:
    """The last process makes one collective, not the second, and comes to no exchange."""
    collective = TorchCollective(timeout_s=1)
    if dist.get_rank() == dist.get_world_size() - 1:
        return {"stay": True}
    counts = np.zeros(3, dtype=np.int64)
    begun = time.monotonic()
    told = [refusal(lambda: collective.sum(counts)), refusal(lambda: collective.route([b""] * collective.world))]
    between = time.monotonic()
    made = refusal(lambda: TorchCollective(timeout_s=1))
    return {"told": told, "made": made, "seconds": [between - begun, time.monotonic() - between]}


def interrupted_in_registered() -> Seen:
    """The same over a group that torch keeps books on."""
    forget_store()
    return interrupted()


def interrupted() -> Seen:
    """Process 0 waits for a process that does not come, until the test sends it SIGINT."""
    collective = TorchCollective(timeout_s=LONG_S)
    if dist.get_rank():
        return {"stay": True}
    begun = time.monotonic()
    threading.Thread(target=say_when_it_waits, daemon=True).start()
    try:
        collective.gather(b"")
    except KeyboardInterrupt:
        return {"seconds": time.monotonic() - begun, "later": refusal(lambda: collective.gather(b""))}
    return {}


def say_when_it_waits() -> None:
    """Write a line once the main thread waits for an exchange."""
    pause = threading.Event()
    while not is_exchanging():
        pause.wait(0.01)
    sys.stdout.write("waiting\n")
    sys.stdout.flush()


def is_exchanging() -> bool:
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    names = [step.f_code.co_name for step, _ in traceback.walk_stack(frame)]
    return (
        "gather" in names and names[0] == "wait" and any(one.name.startswith("seta") for one in threading.enumerate())
    )


class Holder(IterableDataset[int]):
    """A dataset whose worker processes hold the collective of the main one."""

    def __init__(self, collective: TorchCollective) -> None:
        self.collective: TorchCollective | None = collective

    def __iter__(self) -> Iterator[int]:
        assert self.collective is not None
        told = refusal(lambda: self.collective and self.collective.gather(b""))
        assert told is not None
        assert told[0] == "UnsupportedError", told
        assert "in a DataLoader worker" in told[1], told
        self.collective.close()
        self.collective = None  # the last reference in this process: nothing must wait for threads that it has not
        yield from range(3)


def forked() -> Seen:
    """Fork DataLoader workers that hold the collective, use it there and close it; then exchange in the main one."""
    collective = TorchCollective(timeout_s=20)
    before = collective.gather(b"before")
    loader = DataLoader(Holder(collective), batch_size=None, num_workers=2, multiprocessing_context="fork")
    read = sorted(int(number) for number in loader)
    after = collective.gather(b"after")
    return {"told": [part.decode() for part in before + after], "read": read}


def made_and_closed() -> Seen:
    """Make a collective, exchange once and close at once, again and again: nobody waits for one that has left."""
    turns = []
    for turn in range(8):
        collective = TorchCollective(timeout_s=20)
        turns.append(collective.broadcast(b"%d" % turn).decode())
        collective.close()
        collective.close()
    return {"turns": turns, "later": refusal(lambda: collective.gather(b""))}


def quiet() -> Seen:
    """Run the scenarios after which every process goes on, one after the other."""
    return {one.__name__: one() for one in (forked, made_and_closed, different_sizes, all_destroyed)}


def all_destroyed() -> Seen:
    """A script that destroys all groups before it closes the stream closes it all the same."""
    own = TorchCollective(timeout_s=20)
    forget_store()
    registered = TorchCollective(timeout_s=20)
    transport = registered._transport
    assert isinstance(transport, GroupTransport)
    dist.destroy_process_group(transport._group)
    again = TorchCollective(timeout_s=20)
    dist.destroy_process_group()
    lost = refusal(lambda: again.broadcast(b"x"))
    told = [part.decode() for part in own.gather(b"%d" % own.rank)]
    for collective in (registered, again, own):
        collective.close()
    return {"lost": lost, "told": told}


def different_sizes() -> Seen:
    """Processes that sum arrays of different size are told so, and go on."""
    collective = TorchCollective(timeout_s=20)
    seen = refusal(lambda: collective.sum(np.zeros(5 + collective.rank, dtype=np.int64)))
    return {"seen": seen, "after": collective.broadcast(b"fine").decode()}


def main(scenario: str, folder: Path) -> None:
    backend = "nccl" if scenario == "nccl" else "gloo"
    rank, limit = int(os.environ["RANK"]), timedelta(seconds=LONG_S)
    if "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, timeout=limit)
    else:
        world, meeting = int(os.environ["WORLD_SIZE"]), f"file://{folder}/meeting"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world, timeout=limit)
    warnings.simplefilter("error")
    seen: Seen = globals()[scenario]()
    partial = folder / f"{rank}.partial"
    partial.write_text(json.dumps(seen))
    partial.rename(folder / f"{rank}.json")
    if dist.is_initialized() and not seen.get("stay"):
        # A process that ends beside a gloo thread which still lets go of a tensor is aborted: torch asks for this call.
        dist.destroy_process_group()
    if seen.get("stay"):
        sys.stdout.write("done\n")
        sys.stdout.flush()
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
