"""The folder of pending losses: those that belong to no generation yet, for checkpoints.

Takes arrays and names; effects: files under <state>/pending, one per checkpoint and process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import StateError
from seta_stream.losses.pending import HEADER_BYTES, PendingLosses, pack_pending, parent_of, unpack_pending
from seta_stream.store import Store, join


class PendingFolder:
    """The pending losses of a state.

    Args:
        store: of the state.
        url: of the folder.
    """

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self.url = url

    def write(
        self,
        name: str,
        ids: ArrayLike,
        losses: ArrayLike,
        columns: Mapping[str, NDArray[Any]] | None = None,
        *,
        parent: str | None = None,
        calls: bytes = b"",
    ) -> None:
        """Keep losses that belong to no generation yet; they go when the generation `parent` goes.

        Raises:
            StateError: nothing could be written.
        """
        try:
            self._store.write(join(self.url, name), pack_pending(ids, losses, parent, columns or {}, calls))
        except OSError as error:
            raise StateError(
                f"Cannot write the pending losses {name} to {self.url}: {error}. Free space there, or give the "
                "state folder the rights to write."
            ) from error

    def has(self, name: str) -> bool:
        """Say whether pending losses of this name are there."""
        return self._store.exists(join(self.url, name))

    def read(self, name: str) -> PendingLosses:
        """Return what `write` kept.

        Raises:
            StateError: they are gone, or the file is damaged.
        """
        if not self.has(name):
            raise StateError(
                f"The pending losses {name} are not in {self.url}: the checkpoint that names them is older than "
                "the generations that are kept, or belongs to another state. Use a newer checkpoint.",
                expected=name,
            )
        return unpack_pending(self._store.read(join(self.url, name)), name=name)

    def remove(self, name: str) -> None:
        """Remove pending losses; harmless where there are none."""
        self._store.remove(join(self.url, name))

    def remove_of(self, parents: Collection[str | None]) -> None:
        """Remove all that were recorded on top of one of these generations; None stands for no generation."""
        for name in self._store.names(self.url) if parents else []:
            if parent_of(self._first_bytes(name)) in parents:
                self.remove(name)

    def _first_bytes(self, name: str) -> bytes:
        url = join(self.url, name)
        length = min(self._store.info(url).size, HEADER_BYTES)
        file = self._store.open(url)
        try:
            return file.read(0, length)
        finally:
            file.close()
