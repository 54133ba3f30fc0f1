"""One generation on its way to the state: sidecars by every process, then a manifest by one.

Takes a generation and tables; effects: files under <state>/losses. Nobody sees them before `publish`, and nothing is
left of them after `discard`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from seta_stream.errors import StateError
from seta_stream.losses.drafts import Draft, LocalDraft, LocalPart, StoreDraft, StorePart
from seta_stream.losses.loading import Shards, sidecars
from seta_stream.losses.manifest import (
    Generation,
    SidecarEntry,
    pack_entries,
    pack_manifest,
    unpack_entries,
)
from seta_stream.losses.table import LossTable
from seta_stream.store import Store, is_local, join, local_path


class Committer:
    """Writes generations to a folder.

    Args:
        store: of the state.
        folder: URL of all generations.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._is_local = is_local(folder)
        self._draft: Draft | None = None

    def begin(self, name: str) -> str:
        """Begin a generation; return where its sidecars go.

        Raises:
            StateError: nothing can be written there; as all that follow.
        """
        with self._told_full(name):
            self._draft = (
                LocalDraft(local_path(self._folder), name)
                if self._is_local
                else StoreDraft(self._store, join(self._folder, name))
            )
        return self._draft.place

    def write_part(self, place: str, name: str, table: LossTable, shards: Shards, own: range | None) -> bytes:
        """Write the sidecars of some shards (None: of all) to a place that `begin` gave; return their entries."""
        entries: list[SidecarEntry] = []
        with self._told_full(name):
            part = LocalPart(Path(place)) if self._is_local else StorePart(self._store, place)
            part.write(sidecars(table, shards, entries, own))
        return pack_entries(entries)

    def publish(self, generation: Generation, written: Sequence[bytes]) -> Generation:
        """Make what `write_part` wrote, here and elsewhere, a generation."""
        assert self._draft is not None  # noqa: S101  (begun before)
        entries = sorted((entry for part in written for entry in unpack_entries(part)), key=lambda entry: entry.file)
        generation = replace(generation, sidecars=tuple(entries))
        with self._told_full(generation.name):
            self._draft.publish(pack_manifest(generation))
        self._draft = None
        return generation

    def discard(self) -> None:
        """Remove what was written of a generation that is not published; never raises."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    @contextlib.contextmanager
    def _told_full(self, name: str) -> Iterator[None]:
        """Say of a write that failed what is left, and what to do."""
        try:
            yield
        except FileNotFoundError as error:
            raise StateError(
                f"Cannot write generation {name} to {self._folder}: {error}. Every process of a run must see the state "
                "folder: give state= a folder that all machines share, or a bucket."
            ) from error
        except OSError as error:
            raise StateError(
                f"Cannot write generation {name} to {self._folder}: {error}. The generation before it is "
                "whole and stays; the losses of this epoch are still in memory. Free space there, or give the state "
                "folder the rights to write, and set the epoch again."
            ) from error
