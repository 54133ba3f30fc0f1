"""Samples are formed exactly as the webdataset package forms them."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from corpus_tars import SHARD, index_of, members, samples_of, tar_bytes, webdataset_samples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seta_stream.corpus.grouping import group, split_name
from seta_stream.errors import CorpusError, DuplicateFieldError

PART = st.text(st.sampled_from("aAbB._é-\n "), min_size=0, max_size=5)
NAME = st.one_of(
    st.builds(
        lambda parts, ext: "/".join(parts) + ext,
        st.lists(PART, min_size=1, max_size=3),
        st.sampled_from([".txt", ".JPG", ".seg.Png", "", "."]),
    ),
    st.sampled_from(
        [
            "__meta__",
            "__meta__/x.txt",
            "__x__.txt",
            "____",
            "__",
            "a/__x__",
            "./a.txt",
            "./a.jpg",
            "dir/",
            "d.x/",
            "a/.hidden",
            ".hidden",
            "a.b/.hidden",
            "a//.hidden",
            "/.h",
            "a.b//.h",
            "a.__bad__",
            "x\n",
            "x\ny.txt",
            "d\ne/a.txt",
            "a.b\n",
        ]
    ),
)
FILES = st.lists(st.tuples(NAME.filter(bool), st.binary(max_size=20)), max_size=14)


@settings(max_examples=250, deadline=None)
@example(files=[("a.txt", b"1"), ("a.JPG", b"2"), ("b.txt", b""), ("a.txt", b"3")], form=tarfile.USTAR_FORMAT)
@example(files=[("a.txt", b"1"), ("a.__bad__", b"yes"), ("b.txt", b"2"), ("b.__bad__", b"")], form=tarfile.PAX_FORMAT)
@example(files=[("a.__key__", b"1")], form=tarfile.PAX_FORMAT)
@given(files=FILES, form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_samples_equal_webdatasets(files: list[tuple[str, bytes]], form: int) -> None:
    """Keys, fields and bytes are those that webdataset gives, sample by sample, and what it refuses is refused."""
    data = tar_bytes(files, form)
    try:
        expected = webdataset_samples(data)
    except ValueError:
        with pytest.raises(DuplicateFieldError):
            index_of(data)
        return
    assert samples_of(index_of(data), data) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ("a", "txt")),
        ("d.e/a.seg.png", ("d.e/a", "seg.png")),
        ("./a.txt", ("./a", "txt")),
        ("a/.hidden", ("a/", "hidden")),
        ("a.", ("a", "")),
        (".hidden", None),
        ("noext", None),
        ("d.x/noext", None),
        ("__meta__/a.txt", None),
        ("__meta__", None),
        ("__x__.txt", ("__x__", "txt")),
    ],
)
def test_one_name(name: str, expected: tuple[str, str] | None) -> None:
    """Key and field are cut at the first dot of the base name; names without both belong to no sample."""
    cut = split_name(name.encode())
    assert (None if cut is None else (name[:cut], name[cut + 1 :])) == expected


def test_a_duplicated_field_is_named_with_shard_key_and_offset() -> None:
    """The error says where the second member of the same field begins."""
    data = tar_bytes([("b.txt", b""), ("a.txt", b"1"), ("a.jpg", b"2"), ("a.TXT", b"3")])
    with pytest.raises(DuplicateFieldError, match=r"'a' .*field 'txt' twice.*again at byte 2560") as caught:
        index_of(data)
    assert (caught.value.shard, caught.value.key, caught.value.offset) == (SHARD, "a", 2560)


def test_reserved_fields_are_refused() -> None:
    """A member that would overwrite __key__ is refused, as webdataset does."""
    with pytest.raises(DuplicateFieldError, match=r"'__key__'.*reserved") as caught:
        index_of(tar_bytes([("a.txt", b""), ("b.__KEY__", b"x")]))
    assert caught.value.offset == 512


def test_too_many_fields_are_refused() -> None:
    """More distinct fields than the index can number is a misnamed corpus."""
    found = members(tar_bytes([("a.txt", b"")]))
    many = 65_537
    names = b"".join(b"k%d.f%d\0" % (number, number) for number in range(many))
    wide = type(found)(*(np.repeat(column, many) for column in (found.start, found.data, found.size)), names=names)
    with pytest.raises(CorpusError, match=r"65537 different fields"):
        group(wide, SHARD)


def test_extents_cover_extension_headers_and_padding() -> None:
    """An extent runs from the first member's extension header to the padded end of its last member."""
    long = "x" * 120
    data = tar_bytes(
        [("dir/", b""), (f"{long}.jpg", b"1"), (f"{long}.txt", b"2" * 513), ("b.txt", b"")], tarfile.GNU_FORMAT
    )
    index = index_of(data)
    assert index.extent_start.tolist() == [512, 512 + 2048 + 2560]
    assert index.extent_stop.tolist() == [512 + 2048 + 2560, 512 + 2048 + 2560 + 512]
    assert index.extent_bytes == 5120


def test_a_skipped_member_between_two_members_lies_inside_the_extent() -> None:
    """An extent is one range, so what stands between its members is read with it."""
    index = index_of(tar_bytes([("a.jpg", b"1"), ("noext", b"2"), ("a.txt", b"3"), ("noext", b"4")]))
    assert (index.extent_start.tolist(), index.extent_stop.tolist()) == ([0], [3072])
    assert index.member_offset.tolist() == [512, 2560]
