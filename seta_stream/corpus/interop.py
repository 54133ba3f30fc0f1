"""Other tools' indexes: found beside a shard, read, compared with it, and made ours.

Takes URLs; gives ShardIndexes. Acts: lists folders, reads index files and headers of shards. Nothing of a foreign file
is trusted before it was compared with the shard, no name in one becomes a path, and pickled indexes are never loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seta_stream.corpus import interop_dali, interop_energon, interop_lists, interop_sqlite
from seta_stream.corpus.folders import Folders
from seta_stream.corpus.index import SUFFIX, ShardIndex
from seta_stream.corpus.interop_checking import Checked, check
from seta_stream.corpus.interop_claims import Claims, claims_of, largest_file, refusal
from seta_stream.corpus.places import cache_url, fits
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.errors import CorpusError, IndexFileError, ReadError, SetaStreamWarning, UnsupportedError
from seta_stream.store import ObjectInfo, Options, is_local, local_path, store_for

KINDS: Final = ("seta", "energon", "dali", "webshart", "ratarmount")
"""Kinds of index that are read, best first."""
ADOPTED: Final = ("seta", "energon", "dali", "webshart")
"""Kinds that a stream uses on its own: no SQLite file is opened that nobody named."""
_NOTES_BYTES: Final = 64 << 20
_LEVELS: Final = 3
"""Folders, the shard's own first, in which Energon's `.nv-meta` is looked for."""


@dataclass(frozen=True)
class Found:
    """A file that may be the index of a shard.

    Args:
        kind: what its name says it is.
        url: where it lies.
    """

    kind: str
    url: str


@dataclass(frozen=True, eq=False)
class Adopted:
    """A shard whose index was read and agrees with it.

    Args:
        kind: of the index that was used; "scan" where there was none, and the shard was scanned.
        source: its URL; the shard's where it was scanned.
        checked: members and our index.
        notes: what a person should know.
    """

    kind: str
    source: str
    checked: Checked
    notes: tuple[str, ...]


def candidates(url: str) -> list[Found]:
    """Return where each tool puts the index of a shard, by its name alone, best first."""
    if "?" in url and not is_local(url):  # what is signed is one object, and no neighbour of it
        return []
    folder, _, name = url.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return [
        Found("seta", f"{folder}/{name}{SUFFIX}"),
        Found("seta", cache_url(url)),
        # Either of the two may hold what the other's name promises; what it is shows when it is read.
        Found("energon", f"{folder}/{interop_energon.idx_name(name)}"),
        Found("dali", f"{folder}/{interop_dali.idx_name(name)}"),
        Found("webshart", f"{folder}/{stem}.json"),
        Found("ratarmount", f"{folder}/{name}.index.sqlite"),
        Found("wids", f"{folder}/{name}.index"),
    ]


def lying_beside(urls: Sequence[str], folders: Folders, kinds: Sequence[str] = ADOPTED) -> list[tuple[Found, ...]]:
    """Return, for each shard, the indexes of some kinds that are there; every folder is looked into once."""
    wanted = [[found for found in candidates(url) if found.kind in kinds] for url in urls]
    by_folder: dict[str, list[str]] = {}
    for found in (found for each in wanted for found in each):
        folder, _, name = found.url.rpartition("/")
        by_folder.setdefault(folder, []).append(name)
    there = {f"{folder}/{name}" for folder, names in by_folder.items() for name in folders.present(folder, names)}
    return [tuple(found for found in each if found.url in there) for each in wanted]


def adopt(url: str, options: Options | None = None) -> ShardIndex | None:
    """Return our index of a shard, made of a foreign one beside it; None where there is none that holds.

    What does not agree with the shard is warned about.

    Args:
        url: the shard, normalised.
        options: what the fsspec file system is given.
    """
    index, notes = adopt_quietly(url, options)
    for note in notes:
        warnings.warn(note, SetaStreamWarning, stacklevel=2)
    return index


def adopt_quietly(
    url: str,
    options: Options | None = None,
    *,
    info: ObjectInfo | None = None,
    found: Sequence[Found] | None = None,
) -> tuple[ShardIndex | None, tuple[str, ...]]:
    """Return what `adopt` does, the warnings as values.

    Args:
        url, options: as for adopt.
        info: the version of the shard that is wanted, where it is known.
        found: what lies beside the shard, as `lying_beside` gives it; None to look.
    """
    foreign = Foreign(options)
    notes: list[str] = []
    for one in lying_beside([url], foreign.folders)[0] if found is None else found:
        try:
            checked = foreign.checked(one, url, info)
        except IndexFileError as error:
            if one.kind != "seta":  # ours of an older version is passed over in silence, as everywhere
                notes.append(f"{error} It is not used.")
        except (CorpusError, ReadError):  # the scan that follows meets it too, and says what it is
            continue
        else:
            if checked is not None:
                return checked.index, (*notes, *checked.notes)
    return None, tuple(notes)


def came_along(index: ShardIndex, info: ObjectInfo) -> bool:
    """Say whether our index may be of this shard as it lay in another store: made on a disk, say, and copied with it.

    Times and ETags cannot be compared with each other, so the size decides, and then the shard's own headers.
    """
    return index.shard_size == info.size and index.shard_version.partition(":")[0] != info.version.partition(":")[0]


class Foreign:
    """Reads the indexes of other tools, and ours, for the shards of one store.

    Args:
        options: what the fsspec file system is given.
        folders: what lies in the store's folders; None to look.
    """

    def __init__(self, options: Options | None, folders: Folders | None = None) -> None:
        self._options = options
        self.folders = Folders(options) if folders is None else folders
        self._data_sets: dict[str, _DataSet | None] = {}

    def checked(
        self, found: Found, url: str, info: ObjectInfo | None, *, whole: bool = False, kind: str | None = None
    ) -> Checked | None:
        """Return what an index is worth, compared with its shard; None where the file is something else.

        Args:
            found: the index.
            url: the shard.
            info: the version of it that is wanted, where it is known.
            whole: whether every header is read.
            kind: what the file must turn out to be; None for anything.

        Raises:
            IndexFileError: the index is damaged, hostile, too large, or does not agree with the shard.
            UnsupportedError: it is pickled, or an SQLite file in a bucket.
            CorpusError, ReadError: as for scanning.scan_shard.
        """
        file = store_for(url, self._options).open(url, info)
        try:
            claims = self._claims(found, url, file.info)
            if claims is None or kind not in (None, claims.kind):
                return None
            return check(file, claims, whole=whole)
        finally:
            file.close()

    def best(self, url: str, info: ObjectInfo, lying: Sequence[Found], *, whole: bool = False) -> Adopted:
        """Return the best index of a shard that agrees with it; where there is none, the shard is scanned.

        Args:
            url, info: the shard.
            lying: what lies beside it.
            whole: whether every header is read.

        Raises:
            CorpusError, ReadError: as for scanning.scan_shard.
        """
        notes: list[str] = []
        for found in lying:
            try:
                checked = self.checked(found, url, info, whole=whole)
            except (IndexFileError, UnsupportedError) as error:
                notes.append(str(error) if found.kind == "wids" else f"{error} It is not used.")
                continue
            if checked is not None:
                return Adopted(checked.kind, found.url, checked, (*notes, *checked.notes))
        index = scan_quietly(url, self._options, info=info).index
        file = store_for(url, self._options).open(url, info)
        try:
            checked = check(file, claims_of(index, url, url), whole=whole)
        finally:
            file.close()
        return Adopted("scan", url, checked, (*notes, *checked.notes))

    def _claims(self, found: Found, url: str, info: ObjectInfo) -> Claims | None:
        if found.kind == "wids":
            raise _pickled(found.url)
        if found.kind == "ratarmount":
            return interop_sqlite.read_ratarmount(_local(found.url), found.url, info.size)
        data = self._read(found.url, largest_file(info.size))
        if found.kind == "seta":
            index = ShardIndex.from_bytes(data, found.url)
            if not (fits(index, info) or came_along(index, info)):
                raise refusal(found.url, f"it was made of another version of {url}", shard=url)
            return claims_of(index, found.url, url)
        if interop_dali.is_dali(data):
            return interop_dali.read_idx(data, found.url, info.size)
        if found.kind == "webshart":
            is_one = interop_lists.is_member_list(data)
            return interop_lists.read_member_list(data, found.url, info.size) if is_one else None
        return self._energon(interop_energon.read_idx(data, found.url, info.size), url, info)

    def _energon(self, claims: Claims, url: str, info: ObjectInfo) -> Claims:
        """Compare a `.tar.idx` with what the data set's notes say; return what lists more."""
        known = self._data_set(url.rpartition("/")[0])
        name = url[len(known.root) + 1 :] if known is not None else ""
        if known is None or claims.starts is None or name not in known.samples:
            return claims
        number, samples = known.samples[name]
        if samples != len(claims.starts):
            raise refusal(
                claims.source,
                f"it has {len(claims.starts)} samples, and {known.source} counts {samples}",
                shard=url,
                expected=samples,
                found=len(claims.starts),
            )
        path = known.sqlite
        if path is None:
            return claims
        more = interop_sqlite.read_energon(path, str(path), number, info.size)
        if more.starts is None or more.starts.tolist() != claims.starts.tolist() or more.end != claims.end:
            raise refusal(claims.source, f"its samples begin elsewhere than {path} says", shard=url)
        return more

    def _data_set(self, folder: str) -> _DataSet | None:
        """Return the Energon data set that a folder belongs to, None if it belongs to none; read once."""
        if folder not in self._data_sets:
            self._data_sets[folder] = self._find_data_set(folder)
        return self._data_sets[folder]

    def _find_data_set(self, folder: str) -> _DataSet | None:
        root = folder
        for _ in range(_LEVELS):
            meta = f"{root}/{interop_energon.META}"
            present = self.folders.present(meta, [interop_energon.SQLITE, *(name for name, _ in _INFOS)])
            for name, read in _INFOS:
                if name in present:
                    source = f"{meta}/{name}"
                    counts = read(self._read(source, _NOTES_BYTES), source)
                    has_sqlite = interop_energon.SQLITE in present and is_local(meta)
                    path = local_path(f"{meta}/{interop_energon.SQLITE}") if has_sqlite else None
                    numbered = {shard: (number, count) for number, (shard, count) in enumerate(counts.items())}
                    return _DataSet(root, source, numbered, path)
            root = root.rpartition("/")[0]
            if not root or root.endswith(("/", ":")):
                break
        return None

    def _read(self, url: str, most: int) -> bytes:
        store = store_for(url, self._options)
        size = store.info(url).size
        if size > most:
            raise refusal(url, f"it has {size} bytes, and {most} at most are read", expected=most, found=size)
        return store.read(url)


@dataclass(frozen=True)
class _DataSet:
    """An Energon data set: its folder and notes, each shard's number and samples, and its SQLite file if it is near."""

    root: str
    source: str
    samples: dict[str, tuple[int, int]]
    sqlite: Path | None


_INFOS: Final[tuple[tuple[str, Callable[[bytes, str], dict[str, int]]], ...]] = (
    (interop_energon.INFO_JSON, interop_lists.read_shard_counts),
    (interop_energon.INFO_YAML, interop_energon.read_info_yaml),
)


def _pickled(url: str) -> UnsupportedError:
    return UnsupportedError(
        f"{url} is an index of wids, which is a Python pickle: loading one runs whatever code it holds, so it is "
        "never loaded. `seta-stream index` makes an index of the shard; wids' JSON file of counts can be compared, by "
        "`seta-stream convert --counts`.",
        expected="an index that is data",
        found="a pickle",
    )


def _local(url: str) -> Path:
    if is_local(url):
        return local_path(url)
    raise UnsupportedError(
        f"Cannot read {url}: SQLite files are read from this machine's disk alone. Copy the file and the shard, or run "
        "`seta-stream index`.",
        expected="a local file",
        found=url,
    )
