"""What goes wrong in a training run on purpose, in one of its processes or in a DataLoader's worker of it.

Takes the options of a run; effects: those of `training_run.py` until the fault, and what the fault does.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import get_worker_info
from training_run import Options, Trainer, decode

from seta_stream.adapters.torch_collective import GlooTransport
from seta_stream.errors import StateError
from seta_stream.losses.committing import Committer
from seta_stream.losses.manifest import Generation

EPOCH = 1
"""In this epoch, or on its way, things go wrong."""


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_go() -> None:
    """Wait until the test writes a line."""
    sys.stdin.readline()


class FaultyDecoder:
    """A decoder that does something else once, in worker 0 of one process, which must be able to pickle it.

    Args:
        options: of the run.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.texts = 0
        self.rank = int(os.environ["RANK"])

    def __call__(self, field_name: str, data: bytes) -> Any:
        info = get_worker_info()
        self.texts += info is not None and info.id == 0
        if self.rank == self.options.fault_rank and self.texts == self.options.fault_at:
            self.texts += 1
            WORKER_FAULTS[self.options.fault](self.options)
        return decode(field_name, data)


def worker_dies(options: Options) -> None:
    kill_myself()


def worker_raises(options: Options) -> None:
    msg = "there is no such word"
    raise ValueError(msg)


def worker_stays(options: Options) -> None:
    """Say who waits, and wait until the test opens the other end of a pipe."""
    path = Path(options.folder) / "worker"
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    (Path(options.folder) / "pipe").read_bytes()


WORKER_FAULTS = {"worker dies": worker_dies, "worker raises": worker_raises, "worker stays": worker_stays}


def at_step(does: Callable[[Options], None]) -> Callable[[Options], None]:
    """Return a run of which one process does something before a step."""

    def run(options: Options) -> None:
        def on_step(epoch: int, step: int) -> None:
            if trainer.rank == options.fault_rank and (epoch, step) == (EPOCH, options.fault_at):
                does(options)

        trainer = Trainer(options, on_step=on_step)
        trainer.train()

    return run


def die(options: Options) -> None:
    kill_myself()


def fail(options: Options) -> None:
    msg = f"the loop of process {options.fault_rank} failed"
    raise RuntimeError(msg)


def at_epoch(does: Callable[[Trainer, Callable[[], None]], None]) -> Callable[[Options], None]:
    """Return a run that does something where the epoch is to be set, given the trainer and what sets it."""

    def run(options: Options) -> None:
        trainer = Trainer(options)
        set_epoch = trainer.dataset.set_epoch

        def replaced(epoch: int) -> None:
            if epoch == EPOCH:
                does(trainer, lambda: set_epoch(epoch))
            else:
                set_epoch(epoch)

        trainer.dataset.set_epoch = replaced  # type: ignore[method-assign]
        trainer.train()

    return run


def is_at_fault(trainer: Trainer) -> bool:
    return trainer.rank == trainer.options.fault_rank


def epoch_fails(trainer: Trainer, go_on: Callable[[], None]) -> None:
    """Fail in one process."""
    if is_at_fault(trainer):
        fail(trainer.options)
    go_on()


def one_closes(trainer: Trainer, go_on: Callable[[], None]) -> None:
    """Close in one process what goes on in the others."""
    if is_at_fault(trainer):
        trainer.dataset.close()
    go_on()


def all_wait(trainer: Trainer, go_on: Callable[[], None]) -> None:
    """Wait for the test."""
    (trainer.folder / f"waits-{trainer.rank}").touch()
    wait_for_go()
    go_on()


def disk_full(trainer: Trainer, go_on: Callable[[], None]) -> None:
    """Let one process write no file longer than `fault_at` bytes; the disk has room again when the error is there."""
    try:
        with_full_disk(trainer, go_on)
    except StateError:
        if not trainer.options.more.get("again"):
            raise
        go_on()


def with_full_disk(trainer: Trainer, go_on: Callable[[], None]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if is_at_fault(trainer):
        resource.setrlimit(resource.RLIMIT_FSIZE, (trainer.options.fault_at, before[1]))
    try:
        go_on()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def dies_in_exchange(trainer: Trainer, go_on: Callable[[], None]) -> None:
    """Die at a message of the exchange that sets the epoch."""
    if is_at_fault(trainer):
        die_at_message(trainer.options.fault_at)
    go_on()


def die_at_message(wanted: int) -> None:
    """Make this process kill itself where it is about to send its n-th message, from here on."""
    sent = 0

    def before(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == wanted:
                kill_myself()
            return method(*args)

        return counted

    for name in ("all_gather", "swap", "spread", "add"):
        setattr(GlooTransport, name, before(getattr(GlooTransport, name)))


def dies_at_message(options: Options) -> None:
    """Die at the n-th message of the whole run."""
    if int(os.environ["RANK"]) == options.fault_rank:
        die_at_message(options.fault_at)
    Trainer(options).train()


def dies_in_commit(options: Options) -> None:
    """Die in the commit of epoch `fault_at`, with all sidecars written and no manifest."""
    publish = Committer.publish

    def replaced(committer: Committer, generation: Generation, written: Any) -> Generation:
        if generation.epoch == options.fault_at:
            kill_myself()
        return publish(committer, generation, written)

    if int(os.environ["RANK"]) == options.fault_rank:
        Committer.publish = replaced  # type: ignore[method-assign]
    Trainer(options).train()


def leaves_and_stays(options: Options) -> None:
    """Fail in one process, in the block of the dataset, and let that process live on."""
    try:
        at_epoch(epoch_fails)(options)
    except RuntimeError:
        if int(os.environ["RANK"]) != options.fault_rank:
            raise
        wait_for_go()


def faulty_decoder(options: Options) -> None:
    Trainer(options, FaultyDecoder(options)).train()


FAULTS: dict[str, Callable[[Options], None]] = {
    "dies in a step": at_step(die),
    "fails in a step": at_step(fail),
    "dies in the exchange": at_epoch(dies_in_exchange),
    "dies at a message": dies_at_message,
    "dies in the commit": dies_in_commit,
    "fails and stays": leaves_and_stays,
    "closes": at_epoch(one_closes),
    "waits": at_epoch(all_wait),
    "disk is full": at_epoch(disk_full),
    **dict.fromkeys(WORKER_FAULTS, faulty_decoder),
}


def train(options: Options) -> None:
    """Train until it goes wrong."""
    FAULTS[options.fault](options)
