"""Lightning, Hugging Face and Accelerate over two processes: the plan, each part once, and resumed inside an epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from frameworks_driver import BATCH, EPOCHS, STOP, decode, loss_of
from small_corpora import MakeCorpus
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

DRIVER = Path(__file__).parent / "frameworks_driver.py"
WORLD = 2


def torchrun(framework: str, folder: Path) -> list[list[dict[str, list[list[int]]]]]:
    """Return what each rank saw, in each of the two runs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
    unset = {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = f"{DRIVER.parents[2]}:{DRIVER.parent}"
    done = subprocess.run(
        [*command, str(DRIVER), framework, str(folder)],
        env={**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def plan(shards: list[str], state: Path) -> list[list[list[int]]]:
    """Return the steps of every epoch, as one process reads them whole."""
    epochs = []
    policy = SeTa(num_epochs=EPOCHS, target=0.4)
    with SetaDataset(
        shards, batch_size=WORLD * BATCH, lanes=(WORLD, 8), policy=policy, state=str(state), decode=decode, seed=2
    ) as dataset:
        loader = DataLoader(dataset, batch_size=WORLD * BATCH)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            epochs.append([])
            for batch in loader:
                dataset.update(batch["__index__"], loss_of(batch["__index__"]))
                epochs[-1].append(batch["__index__"].tolist())
    return epochs


@pytest.mark.parametrize("framework", ["lightning", "huggingface", "accelerate"])
def test_two_processes_read_the_plan(make_corpus: MakeCorpus, tmp_path: Path, framework: str) -> None:
    """Side by side the ranks' batches are the steps of the plan, before a failure and after it: none lost or twice."""
    shards = make_corpus(5, 41)
    ranks, steps = torchrun(framework, tmp_path), plan(shards, tmp_path / "alone")
    assert len(steps[0]) < STOP < len(steps[0]) + len(steps[1])
    before, after = ([rank[run] for rank in ranks] for run in (0, 1))
    assert sum(len(batches) for batches in before[0].values()) == STOP + 1
    for rank in before:
        rank["1"].pop()  # the failing step was not trained on
    for epoch, expected in enumerate(steps):
        parts = [a.get(str(epoch), []) + b.get(str(epoch), []) for a, b in zip(before, after, strict=True)]
        assert [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)] == expected
