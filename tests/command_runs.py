"""Every command of `seta-stream`: the tree that they form, what a call of each needs, and calls of them.

Takes arguments; gives results, and writes what the calls are about. A new command belongs in `CALLS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands_page import commands
from small_corpora import text_members, write_tar

from seta_stream import InfoBatch, SetaStream
from seta_stream.cli import main

TREE: Final = commands()
PRINTS_CODE: Final = {"completion"}
"""A command whose result is read by a shell, so that it takes no --json."""
EACH: Final = 8
"""Samples of a shard."""
LOSSES: Final = "block_losses:losses"
"""The model that `score` is called with."""


@dataclass(frozen=True)
class Call:
    """What a command is called with besides what it is about.

    Args:
        arguments: what is required, and what keeps the call short; "OUT" stands for a folder.
        before: what stands before URLS.
    """

    arguments: Sequence[str] = ()
    before: Sequence[str] = ()


CALLS: Final[Mapping[str, Call]] = {
    "completion": Call(["bash"]),
    "convert": Call(["--to", "dali", "--out", "OUT/indexes"]),
    "demo": Call(["--out", "OUT/demo"]),
    "export": Call(["--to", "OUT/losses.csv"]),
    "import": Call(["--state", "OUT/state"], before=["losses.csv"]),
    "index": Call(["--out", "OUT/indexes"]),
    "inspect": Call(),
    "repack": Call(["--to", "OUT/new", "--order", "key"]),
    "report": Call(["--out", "OUT/report.html", "--samples", "1"]),
    "score": Call(["--state", "OUT/state", "--model", LOSSES]),
    "simulate": Call(["--policy", "full"]),
    "verify": Call(),
    "watch": Call(["--once"]),
}


def about(name: str) -> list[str]:
    """Return the commands that take an argument, by the commands' names."""
    return [command for command, one in TREE.items() if any(param.name == name for param in arguments_of(one))]


def arguments_of(command: click.Command) -> list[click.Argument]:
    """Return a command's arguments."""
    return [one for one in command.params if isinstance(one, click.Argument)]


def options_of(command: click.Command) -> list[click.Option]:
    """Return a command's options."""
    return [one for one in command.params if isinstance(one, click.Option)]


def called(command: str, *objects: object, out: object = "out") -> list[str]:
    """Return a whole call of a command about some objects.

    Args:
        command: its name.
        objects: URLs of shards, or a state.
        out: folder that it writes to.
    """
    call = CALLS[command]
    arguments = [argument.replace("OUT", str(out)) for argument in call.arguments]
    return [command, *call.before, *map(str, objects), *arguments]


def run(*arguments: object) -> Result:
    """Run in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)])


def error_of(stderr: str) -> dict[str, Any]:
    """Return the error that ends stderr."""
    found: dict[str, Any] = json.loads(stderr.splitlines()[-1])
    return found


def prepare(folder: Path) -> None:
    """Make what calls are about: shards data/t-0.tar and t-1.tar with indexes, a run, losses.csv, and the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        Path("data").mkdir()
        shards = [str(write_tar(Path(f"data/t-{at}.tar"), text_members(EACH * at, EACH))) for at in range(2)]
        assert run("index", *shards).exit_code == 0
        with SetaStream(shards, policy=InfoBatch(num_epochs=8), state="run", batch_size=4) as stream:
            for epoch in range(2):
                stream.set_epoch(epoch)
                for batch in stream.batches():
                    stream.record(batch["__index__"], np.asarray(batch["__index__"]) + 1.0)
        Path("losses.csv").write_text("id,loss\n" + "".join(f"{at},{at}.5\n" for at in range(2 * EACH)))
        module = LOSSES.partition(":")[0]
        Path(f"{module}.py").write_text("def losses(batch):\n    return [1.0 for _ in batch['__key__']]\n")
