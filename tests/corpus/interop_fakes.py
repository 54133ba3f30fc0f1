"""What the tests of interop share: shards in memory, and indexes made of them by tarfile alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence

from corpus_tars import tar_bytes
from hypothesis import strategies as st

from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.errors import ShardChangedError
from seta_stream.store import ObjectInfo
from seta_stream.store.objects import LateAnswer, short_read

URL = "mem://b/train-0.tar"

DIALECTS = {
    "ustar": (tarfile.USTAR_FORMAT, {}),
    "gnu": (tarfile.GNU_FORMAT, {}),
    "pax": (tarfile.PAX_FORMAT, {}),
    "pax-always": (tarfile.PAX_FORMAT, {"mtime": 1.5}),
}


class MemoryFile:
    """A shard in memory that counts what is read of it."""

    url = URL

    def __init__(self, data: bytes, *, is_near: bool = True) -> None:
        self.data = data
        self.is_near = is_near
        self.info = ObjectInfo(len(data), "mtime:1")
        self.reads: list[tuple[int, int]] = []
        self.calls = 0
        self.is_changed = False

    def read(self, offset: int, length: int) -> bytes:
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        self.calls += 1
        self.reads += spans
        for offset, length in spans:
            if not 0 <= offset <= offset + length <= len(self.data):
                raise short_read(URL, offset, length, max(0, len(self.data) - offset))
        return [self.data[offset : offset + length] for offset, length in spans]

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[LateAnswer]:
        return [LateAnswer(self.read, offset, length) for offset, length in spans]

    def check(self) -> None:
        if self.is_changed:
            raise ShardChangedError(f"{URL} is truncated or changed", shard=URL)

    def advise_scattered(self) -> None:
        """Memory has no read-ahead."""

    def close(self) -> None:
        """Nothing is held."""


def scanned(data: bytes) -> ShardIndex:
    """Return the index that a scan of tar bytes gives."""
    from corpus_tars import members

    return ShardIndex.of(group(members(data), URL), shard_size=len(data), shard_version="mtime:1")


def tar_members(data: bytes) -> list[tarfile.TarInfo]:
    """Return the regular members of a tar, as tarfile sees them."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return [info for info in tar if info.isreg()]


def member_list(data: bytes, **more: object) -> bytes:
    """Return an index as hfutils makes it."""
    files = {info.name: {"offset": info.offset_data, "size": info.size} for info in tar_members(data)}
    return json.dumps({"filesize": len(data), "files": files, **more}).encode()


def dali_text(data: bytes, version: str = "v1.2", *, error: int = 0) -> bytes:
    """Return an index as DALI's tool makes it, by its own rule for names; offsets wrong by `error` after extensions."""
    samples: list[tuple[str, list[str]]] = []
    for info in tar_members(data):
        dot = info.name.find(".", info.name.rfind("/") + 1)
        key, ext = info.name[:dot], info.name[dot + 1 :]
        if not key or key.endswith("/"):
            continue
        if not samples or samples[-1][0] != key:
            samples.append((key, []))
        is_extended = info.offset_data - info.offset > 512
        words = [ext, str(info.offset_data + (error if is_extended else 0)), str(info.size), info.name]
        samples[-1][1].extend(words if version == "v1.2" else words[:3])
    lines = [" ".join(words) for _, words in samples]
    return "\n".join([f"{version} {len(samples)}", *lines, ""]).encode("utf-8", "surrogateescape")


def energon_idx(data: bytes) -> bytes:
    """Return an index as Energon's rule makes it."""
    import re

    offsets, last = [], None
    for info in tar_members(data):
        match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", info.name)
        if re.match(r"__[^/]*__($|/)", info.name) or match is None:
            continue
        if match[1] != last:
            offsets.append(info.offset)
            last = match[1]
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        tar.getmembers()
        return b"".join(number.to_bytes(8, "little") for number in [*offsets, tar.offset])


_STEMS = ["a", "b", "dir/c", "./d", "é", "__x__/e", "deep/er/" + "n" * 120]
_EXTS = [".jpg", ".JPG", ".txt", ".tar.gz", "", "/"]


@st.composite
def shards(draw: st.DrawFn, *, utf8_only: bool = True) -> bytes:
    """Give tar bytes: samples of all kinds among folders, notes and names without a field, in any dialect."""
    dialect = draw(st.sampled_from(sorted(DIALECTS)))
    layout, facts = DIALECTS[dialect]
    stems = _STEMS if utf8_only else [*_STEMS, "\udcff"]
    files: dict[str, bytes] = {}
    for number in range(draw(st.integers(0, 14))):
        stem = draw(st.sampled_from([stem for stem in stems if dialect != "ustar" or len(stem) < 100]))
        for ext in draw(st.lists(st.sampled_from(_EXTS), min_size=1, max_size=3, unique_by=str.lower)):
            files[f"{stem}{number}{ext}"] = b"x" * draw(st.sampled_from([0, 1, 511, 512, 513, 3000]))
        if draw(st.integers(0, 9)) == 0:
            files[f"{stem}{number}/.hidden"] = b"h"
    if draw(st.booleans()):
        files["__notes__"] = b"n" * draw(st.sampled_from([0, 700]))
    return tar_bytes(((name, b"" if name.endswith("/") else body) for name, body in files.items()), layout, **facts)
