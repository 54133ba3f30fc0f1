"""Corpora as WebDataset shards: makers run in parallel, every shard written whole or not at all.

Takes a maker (sample number → bytes) and a folder; gives tar shards named `<name>-000000.tar`. Effects: writes under
the folder, starts processes, shows progress on stderr. The bytes depend on the maker alone, not on processes or time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

from seta_stream.errors import ArgumentError, StateLockedError

MTIME: Final = 1_500_000_000
"""Every member's time stamp: a corpus made twice is the same bytes."""

WRITE_BUFFER_BYTES: Final = 1 << 20


class Sample(NamedTuple):
    """One sample: its key, and (extension, bytes) of each member."""

    key: str
    members: tuple[tuple[str, bytes], ...]


class Maker(Protocol):
    """What a corpus is made of; a small picklable value, since it travels to other processes."""

    @property
    def name(self) -> str:
        """First part of the shards' names."""
        ...

    @property
    def samples(self) -> int:
        """How many samples the corpus has."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the bytes, as plain values."""
        ...

    def make(self, first: int, stop: int) -> Iterable[Sample]:
        """Give the samples first … stop − 1; each depends on its number and the settings alone."""
        ...


@dataclass(frozen=True, slots=True)
class MadeCorpus:
    """What `make_corpus` made.

    Attributes:
        pattern: brace pattern of the shards.
        urls: the shards, in order.
        size_bytes: bytes of all shards.
        made: shards written now; the others were there.
        seconds: wall time.
    """

    pattern: str
    urls: tuple[str, ...]
    samples: int
    size_bytes: int
    made: int
    seconds: float


# --- tar bytes -------------------------------------------------------------------------------------------------------


def _header_template() -> tuple[bytes, bytes, bytes, int]:
    """Return (mode, uid, gid), the time stamp, all after the checksum, and the sum of those bytes, in ustar form."""
    info = tarfile.TarInfo("")
    info.mode, info.uid, info.gid, info.mtime = 0o644, 0, 0, MTIME
    header = info.tobuf(tarfile.USTAR_FORMAT)
    owner, stamp, rest = header[100:124], header[136:148], header[156:512]
    # The checksum counts its own eight bytes as spaces.
    return owner, stamp, rest, sum(owner) + sum(stamp) + sum(rest) + 8 * ord(" ")


_OWNER, _STAMP, _REST, _TEMPLATE_SUM = _header_template()


def tar_member(name: str, data: bytes) -> bytes:
    """Return the bytes of one member: ustar header, body, padding; what tarfile writes, at a tenth of its time.

    Raises:
        ArgumentError: the name is not ASCII or has over 100 characters.
    """
    try:
        raw_name = name.encode("ascii")
    except UnicodeEncodeError:
        raw_name = b""
    if not 0 < len(raw_name) <= 100:
        raise ArgumentError(f"Cannot write the member {name!r}: names have 1 to 100 ASCII characters.", key=name)
    size = b"%011o\0" % len(data)
    checksum = _TEMPLATE_SUM + sum(raw_name) + sum(size)
    return b"".join(
        (raw_name, bytes(100 - len(raw_name)), _OWNER, size, _STAMP, b"%06o\0 " % checksum, _REST, data)
        + ((bytes(-len(data) % 512),) if len(data) % 512 else ())
    )


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write one shard under a temporary name, flush it to the disk and rename it; return its size in bytes."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb", buffering=WRITE_BUFFER_BYTES) as file:
            _write_members(file, samples)
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def _write_members(file: IO[bytes], samples: Iterable[Sample]) -> None:
    written = 0
    for key, members in samples:
        for extension, data in members:
            written += file.write(tar_member(f"{key}.{extension}", data))
    # Two empty blocks end an archive, and tar fills up the record of 20 blocks.
    end = 2 * tarfile.BLOCKSIZE
    file.write(bytes(end + -(written + end) % tarfile.RECORDSIZE))


# --- a whole corpus --------------------------------------------------------------------------------------------------


def make_corpus(
    maker: Maker, out: str | Path, *, shard_samples: int, jobs: int | None = None, progress: bool = True
) -> MadeCorpus:
    """Make the shards that are not there yet, in parallel.

    A run that was killed goes on where it stopped: finished shards stay. A folder that holds the same name made
    with other settings is refused.

    Args:
        maker: what to make.
        out: folder; made where it is missing.
        shard_samples: samples per shard; the last one has the rest.
        jobs: processes; None is one per core.
        progress: a bar on stderr.

    Raises:
        ArgumentError: sizes below 1, or shards made with other settings are in the way.
        StateLockedError: another maker writes there.
    """
    for option, value in (("samples", maker.samples), ("shard_samples", shard_samples), ("jobs", jobs or 1)):
        if value < 1:
            raise ArgumentError(f"{option}={value}: at least 1 is needed.", expected="at least 1", found=value)
    start = time.monotonic()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-maker.samples // shard_samples)
    paths = [folder / f"{maker.name}-{number:06d}.tar" for number in range(count)]
    with _only_writer(folder):
        _claim(folder / f"{maker.name}.settings.json", {**maker.settings(), "shard_samples": shard_samples})
        wanted = [number for number, path in enumerate(paths) if not path.exists()]
        _make_shards(maker, paths, wanted, shard_samples, jobs, progress=progress)
    return MadeCorpus(
        pattern=str(folder / f"{maker.name}-{{000000..{count - 1:06d}}}.tar"),
        urls=tuple(map(str, paths)),
        samples=maker.samples,
        size_bytes=sum(path.stat().st_size for path in paths),
        made=len(wanted),
        seconds=time.monotonic() - start,
    )


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder: two makers would write the same temporary names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateLockedError(
                f"Another maker writes to {folder}: wait for it, or choose another --out."
            ) from error
        yield
    finally:
        os.close(descriptor)


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write down what the shards here are made of, or check that it is the same."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(settings, indent=1, sort_keys=True))
        temporary.replace(path)
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ArgumentError(f"{path} is damaged ({error}): remove it and the shards beside it.") from error
    names = sorted(set(settings) | set(found))
    differing = [
        f"{name} {found.get(name)!r} → {settings.get(name)!r}"
        for name in names
        if found.get(name) != settings.get(name)
    ]
    if differing:
        raise ArgumentError(
            f"{path.parent} holds shards made with other settings ({'; '.join(differing)}): choose another --out, or "
            "remove them.",
            expected=settings,
            found=found,
        )


def _make_one(maker: Maker, path: Path, first: int, stop: int) -> int:
    write_shard(path, maker.make(first, stop))
    return stop - first


def _make_shards(
    maker: Maker, paths: list[Path], wanted: list[int], shard_samples: int, jobs: int | None, *, progress: bool
) -> None:
    bounds = [(number, number * shard_samples, min((number + 1) * shard_samples, maker.samples)) for number in wanted]
    tasks = [(maker, paths[number], first, stop) for number, first, stop in bounds]
    there = maker.samples - sum(stop - first for _, first, stop in bounds)
    with _bar(f"making {maker.name}", maker.samples, there, show=progress and bool(tasks)) as advance:
        for done in _run(tasks, jobs):
            advance(done)


def _run(tasks: list[tuple[Maker, Path, int, int]], jobs: int | None) -> Iterator[int]:
    """Give the sample count of each task as it ends."""
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield _make_one(*task)
        return
    from joblib import Parallel, delayed  # noqa: PLC0415  (80 ms)

    parallel = Parallel(n_jobs=jobs or -1, return_as="generator_unordered")
    yield from parallel(delayed(_make_one)(*task) for task in tasks)


@contextlib.contextmanager
def _bar(title: str, total: int, done: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    from rich.console import Console  # noqa: PLC0415  (100 ms)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
