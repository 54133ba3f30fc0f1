"""Accelerate: its usual loop over tar shards, and later epochs read fewer samples.

    python examples/accelerate_loop.py        (or, in two processes, torchrun --nproc-per-node 2 ...)

Needs accelerate: pip install 'seta-stream[huggingface]'
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from seta_stream import SeTa
from seta_stream.adapters.accelerate import prepare_loader
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


def train(accelerator: Accelerator, urls: str, state: str) -> None:
    layer = torch.nn.Linear(32, 4)
    model, optimizer = accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), lr=0.05))  # not the loader
    policy = SeTa(num_epochs=EPOCHS, target=0.5)
    with SetaDataset(urls, batch_size=BATCH, batches=True, policy=policy, state=state, decode="basic") as dataset:
        accelerator.register_for_checkpointing(dataset)  # save_state() and load_state() hold the position
        loader = prepare_loader(accelerator, dataset, loader={"num_workers": 1})
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)  # in every process: commits the losses so far, then selects
            for batch in loader:  # on the accelerator's device
                loss = torch.nn.functional.cross_entropy(model(batch["npy"]), batch["cls"], reduction="none")
                accelerator.backward(dataset.update(batch["__index__"], loss))
                optimizer.step()
                optimizer.zero_grad()
            read = torch.tensor([dataset.stats.samples, dataset.stats.bytes_fetched])  # by this process
            samples, fetched = accelerator.reduce(read.to(accelerator.device)).tolist()
            accelerator.print(f"epoch {epoch}: {samples:,} samples, {fetched:,} bytes")


def main() -> None:
    torch.set_num_threads(1)  # for a network this small more threads only wait for each other
    accelerator = Accelerator(cpu=True)  # before the dataset is made: it connects the processes
    with tempfile.TemporaryDirectory() as own:
        folder = broadcast_object_list([own])[0]  # process 0's, for all
        if accelerator.is_main_process:
            for shard in range(4):
                write_shard(Path(own) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        accelerator.wait_for_everyone()
        train(accelerator, f"{folder}/points-{{00..03}}.tar", f"{folder}/state")
        accelerator.wait_for_everyone()
        accelerator.end_training()


if __name__ == "__main__":
    main()
