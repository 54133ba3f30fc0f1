"""One process of a torch run that trains, is stopped, and goes on, with a DataLoader.

Takes a task file, as JSON: the shards, and segments one after another. Writes what this rank saw beside it, as
<rank>.json. Run by torch.distributed.run, or called by a test as the only process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader

from seta_stream.adapters.torch import SetaDataset

EPOCHS = 3
BATCH = 12
POLICY = "infobatch(num_epochs=9)"


def loss_of(ids: torch.Tensor, epoch: int) -> torch.Tensor:
    """Return losses that differ by sample and change their order from epoch to epoch."""
    return (ids * 37 % 101 + epoch * (ids % 7)).float() / 10 + 0.1


def loader_of(dataset: SetaDataset, task: dict[str, Any], batch: int) -> Any:
    workers = task["workers"]
    if not task.get("stateful"):
        return DataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, batch_size=batch, num_workers=workers)


def segment(shards: list[str], task: dict[str, Any], world: int) -> dict[str, Any]:
    """Train one segment; return its epochs, the figures where it stopped, and its checkpoint.

    Args:
        shards: of the corpus.
        task: `state`; `workers`; `saved`, the file of a checkpoint to load; `stop`, [epoch, step] after which all is
            left as it is, or None; `stateful`, whether the loader is torchdata's.
        world: processes.
    """
    dataset = SetaDataset(shards, batch_size=BATCH // world, policy=POLICY, state=task["state"], lanes=(4, 2), seed=5)
    saved = json.loads(Path(task["saved"]).read_text()) if task.get("saved") else None
    loader = loader_of(dataset, task, BATCH // world)
    if saved is not None:
        dataset.load_state_dict(saved["dataset"])
        if task.get("stateful"):
            loader.load_state_dict(saved["loader"])
    stop, told = task.get("stop"), {}
    for epoch in range(0 if saved is None else saved["dataset"]["epoch"], EPOCHS):
        dataset.set_epoch(epoch)
        steps: list[Any] = []
        plan, expected = dataset.stream.session.plan, len(dataset)
        told[str(epoch)] = {"bits": plan.selection.bits.tolist(), "steps": steps, "planned": plan.lanes.planned}
        for batch in loader:
            ids, weights, losses = batch["__index__"], batch["__weight__"], loss_of(batch["__index__"], epoch)
            assert dataset.stream.weights(ids).tolist() == weights.tolist()
            torch.testing.assert_close(dataset.update(ids, losses), (weights * losses).mean().float())
            steps.append([ids.tolist(), weights.tolist()])
            if [epoch, dataset.stream.position] == stop:
                read, received = dataset.stats.samples, dataset.stream.session.delivered
                state = {
                    "dataset": dataset.state_dict(),
                    "loader": loader.state_dict() if task.get("stateful") else None,
                }
                dataset.stream.session.memory.close()  # the kernel's part of a process's end
                return {"epochs": told, "read": read, "received": received, "saved": json.loads(json.dumps(state))}
        assert sum(len(ids) for ids, _ in steps) == expected
    del loader
    dataset.close()
    return {"epochs": told}


def main(path: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    task = json.loads(path.read_text())
    told = {}
    for one in task["segments"]:
        told[one["name"]] = segment(task["shards"], one, world)
        if rank == 0 and "saved" in told[one["name"]]:  # all have called state_dict, and one saves it
            Path(one["save"]).write_text(json.dumps(told[one["name"]]["saved"]))
        torch.distributed.barrier()
    (path.parent / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(Path(sys.argv[1]))
