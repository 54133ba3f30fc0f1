"""A state folder: generations, sidecars, pending losses, history and shard table, each looked at for what is wrong.

Takes the state's URL and the corpus as it is; gives findings. Acts: reads every file of the state; writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from seta_stream.corpus.ids import ShardRow, ShardTable
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import GenerationError, IndexFileError, ReadError, SidecarError, StateError
from seta_stream.foreign import read_json
from seta_stream.losses.drafts import MANIFEST_NAME, in_groups
from seta_stream.losses.envelope import stored_crc
from seta_stream.losses.lock import holder, is_locked
from seta_stream.losses.manifest import Generation, SidecarEntry, is_generation_name, pair_by_digest, unpack_manifest
from seta_stream.losses.pending import parent_of, unpack_pending
from seta_stream.losses.sidecar import unpack
from seta_stream.store import Options, Store, is_local, join, local_path, store_for
from seta_stream.verifying.drift import ShardLosses, changed_shards, unlike_losses
from seta_stream.verifying.findings import Finding

_IN_FLIGHT: Final = 16
_LOOKS: Final = 3
"""How often a state is looked at whose newest generation a run removes meanwhile."""
_WRITING: Final = ".writing-"
HISTORY: Final = "history.jsonl"


@dataclass(frozen=True)
class Corpus:
    """The shards as they are now.

    Args:
        urls: in order.
        rows: what each is; None where it could not be scanned.
    """

    urls: tuple[str, ...]
    rows: tuple[ShardRow | None, ...]


@dataclass
class StateLook:
    """What was seen of a state.

    Args:
        url: of the state.
        findings: about it.
        generations: that are whole, in the order of their commits.
    """

    url: str
    findings: list[Finding] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)


def look_at_state(url: str, options: Options | None, corpus: Corpus) -> StateLook:
    """Return what is wrong with a state, which a run may write meanwhile: what that run did is no finding.

    Raises:
        StateError: there is no state at all.
        ReadError: the store cannot be asked.
    """
    store = store_for(url, options)
    if not store.names(url):
        raise StateError(
            f"Cannot verify the state {url}: nothing lies there. Give the folder that was passed as state=, or leave "
            "--state out to verify the shards alone.",
            expected="a state folder",
            found=0,
        )
    for _ in range(_LOOKS):
        seen = _look(store, url, corpus)
        if not seen.generations or is_there(store, url, seen.generations[-1].name):
            break  # or else a run removed it meanwhile, and a newer one is there
    return seen


def _look(store: Store, url: str, corpus: Corpus) -> StateLook:
    seen = StateLook(url)
    halves = _halves(store, url)
    found = list(_generations(store, seen))
    for generation in seen.generations:
        found += _sidecars(store, seen, generation, corpus, is_newest=generation is seen.generations[-1])
    found += _corpus_file(store, seen, corpus)
    found += _pending(store, seen, {name for name in halves if not is_there(store, url, name)})
    found += _history(store, seen)
    seen.findings += [one for one in found if _still_is(store, seen, one, halves)]
    return seen


def is_there(store: Store, url: str, name: str) -> bool:
    """Say whether a state has a generation, whole."""
    return store.exists(join(url, "losses", name, MANIFEST_NAME))


def _halves(store: Store, url: str) -> dict[str, list[str]]:
    """Return the files of each generation that has no manifest, by its name."""
    folder = join(url, "losses")
    bare = [name for name in store.names(folder) if is_generation_name(name) and not is_there(store, url, name)]
    return {name: store.names(join(folder, name)) for name in bare}


def _still_is(store: Store, seen: StateLook, finding: Finding, halves: Mapping[str, list[str]]) -> bool:
    """Say whether a finding is none of a run's that writes or removes a generation, or pending losses, meanwhile."""
    folder = join(seen.url, "losses")
    within = (finding.file or "").removeprefix(folder).lstrip("/").partition("/")[0]
    if finding.kind.startswith("pending-"):
        return store.exists(str(finding.file))
    if finding.kind == "generation-half":
        if within.startswith(_WRITING):
            return within in store.names(folder)
        if is_local(folder) and holder(local_path(seen.url)) is not None:
            return False  # whoever writes there removes it with the next commit, or is about to
        files = store.names(join(folder, within))
        # What is being removed has fewer files by now, and what is being written more.
        return halves.get(within) == files and within in store.names(folder) and not is_there(store, seen.url, within)
    return not is_generation_name(within) or is_there(store, seen.url, within)


def _generations(store: Store, seen: StateLook) -> Iterator[Finding]:
    folder = join(seen.url, "losses")
    for name in store.names(folder):
        place = join(folder, name)
        if name.startswith(_WRITING) and is_local(folder):
            if not is_locked(local_path(place)):
                yield Finding("generation-half", f"{name} was being written when its run was killed.", file=place)
        elif is_generation_name(name):
            if not store.exists(join(place, MANIFEST_NAME)):
                what = f"Generation {name} has no manifest: its run was killed while it wrote or removed it"
                yield Finding("generation-half", what + ("." if is_local(folder) else ", or writes now."), file=place)
                continue
            try:
                seen.generations.append(unpack_manifest(store.read(join(place, MANIFEST_NAME)), name=name))
            except (GenerationError, ReadError) as error:
                yield Finding("manifest-damaged", error.message, file=join(place, MANIFEST_NAME))
    seen.generations.sort(key=lambda one: (one.sequence, one.epoch, one.name))


def _sidecars(
    store: Store, seen: StateLook, generation: Generation, corpus: Corpus, *, is_newest: bool
) -> Iterator[Finding]:
    """Give findings about one generation's sidecars; of the newest, also how they go with the corpus."""
    digests = [b"" if row is None else row.digest for row in corpus.rows]
    shard_of = _shards_of(generation, digests, corpus.urls)
    figures: list[ShardLosses] = []
    unseen: list[str | None] = []
    known = 0
    for entry, told in _read_all(store, join(seen.url, "losses", generation.name), generation.sidecars):
        shard = shard_of.get(entry.file)
        if isinstance(told, Finding):
            yield Finding(told.kind, told.what, shard, file=told.file)
            continue
        known += told.seen
        figures.append(ShardLosses(shard or told.shard, told.seen, told.mean, told.deviation))
        if not told.seen and entry.samples:
            unseen.append(shard)
    if not known and figures:
        what = f"No sample of generation {generation.name} (epoch {generation.epoch}) has a loss."
        yield Finding("losses-unseen", what, file=join(seen.url, "losses", generation.name))
    elif is_newest and unseen:
        what = f"No sample of {len(unseen)} shards has a loss in generation {generation.name}."
        yield Finding("losses-unseen", what, unseen[0], count=len(unseen))
    if is_newest:
        yield from unlike_losses(figures)
        yield from _unmatched(generation, digests, corpus)


def _shards_of(generation: Generation, digests: Sequence[bytes], urls: Sequence[str]) -> dict[str, str]:
    """Return the shard that each sidecar belongs to, by the file's name."""
    pairs = zip(urls, pair_by_digest(digests, generation.sidecars), strict=True)
    return {entry.file: url for url, entry in pairs if entry is not None}


def _unmatched(generation: Generation, digests: Sequence[bytes], corpus: Corpus) -> Iterator[Finding]:
    paired = pair_by_digest(digests, generation.sidecars)
    scanned = zip(corpus.urls, corpus.rows, paired, strict=True)
    bare = [url for url, row, entry in scanned if row is not None and row.samples and entry is None]
    if bare:
        what = f"{len(bare)} shards have no losses in generation {generation.name}: none of its sidecars is of them."
        yield Finding("losses-missing", what, bare[0], count=len(bare))
    left = len(generation.sidecars) - sum(entry is not None for entry in paired)
    # Where a shard cannot be scanned, one of these may be its own.
    left -= sum(row is None for row in corpus.rows)
    if left > 0:
        what = f"{left} sidecars of generation {generation.name} belong to none of the shards named."
        yield Finding("losses-unused", what, count=left)


def _read_all(
    store: Store, folder: str, entries: Sequence[SidecarEntry]
) -> Iterator[tuple[SidecarEntry, ShardLosses | Finding]]:
    def read(entry: SidecarEntry) -> ShardLosses | Finding:
        return _sidecar(store, join(folder, entry.file), entry)

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for group in in_groups(entries, 4 * _IN_FLIGHT):
            yield from zip(group, pool.map(read, group), strict=True)


def _sidecar(store: Store, url: str, entry: SidecarEntry) -> ShardLosses | Finding:
    """Return the figures of a sidecar, or why it cannot be used."""
    try:
        data = store.read(url)
    except ReadError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Finding("sidecar-missing", "The manifest names a sidecar that is not there.", file=url)
        return Finding("sidecar-damaged", error.message, file=url)
    try:
        losses = unpack(data, entry.digest, name=url).losses
    except SidecarError as error:
        return Finding("sidecar-damaged", error.message, file=url)
    if stored_crc(data) != entry.crc or len(losses) != entry.samples:
        what = (
            f"The sidecar is whole, but not the one that the manifest names ({len(losses)} samples, checksum "
            f"{stored_crc(data):08x}; expected {entry.samples} and {entry.crc:08x})."
        )
        return Finding("sidecar-damaged", what, file=url)
    seen = losses[np.isfinite(losses)].astype(np.float64)
    if not len(seen):
        return ShardLosses(url, 0, 0.0, 0.0)
    return ShardLosses(url, len(seen), float(seen.mean()), float(seen.std()))


def _corpus_file(store: Store, seen: StateLook, corpus: Corpus) -> Iterator[Finding]:
    url = join(seen.url, CORPUS_FILE)
    if not store.exists(url):
        if seen.generations:
            what = "The state has no shard table, so its losses cannot be told by shard without the corpus."
            yield Finding("corpus-missing", what, file=url)
        return
    try:
        table = ShardTable.from_bytes(store.read(url), url)
    except (IndexFileError, ReadError) as error:
        yield Finding("corpus-damaged", error.message, file=url)
        return
    for one in changed_shards(table, corpus.urls, corpus.rows):
        yield Finding(one.kind, one.what, one.shard, file=url, count=one.count)


def _pending(store: Store, seen: StateLook, halves: Collection[str]) -> Iterator[Finding]:
    folder = join(seen.url, "pending")
    parents: dict[str, Any] = {}
    for name in store.names(folder):
        url = join(folder, name)
        try:
            data = store.read(url)
            unpack_pending(data, name=name)
        except (StateError, ReadError) as error:
            yield Finding("pending-damaged", error.message, file=url)
            continue
        parents[url] = parent_of(data)
    for url in orphans(store, seen.url, parents, halves):
        what = f"The losses were recorded on top of generation {parents[url]}, which is gone."
        yield Finding("pending-orphaned", what, file=url)


def orphans(store: Store, url: str, parents: Mapping[str, Any], halves: Collection[str] = ()) -> list[str]:
    """Return which pending losses lie on top of a generation that is gone; one whose manifest is damaged is not.

    Args:
        store: of the state.
        url: of the state.
        parents: what each file names as its parent, by URL; read before this is called, so that a generation which
            was committed before them is not missed.
        halves: names of generations that are as good as gone.
    """
    there = {None, *store.names(join(url, "losses"))} - {*halves}
    return [file for file, parent in parents.items() if parent not in there]


def _history(store: Store, seen: StateLook) -> Iterator[Finding]:
    url = join(seen.url, HISTORY)
    data = store.read(url) if store.exists(url) else b""
    lines, damaged, torn = history_lines(data)
    if torn:
        yield Finding("history-torn", f"The last {torn} bytes are a line that a crash tore off.", file=url)
    if damaged:
        what = f"{len(damaged)} lines are no JSON of an epoch; the first is line {damaged[0]}."
        yield Finding("history-damaged", what, file=url, count=len(damaged))
    told = {line["generation"] for line in lines}
    missing = [one.name for one in seen.generations if one.line and one.name not in told]
    if missing:
        what = f"{len(missing)} generations that are kept have no line; the first is {missing[0]}."
        yield Finding("history-gap", what, file=url, count=len(missing))


def history_lines(data: bytes) -> tuple[list[dict[str, Any]], list[int], int]:
    """Return what a history holds: its lines, the numbers of damaged ones from 1, and the bytes of a torn last one."""
    *whole, rest = data.split(b"\n")
    found, damaged = [], []
    for number, raw in enumerate(whole, 1):
        line = _line(raw)
        if line is None:
            damaged.append(number)
        else:
            found.append(line)
    return found, damaged, len(rest)


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        line = read_json(raw)
    except ValueError:
        return None
    is_line = (
        isinstance(line, Mapping) and isinstance(line.get("epoch"), int) and isinstance(line.get("generation"), str)
    )
    return dict(line) if is_line else None
