"""Whatever happened to the cache's files: the very bytes, or none, and never wrong ones."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_fakes import BLOCK, FakeShard, content, files_of, opened, parts, run_of, take
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.read.cache_blocks import BlockFile
from seta_stream.read.cache_file import CachedFile
from seta_stream.read.cache_format import ENTRY_BYTES, TABLE_AT, Layout, name_of

BLOCKS = 9
SIZE = BLOCKS * BLOCK - 1000


def filled(folder: Path, blocks: int = BLOCKS) -> tuple[FakeShard, Path, Layout]:
    """Fetch the first blocks of a shard into a cache; return it, its file there and the layout."""
    shard = FakeShard(content(SIZE))
    cache, (file,) = opened(run_of(folder, shard), shard)
    take(file, [(0, min(blocks * BLOCK, SIZE))])
    cache.close()
    shard.forget()
    (path,) = files_of(folder)
    return shard, path, Layout(name_of(shard.url, SIZE, shard.info.version, b"[]"), SIZE, BLOCK)


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def zero_data(path: Path, layout: Layout) -> None:
    """A power failure: the entries reached the disk, the blocks did not."""
    write_at(path, layout.data_at, bytes(SIZE))


def zero_table(path: Path, layout: Layout) -> None:
    """The other way round."""
    write_at(path, TABLE_AT, bytes(ENTRY_BYTES * BLOCKS))


def zero_all(path: Path, layout: Layout) -> None:
    """Only the length reached the disk."""
    write_at(path, 0, bytes(layout.file_bytes))


def swap_blocks(path: Path, layout: Layout) -> None:
    """Two blocks in each other's place, with their entries."""
    data = path.read_bytes()
    for here, there in ((1, 2), (2, 1)):
        write_at(path, layout.data_at + here * BLOCK, data[layout.data_at + there * BLOCK :][:BLOCK])
        write_at(path, TABLE_AT + here * ENTRY_BYTES, data[TABLE_AT + there * ENTRY_BYTES :][:ENTRY_BYTES])


def other_shard(path: Path, layout: Layout) -> None:
    """The file of another shard under this one's name."""
    other = Layout(bytes(16), SIZE, BLOCK)
    path.write_bytes(other.header() + path.read_bytes()[TABLE_AT:])


def other_marks(path: Path, layout: Layout) -> None:
    """The right header over another shard's table and blocks."""
    other, data = Layout(bytes(16), SIZE, BLOCK), content(SIZE, seed=3)
    import zlib

    sums = [zlib.crc32(data[at : at + BLOCK]) for at in range(0, SIZE, BLOCK)]
    write_at(path, TABLE_AT, other.entries(0, sums))
    write_at(path, layout.data_at, data)


def cut_short(path: Path, layout: Layout) -> None:
    os.truncate(path, layout.data_at + 3 * BLOCK + 5)


def emptied(path: Path, layout: Layout) -> None:
    os.truncate(path, 0)


def longer(path: Path, layout: Layout) -> None:
    os.truncate(path, layout.file_bytes + 5)


@pytest.mark.parametrize(
    "harm", [zero_data, zero_table, zero_all, swap_blocks, other_shard, other_marks, cut_short, emptied, longer]
)
@pytest.mark.parametrize("way", ["ask", "read_spans"])
def test_harm_is_seen_and_mended(tmp_path: Path, harm: Callable[[Path, Layout], None], way: str) -> None:
    """After each kind of harm a new run serves the very bytes, and the run after it has all blocks again."""
    shard, path, layout = filled(tmp_path)
    harm(path, layout)
    spans = [(5, 10), (BLOCK - 1, 3 * BLOCK), (SIZE - 9, 9), (0, SIZE)]
    for _ in range(2):
        _, (file,) = opened(run_of(tmp_path, shard), shard)
        found = take(file, spans) if way == "ask" else file.read_spans(spans)
        assert found == parts(shard.data, spans)
    assert shard.asked_bytes <= SIZE
    shard.forget()
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    assert file.read_spans([(0, SIZE)]) == [shard.data]
    assert shard.asked == []


@settings(max_examples=120)
@given(data=st.data())
def test_any_garbage_is_seen(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Garbage anywhere in the file, any number of times, cut or lengthened: never a wrong byte."""
    shard, path, layout = filled(tmp_path_factory.mktemp("cache"), data.draw(st.integers(0, BLOCKS)) or 1)
    where = st.one_of(st.integers(0, TABLE_AT + ENTRY_BYTES * BLOCKS), st.integers(0, layout.file_bytes - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        write_at(path, data.draw(where), data.draw(st.binary(min_size=1, max_size=300)))
    if data.draw(st.booleans()):
        os.truncate(path, data.draw(st.integers(0, layout.file_bytes + 10)))
    _, (file,) = opened(run_of(path.parents[2], shard), shard)
    spans = [(at, min(BLOCK + 7, SIZE - at)) for at in data.draw(st.lists(st.integers(0, SIZE - 1), max_size=5))]
    assert file.read_spans(spans) == parts(shard.data, spans)
    assert take(file, [(0, SIZE)]) == [shard.data]


def test_a_damaged_block_costs_that_block(tmp_path: Path) -> None:
    """One flipped bit is one block fetched again, through a file that said it held all."""
    shard, path, layout = filled(tmp_path)
    byte = path.read_bytes()[layout.data_at + 4 * BLOCK + 77]
    write_at(path, layout.data_at + 4 * BLOCK + 77, bytes([byte ^ 0x80]))
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    assert isinstance(file, CachedFile)
    assert file.holds_all
    assert file.read_spans([(0, BLOCK), (2 * BLOCK, 4 * BLOCK)]) == parts(
        shard.data, [(0, BLOCK), (2 * BLOCK, 4 * BLOCK)]
    )
    assert shard.asked == [(4 * BLOCK, BLOCK)]


def test_the_last_block_is_compared_unasked(tmp_path: Path) -> None:
    """Once all blocks but one were compared, that one is too, so that reads need no further look."""
    shard, path, layout = filled(tmp_path)
    for harm in (False, True):
        if harm:
            write_at(path, layout.data_at + 8 * BLOCK, b"harm")
        blocks = BlockFile(path, layout, memoryview(bytearray(BLOCKS)))
        assert blocks.are_sure([(0, 7 * BLOCK)])
        assert not blocks.is_sure
        assert blocks.are_sure([(7 * BLOCK, 1)])
        assert blocks.is_sure != harm
    assert blocks.read(5, 5) == shard.data[5:10]


def test_a_file_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """A file that loses its end under a reader serves nothing more; what is fetched then fills no hole."""
    shard, path, _ = filled(tmp_path)
    cache, (file,) = opened(run_of(tmp_path, shard), shard)
    assert file.read_spans([(0, SIZE)]) == [shard.data]
    os.truncate(path, 0)
    spans = [(8 * BLOCK, 100), (0, 100), (2 * BLOCK, 2 * BLOCK)]
    assert file.read_spans(spans) == parts(shard.data, spans)
    assert take(file, spans) == parts(shard.data, spans)
    assert not file.is_near
    # A new handle makes a new file, and keeps blocks again.
    again = cache.wrap(shard, 0)
    assert take(again, [(0, SIZE)]) == [shard.data]
    shard.forget()
    assert again.read_spans([(0, SIZE)]) == [shard.data]
    assert shard.asked == []


def test_a_file_cut_short_before_blocks_arrive(tmp_path: Path) -> None:
    """Blocks are not written into a file that was cut short: earlier ones would read as zeros."""
    shard = FakeShard(content(SIZE))
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    take(file, [(0, BLOCK)])
    answers = file.ask([(5 * BLOCK, 10), (0, 10)])
    os.truncate(files_of(tmp_path)[0], 100)
    assert [bytes(one.result()) for one in answers] == parts(shard.data, [(5 * BLOCK, 10), (0, 10)])
    assert files_of(tmp_path)[0].stat().st_size == 100


def test_removed_files_go_on_serving(tmp_path: Path) -> None:
    """A cache that is removed under a run serves what is open, and is begun anew by the next opening."""
    shard, path, _ = filled(tmp_path)
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    path.unlink()
    assert file.read_spans([(0, SIZE)]) == [shard.data]
    assert shard.asked == []
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    assert take(file, [(0, SIZE)]) == [shard.data]
    assert shard.asked_bytes == SIZE


def worker(folder: Path, *arguments: int, **options: object) -> subprocess.Popen[str]:
    """Start cache_worker.py."""
    command = [sys.executable, str(Path(__file__).with_name("cache_worker.py")), str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_killed_while_writing(tmp_path: Path) -> None:
    """kill -9 at any moment leaves nothing that a later run would serve wrongly, and keeps what was whole."""
    shards, size = 24, 1_500_001
    chance = random.Random(4)
    for _ in range(4):
        process = worker(tmp_path, shards, size)
        assert process.stdout is not None
        lines = list(itertools.islice(process.stdout, chance.randrange(1, 7)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert all('"right": true' in line for line in lines)
    whole = worker(tmp_path, shards, size).communicate()[0].splitlines()
    assert len(whole) == shards + 1
    assert all('"right": true' in line for line in whole[:-1])
    assert whole[-1] == '{"told": []}'
    assert '"asked": 0' in whole[0]
    again = worker(tmp_path, shards, size).communicate()[0].splitlines()
    assert all('"right": true, "asked": 0}' in line for line in again[:-1])


def test_processes_share_the_folder(tmp_path: Path) -> None:
    """Processes that fill one cache at once serve the very bytes, and leave every block whole."""
    shards, size = 10, 700_001
    processes = [worker(tmp_path, shards, size) for _ in range(3)]
    for process in processes:
        lines = process.communicate()[0].splitlines()
        assert process.returncode == 0
        assert all('"right": true' in line for line in lines[:-1])
        assert lines[-1] == '{"told": []}'
    again = worker(tmp_path, shards, size).communicate()[0].splitlines()
    assert all('"right": true, "asked": 0}' in line for line in again[:-1])
    assert not list(tmp_path.glob("**/*.tmp"))
    assert not list(tmp_path.glob("**/*.claim"))
