"""The simulation of ranks runs at toy size, its figures add up, and it counts what real ranks count."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from small_corpora import text_members, write_tar
from thread_collective import ThreadTeam

TOOLS = Path(__file__).parents[2] / "tools"
OWN = (
    "_common",
    "bucket_server",
    "bucket_child",
    "bucket_cases",
    "bucket_results",
    "ranks",
    "ranks_gloo",
    "ranks_plot",
    "ranks_rig",
    "ranks_team",
    "ranks_watch",
)
SAMPLES, SHARDS = 40_000, 53
BINS = 1 << 20


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, working in a folder of their own; gone afterwards."""
    monkeypatch.setenv("SETA_BENCH_FOLDER", str(tmp_path))
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    for name in OWN:
        sys.modules.pop(name, None)
    yield {name: importlib.import_module(name) for name in OWN}
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("ranks", "policy"), [(1, "seta"), (4, "infobatch"), (16, "seta")])
def test_figures_add_up(bench: dict[str, ModuleType], tmp_path: Path, ranks: int, policy: str) -> None:
    """Parts add up to the whole, everything is selected at first, and one process exchanges nothing."""
    case = bench["ranks_rig"].Case(SAMPLES, SHARDS, ranks, policy)
    figures = json.loads(json.dumps(bench["ranks_rig"].run_case(case, str(tmp_path / "state"))))
    for name, stage in figures["stages"].items():
        assert sum(stage["wall_s"].values()) == pytest.approx(stage["whole_s"], abs=0.5), name  # on a busy machine
        assert all(seconds > -1e-9 for seconds in stage["wall_s"].values()), name
    assert SAMPLES * 0.3 < figures["selected"] < SAMPLES * 0.9
    held = figures["held"]
    assert held["losses and ages"] == pytest.approx(5 * SAMPLES / ranks, rel=0.05 * ranks)
    assert (held["board's weights"] > 0) == (policy == "infobatch")
    moved = sum(one["received"] for one in figures["stages"]["set_epoch(1)"]["traffic"].values())
    assert (moved == 0) == (ranks == 1)
    if ranks > 1:
        steps = SAMPLES // (ranks * bench["ranks_rig"].BATCH)
        assert held["outbox"] == steps * bench["ranks_rig"].BATCH * 12


def test_the_simulated_rank_counts_what_real_ranks_count(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    """Four ranks that are there, in threads: rank 0 gets as many bytes of each kind as the simulated one."""
    rig, watch = bench["ranks_rig"], bench["ranks_watch"]
    case = rig.Case(SAMPLES, SHARDS, 4, "infobatch")
    simulated = rig.run_case(case, str(tmp_path / "simulated"))
    table = rig.table_of(case.samples, case.shards)

    def work(collective: Any) -> dict[str, Any]:
        # Only exchanges are watched: the package's functions are shared by the threads.
        seen = watch.Watch()
        counted = watch.Counted(collective, seen)
        session = rig.session_of(table, rig.POLICIES[case.policy], str(tmp_path / "real"), counted)
        session.set_epoch(0)
        rng = np.random.default_rng(session.rank)
        for _, ids in rig.rounds(session.plan, rig.Share(session.rank, session.world)):
            session.memory.record(ids, rng.standard_exponential(len(ids)), {})
            session.delivered += len(ids)
        counted.traffic.clear()
        session.set_epoch(1)
        return {"received": sum(one.received for one in counted.traffic.values()),
                "exchanges": sum(one.exchanges for one in counted.traffic.values())}  # fmt: skip

    real = ThreadTeam(4).run(work)[0]
    traffic = simulated["stages"]["set_epoch(1)"]["traffic"].values()
    assert sum(one["exchanges"] for one in traffic) == real["exchanges"]
    # Two sums of histograms hide all else. Which samples are selected is drawn, so weights differ a little.
    sums = 2 * (2 * 8 * (BINS + 1) * 3 // 4)
    assert sum(one["received"] for one in traffic) - sums == pytest.approx(real["received"] - sums, rel=0.02)


def test_losses_that_others_would_send_are_of_what_they_read(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    """After an epoch of everything, rank 0's table has a loss of every sample that a step held, and of no other."""
    rig, watch, team = bench["ranks_rig"], bench["ranks_watch"], bench["ranks_team"]
    with watch.Watch() as seen:
        table = rig.table_of(SAMPLES, SHARDS)
        rank = rig.Rank(table, "seta", str(tmp_path / "state"), team.SimulatedTeam(4, table, seen), seen)
        rank.set_epoch(0)
        left_out = rank.session.plan.lanes.left_out
        rank.train("epoch 0")
        rank.set_epoch(1)
    losses = rank.session.memory.losses
    unseen = losses.histogram().unseen
    assert 0 <= unseen <= left_out
    assert losses.histogram().seen == losses.total - unseen


def test_the_watch_puts_everything_back(bench: dict[str, ModuleType]) -> None:
    """What is timed while a watch is open is the package's own again afterwards, class methods too."""
    from seta_stream import session
    from seta_stream.losses.outbox import Outbox

    before = (Outbox.parts, vars(session.Weights)["of_line"], session.line_weights)
    with bench["ranks_watch"].Watch():
        assert before[0] is not Outbox.parts
    assert (Outbox.parts, vars(session.Weights)["of_line"], session.line_weights) == before


def test_tables_and_picture(
    bench: dict[str, ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command prints every table, keeps figures and reads them again, draws, and leaves out what is too large."""
    save, plot = tmp_path / "figures.jsonl", tmp_path / "ranks.png"
    fixed = ["--section", "simulated", "--ranks", "2", "--size", "20000/20", "40000/40", "--save", str(save)]
    main = bench["ranks"].main
    main([*fixed, "--plot", str(plot)])
    out = capsys.readouterr().out
    for title in ("set_epoch(1), after an epoch", "CPU seconds of", "arrays that stay", "MB that rank 0 sends"):
        assert title in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    kept = save.read_text()
    assert len(kept.splitlines()) == 2
    main(fixed)
    assert save.read_text() == kept
    monkeypatch.setattr(bench["ranks"], "MOST_BYTES", 100_000)
    main(fixed)
    assert "0M samples, 2 ranks: left out" in capsys.readouterr().out


@pytest.mark.parametrize("world", [1, 2])
def test_steps_exchange_nothing(bench: dict[str, ModuleType], tmp_path: Path, world: int) -> None:
    """Real processes train on two shards: each times every step after the first, and exchanges nothing meanwhile."""
    urls = [str(write_tar(tmp_path / f"{n}.tar", text_members(n * 1500, 1500))) for n in range(2)]
    told = bench["ranks_gloo"].run_together(world, {"do": "steps", "urls": urls, "batch": 8})
    assert [one["exchanges"] for one in told] == [0] * world
    assert len(told) == world
    for one in told:
        # 3,000 samples, of which InfoBatch keeps about 0.7.
        assert 0.5 * 3000 / 8 / world < one["steps"] + bench["ranks_gloo"].WARM_STEPS < 0.9 * 3000 / 8 / world
        assert 1 < one["us"] < 1e5


def test_a_process_that_fails_is_told_of(bench: dict[str, ModuleType]) -> None:
    """The error of a process is in the message."""
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        bench["ranks_gloo"].run_together(1, {"do": "nothing"})
