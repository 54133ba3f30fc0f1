"""Corpora whose names would like to be more than names, and what a terminal must not be sent."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from small_corpora import write_tar

from seta_stream import SetaStream
from seta_stream.policies import InfoBatch, PerGroup

NASTY = {
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "reversed": "\u202egpj",
    "markup": "[red]x[/red][link=http-evil]",
    "html": "<script>alert(1)</script>",
    "quotes": "\"'`$(reboot)",
    "line": "two\nlines\rback",
    "bytes": "\udcff\udcfe",
    "isolate": "\u2066\u200b\ufeff",
    "control": "\x01\x08\x7f\x85\x9b31m",
    "formula": "=cmd|' -C calc'!A0",
}
"""What a key or a name may be, by kind."""


def hidden(told: str) -> set[str]:
    """Return what of an output has no shape of its own, but for the ends of lines."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return {one for one in told if unicodedata.category(one) in kinds and one not in "\n\u200c\u200d"}


def make_shards(folder: Path) -> list[str]:
    """Write two shards: of every nasty key, in a nasty folder each, under nasty names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(("evil\x1b[2J\u202e[red].tar", "evil<b>&'.tar")):
        members = []
        for kind, key in NASTY.items():
            stem = f"{key}/{number}{kind}{key}".replace(".", "")
            members += [(f"{stem}.txt", f"{key} {kind}".encode("utf-8", "surrogateescape")), (f"{stem}.cls", b"1")]
        paths.append(str(write_tar(folder / name, members)))
    return paths


def train(paths: list[str], state: Path, epochs: int = 2) -> None:
    """Record losses of every sample, grouped by nasty names."""
    policy = PerGroup(InfoBatch(num_epochs=4, prune_ratio=0.1), by="folder")
    with SetaStream(paths, policy=policy, state=str(state), batch_size=4) as stream:
        for epoch in range(epochs):
            stream.set_epoch(epoch)
            for batch in stream.batches(4):
                stream.record(batch["__index__"], [float(one % 7) for one in batch["__index__"]])
