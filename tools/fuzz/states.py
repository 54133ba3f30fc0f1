"""The files of a state: sidecars, manifests, pending losses, calls, records, writers; and history and scoring folders.

The first byte says which reader is asked, and whether the rest is a file, whose checksum is mended, or changes of the
header of a right one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgpack
import numpy as np

from fuzz.editing import edited
from fuzz.making import refusing, with_crc, with_header
from seta_stream.errors import SetaStreamError
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.envelope import peek_header
from seta_stream.losses.history import parse_history
from seta_stream.losses.manifest import (
    Generation,
    SidecarEntry,
    lineage_of,
    pack_manifest,
    pair_by_digest,
    surplus,
    unpack_manifest,
)
from seta_stream.losses.outbox import pack_calls, unpack_calls
from seta_stream.losses.pending import PENDING, pack_pending, parent_of, unpack_pending
from seta_stream.losses.recording import Recorded
from seta_stream.losses.sidecar import pack, unpack
from seta_stream.policies.groups import GroupRules
from seta_stream.policies.rule import Rule
from seta_stream.repack.record import Record
from seta_stream.repack.record import pack_manifest as pack_settings
from seta_stream.repack.record import unpack_manifest as unpack_settings
from seta_stream.report.prices import Price
from seta_stream.report.runfigures import Costs, drawable, figures_of, usable_lines
from seta_stream.scoring.folder import parse_failures

NAME = "gen-000001-0a"
DIGEST = b"d" * 16


def seeds() -> Iterator[bytes]:
    """Give one of each file, with and without what it may lack."""
    losses = np.array([0.5, 1.5, np.nan, 1.0009765], np.float32)
    ages = np.array([0, 1, 255, 3], np.uint8)
    columns = {"ema": losses.copy(), "flags": ages}
    yield b"\0" + pack(losses, ages, DIGEST)
    yield b"\0" + pack(losses * np.float32(1e30), ages, DIGEST, columns)
    entries = tuple(SidecarEntry(f"{shard:06d}.losses", DIGEST, 4, shard) for shard in range(2))
    rule = Rule([1.0], [1.0, 0.5], [1.0, 2.0], 0.5)
    for one_rule in (None, rule, GroupRules({"a": rule, "b": rule})):
        yield b"\1" + pack_manifest(Generation(NAME, 1, None, one_rule, {"seed": 1}, 2, 0, {"epoch": 1}, entries))
    calls = pack_calls([Recorded(np.arange(3), losses[:3], {"flags": ages[:3]})])
    yield b"\2" + pack_pending(np.arange(4), losses, NAME)
    yield b"\2" + pack_pending(np.arange(4), losses, NAME, columns, calls)
    yield b"\3" + calls
    yield b"\4" + Record(DIGEST, DIGEST, 9216, "etag:1", 4, 8, 4096, ((DIGEST, 0, 4),), np.arange(4)).to_bytes()
    yield b"\5" + pack_settings({"order": "loss", "shards": ["a", "b"]})
    line = {"epoch": 1, "generation": NAME, "parent": None, "samples": 4, "seen": 3, "unseen": 1,
            "rule": rule.to_plain(),
            "histogram": {"edges": [0.5, 1.0, 1.5], "counts": [2, 1]}, "facts": {"selected": 2, "seconds": 1.5},
            "mean": 1.0, "minimum": 0.5, "maximum": 1.5, "expected_share": 0.5}  # fmt: skip
    yield b"\6" + json.dumps(line).encode() + b"\n" + json.dumps({**line, "epoch": 2, "parent": NAME}).encode() + b"\n"
    for which in range(8):
        yield bytes([128 + which]) + bytes(range(3, 63, 3))
    failure = {"key": "a", "cause": "decode", "why": "it is none"}
    yield b"\7" + json.dumps({"failed": {"decode": 1}, "failures": [failure]}).encode()


def one(data: bytes) -> None:
    """Read one file, and use it as its readers do."""
    first, data = data[0] if data else 0, data[1:]
    which = first % 8
    if first & 128:
        data = _changed(which, RIGHT[which][first // 8 % 16 % len(RIGHT[which])], data[:30])
    with refusing():
        (_sidecar, _manifest, _pending, _calls, _record, _settings, _history, _failures)[which](data)


RIGHT = [[seed[1:] for seed in seeds() if seed[0] == which] for which in range(8)]


def _changed(which: int, right: bytes, edits: bytes) -> bytes:
    """Return a right file with changes of what it tells."""
    if which in (0, 1, 2, 4):
        return with_header(right, edits, "<8sHHI")
    try:
        if which == 3:
            return msgpack.packb(edited(msgpack.unpackb(right), edits))
        return (
            b"\n".join(json.dumps(edited(json.loads(line), edits)).encode() for line in right.split(b"\n") if line)
            + b"\n"
        )
    except (TypeError, ValueError, OverflowError):
        return right


def _sidecar(data: bytes) -> None:
    held = unpack(with_crc(data), None, name="a file")
    assert len(held.losses) == len(held.ages), "a loss without an age"
    assert not np.isinf(held.losses).any(), "an infinite loss"
    assert all(len(column) == len(held.losses) for column in held.columns.values()), "a column of another length"
    for name, values in held.columns.items():
        Column(name, str(values.dtype), 0, latest)


def _manifest(data: bytes) -> None:
    found = unpack_manifest(with_crc(data), name=NAME)
    sorted([found, found], key=lambda one: (one.sequence, one.epoch, one.name))
    pair_by_digest([DIGEST], found.sidecars)
    lineage_of(found, {NAME: found} if found.parent != NAME else {})
    surplus(found, {} if found.parent == NAME else {NAME: found})
    assert all("/" not in entry.file for entry in found.sidecars), "a sidecar outside its folder"
    assert sum(entry.samples for entry in found.sidecars) >= 0, "a negative number of samples"
    found.facts.get("policy")
    pack_manifest(found)


def _pending(data: bytes) -> None:
    mended = with_crc(data)
    found = unpack_pending(mended, name="a file")
    assert len(found.ids) == len(found.losses), "an id without a loss"
    peek_header(PENDING, mended[:512])
    assert parent_of(mended) is None or type(parent_of(mended)) is str, "a parent that is no name"


def _calls(data: bytes) -> None:
    try:
        unpack_calls(data)
    except SetaStreamError:
        raise
    except ValueError:  # whoever reads the file tells its name
        return


def _record(data: bytes) -> None:
    Record.from_bytes(with_crc(data), "a file")


def _settings(data: bytes) -> None:
    unpack_settings(data, "a file")


def _history(data: bytes) -> None:
    lines, _ = parse_history(data)
    figures_of(usable_lines(lines, NAME), Costs(Price(0.1, 0.1, "here")))
    {line.get("generation") for line in lines}
    drawable(usable_lines(lines, NAME))


def _failures(data: bytes) -> None:
    parse_failures(data)
