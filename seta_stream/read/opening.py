"""How a shard's object is opened: from disk, from the bucket, through the local cache, or in sequence.

Takes URLs and indexes; gives ShardFiles of the version that was indexed. Effects: open handles, and for remote objects
the requests of the reader's engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seta_stream.errors import ShardChangedError
from seta_stream.read.cache_asking import Counts
from seta_stream.read.cache_file import CachedFile
from seta_stream.read.sequence import SequentialFile
from seta_stream.store import ObjectInfo, Options, ShardFile, is_local, store_for

if TYPE_CHECKING:
    from seta_stream.corpus.index import ShardIndex
    from seta_stream.read.cache import OpenCache
    from seta_stream.store.engine import Engine


class Opener:
    """Opens objects for one reader.

    Args:
        options: of the file system.
        engine: whose limits hold for remote objects; None where all are local.
        cache: keeps what is fetched; None for none.
    """

    def __init__(self, options: Options | None, engine: Engine | None, cache: OpenCache | None) -> None:
        self._options = options
        self._engine = engine
        self.cache = cache
        self.counts = Counts() if cache is None else cache.counts
        """What files fetched that tell so only as they are read: cached ones, and those read in sequence."""

    def open(self, url: str, index: ShardIndex, shard: int, until: int) -> ShardFile:
        """Open the version of an object that was indexed.

        Args:
            url, index, shard: of the corpus: where it lies, what is in it, its number.
            until: where the last byte ends that the epoch reads of it.

        Raises:
            ShardChangedError: there is another version now.
        """
        store = store_for(url, self._options)
        expected = ObjectInfo(index.shard_size, index.shard_version)
        file: ShardFile
        if index.seekable:
            file = store.open(url, expected, engine=self._engine)
        else:
            reads_on = until > int(index.extent_start[-1])
            file = SequentialFile(store, url, until, reads_on=reads_on, count=self.counts.add)
        if file.info != expected:
            found = file.info
            file.close()
            raise ShardChangedError(
                f"{url} changed since it was indexed: it had {expected.size} bytes ({expected.version}) and has "
                f"{found.size} ({found.version}). Run `seta-stream index` again, or restore the shard.",
                shard=url,
                expected=expected,
                found=found,
            )
        if self.cache is None or not index.seekable or is_local(url):
            return file
        return self.cache.wrap(file, shard)

    def close(self) -> None:
        """Give up what is under way into the cache."""
        if self.cache is not None:
            self.cache.close()


def holds_all(file: ShardFile) -> bool:
    """Say whether every byte of a remote object lies on this machine."""
    return isinstance(file, CachedFile) and file.holds_all


def counts_itself(file: ShardFile) -> bool:
    """Say whether what is fetched for a file is counted as it is read, not as it is planned."""
    return isinstance(file, CachedFile | SequentialFile)
