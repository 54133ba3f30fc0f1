"""Claims of a foreign index, compared with the shard itself; only then an index of ours is made of them.

Takes an open shard and Claims; gives Members and a ShardIndex, or raises IndexFileError. Acts: reads headers.

Either every header is read, at the places that the index names: then the outcome is that of a fresh scan, whatever the
index says, and must agree with it. Or, where the index lists names, offsets and sizes of all members, a sample of them:
members that follow each other leave no room for anything unknown but in the gaps between them, of which there are few
lengths; of each length some are read, evenly spread, and the first and last of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.grouping import group, split_name
from seta_stream.corpus.header import BLOCK, checks, text
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.interop_ahead import HOP, walk
from seta_stream.corpus.interop_claims import Claims, Listed, Offsets, refusal
from seta_stream.corpus.tar import Members, TarScanner
from seta_stream.errors import TarError
from seta_stream.store import ShardFile

SAMPLED: Final = 64
"""Gaps of one length that are read."""
_ERROR: Final = 2 * BLOCK
"""By how much DALI's tool errs, either way: a plain extension header."""
_TAIL_HOPS: Final = 64
_BATCH: Final = 4096
_LONGEST_GAP: Final = 64 << 10
"""A longer gap holds what the index does not list: then every header is read."""


@dataclass(frozen=True, eq=False)
class Checked:
    """A shard whose foreign index held.

    Args:
        kind: of the foreign index, by what it holds.
        members: the regular members, names as they stand in the tar.
        index: ours.
        end: where the members end; the end-of-archive mark stands there.
        headers: how many members' headers were read.
        notes: what a person should know.
    """

    kind: str
    members: Members
    index: ShardIndex
    end: int
    headers: int
    notes: tuple[str, ...] = ()


def check(file: ShardFile, claims: Claims, *, whole: bool = False) -> Checked:
    """Return what a foreign index is worth: the shard's members, compared with its headers.

    Args:
        file: the open shard.
        claims: what the index says.
        whole: whether every header is read, rather than the first, the last and a sample.

    Raises:
        IndexFileError: the index and the shard do not agree.
        TarError: the shard is damaged, or holds a member that is refused.
        DuplicateFieldError: a sample holds one field twice.
        ReadError, ShardChangedError: the shard cannot be read, or was replaced meanwhile.
    """
    found = None if whole else _from_sample(file, claims)
    if found is None:
        found = _from_headers(file, claims)
    index = ShardIndex.of(group(found.members, file.url), shard_size=file.info.size, shard_version=file.info.version)
    _compare_starts(claims, index, found, file.url)
    file.check()
    notes = (*found.notes, _unended(file.url)) if found.missing_end else found.notes
    return Checked(claims.kind, found.members, index, found.end, found.headers, notes)


@dataclass(frozen=True, eq=False)
class _Found:
    members: Members
    end: int
    headers: int
    missing_end: bool
    notes: tuple[str, ...] = ()


def _from_headers(file: ShardFile, claims: Claims) -> _Found:
    """Read every header, and compare with all that the index lists."""
    if claims.members is None:
        places = np.zeros(0, np.int64) if claims.starts is None else claims.starts
    elif claims.are_exact:
        places = claims.members.befores
    else:
        places = np.unique(np.maximum(claims.members.befores - _ERROR, 0))
    scanner = walk(file, places, is_complete=claims.members is not None)
    members = scanner.members()
    notes: tuple[str, ...] = ()
    if claims.members is not None:
        notes = _compare(claims, claims.members, members, file.url)
    return _Found(members, scanner.offset, len(members), scanner.missing_end, notes)


def _compare(claims: Claims, listed: Listed, members: Members, shard: str) -> tuple[str, ...]:
    """Refuse an index that lists a member which the shard has not."""
    names = members.names.split(b"\0")
    sizes, datas = members.size.tolist(), members.data.tolist()
    at = moved = 0
    for row, (size, data) in enumerate(zip(listed.size.tolist(), listed.data.tolist(), strict=True)):
        # Members that the index leaves out are passed over: the next that fits is the one that it means.
        while at < len(datas) and not (
            sizes[at] == size
            and (datas[at] == data or not claims.are_exact)
            and _is_called(claims, listed, row, names[at])
        ):
            at += 1
        if at == len(datas):
            name = text(listed.names[row]) if listed.names is not None else ""
            raise refusal(
                claims.source,
                f"it puts a member of {size} bytes{f', {name!r},' if name else ''} at byte {data} of {shard}, and none "
                "is there",
                shard=shard,
                key=name,
                offset=data,
                expected="a header that agrees",
                found="none",
            )
        moved += datas[at] != data
        at += 1
    if not moved:
        return ()
    note = (
        f"{claims.source} puts {moved} of {len(listed)} members at wrong bytes (DALI's tool errs behind extension "
        "headers); the right ones were taken from the shard. DALI itself reads wrong bytes with it: write it anew with "
        "`seta-stream convert --to dali --overwrite`."
    )
    return (note,)


def _is_called(claims: Claims, listed: Listed, row: int, name: bytes) -> bool:
    if listed.names is not None:
        return listed.names[row] == (_folded(name) if claims.are_folded else name)
    return listed.exts is None or b"\\" in listed.exts[row] or name.endswith(listed.exts[row])


def _folded(name: bytes) -> bytes:
    """Return a name as an index of ours keeps it, its field in lower case."""
    cut = split_name(name)
    return name if cut is None else name[:cut] + text(name[cut:]).lower().encode("utf-8", "surrogateescape")


def _from_sample(file: ShardFile, claims: Claims) -> _Found | None:
    """Read some headers of an index that lists names; None where that cannot tell, so that all must be read."""
    listed = claims.members
    if listed is None or listed.names is None or not len(listed):
        return None
    gaps = listed.data - listed.befores
    if int(gaps.min()) < BLOCK or int(gaps.max()) > _LONGEST_GAP:
        return None
    chosen = _chosen(gaps, listed, by_field=claims.are_folded)
    seen = _look(file, claims, listed, np.flatnonzero(chosen))
    if seen is None:
        return None
    # Lengths of gaps in which something but one member's headers was met: all of them are read.
    odd = np.unique(gaps[[row for row, members in seen.items() if len(members) > 1 or _is_late(listed, row, members)]])
    more = _look(file, claims, listed, np.flatnonzero(np.isin(gaps, odd) & ~chosen))
    tail = _tail(file, int(listed.stops[-1]))
    if more is None or tail is None:
        return None
    seen.update(more)
    members = _assembled(listed, seen, tail.members())
    return _Found(members, tail.offset, sum(map(len, seen.values())) + tail.count, tail.missing_end)


def _chosen(gaps: Offsets, listed: Listed, *, by_field: bool) -> NDArray[np.bool_]:
    """Return bool [members]: the first, the last, and SAMPLED of each kind, evenly spread.

    A kind is a length of gap; where names may have been folded, a field too: one in capitals shows so.
    """
    chosen = np.zeros(len(gaps), np.bool_)
    chosen[[0, -1]] = True
    kinds = [gaps]
    if by_field:
        fields = [name[split_name(name) :] for name in listed.names or ()]
        number = {field: place for place, field in enumerate(dict.fromkeys(fields))}
        kinds.append(np.fromiter(map(number.__getitem__, fields), np.int64, len(fields)))
    for kind in kinds:
        order = np.argsort(kind, kind="stable")
        _, begins, counts = np.unique(kind[order], return_index=True, return_counts=True)
        for begin, count in zip(begins.tolist(), counts.tolist(), strict=True):
            chosen[order[begin + np.linspace(0, count - 1, min(count, SAMPLED)).astype(np.int64)]] = True
    return chosen


def _look(file: ShardFile, claims: Claims, listed: Listed, rows: NDArray[np.int64]) -> dict[int, Members] | None:
    """Return what stands in the gap before each of some members, that one included; None where all must be read."""
    seen: dict[int, Members] = {}
    befores = listed.befores
    for first in range(0, len(rows), _BATCH):
        batch = rows[first : first + _BATCH].tolist()
        spans = [(int(befores[row]), int(listed.data[row] - befores[row])) for row in batch]
        for row, data in zip(batch, file.read_spans(spans), strict=True):
            if _holds_global(data):
                return None
            members = _members_in(data, int(befores[row]), file.url)
            if not _is_right(listed, row, members):
                if not claims.are_exact or (claims.are_folded and _is_right(listed, row, members, fold=True)):
                    return None
                raise _disagreement(claims, listed, row, members, file.url)
            seen[row] = members
    return seen


def _holds_global(data: bytes) -> bool:
    """Say whether a block may be a global extension header, which holds for all members behind it."""
    blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return any(block[156:157] == b"g" and checks(block) for block in blocks if len(block) == BLOCK)


def _members_in(data: bytes, offset: int, shard: str) -> Members:
    """Return the members whose headers stand in `data`; none where something else stands there."""
    scanner = TarScanner(shard)
    scanner.offset = offset
    try:
        scanner.feed(data)
    except TarError:
        return TarScanner(shard).members()
    return scanner.members()


def _is_right(listed: Listed, row: int, members: Members, *, fold: bool = False) -> bool:
    """Say whether the last of the members in a gap is the one that the index lists behind it."""
    if not len(members) or listed.names is None:
        return False
    name = members.names[:-1].rpartition(b"\0")[2]
    agrees = (_folded(name) if fold else name) == listed.names[row]
    return agrees and members.data[-1] == listed.data[row] and members.size[-1] == listed.size[row]


def _is_late(listed: Listed, row: int, members: Members) -> bool:
    """Say whether a member's first header stands behind the begin of its gap, where something skipped lies."""
    return bool(members.start[0] != listed.befores[row])


def _disagreement(claims: Claims, listed: Listed, row: int, members: Members, shard: str) -> Exception:
    data, size = int(listed.data[row]), int(listed.size[row])
    name = text(listed.names[row]) if listed.names is not None else ""
    found = "no tar header"
    if len(members):
        last = text(members.names[:-1].rpartition(b"\0")[2])
        found = f"that of {last!r}, {members.size[-1]} bytes at byte {members.data[-1]}"
    return refusal(
        claims.source,
        f"it puts {name!r}, {size} bytes, at byte {data} of {shard}; the header before it is {found}",
        shard=shard,
        key=name,
        offset=data,
        expected=f"the header of {name!r}",
        found=found,
    )


def _tail(file: ShardFile, begin: int) -> TarScanner | None:
    """Return a scanner that has seen what stands behind the last listed member; None where that is much, or damaged."""
    scanner = TarScanner(file.url)
    scanner.offset = begin
    for _ in range(_TAIL_HOPS):
        left = max(0, file.info.size - scanner.offset)
        try:
            if left < scanner.need:
                scanner.end(file.info.size, file.read(scanner.offset, left) if left else b"")
            else:
                data = file.read(scanner.offset, min(max(HOP, scanner.need), left))
                if _holds_global(data):
                    return None
                scanner.feed(data)
        except TarError:
            return None
        if scanner.finished:
            return scanner
    return None


def _assembled(listed: Listed, seen: dict[int, Members], tail: Members) -> Members:
    """Return all members: those listed, with what was met in gaps and behind the last."""
    starts, names = listed.befores, listed.names or ()
    late = {row: members for row, members in seen.items() if len(members) > 1 or _is_late(listed, row, members)}
    if not late and not len(tail):
        return Members(starts, listed.data, listed.size, b"\0".join([*names, b""]))
    rows = np.array(sorted(late), np.int64)
    for row in rows.tolist():
        starts[row] = late[row].start[-1]
    extra = [_without_last(late[row]) for row in rows.tolist()] + [tail]
    start, data, size = (
        np.concatenate([own, *(getattr(members, name) for members in extra)])
        for own, name in ((starts, "start"), (listed.data, "data"), (listed.size, "size"))
    )
    order = np.argsort(data, kind="stable")
    raw = [*names, *(name for members in extra for name in members.names.split(b"\0")[:-1])]
    return Members(start[order], data[order], size[order], b"\0".join([*(raw[at] for at in order.tolist()), b""]))


def _without_last(members: Members) -> Members:
    names = members.names[:-1].rpartition(b"\0")
    return Members(members.start[:-1], members.data[:-1], members.size[:-1], names[0] + names[1])


def _compare_starts(claims: Claims, index: ShardIndex, found: _Found, shard: str) -> None:
    """Refuse an index whose samples begin elsewhere, or that ends before its last one does, or behind all."""
    last = int(index.extent_stop[-1]) if index.samples else 0
    if claims.end is not None and not last <= claims.end <= found.end:
        raise refusal(
            claims.source,
            f"it ends at byte {claims.end} of {shard}, and the samples of the shard at byte {last}",
            shard=shard,
            offset=claims.end,
            expected=found.end,
            found=claims.end,
        )
    if claims.starts is None:
        return
    same = np.isin(index.extent_start, claims.starts)
    # Samples that are marked `__bad__` are dropped here alone.
    dropped = len(claims.starts) - index.samples if "__bad__" in index.fields else 0
    if same.all() and len(claims.starts) - dropped == index.samples:
        return
    wrong: Sequence[int] = np.setdiff1d(claims.starts, index.extent_start).tolist()
    where = wrong[0] if wrong else int(index.extent_start[~same][0])
    raise refusal(
        claims.source,
        f"it lists {len(claims.starts)} samples of {shard}, one at byte {where}; by its headers the shard has "
        f"{index.samples}, and they differ there first",
        shard=shard,
        offset=where,
        expected=index.samples,
        found=len(claims.starts),
    )


def _unended(shard: str) -> str:
    return (
        f"{shard} has no end-of-archive blocks: it may have been cut at a member's end. Its whole samples are used; if "
        "there should be more, restore the shard."
    )
