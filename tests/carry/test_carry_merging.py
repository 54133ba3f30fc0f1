"""Rows laid over the losses of a run: what its policy remembers, ages, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from carry_runs import loss_of, selected_by_stream, train
from pyarrow import parquet
from small_corpora import MakeCorpus

from seta_stream import SeTa
from seta_stream.carry import export_losses, import_losses, open_source
from seta_stream.carry.choosing import choose
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import SetaStreamWarning
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.policies import BLS, UCB, EpsilonGreedy, Policy, RePB
from seta_stream.policies.deciding import columns_of
from seta_stream.store.local import LocalStore

LAID = {3: 7.5, 50: 8.5}
"""Sample 3 was never seen, sample 50 was."""


@pytest.fixture
def urls(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(3, 30)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("id,loss\n" + "".join(f"{at},{loss}\n" for at, loss in LAID.items()))
    return path


def table_of(state: Path, urls: list[str], policy: Policy) -> LossTable:
    """Return the newest losses, as a stream with this policy loads them."""
    generations, shards = Generations(str(state)), open_corpus(urls).table
    table = LossTable(shards.samples, columns_of(policy))
    generations.load(generations.kept()[-1], table, shards)
    return table


@pytest.mark.parametrize(
    "policy", [UCB(), EpsilonGreedy(0.4), RePB(), SeTa(num_epochs=6, target=0.5, smooth=BLS(0.8))],
    ids=lambda policy: type(policy).__name__,
)  # fmt: skip
def test_what_a_policy_remembers_follows(urls, tmp_path, rows, policy):
    """A row counts as if its loss were recorded: a policy that judges by an average would not see it otherwise."""
    train(urls, tmp_path / "state", policy, skip=7)
    recorded = table_of(tmp_path / "state", urls, policy)
    recorded.record(list(LAID), list(LAID.values()))
    import_losses(rows, urls, str(tmp_path / "state"), merge=True)
    merged = table_of(tmp_path / "state", urls, policy)
    for name, values in recorded.remembered().items():
        assert merged.remembered()[name].tobytes() == values.tobytes(), name
    found, _ = choose(open_source(str(tmp_path / "state")), policy="UCB(prune_ratio=0.9)")
    assert found.mask[50]


def test_columns_of_the_file_win(urls, tmp_path):
    """Out and laid over itself, a generation stays what it was."""
    train(urls, tmp_path / "state", UCB(), skip=7)
    before = table_of(tmp_path / "state", urls, UCB()).remembered()
    export_losses(open_source(str(tmp_path / "state")), tmp_path / "l.csv")
    assert import_losses(tmp_path / "l.csv", urls, str(tmp_path / "state"), merge=True).columns == ("ema", "var")
    after = table_of(tmp_path / "state", urls, UCB()).remembered()
    assert {name: values.tobytes() for name, values in after.items()} == {
        name: values.tobytes() for name, values in before.items()
    }


def test_a_later_epoch_makes_the_others_older(urls, tmp_path, rows):
    """Ages are as of the end of the epoch that the generation stands for."""
    policy = SeTa(num_epochs=9, target=0.5)
    train(urls, tmp_path / "state", policy, skip=7)
    before = table_of(tmp_path / "state", urls, policy).all_ages.astype(int)
    import_losses(rows, urls, str(tmp_path / "state"), merge=True, epoch=4)
    ages = table_of(tmp_path / "state", urls, policy).all_ages.tolist()
    assert ages == [0 if at in LAID else min(age + 3, 255) for at, age in enumerate(before.tolist())]


class Own:
    """A policy of the user's own."""

    num_epochs = 9
    columns = UCB().columns

    def rule(self, histogram, epoch):
        return UCB().rule(histogram, epoch)


def test_columns_of_a_policy_that_is_not_known(urls, tmp_path, rows):
    """They stay, and a warning says so, where the file does not tell them."""
    train(urls, tmp_path / "state", Own(), skip=7)
    before = table_of(tmp_path / "state", urls, UCB()).columns["ema"]
    with pytest.warns(SetaStreamWarning, match="ema, var stay as they are where a row is laid over a loss"):
        import_losses(rows, urls, str(tmp_path / "state"), merge=True)
    assert table_of(tmp_path / "state", urls, UCB()).columns["ema"].tobytes() == before.tobytes()


def test_columns_of_the_user_s_are_nothing_to_us(urls, tmp_path):
    """A table of results has others too, of any name."""
    ids = np.arange(90)
    table = {"id": ids, "loss": ids / 2, "Top-1 Acc": ids.astype(np.float32), "Fold": ids.astype(np.uint8)}
    parquet.write_table(pa.table(table), tmp_path / "l.parquet")
    told = import_losses(tmp_path / "l.parquet", urls, str(tmp_path / "state"))
    assert (told.seen, told.columns) == (90, ())


def test_killed_before_its_end_it_can_be_done_again(urls, tmp_path, rows, monkeypatch):
    """The shard table is there before the losses: the other way round, they would be in the way of the same call."""

    class Killed(BaseException):
        pass

    write = LocalStore.write

    def kill(self, url, data):
        write(self, url, data)
        if url.endswith("/corpus"):
            raise Killed

    monkeypatch.setattr(LocalStore, "write", kill)
    with pytest.raises(Killed):
        import_losses(rows, urls, str(tmp_path / "state"))
    monkeypatch.undo()
    assert import_losses(rows, urls, str(tmp_path / "state")).matched == 2


def test_a_branch_that_was_taken_up_again(urls, tmp_path, rows):
    """Rows are laid over what was committed last, though another branch came further; the run goes on from them."""
    policy = SeTa(num_epochs=9, target=0.5)
    train(urls, tmp_path / "state", policy, epochs=4)
    train(urls, tmp_path / "state", policy, epochs=2)
    told = import_losses(rows, urls, str(tmp_path / "state"), merge=True)
    assert told.epoch == 1
    selected, _ = choose(open_source(str(tmp_path / "state")), policy="SeTa(num_epochs=9, target=0.5)")
    mask, _ = selected_by_stream(urls, tmp_path / "state", policy, 2)
    assert selected.mask.tolist() == mask.tolist()
    assert table_of(tmp_path / "state", urls, policy).values[3] == np.float32(7.5)
    assert loss_of([50], 1)[0] != 8.5
