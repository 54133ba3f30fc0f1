"""docs/watching.md: its blocks run after a real epoch, and its commands take the options that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_corpora import MakeCorpus

from seta_stream import SetaStream
from seta_stream.cli.report import command as report
from seta_stream.cli.watch import command as watch

TEXT = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


class Sink:
    """Takes what the three packages take: none of them is installed for tests."""

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


@pytest.mark.parametrize("number", range(3))
def test_every_block_logs_an_epoch(make_corpus: MakeCorpus, number: int) -> None:
    """Three lines each, and every number arrives as a float."""
    sink = Sink()
    with SetaStream(make_corpus(), batch_size=10) as stream:
        stream.set_epoch(3)
        assert len(list(stream)) == 100
        assert BLOCKS[number].count("\n") == 3
        exec(BLOCKS[number], {"stream": stream, "writer": sink, "wandb": sink, "mlflow": sink})
        assert {f"seta/{name}" for name in stream.stats.facts()} | {"seta/share_kept"} == set(sink.told)
    assert len(BLOCKS) == 3
    assert sink.told["seta/samples"][0] == 100.0
    assert {type(value) for value, _ in sink.told.values()} == {float}
    assert {step for _, step in sink.told.values()} == ({None} if number == 1 else {3})


def test_the_options_are_there() -> None:
    """Each --option of the page is one of the two commands'."""
    known = {flag for one in (report, watch) for option in one.params for flag in option.opts}
    named = set(re.findall(r"(--[a-z][a-z0-9-]+)", TEXT))
    assert len(named) > 10
    assert named <= known
