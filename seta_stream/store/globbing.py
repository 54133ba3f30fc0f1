"""Patterns over folders that can only be listed. Pure but for the listing, which the caller brings.

fsspec's own glob walks folders and leaves out those that it cannot list, so a store that throttles for a moment would
make a corpus smaller without a word. Here whatever the listing raises is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

Listing = Callable[[str], Iterable[tuple[str, bool]]]
"""Folder URL → (name, whether it is a folder) of everything directly in it."""

_MAGIC = re.compile(r"[*?[]")


def find(pattern: str, listing: Listing) -> Iterator[str]:
    """Yield the URLs of the objects that match, spelt as the pattern begins.

    As with glob.glob: `*` and `?` stay within a name and do not match a leading dot, `**` alone between slashes is any
    number of folders, and `[a-c]` is one character.

    Args:
        pattern: a URL.
        listing: lists a folder.
    """
    parts = pattern.split("/")
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    return _below("/".join(parts[:first]), parts[first:], listing)


def _below(folder: str, parts: list[str], listing: Listing) -> Iterator[str]:
    head, *rest = parts
    if head == "**" and rest:
        yield from _below(folder, rest, listing)
    for name, is_folder in sorted(listing(folder)):
        url = f"{folder}/{name}"
        if head == "**":
            if name.startswith("."):
                continue
            if is_folder:
                yield from _below(url, parts, listing)
            elif not rest:
                yield url
        elif _matches(name, head):
            if rest and is_folder:
                yield from _below(url, rest, listing)
            elif not rest and not is_folder:
                yield url


def _matches(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))
