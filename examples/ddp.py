"""PyTorch DDP: processes train one classifier together, and later epochs read fewer samples.

    torchrun --nproc-per-node 2 examples/ddp.py        (or alone: python examples/ddp.py)

Needs torch: pip install 'seta-stream[torch]'
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

EPOCHS, BATCH = 5, 25  # samples per step and process


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


def train(urls: str, state: str) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    policy = SeTa(num_epochs=EPOCHS, target=0.5)
    with SetaDataset(urls, batch_size=BATCH, batches=True, policy=policy, state=state, decode="basic") as dataset:
        loader = DataLoader(dataset, batch_size=None, num_workers=1)  # no sampler: the plan says who reads what
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)  # in every process: commits the losses so far, then selects
            for batch in loader:  # as many batches in every process
                loss = torch.nn.functional.cross_entropy(model(batch["npy"]), batch["cls"], reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
            read = torch.tensor([dataset.stats.samples, dataset.stats.bytes_fetched])  # by this process
            dist.all_reduce(read)
            if dist.get_rank() == 0:
                print(f"epoch {epoch}: {read[0]:,} samples, {read[1]:,} bytes, by {dist.get_world_size()} processes")


def main() -> None:
    torch.set_num_threads(1)  # for a network this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as own:
        alone = {} if "WORLD_SIZE" in os.environ else {"init_method": f"file://{own}/meet", "rank": 0, "world_size": 1}
        dist.init_process_group("gloo", **alone)  # before the dataset is made
        shared = [own]
        dist.broadcast_object_list(shared)  # process 0's folder, for all
        if dist.get_rank() == 0:
            for shard in range(4):
                write_shard(Path(own) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        dist.barrier()
        train(f"{shared[0]}/points-{{00..03}}.tar", f"{shared[0]}/state")
        dist.barrier()  # nobody needs the folder any more
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
