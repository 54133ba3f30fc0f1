"""The pure parts of `verify`, and the keys of a whole corpus in bounded memory, against plain Python."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.tar import TarScanner
from seta_stream.verifying.contents import (
    FieldSet,
    difference,
    differing_fields,
    empty_samples,
    field_sets,
    key_hashes,
    repeated_keys,
)
from seta_stream.verifying.drift import ShardLosses, unlike_losses
from seta_stream.verifying.findings import Finding, counted, ordered
from seta_stream.verifying.hashes import KeyHashes

MEMBERS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.sets(st.sampled_from(["txt", "cls", "jpg"]), min_size=1), st.integers(0, 1500)
    ),
    min_size=1,
    max_size=12,
)


def index_of(samples) -> ShardIndex:
    """Index a tar of samples (key, fields, size); neighbours of one key are told apart by their number."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        before, times = None, 0
        for key, fields, size in samples:
            times = times + 1 if key == before else 0
            before = key
            for field in sorted(fields):
                info = tarfile.TarInfo(f"{key}{'x' * (times % 2)}.{field}")
                info.size = size
                tar.addfile(info, io.BytesIO(b"." * size))
    data = out.getvalue()
    scanner = TarScanner("t")
    scanner.feed(data)
    return ShardIndex.of(group(scanner.members(), "t"), shard_size=len(data), shard_version="v")


@given(MEMBERS, st.data())
def test_every_difference_is_found(samples, data):
    """An index agrees with itself and with its file; whichever number of it changes, the place is named."""
    index = index_of(samples)
    assert difference(index, index) is None
    assert difference(ShardIndex.from_bytes(index.to_bytes()), index) is None
    name = data.draw(st.sampled_from(["member_offset", "member_size", "extent_start", "extent_stop"]))
    column = getattr(index, name).copy()
    at = data.draw(st.integers(0, len(column) - 1))
    column[at] += 512
    what, key, offset = difference(replace(index, **{name: column}), index)
    sample = at if name.startswith("extent") else int(np.searchsorted(index.first_member, at, side="right")) - 1
    assert key == index.keys[sample]
    assert offset == (index.extent_start if name.startswith("extent") else index.member_offset)[at]
    assert "1 differ" in what


def test_differences_of_the_whole():
    """Other samples, another number of members in one, and facts of the shard."""
    one = index_of([("a", {"txt"}, 1), ("b", {"txt", "cls"}, 1)])
    assert difference(index_of([("a", {"txt"}, 1)]), one)[0] == "it has 1 samples, and the shard 2"
    other = index_of([("a", {"txt", "cls"}, 1), ("b", {"txt"}, 1)])
    assert difference(other, one) == ("a sample has another number of members", "a", 0)
    assert difference(replace(one, tar_size=1), one) == ("its tar_size is another", None, None)
    assert difference(replace(one, seekable=False), one) == ("its seekable is another", None, None)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=20))
def test_keys_that_return(letters):
    """As many as a plain count says; the first that returns is named."""
    keys = [key for at, key in enumerate(letters) if at == 0 or letters[at - 1] != key]
    index = index_of([(key, {"txt"}, 1) for key in keys]) if keys else index_of([("a", {"txt"}, 1)])
    found = list(repeated_keys(index, key_hashes(index.keys), "t"))
    again = [at for at, key in enumerate(keys) if key in keys[:at]]
    assert [one.count for one in found] == ([len(again)] if again else [])
    if again:
        assert (found[0].key, found[0].offset) == (keys[again[0]], int(index.extent_start[again[0]]))


def test_hashes_that_meet_are_no_keys_that_return():
    """Keys are compared where hashes are equal."""
    index = index_of([("a", {"txt"}, 1), ("b", {"txt"}, 1)])
    assert list(repeated_keys(index, np.zeros(2, np.uint64), "t")) == []


@given(MEMBERS)
def test_sets_of_fields_and_empty_samples(samples):
    """Counted as plain Python counts them, whatever order the members have."""
    index = index_of(samples)
    sets = field_sets(index, "t")
    plain = {}
    for _, fields, _ in samples:
        plain[tuple(sorted(fields))] = plain.get(tuple(sorted(fields)), 0) + 1
    assert {one.fields: one.count for one in sets} == plain
    for one in sets:
        first = next(at for at, (_, fields, _) in enumerate(samples) if tuple(sorted(fields)) == one.fields)
        assert one.offset == int(index.extent_start[first])
    empty = [at for at, (_, _, size) in enumerate(samples) if not size]
    assert [one.count for one in empty_samples(index, "t")] == ([len(empty)] if empty else [])


def test_members_in_another_order_are_the_same_set():
    """txt, cls and cls, txt have one set of fields, and the first sample of either is the first."""
    index = index_of([("a", {"cls"}, 1), ("b", {"txt", "cls"}, 1), ("c", {"txt", "cls"}, 1)])
    turned = replace(index, member_field=np.array([0, 1, 0, 0, 1], np.uint16))
    found = {one.fields: (one.count, one.key) for one in field_sets(turned, "t")}
    assert found == {("cls", "txt"): (2, "b"), ("cls",): (1, "a")}


def test_many_sets_of_fields_are_summed_up():
    """The commonest that differ are told one by one, the others in one finding."""
    common = FieldSet(("jpg",), 1000, "s", "k", 0)
    others = [FieldSet(("jpg", f"f{at:02d}"), 20 - at, "s", f"k{at}", at) for at in range(13)]
    found = list(differing_fields([common, *others, FieldSet(("jpg",), 5, "t", "k", 0)]))
    assert [one.count for one in found] == [*range(20, 10, -1), 10 + 9 + 8]
    assert "1005 of 1187 have jpg" in found[0].what
    assert "have 3 other sets of fields" in found[-1].what


@settings(max_examples=40)  # each opens 128 files
@given(
    st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=8),
    st.integers(1, 12),
)
def test_keys_in_several_shards(shards, held):
    """As many as a plain count says, whether they are held in memory or in files; each example is one."""
    with KeyHashes(held) as keys:
        for shard, own in enumerate(shards):
            # the upper bits decide the file
            keys.add(shard, np.array([key << 60 | key for key in own], np.uint64))
        found = keys.returning()
    several = {key for own in shards for key in own if sum(key in other for other in shards) > 1}
    every = [key for own in shards for key in own]
    assert found.keys == len(several)
    assert found.samples == sum(key in several for key in every) - len(several)
    assert len(found.places) == min(len(several), 8)
    for (shard, position), (other, there) in found.places:
        assert shard < other
        assert shards[shard][position] == shards[other][there]


def losses(means, seen=100, deviation=1.0):
    return [ShardLosses(str(at), seen, mean, deviation) for at, mean in enumerate(means)]


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        (losses([1.0, 1.1, 0.9, 1.05, 0.95, 9.0]), ["5"]),
        (losses([1.0, 1.1, 0.9, 1.05, 0.95, 1.2]), []),
        (losses([1.0] * 5 + [1.3]), []),  # equal means: its own noise may be that large
        (losses([1.0] * 5 + [3.0]), ["5"]),
        (losses([1.0] * 5 + [3.0], deviation=0.0), ["5"]),
        (losses([1.0] * 3 + [9.0]), []),  # too few shards to say what is usual
        (losses([1.0, 1.1, 0.9, 1.05, 0.95, 9.0], seen=10), []),  # too few losses
    ],
)
def test_shards_of_other_losses(figures, named):
    """Far from the others by their spread, and by its own standard error."""
    assert [one.shard for one in unlike_losses(figures)] == named


def test_findings_are_ordered():
    """The gravest first; and counted by how grave they are."""
    kinds = ("shard-touched", "index-missing", "shard-damaged")
    found = ordered(Finding(kind, "w.", "s") for kind in kinds)
    assert [one.kind for one in found] == ["shard-damaged", "index-missing", "shard-touched"]
    assert counted(found) == {"error": 1, "warning": 1, "hint": 1}
