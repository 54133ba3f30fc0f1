"""Ray Train: two of its workers train a linear classifier together, and later epochs read fewer samples.

    python examples/ray_train.py

Needs Ray Train: pip install 'seta-stream[torch]' 'ray[train]'
"""

from __future__ import annotations

import io
import os
import secrets
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

EPOCHS, BATCH = 5, 25  # samples per step and worker


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


def train(given: dict[str, str]) -> list[str]:
    """Run in each worker, where Ray Train has initialised torch.distributed; rank 0's value comes back."""
    torch.manual_seed(0)
    model = prepare_model(torch.nn.Linear(32, 4))  # on this worker's device, in DistributedDataParallel
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    policy, lines = SeTa(num_epochs=EPOCHS, target=0.5), []
    with SetaDataset(given["urls"], batch_size=BATCH, policy=policy, state=given["state"], decode="basic") as dataset:
        loader = prepare_data_loader(DataLoader(dataset, batch_size=BATCH))  # moves batches to the worker's device
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)  # commits the losses so far, then selects; on every worker
            for batch in loader:
                loss = torch.nn.functional.cross_entropy(model(batch["npy"]), batch["cls"], reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
            read = torch.tensor([dataset.stats.samples, dataset.stats.bytes_fetched])  # by this worker
            torch.distributed.all_reduce(read)
            lines.append(f"epoch {epoch}: {read[0]:,} samples, {read[1]:,} bytes")
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of this cluster; else Ray keeps one in ~/.ray
        ray.init("local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, _temp_dir=f"{folder}/ray")
        given = {"urls": f"{folder}/points-{{00..03}}.tar", "state": f"{folder}/state"}
        runs = RunConfig(storage_path=f"{folder}/runs")
        two = ScalingConfig(num_workers=2)
        result = TorchTrainer(train, train_loop_config=given, scaling_config=two, run_config=runs).fit()
        print(*result.return_value, sep="\n")
        ray.shutdown()


if __name__ == "__main__":
    main()
