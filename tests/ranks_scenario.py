"""Runs of several ranks in one interpreter, each rank a thread, and what they leave behind.

Takes a run's settings; gives what every rank read and weighed, and what lies in the state folder. Workers are played by
iterators that read ahead, as those of a DataLoader do.
"""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from small_corpora import text_members, write_tar
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream import BLS, UCB, InfoBatch, Kakurenbo, PerGroup, Reading, RePB, SeTa, SetaStream
from seta_stream.read.places import Places

EPOCHS = 3

OTHERS = {"flags": lambda ids: ids % 3 == 0, "group": lambda ids: ids % 11}
"""What is recorded beside the losses, by name."""

CASES: dict[str, dict[str, Any]] = {
    "seta": {"policy": SeTa(num_epochs=5, target=0.4)},
    "weights": {"policy": InfoBatch(num_epochs=9)},
    "flags": {"policy": Kakurenbo(num_epochs=9)},
    "shards": {"policy": PerGroup(InfoBatch(num_epochs=9), by="shard")},
    "labels": {"policy": PerGroup(SeTa(num_epochs=9, num_group=3), by="recorded", floor=0.2)},
    "smooth": {"policy": InfoBatch(num_epochs=9, smooth=BLS(0.5))},
    "columns": {"policy": UCB()},
    "of_call": {"policy": RePB()},
    "run": {"policy": InfoBatch(num_epochs=9), "unit": "run", "read": Reading(run_bytes=6000)},
    "run_bytes": {"policy": SeTa(num_epochs=5, target=0.4), "read": Reading(run_bytes=6000)},
}
"""Options by what is special about them."""


@cache
def corpus(counts: tuple[int, ...]) -> list[str]:
    """Return the shards of a corpus of so many samples each; written once."""
    folder, first, paths = Path(_FOLDER.name) / "-".join(map(str, counts)), 0, []
    folder.mkdir()
    for number, count in enumerate(counts):
        paths.append(str(write_tar(folder / f"t-{number:03d}.tar", text_members(first, count))))
        first += count
    return paths


_FOLDER = tempfile.TemporaryDirectory(prefix="ranks-")


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Args:
        shards: of the corpus.
        case: of CASES.
        batch: the global batch.
        state: its folder.
        lanes: of the plan.
        call: so many losses are recorded at once.
        seed: of the draws.
    """

    shards: list[str]
    case: str
    batch: int
    state: Path
    lanes: tuple[int, int]
    call: int = 1
    seed: int = 3
    more: dict[str, Any] = field(default_factory=dict)
    """Options in the place of the case's."""

    def open(self, collective: ThreadCollective) -> SetaStream:
        """Return a rank's stream."""
        own = {"batch_size": self.batch // collective.world, "lanes": self.lanes, "seed": self.seed}
        own |= {"state": str(self.state), "collective": collective}
        return SetaStream(self.shards, **(own | CASES[self.case] | self.more))


@dataclass
class Told:
    """What one rank saw of an epoch, from some step on: (ids, weights) of each step, the selection, and the rule."""

    epoch: int
    steps: list[tuple[list[int], list[float]]]
    bits: bytes
    rule: dict[str, Any]
    selected: int


def losses_of(ids: np.ndarray, epoch: int) -> np.ndarray:
    """Return losses that differ by sample and change their order from epoch to epoch."""
    return (ids * 37 % 101 + epoch * (ids % 7)) / 10 + 0.1


def record(stream: SetaStream, ids: np.ndarray, epoch: int, call: int) -> None:
    """Record the losses of a batch, `call` of them at a time."""
    names = stream.session.memory.takes
    for start in range(0, len(ids), call):
        some = ids[start : start + call]
        stream.record(some, losses_of(some, epoch), **{name: OTHERS[name](some) for name in names})


def batches(stream: SetaStream, workers: int, ahead: int = 2) -> Iterator[dict[str, Any]]:
    """Yield a rank's batches as a DataLoader does: from workers in turn, each `ahead` batches further than asked."""
    if not workers:
        yield from stream.batches()
        return
    session = stream.session
    session.delivered = 0
    assert stream.batch_size is not None
    read = [Places(stream.reader, stream.batch_size, each, workers, batches=True) for each in range(workers)]
    ready: deque[Any] = deque()
    asked = 0
    while True:
        while len(ready) < 1 + ahead * workers:
            ready.append(next(read[asked % workers], None))
            asked += 1
        batch = ready.popleft()
        if batch is None:
            return
        session.delivered += len(batch["__index__"])
        yield batch


def train(run: Run, stream: SetaStream, workers: int = 0, until: int | None = None) -> Told:
    """Train the epoch that is set, from where the stream stands to its end or to step `until`."""
    steps = []
    with closing(batches(stream, workers)) as read:  # type: ignore[type-var]
        while until is None or stream.position < until:
            batch = next(read, None)
            if batch is None:
                break
            ids, weights = batch["__index__"], batch["__weight__"].tolist()
            assert stream.weights(ids).tolist() == weights
            record(stream, ids, stream.session.plan.epoch, run.call)
            steps.append((ids.tolist(), weights))
    plan, rule = stream.session.plan, stream.session._rule
    return Told(plan.epoch, steps, plan.selection.bits.tobytes(), rule.to_plain(), plan.selection.selected)


def whole(run: Run, world: int, workers: int = 0, epochs: int = EPOCHS) -> list[list[Told]]:
    """Train a whole run; return what each rank saw of each epoch."""

    def one(collective: ThreadCollective) -> list[Told]:
        with run.open(collective) as stream:
            told = []
            for epoch in range(epochs):
                stream.set_epoch(epoch)
                expected = len(stream)
                told.append(train(run, stream, workers))
                assert sum(len(ids) for ids, _ in told[-1].steps) == expected
            return told

    return ThreadTeam(world).run(one)


def joined(ranks: list[Told]) -> Told:
    """Return what all ranks saw together: of each step, what they read in rank order."""
    assert len({len(one.steps) for one in ranks}) == 1, "the ranks have different numbers of batches"
    assert all((one.bits, one.rule) == (ranks[0].bits, ranks[0].rule) for one in ranks)
    sizes = {len(ids) for one in ranks for ids, _ in one.steps}
    assert len(sizes) <= 1, "not every batch is full"
    steps = [
        ([one for ids, _ in step for one in ids], [one for _, weights in step for one in weights])
        for step in zip(*(one.steps for one in ranks), strict=True)
    ]
    return replace(ranks[0], steps=steps)


SAME_FACTS = ("selected", "left_out", "steps", "samples", "decoded", "recorded", "bad_losses", "consumed", "runs")


def left_by(state: Path, facts: tuple[str, ...] = SAME_FACTS) -> dict[str, Any]:
    """Return what a run left: its sidecars, byte for byte, by epoch, and its history without names and costs."""
    lines = [json.loads(line) for line in (state / "history.jsonl").read_text().splitlines()]
    for line in lines:
        del line["generation"], line["parent"]
        line["facts"] = {name: line["facts"].get(name) for name in facts}
    sidecars = {
        f"{place.parent.name[:10]}/{place.name}": place.read_bytes() for place in state.glob("losses/gen-*/*.losses")
    }
    return {"history": lines, "sidecars": sidecars}


def segment(
    run: Run, world: int, saved: dict[str, Any] | None, stop: tuple[int, float] | None, workers: int = 0, lost: int = 0
) -> tuple[list[list[Told]], dict[str, Any] | None]:
    """Train from a checkpoint to another one, and be killed; return what each rank saw, and the checkpoint.

    Args:
        run: the settings.
        world: ranks.
        saved: where to go on; None for the beginning.
        stop: (epoch, share of its steps) at which to save; None: train to the end, and close.
        workers: of each rank.
        lost: so many steps are trained after the checkpoint, for nothing.
    """

    def one(collective: ThreadCollective) -> tuple[list[Told], str | None]:
        stream = run.open(collective)
        if saved is not None:
            stream.load_state_dict(saved)
        told = []
        for epoch in range(0 if saved is None else saved["epoch"], EPOCHS):
            stream.set_epoch(epoch)
            steps = stream.session.plan.lanes.steps
            until = None if stop is None or epoch < stop[0] else max(round(stop[1] * steps), stream.position)
            told.append(train(run, stream, workers, until))
            if until is not None:
                state = json.dumps(stream.state_dict(step=until))
                reading = batches(stream, workers)
                for batch in (next(reading, None) for _ in range(lost)):
                    if batch is not None:
                        record(stream, batch["__index__"], epoch, run.call)
                reading.close()  # type: ignore[attr-defined]
                stream.session.memory.close()  # the kernel's part of a process's end
                return told, state
        stream.close()
        return told, None

    outcomes = ThreadTeam(world).run(one)
    states = {state for _, state in outcomes}
    assert len(states) == 1, "the checkpoint is not the same on every rank"
    (state,) = states
    assert state is None or len(state) < 20_000
    return [told for told, _ in outcomes], state and json.loads(state)


def seen_by(segments: list[list[list[Told]]]) -> list[Told]:
    """Return the epochs that several segments trained one after another."""
    epochs: dict[int, Told] = {}
    for ranks in segments:
        for told in zip(*ranks, strict=True):
            one = joined(list(told))
            before = epochs.get(one.epoch)
            assert before is None or (before.bits, before.rule) == (one.bits, one.rule)
            epochs[one.epoch] = one if before is None else replace(one, steps=before.steps + one.steps)
    return list(epochs.values())
