"""Work and models for the tests of jobs and scoring: other processes import them from here."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import CorpusError


def square(number: int) -> int:
    return number * number


def square_or_die(task: tuple[str, int]) -> int:
    """Square a number; the first process that is given 3 is killed in the middle of it."""
    folder, number = task
    times = count(Path(folder) / f"{number}")
    if number == 3 and times == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def square_or_die_late(task: tuple[str, int]) -> int:
    """Square a number; from 20 on once the caller says so, and the first process that is given 20 is killed."""
    folder, number = task
    times = count(Path(folder) / f"{number}")
    if number >= 20:
        with (Path(folder) / "gate").open("rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
    if number == 20 and times == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(number: int) -> int:
    """Square a number; whoever is given 3 is killed."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def count(path: Path) -> int:
    """Count the calls with one path, over processes; return how many there were."""
    with path.open("ab") as file:
        file.write(b"x")
    return path.stat().st_size


def refuse(number: int) -> int:
    if number == 3:
        raise CorpusError("no good", shard="three.tar", offset=512)
    return number * number


class OddError(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} is not {right}")


def raise_odd(number: int) -> int:
    raise OddError(number, 0)


# ---- models


def by_number(batch: dict[str, Any]) -> NDArray[np.float32]:
    """Give each sample of `small_corpora` its own number as loss, halved."""
    return np.array([int(text) for text in batch["txt"]], np.float32) / 2


def one_dies(batch: dict[str, Any]) -> NDArray[np.float32]:
    """Do as by_number; the first process that meets sample 30 is killed."""
    losses = by_number(batch)
    if (losses == 15).any() and count(Path(batch["__url__"][0]).parent / "calls") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses


def some_fail(batch: dict[str, Any]) -> list[float]:
    return [float("nan") if number % 10 == 3 else float(number) for number in batch["__index__"].tolist()]


def all_fail(batch: dict[str, Any]) -> list[float]:
    return [float("inf")] * len(batch["__key__"])


def breaks(batch: dict[str, Any]) -> list[float]:
    return batch["jpg"]  # type: ignore[no-any-return]


def too_few(batch: dict[str, Any]) -> list[float]:
    return [0.0, 1.0]


class Unready:
    """Losses that cannot be had, as those of a device that failed."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("device-side assert triggered")


def unready(batch: dict[str, Any]) -> Unready:
    return Unready()


def exits(batch: dict[str, Any]) -> None:
    raise SystemExit(2)


def prints(batch: dict[str, Any]) -> NDArray[np.float32]:
    """Print, and leave nothing of the batch as it was."""
    print("a model that prints")  # noqa: T201  (what it is for)
    losses = by_number(batch)
    batch["__index__"][:] = 0
    batch.clear()
    return losses


def on_device(*, device: str) -> Any:
    """Make a model that cannot be made without a device."""
    return Counted(device)


def needs_batch(batch: dict[str, Any] | None = None) -> list[float]:
    return [0.0] * len(batch["__key__"])  # type: ignore[index]


class Sole:
    """A model that one thread may call at a time, made once per process; its losses tell how often."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        time.sleep(0.05)  # in which another thread would make one too
        self.is_busy = False

    def __call__(self, batch: dict[str, Any]) -> list[float]:
        assert not self.is_busy
        self.is_busy = True
        time.sleep(0.01)
        self.is_busy = False
        return [float(self.made)] * len(batch["__key__"])


class Counted:
    """A model with a state of its own: how often it was made, in the loss."""

    made = 0

    def __init__(self, device: str = "none") -> None:
        type(self).made += 1
        self.device = device

    def __call__(self, batch: dict[str, Any]) -> list[float]:
        return [float(self.made)] * len(batch["__key__"])


class NeedsMore:
    def __init__(self, width: int) -> None: ...


def no_model() -> int:
    return 3


def fails() -> None:
    raise OSError("no weights here")


made_ready = partial(Counted, "somewhere")
number = 3


def module() -> Any:
    """Make a torch module whose losses say what it was called with."""
    import torch

    class Halves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, batch: dict[str, Any]) -> torch.Tensor:
            assert not self.training
            numbers = torch.tensor([float(text) for text in batch["txt"]], device=self.scale.device)
            losses = self.scale * numbers
            assert not losses.requires_grad
            return losses

    return Halves()


# ---- decoders


def words(field: str, data: bytes) -> str:
    """Decode texts; those of ids that end in 7 are damaged."""
    text = data.decode()
    if text.strip().endswith("7") and field == "txt":
        raise ValueError("damaged text")
    return text


def damaged(field: str, data: bytes) -> str:
    raise ValueError("all is damaged")


class Drawn:
    def for_sample(self, seed: int, epoch: int, number: int) -> Any:
        return words


drawn = Drawn()
