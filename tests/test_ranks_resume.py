"""Many processes (played by threads) are stopped anywhere and go on with others, as many or not: nothing changes."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks_scenario import CASES, EPOCHS, Run, corpus, joined, left_by, seen_by, segment, train, whole
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream import Reading, beginning
from seta_stream.plan.epoch import EpochPlan

KEPT_FACTS = ("selected", "left_out", "steps", "consumed", "runs")
SHARDS = (41, 0, 1, 77, 30, 52, 90)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what makes files survive a power cut: most of the time here, and the affair of tests/losses."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@st.composite
def stops(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Draw where a run is stopped, in order."""
    place = st.tuples(st.integers(0, EPOCHS - 1), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
    return sorted(draw(st.lists(place, min_size=1, max_size=3)))


@pytest.mark.parametrize("case", CASES)
@given(data=st.data())
@settings(max_examples=3)
def test_it_goes_on_with_the_same_batches_on_any_number_of_ranks(case: str, data: st.DataObject) -> None:
    """Stopped and resumed several times on 1 … 8 ranks with 0 … 5 workers: batches, losses and history are kept."""
    first, second = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    batch = math.lcm(first, second) * data.draw(st.integers(1, 2))
    fitting = st.sampled_from([world for world in range(1, 9) if batch % world == 0])
    places = data.draw(stops())
    worlds = [first, second, *(data.draw(fitting) for _ in places[1:])]
    counts = data.draw(st.sampled_from([SHARDS, (250,), (1,) * 30 + (150, 0, 120)]))
    with tempfile.TemporaryDirectory() as folder:
        lanes = (data.draw(st.sampled_from([1, first])), data.draw(st.integers(1, 3)))
        call = math.gcd(*(batch // world for world in worlds))
        run = Run(corpus(counts), case, batch, Path(folder) / "many", lanes, call)
        alone = replace(run, state=Path(folder) / "alone")
        expected = [joined([told]) for (told,) in zip(*whole(alone, 1), strict=True)]
        found, saved = [], None
        for world, stop in zip(worlds, [*places, None], strict=True):
            settings_now = run if saved is None else replace(run, more={"lanes": None})
            workers, lost = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2))
            ranks, saved = segment(settings_now, world, saved, stop, workers, lost)
            found.append(ranks)
        assert seen_by(found) == expected
        assert left_by(run.state, KEPT_FACTS) == left_by(alone.state, KEPT_FACTS)


@pytest.mark.parametrize("worlds", [(4, 2), (1, 3), (6, 1), (3, 4), (2, 2)])
def test_every_step_is_a_place_to_go_on_from(worlds: tuple[int, int], tmp_path: Path) -> None:
    """From the first step of an epoch to the one after the last, on more and on fewer ranks."""
    run = Run(corpus((41, 0, 1, 77)), "columns", 12, tmp_path / "whole", (1, 2))
    expected = [joined([told]) for (told,) in zip(*whole(run, 1), strict=True)]
    steps = len(expected[1].steps)
    assert steps > 4
    for step in range(steps + 1):
        again = replace(run, state=tmp_path / str(step))
        one, saved = segment(again, worlds[0], None, (1, step / steps), workers=step % 3, lost=1)
        assert saved is not None
        assert saved["step"] == step
        two, _ = segment(again, worlds[1], saved, None, workers=(step + 1) % 3)
        assert seen_by([one, two]) == expected
        assert left_by(again.state, KEPT_FACTS) == left_by(run.state, KEPT_FACTS)


def files_of(state: Path) -> dict[str, bytes]:
    return {str(path.relative_to(state)): path.read_bytes() for path in state.glob("losses/**/*") if path.is_file()}


def test_an_older_checkpoint_leaves_newer_generations_alone(tmp_path: Path) -> None:
    """Going back two epochs, on other ranks, writes a lineage of its own; what was there stays byte for byte."""
    run = Run(corpus(SHARDS), "flags", 12, tmp_path / "s", (1, 2))
    _, old = segment(run, 4, None, (1, 0.5))
    _, new = segment(run, 2, old, (2, 0.5))
    segment(run, 2, new, None)
    before, pending = files_of(run.state), sorted(path.name for path in run.state.glob("pending/*"))
    assert len({name.split("/")[1] for name in before}) == 3
    again, _ = segment(run, 3, old, None)
    after = files_of(run.state)
    assert before.items() <= after.items()
    assert len({name.split("/")[1] for name in after}) == 5
    assert {name[7:17] for name in after.keys() - before.keys()} == {"gen-000001", "gen-000002"}
    assert pending == sorted(path.name for path in run.state.glob("pending/*"))
    expected = [joined([told]) for (told,) in zip(*whole(replace(run, state=tmp_path / "whole"), 1), strict=True)]
    found = seen_by([again])
    assert found[0].steps == expected[1].steps[len(expected[1].steps) - len(found[0].steps) :]
    assert found[1] == expected[2]


def test_a_checkpoint_of_the_release_before_loads(tmp_path: Path) -> None:
    """It was written by one process, and has no "writers"."""
    run = Run(corpus(SHARDS), "columns", 12, tmp_path / "s", (1, 2))
    one, saved = segment(run, 1, None, (1, 0.5))
    assert saved is not None
    assert saved.pop("writers") == 1
    two, _ = segment(run, 4, saved, None)
    expected = replace(run, state=tmp_path / "whole")
    assert seen_by([one, two]) == [joined([told]) for (told,) in zip(*whole(expected, 1), strict=True)]
    assert left_by(run.state, KEPT_FACTS) == left_by(expected.state, KEPT_FACTS)


def test_going_on_costs_the_same_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last step no more blocks are planned, bytes read or exchanges made than from the first."""
    monkeypatch.setattr(beginning, "block_length", lambda _mean, _width, batch: batch * 2)
    blocks: list[int] = []
    block = EpochPlan.block
    monkeypatch.setattr(EpochPlan, "block", lambda self, *where: blocks.append(1) or block(self, *where))
    more = {"read": Reading(prefetch_bytes=1 << 16), "lanes": (2, 2)}
    run = Run(corpus((900, 900)), "weights", 4, tmp_path / "s", (1, 1), more=more)

    def begin(collective: ThreadCollective) -> Any:
        stream = run.open(collective)
        train(run, stream, until=100)
        stream.set_epoch(1)
        steps = stream.session.plan.lanes.steps
        states = [stream.state_dict(step=step) for step in (0, steps // 2, steps - 1)]
        stream.session.memory.close()
        return states

    costs = []
    for saved in ThreadTeam(2).run(begin)[0]:

        def cost(collective: ThreadCollective, saved: Any = saved) -> tuple[int, int]:
            stream = run.open(collective)
            before = len(collective.calls)
            stream.load_state_dict(saved)
            calls = len(collective.calls) - before
            reading = stream.batches()
            next(reading)
            fetched = stream.stats.bytes_fetched
            reading.close()  # type: ignore[attr-defined]
            stream.session.memory.close()
            return calls, fetched

        blocks.clear()
        (calls, fetched), _ = ThreadTeam(2).run(cost)
        costs.append((calls, fetched, len(blocks)))
    first, middle, last = costs
    assert middle == pytest.approx(first, rel=0.3)
    assert all(there <= here for here, there in zip(first, last, strict=True))
    assert 0 < first[2] < 100
