"""Patterns → the shards of a corpus.

Takes what a user writes: a URL, a brace or glob pattern, a .txt file of them, or a list of any of these; gives
normalised URLs in order. Acts: it lists folders and reads .txt files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from seta_stream.corpus.braces import expand_braces, refuse_many
from seta_stream.corpus.index import SUFFIX
from seta_stream.errors import ArgumentError, CorpusError
from seta_stream.store import Options, is_local, is_web, join, local_path, normalise, parsed, protocol_of, store_for

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_GLOB: Final = frozenset("*?[")


def expand(urls: Urls, storage_options: Options | None = None) -> list[str]:
    """Return the shards that `urls` means, normalised, each once.

    A list keeps its order, a brace pattern gives its own, what a glob finds is sorted. A local name that exists as it
    is written is taken as it is, whatever characters it holds. Lines of a .txt file are patterns too, relative to the
    file's folder; empty lines and lines that begin with "#" are passed over.

    Args:
        urls: a pattern, or several.
        storage_options: what the fsspec file system is given.

    Raises:
        CorpusError: nothing matches, or one shard is named twice.
        ArgumentError: a pattern is malformed, or of a kind that has no byte ranges.
    """
    patterns = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    found: list[str] = []
    for pattern in patterns:
        for url in _expand_one(os.fspath(pattern), storage_options, listed=False):
            found.append(url)
            refuse_many(len(found), os.fspath(pattern))
    if not found:
        raise CorpusError(
            f"Cannot open a corpus from {patterns!r}: it names no shard. Pass at least one URL, pattern or .txt list.",
            expected="at least one shard",
            found=0,
        )
    seen: set[str] = set()
    for url in found:
        if url in seen:
            raise CorpusError(
                f"Cannot open the corpus: {url} is named twice, so each of its samples would have two ids. Remove one "
                "of the two, or make the patterns exclusive.",
                shard=url,
                expected="each shard once",
                found="twice",
            )
        seen.add(url)
    return found


def options_at(url: str, urls: Urls, storage_options: Options | None, given: Options | None) -> Options | None:
    """Return the options of what lies beside a corpus, as a state: `given`, else the shards' where the protocol is one.

    Of shards that a .txt file lists only the lines tell the protocol: they are taken to lie where `url` does.

    Raises:
        ArgumentError: options are no mapping.
    """
    for options in (storage_options, given):
        if options is not None and not isinstance(options, Mapping):
            raise ArgumentError(
                f"storage_options and state_options are dicts of options; got a {type(options).__name__}. Write "
                'storage_options={"anon": True}.'
            )
    if given is not None:
        return given
    patterns = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    first = os.fspath(patterns[0]) if patterns else ""
    is_beside = _is_list(first) or protocol_of(first) == protocol_of(url)
    return storage_options if is_beside else None


def _is_list(pattern: str) -> bool:
    return pattern.lower().endswith(".txt")


def _expand_one(pattern: str, options: Options | None, *, listed: bool) -> Iterator[str]:
    protocol_of(pattern)
    if "\0" in pattern:
        raise CorpusError(
            f"Cannot open {pattern!r}: no file's name holds a NUL. Mend the list or pattern.",
            expected="a URL",
            found=pattern,
        )
    if _is_list(pattern) and not listed:
        yield from _expand_list(pattern, options)
    elif _is_file(pattern):
        yield normalise(pattern)
    else:
        for url in expand_braces(pattern):
            if not _is_glob(url) or _is_file(url):
                yield _checked(url)
            else:
                yield from _expand_glob(url, options)


def _is_file(url: str) -> bool:
    """Say whether a URL is that of a local file; a name that no file can have is of none."""
    return is_local(url) and os.path.isfile(local_path(url))  # noqa: PTH113  (which raises for a name too long)


def _is_glob(url: str) -> bool:
    """Say whether a URL is a pattern; in one of a web server, "?" begins a query and "[" may stand in an address."""
    return "*" in url if is_web(url) else not _GLOB.isdisjoint(url)


def _checked(url: str) -> str:
    if is_local(url) and os.path.isdir(local_path(url)):  # noqa: PTH112  (as _is_file)
        raise CorpusError(
            f"Cannot open {url} as a shard: it is a folder. Name the shards in it, as {url.rstrip('/')}/*.tar.",
            shard=url,
            expected="a tar file",
            found="a folder",
        )
    if not is_local(url):
        parsed(url)
    return normalise(url)


def _expand_glob(pattern: str, options: Options | None) -> list[str]:
    if is_web(pattern):
        raise ArgumentError(
            f"Cannot expand {pattern!r}: a web server gives no list of its files. Name the shards by a brace pattern, "
            "as train-{00000..00149}.tar, or in a .txt file of URLs.",
            expected="a brace pattern or a list",
            found=pattern,
        )
    found = [normalise(url) for url in store_for(pattern, options).glob(pattern) if not url.endswith(SUFFIX)]
    found = [url for url in found if not (is_local(url) and local_path(url).is_dir())]
    if not found:
        raise CorpusError(
            f"Cannot open a corpus from {pattern!r}: nothing matches it. Check the folder and the pattern.",
            expected="at least one match",
            found=0,
        )
    return found


def _expand_list(url: str, options: Options | None) -> Iterator[str]:
    """Expand each line of a .txt file; a line may not name another .txt, which could name this one."""
    folder = url.rpartition("/")[0] if not is_local(url) else str(local_path(url).parent)
    lines = store_for(url, options).read(url).decode("utf-8", "surrogateescape").splitlines()
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        if _is_list(line):
            raise CorpusError(
                f"Cannot follow {line!r} in {url}: a list of shards may not name another list. Write its lines here.",
                shard=url,
                expected="URLs of shards",
                found=line,
            )
        relative = is_local(line) and "://" not in line and not line.startswith(("/", "~"))
        yield from _expand_one(join(folder, line) if relative else line, options, listed=True)
