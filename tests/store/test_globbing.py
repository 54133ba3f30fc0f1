"""Patterns over listings match what glob.glob matches on disk, and no listing that fails goes unnoticed."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.store.globbing import find

NAMES = st.sampled_from(["a", "b1", "train-0.tar", "train-1.tar", ".hidden", "x y"])
PARTS = st.sampled_from(["*", "**", "a", "b?", "train-[01].tar", "*.tar", "train-*", ".*", "[!a]*"])


@given(
    st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12),
    st.lists(PARTS, min_size=1, max_size=4),
)
@settings(max_examples=150)
def test_it_finds_what_glob_finds(paths: list[list[str]], parts: list[str]) -> None:
    """Over any tree and pattern: the files that glob.glob gives."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            target = Path(folder, *path)
            if not any(parent.is_file() for parent in target.parents) and not target.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"")

        def listing(url: str) -> list[tuple[str, bool]]:
            place = Path(url)
            return [(one.name, one.is_dir()) for one in place.iterdir()] if place.is_dir() else []

        pattern = "/".join([folder, *parts])
        expected = {path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()}  # noqa: PTH207
        assert set(find(pattern, listing)) == expected


def test_a_listing_that_fails_is_told() -> None:
    """A folder that cannot be listed is no empty folder."""

    def listing(url: str) -> list[tuple[str, bool]]:
        if url.endswith("/b"):
            raise OSError("503 SlowDown")
        return [("a", True), ("b", True)] if url == "s3://bucket" else [("0.tar", False)]

    with pytest.raises(OSError, match="SlowDown"):
        list(find("s3://bucket/*/*.tar", listing))
    assert list(find("s3://bucket/a/*.tar", listing)) == ["s3://bucket/a/0.tar"]
