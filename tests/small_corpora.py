"""Small corpora, written by tarfile alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

Member = tuple[str, bytes]
MakeCorpus = Callable[..., list[str]]


def write_tar(path: Path, members: Iterable[Member], *, mode: str = "w", layout: int = tarfile.PAX_FORMAT) -> Path:
    """Write (name, bytes) members in order."""
    with tarfile.open(path, mode, format=layout) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def text_members(first: int, count: int, *, length: int = 20) -> list[Member]:
    """Return txt + cls members of samples first … first + count − 1; each text is its id, padded."""
    members = []
    for number in range(first, first + count):
        members.append((f"{number:08d}.txt", f"{number}".ljust(length).encode()))
        members.append((f"{number:08d}.cls", str(number % 10).encode()))
    return members
