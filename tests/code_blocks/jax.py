"""docs/jax.md: a linear classifier whose state has the one method that the page asks for. Four epochs, one process."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from block_corpora import decode_flat, history_of, write_pictures

from seta_stream import SeTa

ALONE = {"jax": ("JAX",), "jax-processes": ("Several processes",)}  # JAX joins processes before anything else
REPLACE = {
    "range(90)": "range(4)",
    "heartbeat_timeout_seconds=30, shutdown_timeout_seconds=30": "COORDINATOR, 1, 0",  # one process
}


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    import jax

    @jax.tree_util.register_dataclass
    @dataclass
    class State:
        params: Mapping[str, jax.Array]

        def apply_gradients(self, *, grads: Mapping[str, jax.Array]) -> State:
            return State(jax.tree.map(lambda one, gradient: one - 0.1 * gradient, self.params, grads))

    def losses_of(params: Mapping[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
        scores = jax.nn.log_softmax(images @ params["matrix"])
        return -jax.numpy.take_along_axis(scores, labels[:, None], 1)[:, 0]

    return {
        "COORDINATOR": f"localhost:{free_port()}", "decode": decode_flat, "jax": jax, "losses_of": losses_of,
        "policy": SeTa(90, target=0.5),
        "state": State({"matrix": np.zeros((3 * 16 * 16, 3), np.float32)}), "urls": write_pictures(folder, samples=200),
    }  # fmt: skip


def four_epochs(known: dict[str, Any]) -> None:
    epochs = history_of("bucket/runs/7")
    assert [one["epoch"] for one in epochs] == [0, 1, 2, 3]
    assert all(one["recorded"] == one["samples"] > 0 for one in epochs)
    assert float(abs(known["state"].params["matrix"]).sum()) > 0


def beside_others(known: dict[str, Any]) -> None:
    from jax.sharding import Mesh, NamedSharding

    from seta_stream.adapters.jax import JaxStream

    known |= {"JaxStream": JaxStream, "Mesh": Mesh, "NamedSharding": NamedSharding, "state": "runs/8"}


def joined(known: dict[str, Any]) -> None:
    with known["stream"] as stream:
        stream.set_epoch(0)
        for batch in stream:
            stream.update(batch["__index__"], np.ones(256, np.float32))
    known["jax"].distributed.shutdown()
    assert history_of("runs/8")[0]["recorded"] == 768


BEFORE = {"Several processes": beside_others}
AFTER = {"JAX": four_epochs, "Several processes": joined}
