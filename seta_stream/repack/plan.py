"""Which samples a new shard holds, in which order, and what it is called. Pure.

Takes sample counts or extents, losses and keys; gives pieces, orders, names and fingerprints.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import CorpusError

Order = Literal["loss", "key", "corpus"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)

_COMPRESSED: Final = (".gz", ".bz2", ".xz")
_SHORT: Final = {".tgz": ".tar", ".tbz2": ".tar", ".tbz": ".tar", ".txz": ".tar"}
_NUMBERED: Final = re.compile(r"^(.*?)[-_.]?\d*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring samples of one shard of the corpus.

    Args:
        shard: its number.
        start: position of the first sample.
        stop: position behind the last; equal to `start` for a shard without samples.
    """

    shard: int
    start: int
    stop: int


Pieces = tuple[Piece, ...]


def one_to_one(samples: Sequence[int]) -> list[Pieces]:
    """Return each shard as a new shard of its own."""
    return [(Piece(shard, 0, int(count)),) for shard, count in enumerate(samples)]


def cut(weights: Iterable[NDArray[Any]], most: int) -> list[Pieces]:
    """Return new shards that take samples in corpus order until the next one would make them too heavy.

    A sample that is heavier than `most` by itself is a new shard alone.

    Args:
        weights: for each shard, int64 [samples]: what each sample weighs, as its bytes or 1.
        most: what a new shard weighs at most.
    """
    found: list[Pieces] = []
    current: list[Piece] = []
    room = most
    for shard, sizes in enumerate(weights):
        ends = np.cumsum(sizes, dtype=np.int64)
        if not len(ends):
            current.append(Piece(shard, 0, 0))
        start, before = 0, 0
        while start < len(ends):
            stop = int(np.searchsorted(ends, before + room, side="right"))
            if stop <= start:
                if any(piece.stop for piece in current):
                    found.append(tuple(current))
                    current, room = [], most
                    continue
                stop = start + 1
            current.append(Piece(shard, start, stop))
            room -= int(ends[stop - 1]) - before
            start, before = stop, int(ends[stop - 1])
    return [*found, tuple(current)]


class Chosen(Sequence[Pieces]):
    """New shards of which only some samples are wanted; those without any are left out.

    Pieces are made when they are asked for: where every second sample is wanted there are as many as samples.

    Args:
        news: what each new shard would hold of all samples.
        wanted: bool [samples of the corpus].
        first_id: int64 [shards + 1], of the corpus.
    """

    def __init__(self, news: Sequence[Pieces], wanted: NDArray[np.bool_], first_id: NDArray[np.int64]) -> None:
        self._wanted = wanted
        self._first_id = first_id
        self.places = [place for place, pieces in enumerate(news) if any(self._of(piece).any() for piece in pieces)]
        """Which of the new shards are left, by their numbers before."""
        self._news = [news[place] for place in self.places]

    def __len__(self) -> int:
        return len(self._news)

    def __getitem__(self, number: Any) -> Any:
        found: list[Piece] = []
        for piece in self._news[number]:
            # edges: where wanted ones begin and end, in turn
            edges = np.flatnonzero(np.diff(np.concatenate([[False], self._of(piece), [False]]).astype(np.int8)))
            places = (edges + piece.start).tolist()
            found += [Piece(piece.shard, start, stop) for start, stop in zip(places[::2], places[1::2], strict=True)]
        return tuple(found)

    def _of(self, piece: Piece) -> NDArray[np.bool_]:
        first = int(self._first_id[piece.shard])
        return self._wanted[first + piece.start : first + piece.stop]


def base_name(url: str) -> str:
    """Return what a shard's copy is called: its own name, as a plain tar; empty where the URL gives no usable one."""
    # What follows a question mark may be a signature.
    path = re.split("[?#]", url)[0] if url.lower().startswith(("http://", "https://")) else url
    name = path.rpartition("/")[2]
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    for ending, whole in _SHORT.items():
        name = name.removesuffix(ending) + whole if name.endswith(ending) else name
    if not name.removesuffix(".tar").strip(".") or re.search(r"[\x00-\x1f\\]", name):
        return ""
    return name if name.endswith(".tar") else f"{name}.tar"


def shard_names(urls: Sequence[str], count: int, prefix: str | None, *, is_cut: bool) -> list[str]:
    """Return the names of the new shards.

    Args:
        urls: of the corpus's shards.
        count: how many new shards there are.
        prefix: of numbered names; None keeps the base names where shards map one to one and no two are alike, else
            takes what the base names begin with before their number.
        is_cut: whether shards were split or joined.
    """
    bases = [base_name(url) for url in urls]
    if prefix is None and not is_cut and all(bases) and len(set(bases)) == len(bases):
        return bases
    if prefix is None:
        begins = {match[1] for name in bases if (match := _NUMBERED.match(name.removesuffix(".tar")))}
        prefix = begins.pop() if len(begins) == 1 else ""
    return [f"{prefix or 'shard'}-{number:06d}.tar" for number in range(count)]


def order_of(order: Order, losses: NDArray[np.float32] | None, keys: Sequence[str], shard: str) -> NDArray[np.int64]:
    """Return the samples of a new shard in their new order: int64 [samples], positions in corpus order.

    By loss: ascending, the unseen ones (NaN) last; by key: as bytes. What is equal keeps its corpus order. Two samples
    with the same key never become neighbours, since they would be read as one.

    Args:
        order: by what.
        losses: float32 [samples], for the order by loss.
        keys: one per sample, in corpus order.
        shard: name of the new shard, for messages.

    Raises:
        CorpusError: more samples have the same key than others can stand between.
    """
    if order == "loss":
        assert losses is not None  # noqa: S101  (the caller has them for this order)
        # numpy sorts NaN behind every number
        found = np.argsort(losses, kind="stable").astype(np.int64)
    elif order == "key":
        raw = [key.encode("utf-8", "surrogateescape") for key in keys]
        found = np.array(sorted(range(len(raw)), key=raw.__getitem__), np.int64)
    else:
        found = np.arange(len(keys), dtype=np.int64)
    if len(set(keys)) == len(keys):
        return found
    return np.array(_apart(found.tolist(), keys, shard), np.int64)


def _apart(order: list[int], keys: Sequence[str], shard: str) -> list[int]:
    """Move samples back, then forward, as little as it takes that no two neighbours have one key."""
    if all(keys[one] != keys[other] for one, other in pairwise(order)):
        return order
    found: list[int] = []
    waiting: deque[int] = deque()  # all of the key that `found` ends with
    for sample in order:
        if found and keys[sample] == keys[found[-1]]:
            waiting.append(sample)
            continue
        found.append(sample)
        if waiting and keys[waiting[0]] != keys[sample]:
            found.append(waiting.popleft())
    if waiting:
        return _filled(found, list(waiting), keys, shard)
    return found


def _filled(found: list[int], left: list[int], keys: Sequence[str], shard: str) -> list[int]:
    """Put samples of one key between others, nearest to the end."""
    key = keys[left[0]]
    out: list[int] = []  # from the end backwards
    behind: str | None = key
    for sample in reversed(found):
        if left and behind != key and keys[sample] != key:
            out.append(left.pop())
        out.append(sample)
        behind = keys[sample]
    if left and behind != key:
        out.append(left.pop())
    if left:
        times = sum(one == key for one in keys)
        raise CorpusError(
            f"Cannot repack into {shard}: {times} of its {len(keys)} samples have the key {key!r}, and two that become "
            "neighbours would be read as one sample. Rename them, or choose another --shard-bytes or --shard-samples.",
            shard=shard,
            key=key,
            expected="samples of other keys between those of one key",
            found=times,
        )
    return out[::-1]


def fingerprint(order: Order, digests: Sequence[bytes], pieces: Pieces, losses: NDArray[np.float32] | None) -> bytes:
    """Return 16 bytes over all that decides a new shard's content: equal ones need not be written again.

    Args:
        order: by what its samples are ordered.
        digests: of the pieces' shards, one each.
        pieces: what it holds.
        losses: float32 [samples] of its samples, where they decide.
    """
    hasher = hashlib.blake2b(digest_size=16, person=b"seta-repack-1")
    hasher.update(order.encode())
    for digest, piece in zip(digests, pieces, strict=True):
        hasher.update(digest + piece.start.to_bytes(8, "little") + piece.stop.to_bytes(8, "little"))
    if losses is not None and order == "loss":
        # Every NaN means the same, whatever its bits.
        hasher.update(np.where(np.isnan(losses), np.float32(np.inf), losses).astype("<f4").tobytes())
    return hasher.digest()


def chained(shards: Sequence[Pieces], together: Callable[[int], bool]) -> Iterator[list[int]]:
    """Give the numbers of new shards that one process writes one after another.

    A shard that can only be read in sequence is read once: the new shards that it goes into belong together.

    Args:
        shards: the new shards.
        together: whether a shard of the corpus, by number, is of that kind.
    """
    group: list[int] = []
    held = -1
    for number, pieces in enumerate(shards):
        if group and not (pieces and pieces[0].shard == held):
            yield group
            group = []
        group.append(number)
        held = pieces[-1].shard if pieces and together(pieces[-1].shard) else -1
    if group:
        yield group
