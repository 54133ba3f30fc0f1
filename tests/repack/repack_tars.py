"""Makers and readers of shards for the tests of repack; readers are the standard library's and webdataset's own."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seta_stream.corpus.indexing import open_corpus
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable


@dataclass(frozen=True)
class Member:
    """One member to write; a name that ends in "/" is a folder."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    mtime: float = 0


def tar_of(
    members: Iterable[Member], layout: int = tarfile.PAX_FORMAT, global_headers: dict[str, str] | None = None
) -> bytes:
    """Return a tar by tarfile alone."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=layout, errors="surrogateescape", pax_headers=global_headers
    ) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name.rstrip("/"))
            is_folder = member.name.endswith("/")
            info.type = tarfile.DIRTYPE if is_folder else tarfile.REGTYPE
            info.size = 0 if is_folder else len(member.data)
            info.mode, info.uname = member.mode, "someone"
            info.mtime = member.mtime if layout == tarfile.PAX_FORMAT else int(member.mtime)
            tar.addfile(info, None if is_folder else io.BytesIO(member.data))
    return out.getvalue()


def samples(keys: Iterable[str], fields: Sequence[str] = ("txt", "cls")) -> list[Member]:
    """Return members of one sample per key, each with bytes of its own."""
    return [Member(f"{key}.{field}", f"{key} {field} {len(key)}".encode()) for key in keys for field in fields]


def write(path: Path, data: bytes) -> str:
    """Write a shard; one whose name ends in .gz is compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def bytes_of(path: str | Path) -> bytes:
    """Return the tar in a shard."""
    data = Path(path).read_bytes()
    return gzip.decompress(data) if str(path).endswith(".gz") else data


def by_webdataset(data: bytes) -> list[dict[str, object]]:
    """Return the samples that webdataset's own expander and grouper make of a shard."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    source = {"url": "x", "stream": io.BytesIO(data), "local_path": "x"}
    return [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in group_by_keys(tar_file_expander([source]))
    ]


def by_tarfile(data: bytes) -> list[tuple[object, ...]]:
    """Return what tarfile tells of every member of a shard, in order."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            body = b"" if file is None else file.read()
            owner = (info.uid, info.gid, info.uname, info.gname)
            found.append((info.name, info.type, info.size, info.mode, info.mtime, *owner, body))
    return found


def frozen(sample: dict[str, object]) -> tuple[tuple[str, object], ...]:
    """Return a sample as something that can be counted."""
    return tuple(sorted(sample.items()))


def state_of(urls: object, folder: Path, losses: object, epoch: int = 3, columns: object = None) -> str:
    """Write a generation with these losses (NaN: never seen) of a corpus; return the state's folder."""
    table = open_corpus(urls, progress=False).table  # type: ignore[arg-type]
    held = LossTable(table.samples, columns or ())  # type: ignore[arg-type]
    given = np.asarray(losses, np.float32)
    seen = np.flatnonzero(~np.isnan(given))
    held.record(seen, given[seen])
    generations = Generations(str(folder))
    generations.commit(epoch, held, table, None, None, {"consumed": 77})
    generations.close()
    return str(folder)
