"""A training run that is made to be killed: a small model, a checkpoint every third step, and on from there.

Called as: python training_run.py OPTIONS.json, for each process with RANK and WORLD_SIZE, or by torchrun, or alone.
Each process logs its steps to <folder>/log-<rank>, and at the end the losses that it owns; the first one writes the
checkpoints, and at the end the weights. A `fault` of the options makes something go wrong: see `training_faults.py`.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from seta_stream.adapters.torch import SetaDataset

SAVE_STEPS = 3
FEATURES = 8

Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """Of a run; `meeting` is a file where processes meet that were not started by torchrun."""

    shards: list[str]
    state: str
    folder: str
    epochs: int = 5
    batch_size: int = 6
    workers: int = 0
    start: str = "fork"
    policy: str = "seta(num_epochs=5,target=0.5)"
    meeting: str = ""
    state_options: dict[str, Any] | None = None
    fault: str = ""
    fault_rank: int = 1
    fault_at: int = 0
    more: dict[str, Any] = field(default_factory=dict)


def decode(field_name: str, data: bytes) -> Any:
    """Return features of a text: the same in any process."""
    words = np.frombuffer(hashlib.blake2b(data, digest_size=4 * FEATURES).digest(), "<u4")
    return (words / 2**32).astype(np.float32)


def joined(options: Options) -> tuple[int, int]:
    """Join the other processes; return the rank and their number."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    # Long: what ends a wait in these tests must be the end of the other process.
    limit = timedelta(seconds=600)
    if options.meeting:
        rank = int(os.environ["RANK"])
        meeting = f"file://{options.meeting}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=limit)
    else:
        dist.init_process_group("gloo", timeout=limit)
    return dist.get_rank(), world


class Trainer:
    """The loop of a run.

    Args:
        options: of the run.
        decoder: of the samples.
        on_step: is called before each step, with the epoch and the step.
    """

    def __init__(self, options: Options, decoder: Callable[[str, bytes], Any] = decode, on_step: Step | None = None):
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(1)
        self.options = options
        self.rank, self.world = joined(options)
        self.folder = Path(options.folder)
        self.decoder = decoder
        self.on_step = on_step
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(torch.nn.Linear(FEATURES, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        self.net: torch.nn.Module = DistributedDataParallel(self.model) if self.world > 1 else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.dataset = SetaDataset(
            options.shards,
            batch_size=options.batch_size,
            policy=options.policy,
            state=options.state,
            decode=decoder,
            fields=("txt",),
            lanes=(2, 4),
            state_options=options.state_options,
            collective=self.collective(),
        )

    def collective(self) -> Any:
        """Return what joins the processes; None leaves that to the dataset."""
        return None

    def train(self) -> None:
        """Train to the end, from the checkpoint where there is one."""
        options = self.options
        with self.dataset, (self.folder / f"log-{self.rank}").open("a") as log:
            loader = self.loader()
            for epoch in range(self.resume(), options.epochs):
                self.dataset.set_epoch(epoch)
                self.epoch(epoch, loader, log)
        self.end()

    def loader(self) -> DataLoader[Any]:
        options = self.options
        with_workers = {"persistent_workers": True, "multiprocessing_context": options.start} if options.workers else {}
        return DataLoader(self.dataset, batch_size=options.batch_size, num_workers=options.workers, **with_workers)

    def epoch(self, epoch: int, loader: DataLoader[Any], log: Any) -> None:
        for batch in loader:
            step = self.dataset.stream.position
            if self.on_step is not None:
                self.on_step(epoch, step)
            ids, inputs = batch["__index__"], batch["txt"]
            wanted = torch.sin(7 * inputs.sum(1)) + 0.3 * (ids % 5)
            loss = (self.net(inputs).squeeze(1) - wanted) ** 2
            mean = self.dataset.update(ids, loss)
            self.optimizer.zero_grad()
            mean.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses = zlib.crc32(loss.detach().numpy().tobytes())
            log.write(f"{epoch} {step} {','.join(map(str, ids.tolist()))} {losses:08x}\n")
            log.flush()
            if self.dataset.stream.position % SAVE_STEPS == 0:
                self.save()

    def save(self) -> None:
        """Save a checkpoint, whole or not at all."""
        state = self.dataset.state_dict()
        if self.world > 1:
            dist.barrier()  # everyone has written what it recorded: the checkpoint names all of it
        if self.rank == 0:
            path = self.folder / "checkpoint.pt"
            whole = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "dataset": state}
            torch.save(whole, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)

    def resume(self) -> int:
        """Go on where the checkpoint was made; return the epoch to set."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.dataset.load_state_dict(saved["dataset"])
        return int(saved["dataset"]["epoch"])

    def end(self) -> None:
        """Write what the run has come to."""
        np.save(self.folder / f"losses-{self.rank}.npy", self.dataset.stream.session.memory.losses.values)
        if self.rank == 0:
            whole = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(whole, self.folder / "weights.pt")
        if self.world > 1:
            dist.destroy_process_group()


def main(path: str) -> None:
    faulthandler.register(signal.SIGUSR1)  # where does it stand? for a test that waits in vain
    options = Options(**json.loads(Path(path).read_text()))
    if options.fault:
        import training_faults

        training_faults.train(options)
    else:
        Trainer(options).train()


if __name__ == "__main__":
    main(sys.argv[1])
