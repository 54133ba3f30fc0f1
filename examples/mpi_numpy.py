"""MPI: a linear classifier in numpy learns in two processes, which add their gradients up by mpi4py.

    mpiexec -n 2 python -m mpi4py examples/mpi_numpy.py

Needs mpi4py and an MPI: pip install 'seta-stream[mpi]' mpich
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI

from seta_stream import SeTa, SetaStream
from seta_stream.adapters.mpi import MPICollective

EPOCHS, BATCH, CLASSES = 6, 100, 4  # samples per step, of all processes


def write_shard(path: Path, samples: int, seed: int) -> None:
    """Write points around four centres, 32 numbers each: <key>.npy and <key>.cls."""
    random, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(CLASSES, 32))
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(random.integers(CLASSES, size=samples)):
            file = io.BytesIO()
            np.save(file, (centres[label] + 2.5 * random.normal(size=32)).astype(np.float32))
            for field, data in (("npy", file.getvalue()), ("cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{number:06d}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    everyone = MPI.COMM_WORLD
    with tempfile.TemporaryDirectory() as own:
        folder = everyone.bcast(own)  # the first process's; on several machines: a folder that all of them see
        if everyone.rank == 0:
            for shard in range(4):
                write_shard(Path(folder) / f"points-{shard:02d}.tar", 1_000, seed=1 + shard)
        everyone.Barrier()
        train(everyone, f"{folder}/points-{{00..03}}.tar", f"{folder}/state")
        everyone.Barrier()  # before the folder goes


def train(everyone: MPI.Intracomm, urls: str, state: str) -> None:
    own = BATCH // everyone.size  # of each step, in this process
    policy = SeTa(num_epochs=EPOCHS, target=0.5)
    collective = MPICollective(everyone)
    matrix = np.zeros((32, CLASSES))
    with SetaStream(urls, policy=policy, state=state, batch_size=own, decode="basic", collective=collective) as stream:
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)  # commits the losses so far, then selects; in every process
            for batch in stream.batches():
                points, rows = batch["npy"], np.arange(own)  # [samples, 32]
                shares = np.exp(points @ matrix)
                shares /= shares.sum(1, keepdims=True)  # [samples, classes]
                stream.record(batch["__index__"], -np.log(shares[rows, batch["cls"]] + 1e-9))
                shares[rows, batch["cls"]] -= 1
                gradient = points.T @ (batch["__weight__"][:, None] * shares) / BATCH  # [32, classes]
                everyone.Allreduce(MPI.IN_PLACE, gradient)
                matrix -= 0.05 * gradient
            read = np.array([stream.stats.samples, stream.stats.bytes_fetched])  # by this process
            everyone.Allreduce(MPI.IN_PLACE, read)
            if everyone.rank == 0:
                print(f"epoch {epoch}: {read[0]:,} samples, {read[1]:,} bytes", flush=True)
    collective.close()


if __name__ == "__main__":
    main()
