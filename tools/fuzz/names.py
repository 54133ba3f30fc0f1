"""Names of members and keys: how they are cut, grouped, labelled and spelled, whatever bytes they are of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuzz.making import is_hidden, refusing
from seta_stream.carry.matching import ShardNames, hashes_of, positions
from seta_stream.carry.spelling import spelled
from seta_stream.corpus.grouping import group, split_name
from seta_stream.corpus.header import BLOCK
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.interop_rows import rows_of
from seta_stream.corpus.tar import Members
from seta_stream.visible import visible, visible_lines


def seeds() -> Iterator[bytes]:
    """Give names of every kind, one a line."""
    yield b"a/0.txt\na/0.cls\na/1.txt\n"
    yield b"../up.txt\n/abs/x.txt\n./y.tar.gz\n.hidden\n__meta__/x.json\n__key__.txt\na.__bad__\n"
    yield "\u202egnp.exe.txt\n\x1b[31mred.txt\n[red]x[/red].txt\n<script>.txt\n\x07.a\n".encode()
    yield b"\xff\xfe.txt\n\xed\xa0\x80.x\na.b.c.D\n" + b"k" * 300 + b".txt\n"


def one(data: bytes) -> None:
    """Group members of these names, and spell all that comes of them."""
    names = [name for name in data.replace(b"\0", b"").split(b"\n") if name]
    count = len(names)
    at = np.arange(count, dtype=np.int64) * 2 * BLOCK
    members = Members(at, at + BLOCK, np.full(count, 3, np.int64), b"".join(name + b"\0" for name in names))
    with refusing():
        index = ShardIndex.of(group(members, "shard"), shard_size=count * 2 * BLOCK, shard_version="etag:1")
        again = ShardIndex.from_bytes(index.to_bytes())
        assert again.keys == index.keys, "keys that change as they are written"
        assert again.fields == index.fields, "fields that change as they are written"
        if "__bad__" not in index.fields:
            folded = [row.key.decode("utf-8", "surrogateescape") for row in rows_of(members)]
            assert folded == index.keys, "two ways to group members, and two outcomes"
        for key in index.keys:
            shown, told = visible(key), spelled(key)
            assert not any(map(is_hidden, shown)), f"what cannot be seen: {shown!a}"
            told.encode(), shown.encode(), visible_lines(key).encode()
        hashes = hashes_of(map(spelled, index.keys))
        found = positions(hashes, hashes, np.arange(len(hashes)))
        assert found.tolist() == list(range(len(hashes))), "a key that is not found"
    for name in names:
        cut = split_name(name)
        assert cut is None or name[cut : cut + 1] == b".", "a cut beside the dot"
    urls = [name.decode("utf-8", "surrogateescape") for name in names]
    ShardNames(urls).numbers(urls)
