"""Generations as values: names, manifests, lineages. Pure: takes and gives bytes and values.

A generation is the set of all sidecars as of the end of one epoch. Its manifest is written last: without one there is
no generation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import numpy as np

from seta_stream.errors import GenerationError, StateError
from seta_stream.losses.envelope import FileKind, pack_file, unpack_file
from seta_stream.policies.groups import AnyRule, rule_from_plain

MANIFEST: Final = FileKind(b"SETAMANI", 1, "manifest", GenerationError)
KEPT: Final = 3
"""How many generations of a lineage stay."""

_MOST: Final = 1 << 60
_FILE: Final = re.compile(r"\w[\w.-]{0,254}", re.ASCII)
"""A name without slashes that does not begin with a dot: nothing outside a generation's folder can be named."""
_NAME: Final = re.compile(r"gen-(-?\d{5,})-[0-9a-f]+")


@dataclass(frozen=True)
class SidecarEntry:
    """One sidecar of a generation.

    Args:
        file: its name in the generation's folder.
        digest: of the shard's index.
        samples: how many the shard has.
        crc: the CRC32 that the file ends with.
    """

    file: str
    digest: bytes
    samples: int
    crc: int


@dataclass(frozen=True)
class Generation:
    """All losses as of the end of one epoch.

    Args:
        name: of its folder, as gen-000007-1f2e3d4c.
        epoch: the epoch that it closes; -1 for losses from before epoch 0.
        parent: name of the generation that the epoch started from.
        rule: for the next epoch; None where none was given.
        facts: what the caller wanted kept: plain values.
        sequence: grows with each commit to the state folder, over all lineages.
        root: epoch of the first generation of the lineage.
        line: its line of history.jsonl.
        sidecars: in shard order as of the commit.
    """

    name: str
    epoch: int
    parent: str | None
    rule: AnyRule | None
    facts: Mapping[str, Any]
    sequence: int = 0
    root: int = 0
    line: Mapping[str, Any] = field(default_factory=dict)
    sidecars: tuple[SidecarEntry, ...] = ()


def generation_name(epoch: int, token: str) -> str:
    """Return the folder name of a generation."""
    return f"gen-{epoch:06d}-{token}"


def is_generation_name(name: str) -> bool:
    """Say whether a folder is named as a generation."""
    return _NAME.fullmatch(name) is not None


def plain(value: Any) -> Any:
    """Return a value of numpy scalars, arrays, tuples and mappings as what JSON and msgpack know.

    Raises:
        StateError: it holds something else.
    """
    if isinstance(value, str) and not value.isascii():
        return _spelled(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    raise StateError(
        f"Cannot keep the fact {value!r} with a generation: a {type(value).__name__} is no plain value. Pass numbers, "
        "texts, lists and dicts.",
        found=type(value).__name__,
    )


def _spelled(text: str) -> str:
    """Return a text that msgpack can hold: keys and names of files need not be UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def pack_entries(entries: Iterable[SidecarEntry]) -> bytes:
    """Return sidecars' entries as bytes, for who writes the manifest."""
    return bytes(msgpack.packb([[one.file, one.digest, one.samples, one.crc] for one in entries]))


def unpack_entries(data: bytes) -> list[SidecarEntry]:
    """Return what `pack_entries` told."""
    return [SidecarEntry(*one) for one in msgpack.unpackb(data)]


def pack_manifest(generation: Generation) -> bytes:
    """Return the manifest's bytes."""
    header = {
        "name": generation.name,
        "epoch": generation.epoch,
        "parent": generation.parent,
        "rule": None if generation.rule is None else generation.rule.to_plain(),
        "facts": plain(generation.facts),
        "sequence": generation.sequence,
        "root": generation.root,
        "line": plain(generation.line),
        "sidecars": [[one.file, one.digest, one.samples, one.crc] for one in generation.sidecars],
    }
    return pack_file(MANIFEST, header)


def unpack_manifest(data: bytes, *, name: str) -> Generation:
    """Return the generation that a manifest tells of.

    Args:
        data: the whole file.
        name: the folder it lies in, which must be its own.

    Raises:
        GenerationError: the manifest is damaged, foreign, of a future version, or another generation's.
    """
    header, _ = unpack_file(MANIFEST, data, name=f"of {name}")
    if header.get("name") != name:
        raise GenerationError(
            f"Cannot use the manifest of {name}: it is that of {header.get('name')}. Restore the folder's own name.",
            expected=name,
            found=header.get("name"),
        )
    try:
        rule, sidecars = header.pop("rule"), header.pop("sidecars")
        found = Generation(
            rule=None if rule is None else rule_from_plain(rule),
            sidecars=tuple(SidecarEntry(*one) for one in sidecars),
            **header,
        )
        _check_kinds(found)
    except (KeyError, TypeError, ValueError) as error:
        raise GenerationError(f"Cannot use the manifest of {name}: its content is malformed ({error}).") from error
    return found


def _check_kinds(found: Generation) -> None:
    """Refuse values of other kinds than `pack_manifest` writes; files of other folders among them.

    Raises:
        TypeError, ValueError: naming the value.
    """
    if not all(type(number) is int and abs(number) < _MOST for number in (found.epoch, found.sequence, found.root)):
        raise ValueError(f"its numbers are {found.epoch!r}, {found.sequence!r} and {found.root!r}")
    if not isinstance(found.parent, str | None) or (found.parent and not is_generation_name(found.parent)):
        raise ValueError(f"its parent is {found.parent!r}")
    if not isinstance(found.facts, Mapping) or not isinstance(found.line, Mapping):
        raise TypeError("its facts are no map")
    for one in found.sidecars:
        if type(one.file) is not str or not _FILE.fullmatch(one.file) or type(one.digest) is not bytes:
            raise ValueError(f"its sidecar {one.file!r} is no file of its folder")
        if not all(type(number) is int and 0 <= number < _MOST for number in (one.samples, one.crc)):
            raise ValueError(f"its sidecar {one.file} has {one.samples!r} samples and checksum {one.crc!r}")


def lineage_of(newest: Generation, kept: Mapping[str, Generation]) -> list[Generation]:
    """Return a generation and its kept ancestors, newest first, up to the first that is gone."""
    found = [newest]
    while (parent := found[-1].parent) is not None and parent in kept:
        found.append(kept[parent])
    return found


def surplus(newest: Generation, kept: Mapping[str, Generation]) -> list[Generation]:
    """Return the ancestors of a generation that need not stay, oldest last.

    The last 3 of its lineage stay, and so do those that are among the last 3 of any other lineage.
    """
    parents = {one.parent for one in kept.values()}
    tips = [one for one in kept.values() if one.name not in parents]
    needed = {one.name for tip in [newest, *tips] for one in lineage_of(tip, kept)[:KEPT]}
    return [one for one in lineage_of(newest, kept)[KEPT:] if one.name not in needed]


def pair_by_digest(digests: Sequence[bytes], entries: Iterable[SidecarEntry]) -> list[SidecarEntry | None]:
    """Return each shard's sidecar, or None; shards of equal digest take the equal sidecars in order."""
    waiting: dict[bytes, list[SidecarEntry]] = {}
    for entry in entries:
        waiting.setdefault(entry.digest, []).append(entry)
    for equal in waiting.values():
        equal.reverse()
    return [waiting[digest].pop() if waiting.get(digest) else None for digest in digests]
