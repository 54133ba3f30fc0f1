"""Losses order a repack, stay those it began with, and are carried over: a run on the new shards starts warm."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from repack_tars import by_webdataset, samples, state_of, tar_of, write

from seta_stream import SeTa, SetaStream
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import ArgumentError, GenerationError, SetaStreamWarning, StateError
from seta_stream.losses.columns import Column
from seta_stream.losses.generations import Generations
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import UCB
from seta_stream.repack import repack

NAN = float("nan")
POLICY = SeTa(num_epochs=9, prune_ratio=0.0, num_group=5, window_scale=0.4)


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """Return three shards of twenty samples."""
    old = tmp_path / "old"
    return [write(old / f"t-{n}.tar", tar_of(samples(f"{n}{at:02d}" for at in range(20)))) for n in range(3)]


def losses_by_key(urls: object, state: str) -> dict[str, float]:
    """Return each sample's loss, unrounded, as the newest generation of a state holds it; unseen ones left out."""
    corpus = open_corpus(urls, progress=False)  # type: ignore[arg-type]
    table = LossTable(corpus.table.samples)
    generations = Generations(state)
    assert not generations.load(generations.kept()[-1], table, corpus.table).unseen_shards
    keys = [key for shard in range(len(corpus.table)) for key in corpus.index(shard).keys]
    return {key: float(loss) for key, loss in zip(keys, table.values, strict=True) if not np.isnan(loss)}


def selected(urls: object, state: str, epoch: int, policy: object = POLICY) -> set[str]:
    """Return the keys that a new run reads in an epoch."""
    stream = SetaStream(urls, policy=policy, state=state, batch_size=1)  # type: ignore[arg-type]
    stream.set_epoch(epoch)
    keys = {sample["__key__"] for sample in stream}
    with pytest.warns(SetaStreamWarning, match="No losses were recorded"):
        stream.close()
    return keys


@pytest.mark.parametrize("size", [{}, {"shard_samples": 7}, {"shard_bytes": 60_000}])
def test_a_run_on_the_new_shards_starts_warm(corpus: list[str], tmp_path: Path, size: dict[str, int]) -> None:
    """Every sample has the loss it had, and the next epoch's window takes the same samples as in the old corpus."""
    losses = np.random.default_rng(0).gamma(2, size=60)
    losses[[3, 30, 31]] = NAN
    state, out = state_of(corpus, tmp_path / "state", losses, epoch=3), str(tmp_path / "state2")
    report = repack(corpus, str(tmp_path / "new"), state=state, state_out=out, **size)  # type: ignore[arg-type]
    new = str(tmp_path / "new" / "*.tar")
    assert losses_by_key(new, out) == losses_by_key(corpus, state)
    newest = Generations(out).kept()[-1]
    assert (newest.name, newest.epoch, newest.rule, newest.parent) == (report.carried, 3, None, None)
    assert newest.facts["consumed"] == 77
    assert newest.facts["repacked_from"] == report.generation == Generations(state).kept()[-1].name
    shutil.copytree(state, tmp_path / "copy")
    kept = selected(new, out, 4)
    assert kept == selected(corpus, str(tmp_path / "copy"), 4)
    assert 3 < len(kept) < 50


def test_what_a_policy_remembers_is_carried_too(corpus: list[str], tmp_path: Path) -> None:
    """A moving average and its variance follow their samples, and so do the ages."""
    policy, state, out = UCB(prune_ratio=0.5), str(tmp_path / "state"), str(tmp_path / "state2")
    rng = np.random.default_rng(1)
    with SetaStream(corpus, policy=policy, state=state, batch_size=4) as stream:
        for epoch in range(3):
            stream.set_epoch(epoch)
            ids = np.array([sample["__index__"] for sample in stream])
            stream.record(ids, rng.gamma(2, size=len(ids)))
    repack(corpus, str(tmp_path / "new"), state=state, state_out=out)
    new = str(tmp_path / "new" / "*.tar")
    shutil.copytree(state, tmp_path / "copy")
    assert selected(new, out, 3, policy) == selected(corpus, str(tmp_path / "copy"), 3, policy)
    old_table, new_table = table_of(corpus, state, policy), table_of(new, out, policy)
    assert len(old_table) == len(new_table) == 60
    assert old_table == new_table
    assert len(next(iter(old_table.values()))) == 4


def table_of(urls: object, state: str, policy: UCB) -> dict[str, tuple[str, ...]]:
    corpus = open_corpus(urls, progress=False)  # type: ignore[arg-type]
    table = LossTable(corpus.table.samples, policy.columns)
    generations = Generations(state)
    generations.load(generations.kept()[-1], table, corpus.table)
    keys = [key for shard in range(len(corpus.table)) for key in corpus.index(shard).keys]
    rows = zip(*(values.tolist() for values in table.remembered().values()), strict=True)
    return {key: tuple(map(str, row)) for key, row in zip(keys, rows, strict=True)}


def test_carrying_over_can_be_asked_for_later(corpus: list[str], tmp_path: Path) -> None:
    """The finished repack is run again with --state-out: no shard is written, and doing it twice changes nothing."""
    state, out = state_of(corpus, tmp_path / "state", np.arange(60)), str(tmp_path / "state2")
    assert repack(corpus, str(tmp_path / "new"), state=state).carried is None
    first = repack(corpus, str(tmp_path / "new"), state=state, state_out=out)
    again = repack(corpus, str(tmp_path / "new"), state=state, state_out=out)
    assert (first.written, again.written) == (0, 0)
    assert first.carried == again.carried == Generations(out).kept()[0].name
    assert len(Generations(out).kept()) == 1


def test_a_state_with_other_losses_is_left_alone(corpus: list[str], tmp_path: Path) -> None:
    """Losses are not mixed into another run's state; the shards are finished all the same."""
    state = state_of(corpus, tmp_path / "state", np.arange(60))
    other = state_of(corpus, tmp_path / "other", np.arange(60), epoch=5)
    with pytest.raises(StateError, match=r"Cannot carry losses over to .*/other: it holds gen-000005-.* already"):
        repack(corpus, str(tmp_path / "new"), state=state, state_out=other)
    assert repack(corpus, str(tmp_path / "new"), state=state, state_out=str(tmp_path / "s")).written == 0


@pytest.mark.parametrize("order", ["key", "corpus"])
def test_other_orders_carry_losses_too(corpus: list[str], tmp_path: Path, order: str) -> None:
    """Shards that are only split keep their losses."""
    losses = np.random.default_rng(2).random(60)
    state, out = state_of(corpus, tmp_path / "state", losses), str(tmp_path / "state2")
    choices = {"order": order, "state": state, "state_out": out, "shard_samples": 11}
    repack(corpus, str(tmp_path / "new"), **choices)  # type: ignore[arg-type]
    assert losses_by_key(str(tmp_path / "new" / "*.tar"), out) == losses_by_key(corpus, state)


# ---- which losses


def test_a_repack_keeps_to_the_losses_it_began_with(corpus: list[str], tmp_path: Path) -> None:
    """The run goes on and drops its old generations: the unfinished repack goes on by the old losses all the same."""
    up, down = np.arange(60), np.arange(60)[::-1]
    state = state_of(corpus, tmp_path / "state", down, epoch=0)
    first = repack(corpus, str(tmp_path / "new"), state=state)
    (tmp_path / "new" / "t-2.tar").unlink()
    shutil.rmtree(state)
    state_of(corpus, tmp_path / "state", up, epoch=7)
    again = repack(corpus, str(tmp_path / "new"), state=state, state_out=str(tmp_path / "out"))
    assert (again.written, again.generation) == (1, first.generation)
    keys = [one["__key__"] for one in by_webdataset((tmp_path / "new" / "t-2.tar").read_bytes())]
    assert keys == [f"2{at:02d}" for at in range(19, -1, -1)]
    assert Generations(str(tmp_path / "out")).kept()[0].epoch == 0


def test_a_generation_by_name(corpus: list[str], tmp_path: Path) -> None:
    """The named one orders, not the newest; another one into the same folder is refused; one that is gone is named."""
    up, down = np.arange(60), np.arange(60)[::-1]
    state = state_of(corpus, tmp_path / "state", down, epoch=0)
    name = Generations(state).kept()[0].name
    state_of(corpus, tmp_path / "state", up, epoch=1)
    newest = Generations(state).kept()[-1].name
    assert repack(corpus, str(tmp_path / "new"), state=state, generation=name).generation == name
    keys = [one["__key__"] for one in by_webdataset((tmp_path / "new" / "t-0.tar").read_bytes())]
    assert keys[0] == "019"
    with pytest.raises(ArgumentError, match=f"generation is '{newest}' now and was '{name}'"):
        repack(corpus, str(tmp_path / "new"), state=state, generation=newest)
    with pytest.raises(GenerationError, match="Generation gen-000009-aa is not in"):
        repack(corpus, str(tmp_path / "other"), state=state, generation="gen-000009-aa")
    assert not (tmp_path / "other" / "repack" / "repack.json").exists()


def test_states_without_losses_of_the_corpus(corpus: list[str], tmp_path: Path) -> None:
    """An empty folder, and the state of another corpus, are told apart by what is said."""
    with pytest.raises(StateError, match=r"Cannot take losses from .*/none: it holds no generation"):
        repack(corpus, str(tmp_path / "new"), state=str(tmp_path / "none"))
    other = write(tmp_path / "other" / "x.tar", tar_of(samples("xyz")))
    state = state_of(other, tmp_path / "state", [1, 2, 3])
    with pytest.raises(StateError, match="has none for any of the 3 shards, so it is of another corpus"):
        repack(corpus, str(tmp_path / "new"), state=state)


def test_new_shards_of_a_corpus_count_as_unseen(corpus: list[str], tmp_path: Path) -> None:
    """A shard that the run did not know is warned about and lies in corpus order."""
    state = state_of(corpus[:2], tmp_path / "state", np.arange(40)[::-1])
    with pytest.warns(SetaStreamWarning, match=r"has no losses for 1 of 3 shards \(the first is .*t-2\.tar\)"):
        repack(corpus, str(tmp_path / "new"), state=state)
    keys = [one["__key__"] for one in by_webdataset((tmp_path / "new" / "t-2.tar").read_bytes())]
    assert keys == [f"2{at:02d}" for at in range(20)]


def test_kept_losses_that_are_damaged(corpus: list[str], tmp_path: Path) -> None:
    """Without the losses that it began with, a repack is not finished by others."""
    state = state_of(corpus, tmp_path / "state", np.arange(60))
    repack(corpus, str(tmp_path / "new"), state=state)
    shutil.rmtree(tmp_path / "new" / "repack" / "losses")
    with pytest.raises(StateError, match="the losses that it began with are gone or damaged"):
        repack(corpus, str(tmp_path / "new"), state=state)


def remembering(urls: list[str], known: list[str], folder: Path, losses: object) -> str:
    """Write a generation with a column of 50 + loss; a sample never seen has 9."""
    column = Column("extra", "float32", 9.0, lambda old, new: new + 50)
    return state_of(known, folder, losses, columns=[column])


@pytest.mark.parametrize(("unseen", "expected"), [(True, 9.0), (False, None)])
def test_columns_of_shards_without_losses(
    corpus: list[str], tmp_path: Path, unseen: bool, expected: float | None
) -> None:
    """They get what other unseen samples have; where nothing tells that, the column stays behind, and that is said."""
    losses = np.arange(40, dtype=np.float32)
    losses[5] = NAN if unseen else 5
    state, out = remembering(corpus, corpus[:2], tmp_path / "state", losses), str(tmp_path / "state2")
    with pytest.warns(SetaStreamWarning) as told:
        repack(corpus, str(tmp_path / "new"), state=state, state_out=out)
    assert any("extra are not carried over" in str(one.message) for one in told) is not unseen
    table = open_corpus(str(tmp_path / "new" / "*.tar")).table
    held = LossTable(table.samples, [Column("extra", "float32", -1.0, lambda old, new: new, source="other")])
    generations = Generations(out)
    generations.load(generations.kept()[0], held, table)
    if expected is None:
        assert (held.columns["extra"] == -1).all()
        return
    assert (held.columns["extra"][40:] == 9).all()
    seen = np.flatnonzero(~np.isnan(held.values))
    assert np.array_equal(held.columns["extra"][seen], round_losses(held.values[seen]) + 50)
    assert len(seen) == 39
