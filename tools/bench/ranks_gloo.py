"""Real processes over gloo, of this machine: what an epoch exchanges, and what a step costs.

Takes a specification and starts processes by torchrun; gives what each told. Effects: processes, and a folder that is
gone afterwards. Run by torchrun it is one of the processes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _common import ROOT, WORK, corpus
from ranks_watch import Counted, Watch

WARM_STEPS = 64
"""The first steps are not timed."""


def run_together(world: int, spec: Mapping[str, Any], source: Path = ROOT) -> list[dict[str, Any]]:
    """Return what each of `world` processes told.

    Args:
        world: one is a plain process, without torch.distributed.
        spec: as JSON: "do" names one of DOES, the rest is for it.
        source: where seta_stream is imported from; another release's folder compares.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="ranks-") as folder:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
        here = Path(__file__)
        environment = {**os.environ, "PYTHONPATH": f"{source}:{here.parent}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launch, str(here), json.dumps(dict(spec)), folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]


def epochs(spec: Mapping[str, Any], folder: Path, inner: Any) -> dict[str, Any]:
    """Train two epochs of a corpus that is numbers only, and give the stages, as the simulation does."""
    from ranks_rig import Rank, table_of, warm_up

    warm_up()
    with Watch() as watch:
        table = table_of(spec["samples"], spec["shards"])
        rank = Rank(table, spec["policy"], str(folder / "state"), inner, watch)
        rank.set_epoch(0)
        rank.train("epoch 0")
        rank.set_epoch(1)
        rank.train("epoch 1")
        rank.set_epoch(2)
    return {"stages": {name: asdict(stage) for name, stage in rank.stages.done.items()}}


def steps(spec: Mapping[str, Any], folder: Path, inner: Any) -> dict[str, Any]:
    """Train an epoch of captions and the beginning of another; count what is exchanged in between, time `update`."""
    import torch

    from seta_stream import InfoBatch
    from seta_stream.adapters.torch import SetaDataset

    counted = None if inner is None else Counted(inner, Watch())
    more = {} if counted is None else {"collective": counted}
    spent: list[float] = []
    with SetaDataset(
        spec["urls"], batch_size=spec["batch"], batches=True, policy=InfoBatch(90), state=str(folder / "state"), **more
    ) as dataset:
        exchanges = 0
        for epoch in range(2):
            dataset.set_epoch(epoch)
            before = _exchanges(counted)
            for step, batch in enumerate(dataset):
                ids = torch.from_numpy(batch["__index__"])
                loss = torch.rand(len(ids), requires_grad=True)
                begin = time.process_time()
                dataset.update(ids, loss)
                if epoch and step >= WARM_STEPS:
                    spent.append(time.process_time() - begin)
            exchanges += _exchanges(counted) - before
    return {"us": statistics.fmean(spent) * 1e6, "median_us": statistics.median(spent) * 1e6, "exchanges": exchanges,
            "steps": len(spent)}  # fmt: skip


def _exchanges(counted: Counted | None) -> int:
    return 0 if counted is None else sum(one.exchanges for one in counted.traffic.values())


DOES = {"epochs": epochs, "steps": steps}


def step_urls() -> list[str]:
    """Return the shards that steps are taken from."""
    return corpus("captions")


def main() -> None:
    """Be one of the processes."""
    spec, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    rank, inner = int(os.environ.get("RANK", "0")), None
    if "RANK" in os.environ:
        import torch.distributed

        from seta_stream.adapters.torch_collective import TorchCollective

        torch.distributed.init_process_group("gloo")
        inner = TorchCollective()
    told = DOES[spec["do"]](spec, folder, inner)
    (folder / f"{rank}.json").write_text(json.dumps(told))
    if inner is not None:
        inner.close()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
