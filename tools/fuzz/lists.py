"""Lists of shards (.txt), brace patterns, selections, and policies as text.

The first byte says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np

from fuzz.folders import scratch
from fuzz.making import refusing
from seta_stream.carry.masks import ListedShard, as_json, as_text, read_selection
from seta_stream.corpus import braces
from seta_stream.corpus.braces import count_names, expand_braces
from seta_stream.corpus.listing import expand
from seta_stream.policies.names import policy_from

_FOLDER = scratch("lists")
PLACE = _FOLDER / "shards.txt"
FEW = 5000
"""Shards of a list, so that what is allowed is done fast."""


def seeds() -> Iterator[bytes]:
    """Give one of each, and patterns of every kind."""
    shards = [ListedShard("s3://b/x.tar", np.array([True, False, True]), np.array([1, 2], np.float32)),
              ListedShard("/y.tar", np.zeros(9, bool))]  # fmt: skip
    yield b"\0" + "".join(as_text({"epoch": 1}, shards)).encode()
    yield b"\0" + "".join(as_json({"epoch": 1}, shards)).encode()
    yield b"\1# shards\ntrain-{000..003}.tar\n\n/abs/x.tar\nhttps://h/a.tar?b=c\n../up.tar\n~/x.tar\n"
    for pattern in (b"{0..9}", b"{a,b{1..3},}", b"{01..10..3}{z..a}", b"\\{a,b}", b"{x}{1..2}", b"{{1..2}{3..4},x}"):
        yield b"\2" + pattern
    for policy in (
        b"seta(num_epochs=90, target=0.5)",
        b"perGroup(policy=InfoBatch(num_epochs=9, prune_ratio=0.5), by='folder')",
        b"ucb",
    ):
        yield b"\3" + policy


def one(data: bytes) -> None:
    """Read one, and look at what it stands for."""
    which, data = data[0] % 4 if data else 0, data[1:]
    with refusing(), patch.object(braces, "MOST_SHARDS", FEW):
        if which == 0:
            found = read_selection(data, "a file")
            assert all(shard.weights is None or len(shard.weights) == shard.mask.sum() for shard in found.shards)
            found.facts.get("epoch")
        elif which == 1:
            PLACE.write_bytes(data)
            urls = expand(PLACE)
            assert len(set(urls)) == len(urls) <= FEW, "a shard that is named twice"
        elif which == 2:
            pattern = data.decode("utf-8", "surrogateescape")
            if count_names(pattern) <= FEW:
                assert len(expand_braces(pattern)) <= count_names(pattern), "more names than were counted"
        else:
            policy_from(data.decode("utf-8", "surrogateescape"))
