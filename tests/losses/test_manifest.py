"""Manifests and lineages as values."""

from __future__ import annotations

import pytest
from state_fakes import RULE, digest

from seta_stream.errors import GenerationError
from seta_stream.losses.envelope import pack_file
from seta_stream.losses.manifest import (
    MANIFEST,
    Generation,
    SidecarEntry,
    is_generation_name,
    pack_manifest,
    pair_by_digest,
    surplus,
    unpack_manifest,
)

GENERATION = Generation(
    name="gen-000002-ab",
    epoch=2,
    parent="gen-000001-cd",
    rule=RULE,
    facts={"seconds": 0.1},
    sequence=7,
    root=0,
    line={"epoch": 2},
    sidecars=(SidecarEntry("000000.losses", digest(1), 5, 0xDEADBEEF),),
)


def test_a_manifest_comes_back_exactly():
    """Rule with its floats, digests, checksums."""
    assert unpack_manifest(pack_manifest(GENERATION), name="gen-000002-ab") == GENERATION


def test_golden_bytes_of_a_manifest():
    """The format does not change by accident."""
    bare = Generation("gen-000000-0a", 0, None, None, {}, 1, 0, {}, GENERATION.sidecars)
    assert pack_manifest(bare).hex() == (
        "534554414d414e49"  # SETAMANI
        "0100000077000000"  # version 1, zero, 119 bytes of header
        "89a46e616d65ad67656e2d3030303030302d3061a565706f636800a6706172656e74c0a472756c65c0a5666163747380"
        "a873657175656e636501a4726f6f7400a46c696e6580a8736964656361727391"
        "94ad3030303030302e6c6f73736573c41001010101010101010101010101010101"
        "05cedeadbeef"
        "0cf926b5"  # CRC32
    )


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"name": "gen-000009-ff"}, "it is that of gen-000009-ff. Restore the folder's own name"),
        ({"name": "gen-000002-ab"}, "its content is malformed .'rule'"),
        ({"name": "gen-000002-ab", "rule": {"edges": [0, 1], "keep": [1]}, "sidecars": []}, "has 3 steps"),
        ({"name": "gen-000002-ab", "rule": None, "sidecars": [[1]]}, "its content is malformed"),
        ({"name": "gen-000002-ab", "rule": None, "sidecars": [], "more": 1}, "unexpected keyword"),
    ],
)
def test_a_malformed_manifest_is_refused(header, told):
    """Whole by checksum, and still nothing that can be."""
    with pytest.raises(GenerationError, match=told):
        unpack_manifest(pack_file(MANIFEST, header), name="gen-000002-ab")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("gen-000007-1f2e", True),
        ("gen--00001-1f", True),
        ("gen-7-1f", False),
        (".writing-1f", False),
        ("gen-000007", False),
    ],
)
def test_generations_are_known_by_name(name, is_one):
    """Temporary and other folders are not."""
    assert is_generation_name(name) is is_one


def chain(*names):
    parents = [None, *names]
    return {name: Generation(name, at, parents[at], None, {}) for at, name in enumerate(names)}


@pytest.mark.parametrize(
    ("kept", "newest", "gone"),
    [
        (chain("a", "b", "c"), "c", []),
        (chain("a", "b", "c", "d", "e"), "e", ["b", "a"]),
        # x branches off b: its last three are x, b, a
        (chain("a", "b", "c", "d", "e") | {"x": Generation("x", 2, "b", None, {})}, "e", []),
        # x branches off c: a is in nobody's last three
        (chain("a", "b", "c", "d", "e") | {"x": Generation("x", 3, "c", None, {})}, "e", ["a"]),
        (chain("a", "b", "c", "d", "e") | {"y": Generation("y", 9, "gone", None, {})}, "e", ["b", "a"]),
    ],
)
def test_surplus_spares_what_other_lineages_need(kept, newest, gone):
    """Worked out by hand."""
    assert [one.name for one in surplus(kept[newest], kept)] == gone


def test_equal_shards_take_equal_sidecars_in_order():
    """And a shard too many gets none."""
    entries = [SidecarEntry(name, digest(number), 1, 0) for name, number in (("a", 1), ("b", 2), ("c", 1))]
    found = pair_by_digest([digest(1), digest(3), digest(1), digest(1), digest(2)], entries)
    assert [one and one.file for one in found] == ["a", None, "c", None, "b"]
