"""The selection of an epoch as a list of shards with masks: its two spellings. Pure.

Takes shards with masks and weights; gives text, and back, trusting nothing. docs/formats/selection.md tells both byte
by byte, and a test holds their golden bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import CorpusError
from seta_stream.foreign import read_json

VERSION: Final = 1
_KIND: Final = "wids-shard-index-v1"
_TITLE: Final = "# seta_stream selection"
_MASK: Final = "#mask"
_MOST: Final = 1 << 32


@dataclass(frozen=True, eq=False)
class ListedShard:
    """One shard of a selection.

    Args:
        url: of the shard.
        mask: bool [samples], in shard order.
        weights: float32 [selected]: loss weights of the selected samples; None where all are 1.
    """

    url: str
    mask: NDArray[np.bool_]
    weights: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Listed:
    """A selection.

    Args:
        shards: in corpus order.
        facts: plain values: epoch, generation, seed, and what else was told.
    """

    shards: tuple[ListedShard, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def as_json(facts: Mapping[str, Any], shards: Iterable[ListedShard]) -> Iterator[str]:
    """Give the JSON spelling in parts: a wids shard index, which lists shards and their samples, with masks added."""
    yield json.dumps({"__kind__": _KIND, "wids_version": 1, "name": "seta_stream selection"})[:-1]
    yield f', "seta_stream": {json.dumps({"version": VERSION, **facts})}, "shardlist": ['
    for number, shard in enumerate(shards):
        told = {"url": shard.url, "nsamples": len(shard.mask), **_plain(shard)}
        yield ("" if number == 0 else ",") + "\n" + json.dumps(told)
    yield "\n]}\n"


def as_text(facts: Mapping[str, Any], shards: Iterable[ListedShard]) -> Iterator[str]:
    """Give the text spelling in parts: a list of URLs, one a line, each with its mask in a comment behind it."""
    yield f"{_TITLE} {VERSION}\n# {json.dumps(dict(facts))}\n"
    for shard in shards:
        if shard.url.splitlines() != [shard.url] or shard.url.strip() != shard.url or shard.url.startswith("#"):
            raise CorpusError(
                f"Cannot list {shard.url!r} in a text file, whose lines are URLs: write a .json file.", shard=shard.url
            )
        told = _plain(shard)
        words = [_MASK, str(len(shard.mask)), str(told["selected"]), told["mask"] or "-", told.get("weights", "")]
        yield f"{shard.url}\n{' '.join(words).rstrip()}\n"


def read_selection(data: bytes, source: str = "a selection") -> Listed:
    """Return the selection that a file holds, in either spelling.

    Args:
        data: the whole file.
        source: its name, for messages.

    Raises:
        CorpusError: it is none, of a future version, or its content cannot be.
    """
    try:
        text = data.decode("utf-8")
        return _from_text(text, source) if text.startswith("#") else _from_json(text, source)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise _broken(source, f"it is malformed ({error})") from error


def _plain(shard: ListedShard) -> dict[str, Any]:
    told: dict[str, Any] = {
        "selected": int(shard.mask.sum()),
        "mask": base64.b64encode(np.packbits(shard.mask).tobytes()).decode(),
    }
    if shard.weights is not None:
        told["weights"] = base64.b64encode(shard.weights.astype("<f4").tobytes()).decode()
    return told


def _from_json(text: str, source: str) -> Listed:
    told = read_json(text)
    if not isinstance(told, dict) or told.get("__kind__") != _KIND or "seta_stream" not in told:
        raise _broken(source, "it is no shard index with masks")
    facts = dict(told["seta_stream"])
    _check_version(facts.pop("version", None), source)
    shards = told["shardlist"]
    return Listed(
        tuple(
            _shard(one["url"], one["nsamples"], one["selected"], one["mask"], one.get("weights", ""), source)
            for one in shards
        ),
        facts,
    )


def _from_text(text: str, source: str) -> Listed:
    title, facts, *lines = text.split("\n")
    if not title.startswith(_TITLE) or not facts.startswith("# "):
        raise _broken(source, "it does not begin as one")
    _check_version(int(title.removeprefix(_TITLE)), source)
    if len(lines) % 2 != 1 or lines.pop():
        raise _broken(source, "it is cut short")
    shards = []
    for url, line in zip(lines[::2], lines[1::2], strict=True):
        mark, samples, selected, mask, *weights = line.split(" ")
        if mark != _MASK or len(weights) > 1:
            raise _broken(source, f"no mask follows {url}")
        bits = "" if mask == "-" else mask
        shards.append(_shard(url, int(samples), int(selected), bits, "".join(weights), source))
    return Listed(tuple(shards), dict(read_json(facts[2:])))


def _check_version(version: object, source: str) -> None:
    if version != VERSION:
        raise _broken(source, f"it is of version {version}, and this release reads version {VERSION}")


def _shard(url: str, samples: int, selected: int, mask: str, weights: str, source: str) -> ListedShard:
    raw = base64.b64decode(mask, validate=True)
    if type(samples) is not int or type(url) is not str or not 0 <= samples < _MOST or len(raw) != -(-samples // 8):
        raise _broken(source, f"the mask of {url!r} has {len(raw)} bytes, for {samples!r} samples")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=samples).astype(np.bool_)
    told = np.frombuffer(base64.b64decode(weights, validate=True), "<f4").astype(np.float32) if weights else None
    if int(bits.sum()) != selected or (told is not None and len(told) != selected):
        raise _broken(source, f"of {url!r}, {selected!r} samples should be selected and {int(bits.sum())} are")
    return ListedShard(url, bits, told)


def _broken(source: str, why: str) -> CorpusError:
    return CorpusError(
        f"Cannot read the selection {source}: {why}. Write it again with `seta-stream export`.", shard=source, found=why
    )
