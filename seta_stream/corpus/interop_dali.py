"""DALI's index of a shard, as text.

Takes bytes or rows; gives Claims or bytes. Pure. The first line is `v1.2 <samples>`; then a line per sample of
`<ext> <offset of the body> <size> <name>` for each of its members, all parted by single spaces. v1.1 has no names.
DALI's reader refuses every other version, and so do we.

Source:
    NVIDIA/DALI 2.4.0, tools/wds2idx.py (create_index, split_name) and dali/operators/reader/loader/webdataset_loader.cc
    (ParseIndexFile, ParseSampleDesc) and .h (kSupportedIndexVersions: v1.1, v1.2). A test reads what is written with
    rules of its own; how DALI's own reader fared is told in docs/formats/interop.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from seta_stream.corpus.header import text
from seta_stream.corpus.interop_claims import Claims, listed, most_members, refusal
from seta_stream.errors import UnsupportedError

_FIRST: Final = re.compile(rb"(v1\.[12]) ([1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
_SPACES: Final = re.compile(rb"[ \t\n\v\f\r]")
"""What DALI's reader parts words at."""

Row = tuple[bytes, int, int, bytes]
"""Extension, offset of the body, size, name."""


def idx_name(name: str) -> str:
    """Return the file name that DALI's tool gives the index of `a.tar`: `a.idx`."""
    stem, dot, _ = name.rpartition(".")
    return (stem if dot and stem else name) + ".idx"


def is_dali(data: bytes) -> bool:
    """Say whether a file begins as DALI's index does, whatever its name: `X.tar.idx` may be Energon's or DALI's."""
    return data[:2] == b"v1" or (data[:1] == b"v" and data[1:2].isdigit())


def read_idx(data: bytes, source: str, shard_size: int) -> Claims:
    """Return what an index of DALI says.

    Its offsets are not taken to be exact: DALI's tool errs behind extension headers, by version and dialect.

    Raises:
        IndexFileError: it is no such index, or what it says cannot be.
    """
    first, _, rest = data.partition(b"\n")
    match = _FIRST.fullmatch(first)
    if match is None:
        raise refusal(
            source,
            f"its first line is {first[:40]!r}, and `v1.1 <samples>` or `v1.2 <samples>` is understood",
            expected="v1.2 <samples>",
            found=first[:40],
        )
    has_names, room = match[1] == b"v1.2", most_members(shard_size)
    count = int(match[2])
    if count > room:
        raise refusal(source, f"it counts {count} samples, and a shard of {shard_size} bytes has room for {room}")
    rest = rest.removesuffix(b"\n")
    found = rest.count(b"\n") + 1 if rest else 0
    if found != count:
        raise refusal(
            source, f"its first line counts {count} samples, and {found} lines follow", expected=count, found=found
        )
    # Counted before they are parted, which takes 40 bytes a word.
    if rest.count(b" ") > 4 * room:
        raise refusal(source, f"it lists more members than the {room} that a shard of {shard_size} bytes has room for")
    samples = rest.split(b"\n")
    rows = [row for number, line in enumerate(samples, 2) for row in _rows(line, number, has_names, source)]
    names = [row[3] for row in rows]
    # GNU tar, whose listing DALI's tool reads, writes foreign bytes of names with backslashes.
    is_plain = has_names and not any(b"\\" in name for name in names)
    members = listed(
        source,
        data=[row[1] for row in rows],
        size=[row[2] for row in rows],
        names=names if is_plain else None,
        exts=None if is_plain else [row[0] for row in rows],
        shard_size=shard_size,
        are_exact=False,
    )
    if [row[1] for row in rows] != members.data.tolist():
        raise refusal(source, "its members do not come in the order of the shard")
    return Claims(source=source, kind="dali", members=members, are_exact=False)


def _rows(line: bytes, number: int, has_names: bool, source: str) -> list[Row]:
    words = line.split(b" ")
    width = 4 if has_names else 3
    if len(words) % width or not all(words) or _SPACES.search(line.replace(b" ", b"")):
        raise refusal(
            source,
            f"its line {number} ({line[:60]!r}) is not {width} words for each member (a name with a space in it cannot "
            "be told apart, by DALI neither)",
            expected=f"a multiple of {width}",
            found=len(words),
        )
    rows = []
    for at in range(0, len(words), width):
        ext, offset, size = words[at : at + 3]
        if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(size)):
            raise refusal(
                source,
                f"its line {number} gives {offset[:20]!r} and {size[:20]!r} as offset and size",
                expected="two decimal numbers",
                found=(offset[:20], size[:20]),
            )
        rows.append((ext, int(offset), int(size), words[at + 3] if has_names else b""))
    return rows


def write_idx(samples: Iterable[Sequence[Row]], shard: str) -> bytes:
    """Return an index of DALI: v1.2, or v1.1 where a name holds a space, which v1.2 cannot say.

    Args:
        samples: the rows of each sample.
        shard: URL for messages.

    Raises:
        UnsupportedError: there is no sample, or an extension is empty or holds a space: no version can say that.
    """
    rows = [list(sample) for sample in samples]
    if not rows:
        raise UnsupportedError(
            f"Cannot write an index of {shard} for DALI: the shard has no sample, and DALI refuses an index without "
            "one. Leave the shard out.",
            shard=shard,
        )
    for ext, offset, _, name in (row for sample in rows for row in sample):
        if not ext or _SPACES.search(ext):
            raise UnsupportedError(
                f"Cannot write an index of {shard} for DALI: the member {text(name)!r} has the field {text(ext)!r}, "
                "and DALI's format parts fields at spaces. Rename the member.",
                shard=shard,
                key=text(name),
                offset=offset,
                expected="a field without spaces",
                found=text(ext),
            )
    has_names = not any(_SPACES.search(row[3]) for sample in rows for row in sample)
    lines = [b"v1.%d %d" % (2 if has_names else 1, len(rows))]
    for sample in rows:
        words = [b"%s %d %d %s" % row if has_names else b"%s %d %d" % row[:3] for row in sample]
        lines.append(b" ".join(words))
    return b"\n".join([*lines, b""])
