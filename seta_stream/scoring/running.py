"""Scores a corpus: begins or goes on, on the engine that is asked for, and commits the losses as those of epoch −1.

Takes URLs and choices; gives a Report. Acts: all that the files beside it do, and writes a generation to the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from seta_stream.beginning import write_corpus
from seta_stream.collective import OneProcess
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.listing import Urls, options_at
from seta_stream.errors import ArgumentError, DecodeError, LossError, StateError
from seta_stream.jobs import LOCAL, Engine, run
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.table import LossTable
from seta_stream.options import check_choices, check_fields
from seta_stream.scoring.folder import Folder
from seta_stream.scoring.model import check_name, check_there
from seta_stream.scoring.shard import CAUSES, Cause, Failure, ShardLosses, ShardTask, Work, plain_decoder
from seta_stream.store import Options, normalise

EPOCH: Final = -1
"""Of losses from before epoch 0."""
NAMED_FAILURES: Final = 5
"""So many failures of a corpus are named; the others are counted."""

_FAILURES_AT_LEAST: Final = 64
_FAILURES_SHARE: Final[Mapping[Cause, float]] = {"decode": 0.05, "loss": 0.5}
"""More failures than both: the decoder, the model or the corpus is broken, not a sample."""


@dataclass(frozen=True)
class Choice:
    """What a user asks for.

    Args:
        urls: the corpus: a pattern, or several.
        state: folder or URL of the run that is to begin with these losses.
        model: "package.module:function"; see `scoring.model.load_model`.
        decode: a decoder's name, or its package.module:function; None for bytes.
        batch_size: samples per call of the model.
        fields: that are read; None for all.
        device: where the model shall be.
        on_error: "raise", or "skip": samples that cannot be decoded have no loss.
        index: folder of the indexes.
        engine: where the work runs. With a device, one local process unless it says how many.
        restart: whether what was scored before is thrown away.
        storage_options: of the corpus's file system.
        state_options: of the state's; those of the corpus where the protocol is the same.

    Raises:
        ArgumentError: an option is wrong.
    """

    urls: Urls
    state: str
    model: str
    decode: str | None = None
    batch_size: int = 256
    fields: tuple[str, ...] | None = None
    device: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    index: str | None = None
    engine: Engine = LOCAL
    restart: bool = False
    storage_options: Options | None = field(default=None, repr=False)
    state_options: Options | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_name("--model", self.model)
        check_choices(on_error=self.on_error)
        if self.batch_size < 1:
            raise ArgumentError(f"batch_size={self.batch_size!r} is no number of samples: give 1 or more.")
        object.__setattr__(self, "fields", check_fields(self.fields))
        object.__setattr__(self, "state", normalise(self.state))
        state_options = options_at(self.state, self.urls, self.storage_options, self.state_options)
        object.__setattr__(self, "state_options", state_options)

    def wanted(self, corpus: Corpus) -> dict[str, Any]:
        """Return what the losses depend on, as plain values."""
        fields = None if self.fields is None else list(self.fields)
        fingerprint = corpus.table.fingerprint().hex()
        return {"model": self.model, "decode": self.decode, "fields": fields, "corpus": fingerprint}


@dataclass(frozen=True)
class Progress:
    """How far it has come.

    Args:
        samples_done, samples: those that are scored or failed, and all.
        shards_done, shards: likewise.
        failed: samples without a loss.
    """

    samples_done: int
    samples: int
    shards_done: int
    shards: int
    failed: int


@dataclass(frozen=True)
class Report:
    """What was done.

    Args:
        generation: name of the one that holds the losses.
        shards, samples: of the corpus.
        scored: samples that this call scored; the others were done before.
        seen: samples that have a loss.
        failed: samples that have none, by cause.
        failures: the first few of these.
        minimum, mean, maximum: of the losses.
        seconds: wall time.
    """

    generation: str
    shards: int
    samples: int
    scored: int
    seen: int
    failed: Mapping[Cause, int]
    failures: tuple[Failure, ...]
    minimum: float
    mean: float
    maximum: float
    seconds: float


def score(choice: Choice, progress: Callable[[Progress], None] | None = None) -> Report:
    """Give every sample of a corpus the loss that a model has on it, as a generation of epoch −1.

    Shards that are done are kept in `<state>/scoring` until all are; killed at any moment, the same call goes on.

    Args:
        choice: what is wanted.
        progress: is told after each shard.

    Raises:
        ArgumentError: the model or the decoder cannot be loaded.
        StateError: the state has losses of a run already, or those of another model are half done there.
        StateLockedError: another process writes the state.
        LossError: the model failed, or gave losses that do not fit; or hardly a sample has a loss.
        DecodeError: a sample cannot be decoded, and is not to be skipped; or too many of them.
        PeerError: workers died too often, or the cluster cannot be reached.
        CorpusError, ReadError: a shard is damaged, or cannot be read.
    """
    started = time.monotonic()
    if choice.engine.is_local:
        check_there("--model", choice.model)
        plain_decoder(choice.decode)
    generations = Generations(choice.state, choice.state_options)
    generations.lock()
    try:
        corpus = open_corpus(
            choice.urls,
            index=choice.index,
            state=choice.state,
            storage_options=choice.storage_options,
            state_options=choice.state_options,
            jobs=choice.engine.jobs if choice.engine.is_local else None,
        )
        tally = _Tally(corpus, progress or (lambda _: None))
        wanted = choice.wanted(corpus)
        folder = Folder(choice.state, choice.state_options, wanted)
        before = _scored_before(generations, choice, wanted, folder)
        if before is not None:
            generations.load(before, tally.table, corpus.table)
            folder.remove()
            return tally.report(before, 0, time.monotonic() - started)
        folder.begin(restart=choice.restart)
        scored = _score_all(choice, corpus, folder, tally, generations.lock)
        tally.check_seen()
        write_corpus(choice.state, corpus.table, choice.state_options, OneProcess())
        facts = {"scored": wanted, "failed": tally.failed, "seconds": time.monotonic() - started}
        facts["failures"] = [vars(one) for one in tally.failures]
        name = generations.commit(EPOCH, tally.table, corpus.table, None, None, facts)
        folder.remove()
        return tally.report(generations.get(name), scored, time.monotonic() - started)
    finally:
        generations.close()


def _scored_before(
    generations: Generations, choice: Choice, wanted: Mapping[str, Any], folder: Folder
) -> Generation | None:
    """Return the generation that holds just these losses; None where they are still to be made.

    Raises:
        StateError: a run has trained there, or other losses were put there.
    """
    kept = generations.kept()
    trained = next((one for one in reversed(kept) if one.epoch > EPOCH), None)
    if trained is not None:
        raise StateError(
            f"Cannot score into {choice.state}: it holds the losses of a run, up to {trained.name}, and what is "
            "committed last is what a run goes on with. Name another --state, for a run that begins.",
            expected="a state without losses",
            found=trained.name,
        )
    if not kept or choice.restart or folder.is_begun:
        return None
    if kept[-1].facts.get("scored") != wanted:
        raise StateError(
            f"Cannot score into {choice.state}: it holds other losses, {kept[-1].name}. Name another --state, or give "
            "--restart to lay these over them.",
            found=kept[-1].name,
        )
    return kept[-1]


def _score_all(choice: Choice, corpus: Corpus, folder: Folder, tally: _Tally, confirm: Callable[[], None]) -> int:
    """Score what is not done; return how many samples that were.

    Args:
        choice, corpus, folder, tally: what is scored, and where it is kept and counted.
        confirm: raises where another process became the state's writer, which a bucket cannot keep it from.
    """
    table = corpus.table
    for kept in folder.finished(table):
        tally.take(kept)
    left = [shard for shard in range(len(table)) if shard not in tally.done and table.samples[shard]]
    engine = _engine(choice, corpus, left)
    work = Work(
        choice.model,
        choice.device,
        choice.decode,
        choice.fields,
        choice.batch_size,
        choice.on_error,
        engine.processes(len(left)) if engine.is_local else 1,
        choice.storage_options,
    )
    tally.tell()
    for _, done in run(work, _tasks(corpus, left), engine):
        confirm()
        folder.keep(done, table.digests[done.shard])
        tally.take(done)
        tally.tell()
        tally.check()
    return int(table.samples[left].sum())


def _engine(choice: Choice, corpus: Corpus, left: list[int]) -> Engine:
    """Return where shards are scored, with the number of local processes that pay."""
    engine = choice.engine
    if not engine.is_local:
        return engine
    if engine.jobs is None and choice.device is not None:
        return replace(engine, jobs=1)  # a second process would want its own copy of the model there
    return replace(engine, jobs=engine.processes(len(left), int(corpus.table.extent_bytes[left].sum())))


def _tasks(corpus: Corpus, shards: list[int]) -> Iterator[ShardTask]:
    """Give the tasks one by one: each carries the index of its shard, which is read when it is made."""
    table, wanted = corpus.table, set(shards)
    for shard, row in enumerate(table.rows()):
        if shard in wanted:
            yield ShardTask(
                shard, int(table.first_id[shard]), table.urls[shard], row, corpus.index(shard).to_bytes()
            )  # fmt: skip


class _Tally:
    """The losses so far, and what failed."""

    def __init__(self, corpus: Corpus, progress: Callable[[Progress], None]) -> None:
        self.table = LossTable(corpus.table.samples)
        self.done: set[int] = set()
        self.failed: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        self.failures: tuple[Failure, ...] = ()
        self._shards = corpus.table
        self._progress = progress
        self._samples = 0

    def take(self, done: ShardLosses) -> None:
        """Take in a shard."""
        self.done.add(done.shard)
        self.table.load(done.shard, done.losses, np.zeros(len(done.losses), np.uint8))
        self._samples += len(done.losses)
        for cause in CAUSES:
            self.failed[cause] += done.failed[cause]
        self.failures = (*self.failures, *done.failures)[:NAMED_FAILURES]

    def tell(self) -> None:
        """Tell how far it has come."""
        failed = sum(self.failed.values())
        shards = int(np.count_nonzero(self._shards.samples))
        self._progress(Progress(self._samples, self._shards.total, len(self.done), shards, failed))

    def check(self) -> None:
        """Give up where it is not single samples that fail.

        Raises:
            DecodeError, LossError: by what failed.
        """
        for cause, share in _FAILURES_SHARE.items():
            failed = self.failed[cause]
            if failed > max(_FAILURES_AT_LEAST, share * self._samples):
                last = next((one for one in self.failures if one.cause == cause), None)
                told = "" if last is None else f" For one, {last.key!r} in {last.url}: {last.message}."
                kind, what = (DecodeError, "decoder") if cause == "decode" else (LossError, "model")
                raise kind(
                    f"Gave up after {failed} of {self._samples} samples failed: the {what} or the corpus is broken."
                    f"{told} Mend it, and begin anew with --restart.",
                    shard=None if last is None else last.url,
                    key=None if last is None else last.key,
                    found=failed,
                )

    def check_seen(self) -> None:
        """Refuse to commit nothing.

        Raises:
            LossError: no sample has a loss.
        """
        if not np.isfinite(self.table.values).any():
            told = "".join(f" {one.key!r}: {one.message}." for one in self.failures[:1])
            raise LossError(
                f"No sample of the corpus has a loss: all {self._shards.total} failed.{told} Mend the model, or "
                "--decode, and begin anew with --restart.",
                found=self._shards.total,
            )

    def report(self, generation: Generation, scored: int, seconds: float) -> Report:
        """Return the figures of a generation that holds these losses."""
        losses = self.table.values[np.isfinite(self.table.values)]
        failed = {cause: int(generation.facts["failed"][cause]) for cause in CAUSES}
        return Report(
            generation=generation.name,
            shards=len(self._shards),
            samples=self._shards.total,
            scored=scored,
            seen=len(losses),
            failed=failed,
            failures=tuple(Failure(**one) for one in generation.facts["failures"]),
            minimum=float(losses.min()),
            mean=float(losses.mean(dtype=np.float64)),
            maximum=float(losses.max()),
            seconds=round(seconds, 3),
        )
