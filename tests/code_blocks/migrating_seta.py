"""docs/migrating/seta.md: the policy as published trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import write_pictures
from block_migrations import FEWER, reader_with_a_model, trained

REPLACE = FEWER


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    return {**reader_with_a_model(), "urls": write_pictures(folder, samples=160)}


AFTER = {"After": lambda _known: trained()}
