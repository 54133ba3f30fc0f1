"""Indexes in the formats of other tools, and ours: where they go, and how they are written.

Takes checked shards; gives files. Acts: writes files and objects. A file that somebody else wrote is never replaced
unasked.
"""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

import numpy as np

from seta_stream.corpus import interop_dali, interop_energon
from seta_stream.corpus.index import MAGIC
from seta_stream.corpus.interop_checking import Checked
from seta_stream.corpus.interop_rows import Row, rows_of
from seta_stream.corpus.interop_sqlite import EnergonWriter
from seta_stream.corpus.places import beside, index_names
from seta_stream.errors import ArgumentError, ReadError
from seta_stream.store import Options, is_local, join, local_path, store_for

To = Literal["seta", "energon", "dali"]

_OBJECT_LIMIT: Final = 1 << 30
"""An SQLite file for a bucket is built on disk and put in one piece."""


@dataclass(frozen=True)
class Layout:
    """Where a corpus's indexes go.

    Args:
        targets: of each shard's index.
        names: each shard's path from the folder that all lie in; its URL where no format needs that.
        root: the folder that Energon's notes belong to.
    """

    targets: tuple[str, ...]
    names: tuple[str, ...]
    root: str


def layout(shards: Sequence[str], to: To, out: str | None) -> Layout:
    """Return where the indexes of shards go: beside them, or into `out` as they lie in their common folder.

    Raises:
        ArgumentError: the shards have no common folder, or two indexes would have one name.
    """
    if to == "seta":
        targets = [beside(url) for url in shards] if out is None else [join(out, name) for name in index_names(shards)]
        return Layout(tuple(targets), tuple(shards), "" if out is None else out)
    root = _common_folder(shards)
    names = tuple(url[len(root) + 1 :] for url in shards)
    base = root if out is None else out
    rename = interop_energon.idx_name if to == "energon" else interop_dali.idx_name
    targets = [join(base, *name.split("/")[:-1], rename(name.rpartition("/")[2])) for name in names]
    seen: dict[str, str] = {}
    for url, target in zip(shards, targets, strict=True):
        if target in seen:
            raise ArgumentError(
                f"Cannot write the indexes of {seen[target]} and {url}: both would be {target}. Rename one shard, or "
                "convert them into different folders.",
                shard=url,
                expected="one index per shard",
                found=target,
            )
        seen[target] = url
    return Layout(tuple(targets), names, base)


def _common_folder(shards: Sequence[str]) -> str:
    # [levels, shards]: the parts of each URL, of which the leading ones that all share are the folder
    levels = zip(*(url.split("/")[:-1] for url in shards), strict=False)
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]
    least = 1 if all(map(is_local, shards)) else 3
    if len(common) < least:
        raise ArgumentError(
            f"Cannot convert {shards[0]} and {shards[-1]} together: they have no common folder. Convert them apart.",
            expected="one folder or bucket",
            found=(shards[0], shards[-1]),
        )
    return "/".join(common)


def index_bytes(checked: Checked, rows: Sequence[Row], to: To, shard: str) -> bytes:
    """Return a shard's index in a format.

    Args:
        checked: the shard.
        rows: its samples.
        to: the format.
        shard: its URL, for messages.

    Raises:
        UnsupportedError: the format cannot say it.
    """
    if to == "seta":
        return checked.index.to_bytes()
    if to == "energon":
        return interop_energon.write_idx(np.array([row.start for row in rows], np.int64), checked.end)
    lines = [[(part.field, part.data, part.size, part.name) for part in row.parts] for row in rows]
    return interop_dali.write_idx(lines, shard)


def rows_for(checked: Checked, to: To) -> list[Row]:
    """Return the samples as a format's writer wants them; ours needs none."""
    return [] if to == "seta" else list(rows_of(checked.members))


def put(url: str, data: bytes, options: Options | None, *, overwrite: bool) -> bool:
    """Write a file; say whether it was written, and not the same already.

    Raises:
        ArgumentError: another file is there, and it is not to be replaced.
        ReadError: it cannot be written.
    """
    store = store_for(url, options)
    if store.exists(url):
        old = store.read(url)
        if old == data:
            return False
        if not overwrite and not (old.startswith(MAGIC) and data.startswith(MAGIC)):
            raise _occupied(url)
    try:
        store.write(url, data)
    except OSError as error:
        raise _unwritable(url, error) from error
    return True


class EnergonNotes:
    """Writes what belongs to all shards of an Energon data set: `.nv-meta`.

    Args:
        root: the data set's folder.
        options: what the fsspec file system is given.
        overwrite: whether files of others are replaced.
    """

    def __init__(self, root: str, options: Options | None, *, overwrite: bool) -> None:
        self._meta = join(root, interop_energon.META)
        self._options = options
        self._overwrite = overwrite
        self._counts: dict[str, int] = {}
        self._digests: list[bytes] = []
        if is_local(self._meta):
            try:
                local_path(self._meta).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(self._meta, error) from error
        # Beside its target, so that it can be renamed; of a bucket, wherever temporary files go.
        folder = local_path(self._meta) if is_local(self._meta) else None
        self._folder = tempfile.TemporaryDirectory(prefix=".seta-", dir=folder)
        self._path = Path(self._folder.name) / interop_energon.SQLITE
        self._writer = EnergonWriter(self._path)

    def add(self, name: str, rows: Sequence[Row], checked: Checked, shard: str) -> None:
        """Add a shard; one without samples is left out, as Energon refuses it.

        Raises:
            CorpusError: a key was there before.
            UnsupportedError: a name is no UTF-8.
        """
        if rows:
            self._writer.add(len(self._counts), rows, checked.end, shard)
            self._counts[name] = len(rows)
            self._digests.append(checked.index.digest)

    def finish(self) -> list[str]:
        """Write the notes and return which were written, the one that makes it a data set last.

        Raises:
            ArgumentError: another file is there, and it is not to be replaced.
            ReadError: one cannot be written.
        """
        self._writer.close()
        shards = list(self._counts)
        written = [self._put_sqlite()]
        for name, data in (
            (interop_energon.UUID, interop_energon.write_uuid(self._counts, self._digests)),
            (interop_energon.SPLIT, interop_energon.write_split(shards)),
            (interop_energon.INFO_JSON, interop_energon.write_info(self._counts)),
        ):
            url = join(self._meta, name)
            written.append(url if put(url, data, self._options, overwrite=self._overwrite) else "")
        # How samples become values is the user's: what is there stays, whatever was said.
        url = join(self._meta, interop_energon.DATASET)
        if not store_for(url, self._options).exists(url):
            put(url, interop_energon.DATASET_YAML, self._options, overwrite=False)
            written.append(url)
        return [url for url in written if url]

    def close(self) -> None:
        """Remove what is temporary."""
        self._writer.give_up()
        self._folder.cleanup()

    def _put_sqlite(self) -> str:
        url = join(self._meta, interop_energon.SQLITE)
        if not is_local(url):
            size = self._path.stat().st_size
            if size > _OBJECT_LIMIT:
                raise ReadError(
                    f"Cannot write {url}: the file has {size} bytes, and objects of {_OBJECT_LIMIT} at most are put. "
                    "Convert into a local folder with --out, and copy it.",
                    expected=_OBJECT_LIMIT,
                    found=size,
                )
            return url if put(url, self._path.read_bytes(), self._options, overwrite=self._overwrite) else ""
        path = local_path(url)
        if path.exists():
            if filecmp.cmp(path, self._path, shallow=False):
                return ""
            if not self._overwrite:
                raise _occupied(url)
        self._path.replace(path)
        return url


def _occupied(url: str) -> ArgumentError:
    return ArgumentError(
        f"Cannot write {url}: another file is there. Pass --overwrite to replace it, or another folder as --out.",
        expected="no file, or the same",
        found="another file",
    )


def _unwritable(url: str, error: OSError) -> ReadError:
    return ReadError(
        f"Cannot write {url}: {error}. Choose another folder with --out.",
        expected="a folder that can be written",
        found=str(error),
    )
