"""Indexes that are JSON: members of webshart and hfutils, counts of wids and Energon.

Takes bytes; gives Claims or counts, or raises IndexFileError. Pure.

Source:
    deepghs/hfutils, hfutils/index/make.py: {"filesize", "hash", "hash_lfs", "files": {name: {"offset", "size",
    "sha256"}}}. bghira/webshart, src/metadata.rs: the same, or "files" as a list; "length" for "size"; names as "path",
    "fname" or "filename"; also the JSON of sidecars. webdataset 0.2.86, wids/wids_specs.py and wids_index.py:
    {"wids_version": 1, "shardlist": [{"url", "nsamples", "filesize"}]}. NVIDIA/Megatron-Energon,
    flavors/webdataset/structs.py: {"energon_version", "shard_counts": {path: samples}}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from seta_stream.corpus.interop_claims import Claims, listed, most_members, refusal
from seta_stream.corpus.interop_json import LARGEST, JsonReader

_MOST_SHARDS: Final = 1 << 20
_WANTED: Final = frozenset({"offset", "size", "length", "path", "fname", "filename"})


def is_member_list(data: bytes) -> bool:
    """Say whether a JSON file looks like an index of members: `X.json` beside a tar may be anything."""
    return data.lstrip()[:1] == b"{" and b'"files"' in data and b'"offset"' in data


def read_member_list(data: bytes, source: str, shard_size: int) -> Claims:
    """Return what an index of webshart or hfutils says.

    Args:
        data: the whole file.
        source: its URL, for messages.
        shard_size: bytes of the shard.

    Raises:
        IndexFileError: it is no such index, or what it says cannot be.
    """
    reader = JsonReader(data, source)
    data_at: list[int] = []
    size: list[int] = []
    names: list[bytes] = []
    room = most_members(shard_size)
    file_size: int | None = None
    has_files = False
    for key in reader.entries():
        if key == b"files":
            has_files = True
            for name, offset, length in _files(reader, source, room):
                if len(names) >= room:
                    raise refusal(
                        source, f"it lists more members than the {room} that a shard of {shard_size} bytes has room for"
                    )
                names.append(name)
                data_at.append(offset)
                size.append(length)
        elif key == b"filesize":
            file_size = reader.integer() or None
        else:
            reader.skip()
    reader.finish()
    if file_size is not None and file_size != shard_size:
        raise refusal(
            source,
            f"it was made of a shard of {file_size} bytes, and the shard has {shard_size}",
            expected=file_size,
            found=shard_size,
        )
    if not has_files:
        raise refusal(source, 'it has no "files", so it is no index of webshart or hfutils')
    members = listed(source, data=data_at, size=size, names=names, shard_size=shard_size)
    return Claims(source=source, kind="webshart", members=members)


def _files(reader: JsonReader, source: str, room: int) -> Iterator[tuple[bytes, int, int]]:
    """Give (name, offset, size) of each member, listed by name or one after another."""
    if reader.kind() == "{":
        for name in reader.entries(room + 1):
            yield _file(reader, source, name)
    else:
        for _ in reader.items():
            yield _file(reader, source, None)


def _file(reader: JsonReader, source: str, name: bytes | None) -> tuple[bytes, int, int]:
    entry = reader.flat()
    facts = _long_entry(reader) if entry is None else {key: entry[key] for key in entry if key in _WANTED}
    offset, size = facts.get("offset"), facts.get("size", facts.get("length"))
    calls = [facts[key] for key in ("path", "fname", "filename") if facts.get(key) is not None]
    if not all(type(number) is int and 0 <= number < LARGEST for number in (offset, size)):
        raise refusal(source, f"its entry {(name or b'')[:80]!r} lacks an offset or a size from 0 to 2^62")
    if not all(type(call) is str for call in calls) or not (name or calls):
        raise refusal(source, f"its entry at byte {offset} lacks a name")
    try:
        known = {str(call).encode("utf-8", "surrogateescape") for call in calls} | ({name} if name else set())
    except UnicodeEncodeError as error:
        raise refusal(source, f"the name of its entry at byte {offset} is no text") from error
    if len(known) != 1:
        raise refusal(source, f"it calls one member {' and '.join(repr(call[:80]) for call in sorted(known))}")
    return known.pop(), cast("int", offset), cast("int", size)


def _long_entry(reader: JsonReader) -> dict[str, object]:
    """Return what is wanted of an entry that holds other objects: webshart keeps sidecars' JSON there."""
    facts: dict[str, object] = {}
    for key in reader.entries():
        name, kind = key.decode("utf-8", "replace"), reader.kind()
        if name in _WANTED and kind == '"':
            facts[name] = reader.string().decode("utf-8", "surrogateescape")
        elif name in _WANTED and kind.isdigit():
            facts[name] = reader.integer()
        else:
            reader.skip()
    return facts


def read_shard_counts(data: bytes, source: str) -> dict[str, int]:
    """Return the samples per shard that Energon's `.info.json` says, in its order, which numbers the shards.

    Raises:
        IndexFileError: it is no such file.
    """
    reader = JsonReader(data, source)
    counts: dict[str, int] | None = None
    for key in reader.entries():
        if key == b"shard_counts":
            counts = {
                name.decode("utf-8", "surrogateescape"): reader.integer() for name in reader.entries(_MOST_SHARDS)
            }
        else:
            reader.skip()
    reader.finish()
    if counts is None:
        raise refusal(source, 'it has no "shard_counts", so it is no .info.json of Energon')
    return counts


def read_wids_counts(data: bytes, source: str) -> dict[str, int]:
    """Return the samples per shard, by the last part of its URL, that a wids JSON says.

    Raises:
        IndexFileError: it is no such file, or it names one shard twice.
    """
    reader = JsonReader(data, source)
    counts: dict[str, int] = {}
    has_list = False
    for key in reader.entries():
        if key == b"shardlist":
            has_list = True
            for _ in reader.items():
                url, samples = _wids_shard(reader, source)
                if len(counts) == _MOST_SHARDS:
                    raise refusal(source, f"it lists more than {_MOST_SHARDS} shards")
                name = url.decode("utf-8", "surrogateescape").rpartition("/")[2]
                if name in counts:
                    raise refusal(source, f"it lists two shards with the name {name!r}")
                counts[name] = samples
        else:
            reader.skip()
    reader.finish()
    if not has_list:
        raise refusal(source, 'it has no "shardlist", so it is no index of wids')
    return counts


def _wids_shard(reader: JsonReader, source: str) -> tuple[bytes, int]:
    url: bytes | None = None
    samples: int | None = None
    for key in reader.entries():
        if key == b"url":
            url = reader.string()
        elif key == b"nsamples":
            samples = reader.integer()
        else:
            reader.skip()
    if url is None or samples is None:
        raise refusal(source, 'one of its shards lacks "url" or "nsamples"')
    return url, samples
