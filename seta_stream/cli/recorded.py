"""A recorded run, as `seta-stream simulate` needs it.

Takes the URL of a state; gives its losses per epoch, the shape of its corpus, and what it really read. Only reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from seta_stream.cli.states import shards_of
from seta_stream.errors import SetaStreamWarning, StateError
from seta_stream.losses.columns import LOSS
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.table import LossTable
from seta_stream.policies.runs import EACH, Runs
from seta_stream.report.losscurves import LossCurve, rank_correlation, recorded_curve
from seta_stream.report.readcosts import CorpusShape
from seta_stream.report.summary import epoch_shares, lineage_lines
from seta_stream.store import Options, is_local, join

CORRELATED_SAMPLES: Final = 2_000_000
"""Samples whose losses are loaded to tell the correlation; a part of the shards where there are more."""


@dataclass(frozen=True)
class Recorded:
    """What a state tells.

    Args:
        corpus: its shards.
        is_local: whether they are files; None where the state does not say.
        curves: the losses of each epoch, from epoch 0 to the last.
        curve_epochs: the epoch that each of them was recorded in.
        warm: losses from before epoch 0.
        correlation: (rank correlation, samples that tell it, epochs) of the newest two generations.
        is_of_scores: whether its histograms are of another number than the loss.
        policy: name and settings of the run's own.
        batch: samples per step.
        members: per sample, where each was read by itself.
        members_share: share of a sample's extent that its members hold, likewise.
        visits: what each epoch really read: epoch, share, bytes, requests (None where it is not told).
        runs: how samples were decided together, at last.
    """

    corpus: CorpusShape
    is_local: bool | None
    curves: tuple[LossCurve, ...]
    curve_epochs: tuple[int, ...]
    warm: LossCurve | None
    correlation: tuple[float, int, tuple[int, int]] | None
    is_of_scores: bool
    policy: Mapping[str, Any] | None
    batch: int | None
    members: float | None
    members_share: float | None
    visits: tuple[Mapping[str, Any], ...]
    runs: Runs


def read_recorded(state: str, sample_bytes: float, options: Options | None = None) -> Recorded:
    """Return what a state tells of its newest run.

    Args:
        state: a local folder or any fsspec URL.
        sample_bytes: mean size of a sample, where the state tells neither shards nor bytes.
        options: of the state's file system.

    Raises:
        StateError: there is no history, or it holds no losses.
    """
    generations = Generations(state, options)
    lines = lineage_lines(_checked(generations.history(), state))
    found = [(line, recorded_curve(line)) for line in lines]
    curves = {line["epoch"]: curve for line, curve in found if curve is not None}
    if not curves:
        raise StateError(
            f"There is no history to replay in {state}: no epoch with recorded losses stands in its history.jsonl. "
            "Give the folder that was passed as state=, or simulate a run that never was: --synthetic exponential."
        )
    # An epoch without recorded losses went on with those before it.
    epochs = tuple(max((at for at in curves if at <= epoch), default=min(curves)) for epoch in range(max(curves) + 1))
    facts = [line.get("facts") or {} for line in lines]
    corpus, is_local_corpus = _shape(state, generations, lines, facts, sample_bytes, options)
    members, share = _members(facts)
    return Recorded(
        corpus=corpus,
        is_local=is_local_corpus,
        curves=tuple(curves[at] for at in epochs) or (curves[-1],),
        curve_epochs=epochs or (-1,),
        warm=curves.get(-1),
        correlation=_correlation(generations),
        is_of_scores=any(line.get("judged_by", LOSS) != LOSS for line in lines),
        policy=next((one["policy"] for one in reversed(facts) if isinstance(one.get("policy"), dict)), None),
        batch=_batch(facts),
        members=members,
        members_share=share,
        visits=_visits(lines),
        runs=_runs(facts),
    )


def _checked(history: Sequence[Mapping[str, Any]], state: str) -> list[Mapping[str, Any]]:
    """Return the lines, if they are those of a history.

    Raises:
        StateError: naming the first that is not.
    """
    for number, line in enumerate(history, 1):
        if not isinstance(line.get("epoch"), int) or not isinstance(line.get("generation"), str):
            raise StateError(
                f"Cannot replay {join(state, 'history.jsonl')}: its line {number} tells no epoch and generation. "
                "Restore the file, or give the folder that was passed as state=.",
                found=number,
            )
    return list(history)


def _shape(
    state: str,
    generations: Generations,
    lines: Sequence[Mapping[str, Any]],
    facts: Sequence[Mapping[str, Any]],
    sample_bytes: float,
    options: Options | None,
) -> tuple[CorpusShape, bool | None]:
    """Return the corpus as it was last opened, or else as the newest generation or the last line knows it."""
    table = shards_of(state, options)
    if table is not None:
        shape = CorpusShape(table.samples, table.extent_bytes, table.sizes, table.seekable)
        return shape, all(is_local(one) for one in table.urls)
    kept = generations.kept()
    counts = [one.samples for one in kept[-1].sidecars] if kept else [int(lines[-1].get("samples") or 0)]
    total = next((one["bytes_total"] for one in reversed(facts) if one.get("bytes_total")), None)
    return CorpusShape.even(counts, sample_bytes if total is None else total / max(sum(counts), 1)), None


def _correlation(generations: Generations) -> tuple[float, int, tuple[int, int]] | None:
    """Return what the newest two generations of the lineage tell; None where there are not two, or too few samples."""
    kept = {one.name: one for one in generations.kept()}
    if not kept:
        return None
    newest = max(kept.values(), key=lambda one: (one.sequence, one.epoch, one.name))
    parent = kept.get(newest.parent or "")
    if parent is None:
        return None
    shards = _some_shards(newest)
    tables = []
    for generation in (parent, newest):
        table = LossTable(shards.samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SetaStreamWarning)  # damaged sidecars only leave fewer samples to tell
            generations.load(generation, table, shards)
        tables.append(table)
    told = rank_correlation(tables[0].values, tables[1].values, tables[1].all_ages)
    return None if told is None else (*told, (parent.epoch, newest.epoch))


@dataclass(frozen=True)
class _Some:
    samples: list[int]
    digests: tuple[bytes, ...]


def _some_shards(generation: Generation) -> _Some:
    """Return shards, evenly chosen, that hold about as many samples as are looked at."""
    entries = generation.sidecars
    total = sum(one.samples for one in entries)
    step = max(1, -(-total // CORRELATED_SAMPLES))
    chosen = entries[::step]
    return _Some([one.samples for one in chosen], tuple(one.digest for one in chosen))


def _batch(facts: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the samples per step, as the last epoch with whole steps counted them."""
    for one in reversed(facts):
        steps, selected, left = one.get("steps"), one.get("selected"), one.get("left_out")
        if steps and selected and isinstance(left, int):
            return max(1, int((selected - left) // steps))
    return None


def _runs(facts: Sequence[Mapping[str, Any]]) -> Runs:
    told = next((one.get("runs") for one in reversed(facts) if one.get("steps")), None)
    return Runs.from_plain(told) if isinstance(told, dict) else EACH


def _members(facts: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Return requests per sample, and bytes fetched by bytes needed, over all epochs."""
    sums = {
        name: sum(one.get(name) or 0 for one in facts)
        for name in ("samples", "requests", "bytes_fetched", "bytes_needed")
    }
    if not sums["samples"] or not sums["bytes_needed"]:
        return None, None
    return sums["requests"] / sums["samples"], sums["bytes_fetched"] / sums["bytes_needed"]


def _visits(lines: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    shares = epoch_shares(lines)
    return tuple(
        {
            "epoch": line["epoch"],
            "share": share,
            "bytes": (line.get("facts") or {}).get("bytes_fetched"),
            "requests": (line.get("facts") or {}).get("requests"),
        }
        for line, share in zip(lines, shares, strict=True)
        if line["epoch"] >= 0
    )
