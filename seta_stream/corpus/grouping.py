"""Members → samples, by WebDataset's rule.

Takes the members of one shard; gives the samples' keys, their members' fields and their extents. Pure.

Source:
    webdataset 1.0.2, tariterators.py: base_plus_ext, tar_file_iterator (what is skipped), group_by_keys. A conformance
    test compares the two on random tars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, compress
from operator import ne
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.header import BLOCK, text
from seta_stream.corpus.tar import Members
from seta_stream.errors import CorpusError, DuplicateFieldError

_NAME: Final = re.compile(rb"^((?:.*/|)[^.]+)[.]([^/]*)$")
_SKIPPED: Final = re.compile(rb"__[^/]*__($|/)")
_RESERVED: Final = ("__key__", "__url__", "__local_path__")
"""What webdataset puts into a sample itself; a member of that field would collide."""

_MOST_FIELDS: Final = 1 << 16
_SLASH, _DOT, _NEWLINE, _UNDERLINE = b"/.\n_"


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of one shard.

    Args:
        keys: raw keys, each ended by a NUL, in shard order.
        fields: distinct field names in order of first appearance.
        first_member: int64 [samples+1].
        member_field: uint16 [members], number in `fields`.
        member_offset: int64 [members], of the body.
        member_size: int64 [members].
        extent_start: int64 [samples], first header of the first member.
        extent_stop: int64 [samples], padded end of the last member.
    """

    keys: bytes
    fields: tuple[str, ...]
    first_member: NDArray[np.int64]
    member_field: NDArray[np.uint16]
    member_offset: NDArray[np.int64]
    member_size: NDArray[np.int64]
    extent_start: NDArray[np.int64]
    extent_stop: NDArray[np.int64]


def split_name(name: bytes) -> int | None:
    """Return where key and field of a member's name are cut (the dot's position); None if it belongs to no sample."""
    if _SKIPPED.match(name) or (b"/" not in name and name.startswith(b"__") and name.endswith(b"__")):
        return None
    match = _NAME.match(name)
    return match.end(1) if match else None


def group(members: Members, shard: str) -> Samples:
    """Return the samples that webdataset would form.

    Consecutive members with one key are a sample; a key that returns later begins another one. Skipped members
    (folders, `__meta__`, names without a field) belong to none and do not end a sample.

    Args:
        members: regular members in shard order.
        shard: URL for messages.

    Raises:
        DuplicateFieldError: a sample holds one field twice, or a field that WebDataset sets itself.
        CorpusError: there are more than 65,536 different fields.
    """
    keys, raw_fields, kept = _keys_and_fields(members.names)
    fields, member_field = _fields(raw_fields, shard)
    # bool [members]: does a sample begin here?
    begins = np.fromiter(map(ne, keys, chain((None,), keys)), np.bool_, len(keys))
    sample = np.cumsum(begins) - 1
    start, data, size = members.start[kept], members.data[kept], members.size[kept]
    _refuse_duplicates(sample, member_field, keys, fields, start, shard)
    if "__bad__" in fields:
        good = ~_is_bad(sample, member_field == fields.index("__bad__"), size)
        keys, begins, member_field = list(compress(keys, good)), begins[good], member_field[good]
        start, data, size = start[good], data[good], size[good]
    first_member = np.append(np.flatnonzero(begins), len(keys))
    lasts = first_member[1:] - 1
    return Samples(
        keys=b"\0".join([*compress(keys, begins), b""]),
        fields=fields,
        first_member=first_member,
        member_field=member_field,
        member_offset=data,
        member_size=size,
        extent_start=start[first_member[:-1]],
        extent_stop=data[lasts] + -(-size[lasts] // BLOCK) * BLOCK,
    )


def _keys_and_fields(names: bytes) -> tuple[list[bytes], list[bytes], NDArray[np.bool_]]:
    """Return keys and fields of the members that belong to a sample, and bool [members]: which these are."""
    dots, lengths = _cut(names)
    kept = dots >= 0
    # Each name's cut becomes a NUL like its end, names without one go: then one split gives key, field, key, field …
    flat = np.frombuffer(names, np.uint8).copy()
    flat[dots[kept]] = 0
    parts = (flat if kept.all() else flat[np.repeat(kept, lengths)]).tobytes().split(b"\0")
    return parts[:-1:2], parts[1::2], kept


def _cut(names: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return int64 [members]: where in `names` each name is cut (-1: belongs to no sample), and its length with NUL."""
    flat = np.frombuffer(names, np.uint8)
    ends = np.flatnonzero(flat == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    # Positions in `flat` of the last slash before each end and of the first dot behind it.
    slashes = np.concatenate([[-1], np.flatnonzero(flat == _SLASH)])
    bases = np.maximum(starts, slashes[np.searchsorted(slashes, ends) - 1] + 1)
    all_dots = np.append(np.flatnonzero(flat == _DOT), len(flat))
    dots = all_dots[np.searchsorted(all_dots, bases)]
    # Names that begin with a dot or "__", hold a newline or have no dot: the rule has corners there, so regex decides.
    odd = (dots <= bases) | (dots >= ends) | (flat[starts] == _UNDERLINE)
    newlines = np.flatnonzero(flat == _NEWLINE)
    odd[np.searchsorted(ends, newlines)] = True
    for row in np.flatnonzero(odd).tolist():
        cut = split_name(names[starts[row] : ends[row]])
        dots[row] = -1 if cut is None else starts[row] + cut
    return dots, ends + 1 - starts


def _fields(raw: list[bytes], shard: str) -> tuple[tuple[str, ...], NDArray[np.uint16]]:
    """Return the distinct fields, lower-cased, and uint16 [members] with each member's number among them."""
    number: dict[str, int] = {}
    numbers = {field: number.setdefault(text(field).lower(), len(number)) for field in dict.fromkeys(raw)}
    if len(number) > _MOST_FIELDS:
        raise CorpusError(
            f"Cannot index {shard}: it has {len(number)} different fields (what follows the first dot of a member's "
            f"name), where at most {_MOST_FIELDS} are kept. Rename the members as key.field, without dots in the key.",
            shard=shard,
            expected=_MOST_FIELDS,
            found=len(number),
        )
    return tuple(number), np.fromiter(map(numbers.__getitem__, raw), np.uint16, len(raw))


def _refuse_duplicates(
    sample: NDArray[np.int64],
    field: NDArray[np.uint16],
    keys: list[bytes],
    fields: tuple[str, ...],
    offsets: NDArray[np.int64],
    shard: str,
) -> None:
    pairs = sample * _MOST_FIELDS + field
    ordered = np.sort(pairs)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    reserved = [number for number, name in enumerate(fields) if name in _RESERVED]
    refused = np.isin(field, reserved) if reserved else np.zeros(len(field), np.bool_)
    if not len(repeated) and not refused.any():
        return
    seen: set[int] = set()
    for row in np.flatnonzero(refused | np.isin(pairs, repeated)).tolist():
        key, name, offset = text(keys[row]), fields[field[row]], int(offsets[row])
        if refused[row]:
            what = f"a member of field {name!r}, which is reserved, at byte {offset}"
        elif int(pairs[row]) in seen:
            what = f"the field {name!r} twice, again at byte {offset}"
        else:
            seen.add(int(pairs[row]))
            continue
        raise DuplicateFieldError(
            f"Cannot index {shard}: sample {key!r} holds {what}. WebDataset refuses that too: rename the member, or "
            "remove the copy.",
            shard=shard,
            key=key,
            offset=offset,
            expected="each field once",
            found=name,
        )


def _is_bad(sample: NDArray[np.int64], flag: NDArray[np.bool_], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [members]: webdataset drops a whole sample whose field `__bad__` is not empty."""
    return np.isin(sample, sample[flag & (size > 0)])
