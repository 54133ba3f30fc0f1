"""Generations: committed whole, found by lineage, loaded by digest. Locally and in a bucket (fsspec's memory://)."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from pathlib import Path

import numpy as np
import pytest
from state_fakes import CORPUS, RULE, Corpus, FullStore, digest, filled
from thread_collective import ThreadTeam

from seta_stream.errors import GenerationError, PeerError, ReadError, SetaStreamWarning, StateError, StateLockedError
from seta_stream.losses import drafts
from seta_stream.losses.envelope import pack_file
from seta_stream.losses.generations import Generations
from seta_stream.losses.pending import PENDING
from seta_stream.losses.sidecar import pack
from seta_stream.losses.table import LossTable
from seta_stream.store import join, store_for


@pytest.fixture(params=["local", "memory"])
def state(request, tmp_path):
    """URL of an empty state."""
    return str(tmp_path / "state") if request.param == "local" else f"memory://{secrets.token_hex(4)}/state"


@pytest.fixture
def bucket():
    """URL of an empty state in a bucket."""
    return f"memory://{secrets.token_hex(4)}/state"


@pytest.fixture
def generations(state):
    opened = Generations(state)
    yield opened
    opened.close()


def commit_run(generations, epochs, parent=None, start=0):
    """Commit epochs one upon another; return their names."""
    names = []
    for epoch in range(start, start + epochs):
        parent = generations.commit(epoch, filled(CORPUS, epoch), CORPUS, RULE, parent, {"bytes": 10 * epoch})
        names.append(parent)
    return names


def loaded(generations, name, corpus=CORPUS):
    table = corpus.table()
    report = generations.load(generations.get(name), table, corpus)
    return table, report


def test_what_is_committed_comes_back(state, generations):
    """Losses and ages bit for bit, rule and facts exactly, by another process's eyes too."""
    table = filled(CORPUS, 3)
    facts = {"seconds": 1.5, "selected": np.int64(7), "per_shard": np.array([1, 2]), "pair": (1, None), "on": True}
    name = generations.commit(3, table, CORPUS, RULE, None, facts)
    found = Generations(state).get(name)
    assert (found.epoch, found.parent, found.rule, found.root) == (3, None, RULE, 3)
    assert found.facts == {"seconds": 1.5, "selected": 7, "per_shard": [1, 2], "pair": [1, None], "on": True}
    again, report = loaded(Generations(state), name)
    assert np.array_equal(again.values, table.values, equal_nan=True)
    assert np.array_equal(again.all_ages, table.all_ages)
    assert (report.unseen_shards, report.damaged) == (0, ())
    assert name.startswith("gen-000003-")


def test_a_state_without_losses_has_no_ancestor(generations):
    """Nothing kept, nothing told."""
    assert generations.kept() == []
    assert generations.ancestor(5, None) is None
    assert generations.history() == []
    with pytest.raises(GenerationError, match=r"gen-000001-ab is not in .*: none is kept"):
        generations.get("gen-000001-ab")


def test_the_last_three_of_a_lineage_stay(generations):
    """Older ones go, manifest and sidecars."""
    names = commit_run(generations, 5)
    assert [one.name for one in generations.kept()] == names[2:]
    assert [one.root for one in generations.kept()] == [0, 0, 0]
    assert [line["generation"] for line in generations.history()] == names


def test_other_lineages_are_untouched(generations):
    """A second run from scratch, and one that branches off, each keep their own last three."""
    first = commit_run(generations, 4)
    second = commit_run(generations, 4)
    assert {one.name for one in generations.kept()} == {*first[1:], *second[1:]}
    branch = commit_run(generations, 1, parent=first[1], start=2)
    assert {one.name for one in generations.kept()} == {*first[1:], *second[1:], *branch}
    commit_run(generations, 3, parent=branch[0], start=3)
    assert {*first[1:], *second[1:]} <= {one.name for one in generations.kept()}


@pytest.mark.parametrize(("below", "wanted"), [(6, 5), (5, 4), (4, 3), (9, 5)])
def test_an_epoch_starts_from_its_newest_ancestor(generations, below, wanted):
    """Epochs 3, 4 and 5 are kept of a run of 0 … 5."""
    names = commit_run(generations, 6)
    assert generations.ancestor(below, names[-1]).epoch == wanted
    assert generations.ancestor(below, None).epoch == wanted


def test_an_epoch_before_the_run_has_no_ancestor(generations):
    """Also where older generations of the run are gone: the root's epoch is known."""
    names = commit_run(generations, 6)
    assert generations.ancestor(0, names[-1]) is None
    later = commit_run(generations, 2, start=7)
    assert generations.ancestor(7, later[-1]) is None


def test_an_ancestor_that_is_gone_is_an_error(generations):
    """It names what is kept and the way out."""
    names = commit_run(generations, 6)
    told = rf'Cannot start epoch 2 .* kept are {names[3]} \(epoch 3\), .* losses="latest"'
    with pytest.raises(GenerationError, match=told) as caught:
        generations.ancestor(2, names[-1])
    assert caught.value.found == names[3:]
    with pytest.raises(GenerationError, match="kept are"):
        generations.ancestor(2, names[0])


def test_the_newest_commit_is_the_newest_whatever_its_epoch(generations):
    """A run that was set back to an earlier epoch is the one that goes on."""
    names = commit_run(generations, 4)
    back = commit_run(generations, 1, parent=names[1], start=2)
    assert generations.ancestor(99, None).name == back[0]
    assert generations.ancestor(99, names[3]).epoch == 3


def test_losses_from_before_epoch_0_are_a_generation_too(generations):
    """Epoch -1 closes what a scoring run measured."""
    (name,) = commit_run(generations, 1, start=-1)
    assert generations.ancestor(0, None).name == name


def test_a_copied_or_appended_corpus_keeps_its_losses(generations):
    """Shards are matched by digest: reordered, with one that is new; equal shards are paired in order."""
    corpus = Corpus((digest(1), digest(1), digest(2)), (2, 2, 3))
    table = corpus.table()
    table.record(range(7), [1, 2, 3, 4, 5, 6, 7])
    name = generations.commit(0, table, corpus, RULE, None, {})
    moved = Corpus((digest(9), digest(2), digest(1), digest(1), digest(1)), (1, 3, 2, 2, 2))
    found, report = loaded(generations, name, moved)
    wanted = [np.nan, 5, 6, 7, 1, 2, 3, 4, np.nan, np.nan]
    assert np.array_equal(found.values, np.array(wanted, np.float32), equal_nan=True)
    assert (report.unmatched, report.unseen_shards) == ((0, 4), 2)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-9], "is damaged"),
        (lambda data: data[:20] + b"\x00" + data[21:], "is damaged"),
        (lambda _: b"not a sidecar, really not", "does not begin as one"),
        (lambda data: data[:8] + b"\x07\x00" + data[10:], "is of version 7 and this release reads up to 2"),
        (lambda _: pack(np.ones(1, np.float32), np.zeros(1, np.uint8), digest(8)), "belongs to another shard"),
        (lambda _: pack(np.ones(9, np.float32), np.zeros(9, np.uint8), digest(2)), "not the one that the manifest"),
        (lambda _: None, "it is not there"),
    ],
)
def test_a_sidecar_that_cannot_be_used_leaves_its_samples_unseen(state, generations, damage, told):
    """It is named with the reason, left where it is, and the other shards are loaded."""
    (name,) = commit_run(generations, 1)
    store, url = store_for(state), join(state, "losses", name, "000001.losses")
    damaged = damage(store.read(url))
    if damaged is None:
        store.remove(url)
    else:
        store.write(url, damaged)
    with pytest.warns(SetaStreamWarning, match=f"1 sidecars .* 1 samples count as unseen.*{told}"):
        table, report = loaded(generations, name)
    wanted = filled(CORPUS, 0).values
    wanted[4] = np.nan
    assert np.array_equal(table.values, wanted, equal_nan=True)
    assert table.all_ages[4] == 255
    assert [shard for shard, _ in report.damaged] == [1]
    assert damaged is None or store.read(url) == damaged


def test_a_failing_store_is_not_taken_for_missing_losses(tmp_path):
    """Only a file that is not there makes samples unseen; anything else is an error."""
    generations = Generations(str(tmp_path))
    (name,) = commit_run(generations, 1)

    class Failing(FullStore):
        def read(self, _):
            raise ReadError("Cannot read: the network is down.")

    generation = generations.get(name)
    generations.close()
    broken = Generations(str(tmp_path), store=Failing(store_for(str(tmp_path)), 0))
    with pytest.raises(ReadError, match="network is down"):
        broken.load(generation, CORPUS.table(), CORPUS)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:8] + b"\x02" + data[9:], "version 2"),
        (lambda _: b"", "does not begin"),
    ],
)
def test_a_damaged_manifest_sets_its_generation_aside(state, generations, damage, told):
    """The one before it is used, and the next commit goes on from there."""
    names = commit_run(generations, 2)
    store, url = store_for(state), join(state, "losses", names[1], "manifest")
    store.write(url, damage(store.read(url)))
    other = Generations(state)
    with pytest.warns(SetaStreamWarning, match=f"manifest of {names[1]}: .*{told}.*left aside"):
        assert other.ancestor(9, None).name == names[0]
    assert other.ancestor(9, None).name == names[0]  # told once


def test_a_manifest_in_another_folder_is_refused(state, generations):
    """A generation's folder that was renamed by hand."""
    (name,) = commit_run(generations, 1)
    store, wrong = store_for(state), "gen-000009-abcd"
    store.write(join(state, "losses", wrong, "manifest"), store.read(join(state, "losses", name, "manifest")))
    with pytest.warns(SetaStreamWarning, match=f"manifest of {wrong}: it is that of {name}"):
        assert [one.name for one in Generations(state).kept()] == [name]


def test_a_full_bucket_leaves_the_generation_before(bucket):
    """Whichever write fails: nothing of the new one is left, and the losses can be committed later."""
    (first,) = commit_run(Generations(bucket), 1)
    for room in range(1, 5):  # the first write makes this run the writer
        full = Generations(bucket, store=FullStore(store_for(bucket), room))
        with pytest.raises(StateError, match=r"No space left.*stays; the losses .* are still in memory. Free space"):
            full.commit(1, filled(CORPUS, 1), CORPUS, RULE, first, {})
        assert store_for(bucket).names(join(bucket, "losses")) == [first]
    assert Generations(bucket).commit(1, filled(CORPUS, 1), CORPUS, RULE, first, {})


def test_a_full_disk_leaves_the_generation_before(tmp_path, monkeypatch):
    """No temporary folder stays either."""
    generations = Generations(str(tmp_path))
    (first,) = commit_run(generations, 1)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(drafts, "_flush", full)
        with pytest.raises(StateError, match=r"Cannot write generation gen-000001-.*No space left.*Free space"):
            generations.commit(1, filled(CORPUS, 1), CORPUS, RULE, first, {})
    assert [path.name for path in (tmp_path / "losses").iterdir()] == [first]
    commit_run(generations, 1, first, start=1)
    generations.close()


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    """Ctrl-C in the middle of a commit is passed on, after cleaning."""
    generations = Generations(str(tmp_path))

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(drafts, "_flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generations.commit(1, filled(CORPUS, 1), CORPUS, RULE, None, {})
    assert list((tmp_path / "losses").iterdir()) == []
    generations.close()


def test_left_over_folders_are_cleaned_unless_their_writer_lives(tmp_path):
    """Temporary folders of the dead, and generations whose removal was cut short."""
    losses = tmp_path / "losses"
    (losses / ".writing-dead").mkdir(parents=True)
    (losses / ".writing-dead" / "000000.losses").write_bytes(b"x")
    (losses / "gen-000000-ab").mkdir()
    (losses / "notes").mkdir()
    living = drafts.LocalDraft(losses, "gen-000001-cd")
    drafts.LocalPart(Path(living.place)).write([("000000.losses", b"x")])
    generations = Generations(str(tmp_path))
    (name,) = commit_run(generations, 1)
    left = sorted(path.name for path in losses.iterdir())
    assert [one for one in left if not one.startswith(".")] == [name, "notes"]
    assert len([one for one in left if one.startswith(".writing-")]) == 1
    living.discard()
    living.discard()
    generations.close()


def test_history_has_a_line_per_epoch(generations):
    """Rule, histogram in at most 512 merged bins, counts, what the rule will keep, and the caller's facts."""
    (name,) = commit_run(generations, 1, start=4)
    (line,) = generations.history()
    table = filled(CORPUS, 4)
    histogram = table.histogram()
    assert (line["epoch"], line["generation"], line["parent"]) == (4, name, None)
    assert line["rule"] == RULE.to_plain()
    assert line["facts"] == {"bytes": 40}
    assert (line["samples"], line["seen"], line["unseen"]) == (11, histogram.seen, histogram.unseen)
    assert sum(line["histogram"]["counts"]) == histogram.seen
    assert len(line["histogram"]["edges"]) == len(line["histogram"]["counts"]) + 1
    assert line["expected_share"] == pytest.approx(RULE.expected_kept(histogram) / 11)
    assert json.dumps(line)


def test_the_history_of_unseen_losses_is_plain_json(generations):
    """No NaN in it."""
    generations.commit(0, CORPUS.table(), CORPUS, None, None, {})
    (line,) = generations.history()
    assert (line["mean"], line["rule"], line["expected_share"]) == (None, None, None)
    assert "NaN" not in json.dumps(line)


@pytest.mark.parametrize("torn", [b'{"epoch": 1, "gen', b'{"epoch": 1}'])
def test_a_torn_line_is_passed_over_and_repaired(state, generations, torn):
    """Reading ignores it; the next commit cuts it away and adds its own."""
    names = commit_run(generations, 1)
    store, url = store_for(state), join(state, "history.jsonl")
    store.write(url, store.read(url) + torn)
    assert [line["generation"] for line in generations.history()] == names
    names += commit_run(generations, 1, names[0], start=1)
    assert [line["generation"] for line in generations.history()] == names
    assert store.read(url).endswith(b"\n")


def test_a_line_that_was_lost_is_told_by_the_next_commit(state, generations):
    """A crash between commit and history leaves no gap."""
    names = commit_run(generations, 1)
    store_for(state).write(join(state, "history.jsonl"), b"")
    names += commit_run(generations, 1, names[0], start=1)
    assert [line["generation"] for line in generations.history()] == names


def test_a_damaged_line_in_the_middle_is_told(state, generations):
    """The others are read."""
    names = commit_run(generations, 2)
    store, url = store_for(state), join(state, "history.jsonl")
    first, second = store.read(url).splitlines()
    store.write(url, b"\n".join([first, b"{]", b"7", second, b""]))
    with pytest.warns(SetaStreamWarning, match=r"Lines \[2, 3\] of .*history.jsonl are damaged"):
        found = generations.history()
    assert [line["generation"] for line in found] == names


def test_a_history_that_cannot_be_written_does_not_undo_the_commit(bucket):
    """It is told, and caught up with by the next commit."""
    full = FullStore(store_for(bucket), 5)  # the writer's record, three sidecars, the manifest
    generations = Generations(bucket, store=full)
    with pytest.warns(SetaStreamWarning, match="is committed, but its line could not be added"):
        (name,) = commit_run(generations, 1)
    full.room = 99
    assert [line["generation"] for line in generations.history()] == []
    commit_run(generations, 1, name, start=1)
    assert len(generations.history()) == 2


def test_facts_must_be_plain(generations):
    """An object cannot be kept."""
    with pytest.raises(StateError, match=r"Cannot keep the fact .* a object is no plain value"):
        generations.commit(0, filled(CORPUS, 0), CORPUS, RULE, None, {"loader": [object()]})
    assert generations.kept() == []


def test_a_commit_on_an_unknown_parent_is_refused(generations):
    """It would make a lineage that leads nowhere."""
    with pytest.raises(GenerationError, match="gen-000000-ff is not in"):
        generations.commit(1, filled(CORPUS, 0), CORPUS, RULE, "gen-000000-ff", {})


def test_pending_losses_come_back_and_go_with_their_generation(generations):
    """Those of a run's first epoch go with its first generation."""
    losses = np.array([0.5, 1e-7], np.float32)
    generations.pending.write("first", [3, 1], losses)
    names = commit_run(generations, 1)
    generations.pending.write("second", [3, 1], losses, parent=names[0])
    names += commit_run(generations, 2, names[0], start=1)
    generations.pending.write("third", [], [], parent=names[-1])
    ids, found, *_ = generations.pending.read("second")
    assert ids.tolist() == [3, 1]
    assert np.array_equal(found, losses)
    commit_run(generations, 1, names[-1], start=3)
    assert len(generations.pending.read("third")[0]) == 0
    for gone in ("first", "second"):
        with pytest.raises(StateError, match=f"pending losses {gone} are not in .*Use a newer checkpoint"):
            generations.pending.read(gone)


def test_damaged_pending_losses_are_refused(state, generations):
    """By checksum, and by length."""
    generations.pending.write("one", [1], [1.0])
    store, url = store_for(state), join(state, "pending", "one")
    store.write(url, store.read(url)[:-1])
    with pytest.raises(StateError, match=r"Cannot use the pending losses one: .*damaged"):
        generations.pending.read("one")
    store.write(url, pack_file(PENDING, {"losses": 2, "parent": None}, bytes(12)))
    with pytest.raises(StateError, match=r"2 losses do not take 12 bytes. Use an older checkpoint"):
        generations.pending.read("one")


def test_pending_losses_that_cannot_be_written_are_told(state):
    """The disk is full."""
    full = Generations(state, store=FullStore(store_for(state), 0))
    with pytest.raises(StateError, match=r"Cannot write the pending losses one .*No space left"):
        full.pending.write("one", [1], [1.0])


def test_a_second_writer_is_refused(tmp_path):
    """Until the first closes; reading is free, and taking the lock twice is harmless."""
    first, second = Generations(str(tmp_path)), Generations(str(tmp_path))
    first.lock()
    first.lock()
    with pytest.raises(StateLockedError, match=r"another stream of this process writes it. Call close\(\)"):
        second.commit(0, filled(CORPUS, 0), CORPUS, RULE, None, {})
    assert second.kept() == []
    first.close()
    first.close()
    commit_run(second, 1)
    second.close()
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name]


def test_processes_write_a_generation_together(tmp_path):
    """Each writes the sidecars of its own shards, and process 0 the rest: what one process would have written."""
    team, whole = ThreadTeam(2), filled(CORPUS, 3)
    own = [range(1), range(1, 3)]

    def commit(collective):
        table = LossTable([count if shard in own[collective.rank] else 0 for shard, count in enumerate(CORPUS.samples)])
        for shard in own[collective.rank]:
            table.load(shard, whole.losses(shard), whole.ages(shard))
        generations = Generations(str(tmp_path / "two"), collective=collective)
        facts = {"by": collective.rank}
        return generations.commit(3, table, CORPUS, RULE, None, facts, own=own[collective.rank])

    (name,) = set(team.run(commit))
    found = Generations(str(tmp_path / "two")).get(name)
    assert [entry.samples for entry in found.sidecars] == list(CORPUS.samples)
    assert found.facts == {"by": 0}
    again, report = loaded(Generations(str(tmp_path / "two")), name)
    assert not report.unseen_shards
    assert np.array_equal(again.values, whole.values, equal_nan=True)
    assert np.array_equal(again.all_ages, whole.all_ages)


def test_a_process_that_cannot_write_its_part_fails_all(tmp_path):
    """The generation is not there, nothing is left of it, and every process learns why."""

    def commit(collective):
        generations = Generations(str(tmp_path), collective=collective)
        if collective.rank:
            generations._committer.write_part = lambda *_: 1 // 0
        generations.commit(0, filled(CORPUS, 1), CORPUS, RULE, None, {}, own=range(2 * collective.rank, 3))

    first, second = ThreadTeam(2).outcomes(commit)
    assert isinstance(first, PeerError)
    assert "Process 1 of 2 failed" in str(first)
    assert isinstance(second, ZeroDivisionError)
    assert Generations(str(tmp_path)).kept() == []
    assert list((tmp_path / "losses").iterdir()) == []


def test_a_state_folder_can_be_moved(tmp_path):
    """Nothing in it names its place."""
    generations = Generations(str(tmp_path / "a"))
    (name,) = commit_run(generations, 1)
    generations.close()
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert loaded(Generations(str(tmp_path / "b")), name)[1].unseen_shards == 0
