"""A corpus with indexes and a state, whole, for tests that damage it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from small_corpora import text_members, write_tar

from seta_stream.cli.index import index_shards
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import open_corpus
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.verifying import Finding, Request, Verified, verify

SHARDS, SAMPLES = 3, 4


@dataclass
class Whole:
    """Shards with their indexes, and a state of two generations."""

    shards: list[Path]
    state: Path

    @property
    def urls(self) -> list[str]:
        return [str(path) for path in self.shards]

    def verify(self, **options: object) -> Verified:
        return verify(Request(self.urls, state=str(self.state), **options))

    def found(self, **options: object) -> list[Finding]:
        return list(self.verify(**options).findings)

    def kinds(self, **options: object) -> list[str]:
        return sorted({one.kind for one in self.found(**options)})

    def index(self, shard: int) -> Path:
        return Path(f"{self.shards[shard]}.seta-index")

    def generation(self, number: int) -> Path:
        return sorted((self.state / "losses").glob("gen-*"))[number]

    def table(self) -> ShardTable:
        return ShardTable.from_bytes((self.state / "corpus").read_bytes())


def make_whole(folder: Path, shards: int = SHARDS, samples: int = SAMPLES) -> Whole:
    """Write a corpus of text samples, its indexes, and a state of epochs 0 and 1."""
    folder.mkdir(exist_ok=True)
    paths = [write_tar(folder / f"t-{shard}.tar", text_members(shard * samples, samples)) for shard in range(shards)]
    index_shards([str(path) for path in paths], out=None, jobs=1, force=False)
    whole = Whole(paths, folder / "state")
    shard_table = open_corpus(whole.urls).table
    losses = LossTable(shard_table.samples)
    generations, parent = Generations(str(whole.state)), None
    for epoch in range(2):
        losses.record(np.arange(losses.total), np.random.default_rng(epoch).gamma(2, 1, losses.total))
        parent = generations.commit(epoch, losses, shard_table, None, parent, {})
        losses.advance()
    generations.close()
    (whole.state / "corpus").write_bytes(shard_table.to_bytes())
    return whole
