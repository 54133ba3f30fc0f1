"""One training run, and the hosts that start its two processes: torchrun, Ray actors, Ray Train, Dask, MPI.

    python hosted_training.py HOST FOLDER          (torchrun and mpi: by their own commands, as test_hosts.py does)

Takes shards in FOLDER; writes what each rank saw, in rank order, to FOLDER/HOST.json. Effects: the state
FOLDER/state-HOST, and those of the host, which keeps its files in the temporary folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from seta_stream import InfoBatch
from seta_stream.errors import PeerError, SetaStreamWarning

WORLD, EPOCHS, BATCH = 2, 4, 6
Seen = dict[str, Any]


def options(folder: str, host: str) -> dict[str, Any]:
    """Return what the dataset, or the stream, is made with."""
    # Our own warnings alone: those of a host are its affair.
    warnings.filterwarnings("error", category=SetaStreamWarning)
    urls, state = f"{folder}/train-{{00000..00003}}.tar", f"{folder}/state-{host}"
    # It weights what it keeps, and needs no scikit-learn, which takes seconds to import.
    return {"urls": urls, "state": state, "batch_size": BATCH, "policy": InfoBatch(num_epochs=8, prune_ratio=0.9)}


def losses_of(ids: Any, epoch: int) -> Any:
    """Return losses that depend on sample and epoch alone, so that every host finds the same."""
    return (ids * 37 % 101 + epoch) / 10 + 0.1


def train(folder: str, host: str, workers: int = 0) -> Seen:
    """Train where torch.distributed is initialised; return this rank's steps and weights of each epoch."""
    import torch
    from torch.utils.data import DataLoader

    from seta_stream.adapters.torch import SetaDataset

    steps: list[list[list[int]]] = []
    weights: list[list[float]] = []
    with SetaDataset(**options(folder, host)) as dataset:
        loader = DataLoader(dataset, batch_size=BATCH, num_workers=workers)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            steps.append([])
            weights.append([])
            for batch in loader:
                ids = batch["__index__"]
                steps[-1].append(ids.tolist())
                weights[-1] += batch["__weight__"].tolist()
                dataset.update(ids, losses_of(ids, epoch).float())
    seen = {"steps": steps, "weights": weights}
    return {"rank": torch.distributed.get_rank(), "process": os.getpid(), "seen": seen}


def stream(folder: str) -> Seen:
    """Train without torch, where MPI joins the processes."""
    from mpi4py import MPI

    from seta_stream import SetaStream
    from seta_stream.adapters.mpi import MPICollective

    steps: list[list[list[int]]] = []
    weights: list[list[float]] = []
    collective = MPICollective()
    with SetaStream(**options(folder, "mpi"), collective=collective) as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)
            steps.append([])
            weights.append([])
            for batch in stream.batches():
                steps[-1].append(batch["__index__"].tolist())
                weights[-1] += batch["__weight__"].tolist()
                stream.record(batch["__index__"], losses_of(batch["__index__"], epoch))
    collective.close()
    seen = {"steps": steps, "weights": weights}
    return {"rank": MPI.COMM_WORLD.rank, "process": os.getpid(), "seen": seen}


@contextmanager
def group(rank: int, meeting: tuple[str, int]) -> Iterator[None]:
    """Join the processes that a host started without saying so to torch, and leave the process as it was."""
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.TCPStore(*meeting), rank=rank, world_size=WORLD)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def meeting_point() -> Any:
    """Return a store where the processes meet, at a port that the system picks; it serves until it is dropped."""
    from torch import distributed

    return distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def member(rank: int, meeting: tuple[str, int], folder: str, host: str, workers: int) -> Seen:
    """Train as one of the processes that meet there."""
    with group(rank, meeting):
        return train(folder, host, workers)


# ---- hosts


def torchrun(folder: str) -> list[Seen]:
    from torch import distributed

    distributed.init_process_group("gloo")
    gathered: list[Any] = [None] * WORLD
    distributed.all_gather_object(gathered, train(folder, "torchrun"))
    distributed.destroy_process_group()
    return gathered


def outlived(folder: str) -> list[Seen]:
    """Let one process fail and live on, as under Dask or in a notebook; each tells how it ended."""
    import torch
    from torch import distributed

    from seta_stream.adapters.torch import SetaDataset

    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, gathered = distributed.get_rank(), [None] * WORLD
    try:
        with SetaDataset(**options(folder, "outlived")) as dataset:
            for batch in torch.utils.data.DataLoader(dataset, batch_size=BATCH):
                if rank == 1:
                    raise ValueError("no such layer")  # noqa: TRY301  (as a training step does)
                dataset.update(batch["__index__"], batch["__index__"].float())
            dataset.set_epoch(1)
    except (PeerError, ValueError) as error:
        end = f"{type(error).__name__}: {error}"
    distributed.barrier()  # until the other one has failed, too
    distributed.all_gather_object(gathered, {"rank": rank, "end": end})
    distributed.destroy_process_group()
    return gathered


def mpi(folder: str) -> list[Seen]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.allgather(stream(folder))


@contextmanager
def ray_cluster() -> Iterator[None]:
    import ray

    temporary = tempfile.gettempdir()
    ray.init("local", num_cpus=WORLD, object_store_memory=100 << 20, include_dashboard=False, _temp_dir=temporary)
    try:
        yield
    finally:
        ray.shutdown()


def actors(folder: str) -> list[Seen]:
    import ray

    class Process:
        def train(self, *given: Any) -> Seen:
            return member(*given)

    with ray_cluster():
        store = meeting_point()
        processes = [ray.remote(num_cpus=1)(Process).remote() for _ in range(WORLD)]
        given = (("127.0.0.1", store.port), folder, "actors", 1)
        return ray.get([one.train.remote(rank, *given) for rank, one in enumerate(processes)])


def raytrain(folder: str) -> list[Seen]:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def run() -> list[Seen]:
        from torch import distributed

        gathered: list[Any] = [None] * WORLD
        distributed.all_gather_object(gathered, train(folder, "raytrain"))
        return gathered

    with ray_cluster():
        kept = RunConfig(storage_path=tempfile.gettempdir(), name="run")
        return TorchTrainer(run, scaling_config=ScalingConfig(num_workers=WORLD), run_config=kept).fit().return_value


def dask(folder: str) -> list[Seen]:
    import dask as settings
    from dask.distributed import Client, LocalCluster

    settings.config.set({"distributed.scheduler.allowed-failures": 0})
    kept = {"dashboard_address": None, "local_directory": tempfile.gettempdir()}
    with LocalCluster(n_workers=WORLD, threads_per_worker=1, **kept) as cluster, Client(cluster) as client:
        store, addresses = meeting_point(), list(client.scheduler_info()["workers"])
        given = (("127.0.0.1", store.port), folder, "dask", 0)
        runs = [client.submit(member, rank, *given, workers=[one]) for rank, one in enumerate(addresses)]
        return client.gather(runs)


def main() -> None:
    host, folder = sys.argv[1:]
    hosts = {
        "torchrun": torchrun,
        "outlived": outlived,
        "mpi": mpi,
        "actors": actors,
        "raytrain": raytrain,
        "dask": dask,
    }
    seen = hosts[host](folder)
    Path(f"{folder}/{host}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
