"""Energon's index of a shard and its notes on a data set, as bytes.

Takes bytes or arrays; gives Claims, counts or bytes. Pure. `X.tar.idx` is flat little-endian uint64 without a header:
the first header of every sample, extension headers included, then where the members end (skipped members behind the
last sample included). `.nv-meta` holds what belongs to all shards.

Source:
    NVIDIA/Megatron-Energon 7.4.1, flavors/webdataset/itar.py (TarIndexWriter), prepare.py (_preprocess_tar,
    prepare_dataset), metadata.py (WebdatasetMeta.from_config, get_dataset_info). A test compares what is written with
    files that `energon prepare` made.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from seta_stream.corpus.interop_claims import Claims, Offsets, claimed_starts, most_members, refusal

IDX_SUFFIX: Final = ".tar.idx"
META: Final = ".nv-meta"
INFO_JSON: Final = ".info.json"
INFO_YAML: Final = ".info.yaml"
SQLITE: Final = "index.sqlite"
UUID: Final = "index.uuid"
SPLIT: Final = "split.yaml"
DATASET: Final = "dataset.yaml"
DATASET_YAML: Final = b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"
"""What `energon prepare --sample-type CrudeWebdataset` writes: samples as they are, without a map of fields."""

VERSION: Final = "7.4.1"
"""The release whose files these are; Energon notes its own there."""

_YAML_COUNT: Final = re.compile(
    r"""  (?:'((?:[^']|'')+)'|"([^"\\]+)"|([^\s'"?&*!|>%@`{\[,#:-][^'"#]*?)): (0|[1-9][0-9]{0,17})"""
)


def idx_name(name: str) -> str:
    """Return the file name of a shard's index: Energon puts its suffix in the place of the shard's last one."""
    stem, dot, _ = name.rpartition(".")
    return (stem if dot and stem else name) + IDX_SUFFIX


def read_idx(data: bytes, source: str, shard_size: int) -> Claims:
    """Return what a `.tar.idx` says.

    Raises:
        IndexFileError: its length or an offset cannot be.
    """
    if not data or len(data) % 8:
        raise refusal(source, f"it has {len(data)} bytes, where whole numbers of 8 are expected", found=len(data))
    if len(data) // 8 > most_members(shard_size) + 1:
        raise refusal(
            source,
            f"it lists {len(data) // 8 - 1} samples, and a shard of {shard_size} bytes has room for "
            f"{most_members(shard_size)}",
            expected=most_members(shard_size),
            found=len(data) // 8 - 1,
        )
    return claimed_starts(source, "energon", np.frombuffer(data, "<u8"), shard_size)


def write_idx(starts: Offsets, end: int) -> bytes:
    """Return a `.tar.idx`.

    Args:
        starts: int64 [samples], first header of each sample.
        end: where the members end.
    """
    return np.append(starts, end).astype("<u8").tobytes()


def read_info_yaml(data: bytes, source: str) -> dict[str, int]:
    """Return the samples per shard of the older `.info.yaml`, in its order.

    Only what Energon's own writer makes of a map of names to numbers is understood; a whole YAML reader is not needed.

    Raises:
        IndexFileError: it holds something else.
    """
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise refusal(source, "it is no UTF-8 text") from error
    counts: dict[str, int] = {}
    inside = False
    for number, line in enumerate(lines, 1):
        if not line.startswith(" "):
            inside = line.rstrip() == "shard_counts:"
            continue
        match = _YAML_COUNT.fullmatch(line.rstrip()) if inside else None
        if match is None or _name(match) in counts:
            raise refusal(
                source,
                f"its line {number} ({line[:60]!r}) is not `shard: samples`, or names a shard again; "
                "`energon prepare --tar-index-only` writes .info.json, which is read too",
                expected="  shard: samples",
                found=line[:60],
            )
        counts[_name(match)] = int(match[4])
    if not counts:
        raise refusal(source, 'it has no "shard_counts", so it is no .info.yaml of Energon')
    return counts


def _name(match: re.Match[str]) -> str:
    single, double, plain, _ = match.groups()
    return single.replace("''", "'") if single is not None else double or plain


def write_info(counts: Mapping[str, int]) -> bytes:
    """Return `.info.json`: samples per shard, by path from the data set's folder; their order numbers the shards."""
    return json.dumps({"energon_version": VERSION, "shard_counts": dict(counts)}, indent=2).encode()


def write_split(shards: Sequence[str]) -> bytes:
    """Return `split.yaml`, all shards in the part "train".

    Names are quoted as JSON, which is YAML too; Energon expands braces in them, so those of a name are escaped.
    """
    escaped = [re.sub(r"([\\{}])", r"\\\1", shard) for shard in shards]
    lines = [f"  - {json.dumps(shard, ensure_ascii=False)}\n" for shard in escaped]
    train = "".join(["  train:\n", *lines]) if lines else "  train: []\n"
    return f"split_parts:\n{train}  val: []\n  test: []\nexclude: []\n".encode()


def write_uuid(counts: Mapping[str, int], digests: Sequence[bytes]) -> bytes:
    """Return `index.uuid`, by which Energon's caches tell one index from another: the same for the same samples."""
    hasher = hashlib.blake2b(json.dumps(dict(counts)).encode(), digest_size=16, person=b"seta-energon-1")
    for digest in digests:
        hasher.update(digest)
    raw = bytearray(hasher.digest())
    # Version 8 and the variant of RFC 9562: a UUID by a hash of the maker's choice.
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]]).encode()
