"""A cache that is full, a disk that is full, a folder that cannot be used: reading goes on, and says so once."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cache_fakes import BLOCK, FakeShard, content, files_of, opened, parts, run_of, take

from seta_stream.errors import SetaStreamWarning
from seta_stream.read import cache_blocks
from seta_stream.read.cache_folder import CacheFolder

MIB = 1 << 20
LEAST = 16 * MIB


def disk_bytes(folder: Path) -> int:
    """Return what the blocks take on disk."""
    return sum(path.stat().st_blocks * 512 for path in files_of(folder))


def corpus(first: int, count: int, size: int = 4 * MIB) -> list[FakeShard]:
    return [FakeShard(content(size, seed), url=f"fake://bucket/{seed}.tar") for seed in range(first, first + count)]


@contextmanager
def told(*texts: str) -> Iterator[None]:
    """Expect these warnings, and no others."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    assert len(found) == len(texts), [str(one.message) for one in found]
    for one, text in zip(found, texts, strict=True):
        assert issubclass(one.category, SetaStreamWarning)
        assert text in str(one.message)


def fill(folder: Path, shards: list[FakeShard], *, max_bytes: int = LEAST) -> None:
    """Read a corpus through a cache of its own run, which ends."""
    cache, files = opened(run_of(folder, *shards, max_bytes=max_bytes, block=MIB), *shards, ahead=8 * MIB)
    for shard, file in zip(shards, files, strict=True):
        assert take(file, [(0, len(shard.data))]) == [shard.data]
    cache.close()


# ---- max_bytes


def test_what_a_run_needs_stays(tmp_path: Path) -> None:
    """A corpus larger than the cache keeps what came first, epoch after epoch: blocks do not go for each other."""
    shards = corpus(0, 6)
    run = run_of(tmp_path, *shards, max_bytes=LEAST, block=MIB)
    fetched = []
    with told("has reached its 16,777,216 bytes, and live runs use all that it holds"):
        for _ in range(3):
            cache, files = opened(run, *shards, ahead=8 * MIB)
            for shard, file in zip(shards, files, strict=True):
                assert take(file, [(0, len(shard.data))]) == [shard.data]
                shard.forget()
            fetched.append(cache.counts.take()[0])
            cache.close()
    assert fetched[0] == 24 * MIB
    assert fetched[1] == fetched[2] <= 9 * MIB
    assert disk_bytes(tmp_path) <= LEAST + MIB


def test_a_full_cache_passes_spans_through(tmp_path: Path) -> None:
    """What a full cache lacks is asked for as it is wanted, not in whole blocks; what it has is served."""
    shards = corpus(0, 6)
    with told("has reached its 16,777,216 bytes"):
        fill(tmp_path, shards)
    run = run_of(tmp_path, *shards, max_bytes=LEAST, block=MIB)
    with told("has reached its 16,777,216 bytes"):
        _, files = opened(run, *shards)
        last, shard = files[-1], shards[-1]
        shard.forget()
        assert not last.is_near
        spans = [(10, 20), (2 * MIB, 30)]
        assert take(last, spans) == parts(shard.data, spans)
        assert shard.asked == spans
        assert last.read_spans(spans) == parts(shard.data, spans)
        assert files[0].is_near
        shards[0].forget()
        assert take(files[0], spans) == parts(shards[0].data, spans)
        assert shards[0].asked == []


def test_spans_that_wait_when_it_fills_up(tmp_path: Path) -> None:
    """Where the cache fills up while runs wait, their spans are asked for as they are, and what came is served."""
    shards = corpus(0, 1, size=40 * MIB)
    cache, (file,) = opened(run_of(tmp_path, *shards, max_bytes=LEAST, block=MIB), *shards, ahead=4 * MIB)
    spans = [(number * MIB + 7, 100) for number in range(40)] + [(17 * MIB - 50, MIB + 100)]
    with told("has reached its 16,777,216 bytes"):
        assert take(file, spans) == parts(shards[0].data, spans)
    fetched, requests, *_ = cache.counts.take()
    assert fetched == shards[0].asked_bytes <= 26 * MIB
    assert requests == len(shards[0].asked)
    assert disk_bytes(tmp_path) <= LEAST + 4096


def test_other_corpora_go_first_by_last_use(tmp_path: Path) -> None:
    """A full cache clears what no live run uses, least recently used first, and only as much as it needs."""
    old, recent, new = corpus(0, 1), corpus(1, 2), corpus(3, 2)
    fill(tmp_path, old)
    fill(tmp_path, recent)
    for number, path in enumerate(
        CacheFolder(str(tmp_path), None, MIB).file_of(name) for name in _names(tmp_path, old + recent)
    ):
        os.utime(path, (1000 + number, 1000 + number))
    fill(tmp_path, new)
    held = {path.name for path in files_of(tmp_path)}
    names = [f"{name.hex()}.blocks" for name in _names(tmp_path, old + recent + new)]
    assert [name in held for name in names] == [False, False, True, True, True]


def _names(folder: Path, shards: list[FakeShard]) -> list[bytes]:
    names = run_of(folder, *shards).names
    return [names[at : at + 16] for at in range(0, len(names), 16)]


def test_live_runs_keep_theirs(tmp_path: Path) -> None:
    """What another live run uses is not cleared; once it ends, it is."""
    theirs, mine = corpus(0, 4), corpus(4, 2)
    cache, files = opened(run_of(tmp_path, *theirs, max_bytes=64 * MIB, block=MIB), *theirs)
    for shard, file in zip(theirs, files, strict=True):
        take(file, [(0, len(shard.data))])
    with told("live runs use all that it holds"):
        fill(tmp_path, mine)
    assert all(file.read(5, 5) == shard.data[5:10] for shard, file in zip(theirs, files, strict=True))
    assert not any(shard.asked_bytes > len(shard.data) for shard in theirs)
    cache.close()
    fill(tmp_path, mine)
    for shard in mine:
        shard.forget()
    fill(tmp_path, mine)
    assert [shard.asked for shard in mine] == [[], []]


def test_claims_of_ended_processes_go(tmp_path: Path) -> None:
    """A claim whose process was killed protects nothing, and is removed when room is looked for."""
    script = (
        "import os, sys; from seta_stream.read.cache_folder import CacheFolder\n"
        "folder = CacheFolder(sys.argv[1], None, 4096); folder.make(); folder.claim(bytes(16)); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    claims = tmp_path / "seta-cache-1" / "claims"
    assert len(list(claims.iterdir())) == 1
    folder = CacheFolder(str(tmp_path), 4096, 4096)
    path = folder.file_of(bytes(16))
    path.write_bytes(bytes(8192))
    assert not folder.has_room(2)
    assert not list(claims.iterdir())
    assert not path.exists()


def test_a_forked_child_leaves_the_claim(tmp_path: Path) -> None:
    """A child that gives its copy back does not end its parent's claim."""
    folder = CacheFolder(str(tmp_path), 4096, 4096)
    folder.make()
    folder.claim(bytes(16))
    folder.file_of(bytes(16)).write_bytes(bytes(8192))
    child = os.fork()
    if not child:
        folder.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    other = CacheFolder(str(tmp_path), 4096, 4096)
    assert not other.has_room(1)
    assert folder.file_of(bytes(16)).exists()
    folder.close()
    assert not other.has_room(2)
    assert not folder.file_of(bytes(16)).exists()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """Only files that the cache itself names are counted or removed; links are not followed."""
    folder = CacheFolder(str(tmp_path), 4096, 4096)
    folder.make()
    mine = tmp_path / "precious"
    mine.write_bytes(bytes(1 << 20))
    (folder.objects / "notes.txt").write_bytes(bytes(1 << 20))
    (folder.objects / ("0" * 32)).write_bytes(bytes(1 << 20))
    folder.file_of(bytes(16)).symlink_to(mine)
    assert folder.count() <= 4096
    folder.clear(1 << 30)
    assert mine.exists()
    assert sorted(path.name for path in folder.objects.iterdir()) == ["0" * 32, "notes.txt"]


def test_unfinished_files_go_after_an_hour(tmp_path: Path) -> None:
    """What a killed process left half made is cleared away, what another one makes right now is not."""
    folder = CacheFolder(str(tmp_path), 4096, 4096)
    folder.make()
    old, young = (folder.objects / f"{'0' * 32}.blocks.{digit * 16}.tmp" for digit in "ab")
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    folder.clear(1 << 30)
    assert [old.exists(), young.exists()] == [False, True]


def test_default_size_is_half_of_what_is_free(tmp_path: Path) -> None:
    """Without max_bytes, half of the disk's free bytes, those that the cache holds among them."""
    folder = CacheFolder(str(tmp_path), None, 4096)
    folder.make()
    held = folder.count()
    free = shutil.disk_usage(tmp_path).free
    assert held == 0
    assert folder.limit == pytest.approx(free / 2, rel=0.1)


def test_the_bound_holds_over_processes(tmp_path: Path) -> None:
    """Processes that fill one cache at once with different corpora stay within its bound, but for a run each."""
    script = str(Path(__file__).with_name("cache_worker.py"))
    arguments = [[str(12 + number), str(2 * MIB)] for number in range(3)]
    processes = [
        subprocess.Popen([sys.executable, script, str(tmp_path), *one, str(LEAST)], stdout=subprocess.PIPE, text=True)
        for one in arguments
    ]
    for process in processes:
        *lines, last = map(json.loads, process.communicate()[0].splitlines())
        assert process.returncode == 0
        assert all(line["right"] for line in lines)
        assert all("has reached its 16,777,216 bytes" in text for text in last["told"])
        assert len(last["told"]) <= 1
    assert LEAST / 2 < disk_bytes(tmp_path) <= LEAST + 3 * MIB


# ---- the disk


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """A disk that takes a part of a block and then no more: said once, nothing of it served, the rest goes on."""
    shard = FakeShard(content(12 * BLOCK))
    run = run_of(tmp_path, shard)
    _, (file,) = opened(run, shard, ahead=2 * BLOCK)
    take(file, [(0, 2 * BLOCK)])
    write = os.pwrite

    def refuse(fd: int, data: memoryview, offset: int) -> int:
        if len(data) > 100:
            return write(fd, memoryview(data)[:100], offset)
        raise OSError(kind, os.strerror(kind))

    spans = [(number * BLOCK + 9, 50) for number in range(12)]
    with monkeypatch.context() as patched, told(f"takes nothing more: {os.strerror(kind)}"):
        patched.setattr(cache_blocks.os, "pwrite", refuse)
        for _ in range(3):
            assert take(file, spans) == parts(shard.data, spans)
            assert file.read_spans(spans) == parts(shard.data, spans)
        _, (other,) = opened(run, shard)
        assert take(other, spans) == parts(shard.data, spans)
    shard.forget()
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    assert take(file, [(0, 2 * BLOCK)]) == [shard.data[: 2 * BLOCK]]
    assert shard.asked == []
    assert take(file, [(0, 12 * BLOCK)]) == [shard.data]
    assert shard.asked_bytes == 10 * BLOCK


def test_a_full_disk_clears_other_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full and the cache holds what no live run uses, that goes, and storing goes on."""
    old, new = corpus(0, 1), corpus(1, 1)
    fill(tmp_path, old)
    write = os.pwrite

    def refuse(fd: int, data: memoryview, offset: int) -> int:
        if len(data) >= MIB and len(files_of(tmp_path)) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data, offset)

    monkeypatch.setattr(cache_blocks.os, "pwrite", refuse)
    with told():
        fill(tmp_path, new)
    new[0].forget()
    fill(tmp_path, new)
    assert new[0].asked == []


def test_the_kernel_says_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real ENOSPC (of /dev/full) stops the storing, is said once per run, and what is there is served."""
    shard = FakeShard(content(6 * BLOCK))
    run = run_of(tmp_path, shard)
    cache, (file,) = opened(run, shard)
    take(file, [(0, BLOCK)])
    cache.close()
    ledger, really = tmp_path / "seta-cache-1" / "stored", os.open
    # A link to it would not be followed.
    monkeypatch.setattr(
        os, "open", lambda path, *more: really(*(("/dev/full", os.O_RDWR) if path == ledger else (path, *more)))
    )
    shard.forget()
    with told("takes nothing more: No space left on device. What it holds is served"):
        for _ in range(2):
            _, (file,) = opened(run, shard)
            spans = [(0, 10), (3 * BLOCK, 10), (2 * BLOCK, 10)]
            assert take(file, spans) == file.read_spans(spans) == parts(shard.data, spans)
    assert (0, 10) not in shard.asked
    assert (0, BLOCK) not in shard.asked


def test_files_may_not_grow(tmp_path: Path) -> None:
    """A limit on file sizes (RLIMIT_FSIZE) is a full disk: the epoch goes on, said once."""
    lines = _worker(tmp_path, limit=300_000)
    assert all(line["right"] for line in lines[:-1])
    assert len(lines[-1]["told"]) == 1
    assert "takes nothing more: File too large" in lines[-1]["told"][0]


def _worker(folder: Path, *, limit: int) -> list[dict[str, object]]:
    """Run cache_worker.py over 3 shards of 700,000 bytes with a limit on file sizes."""
    command = [sys.executable, str(Path(__file__).with_name("cache_worker.py")), str(folder), "3", "700000"]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_small_disk(tmp_path: Path) -> None:
    """A tmpfs of 4 MiB fills up under an epoch of 8 MB: all is delivered, said once; the next run reads what fitted."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces; the other tests of a full disk run everywhere")
    worker = f"{sys.executable} {Path(__file__).with_name('cache_worker.py')} {tmp_path} 8 1000000 {LEAST}"
    script = f"mount -t tmpfs -o size=4m none {tmp_path} && {worker} && {worker}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for run in (lines[:9], lines[9:]):
        assert all(line["right"] for line in run[:-1])
        assert len(run[-1]["told"]) == 1
        assert "takes nothing more: No space left on device" in run[-1]["told"][0]
    assert [line["asked"] for line in lines[9:11]] == [0, 0]
    assert lines[16]["asked"] > 0


def test_a_folder_that_only_reads(tmp_path: Path) -> None:
    """A cache that may not be written to serves what it has; the rest passes through, said once."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces, and root may write wherever it wants")
    worker = f"{sys.executable} {Path(__file__).with_name('cache_worker.py')} {tmp_path}"
    readonly = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    script = f"{worker} 2 300000 && {readonly} && {worker} 3 300000"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()][3:]
    assert all(line["right"] for line in lines[:-1])
    assert [line["asked"] for line in lines[:-1]] == [0, 0, 600_000]
    assert len(lines[-1]["told"]) == 1
    assert "takes nothing more: Read-only file system" in lines[-1]["told"][0]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A folder that cannot be made leaves the bucket, said once per run."""
    (tmp_path / "file").write_text("")
    shard = FakeShard(content(2 * BLOCK))
    run = run_of(tmp_path / "file" / "cache", shard)
    with told("takes nothing more: Not a directory"):
        for _ in range(2):
            cache, (file,) = opened(run, shard)
            assert file is shard
            cache.close()


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    """A folder that is removed in mid-epoch: what is open goes on, the rest passes, and the next epoch begins anew."""
    shards = corpus(0, 3, size=4 * BLOCK)
    run = run_of(tmp_path, *shards)
    cache, files = opened(run, shards[0])
    take(files[0], [(0, BLOCK)])
    shutil.rmtree(tmp_path / "seta-cache-1")
    with told("takes nothing more: No such file or directory"):
        assert files[0].read(5, 5) == shards[0].data[5:10]
        second = cache.wrap(shards[1], 1)
        assert take(second, [(5, 5)]) == [shards[1].data[5:10]]
        assert take(files[0], [(2 * BLOCK, 5)]) == [shards[0].data[2 * BLOCK : 2 * BLOCK + 5]]
        cache.close()
        _, files = opened(run, *shards)
        for shard, file in zip(shards, files, strict=True):
            assert take(file, [(0, 4 * BLOCK)]) == [shard.data]
    assert len(files_of(tmp_path)) == 3
