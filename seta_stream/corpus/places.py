"""Where the indexes of a corpus may lie, and which of them are good.

Takes shards with their sizes and versions; gives index files that fit them. Acts: lists folders, reads and writes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from seta_stream.corpus.index import SUFFIX, IndexHeader, ShardIndex, read_header
from seta_stream.errors import IndexFileError, ReadError, SetaStreamWarning
from seta_stream.store import ObjectInfo, Options, join, store_for


def index_names(urls: Sequence[str]) -> list[str]:
    """Return the file name of each shard's index in a folder that holds them all.

    It is the shard's own name and a suffix, with a hash of the URL between them where two shards share a name.
    """
    bases = [url.rpartition("/")[2] for url in urls]
    times = Counter(bases)
    return [
        base + SUFFIX if times[base] == 1 else f"{base}.{_hash(url)[:12]}{SUFFIX}"
        for url, base in zip(urls, bases, strict=True)
    ]


def cache_url(url: str) -> str:
    """Return where a shard's index lies in the user's cache folder."""
    import platformdirs  # noqa: PLC0415  (keeps the import of seta_stream short)

    return str(Path(platformdirs.user_cache_dir("seta_stream")) / "index" / (_hash(url) + SUFFIX))


def beside(url: str) -> str:
    """Return where a shard's index lies beside it."""
    return url + SUFFIX


class Places:
    """The places of a corpus's indexes, in the order in which they are looked at.

    Args:
        urls: the shards, normalised.
        index: a folder that the user names, or None.
        state: the folder of the run's state, or None.
        storage_options: what the fsspec file system is given for the shards and their neighbours.
    """

    def __init__(
        self, urls: Sequence[str], *, index: str | None, state: str | None, storage_options: Options | None
    ) -> None:
        self._urls = urls
        self._names = index_names(urls)
        self._index = index
        self._state = state
        self._options = storage_options
        self._listed: dict[str, frozenset[str]] = {}

    def candidates(self, shard: int) -> Iterator[str]:
        """Give the URLs at which an index of the shard may lie and a file is there, best first."""
        url, name = self._urls[shard], self._names[shard]
        if self._index is not None:
            yield from self._there(self._index, name)
        folder, _, base = url.rpartition("/")
        yield from self._there(folder, base + SUFFIX)
        cached = cache_url(url)
        if os.path.exists(cached):  # noqa: PTH110  (called once per shard)
            yield cached
        if self._state is not None:
            yield from self._there(join(self._state, "index"), name)

    def _there(self, folder: str, name: str) -> Iterator[str]:
        """Look into a folder once, not once per shard: a bucket answers 1,000 names per request."""
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(store_for(folder, self._options).names(folder))
            except OSError:  # the shards are what must be readable; a closed folder holds no index for us
                self._listed[folder] = frozenset()
        if name in self._listed[folder]:
            yield join(folder, name)

    def find(self, shard: int, info: ObjectInfo) -> tuple[str, IndexHeader] | None:
        """Return the first index that fits the shard as it is now, and its header; None where there is none.

        An index of an older version of the shard is passed over in silence, a damaged one with a warning.
        """
        for url in self.candidates(shard):
            try:
                header = read_header(store_for(url, self._options).read(url), url)
            except IndexFileError as error:
                warnings.warn(f"{error} It is not used.", SetaStreamWarning, stacklevel=2)
                continue
            except ReadError:  # gone since the folder was listed, or not ours to read
                continue
            if fits(header, info):
                return url, header
        return None


def header_at(url: str) -> IndexHeader | None:
    """Return the header of the index at a URL; None where there is none, or a damaged one."""
    try:
        return read_header(store_for(url).read(url), url)
    except (ReadError, IndexFileError):
        return None


def fits(index: IndexHeader | ShardIndex, info: ObjectInfo) -> bool:
    """Say whether an index was made of this version of a shard."""
    return (index.shard_size, index.shard_version) == (info.size, info.version)


def _hash(url: str) -> str:
    return hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
