"""docs/verify.md: a run over 150 shards in which nothing is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import trained, write_pictures

from seta_stream.cli.index import command as index


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    urls = write_pictures(folder / "data", shards=150, samples=6)
    index.main([urls, "--jobs", "1"], standalone_mode=False)
    trained(urls, folder / "runs" / "7")
    return {}
