"""docs/buckets.md: 150 shards in a folder that stands for the bucket, which takes no credentials and needs no cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import write_pictures

from seta_stream import SeTa, SetaStream

REPLACE = {'    storage_options={"profile": "training"},': "    storage_options={},"}


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    write_pictures(folder / "bucket", shards=150, samples=6)
    return {"SeTa": SeTa, "SetaStream": SetaStream}


def reads(known: dict[str, Any]) -> None:
    with known["stream"] as stream:
        for batch in stream.batches():
            stream.record(batch["__index__"], batch["__index__"] / 100)
        assert stream.stats.recorded == 3 * 256
        assert stream.stats.left_out == 900 - 3 * 256
    assert Path("bucket/runs/7/history.jsonl").exists()


AFTER = {"Buckets": reads}
