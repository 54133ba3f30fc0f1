"""From a generation's sidecars to the table, and from the table to sidecars.

Takes tables, shard digests and a store; gives reports and file contents. Effects: reads the generation's files, and
warns of those that cannot be used.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from seta_stream.errors import ReadError, SetaStreamWarning, SidecarError
from seta_stream.losses.drafts import in_groups
from seta_stream.losses.envelope import stored_crc
from seta_stream.losses.manifest import Generation, SidecarEntry, pair_by_digest
from seta_stream.losses.sidecar import Remembered, pack, unpack
from seta_stream.losses.table import LossTable
from seta_stream.store import Store, join

_IN_FLIGHT: Final = 16


class Shards(Protocol):
    """What is asked of the shard table."""

    @property
    def digests(self) -> Sequence[bytes]:
        """16 bytes per shard."""
        ...


@dataclass(frozen=True)
class LoadReport:
    """What a load could not give.

    Args:
        unmatched: numbers of shards that the generation has no sidecar of: new or changed ones.
        damaged: (shard number, why) of the sidecars that could not be used.
    """

    unmatched: tuple[int, ...]
    damaged: tuple[tuple[int, str], ...]

    @property
    def unseen_shards(self) -> int:
        """How many shards count as never seen."""
        return len(self.unmatched) + len(self.damaged)


def load_losses(
    store: Store, folder: str, generation: Generation, table: LossTable, shards: Shards, own: range | None = None
) -> LoadReport:
    """Fill a table from the generation's sidecars in `folder`; see `Generations.load`."""
    paired = pair_by_digest(shards.digests, generation.sidecars)
    pairs = [(shard, paired[shard]) for shard in (range(len(paired)) if own is None else own)]
    damaged: list[tuple[int, str]] = []
    for shard, entry, data in _read(store, join(folder, generation.name), pairs):
        samples = len(table.losses(shard))
        held = Remembered(np.full(samples, np.nan, np.float32), np.full(samples, 255, np.uint8), {})
        if entry is not None:
            try:
                held = _checked(data, entry, samples, f"{generation.name}/{entry.file}")
            except SidecarError as error:
                damaged.append((shard, error.message))
        table.load(shard, *held)
    if damaged:
        unseen = sum(len(table.losses(shard)) for shard, _ in damaged)
        warnings.warn(
            f"{len(damaged)} sidecars of generation {generation.name} in {folder} cannot be used, and {unseen} samples "
            f"count as unseen. {' '.join(why for _, why in damaged[:3])}",
            SetaStreamWarning,
            stacklevel=4,
        )
    return LoadReport(tuple(shard for shard, entry in pairs if entry is None), tuple(damaged))


def warn_of_load(name: str, report: LoadReport, shards: int, seeded: set[str], weighted_by: str | None) -> None:
    """Tell what a load could not bring.

    Args:
        name: of the generation.
        report: of the load.
        shards: that were to be loaded.
        seeded: columns that start from the last losses.
        weighted_by: the policy that weights samples by its columns; None where it does not.
    """
    if seeded and weighted_by is not None:
        warnings.warn(
            f"Generation {name} was written without {', '.join(sorted(seeded))}, by which {weighted_by} weights the "
            "samples: they start as if each seen sample had been recorded once. Start the run with this policy, or "
            "expect other weights for some epochs.",
            SetaStreamWarning,
            stacklevel=3,
        )
    if report.unseen_shards:
        warnings.warn(
            f"Generation {name} has no usable losses for {report.unseen_shards} of {shards} shards; their samples "
            "count as unseen. Where the corpus should be that of the state, its shards were changed: `seta-stream "
            "repack --state-out` carries losses over to those that it writes.",
            SetaStreamWarning,
            stacklevel=3,
        )


def _read(
    store: Store, folder: str, pairs: list[tuple[int, SidecarEntry | None]]
) -> Iterator[tuple[int, SidecarEntry | None, bytes | None]]:
    """Yield each shard's number, entry and file; None for a file that is not there."""

    def read(entry: SidecarEntry | None) -> bytes | None:
        try:
            return None if entry is None else store.read(join(folder, entry.file))
        except ReadError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for group in in_groups(pairs, _IN_FLIGHT * 4):
            for (shard, entry), data in zip(group, pool.map(read, [one for _, one in group]), strict=True):
                yield shard, entry, data


def _checked(data: bytes | None, entry: SidecarEntry, samples: int, name: str) -> Remembered:
    if data is None:
        raise SidecarError(f"Cannot use the sidecar {name}: it is not there.")
    held = unpack(data, entry.digest, name=name)
    if stored_crc(data) != entry.crc or len(held.losses) != samples:
        raise SidecarError(
            f"Cannot use the sidecar {name}: it is whole, but not the one that the manifest lists "
            f"({len(held.losses)} samples, checksum {stored_crc(data):08x}; expected {samples} and {entry.crc:08x}).",
            expected=(samples, entry.crc),
            found=(len(held.losses), stored_crc(data)),
        )
    return held


def sidecar_name(shard: int) -> str:
    """Return the name of a shard's sidecar in its generation."""
    return f"{shard:06d}.losses"


def sidecars(
    table: LossTable, shards: Shards, entries: list[SidecarEntry], own: range | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of the sidecar of each shard that this process owns, and note its entry."""
    for shard in range(len(shards.digests)) if own is None else own:
        digest = shards.digests[shard]
        part = slice(*table.first_id[shard : shard + 2].tolist())
        columns = {name: column[part] for name, column in table.columns.items()}
        data = pack(table.values[part], table.all_ages[part], digest, columns)
        entry = SidecarEntry(sidecar_name(shard), digest, part.stop - part.start, stored_crc(data))
        entries.append(entry)
        yield entry.file, data
