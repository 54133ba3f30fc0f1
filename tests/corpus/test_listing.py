"""What a user writes becomes shards in order, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from seta_stream.corpus.listing import expand, options_at
from seta_stream.errors import ArgumentError, CorpusError, ReadError


def names(urls: list[str]) -> list[str]:
    """Return the last parts of URLs."""
    return [url.rpartition("/")[2] for url in urls]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train-{0..2}.tar", ["train-0.tar", "train-1.tar", "train-2.tar"]),
        ("train-{2,0}.tar", ["train-2.tar", "train-0.tar"]),
        ("train-*.tar", ["train-0.tar", "train-1.tar", "train-2.tar"]),
        ("train-[12].tar", ["train-1.tar", "train-2.tar"]),
        ("train-{2..1}.ta?", ["train-2.tar", "train-1.tar"]),
        ("train-1*", ["train-1.tar"]),
    ],
)
def test_patterns(shards: Path, pattern: str, expected: list[str]) -> None:
    """Braces give their own order, globs a sorted one; index files and folders are not shards."""
    (shards / "train-1.tar.seta-index").write_bytes(b"")
    (shards / "train-1.d").mkdir()
    found = expand(str(shards / pattern))
    assert names(found) == expected
    assert all(Path(url).is_absolute() for url in found)


def test_lists_keep_their_order(shards: Path) -> None:
    """Strings and paths in a list are expanded in place."""
    assert names(expand([str(shards / "train-2.tar"), shards / "train-{0..1}.tar"])) == [
        "train-2.tar",
        "train-0.tar",
        "train-1.tar",
    ]
    assert expand(shards / "train-2.tar") == [str(shards / "train-2.tar")]


def test_text_files_name_shards_relative_to_themselves(shards: Path) -> None:
    """Lines are patterns; comments and empty lines are passed over; absolute paths and URLs stay."""
    listing = shards.parent / "all.txt"
    listing.write_text(
        f"# the corpus\n\nshards/train-2.tar\n  shards/train-{{0..0}}.tar \n{shards}/train-1.tar\ns3://b/x.tar\n"
    )
    found = expand(str(listing))
    assert names(found) == ["train-2.tar", "train-0.tar", "train-1.tar", "x.tar"]
    assert found[3] == "s3://b/x.tar"


def test_a_text_file_may_not_name_another(tmp_path: Path) -> None:
    """Lists of lists could name themselves."""
    (tmp_path / "a.txt").write_text("a.txt\n")
    with pytest.raises(CorpusError, match=r"'a.txt' in .*a\.txt: a list of shards may not name another"):
        expand(str(tmp_path / "a.txt"))


def test_a_literal_name_with_pattern_characters(tmp_path: Path) -> None:
    """A file that exists as it is written is taken as it is."""
    for name in ("a[1].tar", "a{1,2}.tar"):
        (tmp_path / name).write_bytes(b"")
        assert names(expand(str(tmp_path / name))) == [name]


def test_patterns_of_buckets(shards: Path) -> None:
    """Globs work on any file system that fsspec knows; other URLs stay as they are."""
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("b-1.tar", "b-0.tar"):
        files.pipe_file(f"/listing/{name}", b"")
    files.pipe_file("/listing/all.txt", b"b-1.tar\n")
    assert expand("memory://listing/b-*.tar") == ["memory://listing/b-0.tar", "memory://listing/b-1.tar"]
    assert expand("memory://listing/all.txt") == ["memory://listing/b-1.tar"]
    assert expand("s3://bucket/t-{00..01}.tar") == ["s3://bucket/t-00.tar", "s3://bucket/t-01.tar"]


def test_mistakes_are_named(shards: Path) -> None:
    """Nothing listed, nothing matched, a shard twice, a folder, an open brace, a pipe: each says what to write."""
    with pytest.raises(CorpusError, match=r"from \[\]: it names no shard"):
        expand([])
    with pytest.raises(CorpusError, match=r"nothing matches it. Check the folder"):
        expand(str(shards / "val-*.tar"))
    with pytest.raises(CorpusError, match=r"train-0.tar is named twice") as caught:
        expand([str(shards / "train-0.tar"), str(shards / "*.tar")])
    assert caught.value.shard == str(shards / "train-0.tar")
    with pytest.raises(CorpusError, match=r"it is a folder. Name the shards in it, as .*/shards/\*\.tar"):
        expand(str(shards))
    with pytest.raises(ArgumentError, match="a brace is not closed"):
        expand("train-{0..2.tar")
    with pytest.raises(ArgumentError, match="is a WebDataset pipe"):
        expand("pipe:cat train.tar")
    with pytest.raises(ReadError, match="no such file"):
        expand(str(shards / "missing.txt"))


@pytest.mark.parametrize(
    ("urls", "url", "given", "expected"),
    [
        ("s3://a/{0..1}.tar", "s3://b/run", None, "shards"),
        (["s3://a/0.tar"], "s3://b/run", "own", "own"),
        ("s3://a/0.tar", "gs://b/run", None, None),
        ("/data/0.tar", "s3://b/run", None, None),
        ("/data/all.txt", "s3://b/run", None, "shards"),
        ("s3://a/0.tar", "s3://b/run", "none", "none"),
        ([], "s3://b/run", None, None),
    ],
)
def test_options_of_what_lies_beside_a_corpus(urls: object, url: str, given: str | None, expected: str | None) -> None:
    """A state takes the shards' options where its protocol is theirs and none are given for it; {} are given ones."""
    options = {"shards": {"key": "1"}, "own": {"key": "2"}, "none": {}, None: None}
    assert options_at(url, urls, options["shards"], options[given]) == options[expected]  # type: ignore[arg-type]


def test_options_are_dicts() -> None:
    """What would fail deep in a client is refused by name."""
    for shards, given in (("anon", None), (None, ["anon"])):
        with pytest.raises(ArgumentError, match=r"are dicts of options; got a (str|list)\. Write storage_options="):
            options_at("s3://b/run", "s3://a/0.tar", shards, given)  # type: ignore[arg-type]
