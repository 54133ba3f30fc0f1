"""docs/score.md: the page's own model is the module that its command names, over a network that was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from block_corpora import write_pictures
from markdown_blocks import Block

from seta_stream import SeTa, SetaStream

GIVEN = """
import numpy as np
import torch


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
"""


def names(folder: Path, blocks: Sequence[Block]) -> dict[str, Any]:
    urls = write_pictures(folder / "bucket", shards=150, samples=4)
    model = next(block.code for block in blocks if "def load" in block.code)
    (folder / "my_project").mkdir()
    (folder / "my_project" / "losses.py").write_text(GIVEN + model)
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3)), folder / "last_month.pt")
    return {"SeTa": SeTa, "SetaStream": SetaStream, "urls": urls}


def saves_from_the_first_epoch(known: dict[str, Any]) -> None:
    with known["stream"] as stream:
        stream.set_epoch(0)
        assert 250 < stream.stats.selected < 350
        stream.record([0], [1.0])


def gives_losses(known: dict[str, Any]) -> None:
    """The block is the module that the command above has already run; here it is called as a reader would."""
    exec(GIVEN, known)
    losses = known["load"]()
    with SetaStream(known["urls"], batch_size=8, decode="pil") as stream:
        batch = next(iter(stream.batches()))
    assert losses(batch).shape == (8,)


AFTER = {"Losses ahead of training 2": saves_from_the_first_epoch, "The model": gives_losses}
