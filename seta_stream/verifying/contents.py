"""One shard's samples by themselves, and against an index. Pure: takes indexes, gives findings and figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.layout import shapes_of
from seta_stream.verifying.findings import Finding

FIELD_SETS: Final = 64
"""Of one shard, so many different sets of fields are told apart; rarer ones are left out."""
_NAMED: Final = 10
"""Sets of fields that differ from the common one and are told each by itself."""


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The samples of one shard that have the same fields.

    Args:
        fields: sorted.
        count: of the samples.
        shard, key, offset: where the first one lies.
    """

    fields: tuple[str, ...]
    count: int
    shard: str
    key: str
    offset: int


def difference(stored: ShardIndex, scanned: ShardIndex) -> tuple[str, str | None, int | None] | None:
    """Say where an index and its shard disagree: (what, key, offset); None where they agree.

    Args:
        stored: as the index file has it.
        scanned: the same shard, scanned now.
    """
    if stored.samples != scanned.samples:
        return f"it has {stored.samples} samples, and the shard {scanned.samples}", None, None
    if stored.keys != scanned.keys:
        place = next(at for at, key in enumerate(scanned.keys) if key != stored.keys[at])
        told = f"sample {place} is {stored.keys[place]!r} in it, and {scanned.keys[place]!r} in the shard"
        return told, scanned.keys[place], int(scanned.extent_start[place])
    if (np.diff(stored.first_member) != np.diff(scanned.first_member)).any():
        place = int(np.flatnonzero(np.diff(stored.first_member) != np.diff(scanned.first_member))[0])
        return "a sample has another number of members", scanned.keys[place], int(scanned.extent_start[place])
    return _first_other(stored, scanned)


def _first_other(stored: ShardIndex, scanned: ShardIndex) -> tuple[str, str | None, int | None] | None:
    """Compare member by member, and the facts of the whole shard."""
    # own [fields]: the scanned number of each stored field; -1, which equals none, where the shard has no such field
    own = np.array([scanned.fields.index(f) if f in scanned.fields else -1 for f in stored.fields] or [-1], np.int64)
    columns = (
        ("field", own[stored.member_field], scanned.member_field, True),
        ("offset", stored.member_offset, scanned.member_offset, True),
        ("size", stored.member_size, scanned.member_size, True),
        ("first byte", stored.extent_start, scanned.extent_start, False),
        ("last byte", stored.extent_stop, scanned.extent_stop, False),
    )
    for name, here, there, is_of_members in columns:
        wrong = np.flatnonzero(here != there)
        if len(wrong):
            at = int(wrong[0])
            place = int(np.searchsorted(scanned.first_member, at, side="right")) - 1 if is_of_members else at
            whose = "member" if is_of_members else "sample"
            numbers = "" if name == "field" else f" ({int(here[at])} in it, {int(there[at])} in the shard)"
            told = f"the {name} of a {whose} is another{numbers}; {len(wrong)} differ"
            offset = scanned.member_offset[at] if is_of_members else scanned.extent_start[at]
            return told, scanned.keys[place], int(offset)
    for name in ("digest", "tar_size", "seekable"):
        if getattr(stored, name) != getattr(scanned, name):
            return f"its {name} is another", None, None
    return None


def key_hashes(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return 8 bytes of a hash per key: uint64 [samples]."""
    raw = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys)
    return np.frombuffer(raw, "<u8").astype(np.uint64)


def repeated_keys(index: ShardIndex, hashes: NDArray[np.uint64], shard: str) -> Iterator[Finding]:
    """Give a finding where keys return in a shard: webdataset makes a new sample of each."""
    if len(np.unique(hashes)) == len(hashes):
        return
    first: dict[str, int] = {}
    again = [place for place, key in enumerate(index.keys) if first.setdefault(key, place) != place]
    if again:
        key = index.keys[again[0]]
        what = f"{len(again)} samples have a key that an earlier sample of the shard has; the first is {key!r}."
        yield Finding("key-twice", what, shard, key, int(index.extent_start[again[0]]), count=len(again))


def empty_samples(index: ShardIndex, shard: str) -> Iterator[Finding]:
    """Give a finding where samples hold no byte at all, and where the shard has no sample."""
    if not index.samples:
        yield Finding("shard-empty", "The shard holds no sample.", shard, offset=0)
        return
    sizes = np.add.reduceat(index.member_size, index.first_member[:-1])
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        first = int(empty[0])
        what = f"All members of {len(empty)} samples are empty; the first is {index.keys[first]!r}."
        yield Finding("sample-empty", what, shard, index.keys[first], int(index.extent_start[first]), count=len(empty))


def field_sets(index: ShardIndex, shard: str) -> tuple[FieldSet, ...]:
    """Return which fields the samples of a shard have, the most common set first."""
    if not index.samples:
        return ()
    shapes, shape = shapes_of(index.first_member, index.member_field)
    counts = np.bincount(shape, minlength=len(shapes)).tolist()
    _, firsts = np.unique(shape, return_index=True)
    # By set of fields: how many samples, and the place of the first; in another order they are the same set.
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for numbers, count, place in zip(shapes, counts, firsts.tolist(), strict=True):
        names = tuple(sorted(index.fields[field] for field in numbers))
        before, earliest = found.get(names, (0, place))
        found[names] = (before + count, min(earliest, place))
    common = sorted(found, key=lambda names: -found[names][0])[:FIELD_SETS]
    return tuple(
        FieldSet(names, count, shard, index.keys[place], int(index.extent_start[place]))
        for names, (count, place) in ((names, found[names]) for names in common)
    )


def differing_fields(sets: Iterable[FieldSet]) -> Iterator[Finding]:
    """Give findings for samples whose fields are not those that most samples of the corpus have.

    Where no set of fields is that of most samples, nothing is the rule, and nothing an exception.

    Args:
        sets: of all shards, in corpus order.
    """
    counts: dict[tuple[str, ...], int] = {}
    first: dict[tuple[str, ...], FieldSet] = {}
    for one in sets:
        counts[one.fields] = counts.get(one.fields, 0) + one.count
        first.setdefault(one.fields, one)
    if len(counts) < 2:
        return
    common = max(counts, key=lambda fields: counts[fields])
    total = sum(counts.values())
    if 2 * counts[common] <= total:
        return
    others = sorted((fields for fields in counts if fields != common), key=lambda fields: -counts[fields])
    for fields in others[:_NAMED]:
        lacking, more = sorted({*common} - {*fields}), sorted({*fields} - {*common})
        told = [f"lack {', '.join(lacking)}"] * bool(lacking) + [f"have {', '.join(more)} besides"] * bool(more)
        where = first[fields]
        what = (
            f"{counts[fields]} samples {' and '.join(told)}; {counts[common]} of {total} have {', '.join(common)}. "
            f"The first is {where.key!r}."
        )
        yield Finding("fields-differ", what, where.shard, where.key, where.offset, count=counts[fields])
    if others[_NAMED:]:
        rest = sum(counts[fields] for fields in others[_NAMED:])
        where = first[others[_NAMED]]
        what = f"{rest} samples have {len(others) - _NAMED} other sets of fields. The first is {where.key!r}."
        yield Finding("fields-differ", what, where.shard, where.key, where.offset, count=rest)
