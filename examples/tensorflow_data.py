"""TensorFlow: tf.data reads the selected samples of tar shards ahead, and a Keras model gives their losses back.

    python examples/tensorflow_data.py

Needs TensorFlow: pip install tensorflow seta-stream
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from seta_stream import SeTa, SetaStream

EPOCHS, BATCH = 6, 50

SIGNATURE = {  # of what TensorFlow gets of a batch
    "npy": tf.TensorSpec((None, 32), tf.float32),
    "cls": tf.TensorSpec((None,), tf.int64),
    "__index__": tf.TensorSpec((None,), tf.int64),
    "__weight__": tf.TensorSpec((None,), tf.float32),
}


def write_shard(path: Path, samples: int, seed: int) -> None:
    """Write points around four centres, 32 numbers each: <key>.npy and <key>.cls."""
    random, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(4, 32))
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(random.integers(4, size=samples)):
            file = io.BytesIO()
            np.save(file, (centres[label] + 2.5 * random.normal(size=32)).astype(np.float32))
            for field, data in (("npy", file.getvalue()), ("cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{number:06d}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def train(stream: SetaStream) -> None:
    model, optimizer = tf.keras.layers.Dense(4), tf.keras.optimizers.SGD(0.05)
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    @tf.function
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = cross_entropy(batch["cls"], model(batch["npy"]))
            mean = tf.reduce_mean(batch["__weight__"] * losses)
        optimizer.apply_gradients(zip(tape.gradient(mean, model.weights), model.weights, strict=True))
        return losses

    def batches() -> object:
        return ({name: batch[name] for name in SIGNATURE} for batch in stream.batches())

    for epoch in range(EPOCHS):
        stream.set_epoch(epoch)  # commits the losses so far, then selects; never while tf.data still reads
        done = stream.position  # tf.data reads ahead, so a checkpoint is stream.state_dict(step=done)
        for batch in tf.data.Dataset.from_generator(batches, output_signature=SIGNATURE).prefetch(2):
            stream.record(batch["__index__"].numpy(), step(batch).numpy())
            done += 1
        print(f"epoch {epoch}: {stream.stats.samples:,} samples, {stream.stats.bytes_fetched:,} bytes, {done} steps")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        urls, policy = f"{folder}/points-{{00..03}}.tar", SeTa(num_epochs=EPOCHS, target=0.5)
        with SetaStream(urls, policy=policy, state=f"{folder}/state", batch_size=BATCH, decode="basic") as stream:
            train(stream)


if __name__ == "__main__":
    main()
