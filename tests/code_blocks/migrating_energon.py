"""docs/migrating/energon.md: a data set with Energon's indexes, as our own conversion writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import write_pictures
from block_migrations import FEWER, reader_with_a_model, trained
from click.testing import CliRunner

from seta_stream.cli.convert import command as convert

REPLACE = FEWER


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    urls = write_pictures(folder / "data" / "coyo", shards=10, samples=50)
    done = CliRunner().invoke(convert, [urls, "--to", "energon"])
    assert done.exit_code == 0, done.output
    return reader_with_a_model()


def converted(_known: dict[str, Any]) -> None:
    assert len(list(Path("data/coyo").glob("*.tar.seta-index"))) == 10


AFTER = {"After": lambda _known: trained(), "Converting": converted}
