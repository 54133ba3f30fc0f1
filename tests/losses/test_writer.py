"""The record that names the writer of a state in a bucket, on real buckets: the older of two runs is refused."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from state_fakes import CORPUS, RULE, FullStore, filled

from seta_stream import SetaStream
from seta_stream.corpus.listing import expand
from seta_stream.errors import ReadError, StateError, StateLockedError
from seta_stream.losses.generations import Generations
from seta_stream.losses.writer import WRITER, WriterRecord, pack_writer
from seta_stream.policies import DynamicRandom
from seta_stream.store import join, store_for

REFUSED = (
    r"Cannot write the state at .*state: another run became its writer after this one \(process \d+ on .+\)\. Stop"
)


@pytest.fixture(params=["memory", "s3", "az"])
def bucket(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """URL of an empty state, and its options."""
    if request.param == "memory":
        return f"memory://{secrets.token_hex(4)}/state", {}
    server = request.getfixturevalue("s3_server" if request.param == "s3" else "azure_server")
    folder = request.getfixturevalue("s3_bucket" if request.param == "s3" else "azure_container")
    return f"{folder}/state", server.options


def commit(generations: Generations, epoch: int, parent: str | None = None) -> str:
    return generations.commit(epoch, filled(CORPUS, epoch), CORPUS, RULE, parent, {})


def test_golden_bytes_of_a_record():
    """The record is docs/formats/state.md's, byte by byte."""
    assert WRITER.magic == b"SETAWRIT"
    assert pack_writer("0a", "host", 7).hex() == (
        "5345544157524954" "0100" "0000" "19000000"
        "83" "a5746f6b656e" "a23061" "a4686f7374" "a4686f7374" "a3706964" "07" "87fe5b49"
    )  # fmt: skip


def test_the_older_run_is_refused(bucket):
    """Once a newer run is the writer, an older one commits nothing; its losses are kept as pending ones, once."""
    state, options = bucket
    older, newer = Generations(state, options), Generations(state, options)
    older.lock()
    first = commit(older, 0)
    newer.lock()
    for _ in range(2):
        with pytest.raises(
            StateLockedError, match=REFUSED + r".*losses of epoch 1 are kept in .*pending/epoch-000001-re"
        ):
            commit(older, 1, first)
    assert [one.name for one in newer.kept()] == [first]
    second = commit(newer, 1, first)
    assert [one.name for one in Generations(state, options).kept()] == [first, second]
    (kept,) = store_for(state, options).names(join(state, "pending"))
    pending, table = newer.pending.read(kept), filled(CORPUS, 1)
    expected = np.flatnonzero(table.all_ages == 0)
    assert pending.ids.tolist() == expected.tolist()
    assert np.array_equal(pending.losses, table.values[expected], equal_nan=True)
    older.close()
    older.lock()  # started again, it is the newest
    commit(older, 2, second)
    with pytest.raises(StateLockedError, match=REFUSED):
        commit(newer, 2, second)


def test_two_streams_on_one_state(bucket, make_corpus):
    """The stream that was made later goes on; the other one's losses are not lost, and the first's state is whole."""
    state, options = bucket
    shards = make_corpus(2, 10)

    def stream() -> SetaStream:
        return SetaStream(shards, policy=DynamicRandom(0.5), batch_size=2, state=state, state_options=options)

    older = stream()
    for epoch in range(2):
        older.set_epoch(epoch)
        older.record([sample["__index__"] for sample in older], [1.0] * len(older))
    newer = stream()
    newer.set_epoch(1)
    newer.record([0, 1], [5.0, 6.0])
    with pytest.raises(StateLockedError, match=REFUSED), older:
        older.set_epoch(2)
    newer.set_epoch(2)
    newer.close()
    store = store_for(state, options)
    assert len(store.names(join(state, "losses"))) == 2
    assert len(store.names(join(state, "pending"))) == 2, "the refused commit's, and those of the stream's end"


def test_a_state_beside_the_shards_takes_their_options(s3_bucket, s3_server, make_corpus):
    """One set of options opens the shards and a state of the same protocol; the state's own replace them."""
    store = store_for(s3_bucket, s3_server.options)
    for shard in expand(make_corpus(2, 10)):
        store.write(f"{s3_bucket}/{Path(shard).name}", Path(shard).read_bytes())
    settings = {"policy": DynamicRandom(0.5), "batch_size": 2, "state": f"{s3_bucket}/run"}
    with SetaStream(f"{s3_bucket}/*.tar", storage_options=s3_server.options, **settings) as stream:
        stream.set_epoch(0)
        stream.record([0, 1], [1.0, 2.0])
    assert store.names(f"{s3_bucket}/run/losses")
    wrong = {**s3_server.options, "endpoint_url": "no endpoint"}
    with pytest.raises(StateError, match=r"Cannot write s3://.*/run/writer: .*state_options="):
        SetaStream(f"{s3_bucket}/*.tar", storage_options=s3_server.options, state_options=wrong, **settings)


def test_a_commit_meets_a_newer_run_before_its_manifest(bucket):
    """A run that becomes the writer while sidecars are written is met before the generation is there."""
    state, options = bucket
    store = store_for(state, options)

    class Overtaken:
        """A store where another run comes in with the second sidecar."""

        writes = 0

        def write(self, url, data):
            self.writes += 1
            if self.writes == 3:
                Generations(state, options).lock()
            store.write(url, data)

        def __getattr__(self, name):
            return getattr(store, name)

    generations = Generations(state, options, store=Overtaken())
    with pytest.raises(StateLockedError, match=REFUSED):
        commit(generations, 0)
    assert generations.kept() == []
    assert store.names(join(state, "losses")) == [], "nothing of it is left"


def test_a_half_generation_in_a_bucket_is_none(bucket):
    """A run that was killed before its manifest leaves files that nobody takes for a generation."""
    state, options = bucket
    store = store_for(state, options)

    class Killed(BaseException):
        pass

    class Dying:
        def write(self, url, data):
            if url.endswith("/manifest"):
                raise Killed
            store.write(url, data)

        def remove(self, url):
            raise Killed  # nothing is cleaned up either

        def __getattr__(self, name):
            return getattr(store, name)

    first = commit(Generations(state, options), 0)
    with pytest.raises(Killed):
        commit(Generations(state, options, store=Dying()), 1, first)
    (half,) = set(store.names(join(state, "losses"))) - {first}
    again = Generations(state, options)
    assert [one.name for one in again.kept()] == [first]
    table = CORPUS.table()
    again.load(again.get(first), table, CORPUS)
    assert np.array_equal(table.values, filled(CORPUS, 0).values, equal_nan=True)
    second = commit(again, 1, first)
    assert [one.name for one in again.kept()] == [first, second]
    assert half not in store.names(join(state, "losses")), "the next commit cleans up"


def test_an_emptied_state_is_taken_again(bucket):
    """Who removes a state under a run takes nothing from it but what was there."""
    state, options = bucket
    generations = Generations(state, options)
    commit(generations, 0)
    store_for(state, options).remove(state)
    commit(generations, 1)
    assert len(generations.kept()) == 1
    assert store_for(state, options).exists(join(state, "writer"))


def test_an_emptied_state_goes_to_one(bucket):
    """Of two runs that find no record, the first one to write it goes on."""
    state, options = bucket
    store = store_for(state, options)
    url = join(state, "writer")
    mine = WriterRecord(store, url)
    mine.acquire()

    class Racing:
        is_first = True

        def read(self, url):
            if self.is_first:
                self.is_first = False
                store.remove(url)
                try:
                    return store.read(url)
                finally:
                    store.write(url, pack_writer("other", "host", 1))
            return store.read(url)

        def __getattr__(self, name):
            return getattr(store, name)

    mine._store = Racing()
    with pytest.raises(StateLockedError, match=r"process 1 on host") as caught:
        mine.acquire()
    assert (caught.value.expected, caught.value.found) == (mine.token, "other")


def test_a_foreign_record_is_another_runs():
    """A record that cannot be read is not ours, whatever it is."""
    store, url = store_for("memory://x"), f"memory://{secrets.token_hex(4)}/state/writer"
    mine = WriterRecord(store, url)
    assert mine.token == ""
    mine.acquire()
    assert len(mine.token) == 32
    store.write(url, b"something else")
    with pytest.raises(StateLockedError, match=r"process \? on \?"):
        mine.acquire()


def test_a_state_that_cannot_be_written_or_read_says_so():
    """The store's own reason is passed on, at the start and at a commit."""
    state = f"memory://{secrets.token_hex(4)}/state"
    with pytest.raises(StateError, match=r"Cannot write memory://.*/writer: .*No space left.*Give a place that"):
        Generations(state, store=FullStore(store_for(state), 0)).lock()
    record = WriterRecord(store_for(state), join(state, "writer"))
    record.acquire()

    class Unreadable:
        def read(self, url):
            raise ReadError(f"Cannot read {url}: no whole answer came.")

    record._store = Unreadable()
    with pytest.raises(
        StateError, match=r"Cannot tell who writes the state: Cannot read .*writer.*set the epoch again"
    ):
        record.acquire()


def test_where_nothing_can_be_kept_the_refusal_stands():
    """A pending file that cannot be written takes nothing from the reason."""
    state = f"memory://{secrets.token_hex(4)}/state"
    store = FullStore(store_for(state), 1)
    older = Generations(state, store=store)
    older.lock()
    Generations(state).lock()
    with pytest.raises(StateLockedError, match=r"give this one another state=\.$"):
        commit(older, 0)


@pytest.mark.parametrize("state", ["file", "path"])
def test_local_states_hold_no_record(state, tmp_path):
    """A folder is locked by the kernel."""
    url = str(tmp_path) if state == "path" else f"file://{tmp_path}"
    generations = Generations(url)
    commit(generations, 0)
    assert not (tmp_path / "writer").exists()
    with pytest.raises(StateLockedError, match="another stream of this process"):
        Generations(url).lock()
    generations.close()


def test_a_reader_is_no_writer(bucket):
    """Looking at a state takes it from nobody."""
    state, options = bucket
    older = Generations(state, options)
    first = commit(older, 0)
    reader = Generations(state, options)
    assert [one.name for one in reader.kept()] == [first]
    reader.load(reader.get(first), CORPUS.table(), CORPUS)
    reader.close()
    assert commit(older, 1, first)
