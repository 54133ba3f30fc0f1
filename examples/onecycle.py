"""Torch's OneCycleLR under pruning: its total comes from dataset.steps(), with room for the random draws.

    python examples/onecycle.py

Needs torch: pip install 'seta-stream[torch]'
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

EPOCHS = 6
BATCH = 50


def write_shard(path: Path, samples: int, seed: int) -> None:
    """Write points around four centres, 32 numbers each: <key>.npy and <key>.cls."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(4, 32))
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            label = int(random.integers(4))
            file = io.BytesIO()
            np.save(file, (centres[label] + 2.5 * random.normal(size=32)).astype(np.float32))
            for field, data in (("npy", file.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        train(f"{folder}/points-{{00..03}}.tar", f"{folder}/state")


def train(urls: str, state: str) -> None:
    policy = SeTa(num_epochs=EPOCHS, target=0.5)
    dataset = SetaDataset(urls, batch_size=BATCH, batches=True, policy=policy, state=state, decode="basic")
    loader = DataLoader(dataset, batch_size=None)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    planned = dataset.steps(EPOCHS)
    # A target makes the plan exact but for the draws; one step too many is an error of OneCycleLR, hence the margin.
    # Without one the losses to come decide, and is_exact is False: go by progress, as examples/cosine.py does.
    assert planned.is_exact
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=planned + planned.margin)
    taken = 0
    with dataset:  # after an exception nothing is committed
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                loss = torch.nn.functional.cross_entropy(model(batch["npy"]), batch["cls"], reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
                scheduler.step()
                taken += 1
            stats, rate = dataset.stats, optimizer.param_groups[0]["lr"]
            print(f"epoch {epoch}: {stats.samples:,} samples, {stats.bytes_fetched:,} bytes; the rate is {rate:.2g}")
    print(f"planned {int(planned)} ± {planned.margin} steps, took {taken}")


if __name__ == "__main__":
    main()
