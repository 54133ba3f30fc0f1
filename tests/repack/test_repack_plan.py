"""Which samples go where, in which order, under which name: decided without a file."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.errors import CorpusError
from seta_stream.repack.plan import Piece, base_name, chained, cut, fingerprint, one_to_one, order_of, shard_names

NAN = float("nan")


def order(how: str, losses: list[float] | None, keys: list[str]) -> list[int]:
    found = order_of(how, None if losses is None else np.array(losses, np.float32), keys, "new.tar")  # type: ignore[arg-type]
    assert found.dtype == np.int64
    return found.tolist()


@pytest.mark.parametrize(
    ("how", "losses", "keys", "expected"),
    [
        ("loss", [3, 1, 2], ["a", "b", "c"], [1, 2, 0]),
        ("loss", [NAN, 1, NAN, 0], ["a", "b", "c", "d"], [3, 1, 0, 2]),
        ("loss", [1, 0, 1, 0], ["a", "b", "c", "d"], [1, 3, 0, 2]),
        ("loss", [-1, 5, -7, 0], ["a", "b", "c", "d"], [2, 0, 3, 1]),
        ("key", None, ["b", "a", "B", "é", "a2"], [2, 1, 4, 0, 3]),
        ("corpus", None, ["b", "a"], [0, 1]),
        ("loss", [], [], []),
        # The second k would follow the first: it waits for one sample of another key.
        ("loss", [0, 2, 1, 3], ["k", "x", "k", "y"], [0, 1, 2, 3]),
        # The last ones have none behind them: they go back to where they fit.
        ("loss", [1, 2, 3, 4, 5], ["x", "y", "k", "z", "k"], [0, 1, 2, 3, 4]),
        ("loss", [1, 2, 4, 3, 5], ["x", "y", "k", "z", "k"], [0, 1, 4, 3, 2]),
        # By key: a, b, k, k; the last k goes where it fits, nearest to the end.
        ("key", None, ["k", "a", "k", "b"], [1, 2, 3, 0]),
    ],
)
def test_orders(how: str, losses: list[float] | None, keys: list[str], expected: list[int]) -> None:
    """Ascending losses, never seen ones last, equal ones in corpus order; keys as bytes; equal keys apart."""
    assert order(how, losses, keys) == expected


@given(st.lists(st.tuples(st.sampled_from("kkkxyz"), st.integers(0, 3)), max_size=14))
def test_equal_keys_are_kept_apart_where_that_can_be(rows: list[tuple[str, int]]) -> None:
    """Every sample comes once; two of one key are neighbours never; it is refused only if it cannot be done."""
    keys = [key for key, _ in rows]
    most = max((keys.count(key) for key in keys), default=0)
    if most > len(keys) - most + 1:
        with pytest.raises(CorpusError, match=r"of its \d+ samples have the key"):
            order("loss", [float(loss) for _, loss in rows], keys)
        return
    found = order("loss", [float(loss) for _, loss in rows], keys)
    assert sorted(found) == list(range(len(rows)))
    assert all(keys[one] != keys[other] for one, other in pairwise(found))


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5), st.integers(1, 20))
def test_shards_are_cut_in_corpus_order(sizes: list[list[int]], most: int) -> None:
    """Each sample is in one new shard, in order; none is heavier than asked unless it is one sample; none could take
    the next one too."""
    news = cut([np.array(one, np.int64) for one in sizes], most)
    flat = [(piece.shard, at) for pieces in news for piece in pieces for at in range(piece.start, piece.stop)]
    assert flat == [(shard, at) for shard, one in enumerate(sizes) for at in range(len(one))]
    assert {piece.shard for pieces in news for piece in pieces} == set(range(len(sizes)))
    held = [[sizes[p.shard][at] for p in pieces for at in range(p.start, p.stop)] for pieces in news]
    assert all(sum(one) <= most or len(one) == 1 for one in held)
    assert all(sum(one) + other[0] > most for one, other in pairwise(held))


def test_pieces_of_split_and_joined_shards() -> None:
    """Two shards of 5 and 2 samples, three to a shard; an empty one goes with its neighbour."""
    ones = [np.ones(5, np.int64), np.zeros(0, np.int64), np.ones(2, np.int64)]
    assert cut(ones, 3) == [
        (Piece(0, 0, 3),),
        (Piece(0, 3, 5), Piece(1, 0, 0), Piece(2, 0, 1)),
        (Piece(2, 1, 2),),
    ]
    assert one_to_one([2, 0]) == [(Piece(0, 0, 2),), (Piece(1, 0, 0),)]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/train-000.tar", "train-000.tar"),
        ("s3://b/p/train-000.tar.gz", "train-000.tar"),
        ("/data/train.tgz", "train.tar"),
        ("/data/train.tar.xz", "train.tar"),
        ("/data/shard", "shard.tar"),
        ("https://h/a.tar?X-Signature=secret", "a.tar"),
        ("http://h/a.tar#part", "a.tar"),
        ("/data/..", ""),
        ("/data/.tar", ""),
        ("s3://b/a\nb.tar", ""),
        ("s3://b/..\\evil.tar", ""),
    ],
)
def test_base_names(url: str, name: str) -> None:
    """A copy has its shard's own name, as a plain tar; a signature in a URL is no part of it."""
    assert base_name(url) == name


def test_names() -> None:
    """Own names where shards map one to one; numbers behind the common beginning, "shard" or a prefix where not."""
    urls = ["/d/train-0.tar", "/d/train-1.tar"]
    assert shard_names(urls, 2, None, is_cut=False) == ["train-0.tar", "train-1.tar"]
    assert shard_names(urls, 2, None, is_cut=True) == ["train-000000.tar", "train-000001.tar"]
    assert shard_names(urls, 1, "new", is_cut=False) == ["new-000000.tar"]
    assert shard_names(["/a/x.tar", "/b/x.tar"], 2, None, is_cut=False) == ["x-000000.tar", "x-000001.tar"]
    assert shard_names(["/a/x.tar", "/b/y.tar"], 1, None, is_cut=True) == ["shard-000000.tar"]
    assert shard_names(["/a/..", "/b/y.tar"], 2, None, is_cut=False)[0] == "shard-000000.tar"


def test_fingerprints_tell_what_decides() -> None:
    """Another order, shard, piece or loss gives another; the bits of a NaN, or losses that do not decide, do not."""
    base = ("loss", [b"a" * 16], (Piece(0, 0, 2),), np.array([1, NAN], np.float32))
    odd_nan = np.array([0x3F800000, 0x7FC00001], np.uint32).view(np.float32)
    others = [
        ("corpus", *base[1:]),
        (base[0], [b"b" * 16], *base[2:]),
        (*base[:2], (Piece(0, 1, 3),), base[3]),
        (*base[:3], np.array([2, NAN], np.float32)),
    ]
    assert fingerprint(*base[:3], odd_nan) == fingerprint(*base)  # type: ignore[arg-type]
    assert len({fingerprint(*one) for one in [base, *others]}) == 5  # type: ignore[arg-type]
    assert fingerprint("key", *base[1:3], None) == fingerprint("key", *base[1:])  # type: ignore[arg-type]
    assert len(fingerprint(*base)) == 16  # type: ignore[arg-type]


def test_shards_read_in_sequence_are_read_by_one_process() -> None:
    """New shards that share such a shard are one task; others are a task each."""
    news = [(Piece(0, 0, 1),), (Piece(0, 1, 2), Piece(1, 0, 1)), (Piece(1, 1, 2),), (Piece(2, 0, 1),)]
    assert list(chained(news, lambda shard: False)) == [[0], [1], [2], [3]]
    assert list(chained(news, lambda shard: shard == 0)) == [[0, 1], [2], [3]]
    assert list(chained(news, lambda shard: True)) == [[0, 1, 2], [3]]
    assert list(chained([], lambda shard: True)) == []
