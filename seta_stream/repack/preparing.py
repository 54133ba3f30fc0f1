"""What is to be done: the corpus, the new shards, and what an earlier start of the same repack has finished.

Takes the choices of a user; gives a Prepared. Acts: lists folders, reads indexes, manifests and records; of indexes it
writes those that are missing, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import SUFFIX, read_header
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.listing import Urls, options_at
from seta_stream.corpus.places import beside, fits
from seta_stream.errors import ArgumentError, IndexFileError, ReadError, StateError
from seta_stream.jobs import LOCAL, Engine
from seta_stream.losses.table import LossTable
from seta_stream.repack.carrying import losses_of
from seta_stream.repack.plan import ORDERS, Chosen, Order, Pieces, base_name, cut, fingerprint, one_to_one, shard_names
from seta_stream.repack.record import FOLDER, MANIFEST_NAME, RECORD_SUFFIX, Record, refuse_other, unpack_manifest
from seta_stream.store import ObjectInfo, Options, is_local, join, local_path, normalise, store_for

_IN_FLIGHT: Final = 16


@dataclass(frozen=True)
class Choice:
    """What a user asks for; see `repack`.

    Raises:
        ArgumentError: an option is wrong, or two of them do not go together.
    """

    urls: Urls
    to: str
    order: Order
    state: str | None
    generation: str | None
    state_out: str | None
    shard_bytes: int | None
    shard_samples: int | None
    prefix: str | None
    jobs: int | None
    index: str | None
    storage_options: Options | None = field(repr=False)
    to_options: Options | None = field(repr=False)
    state_options: Options | None = field(repr=False)
    engine: Engine = LOCAL
    wanted: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for is_wrong, message in self._rules():
            if is_wrong:
                raise ArgumentError(f"Cannot repack: {message}")
        if self.jobs is not None:
            object.__setattr__(self, "engine", replace(self.engine, jobs=self.jobs))

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.order not in ORDERS, f"order={self.order!r} is none of {', '.join(ORDERS)}."
        yield (
            self.order == "loss" and self.state is None,
            "the order by loss needs --state (state=), the state folder of a run; or choose --order key or corpus.",
        )
        yield (
            self.state is None and (self.generation or self.state_out) is not None,
            "--generation and --state-out (generation=, state_out=) need --state (state=), where the losses are.",
        )
        yield (
            self.shard_bytes is not None and self.shard_samples is not None,
            "--shard-bytes and --shard-samples exclude each other: give one of them.",
        )
        for name in ("shard_bytes", "shard_samples", "jobs"):
            number = getattr(self, name)
            yield number is not None and number < 1, f"{name}={number!r} must be at least 1."
        yield (
            self.prefix is not None and not re.fullmatch(r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]*", self.prefix),
            f"prefix={self.prefix!r} is no beginning of a file's name: it may hold no slash, and not begin with a dot.",
        )
        yield (
            self.state is not None and self.state_out is not None and _place(self.state) == _place(self.state_out),
            f"--state-out is {self.state_out}, the state that the losses are taken from: name another folder.",
        )

    def options(self, url: str) -> Options | None:
        """Return the options of the file system that is written to, or that a state lies in.

        Where none are given, those of the corpus hold if the protocol is the same.
        """
        given = self.to_options if url == self.to else self.state_options
        return options_at(url, self.urls, self.storage_options, given)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is to be done.

    Args:
        choice: what the user asked for.
        corpus: that is repacked.
        news: what each new shard holds.
        names: of the new shards.
    """

    choice: Choice
    corpus: Corpus
    news: Sequence[Pieces]
    names: list[str]

    @property
    def shards(self) -> ShardTable:
        """The corpus's shards."""
        return self.corpus.table

    @property
    def to_options(self) -> Options | None:
        """Options of the file system that is written to."""
        return self.choice.options(self.choice.to)

    def url(self, number: int) -> str:
        """Return where a new shard goes."""
        return join(self.choice.to, self.names[number])

    def record_url(self, number: int) -> str:
        """Return where its record goes."""
        return join(self.choice.to, FOLDER, self.names[number] + RECORD_SUFFIX)

    @property
    def manifest_url(self) -> str:
        """Where the manifest lies."""
        return join(self.choice.to, FOLDER, MANIFEST_NAME)

    @property
    def wanted_bytes(self) -> int:
        """Sum of the extents of the samples that are written; where only some are wanted, by their shards' means."""
        if self.choice.wanted is None:
            return int(self.shards.extent_bytes.sum())
        counts = [np.count_nonzero(self.choice.wanted[begin:end]) for begin, end in pairwise(self.shards.first_id)]
        return int((self.shards.extent_bytes * (counts / np.maximum(self.shards.samples, 1))).sum())

    @property
    def settings(self) -> dict[str, Any]:
        """What a later start must agree with; nothing in it tells where the corpus lies."""
        rows = zip(self.shards.urls, self.shards.digests, self.shards.samples.tolist(), strict=True)
        return {
            "order": self.choice.order,
            "shard_bytes": self.choice.shard_bytes,
            "shard_samples": self.choice.shard_samples,
            "sources": [[base_name(url), digest.hex(), samples] for url, digest, samples in rows],
            "shards": self.names,
            "wanted": None if self.choice.wanted is None else _digest(self.choice.wanted),
        }

    def losses(self, table: LossTable | None, number: int) -> NDArray[np.float32] | None:
        """Return the losses that decide a new shard's order, where any do."""
        if table is None or self.choice.order != "loss":
            return None
        return losses_of(table, self.shards, self.news[number])

    def fingerprint(self, number: int, losses: NDArray[np.float32] | None) -> bytes:
        """Return what a new shard's record must say."""
        pieces = self.news[number]
        return fingerprint(self.choice.order, [self.shards.digests[piece.shard] for piece in pieces], pieces, losses)


def prepare(choice: Choice) -> Prepared:
    """Return what a choice comes to.

    Raises:
        ArgumentError: the new shards would go beside the old ones.
        CorpusError: the corpus cannot be opened.
    """
    corpus = open_corpus(choice.urls, index=choice.index, storage_options=choice.storage_options, jobs=choice.jobs)
    _refuse_same_folder(corpus.table.urls, choice.to)
    news, urls = _news(choice, corpus), corpus.table.urls
    # Cut shards are numbered even where they happen to be as many: what one holds is not what its namesake held.
    is_cut = choice.shard_samples is not None or choice.shard_bytes is not None
    if choice.wanted is None:
        return Prepared(choice, corpus, news, shard_names(urls, len(news), choice.prefix, is_cut=is_cut))
    chosen = Chosen(news, choice.wanted, corpus.table.first_id)
    left = urls if is_cut else [urls[place] for place in chosen.places]
    return Prepared(choice, corpus, chosen, shard_names(left, len(chosen), choice.prefix, is_cut=is_cut))


def _news(choice: Choice, corpus: Corpus) -> list[Pieces]:
    """Return what each new shard holds, or would if all samples were wanted: these alone count for its size."""
    first_id, wanted = corpus.table.first_id, choice.wanted
    parts = [slice(begin, end) for begin, end in pairwise(first_id.tolist())]
    if choice.shard_samples is not None:
        ones = (np.ones(part.stop - part.start, np.int64) if wanted is None else wanted[part] for part in parts)
        return cut(ones, choice.shard_samples)
    if choice.shard_bytes is not None:
        extents = zip(_extents(corpus), parts, strict=True)
        return cut((sizes if wanted is None else sizes * wanted[part] for sizes, part in extents), choice.shard_bytes)
    return one_to_one(corpus.table.samples.tolist())


def _digest(wanted: NDArray[np.bool_]) -> str:
    return hashlib.blake2b(np.packbits(wanted).tobytes(), digest_size=16).hexdigest()


def began(prepared: Prepared) -> dict[str, Any] | None:
    """Return the manifest of an earlier start in the same folder; None where there was none.

    Raises:
        ArgumentError: it is of another repack, or by another generation; or files of the new shards' names are there
            and no manifest.
        StateError: the manifest cannot be used.
    """
    choice = prepared.choice
    store = store_for(choice.to, prepared.to_options)
    if not store.exists(prepared.manifest_url):
        wanted = {name + ending for name in prepared.names for ending in ("", SUFFIX)}
        there = sorted(wanted.intersection(store.names(choice.to)))
        if there:
            raise ArgumentError(
                f"Cannot repack into {choice.to}: {len(there)} files of the names that are to be written are there, "
                f"and no repack wrote them (the first is {there[0]}). Name an empty folder, or move them away.",
                expected="a folder without these files",
                found=there[:5],
            )
        return None
    found = unpack_manifest(store.read(prepared.manifest_url), prepared.manifest_url)
    refuse_other(prepared.settings, found, choice.to)
    if choice.order == "loss" and choice.generation not in (None, found.get("generation")):
        refuse_other({"generation": choice.generation}, found, choice.to)
    return found


def finished(prepared: Prepared, table: LossTable | None) -> dict[int, Record]:
    """Return the records of the new shards that need not be written again, by number."""
    store = store_for(prepared.choice.to, prepared.to_options)
    infos = store.infos(prepared.choice.to)
    recorded = frozenset(store.names(join(prepared.choice.to, FOLDER)))
    numbers = [
        number for number, name in enumerate(prepared.names) if name in infos and name + RECORD_SUFFIX in recorded
    ]

    def look(number: int) -> Record | None:
        return _finished(prepared, number, table, infos[prepared.names[number]])

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        records = zip(numbers, pool.map(look, numbers), strict=True)
        return {number: record for number, record in records if record is not None}


def _finished(prepared: Prepared, number: int, table: LossTable | None, info: ObjectInfo) -> Record | None:
    """Return the record of a new shard if shard, index and record belong together and are what is wanted."""
    url = prepared.url(number)
    store = store_for(url, prepared.to_options)
    try:
        record = read_record(prepared, number)
        header = read_header(store.read(beside(url)), beside(url))
        if not fits(header, info):
            info = store.info(url)  # some file systems tell another time in a listing than of the object itself
    except (ReadError, StateError, IndexFileError):
        return None
    wanted = prepared.fingerprint(number, prepared.losses(table, number))
    same = record.fingerprint == wanted and record.digest == header.digest and fits(header, info)
    return record if same and (info.size, info.version) == (record.size, record.version) else None


def read_record(prepared: Prepared, number: int) -> Record:
    """Return the record of a new shard.

    Raises:
        ReadError: there is none.
        StateError: it is damaged.
    """
    url = prepared.record_url(number)
    return Record.from_bytes(store_for(url, prepared.to_options).read(url), url)


def _extents(corpus: Corpus) -> Iterator[NDArray[np.int64]]:
    for shard in range(len(corpus.table)):
        index = corpus.index(shard)
        yield index.extent_stop - index.extent_start


def _refuse_same_folder(urls: Sequence[str], to: str) -> None:
    for url in urls:
        if _place(url.rpartition("/")[0] or "/") == _place(to):
            raise ArgumentError(
                f"Cannot repack into {to}: the shards of the corpus lie there ({url}), and a pattern would find both. "
                "Name another folder.",
                shard=url,
                expected="another folder than the corpus's",
                found=to,
            )


def _place(url: str) -> str:
    """Return one spelling per folder, links followed where it is local."""
    return os.path.realpath(local_path(url)) if is_local(url) else normalise(url).rstrip("/")
