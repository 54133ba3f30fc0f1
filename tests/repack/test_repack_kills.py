"""kill -9 at any moment, a full disk, a second process: nothing half-written has a name; the same command goes on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repack_tars import Member, samples, state_of, tar_of, write

from seta_stream.errors import ReadError, StateLockedError
from seta_stream.losses.lock import StateLock
from seta_stream.repack import repack

DRIVER = str(Path(__file__).parent / "repack_kill_driver.py")
EVERY = 5
"""Every so-manieth step is killed; all of them take a minute, and hold too."""


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """What has a final name is whole; what was recorded is not written again; the end is the same, losses included,
    and no hidden file is left."""
    rng = np.random.default_rng(0)
    urls = []
    for shard in range(3):
        members = [Member(f"{shard}-{n:03d}.bin", rng.bytes(20_000)) for n in range(50)]
        urls.append(write(tmp_path / "old" / f"t-{shard}.tar", tar_of(members)))
    state_of(urls, tmp_path / "state", rng.random(150))
    done = subprocess.run(
        [sys.executable, DRIVER, str(tmp_path), str(EVERY)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(one["kind"] == "step" for one in told) > 15
    assert sum(one["kind"] == "random" for one in told) > 0  # some of them end before they are killed
    assert {one["finished"] for one in told} >= {0, 1, 2, 3, 4}, "kills fell between all shards"
    for one in told:
        assert one["whole"], one
        assert (one["status"], one["same"]) == (0, True), (one, done.stderr)
        assert one["kept"] == one["finished"], one
        assert (one["left"], one["generations"], one["indexes"]) == ([], 1, 4), one


FULL = """
import resource, sys
from seta_stream.repack import repack
from seta_stream.errors import SetaStreamError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    repack(sys.argv[1], sys.argv[2], order="key", jobs=1)
except SetaStreamError as error:
    print(type(error).__name__, error.message)
"""


def test_a_full_disk_is_an_error_that_is_gone_on_from(tmp_path: Path) -> None:
    """The small first shard is finished and stays; the large second one leaves nothing; with room it goes on."""
    old, new = tmp_path / "old", tmp_path / "new"
    write(old / "t-0.tar", tar_of(samples("ab")))
    write(old / "t-1.tar", tar_of([Member("c.bin", os.urandom(300_000))]))
    command = [sys.executable, "-c", FULL, str(old / "*.tar"), str(new), str(100_000)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"ReadError Cannot write {new}/t-1.tar: "), done.stderr
    assert "File too large" in done.stdout
    assert "What is finished stays: free space there" in done.stdout
    assert sorted(path.name for path in new.iterdir()) == ["repack", "t-0.tar", "t-0.tar.seta-index"]
    report = repack(str(old / "*.tar"), str(new), order="key")
    assert (report.shards, report.written) == (2, 1)
    assert sorted(path.name for path in new.glob("*.tar")) == ["t-0.tar", "t-1.tar"]


def test_no_room_for_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a compressed shard cannot be held, the folder and the way out are named."""
    from seta_stream.repack import running

    url = write(tmp_path / "old" / "t.tar.gz", tar_of([Member("c.bin", bytes(300_000))]))
    monkeypatch.setattr(running, "MEMORY_BYTES", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ReadError, match=r"Cannot hold .*t\.tar\.gz in a temporary file in .*TMPDIR, and run"):
            repack(url, str(tmp_path / "new"), order="key", jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_one_process_per_folder(tmp_path: Path) -> None:
    """A second one is refused by name; when the first has gone, it works."""
    url = write(tmp_path / "old" / "t.tar", tar_of(samples("ab")))
    lock = StateLock(tmp_path / "new" / "repack")
    lock.acquire()
    with pytest.raises(StateLockedError, match=r"Cannot repack into .*/new: this process does that now. Wait for it"):
        repack(url, str(tmp_path / "new"), order="key")
    lock.release()
    assert repack(url, str(tmp_path / "new"), order="key").written == 1


def test_left_over_files_go_and_others_stay(tmp_path: Path) -> None:
    """Hidden files that a killed start left are removed by the next one; a stranger's are not."""
    url = write(tmp_path / "old" / "t.tar", tar_of(samples("ab")))
    new = tmp_path / "new"
    repack(url, str(new), order="key")
    mine = [new / f".t.tar.{'a' * 16}.tmp", new / f".t.tar.seta-index.{'0' * 16}.tmp"]
    mine += [new / "repack" / f".{name}.{'f' * 16}.tmp" for name in ("t.tar.order", "repack.json")]
    others = [new / f".u.tar.{'a' * 16}.tmp", new / ".t.tar.tmp", new / ".hidden"]
    for path in [*mine, *others]:
        path.write_bytes(b"x")
    assert repack(url, str(new), order="key").written == 0
    assert [path.exists() for path in mine] == [False] * 4
    assert [path.exists() for path in others] == [True] * 3
