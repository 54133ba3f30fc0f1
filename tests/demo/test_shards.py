"""Corpora are the bytes that tarfile would write, the same for any number of processes, and whole or not there."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seta_stream.demo.captions import CaptionMaker
from seta_stream.demo.shards import MTIME, Sample, make_corpus, tar_member, write_shard
from seta_stream.errors import ArgumentError, StateLockedError


@dataclass(frozen=True)
class Numbers:
    """A maker whose samples are their numbers; fails at one of them if asked to."""

    samples: int
    fails_at: int = -1
    name: str = "numbers"

    def settings(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def make(self, first: int, stop: int) -> Iterator[Sample]:
        for number in range(first, stop):
            if number == self.fails_at:
                raise KeyboardInterrupt
            yield Sample(f"{number:04d}", (("txt", str(number).encode()), ("bin", bytes(number))))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def by_tarfile(samples: list[Sample]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in samples:
            for extension, data in members:
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(data), MTIME
                archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_shard_is_what_tarfile_writes(tmp_path: Path, count: int) -> None:
    """A shard holds the bytes that tarfile writes for the same members, end blocks and record padding included."""
    samples = [
        Sample(f"folder/{n:09d}", (("jpg", os.urandom(n * 97)), ("seg.PNG", b""), ("txt", bytes(512 * (n % 3)))))
        for n in range(count)
    ]
    size = write_shard(tmp_path / "a.tar", samples)
    assert (tmp_path / "a.tar").read_bytes() == by_tarfile(samples)
    assert size == (tmp_path / "a.tar").stat().st_size


@pytest.mark.parametrize("name", ["", "ü.txt", "a" * 101])
def test_names_that_a_plain_header_cannot_hold_are_refused(name: str) -> None:
    """An empty, non-ASCII or over-long name is an error that shows it."""
    with pytest.raises(ArgumentError, match=r"Cannot write the member .*: names have 1 to 100 ASCII characters"):
        tar_member(name, b"")


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """One process and two write the same shards."""
    maker = CaptionMaker(5_000, seed=3)
    one = make_corpus(maker, tmp_path / "one", shard_samples=1_700, jobs=1, progress=False)
    two = make_corpus(maker, tmp_path / "two", shard_samples=1_700, jobs=2, progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(one.urls) == 3
    assert one.pattern.endswith("captions-{000000..000002}.tar")
    assert two.size_bytes == sum(Path(url).stat().st_size for url in two.urls)


def test_samples_do_not_depend_on_the_size_of_shards() -> None:
    """A sample is the same wherever its shard begins."""
    maker = CaptionMaker(3_000, seed=0)
    assert list(maker.make(0, 3_000)) == [sample for n in range(0, 3_000, 600) for sample in maker.make(n, n + 600)]


def test_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Finished shards stay, the unfinished one leaves nothing, and a second run makes only what is missing."""
    with pytest.raises(KeyboardInterrupt):
        make_corpus(Numbers(100, fails_at=55), tmp_path, shard_samples=20, jobs=1, progress=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"numbers.settings.json", "numbers-000000.tar", "numbers-000001.tar"}
    (tmp_path / "numbers-000000.tar").write_bytes(b"kept as it is")
    made = make_corpus(Numbers(100), tmp_path, shard_samples=20, jobs=1, progress=False)
    assert made.made == 3
    assert len(made.urls) == 5
    assert (tmp_path / "numbers-000000.tar").read_bytes() == b"kept as it is"
    assert make_corpus(Numbers(100), tmp_path, shard_samples=20, progress=False).made == 0


def test_other_settings_in_the_way_are_refused(tmp_path: Path) -> None:
    """Shards of another corpus under the same name are an error that names the differences."""
    make_corpus(Numbers(10), tmp_path, shard_samples=5, jobs=1, progress=False)
    with pytest.raises(ArgumentError, match=r"made with other settings \(samples 10 → 12; shard_samples 5 → 4\)"):
        make_corpus(Numbers(12), tmp_path, shard_samples=4, jobs=1, progress=False)


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    """A settings file that is no JSON is an error with its path."""
    (tmp_path / "numbers.settings.json").write_text("{")
    with pytest.raises(ArgumentError, match=r"numbers\.settings\.json is damaged"):
        make_corpus(Numbers(10), tmp_path, shard_samples=5, jobs=1, progress=False)


def test_second_maker_is_refused(tmp_path: Path) -> None:
    """While one maker holds the folder, another is told so."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StateLockedError, match=r"Another maker writes to .*: wait for it"):
            make_corpus(Numbers(10), tmp_path, shard_samples=5, jobs=1, progress=False)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("samples", "shard_samples", "jobs", "option"),
    [(0, 1, 1, "samples"), (1, 0, 1, "shard_samples"), (1, 1, -1, "jobs")],
)
def test_sizes_below_one_are_refused(tmp_path: Path, samples: int, shard_samples: int, jobs: int, option: str) -> None:
    """A count below 1 is an error that names the option."""
    with pytest.raises(ArgumentError, match=rf"^{option}=-?\d: at least 1 is needed"):
        make_corpus(Numbers(samples), tmp_path, shard_samples=shard_samples, jobs=jobs, progress=False)


def test_progress_goes_to_stderr_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar names the corpus on stderr and leaves stdout to the caller."""
    make_corpus(Numbers(10), tmp_path, shard_samples=5, jobs=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "making numbers" in captured.err


def test_captions_have_the_sizes_that_benchmarks_count_on() -> None:
    """Texts have about 100 bytes, and the json, which parses and holds the number, as many."""
    samples = list(CaptionMaker(2_000, seed=1).make(0, 2_000))
    texts = [sample.members[0][1] for sample in samples]
    metas = [sample.members[1][1] for sample in samples]
    assert {tuple(extension for extension, _ in sample.members) for sample in samples} == {("txt", "json")}
    assert 90 <= sum(map(len, texts)) / len(texts) <= 110
    assert 90 <= sum(map(len, metas)) / len(metas) <= 120
    assert [json.loads(meta)["id"] for meta in metas] == list(range(2_000))
    assert len(set(texts)) == len(texts)
