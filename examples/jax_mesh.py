"""JAX: captions go to a mesh of four devices, and the loss of each one comes back, whichever device computed it.

    python examples/jax_mesh.py

Needs jax: pip install 'seta-stream[jax]'. On a machine with accelerators leave out the line that makes CPU devices.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from seta_stream import SeTa
from seta_stream.adapters.jax import JaxStream, weighted_mean
from seta_stream.demo.captions import CaptionMaker
from seta_stream.demo.shards import make_corpus

EPOCHS = 5
BATCH = 100
WORDS = 4_096
LONGEST = 32

jax.config.update("jax_num_cpu_devices", 4)  # stands for four accelerators


def numbers_of(_field: str, text: bytes) -> np.ndarray:
    """Decode a caption: a number per word, then zeros. Arrays of one shape are stacked and put on the devices."""
    words = [1 + zlib.crc32(word) % (WORDS - 1) for word in text.split()][:LONGEST]
    return np.array(words + [0] * (LONGEST - len(words)), np.int32)


def losses_of(model: jax.Array, words: jax.Array) -> jax.Array:
    """Is a caption longer than 13 words? The loss of each, from a weight per word."""
    scores = jnp.where(words > 0, model[words], 0).sum(axis=1) + model[0]
    is_long = (words > 0).sum(axis=1) > 13
    return jnp.logaddexp(0, jnp.where(is_long, -scores, scores))


@jax.jit
def step(model: jax.Array, words: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the model after a step, and the step's losses: JAX cuts both the work and the losses as the batch is."""

    def mean(model: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = losses_of(model, words)
        return weighted_mean(losses, weights), losses

    gradient, losses = jax.grad(mean, has_aux=True)(model)
    return model - 0.5 * gradient, losses


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(CaptionMaker(10_000, seed=0), folder, shard_samples=2_500, jobs=1, progress=False)
        train(corpus.pattern, str(Path(folder) / "state"))


def train(urls: str, state: str) -> None:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    model = jax.device_put(jnp.zeros(WORDS), NamedSharding(mesh, jax.P()))  # the same on every device
    options = {"policy": SeTa(num_epochs=EPOCHS, target=0.5), "state": state, "decode": numbers_of, "fields": ("txt",)}
    with JaxStream(urls, batch_size=BATCH, sharding=mesh, **options) as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)  # commits the losses so far, then selects
            for batch in stream:
                model, losses = step(model, batch["txt"], batch["__weight__"])
                stream.update(batch["__index__"], losses)  # does not wait for them
            stats = stream.stats
            read = f"{stats.samples:,} samples, {stats.bytes_fetched:,} bytes"
            print(f"epoch {epoch}: {read}, the last step's mean loss is {losses.mean():.3f}")


if __name__ == "__main__":
    main()
