"""Losses and selections out of a state and into one: `seta-stream export` and `seta-stream import`."""

from __future__ import annotations

from seta_stream.carry.exporting import Exported, export_losses, export_selection, export_shards
from seta_stream.carry.importing import Imported, import_losses
from seta_stream.carry.masks import Listed, ListedShard, read_selection
from seta_stream.carry.opening import Source, open_source

__all__ = [
    "Exported",
    "Imported",
    "Listed",
    "ListedShard",
    "Source",
    "export_losses",
    "export_selection",
    "export_shards",
    "import_losses",
    "open_source",
    "read_selection",
]
