"""One shard → its losses: read in corpus order, decoded, given to the model batch by batch.

Takes a Work (what holds for all) and a ShardTask; gives ShardLosses. Acts: reads the shard, runs the user's model. Both
travel to other processes, and the index of the shard with them, so that nothing is scanned or looked for there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.ids import ShardRow, ShardTable
from seta_stream.corpus.indexing import Corpus
from seta_stream.corpus.places import Place, cache_url
from seta_stream.errors import ArgumentError, LossError, MissingExtraError
from seta_stream.losses.table import LossTable
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.shuffle import line_block_length
from seta_stream.read.batches import batched
from seta_stream.read.board import Board
from seta_stream.read.decode import Decode, FieldDecode, Seeded, Staged, decoder
from seta_stream.read.options import Reading
from seta_stream.read.reader import Reader
from seta_stream.scoring.model import alone, load_model, named, without_gradients
from seta_stream.store import Options

Cause = Literal["decode", "loss"]
CAUSES: Final[tuple[Cause, ...]] = ("decode", "loss")
NAMED_FAILURES: Final = 5
"""So many failures of a shard are named; the others are counted."""


@dataclass(frozen=True)
class Failure:
    """A sample that has no loss.

    Args:
        url: of its shard.
        key: its own.
        cause: "decode": a field could not be decoded; "loss": the model's number is NaN or infinite.
        message: what happened.
    """

    url: str
    key: str
    cause: Cause
    message: str


@dataclass(frozen=True)
class ShardTask:
    """A shard to score.

    Args:
        shard: its number.
        first_id: of the corpus, where it begins.
        url: where it lies.
        row: its row in the shard table.
        index: its index file.
    """

    shard: int
    first_id: int
    url: str
    row: ShardRow
    index: bytes


@dataclass(frozen=True, eq=False)
class ShardLosses:
    """A shard that is scored.

    Args:
        shard: its number.
        losses: float32 [samples], NaN where there is none.
        failed: how many samples have none, by cause.
        failures: the first few of these.
    """

    shard: int
    losses: NDArray[np.float32]
    failed: Mapping[Cause, int]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Work:
    """How shards are scored.

    Args:
        model: name of the model.
        device: where it shall be; None for wherever it is.
        decode: a decoder's name; None for bytes.
        fields: that are read; None for all.
        batch_size: samples per call of the model.
        on_error: what to do with a sample that cannot be decoded.
        sharers: processes of a machine that do this work, and share its memory.
        options: of the corpus's file system; may hold credentials.
    """

    model: str
    device: str | None
    decode: str | None
    fields: tuple[str, ...] | None
    batch_size: int
    on_error: Literal["raise", "skip"]
    sharers: int
    options: Options | None = field(repr=False)

    def __call__(self, task: ShardTask) -> ShardLosses:
        """Score a shard.

        Raises:
            ArgumentError: the model or the decoder cannot be loaded.
            LossError: the model failed, or its losses do not fit the batch.
            DecodeError: a sample cannot be decoded, and is not to be skipped.
            MissingExtraError: what decodes a field is not installed.
            ReadError, CorpusError: the shard cannot be read.
        """
        with alone():
            model = load_model(self.model, self.device)
        table, failures = LossTable([task.row.samples]), _Failures(task.url)
        for batch in batched(failures.sound(self._samples(task)), self.batch_size):
            ids, keys = batch["__index__"], list(batch["__key__"])
            batch["__index__"] = ids + task.first_id
            names = ", ".join(batch)
            try:
                with alone(), without_gradients():
                    table.record(ids, model(batch))
            except LossError as error:
                raise LossError(
                    f"--model {self.model} gave no losses for {_told(keys)} of {task.url}: {error.message}",
                    shard=task.url, key=keys[0], expected=error.expected, found=error.found,
                ) from error  # fmt: skip
            except (Exception, SystemExit) as error:
                raise LossError(
                    f"--model {self.model} failed on {_told(keys)} of {task.url}: {type(error).__name__}: {error}. "
                    f"It is called with a batch, a dict of arrays and lists, here of {names}"
                    f"{'.' if self.decode else ', as bytes: --decode names a decoder.'}",
                    shard=task.url, key=keys[0],
                ) from error  # fmt: skip
            for place in np.flatnonzero(np.isnan(table.values[ids])).tolist():
                failures.add(keys[place], "loss", "its loss is NaN or infinite")
        return ShardLosses(task.shard, table.values, failures.counts, tuple(failures.named))

    def _samples(self, task: ShardTask) -> Iterator[dict[str, Any]]:
        """Yield the samples of a shard in order; numbered from 0."""
        table = ShardTable.of([task.url], [task.row])
        place = Place(cache_url(task.url), None, None)
        corpus = Corpus(table, [[place]], held={0: task.index}, storage_options=self.options)
        decode = plain_decoder(self.decode)
        if decode is not None and self.on_error == "skip":
            decode = _Marked(decode)
        board = Board(table.first_id)
        geometry = Geometry(1, 1, 1, line_block_length(table.mean_bytes, 1, 1), 1, 0, "corpus", drop_last=False)
        plan = EpochPlan(Selection.of(np.ones(table.total, np.bool_), table.first_id), geometry, 0)
        board.publish(0, geometry, plan.selection, None)
        reader = Reader(
            corpus, board, Reading(), decode, self.fields, "raise", self.options, ranks_here=self.sharers
        )  # fmt: skip
        for samples in reader.lists(plan, reader.share(origin=0, begin=0), threads=reader.reading.decode_threads):
            yield from samples


def _told(keys: list[str]) -> str:
    return f"samples {keys[0]!r} … {keys[-1]!r}"


def plain_decoder(name: str | None) -> FieldDecode | None:
    """Return the decoder of a name: one of the stream's own, or package.module:function.

    Raises:
        ArgumentError: there is none, or it draws random numbers or follows a run's progress.
    """
    found: Decode | None = decoder(named("--decode", name) if name is not None and ":" in name else name)
    if isinstance(found, Seeded | Staged):
        raise ArgumentError(
            f"--decode {name} changes samples at random or with the progress of a run, and losses ahead of it need "
            "them as they are: name a decoder (field, bytes) → value.",
            expected="(field, bytes) → value",
            found=type(found).__name__,
        )
    return found


@dataclass(frozen=True)
class _Undecoded:
    """Stands where a field's value would."""

    error: Exception


@dataclass(frozen=True)
class _Marked:
    """A decoder that never fails."""

    decode: FieldDecode

    def __call__(self, name: str, data: bytes) -> Any:
        try:
            return self.decode(name, data)
        except MissingExtraError:  # without its library no sample can be decoded
            raise
        except Exception as error:  # noqa: BLE001  (whatever a decoder raises, the sample is passed over and counted)
            return _Undecoded(error)


class _Failures:
    """Counts the samples of one shard that have no loss."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.counts: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        self.named: list[Failure] = []

    def add(self, key: str, cause: Cause, message: str) -> None:
        """Count one, and keep it where few are kept so far."""
        self.counts[cause] += 1
        if len(self.named) < NAMED_FAILURES:
            self.named.append(Failure(self._url, key, cause, message))

    def sound(self, samples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass on the samples that could be decoded."""
        for sample in samples:
            for name, value in sample.items():
                if isinstance(value, _Undecoded):
                    self.add(sample["__key__"], "decode", f"{name}: {type(value.error).__name__}: {value.error}")
                    break
            else:
                yield sample
