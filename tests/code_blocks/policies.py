"""docs/policies.md: a stream to record into, and a corpus whose folders are its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from block_corpora import write_pictures
from small_corpora import text_members, write_tar

from seta_stream import RS2, Kakurenbo, PerGroup, Reading, SeTa, SetaStream
from seta_stream.losses.histogram import Histogram


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    return {
        "Kakurenbo": Kakurenbo, "PerGroup": PerGroup, "RS2": RS2, "Reading": Reading, "SeTa": SeTa,
        "SetaStream": SetaStream, "urls": write_pictures(folder, samples=50),
    }  # fmt: skip


def halves(known: dict[str, Any]) -> None:
    losses = Histogram.of(np.arange(1, 101, dtype=np.float32))
    rule = known["harder_half"](losses, 1)
    assert abs(rule.expected_kept(losses) - (0.2 * 50 + 50)) <= 0.8  # the median is a sample of one of the halves
    assert known["harder_half"](Histogram.of(np.full(3, np.nan)), 0).expected_kept(losses) == 100


def flagged(known: dict[str, Any]) -> None:
    policy = Kakurenbo(num_epochs=10)
    stream = SetaStream(known["urls"], policy=policy, batch_size=10)
    stream.set_epoch(0)
    ids, logits = np.arange(8), np.eye(8, 3) * 9
    known |= {"policy": policy, "stream": stream, "ids": ids, "losses": np.ones(8), "logits": logits}
    known |= {"targets": np.zeros(8, int), "base_lr": 0.7, "epoch": 5}


def learned(known: dict[str, Any]) -> None:
    assert known["stream"].stats.recorded == 8
    assert known["lr"] == 0.7 * known["policy"].learning_rate_factor(5) > 0.7
    known["stream"].close()


def grouped(known: dict[str, Any]) -> None:
    """The block makes the policy alone; here it keeps a part of each folder."""
    folder = Path("classes")
    folder.mkdir()
    members = [(f"{'cat' if int(name[:8]) % 4 else 'dog'}/{name}", data) for name, data in text_members(0, 80)]
    write_tar(folder / "0.tar", sorted(members))
    policy = PerGroup(SeTa(num_epochs=90, target=0.5), by="folder", floor=0.1)
    with SetaStream(str(folder / "0.tar"), policy=policy) as stream:
        stream.set_epoch(0)
        stream.record(np.arange(80), np.arange(80.0))
        stream.set_epoch(1)
        samples = list(stream)
        stream.record([sample["__index__"] for sample in samples], np.ones(len(samples)))
    assert {sample["__key__"].split("/")[0] for sample in samples} == {"cat", "dog"}


def remembers(known: dict[str, Any]) -> None:
    with SetaStream(known["urls"], policy=known["OncePuzzling"](), batch_size=10) as stream:
        stream.set_epoch(0)
        stream.record(np.arange(200), np.where(np.arange(200) < 100, 3.0, 1.0))
        stream.set_epoch(1)
        assert 100 <= stream.stats.selected < 130
        stream.record(np.arange(100), np.full(100, 0.1))
        stream.set_epoch(2)
        assert stream.stats.selected >= 100


BEFORE = {"Kakurenbo": flagged}
AFTER = {
    "Policies": halves,
    "Kakurenbo": learned,
    "Within classes or sources": grouped,
    "A policy as a class": remembers,
}
