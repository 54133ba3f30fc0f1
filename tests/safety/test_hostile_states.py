"""Files of a state and checkpoints made to do harm: one error each, and nothing outside is touched."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from limits import MIB, within
from small_corpora import MakeCorpus

from seta_stream import SeTa, SetaStream
from seta_stream.carry.masks import read_selection
from seta_stream.draws import WordSource
from seta_stream.errors import (
    CheckpointError,
    CorpusError,
    GenerationError,
    PolicyError,
    SetaStreamWarning,
    SidecarError,
    StateError,
)
from seta_stream.foreign import HEADER_BYTES, read_json, read_msgpack
from seta_stream.losses.envelope import FileKind, pack_file, unpack_file
from seta_stream.losses.generations import Generations
from seta_stream.losses.history import parse_history
from seta_stream.losses.manifest import MANIFEST, plain, unpack_manifest
from seta_stream.losses.pending import PENDING, pack_pending, parent_of, unpack_pending
from seta_stream.losses.sidecar import SIDECAR, unpack
from seta_stream.plan.lanes import divisors
from seta_stream.policies.groups import rule_from_plain
from seta_stream.policies.rule import Rule
from seta_stream.policies.runs import Runs, RunWords, run_scores
from seta_stream.repack.record import RECORD, Record
from seta_stream.repack.record import unpack_manifest as unpack_settings
from seta_stream.scoring.folder import parse_failures

NAME = "gen-000001-0a"
DEEP = b"[" * 200_000
NESTED = b"\x91" * 200_000


def file(kind: FileKind, packed: bytes, body: bytes = b"") -> bytes:
    """Return a file with any bytes for its header, and a right checksum."""
    data = struct.pack("<8sHHI", kind.magic, 1, 0, len(packed)) + packed + body
    return data + struct.pack("<I", zlib.crc32(data))


HEADERS = {
    "nesting": NESTED,
    "an array of 2^32": b"\xdd\xff\xff\xff\xff",
    "a map of 2^32": b"\xdf\xff\xff\xff\xff",
    "a text of 2^32": b"\xdb\xff\xff\xff\xff",
    "a list as key": b"\x81\x90\x01",
    "a map as key": b"\x81\x80\x01",
    "an extension": b"\xd4\x05\x00",
    "a time before all": b"\xc7\x0c\xff\xff\xff\xff\xff\x80\0\0\0\0\0\0\0",
    "a text that is none": b"\xa2\xff\xfe",
    "two values": b"\x01\x02",
    "nothing": b"",
    "a byte of no meaning": b"\xc1",
}
"""msgpack that is malformed, or made to take memory."""


@pytest.mark.parametrize("kind", [SIDECAR, MANIFEST, PENDING, RECORD], ids=lambda kind: kind.noun)
@pytest.mark.parametrize("name", HEADERS)
def test_a_malicious_header_is_refused(kind: FileKind, name: str) -> None:
    """Whatever its checksum says; by the file's own error, in a few MiB."""
    with within(16 * MIB), pytest.raises(kind.error, match=rf"Cannot use the {kind.noun} x: its header is"):
        unpack_file(kind, file(kind, HEADERS[name]), name="x")


def test_a_header_of_any_length_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small values take seventy times their bytes: there is a limit."""
    monkeypatch.setattr("seta_stream.foreign.HEADER_BYTES", 1000)
    with pytest.raises(StateError, match="it has 1001 bytes, and 1000 at most are read"):
        unpack_file(PENDING, file(PENDING, b"\xc0" * 1001), name="x")
    assert HEADER_BYTES == 256 * MIB


@pytest.mark.parametrize("data", [DEEP, DEEP + b"]" * 200_000, b'{"a":' * 200_000])
def test_nested_json_is_no_json(data: bytes) -> None:
    """The interpreter's stack is nobody's to end."""
    with pytest.raises(ValueError, match="it is nested too deep"):
        read_json(data)


def test_msgpack_of_other_keys_is_read_where_it_is_meant() -> None:
    """Numbers as keys, as the state's files may have them."""
    packed = msgpack.packb({1: 2})
    assert read_msgpack(packed, any_keys=True) == {1: 2}
    with pytest.raises(ValueError, match="int is not allowed for map key"):
        read_msgpack(packed)


SIDECARS: dict[str, tuple[dict[Any, Any], bytes, str]] = {
    "losses of no kind": ({"samples": 1, "losses": ["float16"]}, b"abc", "does not say how its losses are stored"),
    "2^60 samples": ({"samples": 1 << 60, "losses": "float16"}, b"abc", "samples need"),
    "samples that are true": ({"samples": True, "losses": "float16"}, b"abc", "does not say how its losses"),
    "columns of objects": (
        {"samples": 1, "losses": "float16", "columns": [["a", "object"]]}, b"abc", "its columns are malformed"),
    "columns of lists": (
        {"samples": 1, "losses": "float16", "columns": [["a", ["uint8"]]]}, b"abc", "its columns are malformed"),
    "a great many columns": (
        {"samples": 1, "losses": "float16", "columns": [["a", "uint8"]] * 20_000}, b"abc", "columns of 1 samples need"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDECARS)
def test_a_malicious_sidecar_is_refused(name: str) -> None:
    """Its samples count as unseen; the arrays that it claims are not made."""
    header, body, told = SIDECARS[name]
    with within(32 * MIB), pytest.raises(SidecarError, match=told):
        unpack(pack_file(SIDECAR, header, body), name="x")


def manifest(changes: dict[Any, Any]) -> bytes:
    """Return a manifest with a right checksum, whatever it says."""
    header: dict[str, Any] = {"name": NAME, "epoch": 1, "parent": None, "rule": None, "facts": {}, "sequence": 1,
                              "root": 0, "line": {}, "sidecars": [["000000.losses", b"d" * 16, 4, 7]]}  # fmt: skip
    return pack_file(MANIFEST, header | changes)


def test_a_right_manifest_is_read() -> None:
    """So that those below are refused for what they change."""
    assert unpack_manifest(manifest({}), name=NAME).sidecars[0].samples == 4


MANIFESTS: dict[str, dict[Any, Any]] = {
    "a sidecar above": {"sidecars": [["../../../etc/passwd", b"d", 4, 7]]},
    "a sidecar at the root": {"sidecars": [["/etc/passwd", b"d", 4, 7]]},
    "a hidden sidecar": {"sidecars": [[".ssh", b"d", 4, 7]]},
    "a sidecar that is the folder": {"sidecars": [["..", b"d", 4, 7]]},
    "a sidecar of bytes": {"sidecars": [[b"x", b"d", 4, 7]]},
    "a sidecar with a NUL": {"sidecars": [["a\0b", b"d", 4, 7]]},
    "negative samples": {"sidecars": [["a", b"d", -4, 7]]},
    "half a sample": {"sidecars": [["a", b"d", 4.5, 7]]},
    "a digest of text": {"sidecars": [["a", "d", 4, 7]]},
    "sidecars that are a number": {"sidecars": 7},
    "an epoch of text": {"epoch": "1"},
    "an epoch of 2^62": {"epoch": 1 << 62},
    "a parent that is a list": {"parent": []},
    "a parent elsewhere": {"parent": "../../gen-00001-a"},
    "facts that are a list": {"facts": []},
    "a line that is a text": {"line": "x"},
    "a rule that is a list": {"rule": []},
    "a rule of groups that are none": {"rule": {"groups": [1]}},
    "a rule of no steps": {"rule": {"edges": [], "keep": []}},
    "a rule that keeps a list": {"rule": {"edges": [], "keep": [1], "unseen_keep": [1]}},
    "more than there is": {"unknown": 1},
    "a number as a name": {1: 2},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_malicious_manifest_is_refused(name: str) -> None:
    """No file outside its folder is named, and nothing of another kind comes further."""
    with pytest.raises(GenerationError, match=rf"Cannot use the manifest of {NAME}: its content is malformed"):
        unpack_manifest(manifest(MANIFESTS[name]), name=NAME)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "it is no map"),
        ({"groups": []}, "it is no map"),
        ({"groups": {"a": 1}}, "Cannot read a rule from 1"),
        ({"edges": [], "keep": [10**400]}, "must be numbers"),
        ({"edges": [], "keep": [1.0], "unseen_weight": [1.0]}, "Cannot read a rule"),
    ],
)
def test_a_rule_of_other_kinds_is_refused(told: Any, why: str) -> None:
    """By the policy's error, wherever it came from."""
    with pytest.raises(PolicyError, match=why):
        rule_from_plain(told)
    assert isinstance(rule_from_plain({"edges": [], "keep": [1.0]}), Rule)


def test_a_damaged_pending_file_does_not_end_a_commit(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """What lies in the folder beside a run's own files is looked at when old ones go; a list for a parent is none."""
    assert parent_of(pack_file(PENDING, {"losses": 0, "parent": []})) == ""
    state = tmp_path / "state"
    with SetaStream(make_corpus(1, 8), batch_size=2, state=str(state)) as stream:
        for epoch in range(6):
            stream.set_epoch(epoch)
            (state / "pending").mkdir(exist_ok=True)
            (state / "pending" / "planted").write_bytes(pack_file(PENDING, {"losses": 0, "parent": []}))
            for batch in stream.batches(2):
                stream.record(batch["__index__"], [1.0, 2.0])
    assert len(Generations(str(state)).kept()) == 3


def test_pending_losses_hold_what_they_say() -> None:
    """Counts that do not go with the bytes are refused."""
    right = pack_pending(np.arange(3), np.ones(3), NAME)
    assert len(unpack_pending(right, name="x").ids) == 3
    for changes in ({"losses": 1 << 60}, {"losses": -1}, {"losses": 1.0}, {"calls": 1 << 60}, {"columns": {"a": 1}}):
        data = pack_file(PENDING, {"losses": 3, "parent": None} | changes, bytes(36))
        with pytest.raises(StateError, match="Cannot use the pending losses x"):
            unpack_pending(data, name="x")


@pytest.mark.parametrize(
    "changes",
    [
        {"pieces": [[b"d", 0, 1 << 33]]},
        {"pieces": [[b"d", -1, 3]]},
        {"pieces": [[b"d", 0, 1 << 31]], "samples": 1 << 31},
        {"pieces": [["d", 0, 2]]},
        {"samples": 2.0},
        {"samples": 3},
    ],
)
def test_a_malicious_record_is_refused(changes: dict[str, Any]) -> None:
    """What `repack` kept beside its shards claims no more than is there."""
    header = {"size": 1, "samples": 2, "members": 2, "extent_bytes": 1, "fingerprint": b"", "digest": b"",
              "version": b"", "pieces": [[b"d", 0, 2]]}  # fmt: skip
    order = np.arange(2, dtype="<u4").tobytes()
    assert Record.from_bytes(pack_file(RECORD, header, order), "x").samples == 2
    with within(8 * MIB), pytest.raises(StateError, match="Cannot use the record x"):
        Record.from_bytes(pack_file(RECORD, header | changes, order), "x")


def test_other_json_is_refused_by_its_reader() -> None:
    """Nesting, and values of other kinds, in each of the files that are JSON."""
    with pytest.raises(StateError, match="not the manifest of a repack"):
        unpack_settings(DEEP, "x")
    with pytest.raises(CorpusError, match="Cannot read the selection x: it is malformed"):
        read_selection(DEEP, "x")
    with pytest.raises(CorpusError, match="it is malformed"):
        read_selection(b"# seta_stream selection 1\n# 7\n", "x")
    lines, damaged = parse_history(b"\n".join([DEEP, b"7", b'{"generation": []}', b'{"generation": "a"}', b'{"torn']))
    assert (lines, damaged) == ([{"generation": "a"}], [1, 2, 3])
    for told in (DEEP, b"[]", b'{"failed": 5, "failures": []}', b'{"failed": {"decode": Infinity}, "failures": []}',
                 b'{"failed": {}, "failures": [{"key": 1}]}', b'{"failed": {"decode": -1}, "failures": []}',
                 b'{"failed": {}, "failures": [{"url": "a", "key": "b", "cause": "c", "message": "d"}]}'):  # fmt: skip
        with pytest.raises(StateError, match="Cannot use the failures of a shard: they are malformed"):
            parse_failures(told)


def test_facts_of_foreign_bytes_can_be_kept() -> None:
    """Keys need not be UTF-8, and a manifest holds them all the same: a score with a failure there was lost."""
    kept = plain({"k\udcff": ["\udcff", "\ud800", "é", 1]})
    assert kept == {"k\\xff": ["\\xff", "\\ud800", "é", 1]}
    msgpack.packb(kept)


# ---- checkpoints


def right(make_corpus: MakeCorpus, tmp_path: Path) -> tuple[Callable[[], SetaStream], dict[str, Any]]:
    """Return what makes a stream, and a checkpoint of it."""
    paths = make_corpus(1, 12)

    def make() -> SetaStream:
        policy = SeTa(num_epochs=4, prune_ratio=0.1, num_group=2, window_scale=1.0)
        return SetaStream(paths, policy=policy, batch_size=2, state=str(tmp_path / "state"))

    with make() as stream:
        batch = next(iter(stream.batches(2)))
        stream.record(batch["__index__"], [1.0, 2.0])
        return make, stream.state_dict()


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a global batch of 10^24": lambda one: one | {"geometry": one["geometry"] | {"rows": 10**12, "batch": 10**12}},
    "2^40 lanes": lambda one: one | {"geometry": one["geometry"] | {"width": (1 << 40) - 1}},
    "numbers without an end": lambda one: one | {"epoch": 10**400},
    "a million writers": lambda one: one | {"writers": 1_000_000, "pending": "x"},
    "losses of another folder": lambda one: one | {"pending": "../../etc/passwd"},
    "losses at the root": lambda one: one | {"pending": "/etc/passwd"},
    "losses of a hidden file": lambda one: one | {"pending": ".bashrc"},
    "a generation elsewhere": lambda one: one | {"generation": "../x"},
    "a rule that is a list": lambda one: one | {"rule": [1]},
    "groups that are a list": lambda one: one | {"rule": {"groups": []}},
    "a keep of 10^400": lambda one: one | {"rule": {"edges": [], "keep": [10**400]}},
    "a policy of bytes": lambda one: one | {"policy": {"name": b"x"}},
    "a policy that is a number": lambda one: one | {"policy": 3},
    "a fingerprint that is a list": lambda one: one | {"fingerprint": []},
    "runs of a negative length": lambda one: one | {"runs": {"length": -1}},
    "a geometry that is a text": lambda one: one | {"geometry": "blocks"},
    "an order that is a list": lambda one: one | {"geometry": one["geometry"] | {"order": []}},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_malicious_checkpoint_is_refused(name: str, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """At once, by CheckpointError: no file outside the state is looked for, nothing is counted to 10^24."""
    make, one = right(make_corpus, tmp_path)
    with make() as stream:
        with within(16 * MIB), pytest.raises(CheckpointError, match="The checkpoint is damaged"):
            stream.load_state_dict(CHECKPOINTS[name](one))
        stream.load_state_dict(one)


def test_a_checkpoint_of_a_large_batch_is_compared_fast(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """The numbers of ranks that divide a batch are found without trying each."""
    make, one = right(make_corpus, tmp_path)
    large = one | {"geometry": one["geometry"] | {"rows": 1 << 19, "batch": 1 << 19, "block": 1 << 19, "width": 1}}
    with make() as stream:
        with within(16 * MIB), pytest.raises(CheckpointError, match="global batch was 274877906944"):
            stream.load_state_dict(large)
        stream.load_state_dict(one)


@pytest.mark.parametrize("unit", ["sample", "run"])
def test_runs_longer_than_any_shard(unit: str, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A run of 2^59 samples is as long as its shard, and takes no more memory than that."""
    length = 1 << 59
    with within(8 * MIB):
        words = RunWords(WordSource(1, "keep", 0), length).words(0, 5)
        assert set(words.tolist()) == {words[0]}
        assert run_scores(np.ones(4, np.float32), np.array([0, 2, 4]), length).tolist() == [1.0] * 4
    with pytest.raises(ValueError, match="its runs are"):
        Runs.from_plain({"unit": unit, "run_bytes": 0, "length": 1 << 60})


@pytest.mark.parametrize("whole", [1, 2, 12, 36, 97, 2048, 1 << 39])
def test_divisors_are_all_of_them(whole: int) -> None:
    """Ascending, each once."""
    found = divisors(whole)
    assert found == sorted(set(found))
    assert all(whole % one == 0 for one in found)
    if whole < 5000:
        assert found == [one for one in range(1, whole + 1) if whole % one == 0]


def test_a_state_of_strangers_is_looked_at_without_harm(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Manifests that cannot be are left aside with a warning, and the others used."""
    state = tmp_path / "state"
    with SetaStream(make_corpus(1, 8), batch_size=2, state=str(state)) as stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in stream.batches(2):
                stream.record(batch["__index__"], [1.0, 2.0])
    planted = state / "losses" / NAME
    planted.mkdir()
    (planted / "manifest").write_bytes(manifest({"sidecars": [["../../../x", b"d", 1, 1]]}))
    with pytest.warns(SetaStreamWarning, match=r"Cannot use the manifest of .*The generation is left aside"):
        assert NAME not in {one.name for one in Generations(str(state)).kept()}
