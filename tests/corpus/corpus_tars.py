"""Makers of tar bytes for the tests of the corpus room, most of them by the standard library's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.tar import Members, TarScanner

SHARD = "/data/train-000.tar"


def tar_bytes(files: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT, **facts: object) -> bytes:  # noqa: A002
    """Return a tar of regular members; names ending in "/" become folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, errors="surrogateescape") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name.rstrip("/") if name.endswith("/") else name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = 0 if name.endswith("/") else len(data)
            for fact, value in facts.items():
                setattr(info, fact, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


SAMPLES = 3


def sample_shard(number: int, *, size: int = 10) -> bytes:
    """Return a shard of SAMPLES samples, whose keys begin with its number."""
    names = (f"{number:04d}-{sample}.{field}" for sample in range(SAMPLES) for field in ("jpg", "txt"))
    return tar_bytes([(name, b"x" * size) for name in names])


def unended(files: list[tuple[str, bytes]]) -> bytes:
    """Return a tar without its end blocks."""
    return tar_bytes(files)[: sum(512 + len(body(data)) for _, data in files)]


def header(
    name: bytes,
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    link: bytes = b"",
    signed: bool = False,
) -> bytes:
    """Return one header block made by hand."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + digits + b"00000000000\0" + b" " * 8 + kind
    block += link.ljust(100, b"\0") + magic.ljust(8, b"\0") + b"\0" * 80 + prefix
    block = block.ljust(512, b"\0")
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def body(data: bytes) -> bytes:
    """Return member bytes padded to whole blocks."""
    return data + b"\0" * (-len(data) % 512)


def pax(**records: str) -> bytes:
    """Return the body of a PAX extension header."""
    out = b""
    for key, value in records.items():
        record = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        out += str(length).encode() + record
    return out


def extension(kind: bytes, content: bytes) -> bytes:
    """Return an extension header with its body."""
    return header(b"x", kind=kind, size=len(content)) + body(content)


END = b"\0" * 1024


def scan(data: bytes, *, window: int = 1 << 20, size: int | None = None) -> TarScanner:
    """Feed a scanner from bytes as a driver does, at most `window` (or what it needs) at a time."""
    scanner = TarScanner(SHARD)
    total = len(data) if size is None else size
    while not scanner.finished:
        length = min(max(window, scanner.need), total - scanner.offset)
        if length < scanner.need:
            scanner.end(total, data[scanner.offset : total])
        else:
            scanner.feed(data[scanner.offset : scanner.offset + length])
    return scanner


def members(data: bytes, *, window: int = 1 << 20) -> Members:
    """Return the members of tar bytes."""
    return scan(data, window=window).members()


def index_of(data: bytes, *, window: int = 1 << 20) -> ShardIndex:
    """Return the index of tar bytes."""
    grouped = group(members(data, window=window), SHARD)
    return ShardIndex.of(grouped, shard_size=len(data), shard_version="mtime:1")


def samples_of(index: ShardIndex, data: bytes) -> list[dict[str, object]]:
    """Return the samples as WebDataset would give them, sliced from the tar by the index's offsets."""
    out: list[dict[str, object]] = []
    for sample, key in enumerate(index.keys):
        values: dict[str, object] = {"__key__": key}
        for member in range(index.first_member[sample], index.first_member[sample + 1]):
            start, size = int(index.member_offset[member]), int(index.member_size[member])
            values[index.fields[index.member_field[member]]] = data[start : start + size]
        out.append(values)
    return out


def webdataset_samples(data: bytes) -> list[dict[str, object]]:
    """Return the samples that the webdataset package reads: its expander and grouper, on the bytes of a shard."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    source = {"url": SHARD, "stream": io.BytesIO(data), "local_path": SHARD}
    return [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in group_by_keys(tar_file_expander([source]))
    ]
