"""The group of every sample, by what the index knows of it.

Takes a corpus and how samples fall into groups; gives names and codes. Effects: indexes of shards are read, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.indexing import Corpus
from seta_stream.errors import CorpusError

MAX_GROUPS: Final = 65_535
"""A decision is made for each group, and a code takes two bytes per sample."""


def label_samples(
    corpus: Corpus, by: str | Callable[[str, str], Any], shards: range | None = None
) -> tuple[tuple[str, ...], NDArray[np.uint16]]:
    """Return the groups' names, in the order in which they first come, and each sample's place among them.

    A process of many labels the shards that it owns; a group's name does not depend on which they are.

    Args:
        corpus: whose samples.
        by: "folder", "shard", "fields", or a callable (url, key) -> name.
        shards: consecutive ones, whose samples alone are labelled; None for all.

    Returns:
        names, and codes uint16 [samples of the shards].

    Raises:
        CorpusError: there are more groups than MAX_GROUPS, or the callable failed.
    """
    shards = range(len(corpus.table)) if shards is None else shards
    places: dict[str, int] = {}
    first_id = corpus.table.first_id
    begin = int(first_id[shards.start])
    codes = np.empty(int(first_id[shards.stop]) - begin if shards else 0, np.uint16)
    base_names = [url.rpartition("/")[2] for url in corpus.table.urls]
    shard_names = base_names if len(set(base_names)) == len(base_names) else corpus.table.urls
    for shard in shards:
        url = corpus.table.urls[shard]
        samples = slice(int(first_id[shard]) - begin, int(first_id[shard + 1]) - begin)
        if by == "shard":
            codes[samples] = _place(places, shard_names[shard], url)
            continue
        index = corpus.index(shard)
        names = _called(by, url, index.keys) if callable(by) else _FROM_INDEX[by](index)
        codes[samples] = [_place(places, name, url) for name in names]
    return tuple(places), codes


def _place(places: dict[str, int], name: str, url: str) -> int:
    found = places.setdefault(_clean(name), len(places))
    if found >= MAX_GROUPS:
        raise CorpusError(
            f"The samples fall into more than {MAX_GROUPS} groups (at {name!r} in {url}): a policy decides for each of "
            "them, and so few samples tell nothing. Give a coarser by=.",
            shard=url,
            expected=MAX_GROUPS,
        )
    return found


def _clean(name: str) -> str:
    """Return a name that manifests and JSON can hold: keys need not be UTF-8, and U+001F divides names of groups."""
    if name.isprintable():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\x1f", "\\x1f")


def _called(by: Callable[[str, str], Any], url: str, keys: Iterable[str]) -> Iterable[str]:
    for key in keys:
        try:
            name = by(url, key)
        except Exception as error:
            raise CorpusError(
                f"Cannot tell the group of sample {key!r} in {url}: by= raised {type(error).__name__}: {error}. It "
                "must give a name for every (url, key).",
                shard=url,
                key=key,
            ) from error
        yield str(name)


def _folders(index: ShardIndex) -> Iterable[str]:
    return (key.rpartition("/")[0] or "." for key in index.keys)


def _fields(index: ShardIndex) -> Iterable[str]:
    bounds = index.first_member
    for sample in range(index.samples):
        members = index.member_field[bounds[sample] : bounds[sample + 1]].tolist()
        yield "+".join(sorted({index.fields[member] for member in members}))


_FROM_INDEX: Final[dict[str, Callable[[ShardIndex], Iterable[str]]]] = {"folder": _folders, "fields": _fields}
