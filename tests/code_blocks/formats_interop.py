"""docs/formats/interop.md: shards in a folder that stands for the bucket, and others with DALI's indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import write_pictures
from click.testing import CliRunner

from seta_stream.cli.convert import command as convert


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    write_pictures(folder / "bucket", shards=150, samples=2, digits=3)
    urls = write_pictures(folder / "data", shards=3, samples=2)
    done = CliRunner().invoke(convert, [urls, "--to", "dali"])
    assert done.exit_code == 0, done.output
    return {}


def converted(_known: dict[str, Any]) -> None:
    assert len(list(Path("bucket").glob("*.tar.idx"))) == 150
    assert Path("bucket/.nv-meta/index.sqlite").exists()
    assert len(list(Path("data/index").iterdir())) == 3


AFTER = {"Other tools' indexes": converted}
