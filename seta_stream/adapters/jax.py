"""JAX: sharded batches for a mesh, and losses back from the training loop.

Takes the options of SetaStream and a sharding of the batch dimension; gives batches as global arrays. Effects: those of
the stream, copies to the devices, and a thread that makes batches ahead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import chain, groupby
from types import TracebackType
from typing import Any, Final, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, LossError, MissingExtraError

try:
    import jax
    from jax.sharding import Mesh, NamedSharding
except ImportError as error:
    raise MissingExtraError.of("JaxStream", "jax", error) from error

from seta_stream.adapters.jax_ahead import Ahead
from seta_stream.adapters.jax_collective import JaxCollective
from seta_stream.adapters.jax_rows import Rows, batch_sharding
from seta_stream.options import StreamOptions
from seta_stream.policies.deciding import columns_of
from seta_stream.read.batches import batched
from seta_stream.read.reader import Reader
from seta_stream.schedule import Steps
from seta_stream.stats import Stats
from seta_stream.stream import SetaStream

__all__ = ["JaxCollective", "JaxStream", "weighted_mean"]

FLUSH_STEPS: Final = 64
"""Losses stay on their devices for so many steps, and then move together."""


def weighted_mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the sum of weight × loss, divided by the number of samples: what a step minimises, inside jit.

    Args:
        losses: float [G], one per sample of the step.
        weights: float32 [G], the batch's "__weight__"; 0 where a sample stands in for a broken one.
    """
    return (weights * losses).sum() / losses.shape[0]


class JaxStream:
    """The batches of SetaStream as global arrays over a mesh, made ahead; and the losses back.

    A batch is a dict. Columns of numbers, "__weight__" (float32) among them, are `jax.Array`s of the whole step, cut
    along their first axis: process p gives the rows of its own devices. Texts and what cannot be stacked are lists of
    this process's rows. So is "__index__", the ids: a numpy array int64 [batch_size], which never becomes a JAX array
    (that would make it int32), and whose order is that of this process's rows.

    Args:
        urls: as for SetaStream.
        batch_size: samples per step and process.
        sharding: of the batch dimension: NamedSharding(mesh, jax.P("data")), or a Mesh of one axis.
        ahead: batches that wait on the devices while one is trained on.
        options: the other options of SetaStream. Where JAX has several processes they train together, over
            JaxCollective(); world=1 makes each of them read for itself, to a mesh of its own devices.

    Raises:
        ArgumentError: the sharding does not fit the batch or the processes.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        batch_size: int,
        sharding: NamedSharding | Mesh,
        ahead: int = 2,
        **options: Unpack[StreamOptions],
    ) -> None:
        if not isinstance(ahead, int) or ahead < 0:
            raise ArgumentError(f"ahead={ahead!r} is no number of batches: give 0 or more.", found=ahead)
        cut = batch_sharding(sharding)
        if options.get("collective") is None and options.get("world") is None and jax.process_count() > 1:
            options["collective"] = JaxCollective()
        everyone = options.get("collective")
        world = everyone.world if everyone is not None else options.get("world") or 1
        self._rows = Rows(cut, batch_size, world)
        self._ahead = ahead
        self._batch_size = batch_size
        self._making: Ahead | None = None
        self._waiting: list[dict[str, Any]] = []
        self.stream: Final = SetaStream(urls, batch_size=batch_size, **options)
        """The stream of samples; its own iteration counts by itself."""
        self._by_step = bool(columns_of(self.stream.policy))

    # ---- batches

    def __len__(self) -> int:
        """Batches of an iteration over the epoch that is set."""
        return (len(self.stream) + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches of the epoch that is set; an iteration that is under way ends there.

        Raises:
            ArgumentError: with `drop_last=False`, the last batch does not divide over the mesh.
        """
        self._stop()
        self._flush()
        session = self.stream.session
        session.check_open()
        short = session.plan.lanes.planned % self._rows.shards
        if short:
            raise ArgumentError(
                f"The last batch of epoch {session.epoch} has {session.plan.lanes.planned % self._batch_size} samples, "
                f"which do not divide over the {self._rows.shards} parts of the mesh: leave out drop_last=False.",
                expected=self._rows.shards,
                found=session.plan.lanes.planned % self._batch_size,
            )
        session.restart()
        self._making = Ahead(_batches(self.stream.reader, self._rows, self._batch_size), self._ahead)
        return self._making

    def _stop(self) -> None:
        """End an iteration that is under way."""
        if self._making is not None:
            self._making.close()
            self._making = None

    # ---- epochs and losses

    def set_epoch(self, epoch: int) -> None:
        """Commit the losses recorded so far, then select what `epoch` reads; every process calls it."""
        self._stop()
        self._flush()
        self.stream.set_epoch(epoch)

    def update(self, ids: NDArray[np.integer[Any]], losses: Any, **recorded: Any) -> None:
        """Record a step's losses; nothing waits for a device: they are copied in groups of steps.

        Args:
            ids: int64 [batch_size], the batch's "__index__"; −1 is none.
            losses: float [G], one per sample of the step, as the jitted step returned it (do not donate it), or the
                batch_size ones of this process, of any array; with `smooth=BLS()` one number, the mean, will do.
            recorded: what the policy asks for besides, as `flags=` or `group=`, in the same form.

        Raises:
            LossError: the batch is not the stream's step, or its losses lie with other processes.
        """
        count = self._check_step(ids, losses)
        self._check_recorded(recorded, count)
        step = {"ids": np.array(ids, np.int64), "losses": losses, **recorded}
        self._waiting.append({name: _kept(values) for name, values in step.items()})
        self.stream.session.delivered += count
        if len(self._waiting) >= FLUSH_STEPS:
            self._flush()

    def _check_step(self, ids: Any, losses: Any) -> int:
        """Return this process's samples in the step that comes next, which ids and losses must have."""
        session = self.stream.session
        count = session.next_samples()
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or not hasattr(losses, "shape"):
            raise LossError(
                f"update() takes numpy integers and an array of losses; got ids that are {_kind(ids)} and losses that "
                f'are {_kind(losses)}: pass the batch\'s "__index__" as it came (in JAX ids would be 32 bits wide).'
            )
        is_mean = losses.shape == () and session.memory.takes_means
        if ids.shape != (count,) or not (is_mean or self._rows.holds(losses, count)):
            raise LossError(
                f"update() got {ids.shape} ids and losses of shape {losses.shape}, and this step has {count} samples "
                f"here of {count * session.world} in all: give one loss per sample, of the whole step or of this "
                "process's rows, and cut as the batch is.",
                expected=count,
                found=losses.shape,
            )
        session.memory.check_ids(ids)
        return count

    def _check_recorded(self, recorded: Mapping[str, Any], count: int) -> None:
        """Refuse what the policy does not ask for, and other lengths; values come later."""
        takes = self.stream.session.memory.takes
        for name, values in recorded.items():
            if name not in takes or not hasattr(values, "shape") or not self._rows.holds(values, count):
                asked = f"the policy asks for {', '.join(takes) or 'nothing'} beside the losses"
                raise LossError(
                    f"update() got {name}= that is {_kind(values)}: {asked}, as arrays of one for each of the step's "
                    f"{count} samples.",
                    expected=(count,),
                    found=getattr(values, "shape", None),
                )

    def _flush(self) -> None:
        """Move the waiting losses to the stream."""
        waiting, self._waiting = self._waiting, []
        refused: LossError | None = None
        for names, alike in groupby(waiting, key=tuple):
            steps = []
            for step in alike:
                try:
                    steps.append(self._on_host(step))
                except LossError as error:
                    refused = refused or error
            # Columns are updated step by step, so that a policy sees each batch by itself.
            for group in [[step] for step in steps] if self._by_step else [steps] if steps else []:
                whole = {name: np.concatenate([step[name] for step in group]) for name in names}
                try:
                    self.stream.record(**whole)
                except LossError as error:  # the other steps' losses are good all the same
                    refused = refused or error
        if refused is not None:
            raise refused

    def _on_host(self, step: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Return a step's values of this process's rows.

        Raises:
            LossError: they cannot be had any more.
        """
        count = len(step["ids"])
        try:
            return {name: self._rows.rows_of(values, count) for name, values in step.items()}
        except RuntimeError as error:
            raise LossError(
                f"The losses of a step (ids {step['ids'][0]}, …) could not be copied from their devices: {error} They "
                "are copied some steps after update(), so do not donate or delete them; or the step itself failed."
            ) from error

    def record(self, ids: object, losses: object, **recorded: object) -> None:
        """Take losses of this process without counting a step, as SetaStream.record does."""
        self._flush()
        self.stream.record(ids, losses, **recorded)

    # ---- position and figures

    @property
    def epoch(self) -> int | None:
        """The epoch that is set, or None before the first."""
        return self.stream.epoch

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the position, counted by `update` (or `step`), as plain values: on every process, to be saved on one.

        What was made ahead does not count.
        """
        self._flush()
        return self.stream.state_dict(step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made, with the very same batches; every process calls it."""
        self._stop()
        self._waiting = []
        self.stream.load_state_dict(state_dict)

    @property
    def stats(self) -> Stats:
        """Counts of the epoch that is set, in this process; batches made ahead count as read."""
        self._flush()
        return self.stream.stats

    def steps(self, epochs: int) -> Steps:
        """Return the steps of the run's first `epochs` epochs, as SetaStream.steps does."""
        return self.stream.steps(epochs)

    @property
    def progress(self) -> float:
        """Samples consumed over samples planned for the run, 0 … 1."""
        return self.stream.progress

    # ---- the end

    def close(self) -> None:
        """Commit the last epoch; every process calls it, and closing twice is harmless."""
        self._stop()
        try:
            self._flush()
        finally:
            self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        try:
            self._flush()
        except LossError:
            if kind is None:  # else the exception on its way tells more
                raise
        finally:
            self.stream.__exit__(kind, error, traceback)


def _batches(reader: Reader, rows: Rows, batch_size: int) -> Generator[dict[str, Any], None, None]:
    """Read, stack and place: what the thread does. It must not hold the stream, which could never be let go of then."""
    start = reader.board.start
    share = reader.share(origin=start, begin=start)
    lists = reader.lists(reader.plan(), share, threads=reader.reading.decode_threads)
    for batch in batched(chain.from_iterable(lists), batch_size):
        yield rows.place(batch)


def _kept(values: Any) -> Any:
    """Return what later writes do not change; an array of JAX starts on its way to the host."""
    if isinstance(values, jax.Array):
        values.copy_to_host_async()
        return values
    return np.array(values)


def _kind(values: Any) -> str:
    """Return what a value is, for an error."""
    if hasattr(values, "dtype"):
        return f"{type(values).__name__} of {values.dtype} {values.shape}"
    return f"a {type(values).__name__}"
