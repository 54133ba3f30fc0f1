"""Builds anew what `verify` found wrong and can be built, and removes what is left over. Shards are never touched.

Takes a Verified; gives a Repair. Acts: writes indexes; writes the state as its one writer.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from seta_stream.corpus.ids import ShardRow, ShardTable
from seta_stream.corpus.places import Place
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import IndexFileError, ReadError, SetaStreamError, SetaStreamWarning, StateError
from seta_stream.losses.drafts import clean_local
from seta_stream.losses.generations import Generations
from seta_stream.losses.loading import sidecar_name
from seta_stream.losses.pending import parent_of
from seta_stream.store import Store, is_local, join, local_path, store_for
from seta_stream.verifying.findings import Finding
from seta_stream.verifying.running import Verified
from seta_stream.verifying.shards import ShardTask
from seta_stream.verifying.states import HISTORY, StateLook, history_lines, is_there, orphans

_OF_CORPUS = ("corpus-missing", "corpus-damaged", "shard-touched", "samples-moved")
_OF_HISTORY = ("history-torn", "history-damaged", "history-gap")


@dataclass(frozen=True)
class Repair:
    """What was done.

    Args:
        done: a sentence each.
        failed: what could not be done, and why.
        left: the findings that nothing was done about.
    """

    done: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[Finding, ...]


def repair(verified: Verified) -> Repair:
    """Mend what can be mended; whatever fails, the rest goes on.

    Raises:
        StateLockedError: a run writes the state; nothing was done to it, and indexes were not begun.
    """
    done: list[str] = []
    failed: list[str] = []
    mended: set[Finding] = set()
    generations = _lock(verified)
    try:
        for findings, work in (*_of_state(verified, generations), *_of_indexes(verified)):
            try:
                done.append(work())
            except (SetaStreamError, OSError) as error:
                failed.append(error.message if isinstance(error, SetaStreamError) else str(error))
            else:
                mended.update(findings)
    finally:
        if generations is not None:
            generations.close()
    return Repair(tuple(done), tuple(failed), tuple(one for one in verified.findings if one not in mended))


Work = tuple[list[Finding], Callable[[], str]]
"""What is mended, and what does it and says so."""


def _lock(verified: Verified) -> Generations | None:
    if verified.state is None or not any(one.is_mendable for one in verified.state.findings):
        return None
    generations = Generations(verified.state.url, verified.request.of_state)
    generations.lock()
    return generations


def _of_indexes(verified: Verified) -> Iterator[Work]:
    """Give each index to write; one that cannot be used is replaced where it lies."""
    tasks = {task.url: task for task in verified.tasks}
    scanned = dict(zip(verified.corpus.urls, verified.corpus.rows, strict=True))
    for finding in verified.findings:
        if finding.kind.startswith("index-") and finding.shard is not None:
            task = tasks[finding.shard]
            place = next((one for one in (*task.places, task.target) if one.url == finding.file), task.target)
            if scanned[task.url] is not None:
                yield [finding], lambda task=task, place=place: _write_index(task, place)  # type: ignore[misc]


def _write_index(task: ShardTask, place: Place) -> str:
    index = scan_quietly(task.url, task.options).index
    try:
        store_for(place.url, place.options).write(place.url, index.to_bytes())
    except OSError as error:
        raise ReadError(
            f"Cannot write the index of {task.url} to {place.url}: {error}. Give --index a folder that can be written.",
            shard=task.url,
            expected="a folder that can be written",
            found=str(error),
        ) from error
    return f"wrote the index {place.url}"


def _of_state(verified: Verified, generations: Generations | None) -> Iterator[Work]:
    seen = verified.state
    if seen is None or generations is None:
        return
    store = store_for(seen.url, verified.request.of_state)
    half = [one for one in seen.findings if one.kind == "generation-half"]
    if half:
        yield half, lambda: _remove_half(store, seen, half)
    for finding in seen.findings:
        if finding.kind == "pending-orphaned":
            yield [finding], lambda url=str(finding.file): _remove_orphan(store, seen, url)  # type: ignore[misc]
    of_history = [one for one in seen.findings if one.kind in _OF_HISTORY]
    if of_history:
        yield of_history, lambda: _mend_history(store, seen, generations)
    of_corpus = [one for one in seen.findings if one.kind in _OF_CORPUS]
    rows = [row for row in verified.corpus.rows if row is not None]
    if of_corpus and len(rows) == len(verified.corpus.rows) and _is_whole(store, seen, verified):
        yield of_corpus, lambda: _write_table(store, seen, verified.corpus.urls, rows)


def _is_whole(store: Store, seen: StateLook, verified: Verified) -> bool:
    """Say whether the shards named are all of the state's, in its order.

    Where its table cannot be read, the newest generation tells: the sidecar of each shard has its number and digest.
    """
    url = join(seen.url, CORPUS_FILE)
    try:
        return ShardTable.from_bytes(store.read(url), url).urls == verified.corpus.urls
    except (ReadError, IndexFileError):
        if not seen.generations:
            return True
        told = [(one.file, one.digest) for one in seen.generations[-1].sidecars]
        rows = enumerate(verified.corpus.rows)
        return told == [(sidecar_name(shard), row.digest) for shard, row in rows if row is not None]


def _remove_half(store: Store, seen: StateLook, half: list[Finding]) -> str:
    """Remove generations that still have no manifest: since they were looked at, a run may have completed one."""
    folder = join(seen.url, "losses")
    names = [str(one.file).rpartition("/")[2] for one in half]
    if is_local(folder):
        clean_local(local_path(folder))
    else:
        for name in names:
            if not is_there(store, seen.url, name):
                store.remove(join(folder, name))
    gone = [name for name in names if name not in store.names(folder)]
    left = [name for name in names if name not in gone and not is_there(store, seen.url, name)]
    if left:
        raise StateError(
            f"Cannot remove {', '.join(left)} from {folder}: give the rights to write there, or remove it by hand.",
            found=left,
        )
    return f"removed {', '.join(sorted(join(folder, name) for name in gone)) or 'nothing: a run completed it since'}"


def _remove_orphan(store: Store, seen: StateLook, url: str) -> str:
    """Remove pending losses whose generation is still gone."""
    if not store.exists(url) or not orphans(store, seen.url, {url: parent_of(store.read(url))}):
        return f"left {url}, which a run has seen to since"
    store.remove(url)
    return f"removed {url}"


def _mend_history(store: Store, seen: StateLook, generations: Generations) -> str:
    """Write the lines that can be read, and those of kept generations that are missing, from their manifests."""
    url = join(seen.url, HISTORY)
    lines, damaged, torn = history_lines(store.read(url) if store.exists(url) else b"")
    told = {line["generation"] for line in lines}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)  # a manifest that cannot be read is found and told
        kept = generations.kept()
    missing = [one for one in kept if one.line and one.name not in told]
    mended = lines
    for one in reversed(missing):
        mended = _laid_in(mended, dict(one.line), {later.name for later in kept[kept.index(one) + 1 :]})
    data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in mended)
    store.write(url, data)
    return (
        f"wrote {url}: {len(lines)} lines stayed, {len(damaged) + bool(torn)} damaged or torn ones were cut, "
        f"{len(missing)} were taken from manifests"
    )


def _laid_in(lines: list[dict[str, Any]], line: dict[str, Any], later: Collection[str]) -> list[dict[str, Any]]:
    """Return the lines with one more, before those of later generations: the last line is taken for the newest's."""
    place = next((at for at, one in enumerate(lines) if one["generation"] in later), len(lines))
    return [*lines[:place], line, *lines[place:]]


def _write_table(store: Store, seen: StateLook, urls: tuple[str, ...], rows: list[ShardRow]) -> str:
    url = join(seen.url, CORPUS_FILE)
    store.write(url, ShardTable.of(urls, rows).to_bytes())
    return f"wrote the shard table {url}"
