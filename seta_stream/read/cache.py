"""The local cache of a bucket's shards: block-wise, bounded, crash-safe, shared by all processes of a machine.

Takes the shards of a corpus; gives ShardFiles that keep what they fetch. Effects: files in one folder; and a warning,
once per run, where it cannot be used.

`BlockCache` is made once per run and handed to its worker processes; each opens it for itself, as often as it reads.
"""

from __future__ import annotations

import ctypes
import multiprocessing.sharedctypes
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from typing import Any, Final

import numpy as np

from seta_stream.errors import ReadError, SetaStreamWarning
from seta_stream.read.cache_asking import Counts, Fetching
from seta_stream.read.cache_blocks import BlockFile
from seta_stream.read.cache_file import CachedFile
from seta_stream.read.cache_folder import CacheFolder
from seta_stream.read.cache_format import Layout, name_of, place_of
from seta_stream.read.options import Cache
from seta_stream.store import Bytes, ShardFile
from seta_stream.store.redaction import redact
from seta_stream.store.versions import UNVERSIONED

BLOCK_BYTES: Final = 256 << 10
MOST_BLOCKS: Final = 1 << 32
"""Of a whole corpus, a PiB: each takes a byte of shared memory, and a server can claim any size."""
RUNS_AHEAD: Final = 32
"""So many runs of blocks fit in what may be under way, so that the latency of one is hidden by the others."""

_TROUBLE, _FULL, _UNVERSIONED, _FLAGS = range(4)  # what was told already, in the first shared bytes


class BlockCache:
    """The cache of one run: settings, names, and which blocks were seen to match their checksum.

    Holds no descriptor. It goes to worker processes as they are started, by fork or spawn, and works in threads.

    Args:
        cache: folder and size.
        urls, sizes, versions: of the corpus's shards.
        options: of the file system; they only tell stores apart, and no credential of them is kept.
        block_bytes: what is fetched and kept at once.
    """

    def __init__(
        self,
        cache: Cache,
        urls: Sequence[str],
        sizes: Sequence[int],
        versions: Sequence[str],
        *,
        options: Mapping[str, Any] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.cache = cache
        self.block_bytes = block_bytes
        self.place = place_of(options)
        rows = zip(urls, sizes, versions, strict=True)
        self.names = b"".join(name_of(url, int(size), version, self.place) for url, size, version in rows)
        blocks = [-(-int(size) // block_bytes) for size in sizes]
        self.first_block = np.concatenate([[0], np.cumsum(np.array(blocks, np.int64))])
        if blocks and sum(blocks) > MOST_BLOCKS:
            worst = max(range(len(blocks)), key=blocks.__getitem__)
            raise ReadError(
                f"A corpus of {sum(map(int, sizes))} bytes (the largest shard is {urls[worst]}) cannot be cached: at "
                f"most {MOST_BLOCKS} blocks of {block_bytes} bytes are. Leave cache= out, or look whether the server "
                "tells the right size.",
                shard=urls[worst],
                expected=MOST_BLOCKS,
                found=sum(blocks),
            )
        # Anonymous memory that forked and spawned workers share: a block that one of them stored or compared is
        # good for all of them.
        self._shared: Any = multiprocessing.sharedctypes.RawArray(ctypes.c_uint8, _FLAGS + int(self.first_block[-1]))

    def open(self, *, ahead_bytes: int, span_bytes: int) -> OpenCache:
        """Open the cache in the process that reads.

        Args:
            ahead_bytes: most bytes under way at once in this process.
            span_bytes: most bytes of one request.
        """
        return OpenCache(self, ahead_bytes, span_bytes)

    def trusted(self, shard: int) -> memoryview:
        """Return a byte per block of a shard: whether this run saw it match its checksum."""
        first, stop = self.first_block[shard : shard + 2].tolist()
        seen: memoryview = np.frombuffer(self._shared, np.uint8).data
        return seen[_FLAGS + first : _FLAGS + stop]

    def is_first_to_tell(self, what: int) -> bool:
        """Say whether no process of the run has told yet."""
        told, self._shared[what] = self._shared[what], 1
        return not told


class OpenCache:
    """The cache as one reader of one process uses it.

    Args:
        of: the run's cache.
        ahead_bytes, span_bytes: see `BlockCache.open`.
    """

    def __init__(self, of: BlockCache, ahead_bytes: int, span_bytes: int) -> None:
        self.counts = Counts()
        self.fetching = Fetching(ahead_bytes, self._store, self.counts)
        self.run_bytes = max(of.block_bytes, min(span_bytes, ahead_bytes // RUNS_AHEAD))
        self._of = of
        self._open: weakref.WeakValueDictionary[int, BlockFile] = weakref.WeakValueDictionary()
        self._folder = CacheFolder(of.cache.folder, of.cache.max_bytes, of.block_bytes)
        self._has_room: bool | None = None  # None where nobody has asked yet: counting takes a moment
        try:
            self._folder.make()
            self._folder.claim(of.names)
        except OSError as error:
            self._stop(error)

    def wrap(self, file: ShardFile, shard: int) -> ShardFile:
        """Return a shard that keeps what it fetches, or the shard itself where nothing of it can be kept.

        Args:
            file: the shard; it belongs to what is returned.
            shard: its number in the corpus.
        """
        if file.info.version == UNVERSIONED:
            self._tell(
                _UNVERSIONED,
                f"{redact(file.url)} is not cached: its store tells neither an ETag nor a time, so that a changed "
                "object could not be told from the old one. Let the server send ETag or Last-Modified.",
            )
            return file
        blocks = self._open.get(shard)
        if blocks is None or not blocks.is_usable:
            blocks = self._blocks_of(file, shard)
        return file if blocks is None else CachedFile(file, blocks, self)

    def _blocks_of(self, file: ShardFile, shard: int) -> BlockFile | None:
        name = name_of(file.url, file.info.size, file.info.version, self._of.place)
        path = self._folder.file_of(name)
        layout = Layout(name, file.info.size, self._of.block_bytes)
        trusted = self._of.trusted(shard)
        blocks = None
        if path.exists() or self.is_storing:
            try:
                blocks = BlockFile(path, layout, trusted, is_writable=self._has_room is not False)
            except OSError as error:
                self._stop(error)
                with suppress(OSError):
                    blocks = BlockFile(path, layout, trusted, is_writable=False)
        if blocks is not None:
            self._open[shard] = blocks
        return blocks

    @property
    def is_storing(self) -> bool:
        """Whether the cache takes more."""
        if self._has_room is None:
            self._has_room = True
            try:
                has_room = self._folder.has_room(1)
            except OSError as error:
                self._stop(error)
            else:
                if not has_room:
                    self._fill()
        return self._has_room

    def _store(self, blocks: BlockFile, first: int, data: Bytes) -> bool:
        """Keep blocks that have come; say whether they are kept."""
        if not (blocks.is_writable and self.is_storing):
            return False
        count = -(-len(data) // self._of.block_bytes)
        try:
            if not self._folder.reserve(count):
                self._fill()
                return False
            blocks.store(first, data)
        except OSError as error:
            if not blocks.is_usable:
                return False  # this file alone
            return self._store_after_clearing(blocks, first, data, error)
        return True

    def _store_after_clearing(self, blocks: BlockFile, first: int, data: Bytes, error: OSError) -> bool:
        """Try again where the disk is full and the cache holds what no live run uses."""
        with suppress(OSError):
            if error.errno in {ENOSPC, EDQUOT} and self._folder.clear(len(data)):
                blocks.store(first, data)
                return True
        self._stop(error)
        return False

    def _stop(self, error: OSError) -> None:
        """Go on without storing."""
        self._has_room = False
        self.fetching.pass_on()
        self._tell(
            _TROUBLE,
            f"The cache in {self._folder.path} takes nothing more: {error.strerror or error}. What it holds is served, "
            "the rest is fetched each epoch. Free space there, or give another folder, as cache=Cache(folder, "
            "max_bytes).",
        )

    def _fill(self) -> None:
        self._has_room = False
        self.fetching.pass_on()
        self._tell(
            _FULL,
            f"The cache in {self._folder.path} has reached its {self._folder.limit:,} bytes, and live runs use all "
            "that it holds; what it lacks is fetched each epoch. Give it more, as cache=Cache(folder, max_bytes).",
        )

    def _tell(self, what: int, text: str) -> None:
        if self._of.is_first_to_tell(what):
            warnings.warn(text, SetaStreamWarning, stacklevel=3)

    def close(self) -> None:
        """Give up what is under way, and the claim on the shards."""
        self.fetching.close()
        self._folder.close()
