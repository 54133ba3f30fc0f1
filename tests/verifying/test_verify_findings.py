"""Every finding of `verify` comes from really damaging something, and nothing else is found besides."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_corpora import text_members, write_tar
from verify_corpora import Whole, make_whole

from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import ArgumentError, CorpusError, StateError, TarError
from seta_stream.jobs import Engine
from seta_stream.losses.generations import Generations
from seta_stream.losses.lock import StateLock
from seta_stream.losses.sidecar import pack
from seta_stream.losses.table import LossTable
from seta_stream.read.decode import decoder
from seta_stream.store import store_for
from seta_stream.verifying import Request, states, verify
from seta_stream.verifying.decoding import undecodable
from seta_stream.verifying.findings import KINDS


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return make_whole(tmp_path / "corpus")


def only(whole: Whole, kind: str, **options: object):
    """Return the one finding, which is of this kind."""
    found = whole.found(**options)
    assert [one.kind for one in found] == [kind]
    return found[0]


def rewritten(whole: Whole, shard: int, members) -> None:
    """Write a shard anew, with its index and the state's table in step, so that only the members differ."""
    write_tar(whole.shards[shard], members)
    whole.index(shard).unlink()
    index = open_corpus(whole.urls).index(shard)
    whole.index(shard).write_bytes(index.to_bytes())
    (whole.state / "corpus").write_bytes(open_corpus(whole.urls).table.to_bytes())


def test_nothing_is_found_where_nothing_is_wrong(whole):
    """And the figures are those of the corpus; several processes see the same."""
    verified = whole.verify()
    assert verified.findings == ()
    assert (len(verified.tasks), verified.samples, verified.members) == (3, 12, 24)
    assert verified.bytes == sum(path.stat().st_size for path in whole.shards)
    assert whole.verify(engine=Engine(jobs=2)).findings == ()
    assert whole.verify(decode="basic").findings == ()


def test_progress_is_told(whole):
    """Once before the first shard and after each, up to all bytes."""
    told = []
    verify(Request(whole.urls), told.append)
    assert [one.shards_done for one in told] == [0, 1, 2, 3]
    assert told[-1].bytes_done == told[-1].bytes == sum(path.stat().st_size for path in whole.shards)


# ---- shards


def test_a_truncated_shard(whole):
    """Named with the offset; its old index is stale, and its sidecar is not called superfluous."""
    data = whole.shards[1].read_bytes()
    whole.shards[1].write_bytes(data[: 512 * 3 + 100])
    found = {one.kind: one for one in whole.found()}
    assert sorted(found) == ["index-stale", "shard-damaged"]
    assert found["shard-damaged"].shard == str(whole.shards[1])
    assert found["shard-damaged"].offset == 1024
    assert "truncated" in found["shard-damaged"].what


def test_a_damaged_header(whole):
    """A flipped bit breaks the header's checksum."""
    with whole.shards[0].open("r+b") as file:
        file.seek(1024 + 20)
        file.write(b"\xff")
    damaged = next(one for one in whole.found() if one.kind == "shard-damaged")
    assert (damaged.shard, damaged.offset) == (str(whole.shards[0]), 1024)
    assert "checksum" in damaged.what


def test_a_shard_without_end_blocks(whole):
    """It may have been cut at a member's end: a warning."""
    data = whole.shards[2].read_bytes()
    end = ShardIndex.from_bytes(whole.index(2).read_bytes()).extent_stop[-1]
    whole.shards[2].write_bytes(data[:end])
    assert {"shard-cut", "index-stale", "shard-touched"} == {one.kind for one in whole.found()}


def test_a_missing_shard(whole):
    """A brace pattern that names more than there is: the others are verified all the same."""
    whole.shards[1].unlink()
    found = {one.kind: one for one in whole.found()}
    assert sorted(found) == ["shard-unreadable"]
    assert "there is no such file" in found["shard-unreadable"].what


def test_a_shard_without_samples(whole):
    """No member is named key.field."""
    rewritten(whole, 1, [("readme", b"text")])
    assert "shard-empty" in whole.kinds()


def test_a_field_twice_in_one_sample(whole):
    """Refused by every reader: damaged, with the sample's key."""
    write_tar(whole.shards[0], [("a.txt", b"1"), ("a.txt", b"2")])
    damaged = next(one for one in whole.found() if one.kind == "shard-damaged")
    assert damaged.key == "a"


def test_a_key_that_returns_in_a_shard(whole):
    """The second sample of the key is named, with its offset."""
    rewritten(whole, 0, [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3")])
    found = next(one for one in whole.found() if one.kind == "key-twice")
    assert (found.key, found.offset, found.count) == ("a", 2048, 1)


def test_keys_in_two_shards(whole):
    """One finding for all of them, with an example."""
    rewritten(whole, 2, text_members(2, 6))
    found = next(one for one in whole.found() if one.kind == "key-elsewhere")
    assert (found.count, found.key, found.shard) == (6, "00000002", str(whole.shards[2]))
    assert found.what.startswith("6 keys stand in more than one shard, with 6 samples")
    assert f"'00000002' is in {whole.shards[0]}" in found.what


def test_samples_of_other_fields(whole):
    """What they lack and have besides, against what most have; in another order they are the same."""
    members = text_members(0, 3)
    rewritten(whole, 0, [*members, ("z.cls", b"1"), ("z.txt", b"t"), ("y.txt", b"t"), ("y.jpg", b"t")])
    found = [one for one in whole.found() if one.kind == "fields-differ"]
    assert [(one.key, one.count) for one in found] == [("y", 1)]
    assert "1 samples lack cls and have jpg besides; 12 of 13 have cls, txt" in found[0].what


def test_no_common_fields_are_no_finding(tmp_path):
    """Where nothing is the rule, nothing is an exception."""
    write_tar(tmp_path / "a.tar", [("a.txt", b"1"), ("b.jpg", b"1")])
    assert {one.kind for one in verify(Request(str(tmp_path / "a.tar"))).findings} == {"index-missing"}


def test_an_empty_sample(whole):
    """All of its members hold nothing; a sample with one empty member is none."""
    rewritten(whole, 1, [("a.txt", b""), ("a.cls", b""), ("b.txt", b""), ("b.cls", b"1")])
    found = next(one for one in whole.found() if one.kind == "sample-empty")
    assert (found.key, found.offset, found.count) == ("a", 0, 1)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_samples_that_cannot_be_decoded(tmp_path, is_compressed):
    """Each is named with its field and why, the first 20 of a shard; without --decode nothing is."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    good = out.getvalue()
    members = [(f"{number:03d}.png", good[: len(good) // 2] if number >= 5 else good) for number in range(30)]
    path = write_tar(tmp_path / "a.tar", members)
    if is_compressed:
        path = path.rename(tmp_path / "a.tar.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert not [one for one in verify(Request(str(path))).findings if one.kind == "decode-failed"]
    found = [one for one in verify(Request(str(path), decode="pil")).findings if one.kind == "decode-failed"]
    assert len(found) == 21
    named = sorted((one for one in found if one.key), key=lambda one: str(one.key))
    assert [one.key for one in named] == [f"{number:03d}" for number in range(5, 25)]
    assert (named[0].offset, "Cannot decode field 'png'" in named[0].what) == (5 * 1024, True)
    assert [(one.count, one.what) for one in found if not one.key] == [
        (5, "5 more samples of the shard cannot be decoded.")
    ]


def test_findings_come_back_from_other_processes(whole):
    """The same as from this one."""
    whole.shards[0].write_bytes(b"")
    whole.index(1).unlink()
    assert whole.found(engine=Engine(jobs=2)) == whole.found(engine=Engine(jobs=1)) != []


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (lambda data: gzip.compress(data)[:1500], "Compressed file ended before the end-of-stream marker"),
        (lambda data: gzip.compress(data[:1800]), "it ends inside sample 'b'"),
    ],
)
def test_a_compressed_shard_that_is_cut_while_it_is_decoded(tmp_path, cut, told):
    """After it was scanned: the samples before are decoded."""
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"\xff"), ("b.txt", os.urandom(3000))])
    data = path.read_bytes()
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(data))
    index = scan_shard(str(packed))
    packed.write_bytes(cut(data))
    found = undecodable(str(packed), index, decoder("basic"), None)
    assert next(found).key == "a"
    with pytest.raises(TarError, match=f"Cannot decode .*: it cannot be decompressed .*{told}"):
        list(found)


def test_a_large_sample_is_decoded_by_itself(tmp_path):
    """A window holds what fits, and at least one sample."""
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"x" * (9 << 20)), ("b.txt", b"\xff"), ("c.txt", b"ok")])
    found = [one for one in verify(Request(str(path), decode="basic")).findings if one.kind == "decode-failed"]
    assert [one.key for one in found] == ["b"]


def test_a_wrong_decoder_is_refused_at_once(whole):
    """Before anything is read."""
    with pytest.raises(ArgumentError, match="decode='jpeg' is no decoder"):
        whole.verify(decode="jpeg")


# ---- indexes


def test_a_missing_index(whole):
    """A warning that says where it would go."""
    whole.index(1).unlink()
    found = only(whole, "index-missing")
    assert (found.shard, found.file) == (str(whole.shards[1]), str(whole.index(1)))


def test_a_stale_index(whole):
    """The shard has another time; the state's table says so too."""
    os.utime(whole.shards[1], ns=(1, 1))
    found = {one.kind: one for one in whole.found()}
    assert sorted(found) == ["index-stale", "shard-touched"]
    assert "with the same samples" in found["index-stale"].what


def test_a_stale_index_in_the_cache_is_in_nobodys_way(whole, tmp_path):
    """Where another one fits it is not told."""
    whole.index(1).unlink()
    open_corpus(whole.urls)  # into the cache folder
    assert whole.kinds() == []
    os.utime(whole.shards[1], ns=(1, 1))
    (whole.state / "corpus").write_bytes(replace_versions(whole))
    assert whole.kinds() == ["index-stale"]
    index = open_corpus(whole.urls).index(1)
    whole.index(1).write_bytes(index.to_bytes())
    assert whole.kinds() == []


@pytest.mark.parametrize("is_same", [True, False])
def test_an_index_that_came_along_into_a_bucket(whole, is_same):
    """Copied with its shard it serves there, as in training; that of another shard is told."""
    store = store_for("memory://came-along")
    for shard in range(3):
        store.write(f"memory://came-along/t-{shard}.tar", whole.shards[shard].read_bytes())
        own = whole.index(shard if is_same else (shard + 1) % 3)
        store.write(f"memory://came-along/t-{shard}.tar.seta-index", own.read_bytes())
    found = verify(Request("memory://came-along/t-{0..2}.tar")).findings
    assert [one.kind for one in found] == ([] if is_same else ["index-wrong"] * 3)


def replace_versions(whole: Whole) -> bytes:
    table = whole.table()
    versions = tuple(f"mtime:{path.stat().st_mtime_ns}" for path in whole.shards)
    return replace(table, versions=versions).to_bytes()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-10], "checksum"),
        (lambda data: b"", "cut short"),
        (lambda data: b"x" + data[1:], "another kind"),
    ],
)
def test_a_damaged_index(whole, damage, told):
    """Cut, emptied, or another file."""
    whole.index(0).write_bytes(damage(whole.index(0).read_bytes()))
    assert told in only(whole, "index-damaged").what


def test_an_index_of_another_version(whole):
    """Of a later release."""
    import struct
    import zlib

    data = whole.index(0).read_bytes()[:-4]
    data = data[:8] + struct.pack("<I", 9) + data[12:]
    whole.index(0).write_bytes(data + struct.pack("<I", zlib.crc32(data)))
    assert "it is of version 9, and this release reads version 1" in only(whole, "index-damaged").what


def tampered(index: ShardIndex, name: str) -> ShardIndex:
    if name == "size":
        larger = np.eye(1, len(index.member_size), 3, np.int64)[0]
        return replace(index, member_size=index.member_size + larger)
    return replace(index, **{"fields": {"fields": ("txt", "json")}, "digest": {"digest": b"x" * 16}}[name])


@pytest.mark.parametrize(
    ("name", "told", "key", "offset"),
    [
        ("size", "the size of a member is another (2 in it, 1 in the shard); 1 differ", "00000001", 3584),
        ("fields", "the field of a member is another; 4 differ", "00000000", 1536),
        ("digest", "its digest is another", None, None),
    ],
)
def test_an_index_that_disagrees_with_its_shard(whole, name, told, key, offset):
    """Made of this very version, and wrong: the worst, since it would be used."""
    index = ShardIndex.from_bytes(whole.index(0).read_bytes())
    whole.index(0).write_bytes(tampered(index, name).to_bytes())
    found = only(whole, "index-wrong")
    assert told in found.what
    assert (found.key, found.offset, found.severity) == (key, offset, "error")


def test_an_index_of_other_keys(whole):
    """Another shard's index, whose version was made to fit."""
    index = ShardIndex.from_bytes(whole.index(1).read_bytes())
    version = f"mtime:{whole.shards[0].stat().st_mtime_ns}"
    whole.index(0).write_bytes(replace(index, shard_version=version).to_bytes())
    found = only(whole, "index-wrong")
    assert "sample 0 is '00000004' in it, and '00000000' in the shard" in found.what
    assert (found.key, found.offset) == ("00000000", 0)


# ---- the state


def test_nothing_where_the_state_should_be(whole, tmp_path):
    """It cannot be verified: an error, not a finding."""
    with pytest.raises(StateError, match="nothing lies there"):
        verify(Request(whole.urls, state=str(tmp_path / "none")))


def test_nothing_that_matches(tmp_path):
    """A glob without a match cannot be verified."""
    with pytest.raises(CorpusError, match="nothing matches"):
        verify(Request(str(tmp_path / "*.tar")))


def test_a_sidecar_that_is_gone(whole):
    """Named with its shard."""
    (whole.generation(1) / "000001.losses").unlink()
    found = only(whole, "sidecar-missing")
    assert (found.shard, found.file) == (str(whole.shards[1]), str(whole.generation(1) / "000001.losses"))


def test_a_damaged_sidecar(whole):
    """A flipped byte."""
    path = whole.generation(0) / "000002.losses"
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    assert "checksum" in only(whole, "sidecar-damaged").what


def test_a_sidecar_of_another_shard(whole):
    """Whole, with another digest than the manifest's."""
    shutil.copy(whole.generation(0) / "000001.losses", whole.generation(0) / "000002.losses")
    assert "belongs to another shard" in only(whole, "sidecar-damaged").what


def test_a_sidecar_that_is_not_the_one(whole):
    """Whole and of this shard, but of another epoch."""
    shutil.copy(whole.generation(0) / "000001.losses", whole.generation(1) / "000001.losses")
    assert "not the one that the manifest names" in only(whole, "sidecar-damaged").what


def test_infinite_losses(whole):
    """No stream writes them: the sidecar cannot be used."""
    path = whole.generation(1) / "000000.losses"
    digest = whole.table().digests[0]
    data = bytearray(pack(np.ones(4, np.float32), np.zeros(4, np.uint8), digest))
    at = len(data) - 4 - 4 - 8
    data[at : at + 2] = b"\x00\x7c"
    import zlib

    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    path.write_bytes(data)
    assert "it holds infinite losses" in only(whole, "sidecar-damaged").what


def committed(whole: Whole, ids, losses) -> None:
    """Commit another generation of its own lineage with these losses."""
    table = LossTable(whole.table().samples)
    table.record(ids, losses)
    generations = Generations(str(whole.state))
    generations.commit(2, table, whole.table(), None, None, {})
    generations.close()


def test_no_losses_at_all(whole):
    """Every sample of the generation is unseen."""
    committed(whole, [], [])
    assert "No sample of generation gen-000002" in only(whole, "losses-unseen").what


def test_a_shard_without_losses(whole):
    """The others have some."""
    committed(whole, [0, 5], [1.0, 2.0])
    found = only(whole, "losses-unseen")
    assert (found.shard, found.count) == (str(whole.shards[2]), 1)


def test_a_shard_of_other_losses(tmp_path):
    """Its mean lies far from those of the others: a hint."""
    whole = make_whole(tmp_path / "many", shards=6, samples=40)
    losses = np.random.default_rng(0).gamma(2, 1, 240)
    losses[80:120] += 20
    committed(whole, np.arange(240), losses)
    found = only(whole, "losses-unlike")
    assert (found.shard, found.severity) == (str(whole.shards[2]), "hint")


def test_half_of_a_generation(whole):
    """Without its manifest it is none; nor is what a killed writer left."""
    (whole.generation(0) / "manifest").unlink()
    (whole.state / "losses" / ".writing-0123").mkdir()
    found = whole.found()
    assert {one.kind for one in found} == {"generation-half"}
    assert {Path(one.file).name for one in found} == {whole.generation(0).name, ".writing-0123"}


def test_a_generation_that_is_being_written(whole):
    """A writer that lives holds its folder."""
    folder = whole.state / "losses" / ".writing-0123"
    lock = StateLock(folder)
    lock.acquire()
    try:
        assert whole.kinds() == []
    finally:
        lock.release()


def test_a_half_generation_is_its_writer_s_own_business(whole):
    """A run that lives removes it with its next commit, or is about to."""
    lock = StateLock(whole.state)
    lock.acquire()
    (whole.generation(0) / "manifest").unlink()
    assert whole.kinds() == []
    lock.release()
    assert whole.kinds() == ["generation-half"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_commits_meanwhile(whole, monkeypatch, epochs):
    """Generations that it removes are not missing, and the newest one is looked at, whichever that is by then."""
    from seta_stream.store.local import LocalStore

    read, table = LocalStore.read, LossTable(whole.table().samples)
    generations, names, once = Generations(str(whole.state)), [whole.generation(1).name], iter([True])

    def commit_meanwhile(self, url):
        if url.endswith(".losses") and next(once, False):  # sidecars are read in several threads
            for epoch in range(2, 2 + epochs):
                names.append(generations.commit(epoch, table, whole.table(), None, names[-1], {}))
        return read(self, url)

    monkeypatch.setattr(LocalStore, "read", commit_meanwhile)
    assert whole.kinds() == ([] if epochs == 1 else ["losses-unseen"])
    generations.close()
    assert len(names) == epochs + 1


def test_a_generation_that_is_being_removed(whole, monkeypatch):
    """It has no manifest any more, and is gone at the second glance."""
    generation = whole.generation(0)
    manifest = generation / "manifest"
    manifest.unlink()
    look = states._history

    def removed(*arguments):
        (generation / "000000.losses").unlink()
        return look(*arguments)

    monkeypatch.setattr(states, "_history", removed)
    assert whole.kinds() == []


def test_a_damaged_manifest(whole):
    """Its generation is none."""
    path = whole.generation(1) / "manifest"
    path.write_bytes(path.read_bytes()[:-1])
    found = only(whole, "manifest-damaged")
    assert (found.file, found.severity) == (str(path), "error")


def test_pending_losses(whole):
    """Those on top of a generation that is gone, and those that are no file of theirs; others are no finding."""
    pending = Generations(str(whole.state)).pending
    pending.write("good", [1], [1.0], parent=whole.generation(1).name)
    pending.write("first", [1], [1.0])
    assert whole.kinds() == []
    pending.write("old", [1], [1.0], parent="gen-000000-gone")
    (whole.state / "pending" / "bad").write_bytes(b"no")
    found = {one.kind: one for one in whole.found()}
    assert {kind: Path(one.file).name for kind, one in found.items()} == {
        "pending-orphaned": "old", "pending-damaged": "bad",
    }  # fmt: skip


def test_a_torn_history(whole):
    """The line that a crash tore off."""
    with (whole.state / "history.jsonl").open("a") as file:
        file.write('{"epoch": 7')
    assert "The last 11 bytes" in only(whole, "history-torn").what


def test_a_damaged_history(whole):
    """A line that is no JSON, one that is no epoch's, and a kept generation without a line."""
    path = whole.state / "history.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first[5:]}\n[1]\n{second}\n")
    found = {one.kind: one for one in whole.found()}
    assert sorted(found) == ["history-damaged", "history-gap"]
    assert "2 lines are no JSON of an epoch; the first is line 1." in found["history-damaged"].what
    assert whole.generation(0).name in found["history-gap"].what


def test_no_shard_table(whole):
    """Where there are losses there should be one."""
    (whole.state / "corpus").unlink()
    assert only(whole, "corpus-missing").file == str(whole.state / "corpus")


def test_a_damaged_shard_table(whole):
    """Cut short."""
    path = whole.state / "corpus"
    path.write_bytes(path.read_bytes()[:-3])
    assert "checksum" in only(whole, "corpus-damaged").what


def test_samples_that_moved(whole):
    """The same samples in another order have another digest: the losses no longer fit."""
    members = text_members(4, 4)
    write_tar(whole.shards[1], [*members[4:], *members[:4]])
    found = {one.kind: one for one in whole.found()}
    assert sorted(found) == ["index-stale", "losses-missing", "losses-unused", "samples-moved"]
    assert found["samples-moved"].shard == found["losses-missing"].shard == str(whole.shards[1])
    assert found["losses-unused"].count == 1


def test_shards_that_came_and_went(whole, tmp_path):
    """Hints, since a part of the corpus may be meant; and a new shard has no losses."""
    new = write_tar(tmp_path / "new.tar", text_members(100, 2))
    whole.shards = [*whole.shards[:2], new]
    kinds = {one.kind: one for one in whole.found()}
    assert sorted(kinds) == ["index-missing", "losses-missing", "losses-unused", "shard-gone", "shard-unknown"]
    assert kinds["shard-unknown"].shard == str(new)


def test_every_kind_is_told_with_what_to_do(whole):
    """And as plain values, keys that are no text included."""
    for kind, facts in KINDS.items():
        assert facts.advice.endswith("."), kind
    with tarfile.open(whole.shards[0], "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("\udcff\x1b[31m.txt")
            tar.addfile(info)
    damaged = next(one for one in whole.found() if one.kind == "shard-damaged")
    assert json.dumps(damaged.to_plain())
    assert damaged.to_plain()["key"].startswith("\\xff")


def test_an_index_folder(whole, tmp_path):
    """`index=` is where indexes are looked for first, and where one that is missing would go."""
    for shard in range(3):
        whole.index(shard).unlink()
    found = whole.found(index=str(tmp_path / "indexes"))
    assert {one.kind for one in found} == {"index-missing"}
    assert {Path(one.file).parent for one in found} == {tmp_path / "indexes"}


def test_a_corpus_in_a_bucket(whole):
    """Any fsspec URL: shards are looked at many at once, and an index beside them is found."""
    from seta_stream.store import store_for

    store = store_for("memory://verify/t-0.tar")
    for shard, path in enumerate(whole.shards):
        store.write(f"memory://verify/t-{shard}.tar", path.read_bytes())
    store.write("memory://verify/t-3.tar", whole.shards[0].read_bytes()[:700])
    found = verify(Request("memory://verify/t-{0..3}.tar")).findings
    assert sorted(one.kind for one in found) == ["index-missing"] * 3 + ["shard-damaged"]
    assert isinstance(whole.table(), ShardTable)
