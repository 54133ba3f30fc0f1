"""What a corpus and its losses have become since they were last noted. Pure: takes figures, gives findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from seta_stream.corpus.ids import ShardRow, ShardTable
from seta_stream.verifying.findings import Finding

_FEW: Final = 30
"""Losses that a shard must have for its mean to tell something, and shards that there must be."""
_FEW_SHARDS: Final = 5
_SPREADS: Final = 6.0
"""How many usual spreads of shards' means one must be away from their median: a normal one never is."""
_ERRORS: Final = 4.0
"""... and how many standard errors of its own mean, so that small shards are not named for their noise."""
_NORMAL: Final = 1.4826
"""Median absolute deviation → standard deviation."""


@dataclass(frozen=True, slots=True)
class ShardLosses:
    """The losses of one shard, in figures.

    Args:
        shard: its URL.
        seen: samples with a loss.
        mean, deviation: of these.
    """

    shard: str
    seen: int
    mean: float
    deviation: float


def changed_shards(table: ShardTable, urls: Sequence[str], rows: Sequence[ShardRow | None]) -> Iterator[Finding]:
    """Give findings where shards are not those of a state's shard table.

    Args:
        table: of the state.
        urls: the shards as named now.
        rows: what they are now; None where one could not be scanned.
    """
    noted = dict(zip(table.urls, table.rows(), strict=True))
    for url, row in zip(urls, rows, strict=True):
        old = noted.get(url)
        if old is None:
            yield Finding("shard-unknown", "The state's shard table does not have this shard.", url)
        elif row is not None:
            yield from _changed_shard(url, old, row)
    gone = [url for url in table.urls if url not in set(urls)]
    if gone:
        what = f"{len(gone)} shards of the state's table were not named; the first is {gone[0]}."
        yield Finding("shard-gone", what, gone[0], count=len(gone))


def _changed_shard(url: str, old: ShardRow, now: ShardRow) -> Iterator[Finding]:
    was, is_now = (f"{row.shard_size} bytes, {row.shard_version}" for row in (old, now))
    if (old.digest, old.samples) != (now.digest, now.samples):
        what = (
            f"The shard holds other samples than the state's table says: {old.samples} then ({was}), {now.samples} now "
            f"({is_now}), with other keys, sizes or order."
        )
        yield Finding("samples-moved", what, url)
    elif (old.shard_size, old.shard_version) != (now.shard_size, now.shard_version):
        what = f"The shard was written again since the state's table ({was}; now {is_now}), with the same samples."
        yield Finding("shard-touched", what, url)


def unlike_losses(figures: Sequence[ShardLosses]) -> Iterator[Finding]:
    """Give a hint for each shard whose mean loss lies far from those of the others.

    Args:
        figures: of all shards with losses.
    """
    known = [one for one in figures if one.seen >= _FEW]
    if len(known) < _FEW_SHARDS:
        return
    means = np.array([one.mean for one in known])
    errors = np.array([one.deviation / one.seen**0.5 for one in known])
    middle = float(np.median(means))
    away = np.abs(means - middle)
    # Shards of equal means have no spread of their own: then what a mean's own noise is counts.
    spread = max(_NORMAL * float(np.median(away)), float(np.median(errors)))
    for place in np.flatnonzero((away > _SPREADS * spread) & (away > _ERRORS * errors)).tolist():
        one = known[place]
        what = f"Its mean loss is {one.mean:.4g} over {one.seen} samples; the shards' median is {middle:.4g}."
        yield Finding("losses-unlike", what, one.shard)
