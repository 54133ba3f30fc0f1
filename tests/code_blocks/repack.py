"""docs/repack.md: a corpus and a run in a folder that stands for the bucket, and the same again as local ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from block_corpora import trained, write_pictures


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    trained(write_pictures(folder / "bucket", shards=150, samples=6), folder / "bucket" / "runs" / "7")
    return {}


def by_loss(_known: dict[str, Any]) -> None:
    assert len(list(Path("bucket/train-by-loss").glob("*.tar"))) == 150
    assert list(Path("bucket/runs/8/losses").glob("gen-*/manifest"))


def reads_on(known: dict[str, Any]) -> None:
    with known["stream"] as stream:
        stream.set_epoch(3)
        for batch in stream.batches():
            stream.record(batch["__index__"], np.ones(256))
        assert stream.stats.selected < 900
    shutil.rmtree("bucket")
    trained(write_pictures(Path("data"), shards=150, samples=6, digits=3), Path("runs/7"))


def reported(known: dict[str, Any]) -> None:
    report = known["report"]
    assert (report.shards, report.samples) == (150, 900)
    assert report.carried


AFTER = {
    "Shards written anew: `seta-stream repack`": by_loss,
    "Shards written anew: `seta-stream repack` 2": reads_on,
    "Options": reported,
}
