"""docs/exporting.md: a run over 150 shards whose losses go out and in again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from block_corpora import trained, write_pictures

from seta_stream.corpus.indexing import open_corpus

REPLACE = {
    "--shard-samples 10000": "--shard-samples 100",  # ten shards
}


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    trained(write_pictures(folder / "data", shards=150, samples=4), folder / "runs" / "7", epochs=3, of=6)
    return {}


def carried(_known: dict[str, Any]) -> None:
    subset = open_corpus("data/subset/*.tar").table
    kept = json.loads(Path("selection.json").read_text())
    assert subset.total == kept["seta_stream"]["selected"] == sum(one["selected"] for one in kept["shardlist"])
    assert 0 < subset.total < 600
    assert len(Path("selection.csv").read_text().splitlines()) == 601
    assert list(Path("runs/8/losses").glob("gen-*/manifest"))


def only_the_kept(known: dict[str, Any]) -> None:
    last = known["selection"].shards[-1]
    numbers = [int(sample["__key__"]) - 4 * 149 for sample in known["kept"]]
    assert numbers == np.flatnonzero(last.mask).tolist()


AFTER = {"Losses and selections, out and in": carried, "Shard lists with masks": only_the_kept}
