"""What lies in folders and buckets: sizes and versions of many objects in few requests.

Takes URLs; gives what identifies their versions. Effects: listings; where a store has none, a request per object, many
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from seta_stream.errors import ReadError
from seta_stream.store import ObjectInfo, Options, is_local, is_web, store_for

FEW: Final = 8
"""So few objects of a folder are asked for one by one: the folder may hold millions of others."""
AT_ONCE: Final = 32

Item = TypeVar("Item")
Found = TypeVar("Found")


class Folders:
    """Folders of one store, each listed once at most.

    Args:
        options: what the fsspec file system is given.
    """

    def __init__(self, options: Options | None) -> None:
        self._options = options
        self._names: dict[str, frozenset[str]] = {}
        self._listed: dict[str, dict[str, ObjectInfo]] = {}

    def infos(self, urls: Sequence[str]) -> list[ObjectInfo]:
        """Return size and version of each object.

        Raises:
            ReadError: one is not there, or may not be read.
        """
        found: dict[str, ObjectInfo] = {}
        for folder, names in _by_folder(urls).items():
            listed = self._list(folder, len(names))
            found.update({_join(folder, name): listed[name] for name in names if name in listed})
        missing = [url for url in urls if url not in found]
        found.update(zip(missing, _many(self._info, missing), strict=True))
        return [found[url] for url in urls]

    def present(self, folder: str, names: Sequence[str]) -> dict[str, ObjectInfo | None]:
        """Return which of `names` a folder holds, with size and version where the store is remote."""
        if is_local(folder):
            if folder not in self._names:
                try:
                    self._names[folder] = frozenset(store_for(folder, self._options).names(folder))
                except OSError:  # the shards are what must be readable; a closed folder holds no index for us
                    self._names[folder] = frozenset()
            return {name: None for name in names if name in self._names[folder]}
        listed = self._list(folder, len(names))
        if folder in self._listed:
            return {name: listed[name] for name in names if name in listed}
        found = _many(self._info_or_none, [_join(folder, name) for name in names])
        return {name: info for name, info in zip(names, found, strict=True) if info is not None}

    def _list(self, folder: str, wanted: int) -> dict[str, ObjectInfo]:
        """Return what a remote folder holds; nothing where it is not listed: few are wanted, or it cannot be."""
        if folder in self._listed:
            return self._listed[folder]
        if is_local(folder) or is_web(folder) or wanted < FEW:
            return {}
        try:
            self._listed[folder] = store_for(folder, self._options).infos(folder)
        except OSError:  # reading may be allowed where listing is not
            return {}
        return self._listed[folder]

    def _info(self, url: str) -> ObjectInfo:
        return store_for(url, self._options).info(url)

    def _info_or_none(self, url: str) -> ObjectInfo | None:
        try:
            return self._info(url)
        except ReadError:
            return None


def _by_folder(urls: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for url in urls:
        folder, _, name = url.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return folders


def _join(folder: str, name: str) -> str:
    """Join without another look at the path: both parts come from one URL."""
    return f"{folder}/{name}"


def _many(ask: Callable[[str], Found], urls: Sequence[str]) -> list[Found]:
    """Ask for each; remote ones many at once."""
    if len(urls) < 2 or all(map(is_local, urls)):
        return [ask(url) for url in urls]
    with ThreadPoolExecutor(min(AT_ONCE, len(urls))) as pool:
        return list(pool.map(ask, urls))
