"""Dask: two of its workers train a linear classifier together, and later epochs read fewer samples.

    python examples/dask_training.py

Needs torch and Dask's workers: pip install 'seta-stream[torch]' distributed
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import dask
import numpy as np
import torch
from dask.distributed import Client, LocalCluster
from torch import distributed

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

EPOCHS, BATCH = 5, 25  # samples per step and worker
SETTINGS = {"distributed.scheduler.allowed-failures": 0}  # a worker that dies ends the run; nobody waits for another


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


def train(rank: int, world: int, meeting: tuple[str, int], urls: str, state: str) -> list[str]:
    """Run in each worker: join the others, train, and leave the worker as it was."""
    distributed.init_process_group("gloo", store=distributed.TCPStore(*meeting), rank=rank, world_size=world)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    policy, lines = SeTa(num_epochs=EPOCHS, target=0.5), []
    with SetaDataset(urls, batch_size=BATCH, batches=True, policy=policy, state=state, decode="basic") as dataset:
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)  # commits the losses so far, then selects; on every worker
            for batch in torch.utils.data.DataLoader(dataset, batch_size=None):
                loss = torch.nn.functional.cross_entropy(model(batch["npy"]), batch["cls"], reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
            read = torch.tensor([dataset.stats.samples, dataset.stats.bytes_fetched])  # by this worker
            distributed.all_reduce(read)
            lines.append(f"epoch {epoch}: {read[0]:,} samples, {read[1]:,} bytes")
    distributed.destroy_process_group()
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, dask.config.set(SETTINGS):
        for shard in range(4):
            write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        data = (f"{folder}/points-{{00..03}}.tar", f"{folder}/state")
        two = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=f"{folder}/dask")
        with two, Client(two) as client:
            workers = list(client.scheduler_info()["workers"])
            store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # at a free port
            given = (len(workers), ("127.0.0.1", store.port), *data)
            runs = [client.submit(train, rank, *given, workers=[one]) for rank, one in enumerate(workers)]
            print(*client.gather(runs)[0], sep="\n")


if __name__ == "__main__":
    main()
