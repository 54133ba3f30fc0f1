"""Where the indexes of a corpus may lie, and which of them are good.

Takes shards with their sizes and versions; gives index files that fit them. Acts: lists folders, reads and writes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from seta_stream.corpus.folders import Folders
from seta_stream.corpus.ids import ShardFacts
from seta_stream.corpus.index import SUFFIX, IndexHeader, ShardIndex, head_bytes, peek_header, read_header
from seta_stream.corpus.sealed import malformed
from seta_stream.errors import IndexFileError, ReadError, SetaStreamWarning, ShardChangedError
from seta_stream.store import ObjectInfo, Options, is_local, join, store_for

if TYPE_CHECKING:
    from seta_stream.store.engine import Engine

WHOLE_BYTES: Final = 16 << 10
"""A remote index this short is read whole, its checksum with it: a request costs more than the bytes."""
LARGEST_BYTES: Final = 2 << 30
"""No index is read that is larger; one of a hundred million samples takes about half of that."""
FIRST_BYTES: Final = 4 << 10
"""Of a longer one: the header takes about 60 bytes for each field, and 300."""

Home = Literal["index", "beside", "cache", "state"]
HOMES: Final[tuple[Home, ...]] = ("index", "beside", "cache", "state")
"""Where indexes live, in the order in which they are looked for: a named folder, beside the shards, the user's cache
folder, the run's state. Every machine has a cache folder of its own."""


def index_names(urls: Sequence[str]) -> list[str]:
    """Return the file name of each shard's index in a folder that holds them all.

    It is the shard's own name and a suffix, with a hash of the URL between them where two shards share a name.
    """
    bases = [_base(url) for url in urls]
    times = Counter(bases)
    return [
        base + SUFFIX if times[base] == 1 else f"{base}.{_hash(url)[:12]}{SUFFIX}"
        for url, base in zip(urls, bases, strict=True)
    ]


def cache_folder() -> Path:
    """Return the folder of this user on this machine in which indexes are kept."""
    import platformdirs  # noqa: PLC0415  (keeps the import of seta_stream short)

    return Path(platformdirs.user_cache_dir("seta_stream")) / "index"


def cache_url(url: str, folder: str | None = None) -> str:
    """Return where a shard's index lies in the user's cache folder, which is looked up where it is not given."""
    return f"{folder or cache_folder()}/{_hash(url)}{SUFFIX}"


def beside(url: str) -> str:
    """Return where a shard's index lies beside it."""
    return url + SUFFIX


@dataclass(frozen=True, slots=True)
class Place:
    """A file that may be the index of a shard.

    Args:
        url: where it lies.
        options: what its file system is given.
        info: size and version, where it lies in a remote folder and was listed.
        home: which of HOMES it is.
    """

    url: str
    options: Options | None = field(repr=False)
    info: ObjectInfo | None
    home: Home = "cache"


def places_at(
    urls: Sequence[str], folders: Folders, options: Options | None, home: Home = "beside"
) -> list[list[Place]]:
    """Return the place at each URL, in a list that is empty where nothing lies there; an empty URL is none.

    A folder is looked into once, not once per shard: a bucket answers 1,000 names per request.
    """
    found: list[list[Place]] = [[] for _ in urls]
    by_folder: dict[str, list[tuple[int, str]]] = {}
    for number, url in enumerate(urls):
        if url:
            by_folder.setdefault(url.rpartition("/")[0], []).append((number, url.rpartition("/")[2]))
    for folder, wanted in by_folder.items():
        present = folders.present(folder, [name for _, name in wanted])
        for number, name in wanted:
            if name in present:
                found[number].append(Place(f"{folder}/{name}", options, present[name], home))
    return found


class Homes:
    """Where the index of each shard of a corpus lies if it lies in one of HOMES, as seen from this machine.

    Args:
        urls: the shards, normalised.
        index: a folder that the user names, or None.
        state: the folder of the run's state, or None.
        storage_options: what the fsspec file system is given for the shards and their neighbours.
        state_options: what it is given for the state.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        index: str | None,
        state: str | None,
        storage_options: Options | None,
        state_options: Options | None,
    ) -> None:
        self.shards = tuple(urls)
        self._names = index_names(urls)
        self._folders = {"index": index, "state": None if state is None else join(state, "index")}
        self._cache = str(cache_folder())
        self._options: dict[Home, Options | None] = {
            "index": storage_options,
            "beside": storage_options,
            "cache": None,
            "state": state_options,
        }

    def place(self, shard: int, home: Home) -> Place:
        """Return where a shard's index lies in one of its homes, whether there is one or not."""
        return Place(self._url(shard, home), self._options[home], None, home)

    def present(self, home: Home, folders: Folders | None) -> list[list[Place]]:
        """Return each shard's place in a home, in a list that is empty where nothing lies there.

        Args:
            home: which.
            folders: of the shards' store; None for a store of its own.
        """
        shards = range(len(self.shards))
        if self._folders.get(home, "") is None:
            return [[] for _ in shards]
        if home == "cache":
            places = [self.place(shard, home) for shard in shards]
            return [[place] if os.path.exists(place.url) else [] for place in places]  # noqa: PTH110  (fast)
        urls = [self._url(shard, home) for shard in shards]
        if home == "beside":
            # What is signed is one object, and no neighbour of it.
            urls = ["" if "?" in url and not is_local(url) else beside(url) for url in self.shards]
        return places_at(urls, folders or Folders(self._options[home]), self._options[home], home)

    def _url(self, shard: int, home: Home) -> str:
        if home == "cache":
            return cache_url(self.shards[shard], self._cache)
        if home == "beside":
            return beside(self.shards[shard])
        folder = self._folders[home]
        assert folder is not None  # noqa: S101  (who asks has named one)
        return join(folder, self._names[shard])


class Places:
    """The places of a corpus's indexes, in the order in which they are looked at.

    Args:
        homes: where they may lie.
        folders: of the shards' store.
    """

    def __init__(self, homes: Homes, folders: Folders) -> None:
        looks = [homes.present(home, None if home == "state" else folders) for home in HOMES]
        self._found = [[place for look in looks for place in look[shard]] for shard in range(len(homes.shards))]

    def candidates(self, shard: int) -> list[Place]:
        """Return where a file of the right name lies, best first."""
        return self._found[shard]


def read_headers(places: Sequence[Place]) -> list[IndexHeader | None]:
    """Return the header of each index; None where there is none, or a damaged one, which is warned about.

    Remote ones are read many at once; of long ones only the begin, whose checksum stands at the end: whoever trusts
    their number of samples compares it once the index is read.
    """
    headers: list[IndexHeader | None] = [None] * len(places)
    far = [number for number, place in enumerate(places) if place.info is not None]
    for number, place in enumerate(places):
        if place.info is None:
            headers[number] = _header_or_none(partial(_read_near, place))
    if far:
        from seta_stream.store.engine import Engine  # noqa: PLC0415  (clients; only where something is remote)

        engine = Engine()
        asked = [_Opening(places[number], engine) for number in far]
        for number, opening in zip(far, asked, strict=True):
            headers[number] = _header_or_none(opening.header)
    return headers


def peek_near(url: str) -> tuple[IndexHeader, int] | None:
    """Return the header of a local index, read without the rest, and the file's length; None where none is good.

    No checksum covers it: whoever trusts its number of samples compares it once the index is read.
    """
    try:
        file = store_for(url).open(url)
        try:
            size = file.info.size
            data = file.read(0, min(FIRST_BYTES, size))
            length = head_bytes(data, url)
            if len(data) < length <= size:
                data += file.read(len(data), length - len(data))
            return peek_header(data[:length], url), size
        finally:
            file.close()
    except (ReadError, IndexFileError, ShardChangedError):
        return None


class _Opening:
    """A remote index whose first bytes are under way."""

    def __init__(self, place: Place, engine: Engine) -> None:
        assert place.info is not None  # noqa: S101  (the caller has looked)
        self.url = place.url
        self._size = place.info.size
        self._length = self._size if self._size <= WHOLE_BYTES else FIRST_BYTES
        self._file = store_for(place.url, place.options).open(place.url, place.info, engine=engine)
        self._answer = self._file.ask([(0, self._length)])[0] if self._length else None

    def header(self) -> IndexHeader:
        """Wait for it, and for what is missing."""
        data = bytes(self._answer.result()) if self._answer is not None else b""
        if self._length == self._size:
            return read_header(data, self.url)
        length = head_bytes(data, self.url)
        if length > self._size:
            raise malformed("the length of the header", self.url)
        if length > len(data):
            data += self._file.read(len(data), length - len(data))
        return peek_header(data[:length], self.url)


def read_index(place: Place) -> bytes:
    """Return the bytes of an index file.

    Raises:
        IndexFileError: it has more bytes than any index.
        ReadError: it cannot be read.
    """
    store = store_for(place.url, place.options)
    # Elsewhere a look would be a request for each index; web servers are held to a limit in any case.
    info = store.info(place.url) if place.info is None and is_local(place.url) else place.info
    size = 0 if info is None else info.size
    if size > LARGEST_BYTES:
        raise malformed(f"its length ({size} bytes; {LARGEST_BYTES} at most are read)", place.url)
    return store.read(place.url)


def _read_near(place: Place) -> IndexHeader:
    return read_header(read_index(place), place.url)


def _header_or_none(read: Callable[[], IndexHeader]) -> IndexHeader | None:
    try:
        return read()
    except IndexFileError as error:
        warnings.warn(f"{error} It is not used.", SetaStreamWarning, stacklevel=3)
    except (ReadError, ShardChangedError):  # gone or replaced since it was listed, or not ours to read
        pass
    return None


def fits(index: ShardFacts | ShardIndex, info: ObjectInfo) -> bool:
    """Say whether an index was made of this version of a shard."""
    return (index.shard_size, index.shard_version) == (info.size, info.version)


def _base(url: str) -> str:
    """Return the shard's own name: of a remote URL without its query, which may be a signature."""
    path = url if is_local(url) or "?" not in url else urlsplit(url).path
    return path.rpartition("/")[2]


def _hash(url: str) -> str:
    return hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
