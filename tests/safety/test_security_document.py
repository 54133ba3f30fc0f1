"""docs/security.md says what the code does: its limits are the constants, and its promises are kept."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from small_corpora import MakeCorpus

from seta_stream import SeTa, SetaStream
from seta_stream.checkpoint import _MOST_LANES, _MOST_WRITERS
from seta_stream.cli import cards
from seta_stream.corpus import index, interop_claims, layout, places
from seta_stream.corpus.braces import MOST_SHARDS
from seta_stream.corpus.grouping import _MOST_FIELDS
from seta_stream.corpus.header import EXTENSION_LIMIT, EXTENSIONS_AT_ONCE
from seta_stream.foreign import HEADER_BYTES
from seta_stream.read import decode
from seta_stream.read.cache import BLOCK_BYTES, MOST_BLOCKS
from seta_stream.read.images import _FORMATS
from seta_stream.store.fetching import MOST_WHOLE_BYTES
from seta_stream.visible import LONGEST

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
MIB, GIB = 1 << 20, 1 << 30
PILLOWS = GIB // 4 // 3
"""Pillow's own MAX_IMAGE_PIXELS: what RGBX of a quarter GiB has; twice as many are an error."""

LIMITS = {
    "extension header of a tar": f"{EXTENSION_LIMIT // MIB} MiB, {EXTENSIONS_AT_ONCE} before one member",
    "what a compressed shard holds": f"{layout.UNPACKED_FREE // GIB} GiB, or {layout.UNPACKED_PER_BYTE} times its "
    f"size; {layout.MOST_UNPACKED_MEMBERS:,} members",
    "members that an index tells of": f"{index.MEMBERS_FREE:,}, and {index.MEMBERS_PER_BYTE} for each byte of it",
    "fields of one shard": f"{_MOST_FIELDS:,}",
    "an index file": f"{places.LARGEST_BYTES // GIB} GiB; another tool's {interop_claims._LARGEST_FILE // MIB} MiB "
    "and 4 times its shard",
    "header of a file of ours": f"{HEADER_BYTES // MIB} MiB",
    "an object that is read whole from a web server": f"{MOST_WHOLE_BYTES // GIB} GiB",
    "shards of a pattern or list": f"{MOST_SHARDS:,}",
    "a gzip or npz field": f"{decode.UNPACKED_FREE // MIB} MiB, or {decode.UNPACKED_PER_BYTE} times its size",
    "pixels of a picture": f"{2 * PILLOWS:,}",
    "picture in a report": f"{cards.MOST_PIXELS:,} pixels, {cards.MOST_IMAGE_BYTES // MIB} MiB",
    "shards in a cache, together": f"{MOST_BLOCKS * BLOCK_BYTES >> 50} PiB",
    "lanes, and processes of a checkpoint": f"{_MOST_LANES:,}, and {_MOST_WRITERS:,}",
    "text of an error or warning": f"{LONGEST:,} characters",
}


def rows() -> dict[str, str]:
    """Return the table of limits: what → how much."""
    table = PAGE.partition("## Limits")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip() for row in cells[2:]}


def test_the_table_of_limits_is_the_code() -> None:
    """Every number in it is a constant's, but for those of the libraries'."""
    told = rows()
    assert {what: told.get(what) for what in LIMITS} == LIMITS
    assert set(told) - set(LIMITS) == {"JSON and msgpack"}
    with (Path(import_module("PIL.Image").__file__ or "")).open() as file:
        assert "MAX_IMAGE_PIXELS: int | None = int(1024 * 1024 * 1024 // 4 // 3)" in file.read()


def test_the_formats_of_pictures_are_counted() -> None:
    """Ten formats, and PostScript is none of them."""
    assert len(_FORMATS) == 10
    assert "ten formats of pictures" in PAGE
    assert "EPS" not in _FORMATS


def test_a_checkpoint_is_plain(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Dicts, lists, numbers and texts: what torch.load(weights_only=True) and JSON read."""
    policy = SeTa(num_epochs=4, prune_ratio=0.1, num_group=2, window_scale=1.0)
    with SetaStream(make_corpus(1, 12), policy=policy, batch_size=2, state=str(tmp_path / "state")) as stream:
        for batch in stream.batches(2):
            stream.record(batch["__index__"], [1.0, 2.0])
        told = stream.state_dict()
    kinds = {type(one) for one in _leaves(told)}
    assert kinds <= {int, float, str, bool, type(None)}
    assert json.loads(json.dumps(told)) == told


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in (key, *_leaves(one))]
    return [leaf for one in value for leaf in _leaves(one)] if type(value) in (list, tuple) else [value]


SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"


def test_credentials_are_written_nowhere(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A run with options for a file system leaves them in no file and no repr."""
    options = {"key": "AKIA" + "A" * 16, "secret": SECRET}
    stream = SetaStream(
        make_corpus(1, 8), batch_size=2, state=str(tmp_path / "state"), storage_options=options, state_options=options
    )
    with stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in stream.batches(2):
                stream.record(batch["__index__"], [1.0, 2.0])
        told = json.dumps(stream.state_dict()) + repr(stream) + repr(stream.stats)
    assert SECRET not in told
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "history.jsonl" for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "name",
    [
        "corpus.building.Task", "corpus.places.Place", "verifying.shards.ShardTask", "carry.opening.Source",
        "cli.cards.Place", "cli.reported.Choices", "repack.preparing.Choice",
    ],
)  # fmt: skip
def test_what_carries_options_does_not_show_them(name: str) -> None:
    """Fields for options are left out of the repr of the value that holds them."""
    module, _, kind = name.rpartition(".")
    value = getattr(import_module(f"seta_stream.{module}"), kind)
    assert is_dataclass(value)
    carrying = [field for field in fields(value) if re.search("options", field.name)]
    assert carrying
    assert not [field.name for field in carrying if field.repr]


def test_the_page_of_the_site_has_it() -> None:
    """It can be found: the site's list of pages names it."""
    site = Path(__file__).parents[2] / "mkdocs.yml"
    assert not site.exists() or "security.md" in site.read_text()
