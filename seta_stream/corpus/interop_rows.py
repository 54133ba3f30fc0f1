"""Members of a shard, as writers of other tools' indexes want them: by sample, named as they stand in the tar.

Takes Members; gives rows. Pure. An index of ours keeps fields in lower case and drops samples marked `__bad__`; Energon
and DALI do neither, so their indexes are made of the members themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seta_stream.corpus.grouping import split_name
from seta_stream.corpus.tar import Members


@dataclass(frozen=True, slots=True)
class Part:
    """One member of a sample.

    Args:
        name: its whole raw name.
        field: what follows the first dot of the base name, as it stands there.
        data: offset of the body.
        size: bytes of the body.
    """

    name: bytes
    field: bytes
    data: int
    size: int


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: consecutive members with one key.

    Args:
        key: raw.
        start: its first header, extension headers included.
        parts: its members.
    """

    key: bytes
    start: int
    parts: list[Part]


def rows_of(members: Members) -> Iterator[Row]:
    """Give the samples of a shard, in order."""
    row: Row | None = None
    names = members.names.split(b"\0")[:-1]
    columns = (members.start.tolist(), members.data.tolist(), members.size.tolist())
    for name, start, data, size in zip(names, *columns, strict=True):
        cut = split_name(name)
        if cut is None:
            continue
        if row is None or row.key != name[:cut]:
            if row is not None:
                yield row
            row = Row(name[:cut], start, [])
        row.parts.append(Part(name, name[cut + 1 :], data, size))
    if row is not None:
        yield row
