"""What several processes (played by threads) are refused: the same error on every one of them, and none waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks_scenario import Run, corpus, segment
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream import Reading, SeTa, SetaStream
from seta_stream.errors import (
    ArgumentError,
    CheckpointError,
    PeerError,
    PlanError,
    SetaStreamError,
    SetaStreamWarning,
    StateError,
)
from seta_stream.losses.pending import pack_pending

SHARDS = (41, 0, 1, 77, 30, 52, 90)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what makes files survive a power cut: most of the time here, and the affair of tests/losses."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def resumed(run: Run, world: int, saved: Any) -> list[Any]:
    """Load a checkpoint on so many ranks; return what each of them raised, or its stream's place."""

    def one(collective: ThreadCollective) -> int:
        stream = run.open(collective)
        try:
            stream.load_state_dict(saved)
            return stream.position
        finally:
            stream.session.memory.close()

    return ThreadTeam(world).outcomes(one)


def test_a_rank_that_wrote_nothing_is_told_of(tmp_path: Path) -> None:
    """Where some ranks kept no losses, one warning tells how many, and the others' losses are there; none: an error."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 4, None, (1, 0.5))
    assert saved is not None
    parts = sorted(run.state.glob(f"pending/{saved['pending']}*"))
    assert [path.name[-11:] for path in parts] == [f".rank-{rank:05d}" for rank in range(4)]
    parts[1].unlink()
    parts[3].unlink()
    with pytest.warns(SetaStreamWarning, match=r"2 of the 4 processes that trained before the checkpoint kept no los"):
        assert len(set(resumed(run, 3, saved))) == 1
    parts[0].unlink()
    parts[2].unlink()
    told = f"losses recorded before the checkpoint are gone: {parts[0].name} is not in .*pending. .*Use a newer one"
    for error in resumed(run, 2, saved):
        assert isinstance(error, CheckpointError)
        with pytest.raises(CheckpointError, match=told):
            raise error


def test_a_part_that_is_damaged_ends_it_everywhere(tmp_path: Path) -> None:
    """Each rank is told the same file and what to do."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 2, None, (0, 0.5))
    assert saved is not None
    path = run.state / "pending" / f"{saved['pending']}.rank-00001"
    path.write_bytes(path.read_bytes()[:-1])
    for error in resumed(run, 3, saved):
        told = "losses recorded before the checkpoint are gone. Cannot use the pending losses .*rank-00001.* damaged"
        with pytest.raises(CheckpointError, match=told):
            raise error


@pytest.mark.parametrize(
    ("change", "world", "told"),
    [
        ({"shards": (41, 0, 1)}, 2, "corpus fingerprint was"),
        ({"case": "weights"}, 2, "policy was .*SeTa.* and is .*InfoBatch"),
        ({"batch": 18}, 3, "global batch was 12 and is 18 .*ranks may be 1, 2, 3, 4, 6, 12"),
        ({"batch": 10}, 5, "global batch was 12 and is 10 .*ranks may be 1, 2, 3, 4, 6, 12"),
        ({"seed": 4}, 2, "seed was 3 and is 4"),
        ({"more": {"read": Reading(run_bytes=9000)}}, 2, "run_bytes was 0 and is 9000"),
        ({"more": {"shuffle": False}}, 2, "shuffle was True and is False"),
    ],
)
def test_what_does_not_fit_is_named_on_every_rank(change: Any, world: int, told: str, tmp_path: Path) -> None:
    """Another corpus, policy, batch, number of ranks, seed or way of deciding: what was, what is, what to do."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 4, None, (1, 0.5))
    if "shards" in change:
        change = {"shards": corpus(change["shards"])}
    other = replace(run, state=tmp_path / "other", **change)
    for error in resumed(other, world, saved):
        with pytest.raises(CheckpointError, match=f"The checkpoint does not fit this stream: .*{told}"):
            raise error


def test_a_generation_that_is_gone_is_named_on_every_rank(tmp_path: Path) -> None:
    """With those that are kept."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 4, None, (1, 0.5))
    for error in resumed(replace(run, state=tmp_path / "empty"), 2, saved):
        with pytest.raises(
            CheckpointError, match=r"losses are gone. Generation gen-000000-\w+ is not in .*none is kep"
        ):
            raise error


def test_ranks_with_different_checkpoints_are_refused(tmp_path: Path) -> None:
    """Who loads another one, a damaged one, or none, is told by all; nobody waits."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, early = segment(run, 2, None, (0, 0.2))
    _, late = segment(replace(run, state=tmp_path / "t"), 2, None, (0, 0.5))

    def outcomes(*given: Any) -> list[Any]:
        def one(collective: ThreadCollective) -> None:
            stream = run.open(collective)
            try:
                stream.load_state_dict(given[collective.rank])
            finally:
                stream.session.memory.close()

        return ThreadTeam(2).outcomes(one)

    for error in outcomes(early, late):
        with pytest.raises(PeerError, match=r"process 0 calls load_state_dict\(\w+\) and process 1 calls load_state_d"):
            raise error
    for error in outcomes(early, {}):
        with pytest.raises(CheckpointError, match="This is no seta_stream checkpoint"):
            raise error


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            pack_pending([3], [1.0], None, {}, b"\x91\xc1"),
            r"Cannot use the pending losses \S+-00001: its calls are malformed",
        ),
        (pack_pending([3], [1.0], None, {}, b"\x91\x07"), r"\S+-00001: its calls are malformed .*. Use an older chec"),
        (pack_pending([311], [1.0], None), r"\S+-00001: they are of ids 311 … 311, and the corpus has 291"),
    ],
)
def test_a_part_of_something_else_ends_it_everywhere(data: bytes, told: str, tmp_path: Path) -> None:
    """Whole by its checksum, and yet no losses of this corpus."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 2, None, (0, 0.5))
    assert saved is not None
    (run.state / "pending" / f"{saved['pending']}.rank-00001").write_bytes(data)
    for error in resumed(run, 3, saved):
        with pytest.raises(CheckpointError, match=f"losses recorded before the checkpoint are gone. .*{told}"):
            raise error


@pytest.mark.filterwarnings("ignore::seta_stream.SetaStreamWarning")  # of each rank's own sidecars
def test_losses_that_are_not_whole_any_more_are_counted_over_all(tmp_path: Path) -> None:
    """Each rank looks at its own sidecars alone, and all tell how many shards are missing."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 2, None, (1, 0.5))
    for name in ("000000.losses", "000006.losses"):
        next(run.state.glob(f"losses/gen-*/{name}")).unlink()
    for error in resumed(run, 2, saved):
        with pytest.raises(CheckpointError, match=r"losses are no longer whole: 2 shards of generation gen-000000-"):
            raise error


def test_a_checkpoint_of_losses_needs_its_state(tmp_path: Path) -> None:
    """On every rank, with what to give; and one that stands beyond the epoch's end is damaged."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    _, saved = segment(run, 2, None, (1, 0.5))
    assert saved is not None
    for error in resumed(replace(run, more={"state": None}), 3, saved):
        with pytest.raises(CheckpointError, match="this stream has no state: give state= the folder that the run"):
            raise error
    for error in resumed(run, 3, {**saved, "step": 99}):
        with pytest.raises(CheckpointError, match=r"stands at step 99 of an epoch of \d+ steps: it is damaged"):
            raise error
    for error in resumed(run, 3, {**saved, "selected": 1}):
        with pytest.raises(CheckpointError, match=r"epoch had 1 selected samples and its losses now select \d+"):
            raise error


def everywhere(run: Run, world: int, act: Callable[[SetaStream, int], Any]) -> list[Any]:
    """Open a run on some ranks and do something with each stream; return what came of it, or the error."""

    def one(collective: ThreadCollective) -> Any:
        stream = run.open(collective)
        try:
            return act(stream, collective.rank)
        finally:
            stream.session.memory.close()

    return ThreadTeam(world).outcomes(one)


def close_or_go_on(stream: SetaStream, rank: int) -> None:
    stream.set_epoch(0)
    if rank:
        stream.set_epoch(1)
    else:
        stream.close()


@pytest.mark.parametrize(
    ("act", "kind", "told"),
    [
        (
            lambda s, rank: s.set_epoch(rank),
            PeerError,
            r"process 0 calls set_epoch\(0\) and process 1 calls set_epoch\(",
        ),
        (
            close_or_go_on,
            PeerError,
            r"process 0 calls close\(\) and process 1 calls set_epoch\(1\). Every process must",
        ),
        (lambda s, _: s.set_epoch(-1), ArgumentError, "Epochs are counted from 0; got -1"),
    ],
)
def test_calls_that_cannot_be(act: Any, kind: type[SetaStreamError], told: str, tmp_path: Path) -> None:
    """Ranks that do different things, or the same impossible one, are told what each did."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2))
    for error in everywhere(run, 3, act):
        with pytest.raises(kind, match=told):
            raise error


def test_an_epoch_that_could_not_be_set_is_told_of_later(tmp_path: Path) -> None:
    """And a closed stream, and a checkpoint of what lives in memory only."""

    def act(stream: SetaStream, _: int) -> None:
        with pytest.raises(PlanError, match="fewer than one global batch of 300"):
            stream.set_epoch(0)
        with pytest.raises(StateError, match=r"No epoch is set, since set_epoch\(0\) failed: set one that can be"):
            len(stream)
        stream.close()
        with pytest.raises(StateError, match="This stream is closed: construct a new one"):
            stream.set_epoch(0)

    def in_memory(stream: SetaStream, rank: int) -> None:
        stream.set_epoch(0)
        stream.record(np.arange(rank, 291, 3), np.arange(rank, 291, 3) / 9 + 1.0)
        stream.set_epoch(1)
        with pytest.raises(
            StateError, match=r"selection depends on losses that live in memory only.*give state= a fol"
        ):
            stream.state_dict()

    run = Run(corpus(SHARDS), "seta", 300, tmp_path / "s", (1, 2))
    assert everywhere(run, 3, act) == [None] * 3
    assert everywhere(replace(run, batch=12, more={"state": None}), 3, in_memory) == [None] * 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"world": 3}, r"rank=None, world=3 contradict the collective, which is process \d of 2: leave them out"),
        ({"rank": 7}, r"rank=7, world=None contradict the collective, which is process \d of 2"),
        ({"drop_last": False}, "last step fewer samples, which 2 processes cannot share equally: leave it out, or re"),
        ({"lanes": (5, 1)}, r"lanes=\(5, 1\) cut a step of 12 samples into 5 rows.*choose rows from \[1, 2, 3, 4, 6"),
    ],
)
def test_options_that_contradict_the_ranks(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    """On every rank, before anything is exchanged."""
    run = Run(corpus(SHARDS), "seta", 12, tmp_path / "s", (1, 2), more=options)
    for error in ThreadTeam(2).outcomes(run.open):
        with pytest.raises(ArgumentError, match=told):
            raise error


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", lambda rank: {"seed": rank}),
        ("shuffle", lambda rank: {"shuffle": rank == 0}),
        ("lanes", lambda rank: {"lanes": (2, 2 + rank)}),
        ("batch_size", lambda rank: {"batch_size": 2 + rank}),
        ("policy", lambda rank: {"policy": SeTa(num_epochs=4 + rank, target=0.5)}),
        ("unit", lambda rank: {"unit": ("sample", "run")[rank]}),
        ("state", lambda rank: {"state": None if rank else "memory://given/state"}),
        ("urls", lambda rank: {"urls": rank}),
    ],
)
def test_ranks_that_were_given_different_options_are_refused(name, given, make_corpus):
    """The option is named on every rank, before anything is read or written: the plan deals out who reads what."""
    shards = make_corpus(2, 20)

    def construct(collective):
        options = {"batch_size": 2, "policy": SeTa(num_epochs=4, target=0.5), **given(collective.rank)}
        urls = shards[options.pop("urls") :] if "urls" in options else shards
        SetaStream(urls, collective=collective, **options)

    for outcome in ThreadTeam(2).outcomes(construct):
        assert isinstance(outcome, PeerError)
        assert f"given different options: {name} is " in str(outcome)


def test_one_rank_may_ask_before_an_epoch_is_set(make_corpus):
    """Epoch 0 is set by all as they are made, so that nothing is exchanged where one alone wants to know its length."""
    shards = make_corpus(2, 20)

    def ask(collective):
        with SetaStream(shards, batch_size=2, collective=collective) as stream:
            before = len(collective.calls)
            assert collective.rank or len(stream) == 20
            assert len(collective.calls) == before
            return [sample["__index__"] for sample in stream]

    first, second = ThreadTeam(2).run(ask)
    assert sorted(first + second) == list(range(40))


def test_old_checkpoints_stay_where_nothing_was_recorded(make_corpus, tmp_path):
    """Files without losses do not count among those that are kept, and each pass over an epoch has its own."""
    shards = make_corpus(2, 20)

    def run(collective):
        state = str(tmp_path / "state")
        with SetaStream(shards, batch_size=2, collective=collective, state=state) as stream:
            stream.set_epoch(0)
            saved = []
            for _ in range(2):
                for number, _sample in enumerate(stream):
                    if number % 2:
                        saved.append(stream.state_dict())
            stream.load_state_dict(saved[0])
            return [one["pending"] for one in saved]

    names, others = ThreadTeam(2).run(run)
    assert names == others
    assert len(set(names)) == len(names) > 16
