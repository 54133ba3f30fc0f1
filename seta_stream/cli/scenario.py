"""From the options of `seta-stream simulate` to what is simulated.

Takes options; gives a scenario, policies, and every assumption in words. Effects: reads the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from seta_stream.cli.numbers import told_count
from seta_stream.cli.pricing import price_of
from seta_stream.cli.recorded import Recorded, read_recorded
from seta_stream.errors import PolicyError
from seta_stream.options import runs_asked
from seta_stream.policies.names import policy_from
from seta_stream.policies.policy import Policy
from seta_stream.policies.runs import EACH, Runs, Unit
from seta_stream.read.fetch import PAGE_BYTES, PIECE_BYTES
from seta_stream.read.options import Reading
from seta_stream.read.shards import LARGE_BYTES
from seta_stream.read.spans import span_bytes_ahead
from seta_stream.report.losscurves import DEFAULT_CORRELATION, synthetic_curves
from seta_stream.report.prices import STORES, Price
from seta_stream.report.readcosts import CorpusShape, ReadModel
from seta_stream.report.simulation import Scenario, check_simulable

DEFAULT_POLICIES: Final = ("StaticRandom(prune_ratio=0.5)", "DynamicRandom(prune_ratio=0.5)", "InfoBatch")
DEFAULT_TARGET: Final = "SeTa(target=0.5)"
LEAST_TARGET_EPOCHS: Final = 3
"""Half of the visits cannot be saved in fewer: the first epoch reads everything."""

DEFAULT_SAMPLES: Final = 1_000_000
DEFAULT_EPOCHS: Final = 30
DEFAULT_BATCH: Final = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command was given; see its help."""

    state: str | None
    synthetic: str | None
    samples: int | None
    samples_per_shard: int | None
    sample_bytes: float | None
    epochs: int | None
    policy: tuple[str, ...]
    correlation: float | None
    simulated: int
    seed: int
    store: str
    price_per_gb: float | None
    price_per_1000_requests: float | None
    reading: str
    max_waste: float
    batch_size: int | None
    unit: Unit | None = None
    run_bytes: int | None = None
    repacked: bool = False
    options: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Task:
    """What to simulate, and what to say about it.

    Args:
        source: what is replayed, in words.
        scenario: what is replayed.
        policies: (label, policy) pairs.
        assumptions: one sentence or two each.
        recorded: what the state tells; None for a synthetic history.
        own: the label of the run's own policy, where it is among them.
    """

    source: str
    scenario: Scenario
    policies: tuple[tuple[str, Policy], ...]
    assumptions: tuple[str, ...]
    recorded: Recorded | None
    own: str | None


def task_of(options: Options) -> Task:
    """Return what to simulate.

    Raises:
        StateError, PolicyError, ArgumentError: the state, a policy or a price cannot be used; each says what to do.
    """
    price = price_of(STORES[options.store], options.price_per_gb, options.price_per_1000_requests)
    recorded = None
    sample_bytes = options.sample_bytes or 4096.0
    if options.state is not None:
        recorded = read_recorded(options.state, sample_bytes, options.options)
        corpus, curves, warm = recorded.corpus, recorded.curves, recorded.warm
        epochs = options.epochs or len(curves)
        source = f"{options.state}, {told_count(len(curves), 'recorded epoch')}"
    else:
        epochs = options.epochs or DEFAULT_EPOCHS
        curves, warm = synthetic_curves(options.synthetic or "", epochs), None
        per_shard = options.samples_per_shard or 10_000
        corpus = CorpusShape.synthetic(options.samples or DEFAULT_SAMPLES, per_shard, sample_bytes)
        source = f"a synthetic history, {options.synthetic} losses"
    correlation, told = _correlation(options, recorded)
    is_local = _is_local(options, recorded, price)
    policies, own, left_out = _policies(options, recorded, epochs)
    scenario = Scenario(
        corpus=corpus,
        curves=curves,
        epochs=epochs,
        correlation=correlation,
        model=_model(options, recorded, is_local=is_local),
        price=price,
        warm=warm,
        simulated=options.simulated,
        seed=options.seed,
        runs=_runs(options, recorded, corpus),
        repacked=options.repacked,
    )
    assumptions = (
        *_of_losses(scenario, recorded, policies),
        told,
        *_of_reading(scenario, is_local=is_local),
        *_of_runs(scenario),
        *left_out,
        f"Price: {price.source}; a GB is 2^30 bytes.",
    )
    return Task(source, scenario, policies, assumptions, recorded, own)


def _correlation(options: Options, recorded: Recorded | None) -> tuple[float, str]:
    """Return the rank correlation, and where it is from."""
    if options.correlation is not None:
        return (
            options.correlation,
            f"Rank correlation of a sample's losses between epochs: {options.correlation:g}, given.",
        )
    if recorded is not None and recorded.correlation is not None:
        value, count, (old, new) = recorded.correlation
        return value, (
            f"Rank correlation of a sample's losses between epochs: {value:.2f}, from {count:,} samples seen in "
            f"epoch {new} whose losses were known at the end of epoch {old}."
        )
    return DEFAULT_CORRELATION, (
        f"Rank correlation of a sample's losses between epochs: {DEFAULT_CORRELATION:g}, assumed (--correlation sets "
        "it)."
    )


def _is_local(options: Options, recorded: Recorded | None, price: Price) -> bool:
    """Say whether shards are read as local files: where they are some, and no store's price is asked for."""
    if options.reading != "auto":
        return options.reading == "local"
    return recorded is not None and recorded.is_local is not False and not price


def _model(options: Options, recorded: Recorded | None, *, is_local: bool) -> ReadModel:
    reading = Reading(max_waste=options.max_waste)
    batch = options.batch_size or (recorded.batch if recorded is not None else None) or DEFAULT_BATCH
    window = reading.prefetch_bytes // 2
    if not is_local:
        longest = span_bytes_ahead(reading.max_span_bytes, reading.prefetch_bytes)
        return ReadModel(reading.max_waste, longest, None, window, batch)
    members, share = (recorded.members, recorded.members_share) if recorded and recorded.is_local else (None, None)
    return ReadModel(
        max_waste=reading.max_waste,
        max_span_bytes=min(reading.max_span_bytes, PIECE_BYTES),
        max_gap_bytes=PAGE_BYTES if reading.max_waste < 1 else None,
        window_bytes=window,
        batch=batch,
        late_bytes=LARGE_BYTES,
        late_members=members or 2.0,
        late_share=share,
    )


def _runs(options: Options, recorded: Recorded | None, corpus: CorpusShape) -> Runs:
    """Return how samples are decided together: as asked, else as the run did."""
    own = EACH if recorded is None else recorded.runs
    if options.unit is None and options.run_bytes is None:
        return own
    unit = options.unit or own.unit
    run_bytes = own.run_bytes if options.run_bytes is None else options.run_bytes
    return runs_asked(unit, run_bytes, corpus.mean_bytes)


def _policies(
    options: Options, recorded: Recorded | None, epochs: int
) -> tuple[tuple[tuple[str, Policy], ...], str | None, list[str]]:
    """Return (label, policy) pairs, the label of the run's own, and what has to be said about them."""
    specs = options.policy
    if not specs:
        specs = (*DEFAULT_POLICIES, DEFAULT_TARGET) if epochs >= LEAST_TARGET_EPOCHS else DEFAULT_POLICIES
    found = [(spec, policy_from(spec, num_epochs=epochs)) for spec in specs]
    plain = recorded.policy if recorded is not None else None
    if plain is None or options.policy:
        return tuple(found), None, []
    try:
        own = policy_from(plain)
        check_simulable(own)
    except PolicyError as error:
        return tuple(found), None, [f"The run's own policy, {plain.get('name')}, is not simulated: {error.message}"]
    label = f"the run's own {plain.get('name')}"
    return ((label, own), *((spec, policy) for spec, policy in found if policy != own)), label, []


def _of_losses(scenario: Scenario, recorded: Recorded | None, policies: tuple[tuple[str, Policy], ...]) -> list[str]:
    """Tell what the losses are, and what is not known of them."""
    told = []
    if recorded is None:
        told.append(
            "Losses have one shape and fall to 0.3 of where they begin; half of that way in each fifth of the run."
        )
    else:
        told.append(
            "A sample's loss in an epoch is read off that epoch's recorded histogram, which holds the last losses of "
            "the samples that the run left out as well."
        )
        if recorded.is_of_scores:
            told.append(
                "The histograms are of the scores that the run's policy makes of losses, and are taken as losses."
            )
        if scenario.epochs > len(scenario.curves):
            last = recorded.curve_epochs[-1]
            told.append(
                f"Epochs {len(scenario.curves)} to {scenario.epochs - 1} have the losses of epoch {last}, the last "
                "recorded."
            )
    told.append(
        "Losses do not depend on what was trained on, nor on the place in the corpus. Only selected samples get a new "
        "one."
    )
    for label, policy in policies:
        asked = [column.source for column in getattr(policy, "columns", ()) if column.source != "loss"]
        if asked:
            told.append(f"{label}: no {', '.join(dict.fromkeys(asked))} is recorded, as in a run that passes none.")
    return told


def _of_reading(scenario: Scenario, *, is_local: bool) -> list[str]:
    """Tell how bytes and requests are counted."""
    model, corpus = scenario.model, scenario.corpus
    where = "local files" if is_local else "a bucket"
    is_late = model.late_bytes is not None and corpus.mean_bytes >= model.late_bytes
    how = (
        f"each member by itself, {model.late_members:.3g} per sample"
        if is_late
        else f"spans merged within max_waste={model.max_waste:g}, at most {model.max_span_bytes >> 10:,} KiB long"
    )
    told = [
        f"Read as from {where}: {how}; in shuffled batches of {model.batch}, whole samples of their shard's mean size"
        + ("." if is_local else "; a local cache would read the bucket only once.")
    ]
    if not corpus.seekable.all():
        told.append(f"{int((~corpus.seekable).sum()):,} compressed shards are read whole in every epoch.")
    return told


def _of_runs(scenario: Scenario) -> list[str]:
    """Tell what is decided together, and how samples lie."""
    runs, told = scenario.runs, []
    if runs.length > 1:
        how = "judged by their mean" if runs.unit == "run" else "each judged by itself, by one draw"
        told.append(f"Decided in runs of {runs.length:,} neighbouring samples, {how}.")
    if scenario.repacked:
        told.append(
            "Samples lie in their shards in the order of the losses before epoch 0, as seta-stream repack puts them, "
            f"which have the same correlation with later ones; {scenario.sketch().total:,} samples are simulated."
        )
    return told
