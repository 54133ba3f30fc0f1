"""What a repack would cost, told before it begins.

Takes a Prepared; gives a Forecast. Acts: reads one span of the corpus, to see how fast that is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from seta_stream.corpus.index import ShardIndex
from seta_stream.repack.holding import SPAN_BYTES
from seta_stream.repack.laid import end_blocks
from seta_stream.repack.outside import reach
from seta_stream.repack.plan import Pieces
from seta_stream.repack.preparing import Prepared
from seta_stream.store import is_local, store_for

_COPIED: Final = 300e6
"""Bytes per second that one process here copies and verifies; the disk may be slower."""
_PROBE_BYTES: Final = 2 * SPAN_BYTES


@dataclass(frozen=True)
class Forecast:
    """What a repack would do.

    Args:
        shards_before: shards of the corpus.
        shards: new shards.
        finished: how many of these an earlier start has finished.
        samples: of the corpus.
        bytes_read: that are to be read from the corpus.
        bytes_checked: that are to be read back from a bucket.
        bytes_written: of the new shards; their indexes come to a few thousandths of that.
        requests: to remote stores.
        processes: that would work at once.
        bytes_per_s: at which a first span was read.
        seconds: what it would take at that rate in one process, if writing is as fast as reading.
    """

    shards_before: int
    shards: int
    finished: int
    samples: int
    bytes_read: int
    bytes_checked: int
    bytes_written: int
    requests: int
    processes: int
    bytes_per_s: float
    seconds: float


def foretell(prepared: Prepared, finished: frozenset[int], processes: int) -> Forecast:
    """Return what writing the new shards that are not finished would cost."""
    news = [pieces for number, pieces in enumerate(prepared.news) if number not in finished]
    is_far, is_to_far = not is_local(prepared.shards.urls[0]), not is_local(prepared.choice.to)
    bytes_read = bytes_written = requests = 0
    streams: set[int] = set()
    for pieces in news:
        indexes = [prepared.corpus.index(piece.shard) for piece in pieces]
        for index, piece in zip(indexes, pieces, strict=True):
            if not index.seekable:
                streams.add(piece.shard)
                continue
            begin, end = reach(index, piece)
            bytes_read += end - begin
            requests += (2 - (begin - end) // SPAN_BYTES) * is_far
        size = _size(indexes, pieces)
        bytes_written += size
        requests += (4 - -size // SPAN_BYTES) * is_to_far
    bytes_read += sum(int(prepared.shards.sizes[shard]) for shard in streams)
    requests += 4 * len(streams) * is_far
    checked = bytes_written if is_to_far else 0
    rate = _rate(prepared) if news else 0.0
    moved = bytes_read + bytes_written + checked
    return Forecast(
        shards_before=len(prepared.shards),
        shards=len(prepared.news),
        finished=len(finished),
        samples=prepared.shards.total,
        bytes_read=bytes_read,
        bytes_checked=checked,
        bytes_written=bytes_written,
        requests=requests,
        processes=processes,
        bytes_per_s=round(rate),
        seconds=round(moved / rate if is_far or is_to_far else bytes_read / min(rate, _COPIED), 1) if news else 0.0,
    )


def _size(indexes: list[ShardIndex], pieces: Pieces) -> int:
    """Return the size of a new shard, members that belong to no sample left out."""
    extents = [
        int((index.extent_stop[piece.start : piece.stop] - index.extent_start[piece.start : piece.stop]).sum())
        for index, piece in zip(indexes, pieces, strict=True)
    ]
    return sum(extents) + len(end_blocks(sum(extents)))


def _rate(prepared: Prepared) -> float:
    """Read the beginning of a shard, and return the bytes per second."""
    shard = int(prepared.shards.sizes.argmax())
    url = prepared.shards.urls[shard]
    file = store_for(url, prepared.choice.storage_options).open(url)
    length = min(_PROBE_BYTES, file.info.size)
    try:
        started = time.perf_counter()
        file.read_spans([(at, min(SPAN_BYTES, length - at)) for at in range(0, length, SPAN_BYTES)])
        return length / max(time.perf_counter() - started, 1e-6)
    finally:
        file.close()
