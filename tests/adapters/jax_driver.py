"""One JAX process that a test starts.

Takes the name of a scenario, a folder, its rank, the number of processes and the coordinator's port; writes what it saw
to <folder>/<rank>.json.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from seta_stream.adapters.jax_collective import JaxCollective
from seta_stream.errors import SetaStreamError

Seen = dict[str, Any]

LONG_S = 60.0
"""So long that a test fails by it where an error must come at once."""

_jax: Any = jax


def refusal(call: Callable[[], Any]) -> list[str] | None:
    """Return class and text of the package's error, None where there is none."""
    try:
        call()
    except SetaStreamError as error:
        return [type(error).__name__, str(error)]
    return None


def suite(folder: Path) -> Seen:
    """Run all checks of a collective."""
    from collective_suite import outcomes

    return outcomes(JaxCollective(timeout_s=20))


def stream_suite(folder: Path) -> Seen:
    """Run all checks of a stream in one process."""
    import jax_stream_suite

    return jax_stream_suite.outcomes(folder)


def training(folder: Path) -> Seen:
    """Train on meshes over several processes."""
    import jax_training

    return jax_training.all_runs(folder)


def killed(folder: Path) -> Seen:
    """Exchange until the last process kills itself; say what each survivor learns."""
    collective = JaxCollective(timeout_s=LONG_S)
    begun = time.monotonic()

    def until_the_end() -> None:
        for turn in range(1000):
            collective.gather(b"%d" % turn)
            if turn == 20 and collective.rank == collective.world - 1:
                os.kill(os.getpid(), signal.SIGKILL)

    seen = refusal(until_the_end)
    later = refusal(lambda: collective.broadcast(b""))
    return {"seen": seen, "later": later, "seconds": time.monotonic() - begun}


def absent(folder: Path) -> Seen:
    """The last process makes a collective and comes to no exchange."""
    collective = JaxCollective(timeout_s=2)
    if collective.rank == collective.world - 1:
        return {"stay": True}
    begun = time.monotonic()
    told = [refusal(lambda: collective.sum(np.zeros(3, np.int64))), refusal(lambda: collective.route([b"", b""]))]
    return {"told": told, "seconds": time.monotonic() - begun, "leave": True}


def never_made(folder: Path) -> Seen:
    """The last process makes no collective."""
    if jax.process_index() == jax.process_count() - 1:
        return {"stay": True}
    begun = time.monotonic()
    return {"told": refusal(lambda: JaxCollective(timeout_s=1)), "seconds": time.monotonic() - begun, "leave": True}


def interrupted(folder: Path) -> Seen:
    """Process 0 waits for a process that does not come, until the test sends it SIGINT."""
    collective = JaxCollective(timeout_s=LONG_S)
    if collective.rank:
        return {"stay": True}
    begun = time.monotonic()
    threading.Thread(target=say_when_it_waits, daemon=True).start()
    try:
        collective.gather(b"")
    except KeyboardInterrupt:
        return {"seconds": time.monotonic() - begun, "later": refusal(lambda: collective.gather(b"")), "leave": True}
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
    return "_watched" in names and "join" in names[:2]


def quiet(folder: Path) -> Seen:
    """Run what harms no process, one after the other."""
    collective = JaxCollective(timeout_s=20)
    busy = while_training(collective)
    sizes = refusal(lambda: collective.sum(np.zeros(5 + collective.rank, np.int64)))
    after = collective.broadcast(b"fine").decode()
    collective.close()
    collective.close()
    closed = refusal(lambda: collective.gather(b""))
    return {"busy": busy, "sizes": sizes, "after": after, "closed": closed}


def while_training(collective: JaxCollective) -> Seen:
    """Exchange while collectives of a training step run on the very same devices; say how often that was so."""
    mesh = Mesh(np.array(jax.devices()), ("data",))

    def step(block: jax.Array) -> jax.Array:
        for _ in range(4):
            block = _jax.numpy.tanh(block @ block[: block.shape[1]].T * 1e-3)
            # As exchanges do: of two such programs at once, each would take the other's rows for its own.
            block = _jax.lax.all_to_all(block, "data", split_axis=0, concat_axis=0, tiled=True)
        return block

    cut = _jax.P("data")
    train = _jax.jit(_jax.shard_map(step, mesh=mesh, in_specs=cut, out_specs=cut))
    block = np.full((jax.local_device_count() * 512, 512), 1.0 + collective.rank, np.float32)
    state = _jax.make_array_from_process_local_data(NamedSharding(mesh, cut), block)
    under_way, right = 0, 0
    for turn in range(20):
        for _ in range(3):
            state = train(state)
        under_way += not state.is_ready()
        told = collective.gather(bytes([turn, collective.rank]) * 5_000)
        right += told == [bytes([turn, rank]) * 5_000 for rank in range(collective.world)]
    return {"under_way": under_way, "right": right}


def main(scenario: str, folder: Path, rank: int, world: int, port: int) -> None:
    if world > 1:
        _jax.distributed.initialize(
            f"127.0.0.1:{port}", world, rank, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=3
        )
    warnings.simplefilter("error")
    seen: Seen = globals()[scenario](folder)
    partial = folder / f"{rank}.partial"
    partial.write_text(json.dumps(seen))
    partial.rename(folder / f"{rank}.json")
    if seen.get("stay"):
        sys.stdout.write("done\n")
        sys.stdout.flush()
        sys.stdin.read()
    if seen.get("stay") or seen.get("leave"):
        os._exit(0)  # JAX would wait for the others


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
