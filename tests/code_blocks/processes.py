"""docs/processes.md: one process is all of them, and its meshes have one device; launchers start two small scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from block_corpora import history_of, write_pictures

from seta_stream import SeTa, SetaStream

ALONE = {"launching": ("Launching",)}  # MPI and Dask join the process for good
REPLACE = {
    'init_process_group("nccl")': 'init_process_group("gloo", store=STORE, rank=0, world_size=1)',
    'init_device_mesh("cuda", (4, 2)': 'init_device_mesh("cpu", (1, 1)',
    "--nproc-per-node=8": "--nproc-per-node=2",
    "mpiexec -n 4": "mpiexec -n 2",
    '"host0"': '"127.0.0.1"',
}
TORCHRUN = """
import os
from pathlib import Path
Path("rank-" + os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
"""
MPI = """
from seta_stream import SetaStream
from seta_stream.adapters.mpi import MPICollective
with SetaStream({urls!r}, batch_size=10, state="runs/mpi", collective=MPICollective()) as stream:
    stream.set_epoch(0)
    for batch in stream.batches():
        stream.record(batch["__index__"], batch["__index__"] / 10)
"""


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    given = {
        "SeTa": SeTa,
        "SetaStream": SetaStream,
        "policy": SeTa(90, target=0.5),
        "urls": write_pictures(folder, samples=150),
    }
    write_pictures(folder, name="val", shards=10, samples=26, digits=3)
    return {**given, "decode": "rgb8", "os": os, "rank": 0, "state": "runs/7", "world": 1}


def meet(known: dict[str, Any]) -> None:
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.utils.data import DataLoader

    from seta_stream.adapters.torch import SetaDataset
    from seta_stream.adapters.torch_collective import TorchCollective

    model = torch.nn.Linear(1, 1)
    model.module = torch.nn.Linear(1, 1)  # as DistributedDataParallel has it
    known |= {
        "DataLoader": DataLoader, "STORE": torch.distributed.HashStore(), "SetaDataset": SetaDataset,
        "TorchCollective": TorchCollective, "init_device_mesh": init_device_mesh, "model": model, "torch": torch,
    }  # fmt: skip


def reads(known: dict[str, Any]) -> None:
    known["dataset"].set_epoch(0)
    assert [len(batch["cls"]) for batch in known["loader"]] == [256, 256]


def a_step(known: dict[str, Any]) -> None:
    batch = next(iter(known["loader"]))
    known["dataset"].update(batch["__index__"], known["torch"].ones(256))
    known["seen"] = batch["__index__"]


def goes_on(known: dict[str, Any]) -> None:
    (batch,) = known["loader"]
    assert set(batch["__index__"].tolist()).isdisjoint(known["seen"].tolist())
    known["dataset"].update(batch["__index__"], known["torch"].ones(256))
    known["dataset"].close()
    assert history_of("shared/runs/7")[0]["recorded"] == 512


def validated(known: dict[str, Any]) -> None:
    assert len(known["reader"]) == len(list(known["part"])) == 260
    known["reader"].close()
    known["part"].close()


def replica(known: dict[str, Any]) -> None:
    assert known["is_reader"]
    assert len(next(iter(known["dataset"]))) > 3
    known["dataset"].close()
    known["torch"].distributed.destroy_process_group()


def write_torchrun(_known: dict[str, Any]) -> None:
    Path("train.py").write_text(TORCHRUN)


def launched(_known: dict[str, Any]) -> None:
    assert {path.name: path.read_text() for path in Path().glob("rank-*")} == {"rank-0": "2", "rank-1": "2"}


def write_mpi(known: dict[str, Any]) -> None:
    Path("train.py").write_text(MPI.format(urls=known["urls"]))


def launched_by_mpi(_known: dict[str, Any]) -> None:
    assert history_of("runs/mpi")[0]["recorded"] == 600


def mpi(known: dict[str, Any]) -> None:
    from seta_stream.adapters.mpi import MPICollective

    known["MPICollective"] = MPICollective


def alone(known: dict[str, Any]) -> None:
    assert len(known["stream"]) == 512
    known["stream"].close()


def train(rank: int, world: int, address: tuple[str, int]) -> int:
    """Meet the others at the client's store, and tell how many came."""
    import torch.distributed

    store = torch.distributed.TCPStore(*address, is_master=False)
    store.set(str(rank), b"here")
    store.wait([str(number) for number in range(world)])
    return world


def dask(known: dict[str, Any]) -> None:
    import torch
    import torch.distributed
    from distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    known |= {"client": client, "torch": torch, "train": train}


def all_met(known: dict[str, Any]) -> None:
    assert known["client"].gather(known["runs"]) == [2, 2]
    known["client"].close()


BEFORE = {
    "Many processes": meet,
    "Resuming, on another number too": a_step,
    "Launching": write_torchrun,
    "Launching 4": write_mpi,
    "Launching 5": mpi,
    "Launching 8": dask,
}
AFTER = {
    "Many processes": reads,
    "Resuming, on another number too": goes_on,
    "Validation": validated,
    "Tensor and pipeline parallelism": replica,
    "Launching": launched,
    "Launching 4": launched_by_mpi,
    "Launching 5": alone,
    "Launching 8": all_met,
}
