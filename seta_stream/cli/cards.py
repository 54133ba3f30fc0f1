"""The hardest and easiest samples of a state, with their pictures and texts, for a report.

Takes losses and the shard table; gives cards. Effects: reads the indexes of the shards that hold them, and their bytes
by range. What cannot be read is told on its card: a report is made all the same.
"""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.errors import DecodeError, MissingExtraError, SetaStreamError, ShardChangedError
from seta_stream.losses.table import LossTable
from seta_stream.read.decode import IMAGE_FIELDS
from seta_stream.read.images import image_formats, pillow
from seta_stream.read.opening import Opener
from seta_stream.report.html_values import SampleCard
from seta_stream.store import Options, ShardFile, shown

SIDE: Final = 160
"""Pixels of a small picture's longer side."""
MOST_PIXELS: Final = 64_000_000
MOST_IMAGE_BYTES: Final = 32 << 20
MOST_FIELDS: Final = 6
TEXT_BYTES: Final = 1024
TEXT_CHARACTERS: Final = 240

_KINDS: Final = {"JPEG": "jpeg", "PNG": "png"}


@dataclass(frozen=True)
class Place:
    """Where samples are read from.

    Args:
        shards: the corpus; None where the state does not name it.
        corpus: the same with its indexes, where it was opened whole.
        index: folder of indexes.
        state: URL.
        options: of the shards' file system.
        state_options: of the state's.
    """

    shards: ShardTable | None
    corpus: Corpus | None
    index: str | None
    state: str
    options: Options | None = field(repr=False)
    state_options: Options | None = field(repr=False)


def extreme(table: LossTable, most: int) -> tuple[list[int], list[int]]:
    """Return the ids of the hardest and of the easiest samples, the most extreme first; no sample is in both."""
    seen = np.flatnonzero(np.isfinite(table.values))
    losses = table.values[seen]
    most = min(most, (len(seen) + 1) // 2)
    if not most:
        return [], []
    # Of equal losses the lowest id comes first, so that a report is the same whoever makes it.
    hard = np.flatnonzero(losses >= np.partition(losses, len(losses) - most)[len(losses) - most])
    hardest = seen[hard[np.argsort(-losses[hard], kind="stable")][:most]]
    easy = np.flatnonzero(losses <= np.partition(losses, most - 1)[most - 1])
    easiest = seen[easy[np.argsort(losses[easy], kind="stable")]]
    return hardest.tolist(), [number for number in easiest.tolist() if number not in set(hardest.tolist())][:most]


def cards_of(ids: Sequence[int], table: LossTable, place: Place) -> list[SampleCard]:
    """Return a card per id, in the same order."""
    bare = {number: SampleCard(number, float(table.values[number]), int(table.all_ages[number])) for number in ids}
    if place.shards is None:
        told = "The state does not name its shards, so the sample cannot be read."
        return [replace(bare[number], lacking=told) for number in ids]
    shards, positions = place.shards.locate(np.array(ids, np.int64))
    by_shard: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, shard, position in zip(ids, shards.tolist(), positions.tolist(), strict=True):
        by_shard[shard].append((position, number))
    filled: dict[int, SampleCard] = {}
    for shard, wanted in by_shard.items():
        filled.update(_shard_cards(place, place.shards, shard, sorted(wanted), bare))
    return [filled[number] for number in ids]


def _shard_cards(
    place: Place, shards: ShardTable, shard: int, wanted: list[tuple[int, int]], bare: dict[int, SampleCard]
) -> Iterator[tuple[int, SampleCard]]:
    """Yield the cards of one shard's samples; where it cannot be read, cards that say so."""
    name = shown(shards.urls[shard])
    waiting = {number: replace(bare[number], shard=name) for _, number in wanted}
    try:
        index = _index(place, shards, shard)
        waiting = {number: replace(waiting[number], key=index.keys[position]) for position, number in wanted}
        until = int(index.extent_stop[wanted[-1][0]])
        file = Opener(place.options, None, None).open(shards.urls[shard], index, shard, until)
        try:
            for position, number in wanted:
                yield number, _read(waiting.pop(number), file, index, position)
        finally:
            file.close()
    except SetaStreamError as error:
        for number, card in waiting.items():
            yield number, replace(card, lacking=error.message)


def _index(place: Place, shards: ShardTable, shard: int) -> ShardIndex:
    """Return the index of one shard, which must be the one that the losses are of."""
    if place.corpus is not None:
        return place.corpus.index(shard)
    url = shards.urls[shard]
    alone = open_corpus(
        [url], index=place.index, state=place.state, storage_options=place.options,
        state_options=place.state_options, progress=False,
    )  # fmt: skip
    held = alone.index(0)
    if held.digest != shards.digests[shard]:
        raise ShardChangedError(
            f"{shown(url)} holds other samples than when its losses were recorded: it was replaced meanwhile. Restore "
            "it, or name the corpus of the losses by --urls.",
            shard=shown(url),
            expected=shards.digests[shard].hex(),
            found=held.digest.hex(),
        )
    return held


def _read(card: SampleCard, file: ShardFile, index: ShardIndex, position: int) -> SampleCard:
    """Return a card with what the sample holds: its first picture, and its texts."""
    members = range(int(index.first_member[position]), int(index.first_member[position + 1]))
    texts: list[tuple[str, str]] = []
    lacking = None
    for member in members:
        name, size = index.fields[index.member_field[member]], int(index.member_size[member])
        offset = int(index.member_offset[member])
        if name.rpartition(".")[2] in IMAGE_FIELDS and card.image is None:
            try:
                data = file.read(offset, _allowed(name, size))
                image, kind, shape = small(data)
                card = replace(card, image=image, image_kind=kind, image_size=shape)
            except (DecodeError, MissingExtraError) as error:
                lacking = error.message
        elif len(texts) < MOST_FIELDS:
            texts.append((name, words(file.read(offset, min(size, TEXT_BYTES)), size)))
    return replace(card, texts=tuple(texts), lacking=lacking)


def _allowed(name: str, size: int) -> int:
    if size > MOST_IMAGE_BYTES:
        raise DecodeError(f"The picture in field {name!r} has {size:,} bytes, too many for a report.")
    return size


def words(data: bytes, size: int) -> str:
    """Return the beginning of a field as text; of what is none, how many bytes it has.

    Args:
        data: its first bytes.
        size: how many it has altogether.
    """
    for lost in range(4 if size > len(data) else 1):  # the last character may be cut
        try:
            told = data[: len(data) - lost].decode("utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" in told:
            break
        cut = told[:TEXT_CHARACTERS]
        return f"{cut.rstrip()}…" if size > len(cut.encode()) else cut
    return f"{size:,} bytes"


def small(data: bytes) -> tuple[bytes, str, tuple[int, int]]:
    """Return a picture made small, as a file: (bytes, "jpeg" or "png", (width, height)).

    Raises:
        DecodeError: it is none that Pillow reads, or has too many pixels.
        MissingExtraError: Pillow is not installed.
    """
    module = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of many pixels, which are counted here
            with module.open(io.BytesIO(data), formats=image_formats()) as opened:
                _check_pixels(opened.width, opened.height)
                opened.draft("RGB", (2 * SIDE, 2 * SIDE))
                image = opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB")
        image.thumbnail((SIDE, SIDE))
        kind = "PNG" if image.mode == "RGBA" or len(data) <= 2048 else "JPEG"
        file = io.BytesIO()
        image.save(file, kind, **({"quality": 80} if kind == "JPEG" else {}))
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"The picture cannot be shown: {type(error).__name__}: {error}.") from error
    return file.getvalue(), _KINDS[kind], image.size


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DecodeError(f"The picture has {width} × {height} pixels, too many for a report.")
