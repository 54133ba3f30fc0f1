"""The loss table: the last loss of every sample, and how many epochs ago it was seen.

Takes ids and losses in any array; gives float32 losses, uint8 ages and histograms. Five bytes per sample, nothing per
sample as a Python object. Pure: no files, no clocks.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import LossError
from seta_stream.losses.histogram import Histogram, round_losses

MAX_AGE: Final = 255
"""Ages saturate here; samples never seen have it too."""

_ARRAY_CODES: Final = {int: "q", float: "d"}
_UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class LossTable:
    """One loss and one age per sample of the corpus.

    Losses are rounded once, by `round_losses`, when they enter. NaN and infinite losses never enter: the old value
    stays and `bad_losses` counts them.

    Args:
        samples_per_shard: int64 [shards].
    """

    def __init__(self, samples_per_shard: ArrayLike) -> None:
        counts = np.asarray(samples_per_shard, dtype=np.int64).reshape(-1)
        self.first_id: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        self.total = int(self.first_id[-1])
        self.values: NDArray[np.float32] = np.full(self.total, np.nan, np.float32)
        self.all_ages: NDArray[np.uint8] = np.full(self.total, MAX_AGE, np.uint8)
        self.recorded = 0
        """Losses that entered since the last `advance`."""
        self.bad_losses = 0
        """NaN and infinite losses that were refused since the last `advance`."""

    @property
    def shards(self) -> int:
        """How many shards the table covers."""
        return len(self.first_id) - 1

    def losses(self, shard: int) -> NDArray[np.float32]:
        """Return the losses of one shard, a view: float32 [samples], NaN where never seen."""
        return self.values[self.first_id[shard] : self.first_id[shard + 1]]

    def ages(self, shard: int) -> NDArray[np.uint8]:
        """Return how many epochs ago each sample of one shard was seen, a view: uint8 [samples], 255 if never."""
        return self.all_ages[self.first_id[shard] : self.first_id[shard + 1]]

    def record(self, ids: object, losses: object) -> None:
        """Take the losses of some samples; where an id comes twice, the last finite loss stays.

        Args:
            ids: integers [n] of any dtype that can count to the last id: numpy, torch (any device), jax, or a list.
                -1 stands for no sample and is ignored.
            losses: numbers [n] of any float dtype, bfloat16 included, one per id.

        Raises:
            LossError: ids are not integers, are too narrow or out of range; losses are not numbers, or not one per id.
        """
        id_array = _ids(ids, self.total)
        loss_array = _losses(losses)
        if id_array.shape != loss_array.shape:
            raise LossError(
                f"Cannot record losses: {_shape(id_array)} ids came with {_shape(loss_array)} losses. Give one loss "
                'per id: take the loss with reduction="none" and, for sequences, its mean per sample.',
                expected=id_array.shape,
                found=loss_array.shape,
            )
        if not len(id_array):
            return
        # Seen as unsigned, -1 and all below lie beyond any id, so one comparison checks both ends.
        if np.maximum.reduce(id_array.view(_UNSIGNED[id_array.itemsize])) >= self.total:
            id_array, loss_array = self._real(id_array, loss_array)
        rounded = round_losses(loss_array)
        finite = np.isfinite(rounded)
        if not np.logical_and.reduce(finite):
            id_array, rounded = id_array[finite], rounded[finite]
            self.bad_losses += len(finite) - len(rounded)
        self.values[id_array] = rounded  # numpy promises that the last of equal indices wins
        self.all_ages[id_array] = 0
        self.recorded += len(rounded)

    def check_ids(self, ids: NDArray[Any]) -> None:
        """Refuse ids that the corpus does not have; -1 is none and passes.

        Args:
            ids: integers [n].

        Raises:
            LossError: naming the first that is wrong.
        """
        outside = (ids < -1) | (ids >= self.total) if ids.dtype.kind == "i" else ids >= self.total
        if outside.any():
            wrong = int(ids[outside][0])
            raise LossError(
                f"Cannot record losses: id {wrong} is none of the corpus, whose ids run from 0 to {self.total - 1} "
                '(-1 is ignored). Pass the "__index__" of each sample as it came.',
                expected=self.total - 1,
                found=wrong,
            )

    def _real(self, ids: NDArray[Any], losses: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        self.check_ids(ids)
        real = ids >= 0
        return ids[real], losses[real]

    def advance(self, epochs: int = 1) -> None:
        """Make every sample `epochs` older, up to 255, and start the counts of the next epoch."""
        step = min(max(epochs, 0), MAX_AGE)
        np.minimum(self.all_ages, np.uint8(MAX_AGE - step), out=self.all_ages)
        self.all_ages += np.uint8(step)
        self.recorded = self.bad_losses = 0

    def load(self, shard: int, losses: ArrayLike, ages: ArrayLike) -> None:
        """Replace the losses and ages of one shard.

        Args:
            shard: its number.
            losses: float32 [samples], rounded here; not finite means never seen.
            ages: uint8 [samples]; 255 is set where never seen.

        Raises:
            LossError: the columns are not as long as the shard.
        """
        new = np.asarray(losses, np.float32)
        expected = len(self.losses(shard))
        if new.shape != (expected,) or np.shape(ages) != (expected,):
            raise LossError(
                f"Cannot load the losses of shard {shard}: it has {expected} samples, and {_shape(new)} losses and "
                f"{np.shape(ages)} ages were given. Load the sidecar that matches the shard's digest.",
                expected=expected,
                found=new.shape,
            )
        rounded = round_losses(new)
        seen = np.isfinite(rounded)
        self.losses(shard)[:] = np.where(seen, rounded, np.float32(np.nan))
        self.ages(shard)[:] = np.where(seen, np.asarray(ages, np.uint8), np.uint8(MAX_AGE))

    def histogram(self) -> Histogram:
        """Return the histogram of all losses; samples never seen are its unseen ones."""
        return Histogram.of(self.values)


def _ids(given: object, total: int) -> NDArray[Any]:
    ids = _array(given, "ids")
    if not ids.size:
        return ids.astype(np.int64)
    kind = ids.dtype.kind
    if kind not in "iu":
        raise LossError(
            f"Cannot record losses: ids are {ids.dtype}, and only integers count samples exactly. Pass the "
            '"__index__" of each sample as it came (int64), apart from the losses.',
            expected="int64",
            found=str(ids.dtype),
        )
    if 1 << (8 * ids.itemsize - (kind == "i")) < total:
        raise LossError(
            f"Cannot record losses: ids are {ids.dtype}, which cannot count the corpus's {total} samples. "
            "Pass them as int64.",
            expected="int64",
            found=str(ids.dtype),
        )
    return ids if ids.dtype.isnative else ids.astype(ids.dtype.newbyteorder("="))


def _losses(given: object) -> NDArray[np.float32]:
    losses = _array(given, "losses")
    if losses.dtype == np.float32:  # false for the other byte order too
        return losses
    # Narrow floats that numpy does not know (bfloat16 by ml_dtypes) are of kind V, and convert.
    if losses.dtype.kind not in "fiu" and "float" not in losses.dtype.name:
        raise LossError(
            f"Cannot record losses: they are {losses.dtype}, not numbers. Pass one float per sample.",
            expected="float32",
            found=str(losses.dtype),
        )
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is counted as a bad loss
        return losses.astype(np.float32)


def _array(given: Any, what: str) -> NDArray[Any]:
    if isinstance(given, np.ndarray):
        return np.atleast_1d(given)
    if hasattr(given, "detach"):  # a torch tensor, known without importing torch
        tensor = given.detach().cpu()
        # bfloat16 and the narrower ones are unknown to numpy
        return np.atleast_1d((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    if isinstance(given, (list, tuple)) and given:
        if hasattr(given[0], "detach"):
            given = [value.item() for value in given]
        # Twice as fast as numpy, which looks at every element twice; what does not fit is left to numpy.
        code = _ARRAY_CODES.get(type(given[0]))
        if code is not None:
            with suppress(TypeError, OverflowError):
                return np.frombuffer(array(code, given), code)
    try:
        return np.atleast_1d(np.asarray(given))
    except (TypeError, ValueError) as error:
        raise LossError(
            f"Cannot record losses: {what} are a {type(given).__name__} that does not convert to an array ({error}). "
            "Pass a numpy array, a tensor or a flat list."
        ) from error


def _shape(array: NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))
