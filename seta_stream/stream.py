"""SetaStream: the one orchestrator. Corpus → losses → rule → selection → plan → samples, and losses back.

Takes the options of the public contract; gives samples. Effects: through the rooms, those of reading, and of the state
folder where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from seta_stream.beginning import cache_of, geometry_of, labels_of, session_of, write_corpus
from seta_stream.collective import Collective, agree_on
from seta_stream.corpus.listing import options_at
from seta_stream.corpus.sharing import open_corpus_together
from seta_stream.errors import ArgumentError
from seta_stream.machines import place_of
from seta_stream.memory import Memory
from seta_stream.options import (
    SHARED,
    check_batch,
    check_choices,
    check_fields,
    check_seed,
    check_world,
    runs_asked,
    shares,
)
from seta_stream.plan.epoch import EpochPlan
from seta_stream.policies import Full, Policy, Rule, as_policy
from seta_stream.policies.policy import describe
from seta_stream.read.batches import batched
from seta_stream.read.board import Board
from seta_stream.read.decode import Decode, decoder
from seta_stream.read.options import Cache, Reading
from seta_stream.read.reader import Reader
from seta_stream.schedule import Steps, run_epochs
from seta_stream.stats import Stats
from seta_stream.store import normalise

Options = Mapping[str, Any]


class SetaStream:
    """A corpus of TAR shards that reads, each epoch, only the samples that a policy selects.

    Args:
        urls: brace pattern, glob, list of these, or a .txt list of URLs, one per line.
        policy: decides each epoch from the losses; `Full()` takes everything. A callable (histogram, epoch) → Rule
            too, or a text as "infobatch(num_epochs=90)".
        state: folder or URL where losses and history are kept; None keeps losses in memory only.
        batch_size: samples per step and process; None means 1.
        seed: of every draw and shuffle; the same seed gives the same samples in the same order.
        shuffle: False gives corpus order.
        drop_last: leave out what does not fill a step (another part each epoch).
        lanes: (rows, lanes per row) of the plan; for locality only. Default (world, 8).
        decode: None for bytes; "pil", "rgb8", … or "basic" (see seta_stream.read.decode); (field, bytes) → value; or
            one that follows the run's progress, as EfficientTrain().
        on_error: "raise", or "skip": a neighbour stands in for a sample that cannot be decoded, with weight 0.
        fields: read these fields only.
        index: folder or URL of the indexes, where they do not lie beside the shards.
        losses: "exact" starts an epoch from its own ancestor; "latest" allows the newest where that is gone.
        unit: what is judged: each "sample", or each "run" of neighbours by its mean loss (see docs/policies.md).
        read: how to read.
        cache: a local folder, or Cache(folder, max_bytes), that keeps what is fetched of remote shards; local ones
            need none.
        storage_options: for the shards' file system, and for the state's where it is of the same protocol.
        state_options: for the state's, instead.
        collective: of several processes that train together, as adapters.torch.TorchCollective(); each constructs a
            stream with the same options, and calls set_epoch, load_state_dict and close as the others do.
        world, rank: where nothing has to be exchanged, as in validation with `Full()`; else they are the collective's.

    Raises:
        ArgumentError, CorpusError, StateError: an option, a shard or the state cannot be used; each says what to do.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        policy: Policy | Callable[..., Rule] | str | Mapping[str, Any] = Full(),
        state: str | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        lanes: tuple[int, int] | None = None,
        decode: str | Decode | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        fields: Sequence[str] | None = None,
        index: str | None = None,
        losses: Literal["exact", "latest"] = "exact",
        unit: Literal["sample", "run"] = "sample",
        read: Reading = Reading(),
        cache: str | Cache | None = None,
        storage_options: Options | None = None,
        state_options: Options | None = None,
        collective: Collective | None = None,
        world: int | None = None,
        rank: int | None = None,
    ) -> None:
        check_choices(on_error=on_error, losses=losses, unit=unit)
        self.policy = as_policy(policy)
        everyone, rank, world = check_world(collective, world, rank, shares=shares(self.policy, state))
        cut = check_batch(batch_size, lanes, world, drop_last=drop_last)
        seed, decode_value, wanted = check_seed(seed), decoder(decode), check_fields(fields)
        epochs = run_epochs(self.policy, decode_value)
        self.batch_size = None if batch_size is None else int(batch_size)
        folder = normalise(str(state)) if state is not None else None
        state_options = options_at(folder or "", urls, storage_options, state_options)
        told = (urls, index, describe(self.policy), state, batch_size, lanes, seed, shuffle, drop_last, unit, losses)
        agree_on(everyone, dict(zip(SHARED, (*told, read.run_bytes), strict=True)))
        at = place_of(everyone)
        corpus = open_corpus_together(
            urls,
            collective=everyone,
            local_rank=at.local_rank,
            local_world=at.local_world,
            machines=at.machines,
            index=index,
            state=folder,
            storage_options=storage_options,
            state_options=state_options,
        )
        table = corpus.table
        geometry = geometry_of(table, cut, at.groups, seed, shuffle=shuffle, drop_last=drop_last, is_free=lanes is None)
        runs, labels = runs_asked(unit, read.run_bytes, table.mean_bytes), labels_of(corpus, self.policy, everyone)
        memory = Memory(table, self.policy, seed, folder, state_options, losses, labels, runs, everyone)
        try:
            board = Board(table.first_id, most_weights=geometry.most_in_part(table.total, world))
            if folder is not None:
                write_corpus(folder, table, state_options, everyone)
        except BaseException:
            memory.close()
            raise
        blocks, here = cache_of(cache, corpus, storage_options), at.local_world
        self.reader = Reader(
            corpus, board, read, decode_value, wanted, on_error, storage_options, blocks, rank, world, here
        )
        self.session = session_of(self.reader, self.policy, geometry, memory, epochs)

    @property
    def epoch(self) -> int | None:
        """The epoch that is set, or None before the first."""
        return self.session.epoch

    def set_epoch(self, epoch: int) -> None:
        """Commit the losses recorded so far, then select what `epoch` reads.

        An earlier or equal epoch may be set again: it starts from its own ancestor.

        Raises:
            GenerationError: the losses that the epoch starts from are no longer kept.
            PlanError: nothing, or less than one step, is selected.
        """
        self.session.set_epoch(epoch)

    # ---- samples

    def __len__(self) -> int:
        """Samples that an iteration yields in the epoch that is set, exact before the first one is read."""
        lanes = self.session.plan.lanes
        return max(lanes.planned - self.session.board.start * lanes.global_batch, 0) // self.session.world

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the epoch's samples: dicts of __key__, __url__, __index__ (the id), __weight__ and the fields."""
        self.session.check_open()
        plan = self.session.plan
        self.session.restart()
        start = self.session.board.start
        share = self.reader.share(origin=start, begin=start)
        lists = self.reader.lists(plan, share, threads=self.reader.reading.decode_threads)
        return self._counted(lists, plan)

    def _counted(self, lists: Iterator[list[dict[str, Any]]], plan: EpochPlan) -> Iterator[dict[str, Any]]:
        """Pass samples on; the training loop has received a sample once it is handed out."""
        session = self.session
        before = 0
        for samples in lists:
            for delivered, sample in enumerate(samples, before + 1):
                if session.current is not plan:
                    return  # another epoch was set in the middle of this one
                session.delivered = delivered
                yield sample
            before += len(samples)

    def batches(self, n: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield batches of `n` samples (default batch_size) as dicts of numpy arrays and lists."""
        size = n if n is not None else self.batch_size
        if size is None or size < 1:
            raise ArgumentError("batches(n) needs a number of samples: give n, or batch_size to the stream.")
        yield from batched(self, size)

    # ---- losses

    def record(self, ids: object, losses: object, **recorded: object) -> None:
        """Take the losses of samples, by id; NaN and infinite ones are refused and counted.

        Args:
            ids: integers [n] of any array or list; −1 is none.
            losses: numbers [n], one per id; with `smooth=BLS()` one number for all will do, the mean of their batch.
            recorded: what the policy asks for besides, as `flags=` (Kakurenbo) or `group=` (PerGroup): [n].

        Raises:
            LossError: they do not fit each other, the corpus or the policy.
        """
        self.session.check_open()
        self.session.memory.record(ids, losses, recorded)

    def weights(self, ids: object) -> NDArray[np.float32]:
        """Return the loss weights of samples in the epoch that is set: float32 [n]; 0 for the id −1.

        Raises:
            ArgumentError: another rank reads one of them: a rank knows the weights of what it reads.
        """
        self.session.check_open()
        numbers = np.asarray(ids, np.int64)
        self.session.memory.check_ids(numbers)
        weights = self.session.weights
        return (numbers >= 0).astype(np.float32) if weights is None else weights.of(numbers)

    # ---- position

    @property
    def position(self) -> int:
        """The step that comes next: steps before it were received by the training loop."""
        return self.session.position

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the position as plain values, small and free of pickle; losses recorded so far are written beside.

        Args:
            step: the next step to deliver, where the stream cannot know what the training loop has received.

        Raises:
            StateError: without a state folder, where the selection depends on losses that nothing keeps.
        """
        return self.session.state_dict(step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made, with the very same batches.

        Raises:
            CheckpointError: the corpus, policy, batch or seed differs, or the losses it needs are gone.
        """
        self.session.load_state_dict(state_dict)

    # ---- schedules and figures

    def steps(self, epochs: int) -> Steps:
        """Return the steps of the run's first `epochs` epochs, for learning-rate schedules.

        Exact where the policy fixes its shares ahead (a `target`, or no losses), up to `margin` for random draws; else
        an estimate from the losses of today, with `is_exact` False.
        """
        return self.session.schedule.steps(epochs, self.session.memory.histogram())

    @property
    def progress(self) -> float:
        """Samples consumed over samples planned for the run, 0 … 1.

        Raises:
            ArgumentError: the policy has no num_epochs and `steps(epochs)` was not called, so the end is unknown.
        """
        received = self.session.received
        return self.session.schedule.progress(received, self.session.memory.histogram)

    @property
    def stats(self) -> Stats:
        """Counts of the epoch that is set."""
        return self.session.stats

    # ---- the end

    def close(self) -> None:
        """Commit the last epoch and give the state folder back; closing twice is harmless."""
        self.session.close(is_whole=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.session.close(is_whole=kind is None)
