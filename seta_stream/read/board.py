"""What the main process tells its workers, and what they count: anonymous shared arrays.

Takes a selection and a start step from the main process; gives workers a plan's inputs, and the main process the sums
of their counters. Effects: shared memory without a name (multiprocessing.RawArray), which fork and spawn hand on, which
vanishes with the processes, and which needs no lock: only the main process writes the plan, before it asks for an
iterator, and each worker writes its own row of counters.
"""

from __future__ import annotations

import ctypes
import multiprocessing.context
import multiprocessing.sharedctypes
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import UnsupportedError
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.weights import LineWeights
from seta_stream.read.stages import Course

ROWS: Final = 257
"""Row 0 is the main process; workers 0 … 255 have the others, and share them where there are more."""

COUNTERS: Final = (
    "bytes_needed",
    "bytes_fetched",
    "requests",
    "wait_ns",
    "samples",
    "decoded",
    "skipped",
    "cache_hits",
    "cache_hit_bytes",
    "cache_misses",
    "cache_miss_bytes",
    "retries",
)
_ORDERS: Final[tuple[Literal["corpus", "shards", "blocks"], ...]] = ("corpus", "shards", "blocks")
_EPOCH, _START, _IS_SET, _IS_WEIGHTED = range(4)
# The geometry's eight; the run's samples, consumed and planned; the stretch of the line that has weights; room for them
_GEOMETRY, _COURSE, _STRETCH, _ROOM, _HEADER = slice(4, 12), slice(12, 14), slice(14, 16), 16, 17


class Board:
    """Shared arrays for one corpus.

    Args:
        first_id: int64 [shards + 1].
        most_weights: how many samples this rank's part of the line has at most (`Geometry.most_in_part`); None for all
            of the corpus. A checkpoint whose geometry needs more room gets it, before workers are started.
    """

    def __init__(self, first_id: NDArray[np.int64], *, most_weights: int | None = None) -> None:
        total, shards = int(first_id[-1]), len(first_id) - 1
        self._raw: dict[str, Any] = {
            "header": _shared(ctypes.c_int64, _HEADER),
            "first_id": _shared(ctypes.c_int64, shards + 1),
            "counts": _shared(ctypes.c_int64, shards),
            "bits": _shared(ctypes.c_uint8, -(-total // 8)),
            "weights": _shared(ctypes.c_float, total if most_weights is None else most_weights),
            "counters": _shared(ctypes.c_int64, ROWS * len(COUNTERS)),
        }
        self._view()
        self._first_id[:] = first_id
        self._header[_ROOM] = len(self._weights)

    def _view(self) -> None:
        raw = self._raw
        self._header = np.frombuffer(raw["header"], np.int64)
        self._first_id = np.frombuffer(raw["first_id"], np.int64)
        self._counts = np.frombuffer(raw["counts"], np.int64)
        self._bits = np.frombuffer(raw["bits"], np.uint8)
        self._weights = np.frombuffer(raw["weights"], np.float32)
        # axes: process × counter
        self._counters = np.frombuffer(raw["counters"], np.int64).reshape(ROWS, len(COUNTERS))

    def __getstate__(self) -> dict[str, Any]:
        if multiprocessing.context.get_spawning_popen() is None:
            raise UnsupportedError(
                "A stream can be handed to worker processes as they are started (DataLoader does), but not pickled "
                "otherwise: its selection lives in shared memory. Construct the stream in the process that uses it."
            )
        return {"raw": self._raw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._raw = state["raw"]
        self._view()

    def publish(
        self,
        epoch: int,
        geometry: Geometry,
        selection: Selection,
        weights: NDArray[np.float32] | None,
        begin: int = 0,
    ) -> None:
        """Tell the workers what an epoch selects, from its first step; all counters begin again.

        Args:
            epoch, geometry, selection: of the plan.
            weights: float32, of this rank's part of the line; None where all are 1.
            begin: where the part begins in the line.
        """
        g = geometry
        self._bits[:] = selection.bits
        self._counts[:] = selection.counts
        held = 0 if weights is None else len(weights)
        if weights is not None:
            self._make_room(held)
            self._weights[:held] = weights
        fixed = (g.rows, g.width, g.batch, g.block, g.groups, g.seed, _ORDERS.index(g.order), g.drop_last)
        stretch = (begin, begin + held)
        self._header[:] = (epoch, 0, 1, weights is not None, *fixed, 0, 0, *stretch, len(self._weights))
        self._counters[:] = 0

    def _make_room(self, count: int) -> None:
        """Take a larger array where the geometry of a checkpoint asks for one."""
        if count > len(self._weights):
            self._raw["weights"] = _shared(ctypes.c_float, count)
            self._view()

    @property
    def epoch(self) -> int:
        """The epoch that was published last."""
        return int(self._header[_EPOCH])

    @property
    def start(self) -> int:
        """The step at which this start of the run began."""
        return int(self._header[_START])

    @start.setter
    def start(self, step: int) -> None:
        self._header[_START] = step

    @property
    def geometry(self) -> Geometry:
        """The run's geometry."""
        *numbers, order, drop_last = self._header[_GEOMETRY].tolist()
        rows, width, batch, block, groups, seed = numbers
        return Geometry(rows, width, batch, block, groups, seed, _ORDERS[order], bool(drop_last))

    @property
    def course(self) -> Course:
        """Where the epoch lies in the run, as of now: later epochs do not change what was returned."""
        consumed, planned = self._header[_COURSE].tolist()
        return Course(consumed, planned, self.geometry.global_batch)

    def set_course(self, consumed: int, planned: int) -> None:
        """Tell staged decoders the samples consumed before the epoch, and planned for the whole run."""
        self._header[_COURSE] = consumed, planned

    @property
    def is_set(self) -> bool:
        """Whether any epoch was published."""
        return bool(self._header[_IS_SET])

    def selection(self) -> Selection:
        """Return a copy of the selection, which later epochs do not change."""
        return Selection(self._bits.copy(), self._counts.copy(), self._first_id)

    def plan(self, rank: int, world: int) -> EpochPlan:
        """Return the plan of the epoch, for what one of `world` ranks reads; later epochs do not change it."""
        whole = EpochPlan(Selection(self._bits, self._counts, self._first_id), self.geometry, self.epoch)
        return whole.copy_for(rank, world)

    @property
    def selected(self) -> int:
        """Samples selected."""
        return int(self._counts.sum())

    def weights(self) -> LineWeights | None:
        """Return the loss weights of this rank's part of the line; None where all are 1.

        Raises:
            UnsupportedError: in a worker that was started before a checkpoint asked for more room.
        """
        if not self._header[_IS_WEIGHTED]:
            return None
        if self._header[_ROOM] != len(self._weights):
            raise UnsupportedError(
                "A worker was started before a checkpoint of another number of processes was loaded, and cannot see "
                "its weights: make a new DataLoader after load_state_dict().",
                expected=int(self._header[_ROOM]),
                found=len(self._weights),
            )
        begin, stop = self._header[_STRETCH].tolist()
        return LineWeights(begin, self._weights[: stop - begin])

    def counters(self, row: int) -> NDArray[np.int64]:
        """Return one process's counters to add to: int64 [COUNTERS]."""
        row_view: NDArray[np.int64] = self._counters[row if row < ROWS else 1 + (row - 1) % (ROWS - 1)]
        return row_view

    def sums(self) -> dict[str, int]:
        """Return the counters summed over processes."""
        return dict(zip(COUNTERS, self._counters.sum(axis=0).tolist(), strict=True))


def _shared(kind: type[Any], count: int) -> Any:
    return multiprocessing.sharedctypes.RawArray(kind, max(count, 1))
