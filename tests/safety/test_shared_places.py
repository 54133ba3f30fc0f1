"""Folders that others can write: links laid there lead nowhere, and files that were changed are noticed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from small_corpora import MakeCorpus

from seta_stream import SetaStream
from seta_stream.read.cache_blocks import BlockFile
from seta_stream.read.cache_folder import OWN_FOLDER, TAG, CacheFolder
from seta_stream.read.cache_format import Layout


def test_a_link_in_the_cache_leads_nowhere(tmp_path: Path) -> None:
    """Who may write in a shared cache cannot have its other users write to their own files."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    folder = tmp_path / "cache" / OWN_FOLDER
    folder.mkdir(parents=True)
    (folder / "stored").symlink_to(victim)
    (folder / "CACHEDIR.TAG").symlink_to(tmp_path / "made")
    cache = CacheFolder(str(tmp_path / "cache"), 1 << 20, 1 << 12)
    cache.make()
    with pytest.raises(OSError, match="symbolic links"):
        cache.reserve(3)
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "made").exists()
    cache.close()


def test_a_cache_is_marked_as_one(tmp_path: Path) -> None:
    """Backup programs are told, by whichever process comes first."""
    for _ in range(2):
        cache = CacheFolder(str(tmp_path), 1 << 20, 1 << 12)
        cache.make()
        cache.close()
    assert (tmp_path / OWN_FOLDER / "CACHEDIR.TAG").read_bytes() == TAG


def test_a_link_for_blocks_is_not_written_through(tmp_path: Path) -> None:
    """What is not a file of blocks is not written to, wherever a link leads; a new one takes its place."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    layout = Layout(b"n" * 16, 100, 64)
    (tmp_path / "x.blocks").symlink_to(victim)
    BlockFile(tmp_path / "x.blocks", layout, memoryview(bytearray(2))).store(0, bytes(100))
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "x.blocks").is_symlink()


def test_a_changed_block_is_fetched_again(tmp_path: Path) -> None:
    """What no longer matches its checksum is as good as missing; a checksum that was changed too is believed."""
    layout = Layout(b"n" * 16, 100, 64)
    file = BlockFile(tmp_path / "x.blocks", layout, memoryview(bytearray(2)))
    file.store(0, bytes(100))
    again = BlockFile(tmp_path / "x.blocks", layout, memoryview(bytearray(2)))
    os.pwrite(again.fd, b"x", layout.data_at + 70)
    assert again.are_sure([(0, 64)])
    assert not again.are_sure([(64, 10)])
    assert again.missing(0, 2) == [1]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_user_sets(mask: int, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Nothing is made that others may write where the umask forbids it, and nothing at all is executable."""
    paths = make_corpus(1, 8)
    before = os.umask(mask)
    try:
        with SetaStream(paths, batch_size=2, state=str(tmp_path / "state")) as stream:
            for epoch in range(2):
                stream.set_epoch(epoch)
                for batch in stream.batches(2):
                    stream.record(batch["__index__"], [1.0, 2.0])
                stream.state_dict()
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert made
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) & (mask | 0o111) == 0, path
