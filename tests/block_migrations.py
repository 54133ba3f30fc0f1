"""What the pages of docs/migrating/ have in common: a reader with a model, and shorter loops.

Three epochs stand for ninety, and one worker for four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from block_corpora import NUMBERS, decode_channels, history_of, picture, write_pictures
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from seta_stream import SetaStream

FEWER = {"range(90)": "range(3)", "num_workers=4": "num_workers=1"}


def reader_with_a_model() -> dict[str, Any]:
    """Return the names that every loop takes for given."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(NUMBERS, 3))
    return {
        "DataLoader": DataLoader, "cross_entropy": cross_entropy, "decode": decode_channels, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
    }  # fmt: skip


def trained(state: str = "runs/7") -> None:
    """See that three epochs gave a loss back for each of their samples, and later ones kept fewer."""
    epochs = history_of(Path(state))
    assert [one["epoch"] for one in epochs] == [0, 1, 2], epochs
    assert all(one["recorded"] == one["samples"] > 0 for one in epochs), epochs
    assert all(one["selected"] < epochs[0]["selected"] for one in epochs[1:]), epochs


def with_shards_in_a_bucket(folder: Path, _blocks: object) -> dict[str, Any]:
    """Return the names for a page whose shards were converted before."""
    write_pictures(folder / "bucket", shards=150, samples=4)
    return reader_with_a_model()


def converts(known: dict[str, Any]) -> None:
    """See that the page's own `write_shards` gives bytes out as they went in."""
    rows = [{"image": picture(number), "class": number % 3} for number in range(10)]
    known["write_shards"](rows, "mine-%05d.tar", samples=4)
    with SetaStream("mine-{00000..00002}.tar", shuffle=False) as stream:
        samples = list(stream)
    assert [sample["jpg"] for sample in samples] == [row["image"] for row in rows]
    assert [sample["cls"] for sample in samples] == [str(row["class"]).encode() for row in rows]
