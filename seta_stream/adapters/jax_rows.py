"""JAX: whose rows of a step are whose, and arrays that go there and come back.

Takes a sharding of the batch dimension and batches of numpy columns; gives global `jax.Array`s, and from global arrays
the rows of this process. Effects: copies to devices, and from them where `rows_of` is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError

_jax: Final[Any] = jax  # some of its functions have no annotations

PLACED_KINDS: Final = frozenset("biufc")
"""numpy's kinds of numbers; JAX's narrow floats are of another kind, with "float" in the name."""


def batch_sharding(sharding: object) -> NamedSharding:
    """Return how arrays of any number of axes are cut along their first.

    Args:
        sharding: a NamedSharding of the first axis alone, or a Mesh of one axis, along which the batch is cut.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(sharding, Mesh) and len(sharding.axis_names) == 1:
        return NamedSharding(sharding, _jax.P(sharding.axis_names[0]))
    if isinstance(sharding, Mesh):
        raise ArgumentError(
            f"The mesh has the axes {sharding.axis_names}, and which of them cut the batch is not told: give "
            f"sharding=NamedSharding(mesh, jax.P({sharding.axis_names[0]!r})), say.",
            found=sharding.axis_names,
        )
    if not isinstance(sharding, NamedSharding):
        raise ArgumentError(
            f"sharding is a {type(sharding).__name__}: give a jax.sharding.NamedSharding of the batch dimension, or a "
            "Mesh of one axis.",
            expected="NamedSharding",
            found=type(sharding).__name__,
        )
    first, *others = tuple(sharding.spec) or (None,)
    if any(one is not None for one in others):
        raise ArgumentError(
            f"The sharding {sharding.spec} cuts more than the batch dimension: give jax.P({first!r}), and cut other "
            "dimensions inside the step (jax.lax.with_sharding_constraint).",
            found=str(sharding.spec),
        )
    return NamedSharding(sharding.mesh, _jax.P(first), memory_kind=sharding.memory_kind)


class Rows:
    """The rows of a step that this process reads, and the devices that they go to.

    Args:
        sharding: of the batch dimension, as `batch_sharding` gives it.
        batch_size: rows that each process reads.
        world: how many processes do.

    Raises:
        ArgumentError: the step cannot be cut so, or the processes would not have rows of their own.
    """

    def __init__(self, sharding: NamedSharding, batch_size: int, world: int) -> None:
        self.sharding = sharding
        self.shards = int(np.prod([sharding.mesh.shape[name] for name in _names(sharding.spec[0])]))
        """Parts that the batch dimension is cut into."""
        self._step = batch_size * world
        if self._step % self.shards:
            raise ArgumentError(
                f"A step of {self._step} samples (batch_size={batch_size} in each of {world} processes) is cut into "
                f"{self.shards} parts by {sharding.spec} over the mesh {dict(sharding.mesh.shape)}, which do not "
                f"divide it: choose a batch_size so that they do.",
                expected=self.shards,
                found=self._step,
            )
        self._own = _own_rows(sharding, self._step, batch_size, world)
        self._covered: dict[Any, bool] = {}

    def place(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with every column of numbers on the devices, but for the ids.

        Lists (texts, bytes, pictures of several sizes) and "__index__", int64, stay on the host.

        Raises:
            ArgumentError: a column's integers do not fit in JAX's 32 bits.
        """
        return {name: self._placed(name, column) for name, column in batch.items()}

    def _placed(self, name: str, column: Any) -> Any:
        if name == "__index__" or not _is_numeric(column):
            return column
        _check_width(name, column)
        # One process may have a short last batch; several never have.
        length = len(column) if len(self._own) == self._step else self._step
        shape = (length, *column.shape[1:])
        return _jax.make_array_from_process_local_data(self.sharding, column, shape)

    def holds(self, values: Any, count: int) -> bool:
        """Say whether an array has this process's rows, one after another or among those of the whole step.

        Args:
            values: of one number per row.
            count: rows of this process in the step.
        """
        whole = self._step if count == len(self._own) else count
        if not isinstance(values, jax.Array) or values.is_fully_addressable:
            return values.shape in {(count,), (whole,)}
        if values.shape != (whole,):
            return False
        if values.sharding not in self._covered:
            self._covered[values.sharding] = not np.setdiff1d(self._own, _here(values.sharding, whole)).size
        return self._covered[values.sharding]

    def rows_of(self, values: Any, count: int) -> NDArray[Any]:
        """Return this process's rows of an array that `holds` them, on the host: [count], in the order of the ids.

        One number for all, of no axis, is repeated.
        """
        if values.shape == ():
            return np.full(count, np.asarray(values))
        if not isinstance(values, jax.Array) or values.is_fully_addressable:
            whole: NDArray[Any] = np.asarray(values)
            return whole if len(whole) == count else whole[self._own]
        found: NDArray[Any] = np.empty(count, values.dtype)
        for shard in values.addressable_shards:
            start, stop, _ = shard.index[0].indices(self._step)
            low, high = np.searchsorted(self._own, (start, stop))
            if high > low:
                found[low:high] = np.asarray(shard.data)[self._own[low:high] - start]
        return found


def _own_rows(sharding: NamedSharding, step: int, batch_size: int, world: int) -> NDArray[np.int64]:
    """Return the rows of a step that lie on this process's devices: int64 [batch_size], ascending.

    Raises:
        ArgumentError: it has more or fewer, or another process has the same.
    """
    indices: dict[Any, Any] = dict(sharding.devices_indices_map((step,)))
    processes = {device.process_index for device in indices}
    here = sharding.addressable_devices
    if len(processes) != world or not here:
        raise ArgumentError(
            f"The mesh has devices of the processes {sorted(processes)}, and {world} train together: make it of "
            "jax.devices(); or of jax.local_devices() with world=1, where each process trains for itself.",
            expected=world,
            found=sorted(processes),
        )
    own = _union((index for device, index in indices.items() if device in here), step)
    others = _union((index for device, index in indices.items() if device not in here), step)
    if len(own) != batch_size or np.intersect1d(own, others).size:
        raise ArgumentError(
            f"Cut by {sharding.spec} over the mesh {dict(sharding.mesh.shape)}, {len(own)} of a step's {step} rows lie "
            f"in this process, and each must have {batch_size} of its own, which no other has: order the mesh so that "
            "the axes that do not cut the batch stay inside a process.",
            expected=batch_size,
            found=len(own),
        )
    return own


def _here(sharding: Any, rows: int) -> NDArray[np.int64]:
    return _union(sharding.addressable_devices_indices_map((rows,)).values(), rows)


def _union(indices: Iterable[tuple[slice, ...]], rows: int) -> NDArray[np.int64]:
    """Return the rows of some indices into `rows`, each once, ascending."""
    parts = {index[0].indices(rows)[:2] for index in indices}
    return np.unique(np.concatenate([np.empty(0, np.int64), *(np.arange(*part) for part in parts)]))


def _names(entry: Any) -> tuple[str, ...]:
    """Return the mesh axes that an entry of a PartitionSpec names."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def _is_numeric(column: Any) -> bool:
    return isinstance(column, np.ndarray) and (column.dtype.kind in PLACED_KINDS or "float" in column.dtype.name)


def _check_width(name: str, column: NDArray[Any]) -> None:
    """Refuse integers that JAX would cut to 32 bits, silently.

    Raises:
        ArgumentError: a number does not fit.
    """
    if column.dtype.kind not in "iu" or column.dtype.itemsize < 8 or _jax.config.jax_enable_x64 or not column.size:
        return
    limits = np.iinfo(np.int32 if column.dtype.kind == "i" else np.uint32)
    worst = max(column.min(), column.max(), key=lambda one: abs(int(one)))
    if not limits.min <= int(worst) <= limits.max:
        raise ArgumentError(
            f"The field {name!r} holds {worst}, which does not fit in the 32 bits that JAX has for integers: set "
            "jax_enable_x64, decode it to something else, or leave it out with fields=.",
            expected=f"{limits.min} … {limits.max}",
            found=int(worst),
        )
