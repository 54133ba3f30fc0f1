"""A generation while it is written: nobody sees it before `publish`, and nothing is left of it after `discard`.

Takes named bytes; effects: files under the state. Locally a folder is written under a temporary name and renamed;
behind fsspec, where nothing can be renamed, the manifest is written last.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from seta_stream.losses.lock import StateLock, is_locked
from seta_stream.losses.manifest import is_generation_name
from seta_stream.store import Store, join

MANIFEST_NAME: Final = "manifest"

_TEMPORARY: Final = ".writing-"
_IN_FLIGHT: Final = 16
_One = TypeVar("_One")


class Part(Protocol):
    """What one process writes of a generation."""

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files, by name in the generation's folder; on return they are there for good."""
        ...


class Draft(Protocol):
    """A generation that is being written, by one process or several."""

    @property
    def place(self) -> str:
        """Where its parts are written."""
        ...

    def publish(self, manifest: bytes) -> None:
        """Make the generation be there, whole, in one step."""
        ...

    def discard(self) -> None:
        """Remove what was written; never raises."""
        ...


class LocalPart:
    """Files of a generation in a local folder.

    Args:
        folder: its temporary one, which every process of the run must see.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files; they reach the disk all together, which is far faster than one by one."""
        paths = []
        for name, data in files:
            path = self._folder / name
            paths.append(path)
            with path.open("wb") as file:
                file.write(data)
        # One after another, each waits for a commit of the file system's journal; many at once share them.
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for group in in_groups(paths, _IN_FLIGHT * 4):
                list(pool.map(_flush, group))


class LocalDraft:
    """A generation in a local folder.

    Args:
        folder: of all generations.
        name: of this one.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._final = folder / name
        self._folder = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        self._lock = StateLock(self._folder, warn=False)  # tells `clean_local` that the writer lives
        self._lock.acquire()

    @property
    def place(self) -> str:
        """The temporary folder."""
        return str(self._folder)

    def publish(self, manifest: bytes) -> None:
        """Write the manifest, flush the folder to the disk and rename it."""
        LocalPart(self._folder).write([(MANIFEST_NAME, manifest)])
        _flush(self._folder)
        self._folder.rename(self._final)
        _flush(self._final.parent)
        self._lock.release()

    def discard(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


def clean_local(folder: Path) -> None:
    """Remove temporary folders whose writer is gone, and generations whose removal was cut short."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            left_over = path.name.startswith(_TEMPORARY) and not is_locked(path)
            half_removed = is_generation_name(path.name) and not (path / MANIFEST_NAME).exists()
            if left_over or half_removed:
                shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class StorePart:
    """Files of a generation behind any store: many are in flight at once.

    Args:
        store: where they go.
        url: of the generation's folder.
    """

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files."""
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for group in in_groups(files, _IN_FLIGHT * 4):
                list(pool.map(self._write_one, group))

    def _write_one(self, file: tuple[str, bytes]) -> None:
        self._store.write(join(self._url, file[0]), file[1])


class StoreDraft:
    """A generation behind any store, whose manifest comes last.

    Args:
        store: where it goes.
        url: of its folder.
    """

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self.place = url

    def publish(self, manifest: bytes) -> None:
        """Write the manifest."""
        self._store.write(join(self.place, MANIFEST_NAME), manifest)

    def discard(self) -> None:
        """Remove what was written, as far as the store lets us."""
        with contextlib.suppress(OSError):
            self._store.remove(self.place)


def clean_store(store: Store, folder: str, there: Collection[str]) -> None:
    """Remove what a killed run left of generations without a manifest; only the state's writer may.

    Args:
        store: of the state.
        folder: of all generations.
        there: names of those that have a manifest.
    """
    with contextlib.suppress(OSError):  # what cannot be removed now is nobody's generation either
        for name in store.names(folder):
            if is_generation_name(name) and name not in there:
                store.remove(join(folder, name))


def in_groups(items: Iterable[_One], size: int) -> Iterator[list[_One]]:
    """Yield the items in lists of at most `size`."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
