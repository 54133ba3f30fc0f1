"""Lightning: a classifier learns from tar shards, later epochs read fewer samples, and a checkpoint goes on inside one.

    python examples/lightning_training.py

Needs Lightning: pip install 'seta-stream[lightning]'. For several processes: Trainer(devices=2, strategy="ddp").
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from seta_stream import SeTa
from seta_stream.adapters.lightning import SetaDataModule

EPOCHS, BATCH = 6, 50


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


class Classifier(pl.LightningModule):
    """One linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(32, 4)

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        """Give one loss per sample back, and get their weighted mean."""
        loss = torch.nn.functional.cross_entropy(self.layer(batch["npy"]), batch["cls"], reduction="none")
        return self.trainer.datamodule.update(batch["__index__"], loss)

    def on_train_epoch_end(self) -> None:
        """Tell what was read."""
        stats = self.trainer.datamodule.dataset.stats
        print(f"epoch {stats.epoch}: {stats.samples:,} samples, {stats.bytes_fetched:,} bytes")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.05)


def main() -> None:
    torch.set_num_threads(1)  # for a network this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        urls, policy = f"{folder}/points-{{00..03}}.tar", SeTa(num_epochs=EPOCHS, target=0.5)
        data = SetaDataModule(
            urls, batch_size=BATCH, loader={"num_workers": 1}, policy=policy, state=f"{folder}/state", decode="basic"
        )
        trainer = pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Classifier(), datamodule=data)  # ckpt_path=… goes on where a checkpoint was made


if __name__ == "__main__":
    main()
