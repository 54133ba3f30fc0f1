"""docs/watching.md: a run that is over, and something that takes what the three packages take; none is installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from block_corpora import trained, write_pictures

from seta_stream import SetaStream


class Sink:
    """Takes numbers by name, and the step where one is told."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[float, int | None]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """As SummaryWriter's. Source: docs.pytorch.org/docs/stable/tensorboard.html."""
        self.told[tag] = (scalar_value, global_step)

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        """As wandb's. Source: docs.wandb.ai, wandb.log."""
        self.told |= {name: (value, step) for name, value in data.items()}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """As mlflow's. Source: mlflow.org/docs, mlflow.log_metrics."""
        self.told |= {name: (value, step) for name, value in metrics.items()}


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    urls = write_pictures(folder, samples=25)
    trained(urls, folder / "runs" / "7", epochs=3, of=3)
    shutil.copytree("runs/7", "bucket/runs/7")
    Path("s3.json").write_text("{}")
    stream = SetaStream(urls, batch_size=10)
    stream.set_epoch(3)
    assert len(list(stream)) == 100
    return {"stream": stream}


def a_new_sink(known: dict[str, Any]) -> None:
    sink = Sink()
    known |= {"sink": sink, "writer": sink, "wandb": sink, "mlflow": sink}


def logged(known: dict[str, Any], step: int | None) -> None:
    told = known["sink"].told
    assert {f"seta/{name}" for name in known["stream"].stats.facts()} | {"seta/share_kept"} == set(told)
    assert told["seta/samples"] == (100.0, step)
    assert {type(value) for value, _ in told.values()} == {float}
    assert {at for _, at in told.values()} == {step}


def page_is_there(_known: dict[str, Any]) -> None:
    assert Path("report.html").stat().st_size > 10_000


TRACKERS = "In TensorBoard, Weights & Biases or MLflow"
BEFORE = {TRACKERS: a_new_sink, f"{TRACKERS} 2": a_new_sink, f"{TRACKERS} 3": a_new_sink}
AFTER = {
    "As a page": page_is_there,
    TRACKERS: lambda known: logged(known, 3),
    f"{TRACKERS} 2": lambda known: logged(known, None),
    f"{TRACKERS} 3": lambda known: (logged(known, 3), known["stream"].close()),
}
