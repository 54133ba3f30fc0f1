"""Losses and selections as files; the selected samples as new shards.

Takes Sources; gives files and what was written. Acts: reads states and indexes, writes local files; shards through the
room `repack`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.choosing import Selected
from seta_stream.carry.masks import ListedShard, as_json, as_text
from seta_stream.carry.opening import Source, columns_in
from seta_stream.carry.rows import Chunk, chunks
from seta_stream.carry.spelling import RESERVED, spelled
from seta_stream.carry.tables import whole_file, write_table
from seta_stream.errors import ArgumentError
from seta_stream.jobs import Engine
from seta_stream.repack import Choice, Progress, Report, run
from seta_stream.store import Options, normalise

LISTS: Final = {".json": as_json, ".txt": as_text}
"""Endings of lists of shards with masks, and what spells them."""

Told = Callable[[int], None]
"""Is told of rows that are done."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        file: where.
        rows: samples, or shards of a list.
        generation: whose losses or rule.
        epoch: whose end the losses are of, or the epoch that is selected.
        samples: of the corpus.
        selected: of a selection; None of losses.
        seen: samples with a loss; None of a selection.
    """

    file: str
    rows: int
    generation: str
    epoch: int
    samples: int
    selected: int | None = None
    seen: int | None = None


def export_losses(source: Source, path: Path, told: Told | None = None) -> Exported:
    """Write url, key, index, id, loss, age and the policy's columns of every sample, as .parquet or .csv.

    Args:
        source: the generation, and its corpus.
        path: of the file.
        told: is told of rows as they are done.

    Raises:
        ArgumentError: another ending, or a column of the policy has the name of one of these.
        MissingExtraError: pyarrow is not installed.
        StateError: no losses are of this corpus.
        ReadError: an index cannot be read, or the file not be written.
    """
    table = source.table(columns_in(source))
    clash = sorted(set(table.columns) & set(RESERVED))
    if clash:
        raise ArgumentError(
            f"Cannot export {source.generation.name}: its policy remembers {', '.join(clash)}, and the file has a "
            "column of that name. Rename the policy's.",
            found=clash,
        )
    columns: dict[str, NDArray[Any]] = {"loss": table.values, "age": table.all_ages, **table.columns}
    rows = _write(source, path, columns, told)
    seen = table.total - int(np.isnan(table.values).sum())
    return Exported(str(path), rows, source.generation.name, source.generation.epoch, table.total, seen=seen)


def export_selection(source: Source, selected: Selected, path: Path, told: Told | None = None) -> Exported:
    """Write a selection: as rows (.parquet, .csv) of every sample, or as a list of shards with masks (.json, .txt).

    Args:
        source: the generation, and its corpus.
        selected: of `choose`.
        path: of the file.
        told: is told of rows as they are done.

    Raises:
        ArgumentError: another ending.
        MissingExtraError: pyarrow is not installed.
        ReadError: an index cannot be read, or the file not be written.
    """
    if path.suffix.lower() in LISTS:
        parts = LISTS[path.suffix.lower()](_facts(source, selected), listed(source, selected))
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.writelines(parts)
        rows = len(source.shards)
    else:
        weight = selected.mask.astype(np.float32) if selected.weight is None else selected.weight
        rows = _write(source, path, {"selected": selected.mask, "weight": weight}, told)
    return Exported(
        str(path), rows, source.generation.name, selected.epoch, source.shards.total, selected=selected.count
    )


def listed(source: Source, selected: Selected) -> Iterator[ListedShard]:
    """Give each shard with its part of a selection."""
    first_id = source.shards.first_id.tolist()
    for shard, url in enumerate(source.shards.urls):
        part = slice(first_id[shard], first_id[shard + 1])
        mask = selected.mask[part]
        weights = None if selected.weight is None else selected.weight[part][mask]
        yield ListedShard(spelled(url), mask, None if weights is None or (weights == 1).all() else weights)


def export_shards(
    source: Source,
    selected: Selected,
    to: str,
    *,
    shard_samples: int | None = None,
    shard_bytes: int | None = None,
    prefix: str | None = None,
    index: str | None = None,
    engine: Engine | None = None,
    to_options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write the selected samples as new shards, byte for byte, in corpus order; killed, the same call goes on.

    Args:
        source: the corpus.
        selected: of `choose`.
        to: folder of the new shards, of any protocol; another than the corpus's.
        shard_samples, shard_bytes: size of the new shards; by default each holds what is left of its own.
        prefix: of their names.
        index: folder of the corpus's indexes.
        engine: where they are written.
        to_options: of the file system of `to`.
        progress: is called after each task.

    Raises:
        SetaStreamError: as repack.repack does.
    """
    choice = Choice(
        source.shards.urls, normalise(to), "corpus", None, None, None, shard_bytes, shard_samples, prefix, None, index,
        source.options, to_options, None, engine=engine or Engine(), wanted=selected.mask,
    )  # fmt: skip
    return run(choice, progress)


def _facts(source: Source, selected: Selected) -> dict[str, Any]:
    return {
        "epoch": selected.epoch,
        "generation": source.generation.name,
        "policy": selected.policy,
        "seed": selected.seed,
        "samples": source.shards.total,
        "selected": selected.count,
    }


def _write(source: Source, path: Path, columns: Mapping[str, NDArray[Any]], told: Told | None) -> int:
    def each() -> Iterator[Chunk]:
        for chunk in chunks(source.shards, source.corpus, columns):
            yield chunk
            if told is not None:
                told(len(chunk))

    return write_table(path, each())
