"""Open shards: an index and a handle each, a bounded number at once.

Takes a corpus; gives OpenShard, which knows for each sample what its fields are and where their bytes lie.
Effects: file handles, closed as they fall out of use.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import CorpusError
from seta_stream.read.opening import Opener, counts_itself, holds_all
from seta_stream.store import Answer, ShardFile, is_local

if TYPE_CHECKING:
    from seta_stream.corpus.indexing import Corpus
    from seta_stream.plan.epoch import EpochPlan
    from seta_stream.plan.weights import LineWeights

Int64s = NDArray[np.int64]

LARGE_BYTES: Final = 32 << 10
"""Mean bytes per sample from which local members are read one by one."""

DENSE: Final = 0.8
"""Share of a shard's samples from which the kernel's read-ahead pays."""

RESERVED: Final = frozenset({"__key__", "__url__", "__index__", "__weight__"})

HANDLES_AT_ONCE: Final = 128
INDEXES_AT_ONCE: Final = 8

OPEN_AT_ONCE: Final = 64
SAMPLES_AT_ONCE: Final = 100_000
"""The indexes of open shards hold about 130 bytes per sample."""


class Extents(NamedTuple):
    """What is read of some samples of one layout.

    Attributes:
        names: the fields.
        offsets, sizes: int64 [samples, fields], of the members' bytes.
        starts, stops: int64 [samples, 1], of the samples; or [samples, fields], where each member is read by itself.
    """

    names: tuple[str, ...]
    offsets: Int64s
    sizes: Int64s
    starts: Int64s
    stops: Int64s


class OpenShard:
    """One shard in use.

    Args:
        corpus: which shard table and indexes.
        shard: its number.
        fields: the fields wanted; None for all.
        opener: opens its object.
        last_wanted: position of the last sample that the epoch reads.
        is_sparse: whether much of it is not wanted.
        is_shuffled: whether its samples are wanted out of order.
        opened: is told of a new handle.
        weights: float32 [samples], by position; None where all are 1.
    """

    def __init__(
        self,
        corpus: Corpus,
        shard: int,
        fields: Sequence[str] | None,
        opener: Opener,
        *,
        last_wanted: int,
        is_sparse: bool,
        is_shuffled: bool,
        opened: Callable[[OpenShard, ShardFile], None],
        weights: NDArray[np.float32] | None,
    ) -> None:
        self.number = shard
        self.weights = weights
        self.url = corpus.table.urls[shard]
        self.index = corpus.index(shard)
        self.is_local = is_local(self.url)
        self.wanted = None if fields is None else frozenset(fields)
        self._file: ShardFile | None = None
        self._last_wanted = last_wanted
        self._opener = opener
        mean_bytes = self.index.shard_size / max(self.index.samples, 1)
        self._has_large = self.index.seekable and mean_bytes >= LARGE_BYTES
        self._opened = opened
        self._is_scattered = is_sparse or (is_shuffled and self._has_large)

    @property
    def is_near(self) -> bool:
        """Whether reads cost what local ones do, so that small gaps are merged and no waste is counted."""
        return self.is_local or (self._file or self.file).is_near

    @property
    def reads_locally(self) -> bool:
        """Whether every byte of it lies on this machine."""
        return self.is_local or holds_all(self._file or self.file)

    @property
    def counts_itself(self) -> bool:
        """Whether what is fetched of it is counted as it is read, not as it is planned."""
        return not (self.is_local and self.index.seekable) and counts_itself(self._file or self.file)

    @property
    def is_large(self) -> bool:
        """Whether its members are read one by one."""
        return self._has_large and self.reads_locally

    def ask(self, spans: list[tuple[int, int]]) -> Sequence[Answer]:
        """Begin to read each (offset, length), and return at once."""
        return (self._file or self.file).ask(spans)

    @property
    def file(self) -> ShardFile:
        """The handle, opened on first use and checked against the index."""
        if self._file is None:
            file = self._opener.open(self.url, self.index, self.number, self._until)
            if self._is_scattered:
                file.advise_scattered()
            self._file = file
            self._opened(self, file)
            return file
        return self._file

    @property
    def _until(self) -> int:
        """Where the last byte ends that the epoch reads."""
        last = np.array([self._last_wanted])
        return int(self.extents_of(last, int(self.layout_of(last)[0])).stops.max(initial=0))

    def read_spans(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length); the handle is opened again where it was given up meanwhile."""
        return (self._file or self.file).read_spans(spans)

    def drop(self) -> None:
        """Give the handle up; it closes when nobody reads from it any more."""
        self._file = None

    @cached_property
    def layouts(self) -> list[tuple[str, ...]]:
        """The tuples of wanted fields that samples of this shard have."""
        return self._layouts_and_members[0]

    @cached_property
    def _layouts_and_members(self) -> tuple[list[tuple[str, ...]], NDArray[np.int32], Int64s | None]:
        """Layouts, the layout of each sample, and the members of each sample where all share one layout."""
        index = self.index
        counts = np.diff(index.first_member)
        wide = int(counts[0]) if len(counts) else 0
        if len(counts) and (counts == wide).all():
            # axes: sample × member of the sample
            fields = index.member_field.reshape(-1, wide)
            if (fields == fields[0]).all():
                chosen = self._chosen(fields[0])
                names = tuple(index.fields[fields[0][place]] for place in chosen)
                members = index.first_member[:-1, None] + np.array(chosen, np.int64)[None, :]
                return [names], np.zeros(len(counts), np.int32), members
        numbers: dict[tuple[str, ...], int] = {}
        layout = np.empty(len(counts), np.int32)
        bounds = index.first_member.tolist()
        for sample, (first, stop) in enumerate(pairwise(bounds)):
            row = index.member_field[first:stop]
            names = tuple(index.fields[row[place]] for place in self._chosen(row))
            layout[sample] = numbers.setdefault(names, len(numbers))
        return list(numbers), layout, None

    def _chosen(self, row: NDArray[np.uint16]) -> list[int]:
        """Return the places of the wanted fields in one sample's row of fields."""
        names = [self.index.fields[number] for number in row.tolist()]
        taken = RESERVED.intersection(names)
        if taken:
            raise CorpusError(
                f"A sample of {self.url} has a field named {min(taken)!r}, which the stream itself sets: rename the "
                "member, or leave it out with fields=.",
                shard=self.url,
                found=min(taken),
            )
        return [place for place, name in enumerate(names) if self.wanted is None or name in self.wanted]

    def keys(self, positions: Int64s) -> list[str]:
        """Return the keys of samples by ascending position."""
        keys: list[str] = self.index.keys
        first, last = int(positions[0]), int(positions[-1])
        if last - first + 1 == len(positions):
            return keys[first : last + 1]
        return [keys[position] for position in positions.tolist()]

    def sizes_of(self, positions: Int64s) -> Int64s:
        """Return the bytes of whole samples: int64 [positions]."""
        return self.index.extent_stop[positions] - self.index.extent_start[positions]

    def extents_of(self, positions: Int64s, layout: int) -> Extents:
        """Return where samples that all have one layout lie."""
        members, index = self.members_of(positions, layout), self.index
        offsets, sizes = index.member_offset[members], index.member_size[members]
        names = self.layouts[layout]
        if self.wanted is None:
            starts, stops = index.extent_start[positions][:, None], index.extent_stop[positions][:, None]
            return Extents(names, offsets, sizes, starts, stops)
        return Extents(names, offsets, sizes, offsets, offsets + sizes)

    def layout_of(self, positions: Int64s) -> NDArray[np.int32]:
        """Return the number of each sample's layout: int32 [positions]."""
        return self._layouts_and_members[1][positions]

    def members_of(self, positions: Int64s, layout: int) -> Int64s:
        """Return the wanted members of samples that all have one layout: int64 [positions, fields]."""
        members = self._layouts_and_members[2]
        if members is not None:
            return members[positions]
        names = set(self.layouts[layout])
        first, stop = self.index.first_member[positions], self.index.first_member[positions + 1]
        rows = [
            [m for m in range(a, b) if self.index.fields[self.index.member_field[m]] in names]
            for a, b in zip(first.tolist(), stop.tolist(), strict=True)
        ]
        return np.array(rows, np.int64).reshape(len(positions), len(names))


class OpenShards:
    """The shards that a reader has open; the least recently used is closed.

    Args:
        corpus: the corpus.
        fields: the fields wanted; None for all.
        opener: opens their objects.
        plan: of the epoch that is read.
        weights: of the part of its line that is read; None where all are 1.
    """

    def __init__(
        self,
        corpus: Corpus,
        fields: Sequence[str] | None,
        opener: Opener,
        plan: EpochPlan,
        weights: LineWeights | None,
    ) -> None:
        self._corpus = corpus
        self._plan = plan
        self._weights = weights
        self._is_shuffled = plan.geometry.order == "blocks"
        self._selection = plan.selection
        self._is_sparse = plan.selection.counts < DENSE * corpus.table.samples
        self._fields = fields
        self._opener = opener
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._samples = 0
        # An open handle keeps no index alive.
        self._handles: deque[tuple[weakref.ref[OpenShard], ShardFile]] = deque()

    def get(self, shard: int) -> OpenShard:
        """Return a shard, opening it if need be."""
        found = self._open.get(shard)
        if found is None:
            found = OpenShard(
                self._corpus,
                shard,
                self._fields,
                self._opener,
                last_wanted=int(self._selection.positions(shard)[-1]),
                is_sparse=bool(self._is_sparse[shard]),
                is_shuffled=self._is_shuffled,
                opened=self._opened,
                weights=None if self._weights is None else self._weights.of_shard(self._plan, shard),
            )
            self._open[shard] = found
            self._samples += found.index.samples
            while len(self._open) > OPEN_AT_ONCE or (self._samples > SAMPLES_AT_ONCE and len(self._open) > 1):
                # Whoever still wants samples of it keeps it alive.
                self._samples -= self._open.popitem(last=False)[1].index.samples
        else:
            self._open.move_to_end(shard)
        return found

    def prepare(self, shards: Sequence[int]) -> None:
        """Load the indexes of shards that are wanted next, several at once where they lie far away."""
        missing = [shard for shard in shards if shard not in self._open]
        far = [shard for shard in missing if not self._corpus.is_index_near(shard)]
        if len(far) > 1:
            with ThreadPoolExecutor(min(len(far), INDEXES_AT_ONCE), thread_name_prefix="seta-index") as pool:
                list(pool.map(self._corpus.index, far))

    def _opened(self, shard: OpenShard, file: ShardFile) -> None:
        """Keep the number of handles bounded, whatever a window touches."""
        self._handles.append((weakref.ref(shard), file))
        if len(self._handles) > HANDLES_AT_ONCE:
            reference, oldest = self._handles.popleft()
            oldest.check()
            owner = reference()
            if owner is not None:
                owner.drop()

    def check(self) -> None:
        """Refuse shards that were written to since they were opened, once all is read.

        Raises:
            ShardChangedError: naming the first.
        """
        for _, file in self._handles:
            file.check()

    def close(self) -> None:
        """Close all."""
        for _, file in self._handles:
            file.close()
        self._handles.clear()
        self._open.clear()
        self._opener.close()
        self._samples = 0
