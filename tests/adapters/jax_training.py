"""Training with JaxStream over several processes: the same as in one, whatever the order of the mesh.

Takes a folder that all processes share; every process calls `all_runs`, which gives what it saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from small_corpora import text_members, write_tar

from seta_stream import SeTa, SetaStream
from seta_stream.adapters.jax import JaxCollective, JaxStream, weighted_mean
from seta_stream.collective import from_first
from seta_stream.errors import SetaStreamError

BATCH, EPOCHS = 4, 3
_jax: Any = jax


def policy() -> SeTa:
    return SeTa(num_epochs=EPOCHS, target=0.4)


def loss_of(ids: Any) -> Any:
    return (ids * 37 % 101) / 10 + 0.1


def decode(field: str, data: bytes) -> Any:
    return int(data) if field == "txt" else data.decode()


def write_shards(folder: Path) -> bytes:
    for shard in range(3):
        write_tar(folder / f"train-{shard:05d}.tar", text_members(shard * 41, 41))
    return b""


def urls(folder: Path) -> list[str]:
    return [str(folder / f"train-{shard:05d}.tar") for shard in range(3)]


def meshes() -> dict[str, NamedSharding]:
    """Return shardings over all devices, two of each process.

    In "turned" the last process has the first rows, each of them on both of its devices; in "in turns" a process has
    rows at the front and in the middle.
    """
    devices = np.array(jax.devices())
    cut = _jax.P("data")
    return {
        "turned": NamedSharding(Mesh(devices[::-1].reshape(-1, 2), ("data", "model")), cut),
        "in turns": NamedSharding(Mesh(devices.reshape(-1, 2).T.reshape(-1), ("data",)), cut),
    }


Step = tuple[list[int], float]
"""This process's ids of a step, and the step's mean loss."""


def steps_of(stream: JaxStream, step: Callable[..., Any], most: int | None = None) -> list[Step]:
    """Train over the epoch that is set, or over some of its steps."""
    seen: list[Step] = []
    for batch in stream:
        total = BATCH * jax.process_count()
        assert batch["txt"].shape == batch["__weight__"].shape == (total,)
        rows = {int(row) for shard in batch["txt"].addressable_shards for row in np.asarray(shard.data)}
        assert rows == set(batch["__index__"].tolist()), "this process's rows lie on its devices"
        assert len(batch["cls"]) == len(batch["__index__"]) == BATCH
        mean, losses = step(batch["txt"], batch["__weight__"])
        own = losses if len(seen) % 2 else loss_of(batch["__index__"])  # of the whole step, or of this process
        stream.update(batch["__index__"], own)
        seen.append((batch["__index__"].tolist(), float(mean)))
        if len(seen) == most:
            break
    return seen


def run(folder: Path, sharding: NamedSharding, state: str) -> list[list[Step]]:
    """Train all epochs; return the steps of each."""

    @_jax.jit
    def step(texts: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = loss_of(texts)
        return weighted_mean(losses, weights), losses

    with JaxStream(
        urls(folder), batch_size=BATCH, sharding=sharding, policy=policy(), state=state, decode=decode, seed=2
    ) as stream:
        told = []
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)
            told.append(steps_of(stream, step))
            assert len(told[-1]) == len(stream) == stream.stats.steps
            assert stream.stats.recorded == len(told[-1]) * BATCH
        assert stream.progress == 1.0
    return told


def run_and_resume(folder: Path, sharding: NamedSharding, state: str) -> list[list[Step]]:
    """Train as `run` does, and go on in a new stream from a checkpoint in the middle of the second epoch."""
    options: dict[str, Any] = {"policy": policy(), "state": state, "decode": decode, "seed": 2}
    step = _jax.jit(lambda texts, weights: (weighted_mean(loss_of(texts), weights), loss_of(texts)))
    stream = JaxStream(urls(folder), batch_size=BATCH, sharding=sharding, **options)
    stream.set_epoch(0)
    told = [steps_of(stream, step)]
    stream.set_epoch(1)
    told.append(steps_of(stream, step, 3))
    saved = json.loads(json.dumps(stream.state_dict()))
    stream.__exit__(MemoryError, MemoryError(), None)
    with JaxStream(urls(folder), batch_size=BATCH, sharding=sharding, **options) as again:
        again.load_state_dict(saved)
        told[1] += steps_of(again, step)
        for epoch in range(2, EPOCHS):
            again.set_epoch(epoch)
            told.append(steps_of(again, step))
    return told


def alone(folder: Path, world: int) -> list[list[list[int]]]:
    """Return the steps of one process that reads all of them, by epoch."""
    batch = BATCH * world
    told = []
    with SetaStream(urls(folder), policy=policy(), batch_size=batch, lanes=(world, 8), seed=2) as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)
            steps = [one["__index__"] for one in stream.batches()]
            for ids in steps:
                stream.record(ids, loss_of(ids))
            told.append([ids.tolist() for ids in steps])
    return told


def refusals(folder: Path) -> dict[str, str]:
    """Return the errors for meshes and losses that do not fit several processes."""
    devices = np.array(jax.devices())

    def made(sharding: Any, **options: Any) -> JaxStream:
        return JaxStream(urls(folder), batch_size=BATCH, sharding=sharding, decode=decode, **options)

    def lost() -> None:
        stream = made(NamedSharding(Mesh(devices, ("data",)), _jax.P("data")))
        other = _jax.device_put(np.ones(BATCH, np.float32), jax.local_devices()[0])
        turned = _jax.make_array_from_process_local_data(
            meshes()["turned"], np.ones(BATCH, np.float32), (BATCH * jax.process_count(),)
        )
        stream.update(np.arange(BATCH), other)
        try:
            stream.update(np.arange(BATCH), turned)
        finally:
            stream.__exit__(MemoryError, MemoryError(), None)

    # Rows in the middle of the mesh lie in both processes.
    across = Mesh(devices.reshape(2, -1).T, ("data", "model"))
    calls: dict[str, Callable[[], Any]] = {
        "shared rows": lambda: made(NamedSharding(across, _jax.P("data"))),
        "own devices": lambda: made(Mesh(np.array(jax.local_devices()), ("data",))),
        "other losses": lost,
    }
    return {name: _text(call) for name, call in calls.items()}


def own_devices_alone(folder: Path) -> list[int]:
    """Return the rows of a batch where each process trains for itself."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    stream = JaxStream(urls(folder), batch_size=BATCH, sharding=mesh, decode=decode, world=1)
    for batch in stream:
        stream.update(batch["__index__"], batch["txt"])
    assert stream.stats.recorded == 120
    return np.asarray(batch["txt"]).tolist()


def _text(call: Callable[[], Any]) -> str:
    try:
        call()
    except SetaStreamError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def all_runs(folder: Path) -> dict[str, Any]:
    """Run everything in this process; return what it saw."""
    collective = JaxCollective(timeout_s=30)
    from_first(collective, lambda: write_shards(folder))
    state = str(folder / "state")
    told: dict[str, Any] = {"turned": run(folder, meshes()["turned"], f"{state}-turned")}
    told["resumed"] = run_and_resume(folder, meshes()["in turns"], f"{state}-resumed")
    told["alone"] = alone(folder, collective.world)
    told["refusals"] = refusals(folder)
    told["own devices alone"] = own_devices_alone(folder)
    return told
