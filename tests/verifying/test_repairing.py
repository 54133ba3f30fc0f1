"""`repair` builds anew what can be, removes what is left over, touches no shard, and leaves nothing to do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_corpora import text_members, write_tar
from verify_corpora import Whole, make_whole

from seta_stream import SetaStream
from seta_stream.corpus.index import read_header
from seta_stream.errors import StateLockedError
from seta_stream.losses.generations import Generations
from seta_stream.losses.pending import pack_pending
from seta_stream.losses.table import LossTable
from seta_stream.store import store_for
from seta_stream.verifying import Request, repair, repairing, verify


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return make_whole(tmp_path / "corpus")


def break_much(whole: Whole) -> None:
    """Everything that can be mended, at once."""
    whole.index(0).unlink()
    whole.index(1).write_bytes(b"no index")
    os.utime(whole.shards[2], ns=(5, 5))
    (whole.generation(0) / "manifest").unlink()
    (whole.state / "losses" / ".writing-00").mkdir()
    pending = Generations(str(whole.state)).pending
    pending.write("old", [1], [1.0], parent="gen-000000-gone")
    pending.write("good", [1], [1.0], parent=whole.generation(1).name)
    path = whole.state / "history.jsonl"
    _, second = path.read_text().splitlines()
    path.write_text(f"damaged\n{second[:-4]}")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_all_at_once(whole):
    """A second look finds nothing; shards are as they were, and the state goes on."""
    before = contents(whole.shards[0].parent)
    generation = whole.generation(1).name
    break_much(whole)
    verified = whole.verify()
    assert {one.kind for one in verified.findings} == {
        "index-missing", "index-damaged", "index-stale", "shard-touched", "generation-half", "pending-orphaned",
        "history-damaged", "history-torn", "history-gap",
    }  # fmt: skip
    done = repair(verified)
    assert (done.left, done.failed) == ((), ())
    assert any("1 were taken from manifests" in line for line in done.done)
    assert whole.found() == []
    assert contents(whole.shards[0].parent) == before
    assert sorted(path.name for path in (whole.state / "losses").iterdir()) == [generation]
    assert sorted(path.name for path in (whole.state / "pending").iterdir()) == ["good"]
    assert [line["generation"] for line in Generations(str(whole.state)).history()] == [generation]
    with SetaStream(whole.urls, state=str(whole.state), batch_size=4) as stream:
        stream.set_epoch(2)
        assert len(list(stream)) == 12


def test_nothing_to_do(whole):
    """Nothing is written, not even a lock is taken."""
    holder = Generations(str(whole.state))
    holder.lock()
    try:
        assert repair(whole.verify()).done == ()
    finally:
        holder.close()


def test_a_state_that_a_run_writes_is_left_alone(whole):
    """Nor are indexes begun: the user is told first."""
    break_much(whole)
    holder = Generations(str(whole.state))
    holder.lock()
    try:
        with pytest.raises(StateLockedError, match="Cannot write the state"):
            repair(whole.verify())
        assert not whole.index(0).exists()
    finally:
        holder.close()


def test_what_cannot_be_mended_is_left(whole):
    """A damaged shard, a damaged sidecar; and the shard table, which needs all shards."""
    whole.shards[0].write_bytes(b"")
    whole.index(1).unlink()
    (whole.state / "corpus").write_bytes(b"no")
    path = whole.generation(1) / "000001.losses"
    path.write_bytes(b"no")
    done = repair(whole.verify())
    assert [line.partition(" ")[0] for line in done.done] == ["wrote"]
    assert sorted(one.kind for one in done.left) == [
        "corpus-damaged", "index-stale", "shard-damaged", "sidecar-damaged",
    ]  # fmt: skip


def test_the_table_of_a_part_is_not_written_over_the_whole(whole):
    """Who verifies two of three shards keeps the third one's row."""
    os.utime(whole.shards[0], ns=(5, 5))
    before = (whole.state / "corpus").read_bytes()
    whole.shards = whole.shards[:2]
    done = repair(whole.verify())
    assert (whole.state / "corpus").read_bytes() == before
    assert {one.kind for one in done.left} == {"shard-touched", "shard-gone", "losses-unused"}


@pytest.mark.parametrize("damage", ["unlink", "cut"])
def test_a_shard_table_is_written_again(whole, damage):
    """Byte for byte what the stream wrote."""
    path = whole.state / "corpus"
    before = path.read_bytes()
    path.unlink() if damage == "unlink" else path.write_bytes(before[:-1])
    assert repair(whole.verify()).left == ()
    assert path.read_bytes() == before


def test_a_table_is_not_guessed(whole):
    """Where it is gone and the generation has another number of shards, who knows which they were?"""
    (whole.state / "corpus").unlink()
    whole.shards = whole.shards[:2]
    assert "corpus-missing" in {one.kind for one in repair(whole.verify()).left}


def test_a_table_of_another_corpus_is_not_guessed(whole, tmp_path):
    """Nor where the shards named are as many, but others, or in another order."""
    (whole.state / "corpus").unlink()
    in_order = whole.shards
    for wrong in ([*in_order[1:], in_order[0]], make_whole(tmp_path / "other", samples=5).shards):
        whole.shards = wrong
        assert "corpus-missing" in {one.kind for one in repair(whole.verify()).left}
        assert not (whole.state / "corpus").exists()


def test_pending_losses_stay_where_their_generation_may_be_mended(whole):
    """A manifest that is damaged may come back from a backup, and then the checkpoint on top of it is whole."""
    generation = whole.generation(1)
    Generations(str(whole.state)).pending.write("good", [1], [1.0], parent=generation.name)
    manifest = (generation / "manifest").read_bytes()
    (generation / "manifest").write_bytes(manifest[:-1])
    verified = whole.verify()
    assert "pending-orphaned" not in {one.kind for one in verified.findings}
    repair(verified)
    (generation / "manifest").write_bytes(manifest)
    assert Generations(str(whole.state)).pending.read("good").losses.tolist() == [1.0]


def test_a_half_generation_takes_its_pending_losses_along(whole):
    """In one repair: a second look finds nothing."""
    Generations(str(whole.state)).pending.write("old", [1], [1.0], parent=whole.generation(0).name)
    (whole.generation(0) / "manifest").unlink()
    assert repair(whole.verify()).left == ()
    assert whole.found() == []
    assert list((whole.state / "pending").iterdir()) == []


def test_what_a_run_has_seen_to_meanwhile_stays(whole):
    """Between the look and the repair a run may end what it was doing: that is looked at again under the lock."""
    state = "memory://meanwhile/state"
    table = LossTable(whole.table().samples)
    table.record(np.arange(12), np.ones(12))
    generations = Generations(state)
    name = generations.commit(0, table, whole.table(), None, None, {})
    store = store_for(state)
    store.write(f"{state}/corpus", whole.table().to_bytes())
    manifest = store.read(f"{state}/losses/{name}/manifest")
    store.remove(f"{state}/losses/{name}/manifest")
    generations.pending.write("good", [1], [1.0], parent=name)
    (state_half, orphan) = verify(Request(whole.urls, state=state)).findings
    assert {state_half.kind, orphan.kind} == {"generation-half", "pending-orphaned"}
    verified = verify(Request(whole.urls, state=state))
    store.write(f"{state}/losses/{name}/manifest", manifest)
    done = repair(verified)
    assert [line.partition("memory")[0] for line in done.done] == ["removed nothing: a run completed it since", "left "]
    assert Generations(state).kept()[-1].name == name
    assert generations.pending.read("good").losses.tolist() == [1.0]
    assert verify(Request(whole.urls, state=state)).findings == ()


def test_what_cannot_be_removed_is_told(whole, monkeypatch):
    """It is not said to be gone."""
    (whole.generation(0) / "manifest").unlink()
    verified = whole.verify()
    monkeypatch.setattr(repairing, "clean_local", lambda folder: None)
    done = repair(verified)
    assert "Cannot remove gen-000000" in done.failed[0]
    assert "remove it by hand" in done.failed[0]
    assert {one.kind for one in done.left} == {"generation-half"}


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_line_is_written_again_where_it_was(whole, damaged):
    """The last line is taken for the newest epoch's, by `watch` and others."""
    generations = Generations(str(whole.state))
    table = LossTable(whole.table().samples)
    table.record(np.arange(12), np.ones(12))
    generations.commit(2, table, whole.table(), None, whole.generation(1).name, {})
    generations.close()
    path = whole.state / "history.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{'damaged' if at == damaged else line}\n" for at, line in enumerate(lines)))
    assert repair(whole.verify()).left == ()
    assert path.read_text().splitlines() == lines


def test_an_index_that_cannot_be_written(whole, monkeypatch):
    """Is told, and the others are written all the same."""
    from seta_stream.store.local import LocalStore

    write = LocalStore.write

    def refuse(self, url, data):
        if "t-0.tar" in url:
            raise PermissionError(13, "Permission denied")
        write(self, url, data)

    whole.index(0).unlink()
    whole.index(1).unlink()
    verified = whole.verify()
    monkeypatch.setattr(LocalStore, "write", refuse)
    done = repair(verified)
    assert len(done.done) == 1
    assert "Cannot write the index of" in done.failed[0]
    assert "Give --index a folder that can be written." in done.failed[0]
    assert [one.shard for one in done.left] == [whole.urls[0]]
    assert whole.index(1).exists()


def test_indexes_go_into_the_named_folder(whole, tmp_path):
    """Where a stream finds them by index=."""
    for shard in range(3):
        whole.index(shard).unlink()
    folder = str(tmp_path / "indexes")
    assert repair(whole.verify(index=folder)).left == ()
    assert len(list((tmp_path / "indexes").iterdir())) == 3
    assert whole.found(index=folder) == []


def test_samples_that_moved_are_noted(whole):
    """The new table is written; their losses are lost all the same, and that is left."""
    members = text_members(4, 4)
    write_tar(whole.shards[1], [*members[4:], *members[:4]])
    done = repair(whole.verify())
    assert sorted(one.kind for one in done.left) == ["losses-missing", "losses-unused"]
    assert whole.kinds() == ["losses-missing", "losses-unused"]


def test_a_state_in_a_bucket(whole):
    """A half-written generation goes, whole ones stay."""
    state = "memory://repair/state"
    table = LossTable(whole.table().samples)
    table.record(np.arange(12), np.ones(12))
    generations = Generations(state)
    kept = generations.commit(0, table, whole.table(), None, None, {})
    store = store_for(state)
    store.write(f"{state}/corpus", whole.table().to_bytes())
    store.write(f"{state}/losses/gen-000001-00/000000.losses", b"half")
    request = Request(whole.urls, state=state)
    found = verify(request)
    assert [one.kind for one in found.findings] == ["generation-half"]
    assert "or writes now" in found.findings[0].what
    assert repair(found).left == ()
    assert store.names(f"{state}/losses") == [kept]
    assert verify(request).findings == ()


def test_shards_and_state_in_a_real_bucket(whole, s3_server, s3_bucket):
    """Indexes are written beside the shards, by requests; then nothing is found."""
    options = s3_server.options
    store = store_for(s3_bucket, options)
    for path in whole.shards:
        store.write(f"{s3_bucket}/{path.name}", path.read_bytes())
    pattern, state = f"{s3_bucket}/t-{{0..2}}.tar", f"{s3_bucket}/state"
    with SetaStream(pattern, state=state, batch_size=4, storage_options=options) as stream:
        for batch in stream.batches(4):
            stream.record(batch["__index__"], np.ones(4))
    request = Request(pattern, state=state, storage_options=options)
    store.write(f"{s3_bucket}/t-1.tar.seta-index", b"damaged")
    store.write(f"{s3_bucket}/state/pending/old", pack_pending([1], [1.0], "gen-000000-gone"))
    found = verify(request)
    assert [one.kind for one in found.findings] == ["pending-orphaned", "index-damaged"]
    assert repair(found).left == ()
    assert verify(request).findings == ()
    header = read_header(store.read(f"{s3_bucket}/t-1.tar.seta-index"))
    assert header.samples == 4
