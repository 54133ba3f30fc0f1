"""Plain Python: a scikit-learn classifier learns batch by batch from a tar shard, without any deep learning framework.

    python examples/numpy_sklearn.py

Needs nothing but seta-stream.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import SGDClassifier

from seta_stream import SeTa, SetaStream

EPOCHS = 6
CLASSES = 4


def write_shard(path: Path, samples: int, seed: int) -> None:
    """Write points around four centres, 32 numbers each: <key>.npy and <key>.cls."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, 32))
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            label = int(random.integers(CLASSES))
            file = io.BytesIO()
            np.save(file, (centres[label] + 2.5 * random.normal(size=32)).astype(np.float32))
            for field, data in (("npy", file.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        train(f"{folder}/points-{{00..03}}.tar", f"{folder}/state")


def train(urls: str, state: str) -> None:
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.005, random_state=0)
    policy = SeTa(num_epochs=EPOCHS, target=0.5)
    with SetaStream(urls, policy=policy, state=state, batch_size=50, decode="basic") as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)  # commits the losses so far, then selects
            right = 0
            for batch in stream.batches():
                points, labels = batch["npy"], batch["cls"]
                model.partial_fit(points, labels, classes=range(CLASSES), sample_weight=batch["__weight__"])
                shares = model.predict_proba(points)  # [samples, classes]
                stream.record(batch["__index__"], -np.log(shares[np.arange(len(labels)), labels] + 1e-9))
                right += int((shares.argmax(1) == labels).sum())
            stats = stream.stats
            read = f"{stats.samples:,} samples, {stats.bytes_fetched:,} bytes"
            print(f"epoch {epoch}: {read}, {right / stats.samples:.0%} of them right")


if __name__ == "__main__":
    main()
