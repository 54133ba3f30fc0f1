"""tf.data over SetaStream by from_generator: the order of the plan, losses back, resume though tf.data reads ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_corpora import MakeCorpus

from seta_stream import SeTa, SetaStream

BATCH, EPOCHS = 8, 4

SIGNATURE = {
    "txt": tf.TensorSpec((None,), tf.int64),
    "__key__": tf.TensorSpec((None,), tf.string),
    "__index__": tf.TensorSpec((None,), tf.int64),
    "__weight__": tf.TensorSpec((None,), tf.float32),
}


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(5, 41)


def decode(field: str, data: bytes) -> Any:
    return int(data)


def stream_of(shards: list[str], state: Path) -> SetaStream:
    policy = SeTa(num_epochs=EPOCHS, target=0.4)
    return SetaStream(shards, policy=policy, state=str(state), batch_size=BATCH, decode=decode, seed=2)


def loss_of(ids: Any) -> Any:
    return (ids * 37 % 101) / 10 + 0.1


def data_of(stream: SetaStream) -> tf.data.Dataset:
    def batches() -> Iterator[dict[str, Any]]:
        return ({name: batch[name] for name in SIGNATURE} for batch in stream.batches())

    return tf.data.Dataset.from_generator(batches, output_signature=SIGNATURE).prefetch(4)


@pytest.fixture
def reference(shards: list[str], tmp_path: Path) -> list[list[list[int]]]:
    """What the stream itself gives."""
    epochs = []
    with stream_of(shards, tmp_path / "reference") as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)
            epochs.append([])
            for batch in stream.batches():
                stream.record(batch["__index__"], loss_of(batch["__index__"]))
                epochs[-1].append(batch["__index__"].tolist())
    assert len(epochs[1]) < len(epochs[0])
    return epochs


@tf.function
def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
    return loss_of(tf.cast(batch["__index__"], tf.float32)) * batch["__weight__"]


def test_tf_data_gives_the_plan(shards: list[str], tmp_path: Path, reference: list[Any]) -> None:
    """The same batches in the same order, keys as bytes; losses of a compiled step arrive at their samples."""
    with stream_of(shards, tmp_path / "s") as stream:
        for epoch, expected in enumerate(reference):
            stream.set_epoch(epoch)
            seen = []
            for batch in data_of(stream):
                ids = batch["__index__"].numpy()
                assert batch["txt"].numpy().tolist() == ids.tolist()
                assert batch["__key__"].numpy().tolist() == [b"%08d" % number for number in ids]
                stream.record(ids, step(batch).numpy())
                seen.append(ids.tolist())
            assert seen == expected
            assert stream.stats.recorded == BATCH * len(seen)


@pytest.mark.parametrize(("epoch", "done"), [(0, 7), (1, 4)])
def test_a_checkpoint_names_the_step(
    shards: list[str], tmp_path: Path, reference: list[Any], epoch: int, done: int
) -> None:
    """state_dict(step=…) goes on with the first batch that was not trained on, however far tf.data has read."""
    stream, seen = stream_of(shards, tmp_path / "s"), []
    for number in range(epoch + 1):
        stream.set_epoch(number)
        for count, batch in enumerate(data_of(stream), 1):
            ids = batch["__index__"].numpy()
            stream.record(ids, step(batch).numpy())
            if number == epoch:
                seen.append(ids.tolist())
                if count == done:
                    break
    saved = stream.state_dict(step=done)
    stream.__exit__(RuntimeError, RuntimeError(), None)
    with stream_of(shards, tmp_path / "s") as stream:
        stream.load_state_dict(saved)
        for batch in data_of(stream):
            ids = batch["__index__"].numpy()
            stream.record(ids, step(batch).numpy())
            seen.append(ids.tolist())
        assert seen == reference[epoch]
        stream.set_epoch(epoch + 1)
        after = []
        for batch in data_of(stream):
            stream.record(batch["__index__"].numpy(), step(batch).numpy())
            after.append(batch["__index__"].numpy().tolist())
    assert after == reference[epoch + 1]


def test_kerass_losses_are_recorded(shards: list[str], tmp_path: Path) -> None:
    """A Keras loss without reduction gives float32 [batch], as the weights are, and record takes it."""
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    with stream_of(shards, tmp_path / "s") as stream:
        batch = next(iter(data_of(stream)))
        labels = batch["txt"] % 4
        losses = cross_entropy(labels, tf.one_hot(labels, 4) * 2.0)
        assert losses.shape == batch["__weight__"].shape == (BATCH,)
        assert losses.numpy() == pytest.approx(np.log(1 + 3 * np.exp(-2.0)))
        stream.record(batch["__index__"].numpy(), losses.numpy())
        assert stream.stats.recorded == BATCH
