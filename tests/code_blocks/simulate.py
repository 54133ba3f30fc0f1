"""docs/simulate.md: a run to replay; the synthetic history is of fewer samples and epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import trained, write_pictures

REPLACE = {"--samples 15000000 --sample-bytes 4096 --epochs 90": "--samples 20000 --sample-bytes 4096 --epochs 4"}


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    trained(write_pictures(folder, samples=100), folder / "runs" / "7")
    return {}


AFTER = {"What would another policy have saved?": lambda _known: Path("saved.png").stat()}
