"""The collective over JAX processes, between real ones."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from collective_suite import CHECKS
from jax_launch import SOON_S, line_of, processes, run, seen_by

from seta_stream.adapters.jax_collective import JaxCollective
from seta_stream.adapters.jax_wire import ROUND_BYTES, SMALLEST_PIECE, piece_of
from seta_stream.errors import ArgumentError


@pytest.fixture(scope="module", params=[(1, 1), (2, 1), (3, 2)], ids=lambda param: f"{param[0]}x{param[1]}")
def suites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run the suite once for each number of processes and of devices in each; what each process saw, by check."""
    world, devices = request.param
    return run("suite", world, tmp_path_factory.mktemp("suite"), devices=devices)


@pytest.mark.parametrize("check", CHECKS)
def test_it_is_a_collective(suites: list[Any], check: str) -> None:
    """It does what every collective does, for any number of processes and of devices in each."""
    assert [seen[check] for seen in suites] == ["held"] * len(suites)


@pytest.fixture(scope="module", params=[1, 2], ids=lambda devices: f"{devices} devices")
def quiet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run, once for the tests below, what harms no process; what each process saw, by scenario."""
    return run("quiet", 2, tmp_path_factory.mktemp("quiet"), devices=request.param)


def test_training_under_way_is_let_finish(quiet: list[Any]) -> None:
    """Exchanges that begin while a step's collectives run on the same CPUs neither mix with them nor hang."""
    for seen in quiet:
        assert seen["busy"]["under_way"] > 0
        assert seen["busy"]["right"] == 20


def test_sums_of_different_size_are_refused(quiet: list[Any]) -> None:
    """Every process learns whose array has another size, and goes on."""
    for seen in quiet:
        kind, text = seen["sizes"]
        assert kind == "PeerError"
        assert "process 0 gives 5 numbers and process 1 gives 6" in text
        assert seen["after"] == "fine"


def test_a_closed_one_refuses(quiet: list[Any]) -> None:
    """Nothing is exchanged after close(), which may be called twice."""
    for rank, seen in enumerate(quiet):
        kind, text = seen["closed"]
        assert kind == "PeerError"
        assert f"process {rank} of 2 is not possible any more: it was closed." in text


def test_a_killed_process_is_noticed_by_all(tmp_path: Path) -> None:
    """All survivors raise within seconds; JAX, which waits for the dead one, ends them within its time limits."""
    with processes("killed", 3, tmp_path) as started:
        assert started[2].wait(timeout=SOON_S) == -signal.SIGKILL
        for rank in range(2):
            started[rank].wait(timeout=SOON_S)
            seen = seen_by(tmp_path, rank)
            assert seen["seconds"] < SOON_S
            kind, text = seen["seen"]
            assert kind == "PeerError"
            assert text.startswith(f"A gather of 2 bytes from here of process {rank} of 3 failed: another process left")
            kind, text = seen["later"]
            assert kind == "PeerError"
            assert f"process {rank} of 3 is not possible any more: an earlier exchange failed" in text


def test_a_process_that_stays_away_is_not_waited_for(tmp_path: Path) -> None:
    """Who comes to no exchange ends the others' in an error once the given time is up."""
    with processes("absent", 2, tmp_path) as started:
        assert started[0].wait(timeout=60) == 0
        seen = seen_by(tmp_path, 0)
    assert [kind for kind, _ in seen["told"]] == ["PeerError"] * 2
    first, later = (text for _, text in seen["told"])
    assert first.startswith("A sum of 3 numbers of process 0 of 2 failed: another process left, or did not come within")
    assert "no answer within 2 s" in first
    assert "is not possible any more: an earlier exchange failed (a sum of 3 numbers)" in later
    assert 2 <= seen["seconds"] < SOON_S


def test_a_process_that_makes_none_is_not_waited_for(tmp_path: Path) -> None:
    """Who does not construct the collective ends the others' construction in an error that says where to."""
    with processes("never_made", 2, tmp_path) as started:
        assert started[0].wait(timeout=60) == 0
        seen = seen_by(tmp_path, 0)
    kind, text = seen["told"]
    assert kind == "PeerError"
    assert "Process 0 of 2 could not meet the others within 1 s" in text
    assert "Every process must construct JaxCollective" in text
    assert 1 <= seen["seconds"] < SOON_S


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    """A process that waits for another one, which still lives, ends at once by SIGINT."""
    with processes("interrupted", 2, tmp_path) as started:
        line_of(started[0], "waiting")
        started[0].send_signal(signal.SIGINT)
        assert started[0].wait(timeout=SOON_S) == 0, (tmp_path / "0.err").read_text()
        assert started[1].poll() is None
        seen = seen_by(tmp_path, 0)
    assert seen["seconds"] < SOON_S
    assert "an earlier exchange was interrupted" in seen["later"][1]


def devices_of(*processes: int) -> Any:
    return lambda _backend: [SimpleNamespace(process_index=process) for process in processes]


def test_it_needs_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where JAX runs on an accelerator alone, the error names the variable to set."""

    def devices(_backend: str) -> None:
        message = "Unknown backend cpu"
        raise RuntimeError(message)

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ArgumentError, match=r"add cpu to JAX_PLATFORMS.*Unknown backend cpu"):
        JaxCollective()


def test_it_needs_connected_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod whose hosts were not joined by jax.distributed is refused, and so are CPUs that JAX does not connect."""
    monkeypatch.setattr(jax, "devices", devices_of(0, 0))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ArgumentError, match=r"the CPUs of 1 are connected: call jax\.distributed\.initialize\(\)"):
        JaxCollective()
    monkeypatch.setattr(jax, "devices", devices_of(0, 1))
    monkeypatch.setattr(jax, "config", SimpleNamespace(jax_cpu_collectives_implementation=None))
    with pytest.raises(ArgumentError, match="leave jax_cpu_collectives_implementation at 'gloo'"):
        JaxCollective()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_the_time_limit_is_checked(timeout_s: float) -> None:
    """A limit that nothing can hold is refused."""
    with pytest.raises(ArgumentError, match="timeout_s is"):
        JaxCollective(timeout_s=timeout_s)


@pytest.mark.parametrize("world", [2, 3, 64, 1024, 100_000])
def test_pieces_are_few_and_bounded(world: int) -> None:
    """A round holds no more than its bytes (many processes: one smallest piece each), and few sizes are compiled."""
    sizes = {piece_of(longest, world) for longest in (0, 1, 24, 65, 1000, 10**6, 10**9)}
    assert len(sizes) <= 10
    assert max(sizes) * world <= max(ROUND_BYTES, SMALLEST_PIECE * world)
    assert piece_of(24, world) == SMALLEST_PIECE
