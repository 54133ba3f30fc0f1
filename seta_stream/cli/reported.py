"""A state, read for a report.

Takes the URL of a state and choices; gives a RunReport. Effects: reads the state, and of the corpus the samples shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.cli.cards import Place, cards_of, extreme
from seta_stream.cli.classes import classes_by
from seta_stream.cli.options import installed_version
from seta_stream.cli.states import Sidecars, grouping_of, newest_of, shards_of
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.labels import label_samples
from seta_stream.errors import IndexFileError, SetaStreamError, SetaStreamWarning, StateError
from seta_stream.losses.columns import LOSS
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.table import LossTable
from seta_stream.report.html_values import RunReport
from seta_stream.report.prices import STORES, Price
from seta_stream.report.runfigures import Costs, drawable, figures_of, usable_lines
from seta_stream.report.sources import SourceRow, by_source, source_names
from seta_stream.report.summary import summarise
from seta_stream.store import Options, protocol_of, shown

BY: Final = {
    "source": "folder and name of the shard",
    "shard": "shard",
    "folder": "folder of the key",
    "fields": "the fields that a sample has",
}
"""How samples are told apart without reading them, and that in words."""

_STORE_OF: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}


@dataclass(frozen=True)
class Choices:
    """What a report is to hold.

    Args:
        samples: how many of the hardest, and as many of the easiest.
        by: one of BY, or the name of a field that holds a class.
        urls: the corpus, where it is no longer where the state says.
        index: folder of its indexes.
        options: of the shards' file system; of the state's too, unless `state_options` are given.
        state_options: of the state's.
    """

    samples: int = 12
    by: str = "source"
    urls: tuple[str, ...] = ()
    index: str | None = None
    options: Options | None = field(default=None, repr=False)
    state_options: Options | None = field(default=None, repr=False)


CostsAt = Callable[[Price], Costs]
"""List price of the store that the shards lie in → prices and power."""


def read_report(state: str, choices: Choices, costs: CostsAt = Costs, made: datetime | None = None) -> RunReport:
    """Return a run, told whole.

    Args:
        state: a local folder or any fsspec URL.
        choices: what the report is to hold.
        costs: gives prices and power.
        made: the time to name; now by default.

    Raises:
        StateError: there are no losses.
        CorpusError: `urls` name no corpus.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SetaStreamWarning)
        report = _read(state, choices, costs, made or datetime.now(UTC), notes)
    told = [str(one.message) for one in caught if issubclass(one.category, SetaStreamWarning)]
    for one in caught:
        if not issubclass(one.category, SetaStreamWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return RunReport(**{**vars(report), "notes": (*told, *notes)})


def _read(state: str, choices: Choices, costs: CostsAt, made: datetime, notes: list[str]) -> RunReport:
    state_options = choices.options if choices.state_options is None else choices.state_options
    generations = Generations(state, state_options)
    newest = newest_of(generations, state)
    place = _place(state, choices, state_options, notes)
    shards = Sidecars(newest) if place.shards is None else place.shards
    table = LossTable(shards.samples)
    loaded = generations.load(newest, table, shards)
    lines = _lines(generations, newest, notes)
    hard, easy = extreme(table, choices.samples)
    cards = cards_of([*hard, *easy], table, place)
    given = costs(price_at(place.shards))
    return RunReport(
        state=shown(state),
        made=made.strftime("%Y-%m-%d %H:%M UTC"),
        version=installed_version(),
        summary=summarise(
            table, lines, generation=newest.name, epoch=newest.epoch, rule=newest.rule, group=grouping_of(newest),
            unmatched_shards=loaded.unseen_shards,
        ),
        run=figures_of(lines, given),
        lines=tuple(drawable(lines)),
        costs=given,
        sources=_sources(table, place, newest, choices.by, notes),
        sources_by=told_by(choices.by),
        hardest=tuple(cards[: len(hard)]),
        easiest=tuple(cards[len(hard) :]),
    )  # fmt: skip


def _place(state: str, choices: Choices, state_options: Options | None, notes: list[str]) -> Place:
    """Return where samples are read from."""
    if choices.urls:
        corpus = open_corpus(
            list(choices.urls), index=choices.index, state=state, storage_options=choices.options,
            state_options=state_options,
        )  # fmt: skip
        return Place(corpus.table, corpus, choices.index, state, choices.options, state_options)
    table = None
    try:
        table = shards_of(state, state_options)
    except IndexFileError as error:
        notes.append(error.message)
    options = choices.options
    if choices.state_options is None and table is not None and len(table):
        # What was given for the state says nothing to another file system.
        options = options if protocol_of(table.urls[0]) == protocol_of(state) else None
    return Place(table, None, choices.index, state, options, state_options)


def _lines(generations: Generations, newest: Generation, notes: list[str]) -> list[dict[str, Any]]:
    """Return the lines that lead to the newest generation; where the history lacks it, that of its manifest."""
    history = generations.history()
    lines = usable_lines(history, newest.name)
    if not lines:
        notes.append("history.jsonl does not tell of the newest generation: its epochs are not shown, but the last.")
        lines = usable_lines([dict(newest.line) | {"parent": None}])
    return lines


def price_at(shards: ShardTable | None) -> Price:
    """Return the list price of the store that shards lie in; none for files and other places."""
    protocol = protocol_of(shards.urls[0]) if shards is not None and len(shards) else "file"
    return STORES[_STORE_OF.get(protocol, "none")]


def _sources(table: LossTable, place: Place, newest: Generation, by: str, notes: list[str]) -> tuple[SourceRow, ...]:
    if place.shards is None:
        return ()
    rule = newest.rule if newest.line.get("judged_by", LOSS) == LOSS else None
    try:
        names, codes = _labels(place, place.shards, by)
    except SetaStreamError as error:
        notes.append(f"Samples could not be told apart by {told_by(by)}: {error.message}")
        return ()
    return by_source(names, codes, table.values, table.all_ages, rule)


def _labels(place: Place, shards: ShardTable, by: str) -> tuple[Sequence[str], NDArray[Any]]:
    """Return the sources' names, and that of each sample."""
    if by in {"source", "shard"}:
        urls = [shown(url) for url in shards.urls]
        of_shards = source_names(urls) if by == "source" else urls
        names = list(dict.fromkeys(of_shards))
        numbers = {name: at for at, name in enumerate(names)}
        return names, np.repeat([numbers[name] for name in of_shards], shards.samples)
    corpus = place.corpus or _opened(place, shards)
    return label_samples(corpus, by) if by in BY else classes_by(by, place, shards)


def told_by(by: str) -> str:
    """Return how samples are told apart, in words."""
    return BY.get(by, f"the content of their field {by}")


def _opened(place: Place, shards: ShardTable) -> Corpus:
    corpus = open_corpus(
        list(shards.urls), index=place.index, state=place.state, storage_options=place.options,
        state_options=place.state_options,
    )  # fmt: skip
    if corpus.table.digests != shards.digests:
        raise StateError("the corpus is no longer the one that the losses are of. Name that one by --urls.")
    return corpus
